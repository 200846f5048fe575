//! Counters and gauges of the session service. Labels come from closed sets.

use crate::store::{Reaped, Totals};
use plaza_kit::metrics::GrpcCalls;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ScriptLabel {
    call: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreLabels {
    call: &'static str,
    result: &'static str,
}

/// Upper bounds of Redis' times, in seconds: from a server on the same host to the deadline.
const REDIS_SECONDS: [f64; 10] = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.2, 1.0];

type StoreSeconds = Family<ScriptLabel, Histogram, fn() -> Histogram>;

/// All metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SessionMetrics {
    /// Calls to fanout.
    pub made: GrpcCalls,
    calls: Family<CallLabels, Counter>,
    store_calls: Family<StoreLabels, Counter>,
    store_seconds: StoreSeconds,
    controls: Family<ResultLabel, Counter>,
    published: Family<ResultLabel, Counter>,
    sessions: Gauge,
    leases: Gauge,
    outbox: Gauge,
    outbox_cut: Gauge,
    reaping: Gauge,
    reaped_edges: Counter,
    reaped_sessions: Counter,
    reaped_presences: Counter,
}

impl SessionMetrics {
    /// Registers everything; calls to fanout are counted by `made`.
    pub fn register(registry: &mut Registry, made: GrpcCalls) -> Self {
        let all = Self {
            made,
            calls: Family::default(),
            store_calls: Family::default(),
            store_seconds: StoreSeconds::new_with_constructor(|| Histogram::new(REDIS_SECONDS)),
            controls: Family::default(),
            published: Family::default(),
            sessions: Gauge::default(),
            leases: Gauge::default(),
            outbox: Gauge::default(),
            outbox_cut: Gauge::default(),
            reaping: Gauge::default(),
            reaped_edges: Counter::default(),
            reaped_sessions: Counter::default(),
            reaped_presences: Counter::default(),
        };
        // Series exist from the start, so that the first failure is a rise and not a new series.
        all.calls.get_or_create(&CallLabels { method: "Apply", code: "ok" }).inc_by(0);
        all.store_calls.get_or_create(&StoreLabels { call: "apply", result: "ok" }).inc_by(0);
        drop(all.store_seconds.get_or_create(&ScriptLabel { call: "apply" }));
        for result in ["sent", "failed", "skipped"] {
            all.controls.get_or_create(&ResultLabel { result }).inc_by(0);
        }
        for result in ["stored", "refused"] {
            all.published.get_or_create(&ResultLabel { result }).inc_by(0);
        }
        registry.register("plaza_session_grpc_calls", "gRPC calls by method and code", all.calls.clone());
        registry.register("plaza_session_redis_calls", "Redis calls by script and result", all.store_calls.clone());
        let redis = "Time of a call of Redis by script";
        registry.register_with_unit("plaza_session_redis", redis, Unit::Seconds, all.store_seconds.clone());
        registry.register("plaza_session_controls", "Commands sent to edges at once", all.controls.clone());
        registry.register("plaza_session_presence_events", "Presence events by what fanout did", all.published.clone());
        registry.register("plaza_sessions", "Sessions, recoverable ones too", all.sessions.clone());
        registry.register("plaza_session_leases", "Edges whose lease lives", all.leases.clone());
        registry.register("plaza_session_outbox", "Presence events that wait to be published", all.outbox.clone());
        let cut = "Presence events cut because too many waited, since the data exists";
        registry.register("plaza_session_outbox_cut", cut, all.outbox_cut.clone());
        let reaping = "Whether this process clears what dead edges left: 1, or 0 while another one does";
        registry.register("plaza_session_reaping", reaping, all.reaping.clone());
        registry.register("plaza_session_reaped_edges", "Dead edges cleared", all.reaped_edges.clone());
        registry.register("plaza_session_reaped_sessions", "Sessions of dead edges ended", all.reaped_sessions.clone());
        let presences = "Presences of dead edges ended";
        registry.register("plaza_session_reaped_presences", presences, all.reaped_presences.clone());
        all
    }

    pub(crate) fn call(&self, method: &'static str, code: &'static str) {
        self.calls.get_or_create(&CallLabels { method, code }).inc();
    }

    /// A call of Redis has ended after this time; `None`: it was not made.
    pub(crate) fn store_call(&self, call: &'static str, result: &'static str, took: Option<Duration>) {
        if let Some(took) = took {
            self.store_seconds.get_or_create(&ScriptLabel { call }).observe(took.as_secs_f64());
        }
        self.store_calls.get_or_create(&StoreLabels { call, result }).inc();
    }

    pub(crate) fn control(&self, result: &'static str) {
        self.controls.get_or_create(&ResultLabel { result }).inc();
    }

    pub(crate) fn published(&self, result: &'static str) {
        self.published.get_or_create(&ResultLabel { result }).inc();
    }

    pub(crate) fn outbox_cut(&self, cut: u64) {
        self.outbox_cut.set(gauge(cut));
    }

    pub(crate) fn reaping(&self, mine: bool) {
        self.reaping.set(i64::from(mine));
    }

    pub(crate) fn reaped(&self, reaped: Reaped) {
        self.reaped_edges.inc_by(reaped.edges);
        self.reaped_sessions.inc_by(reaped.sessions);
        self.reaped_presences.inc_by(reaped.presences);
    }

    pub(crate) fn totals(&self, totals: Totals) {
        self.sessions.set(gauge(totals.sessions));
        self.leases.set(gauge(totals.leases));
        self.outbox.set(gauge(totals.outbox));
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
