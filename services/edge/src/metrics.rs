//! The edge's metrics. Shards count for themselves; this collects what they counted, and what the hub
//! counts.

use crate::bridge::Variant;
use crate::conn::Cause;
use crate::engine::{LATENCY_BOUNDS_US, ShardHandle, SocketSeconds, Stats};
use plaza_proto::code::Code;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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

/// What the hub counts. Cheap to clone; clones are the same counters.
#[derive(Clone, Debug, Default)]
pub struct HubMetrics {
    publishes: Family<Labels, Counter>,
    resets: Family<Labels, Counter>,
    recoveries: Family<Labels, Counter>,
    /// Reads that repaired a room, or let it begin.
    pub repairs: Counter,
    /// Times that every room was checked.
    pub resyncs: Counter,
    /// Stored events of a version or kind that is not known here.
    pub unknown_events: Counter,
    sessions: Family<Labels, Gauge>,
    rooms: Gauge,
    unresolved: Gauge,
    beat_age: Gauge,
    echo_age: Gauge,
}

impl HubMetrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let m = &metrics;
        registry.register("plaza_publishes", "Publishes of clients by result", m.publishes.clone());
        registry.register(
            "plaza_recoveries",
            "Sessions that clients asked to continue, by result",
            m.recoveries.clone(),
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
        registry.register("plaza_beat_age_milliseconds", "Time since the last beat of the store", m.beat_age.clone());
        registry.register(
            "plaza_echo_age_milliseconds",
            "Time since an echo of this edge came back",
            m.echo_age.clone(),
        );
        // Series that alerts compare with their past exist from the start.
        metrics.tick([0; Variant::COUNT], 0, 0);
        begin_at_zero(&metrics.publishes, "result", &["ok"]);
        begin_at_zero(&metrics.resets, "reason", &["epoch", "rolled_back", "trimmed", "unavailable"]);
        metrics
    }

    /// A publish ended.
    pub fn published(&self, result: Result<(), Code>) {
        let label = result.map_or_else(Code::as_str, |()| "ok");
        self.publishes.get_or_create(&[("result", label)]).inc();
    }

    /// A session continues ("complete"), or a new one begins: what was missed is gone ("incomplete"), or
    /// the session is ("unknown").
    pub fn recovered(&self, result: &'static str) {
        self.recoveries.get_or_create(&[("result", result)]).inc();
    }

    /// Members of a room lost their place.
    pub fn reset(&self, reason: &'static str) {
        self.resets.get_or_create(&[("reason", reason)]).inc();
    }

    /// Numbers of now; sessions by [`Variant`].
    pub fn tick(&self, sessions: [u32; Variant::COUNT], rooms: usize, unresolved: usize) {
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
    }

    /// Milliseconds since the last beat and the last echo.
    pub fn ages(&self, beat_ms: u64, echo_ms: u64) {
        self.beat_age.set(beat_ms as i64);
        self.echo_age.set(echo_ms as i64);
    }
}

/// Sums up what the shards counted, when it is asked.
#[derive(Debug)]
pub struct ShardMetrics(pub Vec<ShardHandle>);

impl ShardMetrics {
    /// Registers what these shards count.
    pub fn register(registry: &mut Registry, shards: &[ShardHandle]) {
        let bounds = LATENCY_BOUNDS_US.iter().map(|bound| *bound as f64 / 1e6);
        let socket_seconds = SocketSeconds::new(bounds);
        for shard in shards {
            // Only the first registration of a shard counts.
            let _ = shard.stats().socket_seconds.set(socket_seconds.clone());
        }
        registry.register_with_unit(
            "plaza_publish_to_socket",
            "Time from an event's storing until its last member here was served, by the clocks of store and edge",
            Unit::Seconds,
            socket_seconds,
        );
        registry.register_collector(Box::new(Self(shards.to_vec())));
    }

    fn sum(&self, pick: impl Fn(&Stats) -> &AtomicU64) -> u64 {
        self.0.iter().map(|shard| pick(shard.stats()).load(Relaxed)).sum()
    }
}

impl Collector for ShardMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: u64| {
            let metric = ConstGauge::new(value as i64);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        gauge("plaza_connections", "Connections now, polling sessions included", self.sum(|s| &s.connections))?;
        gauge("plaza_log_bytes", "Bytes of encoded events that rooms hold for members", self.sum(|s| &s.log_bytes))?;
        let mut counter = |name: &str, help: &str, value: u64| {
            let metric = ConstCounter::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        counter("plaza_deliveries", "Events handed to a member's socket", self.sum(|s| &s.deliveries))?;
        counter("plaza_sends", "Calls of send", self.sum(|s| &s.sends))?;
        counter("plaza_sent_bytes", "Bytes that WebSockets took", self.sum(|s| &s.sent_bytes))?;
        counter("plaza_received_bytes", "Bytes that WebSockets gave", self.sum(|s| &s.received_bytes))?;
        let busy = ConstCounter::new(self.sum(|s| &s.busy_us) as f64 / 1e6);
        let about = "Time that the shards' loops did not wait; all shards are full at their number a second";
        busy.encode(encoder.encode_descriptor("plaza_shard_busy", about, Some(&Unit::Seconds), busy.metric_type())?)?;
        let shards = ConstGauge::new(self.0.len() as i64);
        shards.encode(encoder.encode_descriptor("plaza_shards", "Engine threads", None, shards.metric_type())?)?;
        let closes = Family::<Labels, Counter>::default();
        for cause in Cause::ALL {
            let count = self.0.iter().map(|shard| shard.stats().closes(cause)).sum();
            closes.get_or_create(&[("cause", cause.as_str())]).inc_by(count);
        }
        closes.encode(encoder.encode_descriptor(
            "plaza_closes",
            "Connections that ended, by cause",
            None,
            closes.metric_type(),
        )?)?;
        self.encode_latency(encoder)
    }
}

impl ShardMetrics {
    fn encode_latency(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut buckets: Vec<(f64, u64)> = (LATENCY_BOUNDS_US.iter().enumerate())
            .map(|(index, bound)| (*bound as f64 / 1e6, self.sum(|s| &s.latency[index])))
            .collect();
        buckets.push((f64::INFINITY, self.sum(|s| &s.latency[LATENCY_BOUNDS_US.len()])));
        let count = buckets.iter().map(|(_, n)| n).sum();
        let sum = self.sum(|s| &s.latency_sum_us) as f64 / 1e6;
        let mut metric = encoder.encode_descriptor(
            "plaza_delivery",
            "Time from an event's arrival at this edge until its last member was served",
            Some(&Unit::Seconds),
            prometheus_client::metrics::MetricType::Histogram,
        )?;
        metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}
