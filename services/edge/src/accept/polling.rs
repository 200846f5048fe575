//! The Engine.IO endpoint: handshakes, long-polling, and the way of its WebSockets into the engine.
//!
//! ```text
//! checks, in this order: transport, sid, method, upgrade header, Origin, EIO version
//!   GET  without sid --> Open  --> 0{..}      GET with sid --> Get --> packets
//!   POST with sid --> PostBegin, body, Post --> ok
//!   WebSocket, no sid --> a new session       with sid --> Check, then a probe
//! ```
//! Source: wire reference, section 2.

use super::origin::{Origins, Verdict};
use crate::bridge::ConnKey;
use crate::conn::{Connection, Packet, Probe, Settings};
use crate::engine::{Poll, PollAnswer, PollCall, ShardHandle, SocketOptions};
use crate::wire::engineio::{HandshakeError, Query, Sid, Transport, append_binary, append_text};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, ORIGIN, UPGRADE, VARY,
};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a POST's body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const HTML: HeaderValue = HeaderValue::from_static("text/html");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=UTF-8");

/// Makes the connection of a new session; `true`: it begins on polling.
pub type MakeConnection = fn(&Arc<Settings>, bool) -> Box<dyn Connection>;

/// One Engine.IO endpoint of one shard's thread.
#[derive(Debug)]
pub struct EngineIoEndpoint {
    /// All shards of this edge, in order: a session may live on another one.
    pub shards: Arc<[ShardHandle]>,
    /// This thread's own, where new sessions are made.
    pub own: u16,
    /// Shared by its connections.
    pub settings: Arc<Settings>,
    /// Pages that may connect.
    pub origins: Arc<Origins>,
    /// Rules of its WebSockets.
    pub options: SocketOptions,
    /// What runs in its sessions.
    pub connect: MakeConnection,
}

/// The endpoint's routes: `path` with and without the slash at its end.
pub fn routes(path: &str, endpoint: EngineIoEndpoint) -> Router {
    let bare = path.trim_end_matches('/');
    Router::new().route(bare, any(handle)).route(&format!("{bare}/"), any(handle)).with_state(Arc::new(endpoint))
}

/// What the checks have found.
enum Admitted {
    Open,
    Session(Sid),
    OpenWebSocket,
    Probe(Sid),
}

async fn handle(State(endpoint): State<Arc<EngineIoEndpoint>>, request: Request) -> Response {
    let headers = request.headers();
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let origin = endpoint.origins.check(headers.get_all(ORIGIN).iter().map(HeaderValue::as_bytes), host);
    let allowed = match origin {
        Verdict::Allowed(origin) => HeaderValue::from_str(origin).ok(),
        Verdict::Absent | Verdict::Refused => None,
    };
    let refused = origin == Verdict::Refused;
    if request.method() == Method::OPTIONS {
        return preflight(allowed);
    }
    let upgrade = headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let mut response = match endpoint.admit(&request, upgrade, refused) {
        Err(error) if upgrade => return abort(error),
        Err(error) => json_error(error),
        Ok(Admitted::OpenWebSocket) => {
            let connection = (endpoint.connect)(&endpoint.settings, false);
            return super::upgrade(
                request,
                None,
                &endpoint.shards[usize::from(endpoint.own)],
                endpoint.options,
                connection,
            );
        }
        Ok(Admitted::Probe(sid)) => return endpoint.probe(request, sid).await,
        Ok(Admitted::Open) => endpoint.open().await,
        Ok(Admitted::Session(sid)) if request.method() == Method::GET => endpoint.get(sid).await,
        Ok(Admitted::Session(sid)) => endpoint.post(request, sid).await,
    };
    finish(&mut response, allowed);
    response
}

impl EngineIoEndpoint {
    fn admit(&self, request: &Request, upgrade: bool, refused_origin: bool) -> Result<Admitted, HandshakeError> {
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let transport = query.transport()?;
        let sid = query.sid()?;
        if let Some(sid) = sid {
            self.shard(&sid).ok_or(HandshakeError::SessionUnknown)?;
        }
        let method = request.method();
        match (sid, method == Method::GET, method == Method::POST) {
            (None, false, _) => return Err(HandshakeError::Method),
            (Some(_), false, false) => return Err(HandshakeError::BadRequest),
            _ => {}
        }
        if (transport == Transport::WebSocket) != upgrade {
            return Err(HandshakeError::BadRequest);
        }
        if refused_origin {
            return Err(HandshakeError::Forbidden);
        }
        if sid.is_none() {
            query.version()?;
        }
        Ok(match (sid, transport) {
            (None, Transport::Polling) => Admitted::Open,
            (None, Transport::WebSocket) => Admitted::OpenWebSocket,
            (Some(sid), Transport::Polling) => Admitted::Session(sid),
            (Some(sid), Transport::WebSocket) => Admitted::Probe(sid),
        })
    }

    /// The session's shard, when its sid names this edge.
    fn shard(&self, sid: &Sid) -> Option<&ShardHandle> {
        if sid.edge == self.settings.edge_number.get() { self.shards.get(usize::from(sid.shard)) } else { None }
    }

    /// Asks a shard; `None`: it is overloaded or gone.
    async fn call(&self, shard: &ShardHandle, call: PollCall) -> Option<PollAnswer> {
        let (answer, answered) = oneshot::channel();
        shard.poll(Poll { call, answer }).ok()?;
        answered.await.ok()
    }

