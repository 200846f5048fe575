//! Until when a sampled event is under way: its span, which all shards share, ends when the last of them lets go
//! of it, with the last write to a socket. What a long-polling client has not asked for yet is not waited for.

use super::core::Core;
use plaza_kit::trace::Span;
use std::sync::Arc;

/// Events whose spans a shard keeps until they are written; those beyond end at once.
const UNWRITTEN: usize = 1_024;

/// Sampled events that some member of a board has not got yet, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Unwritten(Vec<Traced>);

#[derive(Debug)]
struct Traced {
    board: u32,
    /// Its number on the board.
    frame: u64,
    /// The first place of the board, by cohort, that may not have got it.
    next: (usize, usize),
    span: Arc<Span>,
}

impl Unwritten {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The frame with this number of a board belongs to a sampled event.
    pub(super) fn add(&mut self, board: u32, frame: u64, span: &Arc<Span>) {
        if self.0.len() < UNWRITTEN {
            self.0.push(Traced { board, frame, next: (0, 0), span: Arc::clone(span) });
        }
    }

    /// The span of a frame's event.
    pub(super) fn span(&self, board: u32, frame: u64) -> Option<&Arc<Span>> {
        let traced = self.0.iter().find(|traced| (traced.board, traced.frame) == (board, frame));
        traced.map(|traced| &traced.span)
    }

    /// The board is gone.
    pub(super) fn forget(&mut self, board: u32) {
        self.0.retain(|traced| traced.board != board);
    }
}

impl Core {
    /// Ends the spans of those events that everybody on a board has got.
    pub(super) fn end_written(&mut self, number: u32) {
        let mut unwritten = std::mem::take(&mut self.unwritten);
        // In the log's order: who waits for one event waits for all behind it.
        let mut waits = false;
        unwritten.0.retain_mut(|traced| {
            if traced.board != number {
                return true;
            }
            waits = waits || self.is_waited_for(traced);
            waits
        });
        self.unwritten = unwritten;
    }

    /// The same for every board of a connection, which has been written to.
    pub(super) fn end_written_to(&mut self, index: u32) {
        if self.unwritten.is_empty() {
            return;
        }
        let boards: Vec<u32> = self.slab.get(index).memberships().map(|membership| membership.board).collect();
        boards.into_iter().for_each(|number| self.end_written(number));
    }

    /// Whether somebody has not got this event. Nobody's cursor goes back behind it, so each place is passed once.
    fn is_waited_for(&self, traced: &mut Traced) -> bool {
        let Some(board) = &self.boards[traced.board as usize] else { return false };
        // What the log has let go of has been written.
        let Some(frame) = board.log.frame(traced.frame) else { return false };
        if board.cohorts.iter().any(|cohort| cohort.cursor < frame.end) {
            return true;
        }
        if board.own == 0 {
            return false;
        }
        while let Some(cohort) = board.cohorts.get(traced.next.0) {
            while let Some(place) = cohort.places.get(traced.next.1) {
                let own = place.slot().filter(|_| place.follower().is_none());
                let membership =
                    own.and_then(|slot| self.slab.get(slot).memberships().find(|m| m.board == traced.board));
                if membership.is_some_and(|membership| membership.cursor < frame.end) {
                    return true;
                }
                traced.next.1 += 1;
            }
            traced.next = (traced.next.0 + 1, 0);
        }
        false
    }
}
