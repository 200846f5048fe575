//! The Engine.IO endpoint: handshakes, long-polling, and the way of its WebSockets into the engine.
//!
//! ```text
//! checks, in this order: transport, sid, method, upgrade header, Origin, EIO version
//!   GET  without sid --> Open  --> 0{..}      GET with sid --> Get --> packets
//!   POST with sid --> PostBegin, body, Post --> ok
//!   WebSocket, no sid --> a new session       with sid --> Check, then a probe
//! ```
//! Source: wire reference, section 2.

use super::answers::{HTML, abort, answer_with, body_of, finish, json_error, plain_status, preflight, unavailable};
use super::origin::{Origins, Verdict};
use super::places::Place;
use crate::bridge::ConnKey;
use crate::conn::{Connection, Probe, Settings};
use crate::engine::{Poll, PollAnswer, PollCall, ShardHandle, SocketOptions};
use crate::peer::{RELAY, Relay};
use crate::wire::engineio::{HandshakeError, Query, Sid, Transport};
use axum::Router;
use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, ORIGIN, UPGRADE};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a POST's body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// The way to the sessions of other edges; `None`: there are none.
    pub relay: Option<Relay>,
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
    /// The session is of another edge; with `true` a WebSocket wants to take it over.
    Elsewhere(Sid, bool),
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
        Ok(Admitted::Open) => endpoint.open(request.extensions().get().cloned()).await,
        Ok(Admitted::Session(sid)) => endpoint.session(request, sid).await,
        Ok(Admitted::Elsewhere(sid, upgrade)) => match &endpoint.relay {
            Some(relay) if upgrade => return relay.upgrade(request, sid).await,
            Some(relay) => relay.poll(request, sid).await,
            None => json_error(HandshakeError::SessionUnknown),
        },
    };
    finish(&mut response, allowed);
    response
}

impl EngineIoEndpoint {
    fn admit(&self, request: &Request, upgrade: bool, refused_origin: bool) -> Result<Admitted, HandshakeError> {
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let transport = query.transport()?;
        let sid = query.sid()?;
        let elsewhere = sid.is_some_and(|sid| self.relay.is_some() && !self.owns(&sid));
        if let Some(sid) = sid
            && !elsewhere
        {
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
        // Relays come in by the peer port.
        if refused_origin || request.headers().contains_key(RELAY) {
            return Err(HandshakeError::Forbidden);
        }
        if sid.is_none() {
            query.version()?;
        }
        Ok(match (sid, transport) {
            (Some(sid), _) if elsewhere => Admitted::Elsewhere(sid, upgrade),
            (None, Transport::Polling) => Admitted::Open,
            (None, Transport::WebSocket) => Admitted::OpenWebSocket,
            (Some(sid), Transport::Polling) => Admitted::Session(sid),
            (Some(sid), Transport::WebSocket) => Admitted::Probe(sid),
        })
    }

    /// Whether a sid names this edge.
    pub(crate) fn owns(&self, sid: &Sid) -> bool {
        sid.edge == self.settings.edge_number.get()
    }

    /// The session's shard, when its sid names this edge.
    fn shard(&self, sid: &Sid) -> Option<&ShardHandle> {
        self.shards.get(usize::from(sid.shard)).filter(|_| self.owns(sid))
    }

    /// Serves a GET or a POST of a session of this edge.
    pub(crate) async fn session(&self, request: Request, sid: Sid) -> Response {
        if request.method() == Method::GET { self.get(sid).await } else { self.post(request, sid).await }
    }

    /// Asks a shard; `None`: it is overloaded or gone.
    async fn call(&self, shard: &ShardHandle, call: PollCall) -> Option<PollAnswer> {
        let (answer, answered) = oneshot::channel();
        shard.poll(Poll { call, answer }).ok()?;
        answered.await.ok()
    }

    async fn open(&self, place: Option<Arc<Place>>) -> Response {
        // A sid without the edge's number would lead nobody here.
        if let Some(relay) = &self.relay
            && !relay.ready().await
        {
            return unavailable();
        }
        let shard = &self.shards[usize::from(self.own)];
        let connection = (self.connect)(&self.settings, true);
        match self.call(shard, PollCall::Open { connection, place }).await {
            Some(PollAnswer::Opened { packets, .. }) => told(shard, body_of(&packets)),
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
            Some(PollAnswer::Packets(packets)) => told(shard, body_of(&packets)),
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
        shard.stats().polling_received_bytes.fetch_add(body.len() as u64, Relaxed);
        let answer = self.call(shard, PollCall::Post { key, secret, body: body.into() }).await;
        guard.armed = false;
        match answer {
            Some(PollAnswer::Accepted) => answer_with(StatusCode::OK, HTML, "ok".into()),
            other => refusal(other.as_ref()),
        }
    }

    /// Lets a WebSocket probe for a session of this edge.
    pub(crate) async fn probe(&self, request: Request, sid: Sid) -> Response {
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

/// Counts the bytes of an answer with packets.
fn told(shard: &ShardHandle, answer: Response) -> Response {
    shard.stats().polling_sent_bytes.fetch_add(answer.body().size_hint().lower(), Relaxed);
    answer
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

fn refusal(answer: Option<&PollAnswer>) -> Response {
    match answer {
        Some(PollAnswer::Unknown) => json_error(HandshakeError::SessionUnknown),
        Some(_) => json_error(HandshakeError::BadRequest),
        None => unavailable(),
    }
}
