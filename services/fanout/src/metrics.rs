//! What is counted. Labels come from closed sets; what the hot path touches is looked up once, here.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;
use tonic::{Code, Status};

/// Upper bounds of the acknowledgement times, in seconds: from a server on the same host to the whole budget.
const ACK_SECONDS: [f64; 13] = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.4, 1.0, 4.0, 10.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: &'static str,
    code: &'static str,
}

/// The metrics of the room log.
#[derive(Debug)]
pub struct FanoutMetrics {
    /// Publishes by what became of them.
    pub publishes: Publishes,
    /// Acknowledgements of an earlier attempt.
    pub duplicate_acks: Counter,
    /// From the first send to the acknowledgement, in seconds.
    pub ack_seconds: Histogram,
    /// Publishes without a result.
    pub in_flight: Gauge,
    /// Attempts repeated under the same id.
    pub retries: Counter,
    /// Reads of a room's events.
    pub reads: Counter,
    /// Reads answered by the leader because a replica was behind.
    pub leader_reads: Counter,
    /// Beats sent.
    pub beats: Counter,
    /// Changes of the stream's epoch that this process has made or met.
    pub epoch_changes: Counter,
    /// Requests of NATS.
    pub nats: NatsCalls,
    /// Bytes that the stream held when it was last asked.
    pub stream_bytes: Gauge,
    /// Messages that the stream held when it was last asked.
    pub stream_messages: Gauge,
    calls: Family<CallLabels, Counter>,
}

/// What is asked of NATS.
#[derive(Clone, Copy, Debug)]
pub enum NatsCall {
    /// A publish, until its acknowledgement.
    Publish,
    /// Events by JetStream's direct way.
    Read,
    /// One event, from the leader.
    Message,
    /// What the stream is, and changes of it.
    Stream,
}

/// What became of it.
#[derive(Clone, Copy, Debug)]
pub enum NatsResult {
    /// An answer, which may be a refusal.
    Answered,
    /// None in time.
    Timeout,
    /// There is no connection.
    Unavailable,
}

/// Times of NATS' answers, by call and result.
#[derive(Clone, Debug)]
pub struct NatsCalls([[Histogram; 3]; 4]);

impl NatsCalls {
    const CALLS: [&'static str; 4] = ["publish", "read", "message", "stream"];
    const RESULTS: [&'static str; 3] = ["answered", "timeout", "unavailable"];

    fn register(registry: &mut Registry) -> Self {
        type Labels = [(&'static str, &'static str); 2];
        let family: Family<Labels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(ACK_SECONDS));
        let each = Self::CALLS
            .map(|call| Self::RESULTS.map(|result| family.get_or_create_owned(&[("call", call), ("result", result)])));
        let help = "Time of a request of NATS by what was asked and what became of it";
        registry.register_with_unit("plaza_fanout_nats", help, Unit::Seconds, family);
        Self(each)
    }

    /// A request has ended.
    pub fn ended(&self, call: NatsCall, result: NatsResult, took: Duration) {
        self.0[call as usize][result as usize].observe(took.as_secs_f64());
    }
}

/// Counters of the outcomes of a publish.
#[derive(Debug)]
#[expect(missing_docs, reason = "each field counts the outcome of its name")]
pub struct Publishes {
    pub stored: Counter,
    pub passed_on: Counter,
    pub rejected: Counter,
    pub unknown: Counter,
}

impl FanoutMetrics {
    /// Registers them all.
    pub fn new(registry: &mut Registry) -> Self {
        let results: Family<ResultLabel, Counter> = Family::default();
        let result = |result| results.get_or_create_owned(&ResultLabel { result });
        let metrics = Self {
            publishes: Publishes {
                stored: result("stored"),
                passed_on: result("passed_on"),
                rejected: result("rejected"),
                unknown: result("unknown"),
            },
            duplicate_acks: Counter::default(),
            ack_seconds: Histogram::new(ACK_SECONDS),
            in_flight: Gauge::default(),
            retries: Counter::default(),
            reads: Counter::default(),
            leader_reads: Counter::default(),
            beats: Counter::default(),
            epoch_changes: Counter::default(),
            nats: NatsCalls::register(registry),
            stream_bytes: Gauge::default(),
            stream_messages: Gauge::default(),
            calls: Family::default(),
        };
        // The series exists from the start.
        metrics.calls.get_or_create(&CallLabels { method: "PublishStream", code: "ok" }).inc_by(0);
        registry.register("plaza_fanout_publishes", "Events by outcome", results);
        let counters = [
            ("plaza_fanout_duplicate_acks", "Events that an earlier attempt had stored", &metrics.duplicate_acks),
            ("plaza_fanout_publish_retries", "Attempts repeated under the same id", &metrics.retries),
            ("plaza_fanout_reads", "Reads of a room's events", &metrics.reads),
            ("plaza_fanout_leader_reads", "Reads repeated at the stream's leader", &metrics.leader_reads),
            ("plaza_fanout_beats", "Beats sent", &metrics.beats),
            ("plaza_fanout_epoch_changes", "Changes of the stream's identity", &metrics.epoch_changes),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let help = "Time of a publish from its first attempt to the store's acknowledgement";
        registry.register_with_unit("plaza_fanout_ack", help, Unit::Seconds, metrics.ack_seconds.clone());
        let help = "Bytes in the stream, when an edge last asked for its end";
        registry.register("plaza_fanout_stream_bytes", help, metrics.stream_bytes.clone());
        let help = "Messages in the stream, when an edge last asked for its end";
        registry.register("plaza_fanout_stream_messages", help, metrics.stream_messages.clone());
        registry.register("plaza_fanout_in_flight", "Publishes without a result", metrics.in_flight.clone());
        registry.register("plaza_fanout_grpc_calls", "gRPC calls by method and code", metrics.calls.clone());
        metrics
    }

    /// Counts a finished call.
    pub(crate) fn call<T>(&self, method: &'static str, result: &Result<T, Status>) {
        let code = result.as_ref().map_or_else(|status| code_name(status.code()), |_| "ok");
        self.calls.get_or_create(&CallLabels { method, code }).inc();
    }
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}
