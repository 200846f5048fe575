//! The upgrade: checks the handshake, answers 101, and hands the socket to a shard.

use super::head::Counted;
use super::places::Place;
use crate::conn::Connection;
use crate::engine::{Adopt, ShardHandle, SocketOptions};
use crate::trace::TRACER;
use crate::wire::websocket::{Refusal, check_upgrade};
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderValue, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use plaza_kit::chaos::{self, Step};
use plaza_kit::trace::context::TRACEPARENT;
use plaza_kit::trace::{Origin, Span, SpanKind};
use std::io;
use std::sync::Arc;
use tokio_util::task::TaskTracker;

/// Answers a WebSocket handshake. After the 101 is written, the socket and what the client sent behind
/// its handshake go to `shard` (which is the owner of the session for an Engine.IO probe, and this
/// thread's own otherwise). `subprotocol` is named in the answer: one that the client offered.
///
/// A handshake that breaks a rule gets 400 or 426 and `Connection: close`, and `connection` is dropped.
///
/// Must be called by a handler of [`super::serve`].
pub fn upgrade(
    request: Request,
    subprotocol: Option<&'static str>,
    shard: &ShardHandle,
    options: SocketOptions,
    connection: Box<dyn Connection>,
) -> Response {
    // The parts pin the connection's whole read buffer: they are dropped before the 101.
    let (mut parts, _body) = request.into_parts();
    let mut trace = begin(&parts);
    let accept = match check_upgrade(&parts) {
        Ok(accept) => accept,
        Err(refusal) => {
            if let Some(span) = &mut trace {
                span.fail("bad_handshake");
            }
            return refuse(refusal);
        }
    };
    let Some(upgrade) = parts.extensions.remove::<OnUpgrade>() else {
        return refuse(Refusal::Bad("this connection cannot be upgraded"));
    };
    let Some(tasks) = parts.extensions.remove::<TaskTracker>() else {
        return refuse(Refusal::Bad("this connection cannot be upgraded"));
    };
    let place = parts.extensions.remove::<Arc<Place>>();
    drop(parts);
    tasks.spawn(hand_over(upgrade, shard.clone(), options, connection, place, trace));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(subprotocol) = subprotocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
    }
    response
}

/// The span of a handshake, if it is sampled: below the context that the client's request brings.
fn begin(parts: &http::request::Parts) -> Option<Span> {
    let traceparent = parts.headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
    let origin = Origin { traceparent, asked: false, stranger: true };
    let name = if parts.uri.path() == "/ws" { "GET /ws" } else { "GET /socket.io/" };
    let mut span = TRACER.root(name, SpanKind::Server, origin)?;
    span.set("http.request.method", "GET");
    span.set("http.route", name.trim_start_matches("GET "));
    Some(span)
}

/// Waits until the 101 is written, and gives the socket to its shard. A shard without room closes it.
async fn hand_over(
    upgrade: OnUpgrade,
    shard: ShardHandle,
    options: SocketOptions,
    connection: Box<dyn Connection>,
    place: Option<Arc<Place>>,
    trace: Option<Span>,
) {
    // The client may be gone before its 101: then there is nothing to hand over.
    let Ok(upgraded) = upgrade.await else { return };
    if let Ok((socket, leftover)) = dismantle(upgraded) {
        chaos::step(Step::Upgraded);
        let _closed = shard.adopt(Adopt { socket, leftover, connection, options, place, trace });
    }
}

/// Takes the socket out of hyper and out of the runtime.
fn dismantle(upgraded: Upgraded) -> io::Result<(std::net::TcpStream, Bytes)> {
    let parts = upgraded.downcast::<TokioIo<Counted>>().map_err(|_other| io::ErrorKind::Unsupported)?;
    // A copy of its own: the leftover is a view into the connection's read buffer.
    let leftover = Bytes::copy_from_slice(&parts.read_buf);
    Ok((parts.io.into_inner().into_inner().into_std()?, leftover))
}

/// The answer to a handshake that breaks a rule.
fn refuse(refusal: Refusal) -> Response {
    let mut response = Response::new(Body::from(refusal.to_string()));
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if refusal == Refusal::Version {
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    *response.status_mut() = match refusal {
        Refusal::Bad(_) => StatusCode::BAD_REQUEST,
        Refusal::Version => StatusCode::UPGRADE_REQUIRED,
    };
    response
}
