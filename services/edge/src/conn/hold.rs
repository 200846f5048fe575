//! What of one sender in one room was refused for the moment, or has an unknown outcome, and what may be
//! taken meanwhile. Its client has more on the way that it sent before it heard of the refusal: taken, those
//! would stand before what comes again. Pure.

use super::Millis;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

/// How long new publishes are refused when those that were refused had no id by which to know them again.
const BLIND: Millis = 1_000;
/// How long the next one that is owed may stay away. A client that has given it up goes on then.
const PATIENCE: Millis = 5_000;
/// Publishes that are remembered; those beyond may be taken in any order among themselves.
const OWED: usize = 256;

/// A message that can be known again: by a hash of its client id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(Option<u64>);

impl Key {
    /// Of a client id; an empty one is none.
    pub(super) fn of(client_id: &str) -> Self {
        Self((!client_id.is_empty()).then(|| {
            let mut hasher = DefaultHasher::new();
            client_id.hash(&mut hasher);
            hasher.finish()
        }))
    }

    /// The message has an id.
    pub(super) fn is_some(self) -> bool {
        self.0.is_some()
    }
}

/// Refused publishes, until they have come again or are given up.
#[derive(Debug)]
pub(super) struct Hold {
    /// In the order of the sender.
    owed: VecDeque<u64>,
    until: Millis,
}

impl Hold {
    /// Nothing is owed yet.
    pub(super) fn new(now: Millis) -> Self {
        Self { owed: VecDeque::new(), until: now + BLIND }
    }

    /// Publishes were refused as they came, in this order. Those that are owed already stay where they are.
    pub(super) fn refused(&mut self, keys: &[Key], now: Millis) {
        let nothing_owed = self.owed.is_empty();
        for key in keys.iter().filter_map(|key| key.0) {
            if self.owed.len() < OWED && !self.owed.contains(&key) {
                self.owed.push_back(key);
            }
        }
        if nothing_owed && !self.owed.is_empty() {
            self.until = now + PATIENCE;
        }
    }

    /// Publishes that had been taken came back, in this order: they stand before all that is owed.
    pub(super) fn returned(&mut self, keys: &[Key], now: Millis) {
        let keys: Vec<u64> = keys.iter().filter_map(|key| key.0).collect();
        self.owed.retain(|owed| !keys.contains(owed));
        for key in keys.into_iter().rev() {
            self.owed.push_front(key);
        }
        self.owed.truncate(OWED);
        self.until = now + if self.owed.is_empty() { BLIND } else { PATIENCE };
    }

    /// Whether a publish may be taken; it is no longer owed then. `retry`: the client says that it has heard
    /// of an earlier attempt.
    pub(super) fn is_turn_of(&mut self, key: Key, retry: bool, now: Millis) -> bool {
        let place = key.0.and_then(|key| self.owed.iter().position(|owed| *owed == key));
        match place {
            Some(0) => {
                self.owed.pop_front();
                // The last one: its client has heard of all refusals.
                self.until = if self.owed.is_empty() { now } else { now + PATIENCE };
                true
            }
            Some(_) => now >= self.until,
            None => retry || now >= self.until,
        }
    }

    /// Nobody need wait any more.
    pub(super) fn is_over(&self, now: Millis) -> bool {
        now >= self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys<const N: usize>(ids: [&str; N]) -> [Key; N] {
        ids.map(Key::of)
    }

    #[test]
    fn what_was_refused_comes_again_in_its_order_before_anything_new() {
        let mut hold = Hold::new(0);
        let [a, b, c] = keys(["a", "b", "c"]);
        hold.refused(&[a], 0);
        assert!(!hold.is_turn_of(b, false, 10), "it was on its way");
        hold.refused(&[b], 10);
        assert!(!hold.is_turn_of(b, false, 2_000), "a has not come again");
        assert!(hold.is_turn_of(a, false, 2_000));
        assert!(!hold.is_turn_of(c, false, 2_001) && !hold.is_over(2_001));
        assert!(hold.is_turn_of(b, false, 2_002));
        assert!(hold.is_over(2_002));
    }

    #[test]
    fn what_comes_back_stands_before_what_was_refused_later() {
        let mut hold = Hold::new(0);
        let [a, b, c] = keys(["a", "b", "c"]);
        hold.refused(&[a, c], 0);
        assert!(hold.is_turn_of(a, false, 1));
        hold.returned(&[a, b], 2);
        let order = [a, b, c].map(|key| hold.is_turn_of(key, true, 3));
        assert_eq!(order, [true; 3]);
    }

    #[test]
    fn a_client_that_gives_up_goes_on_after_a_while() {
        let mut hold = Hold::new(0);
        let [a, b, none] = keys(["a", "b", ""]);
        hold.refused(&[a], 0);
        assert!(!hold.is_turn_of(b, false, 4_999) && !hold.is_turn_of(none, false, 4_999));
        hold.refused(&[b, none], 4_999);
        assert!(hold.is_over(5_000), "refusals do not make it longer");
        let mut blind = Hold::new(0);
        blind.returned(&[none], 0);
        assert!(!blind.is_turn_of(b, false, 999) && blind.is_turn_of(b, true, 999) && blind.is_over(1_000));
    }
}
