//! The edge's metrics. Shards and the hub count for themselves; here their numbers get names. No label
//! holds anything that grows.
//!
//! | module | what it names |
//! |---|---|
//! | this one | handshakes, and what goes up to the services |
//! | `hub` | what the hub counts |
//! | `shards` | what the shards counted, summed up when it is asked for |

mod hub;
mod shards;

pub use hub::{Heard, HubMetrics};
use plaza_kit::metrics::GrpcCalls;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
pub use shards::ShardMetrics;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

type Labels = [(&'static str, &'static str); 1];

/// Handshakes by protocol, transport and what was answered. Clones are the same counters.
#[derive(Clone, Debug, Default)]
pub struct Handshakes(Family<[(&'static str, &'static str); 3], Counter>);

impl Handshakes {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let handshakes = Self::default();
        for (protocol, transport) in [("socketio", "websocket"), ("socketio", "polling"), ("plaza", "websocket")] {
            handshakes.0.get_or_create(&[("protocol", protocol), ("transport", transport), ("result", "ok")]).inc_by(0);
        }
        let help = "Handshakes by protocol, transport and result: ok, or why they were refused";
        registry.register("plaza_handshakes", help, handshakes.0.clone());
        handshakes
    }

    /// A handshake was answered with this status.
    pub fn answered(&self, protocol: &'static str, transport: &'static str, status: u16) {
        let result = match status {
            101 | 200 => "ok",
            400 => "bad_request",
            403 => "origin",
            426 => "version",
            429 => "limit",
            503 => "unavailable",
            _ => "other",
        };
        self.0.get_or_create(&[("protocol", protocol), ("transport", transport), ("result", result)]).inc();
    }
}

/// Creates series that have not counted anything yet.
fn begin_at_zero(family: &Family<Labels, Counter>, label: &'static str, values: &[&'static str]) {
    for value in values {
        family.get_or_create(&[(label, value)]).inc_by(0);
    }
}

/// Registers the time that a drain may take, which alerts compare it with.
pub fn register_drain_window(registry: &mut Registry, window: Duration) {
    let gauge = Gauge::<f64, AtomicU64>::default();
    gauge.set(window.as_secs_f64());
    let help = "Time over which a drain closes connections";
    registry.register_with_unit("plaza_drain_window", help, Unit::Seconds, gauge);
}

/// Upper bounds of batches.
const BATCH: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// What goes up to the services. Clones are the same counters.
#[derive(Clone, Debug)]
pub struct UpstreamMetrics {
    /// Unary calls.
    pub made: GrpcCalls,
    /// Events of each batch of publishes.
    pub batch_events: Histogram,
    /// Operations of each batch for the session service.
    pub batch_operations: Histogram,
}

impl UpstreamMetrics {
    /// Registers them; `made` is registered already.
    pub fn register(registry: &mut Registry, made: GrpcCalls) -> Self {
        let metrics = Self { made, batch_events: Histogram::new(BATCH), batch_operations: Histogram::new(BATCH) };
        let help = "Events in each batch of publishes";
        registry.register("plaza_publish_batch_events", help, metrics.batch_events.clone());
        let help = "Operations in each call that keeps sessions and presence";
        registry.register("plaza_session_batch_operations", help, metrics.batch_operations.clone());
        metrics
    }
}
