//! One variant of one room on this shard: its log, and its members in cohorts. Pure.
//!
//! Members stand in cohorts of 256 with one cursor each. A member that cannot follow its cohort (its
//! socket is full, it is in several rooms, it skips a frame, it is on polling) has a cursor of its own in
//! its slot, and a mark at its place; its cohort's sweep serves it apart.

use super::log::Log;
use crate::bridge::{RoomId, Variant};

/// Members of a cohort.
pub(super) const COHORT: usize = 256;

/// One place of a cohort: a slot and the mark of its own cursor, or nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    const NOBODY: Self = Self(u32::MAX);
    const OWN: u32 = 1 << 31;

    /// The slot; `None`: nobody stands here.
    pub(super) fn slot(self) -> Option<u32> {
        (self != Self::NOBODY).then_some(self.0 & !Self::OWN)
    }

    /// The slot, when it follows the cohort's cursor.
    pub(super) fn follower(self) -> Option<u32> {
        (self.0 & Self::OWN == 0).then_some(self.0)
    }
}

/// Where a member stands in a board: cohort and place in one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing(u32);

impl Standing {
    fn new(cohort: usize, place: usize) -> Self {
        Self((cohort * COHORT + place) as u32)
    }

    pub(super) fn cohort(self) -> usize {
        self.0 as usize / COHORT
    }

    fn place(self) -> usize {
        self.0 as usize % COHORT
    }
}

/// Members that share a cursor.
#[derive(Debug, Default)]
pub(super) struct Cohort {
    /// Where its followers are in the log.
    pub(super) cursor: u64,
    pub(super) places: Vec<Place>,
}

/// The rolling sweep of a board.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// In the queue of boards to be swept.
    pub(super) queued: bool,
    /// The next cohort.
    pub(super) next: usize,
    /// Microseconds spent on this round so far.
    pub(super) cost_us: u64,
    /// Not before this time, in microseconds of the shard's clock.
    pub(super) not_before_us: u64,
}

/// One variant of one room.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) room: RoomId,
    pub(super) variant: Variant,
    pub(super) log: Log,
    pub(super) cohorts: Vec<Cohort>,
    pub(super) members: u32,
    /// Members with a cursor of their own.
    pub(super) own: u32,
    pub(super) sweep: Sweep,
    /// The number of the first frame whose latency is not counted yet.
    pub(super) measured: u64,
    /// The sequence of the last event.
    pub(super) last_seq: u64,
    holes: Vec<Standing>,
}

impl Board {
    pub(super) fn new(room: RoomId, variant: Variant) -> Self {
        Self {
            room,
            variant,
            log: Log::default(),
            cohorts: Vec::new(),
            members: 0,
            own: 0,
            sweep: Sweep::default(),
            measured: 0,
            last_seq: 0,
            holes: Vec::new(),
        }
    }

    /// Gives a slot a place. It follows its cohort only if that is at the head; `true`: it needs a cursor
    /// of its own, at the head.
    pub(super) fn enter(&mut self, slot: u32) -> (Standing, bool) {
        let standing = self.holes.pop().unwrap_or_else(|| {
            if self.cohorts.last().is_none_or(|last| last.places.len() == COHORT) {
                self.cohorts.push(Cohort { cursor: self.log.head(), places: Vec::new() });
            }
            let cohort = self.cohorts.len() - 1;
            self.cohorts[cohort].places.push(Place::NOBODY);
            Standing::new(cohort, self.cohorts[cohort].places.len() - 1)
        });
        self.cohorts[standing.cohort()].places[standing.place()] = Place(slot);
        self.members += 1;
        let behind = self.cohorts[standing.cohort()].cursor != self.log.head();
        if behind {
            self.set_own(standing, true);
        }
        (standing, behind)
    }

    /// Takes a member out.
    pub(super) fn leave(&mut self, standing: Standing) {
        self.set_own(standing, false);
        self.cohorts[standing.cohort()].places[standing.place()] = Place::NOBODY;
        self.holes.push(standing);
        self.members -= 1;
    }

    /// Whether the member has a cursor of its own.
    pub(super) fn is_own(&self, standing: Standing) -> bool {
        self.cohorts[standing.cohort()].places[standing.place()].follower().is_none()
    }

    /// Marks, or unmarks, a member's own cursor.
    pub(super) fn set_own(&mut self, standing: Standing, own: bool) {
        if self.is_own(standing) != own {
            let place = &mut self.cohorts[standing.cohort()].places[standing.place()];
            place.0 ^= Place::OWN;
            self.own = if own { self.own + 1 } else { self.own - 1 };
        }
    }

    /// The cursor of the cohort that a member stands in.
    pub(super) fn cohort_cursor(&self, standing: Standing) -> u64 {
        self.cohorts[standing.cohort()].cursor
    }

    /// The next cohort of the round that is behind the head, and whether the round begins with it.
    pub(super) fn next_cohort(&self) -> Option<usize> {
        let (head, count) = (self.log.head(), self.cohorts.len());
        (0..count).map(|step| (self.sweep.next + step) % count).find(|&cohort| self.cohorts[cohort].cursor != head)
    }

    /// All slots that stand here.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        self.cohorts.iter().flat_map(|cohort| &cohort.places).filter_map(|place| place.slot())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::log::Pool;

    #[test]
    fn leavers_make_holes_that_are_filled_again() {
        let mut board = Board::new(RoomId(1), Variant::Event);
        let standings: Vec<_> = (0..300).map(|slot| board.enter(slot).0).collect();
        assert_eq!((board.cohorts.len(), board.members), (2, 300));
        board.leave(standings[7]);
        assert_eq!(board.enter(999).0, standings[7]);
        assert_eq!(board.slots().count(), 300);
    }

    #[test]
    fn who_enters_while_its_cohort_is_behind_has_a_cursor_of_its_own() {
        let (mut board, mut pool) = (Board::new(RoomId(1), Variant::Event), Pool::default());
        assert!(!board.enter(1).1);
        board.log.append(b"x", 1, super::super::log::Arrival::default(), u32::MAX, &mut pool);
        let (standing, own) = board.enter(2);
        assert!(own && board.is_own(standing) && board.own == 1);
        board.leave(standing);
        assert_eq!((board.own, board.members), (0, 1));
    }
}
