//! Carries out what sequencers ask for: events and resets to shards, reads and barriers upstream.

use super::encode;
use super::hub::Hub;
use super::offsets::unless_off;
use crate::bridge::{Control, Delivery, Inbound, RoomId};
use crate::feed::sequencer::{Action, Millis, Read, ResetReason, Sequencer, Stored};
use crate::trace;
use crate::upstream::read::ReadKey;
use crate::wire::Mark;
use plaza_proto::position::{Epoch, Position};
use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Microseconds at `now` since a moment of the store's clock, at least 1, as clocks differ a little.
fn age_us(time_ms: u64, now: SystemTime) -> u32 {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let age = now.saturating_sub(Duration::from_millis(time_ms)).as_micros();
    u32::try_from(age).unwrap_or(u32::MAX).max(1)
}

impl Hub {
    /// Lets a room's sequencer work, and carries out what it asks for.
    pub(super) fn with_sequencer(&mut self, id: RoomId, work: impl FnOnce(&mut Sequencer, Millis, &mut Vec<Action>)) {
        let now = self.now;
        let mut actions = std::mem::take(&mut self.actions);
        if let Some(room) = self.rooms.get_mut(id) {
            work(&mut room.sequencer, now, &mut actions);
        }
        self.carry_out(id, &mut actions);
        self.actions = actions;
    }

    /// Carries out a sequencer's actions, in order.
    pub(super) fn carry_out(&mut self, id: RoomId, actions: &mut Vec<Action>) {
        // It may still wait for what comes behind the events that it delivers now.
        self.note_waiting(id);
        let mut live = false;
        for action in actions.drain(..) {
            match action {
                Action::Barrier(token) => {
                    self.feed.barrier(u64::from(id.0) << 32 | (token & 0xffff_ffff));
                }
                Action::Read(ticket, read) => self.read_for(id, ticket, read),
                Action::Deliver(epoch, stored) => self.deliver(id, epoch, &stored),
                Action::Reset { reason, from, to } => self.reset(id, reason, from, to),
                Action::Live => live = true,
            }
        }
        if live && let Some(room) = self.rooms.get_mut(id) {
            room.shown = room.sequencer.position();
        }
        self.settle(id);
    }

    fn note_waiting(&mut self, id: RoomId) {
        if let Some(room) = self.rooms.get(id) {
            self.offsets.set_waiting(id, room.sequencer.is_waiting());
        }
    }

    /// After a room's sequencer has worked: its wake-up, its share of the ring budget, its joins.
    pub(super) fn settle(&mut self, id: RoomId) {
        let now = self.now;
        let Some(room) = self.rooms.get_mut(id) else { return };
        if let Some(at) = room.sequencer.wake_at()
            && room.wake.is_none_or(|wake| at < wake)
        {
            room.wake = Some(at);
            self.wakes.push(Reverse((at, id, room.born)));
        }
        let bytes = room.sequencer.bytes();
        self.ring_bytes = self.ring_bytes + bytes - room.bytes;
        (room.bytes, room.used) = (bytes, now);
        if self.ring_bytes > self.ring_budget {
            self.evict();
        }
        self.finish_joins(id);
        self.hear_prover(id);
    }

    fn read_for(&mut self, id: RoomId, ticket: u64, read: Read) {
        let Some(room) = self.rooms.get(id) else { return };
        let room = room.name.clone();
        let key = match read {
            Read::Newest => ReadKey { room, before: true, seq: u64::MAX, at_least: 0, limit: 1 },
            Read::After { seq, at_least, limit } => ReadKey { room, before: false, seq, at_least, limit },
        };
        self.read(key, super::hub::Waiter::Sequencer(id, ticket));
    }

    /// One event to every shard that has members: decoded once, encoded once per variant in use.
    fn deliver(&mut self, id: RoomId, epoch: Epoch, stored: &Stored) {
        let (received, wall) = self.round;
        let mark = self.mark(Position::of(epoch, stored.seq, stored.id));
        let Some(room) = self.rooms.get_mut(id) else { return };
        let Some(event) = encode::decode(stored, epoch) else {
            self.metrics.unknown_events.inc();
            return;
        };
        let previous = std::mem::replace(&mut room.shown, event.position);
        if room.members == 0 {
            return;
        }
        let trace = trace::process(stored.traceparent.as_deref(), &room.name, room.members, self.feed.server());
        let frames =
            encode::frames(&room.variants, |variant| encode::event(&room.name, &event, previous, variant, mark));
        let (seq, age_us) = (stored.seq, age_us(stored.time, wall));
        let delivery = Arc::new(Delivery { room: id, seq, skip: None, frames, received, age_us, trace });
        for (index, shard) in room.shards.iter_mut().enumerate() {
            if shard.members > 0 && shard.behind.is_none() && self.outlets[index].try_deliver(delivery.clone()).is_err()
            {
                shard.behind = Some(previous);
                self.behind.push((id, room.born, index));
            }
        }
    }

