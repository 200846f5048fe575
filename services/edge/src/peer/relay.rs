//! This edge asks the owner of a session.

use super::{ANSWER, Peers, RELAY};
use crate::accept::{HEADER_TIMEOUT, answers};
use crate::wire::engineio::{HandshakeError, Sid};
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// Time for a connection to the owner.
const CONNECT: Duration = Duration::from_secs(1);
/// Idle connections kept to one owner, and how long.
const IDLE_CONNECTIONS: usize = 16;
const IDLE: Duration = Duration::from_secs(3);
// While a request waits for a connection to come back, another one is opened, and if it comes too late it is kept
// though nothing was ever said on it. The owner closes such a one as late with its first head: a request that went
// out at that moment would be lost, and its session with it.
const _: () = assert!(IDLE.as_millis() + 1_000 <= HEADER_TIMEOUT.as_millis());
/// An owner that vanished without a word is found by probes, in about ten seconds.
const PROBE: Duration = Duration::from_secs(3);
const PROBES: u32 = 3;
/// Requests at once.
const REQUESTS: usize = 8_192;
/// Largest answer: what may wait in a polling session, or one message, and base64 of either.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// Headers of a POST that its owner looks at.
const POST_HEADERS: [HeaderName; 1] = [CONTENT_TYPE];
/// Headers of an upgrade.
const UPGRADE_HEADERS: [HeaderName; 4] = [CONNECTION, UPGRADE, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION];

/// The way to other edges, of one shard: its connections live on that shard's runtime.
#[derive(Clone, Debug)]
pub struct Relay {
    peers: Peers,
    client: Client<HttpConnector, Body>,
    requests: Arc<Semaphore>,
    /// A GET waits no longer than this for its packets.
    longest: Duration,
}

/// What can come of a relay: labels of the metric.
pub(super) const RESULTS: [&str; 4] = ["ok", "unknown", "dead", "full"];

/// Why the owner did not answer.
enum Failed {
    /// No edge has this number, or this edge has no key yet.
    Unknown,
    /// It is dead, or refuses.
    Dead,
    /// Too much is relayed already.
    Full,
}

impl Failed {
    const fn label(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Dead => "dead",
            Self::Full => "full",
        }
    }
}

