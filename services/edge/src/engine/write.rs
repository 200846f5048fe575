//! What leaves on one connection apart from its cohort: its own packets first, then the frames of its
//! rooms in the stream's order.

use super::core::Core;
use super::outbox::Outbox;
use super::slot::{NONE, Phase};
use super::stats::add;
use crate::conn::{Cause, Close, Millis, Packet};
use bytes::Bytes;
use plaza_kit::trace::Span;
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// Most bytes that are merged for one send.
const MERGE_BYTES: usize = 64 * 1024;

/// A larger scratch buffer is given back after use.
const SCRATCH_BYTES: usize = 256 * 1024;

/// Writes until the socket takes no more; the bytes that it took.
///
/// # Errors
/// The connection is broken.
pub(super) fn write(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut socket = socket;
    let mut written = 0;
    while written < bytes.len() {
        match socket.write(&bytes[written..]) {
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

/// A frame in the merged bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// Whose membership it is, by place.
    place: usize,
    /// That membership's cursor before it.
    cursor: u64,
    /// Where it lies.
    start: usize,
    end: usize,
}

impl Core {
    /// Queues bytes of frames for one connection; [`Self::settle`] writes them.
    pub(super) fn push_private(&mut self, index: u32, bytes: &[u8]) {
        let max = self.settings.max_private_bytes;
        if let Some(outbox) = &mut self.slab.at(index).outbox {
            outbox.push(bytes);
            if outbox.charged() > max {
                self.close_unasked(index, Cause::Slow);
            }
            return;
        }
        if self.fresh_for != index || self.fresh.len() > MERGE_BYTES {
            self.flush_fresh();
            self.fresh_for = index;
        }
        self.fresh.extend_from_slice(bytes);
    }

    /// Queues a packet that leaves in a turn of its own.
    pub(super) fn push_packet(&mut self, index: u32, frame: &[u8]) {
        let waits = self.slab.get(index).outbox.is_some();
        self.outbox(index).push_packet(frame);
        if !waits {
            self.paced.push_back(index);
        }
    }

    /// Queues complete frames that the client missed.
    pub(super) fn send_frames(&mut self, index: u32, frames: &Bytes) {
        if let Some(polling) = &mut self.slab.at(index).polling {
            if let Err(cause) = polling.send_frames(frames.clone()) {
                self.close(index, &Close { code: None, reason: "too slow", cause });
            }
        } else if let Some(outbox) = &mut self.slab.at(index).outbox {
            outbox.push_excused(frames);
        } else {
            if self.fresh_for != index {
                self.flush_fresh();
                self.fresh_for = index;
            }
            self.fresh.extend_from_slice(frames);
            self.write_fresh(true);
        }
    }

    /// Queues the reply to a CONNECT that continues a session, and what the client missed, in the order
    /// of its transport.
    pub(super) fn recovered(&mut self, index: u32, reply: Packet, missed: &Bytes) {
        if let Some(polling) = &mut self.slab.at(index).polling {
            polling.recovered(missed.clone(), reply);
            return;
        }
        self.send(index, reply);
        if !missed.is_empty() && self.slab.get(index).phase == Phase::Open {
            self.send_frames(index, missed);
        }
    }

    /// The end of an event: what it made for this connection leaves.
    pub(super) fn settle(&mut self, index: u32) {
        if self.fresh_for == index {
            self.flush_fresh();
        }
        if self.slab.get(index).polling.is_some() {
            self.flush_polling(index);
        }
        if self.slab.get(index).phase == Phase::Finishing {
            self.half_close(index);
        }
    }

    /// Writes what was made in this event.
    pub(super) fn flush_fresh(&mut self) {
        self.write_fresh(false);
    }

    /// Writes what was made in this event; what the socket does not take moves to the outbox, `excused`
    /// when it is not held against the client.
    fn write_fresh(&mut self, excused: bool) {
        let index = std::mem::replace(&mut self.fresh_for, NONE);
        if self.fresh.is_empty() {
            return;
        }
        let mut fresh = std::mem::take(&mut self.fresh);
        if let Some(socket) = self.slab.sockets.get(index as usize).and_then(Option::as_ref) {
            let result = write(socket, &fresh);
            self.count_sends(1, 0, result.as_ref().map_or(0, |written| *written as u64));
            match result {
                Ok(written) if written == fresh.len() => {}
                Ok(written) => {
                    let outbox = self.outbox(index);
                    if excused {
                        outbox.push_excused(&fresh[written..]);
                    } else {
                        outbox.push(&fresh[written..]);
                    }
                    let too_much = outbox.charged() > self.settings.max_private_bytes;
                    self.block(index);
                    if too_much {
                        self.close_unasked(index, Cause::Slow);
                    }
                }
                Err(_) => self.broken(index),
            }
        }
        fresh.clear();
        fresh.shrink_to(SCRATCH_BYTES);
        self.fresh = fresh;
    }

    /// The connection's outbox; with one, it has cursors of its own.
    pub(super) fn outbox(&mut self, index: u32) -> &mut Outbox {
        if self.slab.get(index).outbox.is_none() {
            self.own_cursors(index);
        }
        let now = self.now();
        self.slab.at(index).outbox.get_or_insert_with(|| Box::new(Outbox::new(now)))
    }

    /// The socket is full: the connection waits for it, with cursors of its own.
    pub(super) fn block(&mut self, index: u32) {
        self.own_cursors(index);
        self.slab.at(index).blocked = true;
        self.set_timer(index);
    }

    /// Takes the connection out of the common cursor of its cohorts.
    pub(super) fn own_cursors(&mut self, index: u32) {
        for membership in self.slab.slots[index as usize].memberships_mut() {
            let Some(board) = &mut self.boards[membership.board as usize] else { continue };
            if !board.is_own(membership.standing) {
                membership.cursor = board.cohort_cursor(membership.standing);
                board.set_own(membership.standing, true);
            }
        }
    }

    /// The socket has room again.
    pub(super) fn on_writable(&mut self, index: u32) {
        let slot = self.slab.at(index);
        if !std::mem::take(&mut slot.blocked) {
            return;
        }
        self.serve_own(index, true);
        self.end_written_to(index);
        self.settle(index);
        if self.slab.get(index).phase != Phase::Free {
            self.set_timer(index);
        }
    }

    /// Sends a connection with cursors of its own all that waits for it. `behind`: it could not follow,
    /// so volatile frames are skipped.
    pub(super) fn serve_own(&mut self, index: u32, behind: bool) {
        if self.fresh_for == index {
            self.flush_fresh();
        }
        if self.slab.get(index).polling.is_some() {
            return self.serve_polling(index);
        }
        if self.slab.get(index).blocked || !self.drain_outbox(index) {
            return;
        }
        let mut steps = std::mem::take(&mut self.steps);
        loop {
            self.merge(index, behind, &mut steps);
            if self.merged.is_empty() {
                break;
            }
            let Some(socket) = &self.slab.sockets[index as usize] else { break };
            let result = write(socket, &self.merged);
            let Ok(written) = result else {
                self.broken(index);
                break;
            };
            let whole = steps.iter().take_while(|step| step.end <= written).count();
            self.count_sends(1, whole as u64, written as u64);
            if written < self.merged.len() {
                self.keep_rest(index, written, &steps[whole..]);
                break;
            }
        }
        steps.clear();
        self.steps = steps;
        self.rejoin(index);
    }

    /// Collects the next frames of all its rooms in the stream's order, and moves its cursors behind them.
    pub(super) fn merge(&mut self, index: u32, behind: bool, steps: &mut Vec<Step>) {
        steps.clear();
        self.merged.clear();
        let boards = &self.boards;
        let slot = &mut self.slab.slots[index as usize];
        while self.merged.len() < MERGE_BYTES {
            let mut first: Option<(usize, u64, u64, bool)> = None;
            for (place, membership) in slot.memberships().enumerate() {
                let Some(board) = &boards[membership.board as usize] else { continue };
                let Some(frame) = board.log.frame(board.log.number_at(membership.cursor)) else { continue };
                if first.is_none_or(|(_, seq, ..)| frame.seq < seq) {
                    let skipped = frame.skip == index || behind && frame.seq == 0;
                    first = Some((place, frame.seq, frame.end, skipped));
                }
            }
            let Some((place, _, end, skipped)) = first else { break };
            let Some(membership) = slot.memberships_mut().nth(place) else { break };
            let cursor = std::mem::replace(&mut membership.cursor, end);
            if skipped {
                continue;
            }
            if let Some(board) = &boards[membership.board as usize] {
                let start = self.merged.len();
                self.merged.extend_from_slice(&board.log.slice(cursor)[..(end - cursor) as usize]);
                steps.push(Step { place, cursor, start, end: self.merged.len() });
            }
        }
    }

    /// After a short write of the merged bytes: the rest of a begun frame goes first next time, and the
    /// cursors go back before the frames that were not begun.
    fn keep_rest(&mut self, index: u32, written: usize, unsent: &[Step]) {
        let mut unbegun = unsent;
        if let Some((first, later)) = unsent.split_first()
            && first.start < written
        {
            let merged = std::mem::take(&mut self.merged);
            let span = self.span_at(index, first);
            self.outbox(index).push_rest(&merged[written..first.end], span);
            self.merged = merged;
            unbegun = later;
        }
        let slot = self.slab.at(index);
        for step in unbegun.iter().rev() {
            if let Some(membership) = slot.memberships_mut().nth(step.place) {
                membership.cursor = step.cursor;
            }
        }
        self.block(index);
    }

    /// The span of the event whose frame this is.
    fn span_at(&self, index: u32, step: &Step) -> Option<Arc<Span>> {
        let membership = self.slab.get(index).memberships().nth(step.place)?;
        let board = self.boards[membership.board as usize].as_ref()?;
        self.unwritten.span(membership.board, board.log.number_at(step.cursor)).cloned()
    }

    /// Writes the outbox; `true`: nothing of it is left, and the socket has room.
    fn drain_outbox(&mut self, index: u32) -> bool {
        let now = self.now();
        let separate = self.options_of(index).separate_writes;
        let slot = &mut self.slab.slots[index as usize];
        while let Some(outbox) = &mut slot.outbox {
            if outbox.is_empty() {
                slot.outbox = None;
                break;
            }
            let Some(socket) = &self.slab.sockets[index as usize] else { return false };
            let front = outbox.front();
            let wanted = front.len();
            match write(socket, front) {
                Ok(written) => {
                    outbox.advance(written, now);
                    add(&self.handle.stats().sent_bytes, written as u64);
                    if written < wanted {
                        self.block(index);
                        return false;
                    }
                }
                Err(_) => {
                    self.broken(index);
                    return false;
                }
            }
            if separate && !outbox.is_empty() {
                self.paced.push_back(index);
                return false;
            }
        }
        true
    }

    /// Puts a connection back under the cursor of its cohort, if nothing speaks against it.
    fn rejoin(&mut self, index: u32) {
        let slot = self.slab.get(index);
        if slot.blocked || slot.outbox.is_some() || slot.polling.is_some() || slot.is_in_many() {
            return;
        }
        let Some(room) = slot.room else { return };
        if let Some(board) = &mut self.boards[room.board as usize]
            && board.cohort_cursor(room.standing) == room.cursor
        {
            board.set_own(room.standing, false);
        }
    }

    /// Since when the connection has waited for its socket: the age of the oldest frame that it has not
    /// got, or of its outbox.
    pub(super) fn stalled_since(&self, index: u32) -> Millis {
        let slot = self.slab.get(index);
        let frames = slot.memberships().filter_map(|membership| {
            let log = &self.boards[membership.board as usize].as_ref()?.log;
            log.frame(log.number_at(membership.cursor)).map(|frame| frame.arrival.at_us / 1_000)
        });
        let outbox = slot.outbox.as_ref().map(|outbox| outbox.since);
        frames.chain(outbox).min().unwrap_or_else(|| self.now())
    }

    /// Closes a connection that is too far behind one of its rooms. Volatile events, which it will skip,
    /// do not count, as long as the log that it holds back stays small.
    pub(super) fn check_lag(&mut self, index: u32) {
        let (max_bytes, max_messages) = (self.settings.max_lag_bytes, self.settings.max_lag_messages);
        let slow = self.slab.get(index).memberships().any(|membership| {
            self.boards[membership.board as usize].as_ref().is_some_and(|board| {
                let (log, next) = (&board.log, board.log.number_at(membership.cursor));
                let (bytes, messages) = (log.head() - membership.cursor, log.count() - next);
                if bytes <= max_bytes && messages <= max_messages {
                    return false;
                }
                let (bytes, messages) = log.durable_after(membership.cursor);
                bytes > max_bytes || messages > max_messages || log.head() - membership.cursor > 4 * max_bytes
            })
        });
        if slow {
            self.close_unasked(index, Cause::Slow);
        }
    }
}
