//! What the hub counts.

use super::{Labels, UpstreamMetrics, begin_at_zero};
use crate::bridge::Variant;
use crate::feed::FeedItem;
use crate::upstream::admission::Class;
use plaza_kit::metrics::{Exemplars, GrpcCalls};
use plaza_proto::code::Code;
use plaza_proto::feed::FeedMessage;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

/// Upper bounds of publishes in seconds: from a store on the same host to the sender's patience. The hub's clock
/// has milliseconds.
const PUBLISH_SECONDS: [f64; 13] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0];

/// What came from the feed, by kind: looked up once, as it is counted for each event.
#[derive(Clone, Debug)]
pub struct Heard([Counter; 6]);

impl Heard {
    const KINDS: [&'static str; 6] = ["event", "volatile", "hint", "beat", "command", "resync"];

    fn register(registry: &mut Registry) -> Self {
        let family = Family::<Labels, Counter>::default();
        let each = Self::KINDS.map(|kind| family.get_or_create_owned(&[("kind", kind)]));
        registry.register("plaza_feed_messages", "Messages that the store passed on to this edge, by kind", family);
        Self(each)
    }

    /// A message came.
    pub fn count(&self, item: &FeedItem) {
        let kind = match item {
            FeedItem::Message(FeedMessage::Event { .. }) => 0,
            FeedItem::Message(FeedMessage::Volatile { .. }) => 1,
            FeedItem::Message(FeedMessage::Hint { .. }) => 2,
            FeedItem::Message(FeedMessage::Beat { .. }) => 3,
            FeedItem::Message(FeedMessage::Command(_)) => 4,
            FeedItem::Message(FeedMessage::Resync(_)) | FeedItem::Renewed => 5,
            FeedItem::Barrier(_) => return,
        };
        self.0[kind].inc();
    }
}

/// What the hub counts. Cheap to clone; clones are the same counters.
#[derive(Clone, Debug)]
pub struct HubMetrics {
    /// What goes up.
    pub upstream: UpstreamMetrics,
    /// What came from the store.
    pub heard: Heard,
    /// Leases that were lost: everything was told anew.
    pub leases_lost: Counter,
    publish_seconds: Exemplars,
    publishes: Family<Labels, Counter>,
    /// The one of `publishes` that counts results without an error.
    published: Counter,
    resets: Family<Labels, Counter>,
    recoveries: Family<Labels, Counter>,
    admissions: Family<[(&'static str, &'static str); 2], Counter>,
    waiting: Family<Labels, Gauge>,
    /// Reads that repaired a room, or let it begin.
    pub repairs: Counter,
    /// Times that every room was checked.
    pub resyncs: Counter,
    /// Stored events of a version or kind that is not known here.
    pub unknown_events: Counter,
    sessions: Family<Labels, Gauge>,
    rooms: Gauge,
    unresolved: Gauge,
    cache_bytes: Gauge,
    /// Mean connections of the edges, by the last heartbeat.
    pub mean_connections: Gauge,
    beat_age: Gauge,
    echo_age: Gauge,
}

impl HubMetrics {
    /// Registers them; `made` counts the calls of other services.
    pub fn register(registry: &mut Registry, made: GrpcCalls) -> Self {
        let publishes = Family::<Labels, Counter>::default();
        let metrics = Self {
            upstream: UpstreamMetrics::register(registry, made),
            heard: Heard::register(registry),
            leases_lost: Counter::default(),
            publish_seconds: Exemplars::new(PUBLISH_SECONDS.into_iter()),
            published: publishes.get_or_create_owned(&[("result", "ok")]),
            publishes,
            resets: Family::default(),
            recoveries: Family::default(),
            admissions: Family::default(),
            waiting: Family::default(),
            repairs: Counter::default(),
            resyncs: Counter::default(),
            unknown_events: Counter::default(),
            sessions: Family::default(),
            rooms: Gauge::default(),
            unresolved: Gauge::default(),
            cache_bytes: Gauge::default(),
            mean_connections: Gauge::default(),
            beat_age: Gauge::default(),
            echo_age: Gauge::default(),
        };
        let m = &metrics;
        registry.register_with_unit(
            "plaza_publish",
            "Time of a client's publish from the hub until its result",
            Unit::Seconds,
            m.publish_seconds.clone(),
        );
        registry.register("plaza_leases_lost", "Leases of this edge that were lost", m.leases_lost.clone());
        registry.register("plaza_publishes", "Publishes of clients by result", m.publishes.clone());
        registry.register(
            "plaza_recoveries",
            "Sessions that clients asked to continue, by result",
            m.recoveries.clone(),
        );
        registry.register(
            "plaza_admissions",
            "Wishes for the session service by class, and whether they may wait or are refused as busy",
            m.admissions.clone(),
        );
        registry.register(
            "plaza_session_waiting",
            "Operations that wait for the session service, by class",
            m.waiting.clone(),
        );
        registry.register("plaza_resets", "Rooms whose members lost their place, by reason", m.resets.clone());
        registry.register(
            "plaza_room_reads",
            "Reads of the log by which rooms begin or are repaired",
            m.repairs.clone(),
        );
        registry.register("plaza_resyncs", "Checks of every room after a doubt about the feed", m.resyncs.clone());
        registry.register(
            "plaza_unknown_events",
            "Stored events that this version does not know",
            m.unknown_events.clone(),
        );
        registry.register("plaza_edge_sessions", "Sessions of this edge by protocol", m.sessions.clone());
        registry.register("plaza_rooms", "Rooms that are heard here", m.rooms.clone());
        registry.register("plaza_unresolved_publishes", "Publishes without a result yet", m.unresolved.clone());
        registry.register(
            "plaza_feed_cache_bytes",
            "Memory of the newest events of all rooms, at most feed-cache-bytes",
            m.cache_bytes.clone(),
        );
        registry.register(
            "plaza_mean_connections",
            "Mean connections of the edges that do not drain, as the session service told it last",
            m.mean_connections.clone(),
        );
        registry.register("plaza_beat_age_milliseconds", "Time since the last beat of the store", m.beat_age.clone());
        registry.register(
            "plaza_echo_age_milliseconds",
            "Time since an echo of this edge came back",
            m.echo_age.clone(),
        );
        // Series that alerts compare with their past exist from the start.
        metrics.tick([0; Variant::COUNT], 0, 0, 0);
        metrics.wait([0; Class::ALL.len()]);
        for class in Class::ALL {
            for result in ["ok", "busy"] {
                let _zero = metrics.admissions.get_or_create(&[("class", class.as_str()), ("result", result)]);
            }
        }
        begin_at_zero(&metrics.publishes, "result", &["ok", "busy", "rate_limited", "timeout", "unavailable"]);
        begin_at_zero(&metrics.recoveries, "result", &["complete", "incomplete", "unknown"]);
        begin_at_zero(&metrics.resets, "reason", &["epoch", "rolled_back", "trimmed", "unavailable"]);
        metrics
    }

