//! The rolling sweep: one cohort after the other gets what its room has new, in one send per member.
//! Between two cohorts the shard reads, so a later cohort carries newer frames at once.

use super::board::COHORT;
use super::core::Core;
use super::slot::Phase;
use super::write::write;
use plaza_kit::chaos::{self, Step};
use std::io;

/// A round that cost less is followed by the next at once: a pause would only delay small rooms.
const SMALL_ROUND_US: u64 = 500;

/// Longest pause after a round, in microseconds. A pause lets frames gather, so that one send carries more.
const MAX_PAUSE_US: u64 = 1_000;

/// What a step of the sweep came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Swept {
    /// No room has anything new.
    Nothing,
    /// A cohort was served.
    Cohort,
    /// All rooms with something new pause.
    Pausing,
}

/// How the common send went for one place of a cohort.
#[derive(Clone, Copy, Debug)]
pub(super) enum Apart {
    /// It has a cursor of its own.
    Own,
    /// The socket took only so many bytes.
    Short(usize),
    /// The connection is broken.
    Broken,
}

impl Core {
    /// The next room in turn begins a round now.
    pub(super) fn begins_round(&self) -> bool {
        let board = self.dirty.front().and_then(|&number| self.boards.get(number as usize)?.as_ref());
        board.is_some_and(|board| {
            board.sweep.queued && board.sweep.next == 0 && board.sweep.not_before_us <= self.now_us()
        })
    }

    /// Serves one cohort of the next room in turn.
    pub(super) fn sweep(&mut self) -> Swept {
        let mut pausing = false;
        let now = self.now_us();
        for _ in 0..self.dirty.len() {
            let Some(number) = self.dirty.pop_front() else { break };
            let Some(board) = self.boards.get_mut(number as usize).and_then(Option::as_mut) else { continue };
            if !board.sweep.queued {
                continue;
            }
            if board.sweep.not_before_us > now {
                pausing = true;
                self.dirty.push_back(number);
                continue;
            }
            let Some(cohort) = board.next_cohort() else {
                board.sweep.queued = false;
                self.end_of_round(number);
                continue;
            };
            self.serve_cohort(number, cohort);
            let cost = self.tick() - now;
            if let Some(board) = self.boards.get_mut(number as usize).and_then(Option::as_mut) {
                board.sweep.cost_us += cost;
                board.sweep.next = cohort + 1;
                board.sweep.queued = board.next_cohort().is_some();
                if board.sweep.queued {
                    self.dirty.push_back(number);
                }
                if !board.sweep.queued || board.sweep.next >= board.cohorts.len() {
                    self.end_of_round(number);
                }
            }
            return Swept::Cohort;
        }
        if pausing { Swept::Pausing } else { Swept::Nothing }
    }

    fn serve_cohort(&mut self, number: u32, cohort: usize) {
        let Some(board) = self.boards[number as usize].as_mut() else { return };
        let (log, members) = (&board.log, &mut board.cohorts[cohort]);
        let (cursor, head) = (members.cursor, log.head());
        let frames = log.count() - log.number_at(cursor);
        let slice = log.slice(cursor);
        let whole = cursor + slice.len() as u64 == head;
        let mut apart = std::mem::take(&mut self.apart);
        let (mut sends, mut served, mut bytes) = (0, 0, 0);
        for place in &members.places {
            let Some(slot) = place.follower() else {
                if let Some(slot) = place.slot() {
                    apart.push((slot, Apart::Own));
                }
                continue;
            };
            let Some(socket) = &self.slab.sockets[slot as usize] else { continue };
            sends += 1;
            let mut result = write(socket, slice);
            if !whole && matches!(result, Ok(written) if written == slice.len()) {
                // The frames lie in more than one segment.
                result =
                    write_rest(socket, log, cursor + slice.len() as u64, &mut sends).map(|more| slice.len() + more);
            }
            bytes += result.as_ref().map_or(0, |written| *written as u64);
            chaos::step(Step::HalfDelivered);
            match result {
                Ok(written) if written as u64 == head - cursor => served += 1,
                Ok(written) => apart.push((slot, Apart::Short(written))),
                Err(_) => apart.push((slot, Apart::Broken)),
            }
        }
        members.cursor = head;
        self.count_sends(sends, served * frames, bytes);
        debug_assert!(apart.len() <= COHORT);
        for (slot, how) in apart.drain(..) {
            self.serve_apart(number, slot, cursor, how);
        }
        self.apart = apart;
    }

