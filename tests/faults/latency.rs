//! How long messages take: from the moment a client wrote one until a member has it, over all members that read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Buckets for a doubled time: each is 4 % wide.
const STEPS: f64 = 16.0;
/// Up to a day.
const BUCKETS: usize = 16 * 37;

/// Times since the last lap.
#[derive(Debug)]
pub(crate) struct Latency {
    begin: Instant,
    buckets: Box<[AtomicU64]>,
}

impl Latency {
    pub(crate) fn new() -> Self {
        Self { begin: Instant::now(), buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Microseconds of this clock, which a message carries.
    pub(crate) fn now(&self) -> u64 {
        self.begin.elapsed().as_micros() as u64
    }

    /// A message that was written then has arrived.
    pub(crate) fn arrived(&self, written: u64) {
        let bucket = (self.now().saturating_sub(written).max(1) as f64).log2() * STEPS;
        self.buckets[(bucket as usize).min(BUCKETS - 1)].fetch_add(1, Relaxed);
    }

    /// The times since the last lap. Begins the next one.
    pub(crate) fn lap(&self) -> Lap {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.swap(0, Relaxed)).collect();
        let count = counts.iter().sum();
        Lap { count, p50: all_but(&counts, count / 2), p99: all_but(&counts, count / 100) }
    }
}

/// The times of a lap: how many, and what 50 and 99 % of them were at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lap {
    pub(crate) count: u64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

impl std::fmt::Display for Lap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { count, p50, p99 } = self;
        write!(f, "{count} messages came, p50 {} ms, p99 {} ms", p50.as_millis(), p99.as_millis())
    }
}

/// What all but the `left` longest of the counted times were at most.
fn all_but(counts: &[u64], mut left: u64) -> Duration {
    let last = counts.iter().rposition(|count| {
        let within = *count > left;
        left = left.saturating_sub(*count);
        within
    });
    let us = last.map_or(0.0, |bucket| ((bucket + 1) as f64 / STEPS).exp2());
    Duration::from_micros(us as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lap_tells_what_99_of_100_took_and_forgets_them() {
        let latency = Latency::new();
        assert_eq!(latency.lap(), Lap::default());
        assert_eq!(Lap::default().to_string(), "0 messages came, p50 0 ms, p99 0 ms");
        for n in 0..1_000 {
            let took = if n < 989 { 1_000 } else { 1_000_000 };
            let bucket = (f64::from(took).log2() * STEPS) as usize;
            latency.buckets[bucket].fetch_add(1, Relaxed);
        }
        let Lap { count, p50, p99 } = latency.lap();
        assert_eq!(count, 1_000);
        assert!((1_000..1_050).contains(&p50.as_micros()), "most are short: {p50:?}");
        assert!(
            (1_000_000..1_050_000).contains(&p99.as_micros()),
            "11 of 1,000 are more than one in a hundred: {p99:?}"
        );
        for _ in 0..1_000 {
            latency.arrived(latency.now());
        }
        let Lap { count, p99, .. } = latency.lap();
        assert!(count == 1_000 && p99 < Duration::from_millis(100), "{count}, {p99:?}");
    }
}
