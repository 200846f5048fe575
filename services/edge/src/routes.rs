//! The public routes: the page, health, and the two protocols. What concerns every socket is decided
//! here, before the upgrade: whether this edge drains, and whether the page's origin may connect.

use crate::accept::address::{Client, Peer, Proxies};
use crate::accept::origin::{Origins, Verdict};
use crate::accept::places::Places;
use crate::accept::polling::{self, EngineIoEndpoint};
use crate::accept::{Full, upgrade};
use crate::config::Config;
use crate::conn::{self, Chat, Connection, EdgeNumber, EngineIo, PlazaConnection, SocketIo};
use crate::engine::{ShardHandle, SocketOptions};
use crate::metrics::Handshakes;
use crate::peer::{self, Peers, Relay};
use crate::wire::plaza::{JSON_SUBPROTOCOL, PROTO_SUBPROTOCOL};
use crate::wire::websocket::choose_subprotocol;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CONNECTION, HOST, HeaderValue, ORIGIN, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, StatusCode};
use plaza_kit::admin::Readiness;
use plaza_kit::telemetry::LogGate;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// Where Engine.IO is, on the public and on the peer port.
const ENGINE_IO: &str = "/socket.io/";

/// Refusals for a limit that are logged in a second.
static CROWDED: LogGate = LogGate::per_second(1);

/// Refused origins that are logged in a second.
static REFUSED: LogGate = LogGate::per_second(1);

/// What the routes of all shards share.
#[derive(Clone, Debug)]
pub struct Public {
    settings: Arc<conn::Settings>,
    shards: Arc<[ShardHandle]>,
    origins: Arc<Origins>,
    options: SocketOptions,
    readiness: Readiness,
    handshakes: Handshakes,
    proxies: Arc<Proxies>,
    places: Option<Arc<Places>>,
    peers: Peers,
}

/// The doors of one shard's sockets.
#[derive(Clone)]
struct Door {
    public: Public,
    shard: ShardHandle,
}

impl Public {
    /// The routes of an edge with these shards.
    pub fn new(
        config: &Config,
        shards: &[ShardHandle],
        readiness: &Readiness,
        handshakes: Handshakes,
        peers: Peers,
    ) -> Self {
        Self {
            settings: Arc::new(connection_settings(config, peers.number())),
            shards: shards.into(),
            origins: Arc::new(config.allowed_origins.clone()),
            options: SocketOptions { max_message_bytes: config.limits.max_message_bytes, ..SocketOptions::default() },
            readiness: readiness.clone(),
            handshakes,
            proxies: Arc::new(config.proxies.clone()),
            places: Places::new(config.limits.connections_per_address),
            peers,
        }
    }

    /// Routes for the sockets that `shard` accepts.
    pub fn routes(&self, shard: &ShardHandle) -> Router {
        let longest = Duration::from_millis(self.settings.ping_interval_ms + self.settings.ping_timeout_ms);
        let engineio = self.engineio(shard, Some(Relay::new(self.peers.clone(), longest)));
        let door = Door { public: self.clone(), shard: shard.clone() };
        let sockets = Router::new()
            .route("/ws", get(plaza))
            .with_state(door.clone())
            .merge(polling::routes(ENGINE_IO, engineio))
            .layer(middleware::from_fn_with_state(door.clone(), admit));
        Router::new().route("/healthz", get(health)).with_state(door).merge(sockets).merge(crate::web::router())
    }

    /// Routes for other edges.
    pub fn peer_routes(&self) -> Router {
        peer::routes(ENGINE_IO, self.peers.clone(), self.engineio(&self.shards[0], None))
    }

    fn engineio(&self, shard: &ShardHandle, relay: Option<Relay>) -> EngineIoEndpoint {
        EngineIoEndpoint {
            shards: self.shards.clone(),
            own: shard.index(),
            settings: self.settings.clone(),
            origins: self.origins.clone(),
            options: self.options,
            connect: |settings, polling| {
                let application = SocketIo::new(settings.clone(), Chat::new(settings.clone()));
                Box::new(EngineIo::new(settings.clone(), polling, application)) as Box<dyn Connection>
            },
            relay,
        }
    }
}

fn connection_settings(config: &Config, edge_number: EdgeNumber) -> conn::Settings {
    conn::Settings {
        edge_number,
        ping_interval_ms: config.ping_interval.as_millis() as u64,
        ping_timeout_ms: config.ping_timeout.as_millis() as u64,
        max_message_bytes: config.limits.max_message_bytes,
        message_rate: config.limits.message_rate,
        message_burst: config.limits.message_burst,
        open_publish: config.open_publish,
        ..conn::Settings::default()
    }
}

