//! What all connections of an edge share, and their rates.

use super::Millis;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The opaque number of an edge, known once the session service gave it; 0 until then. Clones are the
/// same number.
#[derive(Clone, Debug, Default)]
pub struct EdgeNumber(Arc<AtomicU32>);

impl EdgeNumber {
    /// The number now.
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets it.
    pub fn set(&self, number: u32) {
        self.0.store(number, Ordering::Relaxed);
    }
}

/// Settings of connections; plain data, shared by all.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Number of this edge, part of every sid.
    pub edge_number: EdgeNumber,
    /// Milliseconds from a pong to the next ping.
    pub ping_interval_ms: u64,
    /// Milliseconds a client has for its pong.
    pub ping_timeout_ms: u64,
    /// Milliseconds from a probing WebSocket's start to its upgrade.
    pub upgrade_timeout_ms: u64,
    /// Milliseconds from open to the first joined namespace, or to `hello`.
    pub connect_timeout_ms: u64,
    /// Milliseconds that the services may take to open a session once a client has asked for it. Longer than the whole
    /// line of those who want one takes: a client that was given up would leave its turn unused, and come again.
    pub open_timeout_ms: u64,
    /// Largest message in bytes.
    pub max_message_bytes: usize,
    /// Messages a session may send in a second; 0: no limit.
    pub message_rate: u32,
    /// Messages a session may send at once before the rate counts; at least 1.
    pub message_burst: u32,
    /// Every client may publish data.
    pub open_publish: bool,
}

impl Default for Settings {
    /// The defaults of the flags; edge number 0.
    fn default() -> Self {
        Self {
            edge_number: EdgeNumber::default(),
            ping_interval_ms: 20_000,
            ping_timeout_ms: 10_000,
            upgrade_timeout_ms: 10_000,
            connect_timeout_ms: 5_000,
            open_timeout_ms: 15_000,
            max_message_bytes: 65_536,
            message_rate: 10,
            message_burst: 20,
            open_publish: false,
        }
    }
}

/// A token bucket, kept as the time at which it would be full again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    full_at_us: u64,
}

impl Bucket {
    /// Takes one token; false when there is none. `rate` is tokens a second, 0 is no limit; `burst` is
    /// how many a full bucket holds.
    pub(crate) fn take(&mut self, now: Millis, rate: u32, burst: u32) -> bool {
        if rate == 0 {
            return true;
        }
        let interval_us = 1_000_000 / u64::from(rate);
        let now_us = now.saturating_mul(1_000);
        let full_at_us = self.full_at_us.max(now_us);
        if full_at_us - now_us > interval_us * u64::from(burst.max(1) - 1) {
            return false;
        }
        self.full_at_us = full_at_us + interval_us;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sec8_a_burst_passes_and_one_more_does_not() {
        let mut bucket = Bucket::default();
        assert!((0..20).all(|_| bucket.take(1_000, 10, 20)));
        assert!(!bucket.take(1_000, 10, 20));
        assert!(bucket.take(1_100, 10, 20), "a token comes back each 100 ms");
        assert!(!bucket.take(1_100, 10, 20));
        assert!((0..100).all(|_| bucket.take(1_100, 0, 20)), "0 is no limit");
    }

    proptest! {
        #[test]
        fn no_schedule_passes_more_than_rate_and_burst(rate in 1u32..2_000, burst in 1u32..50, steps in proptest::collection::vec(0u64..300, 1..300)) {
            let (mut bucket, mut now, mut passed) = (Bucket::default(), 0, 0);
            for step in steps {
                now += step;
                passed += u64::from(bucket.take(now, rate, burst));
            }
            let interval_us = 1_000_000 / u64::from(rate);
            prop_assert!(passed <= u64::from(burst) + now * 1_000 / interval_us + 1);
        }
    }
}
