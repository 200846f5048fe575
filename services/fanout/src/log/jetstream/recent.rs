//! The newest events of the rooms whose history is asked for. The stream reads forward only: without
//! them each page of history would read the whole room. Pure.

use crate::log::Stored;
use plaza_proto::ids::RoomName;
use plaza_proto::position::Epoch;
use std::collections::{HashMap, VecDeque};

/// Events and bytes that are kept of one room.
const ROOM: (usize, usize) = (256, 256 * 1024);
/// Bytes of all rooms together; beyond, the room that was asked for longest ago goes.
const ALL_BYTES: usize = 32 * 1024 * 1024;
/// What an event costs besides its body, about.
const OVERHEAD: usize = 96;

/// Rooms with their newest events.
#[derive(Debug, Default)]
pub(super) struct Recent {
    rooms: HashMap<RoomName, Room>,
    bytes: usize,
    /// Of what is kept.
    epoch: Epoch,
    /// Counts uses.
    clock: u64,
}

#[derive(Debug, Default)]
struct Room {
    /// Ascending, each with the one before it.
    events: VecDeque<Stored>,
    /// Nothing of the room stood before the first one.
    begins: bool,
    bytes: usize,
    used: u64,
}

/// A room's newest events up to a sequence.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Newest {
    /// Ascending.
    pub(super) events: Vec<Stored>,
    /// The first one is the room's first.
    pub(super) begins: bool,
}

impl Recent {
    /// The newest sequence that is kept of a room: what follows is to be read. `None`: all of it.
    pub(super) fn tail(&mut self, epoch: Epoch, room: &RoomName) -> Option<u64> {
        if epoch != self.epoch {
            *self = Self { epoch, ..Self::default() };
        }
        self.rooms.get(room)?.events.back().map(|event| event.seq)
    }

    /// Adds what was read behind [`Self::tail`], or, when that was `None`, from the room's begin on.
    pub(super) fn add(&mut self, epoch: Epoch, name: &RoomName, tail: Option<u64>, events: Vec<Stored>) {
        // Somebody else may have added meanwhile, or taken it away.
        if self.tail(epoch, name) != tail || tail.is_none() && events.is_empty() {
            return;
        }
        self.clock += 1;
        let room = self.rooms.entry(name.clone()).or_insert_with(|| Room { begins: true, ..Room::default() });
        self.bytes -= room.bytes;
        room.used = self.clock;
        for mut event in events {
            event.previous = room.events.back().map_or(event.previous, |before| before.seq);
            room.bytes += cost(&event);
            room.events.push_back(event);
            while room.events.len() > ROOM.0 || room.bytes > ROOM.1 && room.events.len() > 1 {
                room.bytes -= room.events.pop_front().map_or(0, |gone| cost(&gone));
                room.begins = false;
            }
        }
        self.bytes += room.bytes;
        while self.bytes > ALL_BYTES && self.evict() {}
    }

    /// The newest `limit` events before `before`; `None` when more of the room is needed to tell.
    pub(super) fn before(&mut self, epoch: Epoch, name: &RoomName, before: u64, limit: usize) -> Option<Newest> {
        self.tail(epoch, name)?;
        self.clock += 1;
        let room = self.rooms.get_mut(name)?;
        room.used = self.clock;
        let end = room.events.partition_point(|event| event.seq < before);
        let begin = end.saturating_sub(limit);
        let begins = begin == 0 && room.begins;
        // With just as many as are kept nobody knows whether there are more.
        (begins || begin > 0).then(|| Newest { events: room.events.range(begin..end).cloned().collect(), begins })
    }

    /// What is kept of a room no longer goes on to what stands behind it.
    pub(super) fn forget(&mut self, name: &RoomName) {
        self.bytes -= self.rooms.remove(name).map_or(0, |room| room.bytes);
    }

