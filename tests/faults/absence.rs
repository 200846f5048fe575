//! How long clients are away from a strike until everybody has everything again: the times that rows 1 and 18
//! promise.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What is measured of the open strike; nothing while none is open.
#[derive(Debug, Default)]
pub(crate) struct Absence(Mutex<Option<Strike>>);

#[derive(Debug, Default)]
struct Strike {
    /// Who is away.
    since: HashMap<u32, Away>,
    /// How long somebody was away, each time.
    away: Vec<Duration>,
    /// The same without the waits, which the server asked for or the client chose.
    returning: Vec<Duration>,
    /// How often each was away.
    times: HashMap<u32, u32>,
}

/// Somebody who is away.
#[derive(Debug)]
struct Away {
    /// When it heard its last word.
    heard: Instant,
    /// How long it has waited before attempts.
    waited: Duration,
}

impl Absence {
    /// A strike begins.
    pub(crate) fn begin(&self) {
        *self.strike() = Some(Strike::default());
    }

    /// It is over: what clients went through, in one line.
    pub(crate) fn end(&self) -> String {
        let Strike { mut away, mut returning, times, .. } = self.strike().take().unwrap_or_default();
        format!(
            "{} clients were away, {} times each at most, p50 {} ms, p99 {} ms, without their waits p99 {} ms",
            times.len(),
            times.values().max().unwrap_or(&0),
            percentile(&mut away, 50),
            percentile(&mut away, 99),
            percentile(&mut returning, 99),
        )
    }

    /// A client has lost its connection, on which it heard its last word at `heard`, or has not got another one.
    pub(crate) fn lost(&self, client: u32, heard: Instant) {
        if let Some(strike) = &mut *self.strike() {
            strike.since.entry(client).or_insert(Away { heard, waited: Duration::ZERO });
        }
    }

    /// It waits so long before it tries to come back.
    pub(crate) fn waits(&self, client: u32, wait: Duration) {
        if let Some(away) = self.strike().as_mut().and_then(|strike| strike.since.get_mut(&client)) {
            away.waited += wait;
        }
    }

    /// It is in all its rooms.
    pub(crate) fn back(&self, client: u32, now: Instant) {
        if let Some(strike) = &mut *self.strike()
            && let Some(Away { heard, waited }) = strike.since.remove(&client)
        {
            strike.away.push(now - heard);
            strike.returning.push((now - heard).saturating_sub(waited));
            *strike.times.entry(client).or_default() += 1;
        }
    }

    fn strike(&self) -> MutexGuard<'_, Option<Strike>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// So many of a hundred took at most so many milliseconds; 0 of none.
fn percentile(all: &mut [Duration], percent: usize) -> u128 {
    all.sort_unstable();
    let rank = (all.len() * percent).div_ceil(100).saturating_sub(1);
    all.get(rank).map_or(0, Duration::as_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_strike_does_is_measured_from_the_last_word() {
        let absence = Absence::default();
        let begin = Instant::now();
        let after = |ms| begin + Duration::from_millis(ms);
        absence.lost(9, begin);
        absence.begin();
        absence.lost(4, begin);
        absence.waits(4, Duration::from_millis(250));
        // An attempt that fails is no second absence.
        absence.lost(4, after(300));
        absence.waits(4, Duration::from_millis(150));
        absence.back(4, after(500));
        absence.back(9, after(500));
        let told = "1 clients were away, 1 times each at most, p50 500 ms, p99 500 ms, without their waits p99 100 ms";
        assert_eq!(absence.end(), told);
        absence.lost(4, begin);
        absence.waits(4, Duration::from_millis(250));
        absence.back(4, after(500));
        let nothing = "0 clients were away, 0 times each at most, p50 0 ms, p99 0 ms, without their waits p99 0 ms";
        assert_eq!(absence.end(), nothing);
    }

    #[test]
    fn the_percentile_is_one_of_them() {
        let mut all: Vec<_> = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!((percentile(&mut all, 50), percentile(&mut all, 99)), (100, 198));
        assert_eq!(percentile(&mut all[..1], 99), 1);
    }
}
