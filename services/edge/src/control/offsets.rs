//! Which events a Socket.IO client may continue from. It has one offset for all its rooms, so an event is a
//! place to continue from only when nothing before it can be missing in any room. Every other event carries
//! an offset that names no place: a client that is cut off right behind it begins a new session.

use super::hub::Hub;
use crate::bridge::RoomId;
use crate::wire::Mark;
use plaza_proto::position::{Epoch, Position};
use std::collections::HashSet;

/// What this edge has seen of the stream, over all its rooms.
#[derive(Debug)]
pub(super) struct Offsets {
    /// The furthest event that was delivered in any room.
    furthest: Position,
    /// The feed has brought everything up to this sequence, as far as it loses nothing.
    heard: u64,
    /// Rooms that know of events which they have not delivered.
    waiting: HashSet<RoomId>,
    /// Rooms that may have lost something on the way. Their tails are to be checked.
    unproven: HashSet<RoomId>,
    /// How often something may have been lost: a tail that was asked for before the last time proves nothing.
    doubts: u64,
    /// What the feed brought first since then: what was lost stands before it.
    since: Option<u64>,
}

impl Offsets {
    pub(super) fn new() -> Self {
        let furthest = Position { epoch: Epoch::default(), seq: 0, check: 0 };
        Self { furthest, heard: 0, waiting: HashSet::new(), unproven: HashSet::new(), doubts: 0, since: None }
    }

    /// The feed has brought this sequence.
    pub(super) fn hear(&mut self, seq: u64) {
        self.heard = self.heard.max(seq);
        self.since = self.since.or(Some(seq));
    }

    /// What was heard may be of another stream.
    pub(super) fn forget(&mut self) {
        self.heard = 0;
    }

    /// Whether the room knows of events which it has not delivered.
    pub(super) fn set_waiting(&mut self, room: RoomId, waits: bool) {
        if waits {
            self.waiting.insert(room);
        } else if !self.waiting.is_empty() {
            self.waiting.remove(&room);
        }
    }

    /// Something may have been lost in these rooms.
    pub(super) fn doubt(&mut self, rooms: &[RoomId]) {
        self.unproven.extend(rooms);
        self.doubts += 1;
        self.since = None;
    }

    /// To be handed back by [`Self::prove`] with a tail that is asked for now.
    pub(super) fn doubts(&self) -> u64 {
        self.doubts
    }

    /// The store has told the room's tail. `stream`: the newest event of all that it knew.
    pub(super) fn prove(&mut self, room: RoomId, doubts: u64, stream: u64) {
        if doubts == self.doubts && self.since.is_some_and(|since| since <= stream) {
            self.unproven.remove(&room);
        }
    }

    /// The room is not heard any more.
    pub(super) fn remove(&mut self, room: RoomId) {
        self.waiting.remove(&room);
        self.unproven.remove(&room);
    }

    /// Rooms whose tails are still to be checked.
    pub(super) fn unproven(&self) -> impl Iterator<Item = RoomId> {
        self.unproven.iter().copied()
    }

    /// Whether the room has delivered everything up to `seq`.
    pub(super) fn is_complete(&self, room: RoomId, seq: u64) -> bool {
        seq <= self.heard && !self.waiting.contains(&room) && !self.unproven.contains(&room)
    }

    /// An event is about to be delivered. `true`: behind it nothing is missing, in any room.
    fn pass(&mut self, event: Position) -> bool {
        let follows = self.furthest.epoch != event.epoch || self.furthest.seq < event.seq;
        if follows {
            self.furthest = event;
        }
        follows && event.seq <= self.heard && self.waiting.is_empty() && self.unproven.is_empty()
    }
}

/// This mark, or none where recovery is off.
pub(super) fn unless_off(recovery_ms: u32, mark: Mark) -> Mark {
    if recovery_ms > 0 { mark } else { Mark::None }
}

impl Hub {
    /// How an event is marked that the members of its room are about to see.
    pub(super) fn mark(&mut self, event: Position) -> Mark {
        let furthest = self.offsets.furthest;
        let safe = self.offsets.pass(event) && self.behind.is_empty();
        if self.offsets.furthest != furthest {
            self.link.know(event);
        }
        unless_off(self.recovery_ms, if safe { Mark::Offset } else { Mark::Nowhere })
    }

    /// Something may have been lost in these rooms: their tails are checked.
    pub(super) fn suspect(&mut self, rooms: &[RoomId]) {
        self.offsets.doubt(rooms);
        self.tails_due.extend(rooms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: RoomId = RoomId(0);
    const B: RoomId = RoomId(1);

    fn at(seq: u64) -> Position {
        Position { epoch: Epoch([1; 8]), seq, check: 1 }
    }

    fn heard(seq: u64) -> Offsets {
        let mut offsets = Offsets::new();
        offsets.hear(seq);
        offsets
    }

    #[test]
    fn r03_events_in_the_order_of_the_stream_are_places_to_continue_from() {
        let mut offsets = heard(9);
        assert!([3, 4, 9].map(|seq| offsets.pass(at(seq))).iter().all(|safe| *safe));
    }

    #[test]
    fn r03_an_event_behind_one_that_was_shown_is_none_and_the_next_one_is() {
        let mut offsets = heard(9);
        assert!(offsets.pass(at(7)));
        assert!(!offsets.pass(at(5)), "its client has seen 7 already");
        assert!(offsets.pass(at(8)));
    }

    #[test]
    fn r05_nothing_is_a_place_while_a_room_waits_for_what_it_knows_of() {
        let mut offsets = heard(9);
        offsets.set_waiting(A, true);
        assert!(!offsets.pass(at(7)), "an event of the waiting room may stand at 5");
        assert!(!offsets.is_complete(A, 5) && offsets.is_complete(B, 5));
        offsets.set_waiting(A, false);
        assert!(offsets.pass(at(8)));
    }

    #[test]
    fn r05_nothing_is_a_place_before_the_tails_are_known() {
        let mut offsets = heard(9);
        offsets.doubt(&[A, B]);
        offsets.prove(A, 1, 9);
        offsets.prove(B, 1, 9);
        assert!(!offsets.pass(at(6)), "nothing was heard since, so nobody knows what was lost");
        offsets.hear(12);
        offsets.prove(A, 0, 12);
        offsets.prove(A, 1, 11);
        offsets.prove(B, 1, 12);
        assert!(!offsets.is_complete(A, 5), "the answers are older than the doubt");
        assert!(offsets.is_complete(B, 5) && !offsets.pass(at(10)));
        offsets.remove(A);
        assert!(offsets.pass(at(11)));
    }

    #[test]
    fn r05_what_was_read_ahead_of_the_feed_is_no_place() {
        let mut offsets = heard(6);
        assert!(!offsets.pass(at(7)), "the feed may still bring 6 of another room");
        offsets.hear(8);
        assert!(offsets.pass(at(8)) && offsets.is_complete(A, 8));
        offsets.forget();
        assert!(!offsets.pass(at(9)));
    }

    #[test]
    fn another_epoch_begins_anew() {
        let mut offsets = heard(100);
        assert!(offsets.pass(at(90)));
        assert!(offsets.pass(Position { epoch: Epoch([2; 8]), ..at(4) }));
    }
}
