//! Latencies in buckets of three digits, 1 us to far above 60 s.

/// Below this, each microsecond has a bucket of its own; above, each power of two has half as many.
const EXACT: u64 = 2_048;

/// Counts by latency.
#[derive(Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; bucket(1 << 36) + 1], total: 0, max: 0 }
    }

    /// Counts one latency in microseconds.
    pub(crate) fn record(&mut self, micros: u64) {
        let last = self.counts.len() - 1;
        self.counts[bucket(micros).min(last)] += 1;
        self.total += 1;
        self.max = self.max.max(micros);
    }

    /// The latency that this share of all stays at or below, in microseconds; 0 when there are none.
    pub(crate) fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return value(index).min(self.max);
            }
        }
        self.max
    }

    pub(crate) const fn max(&self) -> u64 {
        self.max
    }
}

fn bucket(micros: u64) -> usize {
    let shift = (64 - micros.leading_zeros()).saturating_sub(EXACT.trailing_zeros());
    (u64::from(shift) * (EXACT / 2) + (micros >> shift)) as usize
}

/// The largest latency in a bucket.
fn value(index: usize) -> u64 {
    let index = index as u64;
    if index < EXACT {
        return index;
    }
    let shift = index / (EXACT / 2) - 1;
    ((index - shift * (EXACT / 2) + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_lands_within_a_tenth_of_a_percent_of_itself() {
        for micros in (0..5_000).chain((5_000..60_000_000).step_by(7_919)) {
            let found = value(bucket(micros));
            assert!(found >= micros && found - micros <= micros / 1_000 + 1, "{micros} became {found}");
        }
    }

    #[test]
    fn quantiles_are_read_from_the_counts() {
        let mut histogram = Histogram::new();
        (1..=1_000).for_each(|micros| histogram.record(micros));
        assert_eq!([histogram.quantile(0.5), histogram.quantile(0.99), histogram.max()], [500, 990, 1_000]);
    }
}
