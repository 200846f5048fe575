//! When a client of the swarm sends, and when it comes back. No I/O.

use std::time::Duration;
use tokio::time::Instant;

/// What a fault held up is sent so much faster than planned, until the plan is met again.
const HURRY: f64 = 3.0;
/// What was held up longer is dropped from the plan.
const PATIENCE: Duration = Duration::from_secs(30);
/// A client comes back after a random time below this, which doubles with each attempt that gets it nowhere.
const BACK: Duration = Duration::from_millis(400);
/// It does not double beyond this: so long a stock client waits at most.
const BACK_MOST: Duration = Duration::from_secs(5);
/// The longest wait that a server can ask for, as on our page.
const HINT_MOST: Duration = Duration::from_secs(120);

/// When the next message is due. What a fault holds up is made up for, faster than planned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pause: Duration,
    /// By the plan.
    planned: Instant,
    /// Not before.
    earliest: Instant,
}

impl Pace {
    /// One message every `pause`, the first after this part of it.
    pub(crate) fn new(pause: Duration, part: f64) -> Self {
        let now = Instant::now();
        Self { pause, planned: now + pause.mul_f64(part), earliest: now }
    }

    /// When the next one is due.
    pub(crate) fn due(&self) -> Instant {
        self.planned.max(self.earliest)
    }

    /// One was sent now.
    pub(crate) fn sent(&mut self) {
        let now = Instant::now();
        // Neither does a storm make it silent for long afterwards.
        let oldest = now.checked_sub(PATIENCE).unwrap_or(now);
        self.planned = (self.planned + self.pause).clamp(oldest, now + self.pause);
        self.earliest = now + self.pause.div_f64(HURRY);
    }
}

/// When a client comes back: later each time it is not let in, at a random moment, and when it was told when, then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Back {
    /// Attempts since it was last in all its rooms.
    attempts: u32,
    hint: Option<Duration>,
}

impl Back {
    /// The server has said how long it should stay away.
    pub(crate) fn hint(&mut self, wait: Duration) {
        self.hint = Some(wait.min(HINT_MOST));
    }

    /// How long it waits before the next attempt; `random` is at least 0 and below 1.
    pub(crate) fn wait(&mut self, random: f64) -> Duration {
        let below = BACK.saturating_mul(2_u32.saturating_pow(self.attempts)).min(BACK_MOST);
        self.attempts = self.attempts.saturating_add(1);
        self.hint.take().unwrap_or_else(|| below.mul_f64(random))
    }
}

/// When a request that was refused for the moment is made again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Again {
    back: Back,
    due: Option<Instant>,
}

impl Again {
    /// It was refused; `random` is at least 0 and below 1.
    pub(crate) fn later(&mut self, random: f64) {
        if self.due.is_none() {
            self.due = Some(Instant::now() + self.back.wait(random));
        }
    }

    /// When that is.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether it is made now: once for each refusal.
    pub(crate) fn is_due(&mut self) -> bool {
        self.due.take_if(|due| *due <= Instant::now()).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_let_in_comes_back_later_each_time_up_to_a_bound_or_when_told() {
        let mut back = Back::default();
        let mut ms = |hint: Option<u64>| {
            hint.into_iter().for_each(|hint| back.hint(Duration::from_millis(hint)));
            back.wait(0.5).as_millis()
        };
        assert_eq!([None, None, Some(7_000), None].map(&mut ms), [200, 400, 7_000, 1_600], "a hint counts once");
        assert_eq!([None, None, Some(u64::MAX)].map(&mut ms), [2_500, 2_500, 120_000]);
        let mut late = Back { attempts: u32::MAX, hint: None };
        assert_eq!([late.wait(0.0), late.wait(0.9)], [Duration::ZERO, Duration::from_millis(4_500)]);
    }
}
