//! Answers of the Engine.IO endpoint, in the protocol's form.
//!
//! Source: wire reference, section 2.

use crate::conn::Packet;
use crate::wire::engineio::{HandshakeError, append_binary, append_text};
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, VARY,
};

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(crate) const HTML: HeaderValue = HeaderValue::from_static("text/html");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=UTF-8");

/// Packets for a GET.
pub(crate) fn body_of(packets: &[Packet]) -> Response {
    let mut body = Vec::new();
    for packet in packets {
        match packet {
            Packet::Text(text) => append_text(&mut body, text),
            Packet::Binary(bytes) => append_binary(&mut body, bytes),
        }
    }
    self::packets(body.into())
}

/// A body of packets.
pub(crate) fn packets(body: Bytes) -> Response {
    answer_with(StatusCode::OK, PLAIN, body.into())
}

/// An answer with its type.
pub(crate) fn answer_with(status: StatusCode, kind: HeaderValue, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// An error of the protocol.
pub(crate) fn json_error(error: HandshakeError) -> Response {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
    answer_with(status, JSON, error.body().into())
}

/// A status without a body, after which nothing more of the request is read.
pub(crate) fn plain_status(status: StatusCode) -> Response {
    let mut response = answer_with(status, HTML, Body::empty());
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Overloaded, or not ready: the client tries again.
pub(crate) fn unavailable() -> Response {
    plain_status(StatusCode::SERVICE_UNAVAILABLE)
}

/// Refuses a WebSocket before any 101.
pub(crate) fn abort(error: HandshakeError) -> Response {
    let mut response = plain_status(StatusCode::BAD_REQUEST);
    *response.body_mut() = error.to_string().into();
    response
}

/// The answer to OPTIONS.
pub(crate) fn preflight(allowed: Option<HeaderValue>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    if allowed.is_some() {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type"));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
    finish(&mut response, allowed);
    response
}

/// The headers of every polling answer.
pub(crate) fn finish(response: &mut Response, allowed: Option<HeaderValue>) {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = allowed {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
}