impl Relay {
    /// Relays of one shard. The owner of a waiting GET answers within `longest`, its ping interval and
    /// timeout.
    pub fn new(peers: Peers, longest: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_keepalive(Some(PROBE));
        connector.set_keepalive_interval(Some(PROBE));
        connector.set_keepalive_retries(Some(PROBES));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector);
        Self { peers, client, requests: Arc::new(Semaphore::new(REQUESTS)), longest }
    }

    /// Waits until this edge has its number, for at most two seconds: before that no sid could name it.
    pub async fn ready(&self) -> bool {
        tokio::time::timeout(ANSWER, self.peers.registration.begun()).await.is_ok()
    }

    /// Serves a GET or POST for a session of another edge.
    pub async fn poll(&self, request: Request, sid: Sid) -> Response {
        let is_get = request.method() == Method::GET;
        let result = self.ask(request, sid, &POST_HEADERS).await;
        let result = match result {
            Ok(answer) => match tokio::time::timeout(self.longest, whole(answer)).await {
                Ok(Some(answer)) => Ok(answer),
                Ok(None) | Err(_) => Err(Failed::Dead),
            },
            Err(failed) => Err(failed),
        };
        self.count(result.as_ref().err());
        match result {
            Ok((StatusCode::OK, body)) if is_get => answers::packets(body),
            Ok((StatusCode::OK, body)) => answers::answer_with(StatusCode::OK, answers::HTML, body.into()),
            Ok((StatusCode::BAD_REQUEST, body)) => {
                answers::answer_with(StatusCode::BAD_REQUEST, answers::JSON, body.into())
            }
            Ok((status, _)) => answers::plain_status(status),
            Err(Failed::Full) => answers::unavailable(),
            Err(Failed::Unknown | Failed::Dead) => answers::json_error(HandshakeError::SessionUnknown),
        }
    }

    /// Relays a WebSocket that wants to take over a session of another edge.
    pub async fn upgrade(&self, mut request: Request, sid: Sid) -> Response {
        let upgrade = request.extensions_mut().remove::<OnUpgrade>();
        let tasks = request.extensions_mut().remove::<TaskTracker>();
        let (Some(upgrade), Some(tasks)) = (upgrade, tasks) else {
            return answers::abort(HandshakeError::BadRequest);
        };
        let Some(place) = self.peers.sockets.place() else {
            self.count(Some(&Failed::Full));
            return answers::unavailable();
        };
        let result = self.ask(request, sid, &UPGRADE_HEADERS).await;
        self.count(result.as_ref().err());
        let answer = match result {
            Ok(answer) => answer,
            Err(Failed::Full) => return answers::unavailable(),
            Err(Failed::Unknown | Failed::Dead) => return answers::abort(HandshakeError::SessionUnknown),
        };
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return refusal(answer).await;
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        copy_headers(answer.headers(), response.headers_mut(), &[CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT]);
        tasks.spawn(place.copy(upgrade, hyper::upgrade::on(answer)));
        response
    }

    /// Asks the owner: the head of its answer, within two seconds.
    async fn ask(&self, request: Request, sid: Sid, headers: &[HeaderName]) -> Result<Response<Incoming>, Failed> {
        let _one = self.requests.try_acquire().map_err(|_| Failed::Full)?;
        let asked = async {
            let addr = self.peers.directory.find(sid.edge).await.ok_or(Failed::Unknown)?;
            let request = self.signed(&addr, request, headers).ok_or(Failed::Unknown)?;
            let answer = self.client.request(request).await.map_err(|error| {
                tracing::debug!(%error, edge = sid.edge, "a relay found nobody");
                Failed::Dead
            })?;
            // Another edge may have come to live at this address.
            if answer.status() == StatusCode::FORBIDDEN { Err(Failed::Dead) } else { Ok(answer) }
        };
        let answer = tokio::time::timeout(ANSWER, asked).await.unwrap_or(Err(Failed::Dead));
        if matches!(answer, Err(Failed::Dead)) {
            self.peers.directory.forget(sid.edge);
        }
        answer
    }

    /// The same request for the owner at `addr`, with a signature and only the headers that matter.
    fn signed(&self, addr: &str, request: Request, headers: &[HeaderName]) -> Option<Request> {
        let (parts, body) = request.into_parts();
        let target: PathAndQuery = parts.uri.path_and_query()?.clone();
        let keys = self.peers.registration.keys();
        let signature = self.peers.signer.sign(&keys, &parts.method, target.as_str())?;
        let authority = addr.parse::<Authority>().ok()?;
        let uri = Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query(target).build().ok()?;
        let mut relayed = Request::new(body);
        (*relayed.method_mut(), *relayed.uri_mut()) = (parts.method, uri);
        copy_headers(&parts.headers, relayed.headers_mut(), headers);
        relayed.headers_mut().insert(RELAY, signature);
        Some(relayed)
    }

    fn count(&self, failed: Option<&Failed>) {
        self.peers.metrics.relays.get_or_create(&[("result", failed.map_or("ok", Failed::label))]).inc();
    }
}

fn copy_headers(from: &HeaderMap, to: &mut HeaderMap, names: &[HeaderName]) {
    for name in names {
        for value in from.get_all(name) {
            to.append(name, value.clone());
        }
    }
}

/// Reads the owner's answer: three digits, and the body. `None`: it died on the way.
async fn whole(answer: Response<Incoming>) -> Option<(StatusCode, Bytes)> {
    let mut body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await.ok()?.to_bytes();
    if body.len() < 3 {
        return None;
    }
    let digits = body.split_to(3);
    Some((StatusCode::from_bytes(&digits).ok()?, body))
}

/// The owner refuses an upgrade, with a short text.
async fn refusal(answer: Response<Incoming>) -> Response {
    let mut response = answers::plain_status(answer.status());
    let text = Limited::new(answer.into_body(), 1_024).collect();
    if let Ok(Ok(text)) = tokio::time::timeout(ANSWER, text).await {
        *response.body_mut() = text.to_bytes().into();
    }
    response
}
