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

    /// How many times there were since the last lap, and what 99 % of them were at most. Begins the next lap.
    pub(crate) fn lap(&self) -> (u64, Duration) {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.swap(0, Relaxed)).collect();
        let all: u64 = counts.iter().sum();
        let mut left = all / 100;
        let last = counts.iter().rposition(|count| {
            let within = *count > left;
            left = left.saturating_sub(*count);
            within
        });
        let us = last.map_or(0.0, |bucket| ((bucket + 1) as f64 / STEPS).exp2());
        (all, Duration::from_micros(us as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lap_tells_what_99_of_100_took_and_forgets_them() {
        let latency = Latency::new();
        assert_eq!(latency.lap(), (0, Duration::ZERO));
        for n in 0..1_000 {
            let took = if n < 989 { 1_000 } else { 1_000_000 };
            let bucket = (f64::from(took).log2() * STEPS) as usize;
            latency.buckets[bucket].fetch_add(1, Relaxed);
        }
        let (all, p99) = latency.lap();
        assert_eq!(all, 1_000);
        assert!(
            (1_000_000..1_050_000).contains(&p99.as_micros()),
            "11 of 1,000 are more than one in a hundred: {p99:?}"
        );
        for _ in 0..1_000 {
            latency.arrived(latency.now());
        }
        let (all, p99) = latency.lap();
        assert!(all == 1_000 && p99 < Duration::from_millis(100), "{all}, {p99:?}");
    }
}