    fn evict(&mut self) -> bool {
        let oldest = self.rooms.iter().min_by_key(|(_, room)| room.used).map(|(name, _)| name.clone());
        let Some(gone) = oldest.and_then(|name| self.rooms.remove(&name)) else { return false };
        self.bytes -= gone.bytes;
        true
    }
}

fn cost(event: &Stored) -> usize {
    OVERHEAD + event.body.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use plaza_proto::ids::MessageId;
    use proptest::prelude::*;

    const EPOCH: Epoch = Epoch([1; 8]);

    fn room(n: u8) -> RoomName {
        RoomName::parse(&format!("r{n}")).expect("a valid name")
    }

    fn event(seq: u64, bytes: usize) -> Stored {
        let id = MessageId(u128::from(seq).to_be_bytes());
        Stored { seq, previous: 0, id, time: 0, body: vec![0; bytes].into() }
    }

    proptest! {
        /// Reads in any order, of any room, with additions between: what is told is what a whole room says.
        #[test]
        fn what_is_told_is_true(
            steps in proptest::collection::vec((0_u8..3, 0_usize..200, 0_u64..900, 1_usize..80), 1..40)
        ) {
            let mut recent = Recent::default();
            let mut rooms = [const { Vec::new() }; 3];
            let mut next = 1;
            for (which, more, before, limit) in steps {
                let all: &mut Vec<u64> = &mut rooms[usize::from(which)];
                let tail = recent.tail(EPOCH, &room(which));
                for _ in 0..more {
                    all.push(next);
                    next += 1;
                }
                let unread = all.iter().filter(|seq| tail.is_none_or(|tail| **seq > tail));
                let unread = unread.map(|seq| event(*seq, 10)).collect();
                recent.add(EPOCH, &room(which), tail, unread);
                if let Some(newest) = recent.before(EPOCH, &room(which), before, limit) {
                    let end = all.partition_point(|seq| *seq < before);
                    let wanted = &all[end.saturating_sub(limit)..end];
                    prop_assert_eq!(newest.events.iter().map(|e| e.seq).collect::<Vec<_>>(), wanted);
                    prop_assert_eq!(newest.begins, end <= limit);
                    for pair in newest.events.windows(2) {
                        prop_assert_eq!(pair[1].previous, pair[0].seq);
                    }
                } else {
                    let newer = all.iter().filter(|seq| **seq >= before).count();
                    prop_assert!(all.is_empty() || newer + limit >= ROOM.0, "{} kept, {} newer", all.len(), newer);
                }
            }
        }
    }

    #[test]
    fn rooms_share_their_bytes_and_the_one_unused_for_longest_goes() {
        let mut recent = Recent::default();
        let rooms = ALL_BYTES / ROOM.1 + 2;
        let names: Vec<_> = (0..rooms).map(|n| RoomName::parse(&format!("r{n}")).expect("a valid name")).collect();
        for name in &names {
            recent.add(EPOCH, name, None, (1..=18).map(|seq| event(seq, 14 * 1024)).collect());
            assert!(recent.bytes <= ALL_BYTES);
            // Asked for again and again: it stays.
            assert!(recent.before(EPOCH, &names[0], u64::MAX, 3).is_some());
        }
        assert!(recent.before(EPOCH, &names[1], u64::MAX, 3).is_none());
        assert_eq!(recent.bytes, recent.rooms.values().map(|room| room.bytes).sum::<usize>());
    }

    #[test]
    fn another_epoch_forgets_everything_and_a_late_reader_changes_nothing() {
        let mut recent = Recent::default();
        recent.add(EPOCH, &room(0), None, vec![event(5, 1)]);
        recent.add(EPOCH, &room(0), None, vec![event(4, 1), event(5, 1)]);
        let newest = recent.before(EPOCH, &room(0), u64::MAX, 9).expect("the whole room");
        assert_eq!((newest.events.len(), newest.begins), (1, true));
        assert_eq!(recent.tail(Epoch([2; 8]), &room(0)), None);
        assert_eq!(recent.bytes, 0);
    }
}
