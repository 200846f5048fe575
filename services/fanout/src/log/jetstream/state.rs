//! What this process knows of the stream: whether it serves, under which epoch, and how far it has
//! come. Pure; the supervisor moves it, publishes and reads look at it.

use plaza_proto::position::{Epoch, Position};

/// Whether publishes and reads may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Never been ready: nothing is sent, callers are told at once.
    Starting,
    /// The stream's identity is being checked: nothing is sent, callers wait.
    Checking,
    /// Ready.
    Serving,
}

/// A message that the stream is known to have held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) seq: u64,
    /// Of its message id, as positions have it.
    pub(super) check: u32,
}

/// What the supervisor has found out about the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// The newest events kept of each room.
    pub(super) per_room: u64,
    /// Milliseconds that an event is kept; `None`: for ever.
    pub(super) age_ms: Option<u64>,
    /// Bytes of the whole stream.
    pub(super) bytes: u64,
    /// Several servers keep it.
    pub(super) is_replicated: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) epoch: Epoch,
    pub(super) limits: Limits,
    /// The highest known; zeros: none.
    pub(super) known: Known,
    /// How often the connections had been made when the stream was checked: on newer ones another server
    /// may answer, with another past.
    pub(super) connects: u64,
    /// A tail of the stream and the local time when it was one: what comes after is younger.
    marks: [Mark; 2],
}

#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    seq: u64,
    time: u64,
}

/// A message that an earlier one of the same sequence, or a later one, contradicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RolledBack;

impl State {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Starting,
            epoch: Epoch::default(),
            limits: Limits { per_room: 0, age_ms: None, bytes: 0, is_replicated: false },
            known: Known { seq: 0, check: 0 },
            connects: 0,
            marks: [Mark::default(); 2],
        }
    }

    /// The stream has been checked on connections made so often; `tail` is its last sequence at `now`.
    pub(super) fn serve(&mut self, epoch: Epoch, limits: Limits, connects: u64, tail: u64, now: u64) {
        if epoch != self.epoch {
            *self = Self::new();
        }
        self.epoch = epoch;
        self.limits = limits;
        self.connects = connects;
        self.phase = Phase::Serving;
        self.mark(tail, now);
    }

    /// Remembers that `tail` was the stream's last sequence at `now`. Two marks, half an age apart,
    /// keep one that is young enough to say something.
    fn mark(&mut self, tail: u64, now: u64) {
        let half = self.limits.age_ms.map_or(u64::MAX, |age| age / 2);
        let [older, newer] = self.marks;
        if newer.time == 0 {
            self.marks = [Mark { seq: tail, time: now }; 2];
        } else if now.saturating_sub(newer.time) >= half {
            self.marks = [newer, Mark { seq: tail, time: now }];
        } else {
            self.marks = [older, newer];
        }
    }

    /// Takes note of an event that somebody else knows of: what is stored from now on stands behind it.
    pub(super) fn hear(&mut self, known: Position) {
        if self.phase != Phase::Starting && known.epoch == self.epoch && known.seq > self.known.seq {
            self.known = Known { seq: known.seq, check: known.check };
        }
    }

    /// Takes note of an acknowledgement. `sent_at` is [`Self::known`] when the message was sent: a new
    /// message can only stand after it.
    ///
    /// # Errors
    /// [`RolledBack`]: the stream has lost what it had acknowledged.
    pub(super) fn acknowledged(
        &mut self,
        seq: u64,
        check: u32,
        duplicate: bool,
        sent_at: Known,
        now: u64,
    ) -> Result<(), RolledBack> {
        if !duplicate && seq <= sent_at.seq {
            return Err(RolledBack);
        }
        if seq > self.known.seq {
            self.known = Known { seq, check };
            self.mark(seq, now);
        }
        Ok(())
    }

    /// Compares what is known with what the stream says now: its last sequence, and the check of the
    /// message at the known sequence, `None` when that is gone.
    pub(super) fn check(&self, last_seq: u64, at_known: Option<u32>) -> Result<(), RolledBack> {
        let lost = last_seq < self.known.seq;
        let other = self.known.seq > 0 && at_known.is_some_and(|check| check != self.known.check);
        if lost || other { Err(RolledBack) } else { Ok(()) }
    }

    /// Whether every event with a sequence above `seq` was surely stored less than the stream's age ago.
    pub(super) fn younger_than_age(&self, seq: u64, now: u64) -> bool {
        let Some(age) = self.limits.age_ms else { return true };
        let young = |mark: &Mark| mark.time > 0 && mark.seq <= seq && now.saturating_sub(mark.time) < age;
        self.marks.iter().any(young)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { per_room: 10, age_ms: Some(1_000), bytes: 1_000, is_replicated: false };

    fn serving() -> State {
        let mut state = State::new();
        state.serve(Epoch([1; 8]), LIMITS, 3, 5, 10_000);
        state
    }

    #[test]
    fn a_new_message_below_a_known_one_is_a_roll_back() {
        let mut state = serving();
        let before = state.known;
        assert_eq!(state.acknowledged(7, 7, false, before, 10_000), Ok(()));
        assert_eq!(state.acknowledged(6, 6, false, before, 10_000), Ok(()), "sent before 7 was known");
        let after = state.known;
        assert_eq!(state.acknowledged(7, 8, false, after, 10_000), Err(RolledBack));
        assert_eq!(state.acknowledged(7, 7, true, after, 10_000), Ok(()), "a duplicate may be old");
    }

    #[test]
    fn a_shorter_stream_or_another_message_is_a_roll_back() {
        let mut state = serving();
        assert_eq!(state.check(0, None), Ok(()), "nothing is known yet");
        assert_eq!(state.acknowledged(7, 7, false, state.known, 10_000), Ok(()));
        assert_eq!(state.check(7, Some(7)), Ok(()));
        assert_eq!(state.check(9, None), Ok(()), "it may have been trimmed");
        assert_eq!(state.check(6, None), Err(RolledBack));
        assert_eq!(state.check(9, Some(9)), Err(RolledBack));
    }

    #[test]
    fn what_others_know_shows_a_roll_back_too() {
        let mut state = serving();
        state.hear(Position { epoch: Epoch([2; 8]), seq: 90, check: 9 });
        assert_eq!(state.known.seq, 0, "of another log");
        state.hear(Position { epoch: Epoch([1; 8]), seq: 9, check: 9 });
        state.hear(Position { epoch: Epoch([1; 8]), seq: 8, check: 8 });
        assert_eq!(state.known, Known { seq: 9, check: 9 });
        assert_eq!(state.acknowledged(7, 7, false, state.known, 10_000), Err(RolledBack));
        assert_eq!((state.check(8, None), state.check(12, Some(1))), (Err(RolledBack), Err(RolledBack)));
        assert_eq!(state.check(12, Some(9)), Ok(()));
    }

    #[test]
    fn another_epoch_forgets_what_was_known() {
        let mut state = serving();
        assert_eq!(state.acknowledged(7, 7, false, state.known, 10_000), Ok(()));
        state.serve(Epoch([2; 8]), LIMITS, 4, 0, 10_000);
        assert_eq!(state.known.seq, 0);
    }

    #[test]
    fn events_after_a_young_mark_are_young() {
        let mut state = serving();
        assert!(state.younger_than_age(5, 10_999));
        assert!(!state.younger_than_age(4, 10_999), "4 may be older than this process");
        assert!(!state.younger_than_age(5, 11_000));
        assert_eq!(state.acknowledged(8, 8, false, state.known, 10_600), Ok(()));
        assert!(state.younger_than_age(8, 11_000));
    }
}
