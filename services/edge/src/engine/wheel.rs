//! Timers: a wheel of buckets with links inside, one possible deadline a slot. No allocation but for new
//! slots; moving a deadline further away only stores it.

use crate::conn::Millis;

/// Buckets of the wheel. A deadline further away waits in the furthest bucket and is linked again there.
const BUCKETS: u64 = 512;

/// No slot.
const NONE: u32 = u32::MAX;

/// One slot's timer.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// When to fire; `Millis::MAX`: never.
    deadline: Millis,
    /// The tick of the bucket it is linked in; `u64::MAX`: none.
    tick: u64,
    next: u32,
    previous: u32,
}

impl Node {
    const IDLE: Self = Self { deadline: Millis::MAX, tick: u64::MAX, next: NONE, previous: NONE };
}

/// The timers of a shard.
#[derive(Debug)]
pub(super) struct Wheel {
    tick_ms: u64,
    /// All buckets up to this tick are done.
    done: u64,
    heads: Box<[u32; BUCKETS as usize]>,
    occupied: [u64; BUCKETS as usize / 64],
    nodes: Vec<Node>,
}

impl Wheel {
    /// A wheel that starts at `now` and fires at most `tick_ms` late.
    pub(super) fn new(tick_ms: u64, now: Millis) -> Self {
        let tick_ms = tick_ms.max(1);
        let heads = Box::new([NONE; BUCKETS as usize]);
        Self { tick_ms, done: now / tick_ms, heads, occupied: [0; BUCKETS as usize / 64], nodes: Vec::new() }
    }

    /// Sets or removes a slot's deadline.
    pub(super) fn set(&mut self, slot: u32, deadline: Option<Millis>) {
        let deadline = deadline.unwrap_or(Millis::MAX);
        let place = slot as usize;
        if place >= self.nodes.len() {
            self.nodes.resize(place + 1, Node::IDLE);
        }
        let tick = self.tick_of(deadline);
        let node = &mut self.nodes[place];
        node.deadline = deadline;
        if deadline == Millis::MAX {
            self.unlink(slot);
        } else if node.tick > tick {
            // Sooner than where it is linked, or not linked. Later costs nothing until its bucket comes.
            self.unlink(slot);
            self.link(slot, tick);
        }
    }

    /// When the next bucket is due; `None`: no timer.
    pub(super) fn next(&self) -> Option<Millis> {
        let first = self.done + 1;
        let words = self.occupied.len() as u64;
        let start = (first % BUCKETS) / 64;
        for step in 0..=words {
            let word = (start + step) % words;
            let mut bits = self.occupied[word as usize];
            if step == 0 {
                bits &= u64::MAX << (first % 64);
            }
            if bits != 0 {
                let bucket = word * 64 + u64::from(bits.trailing_zeros());
                let ahead = (bucket + BUCKETS - first % BUCKETS) % BUCKETS;
                return Some((first + ahead) * self.tick_ms);
            }
        }
        None
    }

    /// Appends the slots whose deadline has passed to `due`; they have none then.
    pub(super) fn expire(&mut self, now: Millis, due: &mut Vec<u32>) {
        let last = now / self.tick_ms;
        // A long sleep needs no more than one round.
        self.done = self.done.max(last.saturating_sub(BUCKETS));
        while self.done < last {
            self.done += 1;
            let bucket = (self.done % BUCKETS) as usize;
            let mut slot = std::mem::replace(&mut self.heads[bucket], NONE);
            self.occupied[bucket / 64] &= !(1 << (bucket % 64));
            while slot != NONE {
                let node = &mut self.nodes[slot as usize];
                let next = node.next;
                let deadline = node.deadline;
                *node = Node { deadline, ..Node::IDLE };
                if deadline <= now {
                    node.deadline = Millis::MAX;
                    due.push(slot);
                } else {
                    let tick = self.tick_of(deadline);
                    self.link(slot, tick);
                }
                slot = next;
            }
        }
    }

    /// The tick at which a deadline has surely passed, within the wheel's reach.
    fn tick_of(&self, deadline: Millis) -> u64 {
        deadline.div_ceil(self.tick_ms).clamp(self.done + 1, self.done + BUCKETS - 1)
    }

    fn link(&mut self, slot: u32, tick: u64) {
        let bucket = (tick % BUCKETS) as usize;
        let next = std::mem::replace(&mut self.heads[bucket], slot);
        if next != NONE {
            self.nodes[next as usize].previous = slot;
        }
        let node = &mut self.nodes[slot as usize];
        (node.tick, node.next, node.previous) = (tick, next, NONE);
        self.occupied[bucket / 64] |= 1 << (bucket % 64);
    }

    fn unlink(&mut self, slot: u32) {
        let node = self.nodes[slot as usize];
        if node.tick == u64::MAX {
            return;
        }
        let bucket = (node.tick % BUCKETS) as usize;
        if node.previous == NONE {
            self.heads[bucket] = node.next;
            if node.next == NONE {
                self.occupied[bucket / 64] &= !(1 << (bucket % 64));
            }
        } else {
            self.nodes[node.previous as usize].next = node.next;
        }
        if node.next != NONE {
            self.nodes[node.next as usize].previous = node.previous;
        }
        self.nodes[slot as usize] = Node { deadline: node.deadline, ..Node::IDLE };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_deadline_fires_once_and_never_early() {
        let mut wheel = Wheel::new(250, 1_000);
        let mut due = Vec::new();
        wheel.set(3, Some(1_900));
        assert_eq!(wheel.next(), Some(2_000));
        wheel.expire(1_999, &mut due);
        assert!(due.is_empty());
        wheel.expire(2_000, &mut due);
        assert_eq!(due, [3]);
        wheel.expire(900_000, &mut due);
        assert_eq!(due, [3]);
        assert_eq!(wheel.next(), None);
    }

    proptest! {
        /// Against a plain map: nothing early, nothing later than a tick, whatever is set and moved.
        #[test]
        fn the_wheel_fires_what_a_map_would(
            tick in 1u64..300,
            steps in proptest::collection::vec((0u32..20, proptest::option::of(0u64..400_000), 0u64..2_000), 1..200),
        ) {
            let mut wheel = Wheel::new(tick, 0);
            let mut model = BTreeMap::new();
            let mut now = 0;
            for (slot, after, pass) in steps {
                wheel.set(slot, after.map(|after| now + after));
                match after {
                    Some(after) => { model.insert(slot, now + after); }
                    None => { model.remove(&slot); }
                }
                now += pass;
                let mut due = Vec::new();
                wheel.expire(now, &mut due);
                for slot in due {
                    let deadline = model.remove(&slot);
                    prop_assert!(deadline.is_some_and(|deadline| deadline <= now), "early or twice");
                }
                let overdue = model.values().find(|&&deadline| deadline + 2 * tick <= now);
                prop_assert_eq!(overdue, None, "missed");
                if let Some(&first) = model.values().min() {
                    let next = wheel.next();
                    prop_assert!(next.is_some_and(|next| next <= first.max(now) + 2 * tick), "sleeps too long");
                }
            }
        }
    }
}
