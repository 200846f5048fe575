//! The ids of recent messages.

use plaza_proto::ids::MessageId;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Which ids were stored within the window, and where. Time is passed in, in milliseconds.
#[derive(Debug)]
pub(super) struct Dedupe {
    window_ms: u64,
    capacity: usize,
    seqs: HashMap<MessageId, u64>,
    /// Oldest first.
    ids: VecDeque<(u64, MessageId)>,
}

impl Dedupe {
    pub(super) fn new(window: Duration, capacity: usize) -> Self {
        let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        Self { window_ms, capacity, seqs: HashMap::new(), ids: VecDeque::new() }
    }

    pub(super) fn get(&self, id: MessageId) -> Option<u64> {
        self.seqs.get(&id).copied()
    }

    pub(super) fn insert(&mut self, id: MessageId, seq: u64, now: u64) {
        if self.ids.len() >= self.capacity {
            self.forget_oldest();
        }
        self.seqs.insert(id, seq);
        self.ids.push_back((now, id));
    }

    pub(super) fn expire(&mut self, now: u64) {
        while self.ids.front().is_some_and(|(stored, _)| stored.saturating_add(self.window_ms) < now) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.ids.pop_front() {
            self.seqs.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_known_within_the_window_and_not_after() {
        let mut dedupe = Dedupe::new(Duration::from_secs(2), 10);
        dedupe.insert(MessageId([1; 16]), 7, 1_000);
        dedupe.expire(3_000);
        assert_eq!(dedupe.get(MessageId([1; 16])), Some(7));
        dedupe.expire(3_001);
        assert_eq!(dedupe.get(MessageId([1; 16])), None);
    }

    #[test]
    fn beyond_the_capacity_the_oldest_goes() {
        let mut dedupe = Dedupe::new(Duration::from_secs(2), 2);
        for n in 1..=3 {
            dedupe.insert(MessageId([n; 16]), n.into(), 0);
        }
        assert_eq!([1, 2, 3].map(|n| dedupe.get(MessageId([n; 16]))), [None, Some(2), Some(3)]);
    }
}
