//! The peer port: serves relays of other edges for sessions of this one.

use super::sign::{Seen, verify};
use super::{Peers, Refused};
use crate::accept::answers;
use crate::accept::polling::EngineIoEndpoint;
use crate::wire::engineio::{HandshakeError, Query, Sid, Transport};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;
use futures_util::stream;
use http::StatusCode;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

/// What the peer port's handler needs.
struct PeerPort {
    peers: Peers,
    endpoint: EngineIoEndpoint,
    seen: Mutex<Seen>,
}

/// The peer port's routes: those of the public Engine.IO endpoint at `path`, for sessions that exist.
/// `endpoint` must not relay.
pub fn routes(path: &str, peers: Peers, endpoint: EngineIoEndpoint) -> Router {
    let bare = path.trim_end_matches('/');
    let port = PeerPort { peers, endpoint, seen: Mutex::default() };
    let route = get(handle).post(handle);
    Router::new().route(bare, route.clone()).route(&format!("{bare}/"), route).with_state(Arc::new(port))
}

async fn handle(State(port): State<Arc<PeerPort>>, request: Request) -> Response {
    let (sid, transport) = match port.check(&request) {
        Ok(found) => found,
        Err(refused) => {
            port.peers.refuse(refused);
            let mut response = answers::plain_status(StatusCode::FORBIDDEN);
            *response.body_mut() = format!("no relay: {refused}\n").into();
            return response;
        }
    };
    if transport == Transport::WebSocket {
        return port.endpoint.probe(request, sid).await;
    }
    // The head leaves at once, and so tells that this edge lives; when the peer goes away, the body is
    // dropped, and with it the request.
    Response::new(Body::from_stream(stream::once(async move {
        let (parts, body) = port.endpoint.session(request, sid).await.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
        Ok::<_, Infallible>(Bytes::from([parts.status.as_str().as_bytes(), &body].concat()))
    })))
}

impl PeerPort {
    fn check(&self, request: &Request) -> Result<(Sid, Transport), Refused> {
        let target = request.uri().path_and_query().map_or("", |target| target.as_str());
        let keys = self.peers.registration.keys();
        let (signer, number) = verify(&keys, request.method(), target, request.headers())?;
        if !self.seen.lock().unwrap_or_else(PoisonError::into_inner).add(signer, number) {
            return Err(Refused::Repeated);
        }
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let named = |query: &Query<'_>| -> Result<_, HandshakeError> { Ok((query.sid()?, query.transport()?)) };
        match named(&query) {
            Ok((Some(sid), transport)) if self.endpoint.owns(&sid) => Ok((sid, transport)),
            _ => Err(Refused::OtherEdge),
        }
    }
}
