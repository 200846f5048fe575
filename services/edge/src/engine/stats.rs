//! Counters of a shard. Written by the shard alone, once a turn; read by the metrics at any time.

use crate::conn::Cause;
use crate::wire::websocket::CodeLabel;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Upper bounds of the latency buckets in microseconds; one more bucket takes what is above.
pub const LATENCY_BOUNDS_US: [u64; 14] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000];

/// Times by bucket, and their sum. Only the shard's thread writes.
#[derive(Debug, Default)]
pub struct Buckets {
    counts: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Buckets {
    /// Times in this bucket; the one behind the last bound has what is above.
    pub fn count(&self, bucket: usize) -> u64 {
        self.counts[bucket].load(Relaxed)
    }

    /// Sum of all times in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.load(Relaxed)
    }

    pub(super) fn observe(&self, us: u64) {
        add(&self.counts[bucket_of(us)], 1);
        add(&self.sum_us, us);
    }
}

fn bucket_of(us: u64) -> usize {
    LATENCY_BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(LATENCY_BOUNDS_US.len())
}

/// The newest trace of each bucket that has one: its time in seconds, and its id.
type Newest = HashMap<usize, (f64, String)>;

/// Times of which some belong to traces. Only those few take the lock, and only a scrape shares it.
#[derive(Debug, Default)]
pub struct TracedBuckets {
    /// The times.
    pub times: Buckets,
    newest: Mutex<Newest>,
}

impl TracedBuckets {
    pub(super) fn observe(&self, us: u64, trace_id: Option<String>) {
        self.times.observe(us);
        if let Some(id) = trace_id {
            self.newest.lock().unwrap_or_else(PoisonError::into_inner).insert(bucket_of(us), (us as f64 / 1e6, id));
        }
    }

    /// The newest trace in each bucket that has one.
    pub fn newest(&self) -> Newest {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Counters since the shard began.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections now, polling sessions included.
    pub connections: AtomicU64,
    /// Those of them that poll.
    pub polling: AtomicU64,
    /// Those of them that are no Engine.IO sessions.
    pub plaza: AtomicU64,
    /// Rooms with a log now.
    pub rooms: AtomicU64,
    /// Bytes of room events now held in logs.
    pub log_bytes: AtomicU64,
    /// Events handed to a member's socket.
    pub deliveries: AtomicU64,
    /// Calls of send.
    pub sends: AtomicU64,
    /// Bytes that sockets took, long-polling left out.
    pub sent_bytes: AtomicU64,
    /// Bytes that sockets gave, long-polling left out.
    pub received_bytes: AtomicU64,
    /// Microseconds that the shard's loop did not wait.
    pub busy_us: AtomicU64,
    /// From an event's arrival until the last member was served.
    pub latency: Buckets,
    /// Rounds that wrote to all members of a room.
    pub flush: Buckets,
    /// From an event's arrival until the shard's loop took it up.
    pub lag: Buckets,
    /// From the store to the last member's socket.
    pub to_socket: TracedBuckets,
    /// Bytes of long-polling's answers with packets. Any thread counts them: a call may come by another edge.
    pub polling_sent_bytes: AtomicU64,
    /// Bytes of its posts, counted in the same way.
    pub polling_received_bytes: AtomicU64,
    /// Age in microseconds of the oldest event that some member of a room had not got, when it was looked at last.
    pub log_lag_us: AtomicU64,
    /// Most events that some member of a room had not got then.
    pub log_lag_events: AtomicU64,
    closes: [AtomicU64; Cause::ALL.len()],
    codes: [AtomicU64; CodeLabel::ALL.len()],
}

impl Stats {
    /// Connections that ended for this cause.
    pub fn closes(&self, cause: Cause) -> u64 {
        self.closes[cause as usize].load(Relaxed)
    }

    /// Connections that ended with each close code, in the order of [`CodeLabel::ALL`].
    pub fn codes(&self) -> [u64; CodeLabel::ALL.len()] {
        self.codes.each_ref().map(|count| count.load(Relaxed))
    }

    pub(super) fn closed(&self, cause: Cause, code: CodeLabel) {
        add(&self.closes[cause as usize], 1);
        add(&self.codes[code.index()], 1);
    }
}

/// Adds to a counter that only this thread writes.
pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(amount), Relaxed);
}