    /// Offers shards again what they had no room for; what the ring has lost meanwhile is a reset.
    pub(super) fn catch_up(&mut self) {
        let behind = std::mem::take(&mut self.behind);
        for (id, born, index) in behind {
            if !self.catch_up_one(id, born, index) {
                self.behind.push((id, born, index));
            } else {
                self.finish_joins(id);
            }
        }
    }

    /// `true` when the shard is no longer behind in this room.
    fn catch_up_one(&mut self, id: RoomId, born: u64, index: usize) -> bool {
        let Some(room) = self.rooms.get_mut(id).filter(|room| room.born == born) else { return true };
        let Some(mut from) = room.shards[index].behind else { return true };
        let position = room.sequencer.position();
        let missed: Option<Vec<Stored>> = room.sequencer.since(from.seq).map(|events| events.cloned().collect());
        let Some(missed) = missed else {
            room.shards[index].behind = None;
            self.metrics.reset("unavailable");
            let frames = self.reset_frames(id, ResetReason::Unavailable.as_str(), Some(from), position);
            self.outlets[index].send(Inbound::Control(Control::Reset { room: id, frames }));
            return true;
        };
        // Its members may have seen events of other rooms behind these.
        let mark = unless_off(self.recovery_ms, Mark::Nowhere);
        let Some(room) = self.rooms.get_mut(id) else { return true };
        for event in missed.iter().filter_map(|stored| encode::decode(stored, position.epoch)) {
            let frames =
                encode::frames(&room.variants, |variant| encode::event(&room.name, &event, from, variant, mark));
            let (seq, received) = (event.position.seq, Instant::now());
            let delivery = Arc::new(Delivery { room: id, seq, skip: None, frames, received, age_us: 0, trace: None });
            if self.outlets[index].try_deliver(delivery).is_err() {
                room.shards[index].behind = Some(from);
                return false;
            }
            from = event.position;
        }
        room.shards[index].behind = None;
        true
    }

    /// Members lost events: they are told where delivery goes on.
    fn reset(&mut self, id: RoomId, reason: ResetReason, from: Option<Position>, to: Position) {
        self.metrics.reset(reason.as_str());
        let frames = self.reset_frames(id, reason.as_str(), from, to);
        let Some(room) = self.rooms.get_mut(id) else { return };
        room.shown = to;
        tracing::warn!(room = %room.name, reason = reason.as_str(), "members lost events");
        for (index, shard) in room.shards.iter_mut().enumerate() {
            if shard.members > 0 {
                shard.behind = None;
                self.outlets[index].send(Inbound::Control(Control::Reset { room: id, frames: frames.clone() }));
            }
        }
        if matches!(reason, ResetReason::Epoch | ResetReason::RolledBack) {
            self.doubt_all(id, to.epoch);
        }
    }

    fn reset_frames(
        &self,
        id: RoomId,
        reason: &'static str,
        from: Option<Position>,
        to: Position,
    ) -> [Option<bytes::Bytes>; crate::bridge::Variant::COUNT] {
        let Some(room) = self.rooms.get(id) else { return Default::default() };
        crate::bridge::Variant::ALL.map(|variant| {
            let used = room.variants[variant as usize] > 0;
            used.then(|| encode::reset(&room.name, reason, from, to, variant))?
        })
    }

    /// Takes the rings of the rooms that were used longest ago, until a tenth of the budget is free again.
    fn evict(&mut self) {
        let mut rooms: Vec<(Millis, RoomId)> =
            self.rooms.iter().filter(|room| room.bytes > 0).map(|room| (room.used, room.id)).collect();
        rooms.sort_unstable();
        let goal = self.ring_budget - self.ring_budget / 10;
        for (_, id) in rooms {
            if self.ring_bytes <= goal {
                return;
            }
            if let Some(room) = self.rooms.get_mut(id) {
                room.sequencer.evict();
                let bytes = room.sequencer.bytes();
                self.ring_bytes = self.ring_bytes + bytes - room.bytes;
                room.bytes = bytes;
            }
        }
    }
}