    async fn open(&self) -> Response {
        let shard = &self.shards[usize::from(self.own)];
        let connection = (self.connect)(&self.settings, true);
        match self.call(shard, PollCall::Open(connection)).await {
            Some(PollAnswer::Opened { packets, .. }) => body_of(&packets),
            _ => unavailable(),
        }
    }

    async fn get(&self, sid: Sid) -> Response {
        let Some(shard) = self.shard(&sid) else { return json_error(HandshakeError::SessionUnknown) };
        let (key, secret) = (key_of(&sid), sid.secret);
        let mut guard = Abandon { shard, key, secret, armed: true };
        let answer = self.call(shard, PollCall::Get { key, secret }).await;
        guard.armed = false;
        match answer {
            Some(PollAnswer::Packets(packets)) => body_of(&packets),
            other => refusal(other.as_ref()),
        }
    }

    async fn post(&self, request: Request, sid: Sid) -> Response {
        let Some(shard) = self.shard(&sid) else { return json_error(HandshakeError::SessionUnknown) };
        let (key, secret) = (key_of(&sid), sid.secret);
        match self.call(shard, PollCall::PostBegin { key, secret }).await {
            Some(PollAnswer::Accepted) => {}
            other => return refusal(other.as_ref()),
        }
        // From here on the session waits for this body; without it, it ends.
        let mut guard = Abandon { shard, key, secret, armed: true };
        let body = match tokio::time::timeout(BODY_TIMEOUT, read_body(request, self.settings.max_message_bytes)).await {
            Ok(Ok(body)) => body,
            Ok(Err(BodyError::TooLarge)) => return plain_status(StatusCode::PAYLOAD_TOO_LARGE),
            Ok(Err(BodyError::Broken)) | Err(_) => return json_error(HandshakeError::BadRequest),
        };
        let answer = self.call(shard, PollCall::Post { key, secret, body: body.into() }).await;
        guard.armed = false;
        match answer {
            Some(PollAnswer::Accepted) => answer_with(StatusCode::OK, HTML, "ok".into()),
            other => refusal(other.as_ref()),
        }
    }

    async fn probe(&self, request: Request, sid: Sid) -> Response {
        let Some(shard) = self.shard(&sid) else { return abort(HandshakeError::SessionUnknown) };
        match self.call(shard, PollCall::Check { key: key_of(&sid), secret: sid.secret }).await {
            Some(PollAnswer::Accepted | PollAnswer::WrongTransport) => {
                let connection = Box::new(Probe::new(Arc::clone(&self.settings), sid));
                super::upgrade(request, None, shard, self.options, connection)
            }
            Some(_) => abort(HandshakeError::SessionUnknown),
            None => unavailable(),
        }
    }
}

/// Ends the session when its request goes away half-way: a broken transport.
struct Abandon<'a> {
    shard: &'a ShardHandle,
    key: ConnKey,
    secret: [u8; 16],
    armed: bool,
}

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        if self.armed {
            let (answer, _) = oneshot::channel();
            // When the inbox is full, the heartbeat ends the session a little later.
            let _full =
                self.shard.poll(Poll { call: PollCall::Abandon { key: self.key, secret: self.secret }, answer });
        }
    }
}

/// The sid does not tell the generation: the secret is what names the session.
fn key_of(sid: &Sid) -> ConnKey {
    ConnKey { shard: sid.shard, slot: sid.slot, generation: 0 }
}

/// Why a body is not used.
enum BodyError {
    TooLarge,
    Broken,
}

/// Reads a body of text, never more than `limit` bytes of it.
async fn read_body(request: Request, limit: usize) -> Result<String, BodyError> {
    let headers = request.headers();
    let binary = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/octet-stream"));
    if binary {
        return Err(BodyError::Broken);
    }
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limit as u64) {
        return Err(BodyError::TooLarge);
    }
    let mut body = request.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            return Err(BodyError::TooLarge);
        }
        bytes.extend_from_slice(&data);
    }
    String::from_utf8(bytes).map_err(|_| BodyError::Broken)
}

fn body_of(packets: &[Packet]) -> Response {
    let mut body = Vec::new();
    for packet in packets {
        match packet {
            Packet::Text(text) => append_text(&mut body, text),
            Packet::Binary(bytes) => append_binary(&mut body, bytes),
        }
    }
    answer_with(StatusCode::OK, PLAIN, body.into())
}

fn refusal(answer: Option<&PollAnswer>) -> Response {
    match answer {
        Some(PollAnswer::Unknown) => json_error(HandshakeError::SessionUnknown),
        Some(_) => json_error(HandshakeError::BadRequest),
        None => unavailable(),
    }
}

fn answer_with(status: StatusCode, kind: HeaderValue, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn json_error(error: HandshakeError) -> Response {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
    answer_with(status, JSON, error.body().into())
}

/// A status without a body, after which nothing more of the request is read.
fn plain_status(status: StatusCode) -> Response {
    let mut response = answer_with(status, HTML, Body::empty());
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn unavailable() -> Response {
    plain_status(StatusCode::SERVICE_UNAVAILABLE)
}

/// Refuses a WebSocket before any 101.
fn abort(error: HandshakeError) -> Response {
    let mut response = plain_status(StatusCode::BAD_REQUEST);
    *response.body_mut() = error.to_string().into();
    response
}

fn preflight(allowed: Option<HeaderValue>) -> Response {
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
fn finish(response: &mut Response, allowed: Option<HeaderValue>) {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = allowed {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
}