    /// Serves a member that the common send did not, or not wholly.
    fn serve_apart(&mut self, number: u32, index: u32, cursor: u64, how: Apart) {
        let slot = self.slab.get(index);
        if slot.phase != Phase::Open || !slot.memberships().any(|membership| membership.board == number) {
            return;
        }
        match how {
            Apart::Own if slot.blocked => {
                self.check_lag(index);
                self.settle(index);
            }
            Apart::Own => {
                self.serve_own(index, false);
                self.settle(index);
                chaos::step(Step::HalfDelivered);
            }
            Apart::Broken => self.broken(index),
            Apart::Short(written) => self.fall_behind(number, index, cursor, written as u64),
        }
    }

    /// A follower's socket is full after so many bytes behind the cohort's cursor: from here on it has a
    /// cursor of its own. The rest of a begun frame moves to its outbox.
    fn fall_behind(&mut self, number: u32, index: u32, cursor: u64, written: u64) {
        let Some(board) = self.boards[number as usize].as_mut() else { return };
        let reached = cursor + written;
        let mut cursor = reached;
        let (mut rest, mut span) = (Vec::new(), None);
        if written > 0
            && !board.log.is_border(reached)
            && let place = board.log.number_at(reached)
            && let Some(frame) = board.log.frame(place)
        {
            span = self.unwritten.span(number, place).cloned();
            rest.extend_from_slice(&board.log.slice(reached)[..(frame.end - reached) as usize]);
            cursor = frame.end;
        }
        let slot = &mut self.slab.slots[index as usize];
        if let Some(membership) = slot.memberships_mut().find(|membership| membership.board == number) {
            membership.cursor = cursor;
            board.set_own(membership.standing, true);
        }
        if !rest.is_empty() {
            self.outbox(index).push_rest(&rest, span);
        }
        self.block(index);
    }

    /// A round is over: the log forgets what nobody needs, and if frames wait already, they gather.
    fn end_of_round(&mut self, number: u32) {
        let now = self.now_us();
        let Some(board) = self.boards[number as usize].as_mut() else { return };
        board.sweep.next = 0;
        let cost = std::mem::take(&mut board.sweep.cost_us);
        let waiting = board.cohorts.first().map_or(board.log.head(), |first| first.cursor);
        let stats = self.handle.stats();
        stats.flush.observe(cost);
        let waiting = board.log.number_at(waiting);
        for (place, frame) in (board.measured..waiting).filter_map(|place| Some((place, board.log.frame(place)?))) {
            let taken = now.saturating_sub(frame.arrival.at_us);
            if frame.arrival.age_us > 0 {
                let trace = self.unwritten.span(number, place).map(|span| span.trace_id());
                stats.to_socket.observe(taken + u64::from(frame.arrival.age_us), trace);
            }
            stats.latency.observe(taken);
        }
        board.measured = waiting;
        if let Some(first) = board.log.frame(waiting)
            && cost >= SMALL_ROUND_US
        {
            board.sweep.not_before_us = first.arrival.at_us + (cost / 2).min(MAX_PAUSE_US);
        }
        if !self.unwritten.is_empty() {
            self.end_written(number);
        }
        self.trim(number);
    }

    /// Frees the part of a log that every cursor has passed.
    pub(super) fn trim(&mut self, number: u32) {
        let Some(board) = self.boards[number as usize].as_mut() else { return };
        let mut least = board.log.head();
        for cohort in &board.cohorts {
            least = least.min(cohort.cursor);
            if board.own == 0 {
                continue;
            }
            for slot in cohort.places.iter().filter(|place| place.follower().is_none()).filter_map(|place| place.slot())
            {
                let mine = self.slab.get(slot).memberships().find(|membership| membership.board == number);
                least = least.min(mine.map_or(least, |membership| membership.cursor));
            }
        }
        self.log_bytes -= board.log.trim(least, &mut self.pool);
    }
}

/// Writes what follows in further segments.
fn write_rest(
    socket: &std::net::TcpStream,
    log: &super::log::Log,
    mut cursor: u64,
    sends: &mut u64,
) -> io::Result<usize> {
    let mut total = 0;
    while cursor < log.head() {
        let slice = log.slice(cursor);
        let written = write(socket, slice)?;
        *sends += 1;
        total += written;
        cursor += written as u64;
        if written < slice.len() {
            break;
        }
    }
    Ok(total)
}
