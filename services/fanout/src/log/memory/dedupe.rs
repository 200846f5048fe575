//! The ids of recent messages, in two generations: the older one is forgotten as a whole, so that an id costs
//! one insertion and nothing at its end.

use foldhash::HashMap;
use plaza_proto::ids::MessageId;
use std::time::Duration;

/// Which ids were stored within the window, and where. Time is passed in, in milliseconds.
#[derive(Debug)]
pub(super) struct Dedupe {
    window_ms: u64,
    capacity: usize,
    /// Sequence and time of each id.
    young: HashMap<MessageId, (u64, u64)>,
    old: HashMap<MessageId, (u64, u64)>,
    /// When the first of the young was stored.
    since: u64,
}

impl Dedupe {
    /// Of the ids within the window at least the newest `capacity` are known; more than twice as many are
    /// never held.
    pub(super) fn new(window: Duration, capacity: usize) -> Self {
        let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        Self { window_ms, capacity: capacity.max(1), young: HashMap::default(), old: HashMap::default(), since: 0 }
    }

    pub(super) fn get(&self, id: MessageId, now: u64) -> Option<u64> {
        let (seq, stored) = self.young.get(&id).or_else(|| self.old.get(&id))?;
        (stored.saturating_add(self.window_ms) >= now).then_some(*seq)
    }

    pub(super) fn insert(&mut self, id: MessageId, seq: u64, now: u64) {
        if self.young.len() >= self.capacity || self.since.saturating_add(self.window_ms) < now {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
            self.since = now;
        }
        self.young.insert(id, (seq, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn id(n: u8) -> MessageId {
        MessageId([n; 16])
    }

    #[test]
    fn an_id_is_known_within_the_window_and_not_after() {
        let mut dedupe = Dedupe::new(Duration::from_secs(2), 10);
        dedupe.insert(id(1), 7, 1_000);
        dedupe.insert(id(2), 8, 2_900);
        dedupe.insert(id(3), 9, 3_000);
        assert_eq!(dedupe.get(id(1), 3_000), Some(7));
        assert_eq!(dedupe.get(id(1), 3_001), None);
        dedupe.insert(id(4), 10, 4_900);
        assert_eq!([2, 3, 4].map(|n| dedupe.get(id(n), 4_900)), [Some(8), Some(9), Some(10)]);
    }

    #[test]
    fn the_newest_are_known_and_twice_as_many_are_held_at_most() {
        let mut dedupe = Dedupe::new(Duration::from_secs(2), 2);
        for n in 1..=9 {
            dedupe.insert(id(n), n.into(), 0);
            assert!(dedupe.young.len() + dedupe.old.len() <= 4);
            let newest = [n.saturating_sub(1).max(1), n];
            assert_eq!(newest.map(|n| dedupe.get(id(n), 0)), newest.map(|n| Some(n.into())));
        }
        assert_eq!(dedupe.get(id(1), 0), None);
    }
}
