//! Without sticky sessions: a request for a session of another edge goes to that edge's peer port.
//!
//! ```text
//! client --> this edge --sid names another--> directory: its address --> owner's peer port
//!   GET, POST   request, signed --> at once 200; then three digits of status and the body, when known
//!   WebSocket   request, signed --> 101; from then on bytes both ways
//! ```
//! One hop: the peer port serves sessions of its own edge alone. The early 200 tells an owner that waits
//! from one that is dead: it comes within two seconds, or the session is unknown here.
//!
//! | module | job |
//! |---|---|
//! | `sign` | who may relay: signatures, pure |
//! | `directory` | edge numbers to addresses |
//! | `relay` | this edge asks another one |
//! | `sockets` | relayed WebSockets |
//! | `server` | the peer port |
//!
//! Source: wire reference, rows N1 and N2.

mod directory;
mod relay;
mod server;
mod sign;
mod sockets;

use crate::conn::EdgeNumber;
use crate::upstream::registration::Registration;
use plaza_kit::discovery::BalancedChannel;
use plaza_kit::metrics::GrpcCalls;
use plaza_kit::telemetry::LogGate;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Duration;

pub use relay::Relay;
pub use server::routes;
pub use sign::{RELAY, Refused, Signer};
pub use sockets::RelayedSockets;

/// An owner that has not answered by then is dead.
const ANSWER: Duration = Duration::from_secs(2);

/// Refused relays that are logged in a second.
static REFUSED: LogGate = LogGate::per_second(1);

type Labels = [(&'static str, &'static str); 1];

/// What relays count. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct PeerMetrics {
    sockets: Gauge,
    relays: Family<Labels, Counter>,
    refusals: Family<Labels, Counter>,
}

impl PeerMetrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for result in relay::RESULTS {
            metrics.relays.get_or_create(&[("result", result)]).inc_by(0);
        }
        for refused in Refused::ALL {
            metrics.refusals.get_or_create(&[("reason", refused.label())]).inc_by(0);
        }
        registry.register("plaza_relayed_sockets", "WebSockets relayed to other edges", metrics.sockets.clone());
        let help = "Requests for sessions of other edges, by result";
        registry.register("plaza_relays", help, metrics.relays.clone());
        let help = "Requests on the peer port that were no good relays, by reason";
        registry.register("plaza_relay_refusals", help, metrics.refusals.clone());
        metrics
    }
}

/// What all relays of an edge share. Clones are the same.
#[derive(Clone, Debug)]
pub struct Peers {
    registration: Registration,
    directory: Arc<directory::Directory>,
    signer: Arc<Signer>,
    /// Relayed WebSockets.
    pub sockets: RelayedSockets,
    metrics: PeerMetrics,
}

impl Peers {
    /// Other edges are found through `session`, by calls that `made` counts.
    pub fn new(registration: Registration, session: BalancedChannel, made: GrpcCalls, metrics: PeerMetrics) -> Self {
        let directory = Arc::new(directory::Directory::new(session, made));
        let signer = Arc::new(Signer::new(rand::random()));
        Self { registration, directory, signer, sockets: RelayedSockets::new(metrics.sockets.clone()), metrics }
    }

    /// This edge's number.
    pub fn number(&self) -> EdgeNumber {
        self.registration.number()
    }

    fn refuse(&self, refused: Refused) {
        self.metrics.refusals.get_or_create(&[("reason", refused.label())]).inc();
        if let Some(suppressed) = REFUSED.pass() {
            tracing::warn!(reason = refused.label(), suppressed, "relay refused");
        }
    }
}
