//! The events themselves, room by room, and what goes when there are too many. No clock: time is passed in.

use crate::log::budget::Budget;
use crate::log::{Read, Start, Stored};
use bytes::Bytes;
use foldhash::{HashMap, HashMapExt};
use plaza_proto::ids::{MessageId, RoomName};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Store {
    per_room: usize,
    age_ms: u64,
    max_bytes: usize,
    bytes: usize,
    names: HashMap<RoomName, usize>,
    /// By the number that its name has; `None`: the number is free.
    rooms: Vec<Option<Room>>,
    free: Vec<usize>,
    /// The oldest event of each room, so that the oldest of all is found at once.
    oldest: BTreeMap<u64, usize>,
    /// The newest event that age or bytes have removed, of any room.
    passed: Removed,
}

/// The newest event that is gone; zeros when none is.
#[derive(Clone, Copy, Debug, Default)]
struct Removed {
    seq: u64,
    time: u64,
}

/// One room with at least one event.
#[derive(Debug)]
struct Room {
    name: RoomName,
    /// Ascending by sequence, never empty.
    events: VecDeque<Stored>,
    /// The newest of this room that was removed, at least as far as is known: a room that had none for
    /// a while may have lost some before.
    removed: Removed,
}

impl Store {
    pub(super) fn new(per_room: usize, age: Duration, max_bytes: usize) -> Self {
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        Self {
            per_room: per_room.max(1),
            age_ms,
            max_bytes,
            bytes: 0,
            names: HashMap::new(),
            rooms: Vec::new(),
            free: Vec::new(),
            oldest: BTreeMap::new(),
            passed: Removed::default(),
        }
    }

    /// Adds the newest event and returns the sequence of the one before it in the room, 0 when none is kept.
    pub(super) fn append(&mut self, name: &RoomName, seq: u64, id: MessageId, time: u64, body: Bytes) -> u64 {
        self.expire(time);
        self.bytes += body.len();
        let number = self.names.get(name).copied().unwrap_or_else(|| self.begin(name));
        let Some(room) = self.rooms[number].as_mut() else { return 0 };
        let previous = room.events.back().map_or(0, |event| event.seq);
        room.events.push_back(Stored { seq, previous, id, time, body });
        if room.events.len() == 1 {
            self.oldest.insert(seq, number);
        } else if room.events.len() > self.per_room {
            let _ = self.remove_oldest_of(number);
        }
        while self.bytes > self.max_bytes && self.first_seq() != Some(seq) {
            self.remove_oldest();
        }
        previous
    }

    fn begin(&mut self, name: &RoomName) -> usize {
        let room = Room { name: name.clone(), events: VecDeque::new(), removed: self.passed };
        let number = self.free.pop().unwrap_or(self.rooms.len());
        match self.rooms.get_mut(number) {
            Some(place) => *place = Some(room),
            None => self.rooms.push(Some(room)),
        }
        self.names.insert(name.clone(), number);
        number
    }

    fn room(&self, name: &RoomName) -> Option<&Room> {
        self.rooms[*self.names.get(name)?].as_ref()
    }

    /// Removes what is too old.
    pub(super) fn expire(&mut self, now: u64) {
        let limit = now.saturating_sub(self.age_ms);
        while let Some((seq, number)) = self.oldest.first_key_value() {
            let event = self.rooms[*number].as_ref().and_then(|room| room.events.front());
            if event.is_none_or(|event| event.seq != *seq || event.time >= limit) {
                return;
            }
            self.remove_oldest();
        }
    }

    /// The oldest sequence kept.
    pub(super) fn first_seq(&self) -> Option<u64> {
        self.oldest.first_key_value().map(|(&seq, _)| seq)
    }

    /// The newest sequence of a room, 0 when it has none.
    pub(super) fn tail(&self, room: &RoomName) -> u64 {
        self.room(room).and_then(|room| room.events.back()).map_or(0, |event| event.seq)
    }

    /// Where an id stands among a room's events.
    pub(super) fn find(&self, room: &RoomName, id: MessageId) -> Option<u64> {
        self.room(room)?.events.iter().rev().find(|event| event.id == id).map(|event| event.seq)
    }

    /// Whether every event of the room of the last `horizon` is kept.
    pub(super) fn reaches_back(&self, room: &RoomName, now: u64, horizon: Duration) -> bool {
        let horizon = u64::try_from(horizon.as_millis()).unwrap_or(u64::MAX);
        let removed = self.room(room).map_or(self.passed, |room| room.removed);
        removed.seq == 0 || removed.time.saturating_add(horizon) <= now
    }

    /// The events asked for, whether the room's end or begin was reached, and whether events may be missing.
    pub(super) fn read(&self, read: &Read) -> (Vec<Stored>, bool, bool) {
        let Some(room) = self.room(&read.room) else {
            let trimmed = matches!(read.from, Start::After(seq) if seq > 0 && seq < self.passed.seq);
            return (Vec::new(), true, trimmed);
        };
        match read.from {
            Start::After(seq) => {
                let begin = room.events.partition_point(|event| event.seq <= seq);
                let mut budget = Budget::new(read);
                let events: Vec<_> = room.events.range(begin..).take_while(|e| budget.take(e)).cloned().collect();
                let complete = begin + events.len() == room.events.len();
                (first_unknown(events, begin), complete, seq > 0 && seq < room.removed.seq)
            }
            Start::Before(seq) => {
                let end = room.events.partition_point(|event| event.seq < seq);
                let mut budget = Budget::new(read);
                let count = room.events.range(..end).rev().take_while(|e| budget.take(e)).count();
                let events = room.events.range(end - count..end).cloned().collect();
                (first_unknown(events, end - count), end == count, false)
            }
        }
    }

    fn remove_oldest(&mut self) {
        let Some((_, &number)) = self.oldest.first_key_value() else { return };
        self.passed = self.remove_oldest_of(number).unwrap_or(self.passed);
    }

    fn remove_oldest_of(&mut self, number: usize) -> Option<Removed> {
        let place = self.rooms.get_mut(number)?;
        let room = place.as_mut()?;
        let event = room.events.pop_front()?;
        self.oldest.remove(&event.seq);
        self.bytes -= event.body.len();
        room.removed = Removed { seq: event.seq, time: event.time };
        let removed = room.removed;
        match room.events.front() {
            Some(event) => drop(self.oldest.insert(event.seq, number)),
            None => {
                self.names.remove(&room.name);
                self.free.push(number);
                *place = None;
            }
        }
        Some(removed)
    }
}

/// The oldest retained event has no known predecessor: what stood before it is gone.
fn first_unknown(mut events: Vec<Stored>, begin: usize) -> Vec<Stored> {
    if begin == 0
        && let Some(first) = events.first_mut()
    {
        first.previous = 0;
    }
    events
}
