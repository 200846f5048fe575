//! Rooms of a shard: who enters and leaves, and what arrives for them.

use super::board::Board;
use super::core::Core;
use super::log::Arrival;
use super::slot::{Membership, NONE, Phase};
use crate::bridge::{Delivery, RoomId, Variant};
use bytes::Bytes;

impl Core {
    /// Puts a connection into a room at the log's head.
    pub(super) fn join(&mut self, index: u32, room: RoomId, variant: Variant) {
        if self.membership(index, room).is_some() {
            return;
        }
        let number = self.board(room, variant);
        let slot = self.slab.get(index);
        let apart = slot.blocked || slot.outbox.is_some() || slot.polling.is_some() || slot.room.is_some();
        if slot.room.is_some() {
            self.own_cursors(index);
        }
        let Some(board) = &mut self.boards[number as usize] else { return };
        let (standing, behind) = board.enter(index);
        if apart && !behind {
            board.set_own(standing, true);
        }
        let cursor = board.log.head();
        self.slab.at(index).join(Membership { board: number, standing, cursor });
    }

    /// Takes a connection out of a room, after what the room had for it.
    pub(super) fn leave(&mut self, index: u32, room: RoomId) {
        let Some(number) = self.membership(index, room) else { return };
        if self.slab.get(index).phase == Phase::Open && !self.slab.get(index).blocked {
            self.own_cursors(index);
            self.serve_own(index, false);
        }
        if let Some(membership) = self.slab.at(index).part(number) {
            self.vacate(membership);
        }
    }

    /// The board on which a connection stands in this room.
    fn membership(&self, index: u32, room: RoomId) -> Option<u32> {
        let boards = self.rooms.get(&room)?;
        self.slab.get(index).memberships().map(|m| m.board).find(|board| boards.contains(board))
    }

    /// Frees a place, and with the last one the board.
    pub(super) fn vacate(&mut self, membership: Membership) {
        let number = membership.board;
        let Some(board) = &mut self.boards[number as usize] else { return };
        board.leave(membership.standing);
        if board.members > 0 {
            if !self.unwritten.is_empty() {
                self.end_written(number);
            }
            return;
        }
        let (room, variant) = (board.room, board.variant);
        let head = board.log.head();
        self.log_bytes -= board.log.trim(head, &mut self.pool);
        self.boards[number as usize] = None;
        self.unwritten.forget(number);
        self.free_boards.push(number);
        if let Some(boards) = self.rooms.get_mut(&room) {
            boards[variant as usize] = NONE;
            if boards.iter().all(|board| *board == NONE) {
                self.rooms.remove(&room);
            }
        }
    }

    /// The board of a room and variant, made when it is not there.
    fn board(&mut self, room: RoomId, variant: Variant) -> u32 {
        let boards = self.rooms.entry(room).or_insert([NONE; Variant::COUNT]);
        let number = &mut boards[variant as usize];
        if *number == NONE {
            *number = self.free_boards.pop().unwrap_or_else(|| {
                self.boards.push(None);
                self.boards.len() as u32 - 1
            });
            self.boards[*number as usize] = Some(Board::new(room, variant));
        }
        *number
    }

    /// Appends an event to the logs of its room.
    pub(super) fn deliver(&mut self, delivery: &Delivery) {
        let Some(&boards) = self.rooms.get(&delivery.room) else { return };
        let at_us = self.micros(delivery.received);
        self.handle.stats().lag.observe(self.now_us().saturating_sub(at_us));
        let skip = delivery.skip.and_then(|key| self.slab.find(key));
        for (&number, frames) in boards.iter().zip(&delivery.frames) {
            if let Some(frames) = frames
                && number != NONE
                && !frames.is_empty()
            {
                let skip = skip.filter(|&index| self.slab.get(index).memberships().any(|m| m.board == number));
                if let Some(index) = skip {
                    self.own_cursors(index);
                }
                if let Some(span) = &delivery.trace
                    && let Some(board) = &self.boards[number as usize]
                {
                    self.unwritten.add(number, board.log.count(), span);
                }
                let origin = Arrival { at_us, age_us: delivery.age_us };
                self.append(number, frames, delivery.seq, origin, skip.unwrap_or(NONE));
            }
        }
    }

    fn append(&mut self, number: u32, frames: &[u8], seq: u64, arrival: Arrival, skip: u32) {
        let Some(board) = &mut self.boards[number as usize] else { return };
        board.log.append(frames, seq, arrival, skip, &mut self.pool);
        self.log_bytes += frames.len() as u64;
        board.last_seq = board.last_seq.max(seq);
        if !board.sweep.queued {
            board.sweep.queued = true;
            self.dirty.push_back(number);
        }
    }

    /// A room lost events: its members are told in its log, or each by its state machine.
    pub(super) fn reset(&mut self, room: RoomId, frames: &[Option<Bytes>; Variant::COUNT]) {
        let Some(&boards) = self.rooms.get(&room) else { return };
        let now = self.now_us();
        for (&number, frames) in boards.iter().zip(frames) {
            let Some(board) = self.boards.get(number as usize).and_then(Option::as_ref) else { continue };
            if let Some(frames) = frames {
                // Behind all that came before it, and never skipped as volatile.
                let seq = board.last_seq.max(1);
                self.append(number, frames, seq, Arrival { at_us: now, age_us: 0 }, NONE);
            } else {
                let members: Vec<_> = board.slots().map(|index| self.slab.key(index)).collect();
                for key in members {
                    let Some(index) = self.slab.find(key) else { continue };
                    self.enter(index, |connection, now, out| connection.on_reset(room, now, out));
                    self.settle(index);
                }
            }
        }
    }

    /// The hub will use the number again: nobody may be left in the room.
    pub(super) fn forget(&mut self, room: RoomId) {
        let Some(&boards) = self.rooms.get(&room) else { return };
        for number in boards {
            let Some(board) = self.boards.get(number as usize).and_then(Option::as_ref) else { continue };
            for index in board.slots().collect::<Vec<_>>() {
                self.leave(index, room);
            }
        }
    }
}
