//! What tests that speak both protocols over WebSockets share: the handshake, and the events of rooms.

use serde_json::Value;
use std::net::SocketAddr;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;

/// The handshake of Plaza's own protocol in JSON, or of Socket.IO.
pub(crate) fn upgrade(edge: SocketAddr, is_plaza: bool) -> Request {
    let path = if is_plaza { "/ws" } else { "/socket.io/?EIO=4&transport=websocket" };
    let mut request = format!("ws://{edge}{path}").into_client_request().expect("a URL");
    if is_plaza {
        request.headers_mut().insert("sec-websocket-protocol", "plaza.v1.json".parse().expect("a header"));
    }
    request
}

/// Position and fields of the stored event that a text brings, if it is one; of Socket.IO in the format `event`.
pub(crate) fn stored_event(text: &str, is_plaza: bool) -> Option<(String, Value)> {
    let event: Value = match is_plaza {
        true => serde_json::from_str::<Value>(text).ok()?["event"].take(),
        false => serde_json::from_str::<Value>(text.strip_prefix("42")?).ok()?[1].take(),
    };
    Some((event["position"].as_str()?.to_owned(), event))
}