/// For load balancers: whether new sockets are welcome.
async fn health(State(door): State<Door>) -> (StatusCode, &'static str) {
    if door.public.readiness.is_ready() {
        (StatusCode::OK, "ok\n")
    } else if door.public.readiness.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting\n")
    }
}

/// Lets sockets and long-polling in until the drain; a refused origin is logged, and refused by the
/// protocol itself.
async fn admit(State(door): State<Door>, request: Request, next: Next) -> Response {
    // A session that polls goes on until the drain reaches it.
    let known = request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with("sid=")));
    if known {
        return pass(&door, true, request, next).await;
    }
    let protocol = if request.uri().path() == "/ws" { "plaza" } else { "socketio" };
    let websocket = protocol == "plaza" || request.headers().contains_key(UPGRADE);
    let response = pass(&door, false, request, next).await;
    let transport = if websocket { "websocket" } else { "polling" };
    let limit = response.extensions().get::<OverLimit>().is_some();
    let status = if limit { StatusCode::TOO_MANY_REQUESTS } else { response.status() };
    door.public.handshakes.answered(protocol, transport, status.as_u16());
    response
}

async fn pass(door: &Door, known: bool, mut request: Request, next: Next) -> Response {
    // Before the stores have been there a socket only waits for them: no reason to turn it away.
    if !known && door.public.readiness.is_draining() {
        return come_again(1..=15, "draining\n");
    }
    if !known && request.extensions().get::<Full>().is_some() {
        let mut response = come_again(1..=15, "full\n");
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return response;
    }
    if !known && let Some(places) = &door.public.places {
        let client = door.client(&request);
        match places.take(client) {
            Some(place) => drop(request.extensions_mut().insert(place)),
            None => return over_limit(client),
        }
    }
    if door.origin_refused(request.headers())
        && let Some(suppressed) = REFUSED.pass()
    {
        let origin = request.headers().get(ORIGIN).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let advice = "name it in --allowed-origins to let its pages connect";
        tracing::warn!(origin = origin.get(..100).unwrap_or(origin), suppressed, advice, "origin refused");
    }
    next.run(request).await
}

/// No place now; spread over these seconds, those who are turned away do not come back at once.
fn come_again(seconds: RangeInclusive<u8>, why: &'static str) -> Response {
    let after = fastrand::u8(seconds).to_string();
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, after)], why).into_response()
}

/// A client that has its connections already.
fn over_limit(client: Client) -> Response {
    if let Some(suppressed) = CROWDED.pass() {
        let advice = "raise --connections-per-address if these are many people behind one address";
        tracing::warn!(%client, suppressed, advice, "too many connections from one address");
    }
    let mut response = come_again(5..=30, "too many connections from this address\n");
    response.extensions_mut().insert(OverLimit);
    response
}

/// Marks an answer for the metric of handshakes.
#[derive(Clone, Copy)]
struct OverLimit;

impl Door {
    /// Whose request it is, for the limit of connections.
    fn client(&self, request: &Request) -> Client {
        let peer = request.extensions().get::<Peer>().map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.0);
        let forwarded = request.headers().get_all("x-forwarded-for").into_iter().map(HeaderValue::as_bytes);
        self.public.proxies.client(peer, forwarded)
    }

    fn origin_refused(&self, headers: &HeaderMap) -> bool {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let origins = headers.get_all(ORIGIN).iter().map(HeaderValue::as_bytes);
        self.public.origins.check(origins, host) == Verdict::Refused
    }
}

/// Plaza's own protocol.
async fn plaza(State(door): State<Door>, request: Request) -> Response {
    if door.origin_refused(request.headers()) {
        return (StatusCode::FORBIDDEN, "pages of this origin may not connect; see --allowed-origins\n")
            .into_response();
    }
    // A client that offers nothing speaks JSON: simple tools can chat.
    let subprotocol = choose_subprotocol(request.headers(), &[JSON_SUBPROTOCOL, PROTO_SUBPROTOCOL]);
    if subprotocol.is_none() && request.headers().contains_key(SEC_WEBSOCKET_PROTOCOL) {
        let known = "subprotocols are plaza.v1.json and plaza.v1.proto\n";
        return (StatusCode::BAD_REQUEST, known).into_response();
    }
    let json = subprotocol != Some(PROTO_SUBPROTOCOL);
    let options = SocketOptions { text: json, binary: !json, ..door.public.options };
    let connection = Box::new(PlazaConnection::new(door.public.settings.clone(), json));
    upgrade(request, subprotocol, &door.shard, options, connection)
}
