//! How far the slowest member of a room is behind the newest event. Looked at once a second, and only while some log
//! holds something: a delivery pays nothing for it.

use super::core::Core;
use crate::conn::Millis;
use std::sync::atomic::Ordering::Relaxed;

/// Between two looks.
const EVERY_MS: Millis = 1_000;

impl Core {
    /// Looks, when it is time: every log lets go of what all have got, and the oldest that is left is the lag.
    pub(super) fn look_at_logs(&mut self) {
        if self.now() < self.looks_at {
            return;
        }
        self.looks_at = self.now() + EVERY_MS;
        if !self.may_lag() {
            return;
        }
        let (mut lag_us, mut events) = (0, 0);
        for number in 0..self.boards.len() {
            let holds = |core: &Self| core.boards[number].as_ref().and_then(|board| board.log.oldest());
            if holds(self).is_none() {
                continue;
            }
            self.trim(number as u32);
            if let Some((arrival, count)) = holds(self) {
                lag_us = lag_us.max(self.now_us().saturating_sub(arrival.at_us));
                events = events.max(count);
            }
        }
        let stats = self.handle.stats();
        stats.log_lag_us.store(lag_us, Relaxed);
        stats.log_lag_events.store(events, Relaxed);
    }

    /// When to look next, though nothing else happens.
    pub(super) fn next_look(&self) -> Option<Millis> {
        self.may_lag().then_some(self.looks_at)
    }

    /// Some log holds something, or did at the last look, and that it is over is not told yet.
    fn may_lag(&self) -> bool {
        self.log_bytes > 0 || self.handle.stats().log_lag_events.load(Relaxed) > 0
    }
}