    /// A publish was refused, before it went up or by its result.
    pub fn refused(&self, code: Code) {
        self.publishes.get_or_create(&[("result", code.as_str())]).inc();
    }

    /// A publish ended after so long.
    pub fn published(&self, result: Result<(), Code>, took: Duration, trace_id: Option<String>) {
        match result {
            Ok(()) => drop(self.published.inc()),
            Err(code) => self.refused(code),
        }
        self.publish_seconds.observe(took.as_secs_f64(), trace_id.map(|id| [("trace_id", id)]), None);
    }

    /// A session continues ("complete"; "alone" without the session service), or a new one begins: what was missed is gone ("incomplete"), or
    /// the session is ("unknown").
    pub fn recovered(&self, result: &'static str) {
        self.recoveries.get_or_create(&[("result", result)]).inc();
    }

    /// A wish for the session service may wait for its turn, or is refused.
    pub fn admitted(&self, class: Class, taken: bool) {
        let result = if taken { "ok" } else { "busy" };
        self.admissions.get_or_create(&[("class", class.as_str()), ("result", result)]).inc();
    }

    /// Operations that wait for the session service now, by class.
    pub fn wait(&self, waiting: [usize; Class::ALL.len()]) {
        for (class, count) in Class::ALL.into_iter().zip(waiting) {
            self.waiting.get_or_create(&[("class", class.as_str())]).set(count as i64);
        }
    }

    /// Members of a room lost their place.
    pub fn reset(&self, reason: &'static str) {
        self.resets.get_or_create(&[("reason", reason)]).inc();
    }

    /// Numbers of now; sessions by [`Variant`].
    pub fn tick(&self, sessions: [u32; Variant::COUNT], rooms: usize, unresolved: usize, cache_bytes: usize) {
        let protocols: [(&str, &[Variant]); 3] = [
            ("socketio", &[Variant::TextZh, Variant::TextEn, Variant::Event]),
            ("plaza-json", &[Variant::PlazaJson]),
            ("plaza-proto", &[Variant::PlazaProto]),
        ];
        for (protocol, variants) in protocols {
            let count = variants.iter().map(|variant| i64::from(sessions[*variant as usize])).sum();
            self.sessions.get_or_create(&[("protocol", protocol)]).set(count);
        }
        self.rooms.set(rooms as i64);
        self.unresolved.set(unresolved as i64);
        self.cache_bytes.set(cache_bytes as i64);
    }

    /// Milliseconds since the last beat and the last echo.
    pub fn ages(&self, beat_ms: u64, echo_ms: u64) {
        self.beat_age.set(beat_ms as i64);
        self.echo_age.set(echo_ms as i64);
    }
}
