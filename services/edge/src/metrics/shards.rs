//! What the shards counted.

use super::Labels;
use crate::conn::Cause;
use crate::engine::{Buckets, LATENCY_BOUNDS_US, ShardHandle, Stats};
use crate::wire::websocket::CodeLabel;
use plaza_kit::metrics::Metrics;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Unit;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Sums up what the shards counted, when it is asked.
#[derive(Debug)]
pub struct ShardMetrics(pub Vec<ShardHandle>);

impl ShardMetrics {
    /// Registers what these shards count.
    pub fn register(metrics: &Metrics, shards: &[ShardHandle]) {
        metrics.registry(|registry| registry.register_collector(Box::new(Self(shards.to_vec()))));
        let shards = shards.to_vec();
        metrics.point_at_traces("plaza_publish_to_socket_seconds", move || {
            shards.iter().flat_map(|shard| shard.stats().to_socket.newest()).collect()
        });
    }

    fn sum(&self, pick: impl Fn(&Stats) -> &AtomicU64) -> u64 {
        self.add(|stats| pick(stats).load(Relaxed))
    }

    fn add(&self, pick: impl Fn(&Stats) -> u64) -> u64 {
        self.0.iter().map(|shard| pick(shard.stats())).sum()
    }
}

impl Collector for ShardMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: u64| {
            let metric = ConstGauge::new(value as i64);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        gauge("plaza_shard_rooms", "Rooms with members, counted in each shard", self.sum(|s| &s.rooms))?;
        gauge("plaza_log_bytes", "Bytes of encoded events that rooms hold for members", self.sum(|s| &s.log_bytes))?;
        let mut counter = |name: &str, help: &str, value: u64| {
            let metric = ConstCounter::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        counter("plaza_deliveries", "Events handed to a member's socket", self.sum(|s| &s.deliveries))?;
        counter("plaza_sends", "Calls of send", self.sum(|s| &s.sends))?;
        let sent = self.sum(|s| &s.sent_bytes) + self.sum(|s| &s.polling_sent_bytes);
        counter("plaza_sent_bytes", "Bytes that WebSockets took, and of long-polling's answers with packets", sent)?;
        let received = self.sum(|s| &s.received_bytes) + self.sum(|s| &s.polling_received_bytes);
        counter("plaza_received_bytes", "Bytes that WebSockets gave, and of long-polling's posts", received)?;
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
        let codes = Family::<Labels, Counter>::default();
        for stats in self.0.iter().map(ShardHandle::stats) {
            for (code, count) in CodeLabel::ALL.into_iter().zip(stats.codes()) {
                codes.get_or_create(&[("code", code)]).inc_by(count);
            }
        }
        codes.encode(encoder.encode_descriptor(
            "plaza_close_codes",
            "Connections that ended, by the code of the close frame, ours or the client's; none: there was no frame",
            None,
            codes.metric_type(),
        )?)?;
        self.encode_connections(&mut encoder)?;
        self.encode_log_lag(&mut encoder)?;
        let help = "Time from an event's arrival at this edge until its last member was served";
        self.encode_times(&mut encoder, "plaza_delivery", help, |stats| &stats.latency)?;
        let help = "Time of writing what a room has new to all its members in a shard";
        self.encode_times(&mut encoder, "plaza_flush", help, |stats| &stats.flush)?;
        let help = "Time from an event's arrival at this edge until a shard's loop took it up";
        self.encode_times(&mut encoder, "plaza_shard_lag", help, |stats| &stats.lag)?;
        let help =
            "Time from an event's storing until its last member here was served, by the clocks of store and edge";
        self.encode_times(&mut encoder, "plaza_publish_to_socket", help, |stats| &stats.to_socket.times)
    }
}

impl ShardMetrics {
    fn encode_log_lag(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let most = |pick: fn(&Stats) -> &AtomicU64| {
            self.0.iter().map(|shard| pick(shard.stats()).load(Relaxed)).max().unwrap_or_default()
        };
        let lag = ConstGauge::new(most(|stats| &stats.log_lag_us) as f64 / 1e6);
        let help = "Age of the oldest event that some member of some room has not got; looked at once a second";
        lag.encode(encoder.encode_descriptor("plaza_room_log_lag", help, Some(&Unit::Seconds), lag.metric_type())?)?;
        let events = ConstGauge::new(most(|stats| &stats.log_lag_events) as i64);
        let help = "Most events that some member of some room has not got; looked at once a second";
        events.encode(encoder.encode_descriptor("plaza_room_log_lag_events", help, None, events.metric_type())?)
    }

    fn encode_connections(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (all, polling, plaza) = (self.sum(|s| &s.connections), self.sum(|s| &s.polling), self.sum(|s| &s.plaza));
        let connections = Family::<[(&'static str, &'static str); 2], Gauge>::default();
        for (protocol, transport, count) in [
            ("socketio", "websocket", all.saturating_sub(polling + plaza)),
            ("socketio", "polling", polling),
            ("plaza", "websocket", plaza),
        ] {
            connections.get_or_create(&[("protocol", protocol), ("transport", transport)]).set(count as i64);
        }
        let help = "Connections now, by protocol and transport";
        connections.encode(encoder.encode_descriptor("plaza_connections", help, None, connections.metric_type())?)
    }

    fn encode_times(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        pick: impl Fn(&Stats) -> &Buckets,
    ) -> Result<(), std::fmt::Error> {
        let bounds = LATENCY_BOUNDS_US.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> =
            bounds.enumerate().map(|(index, bound)| (bound, self.add(|stats| pick(stats).count(index)))).collect();
        let count = buckets.iter().map(|(_, n)| n).sum();
        let sum = self.add(|stats| pick(stats).sum_us()) as f64 / 1e6;
        let mut metric = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}
