//! How connections end.
//!
//! ```text
//! Open --close(code)--> Closing: our close frame leaves, the client's is due
//!                          |  the client's close, or a fault: nothing more is read as frames
//!                          v
//!                       Finishing: what is queued leaves; then our half of the socket closes
//!                          v
//!                       HalfClosed: the client's end is due ----------> Free
//! ```
//! Every phase but `Open` ends after two seconds; a broken socket ends at once.
//! Source: RFC 6455, section 7; wire reference, rows W13 and W14.

use super::core::Core;
use super::polling::Verdict;
use super::slot::{NONE, Phase, Slot};
use crate::bridge::{ConnKey, RoomId};
use crate::conn::{Action, Cause, Close};
use crate::wire::websocket::{CodeLabel, Violation, codes, push_close};
use std::net::Shutdown;

impl Core {
    /// Ends a connection from our side, as its state machine asked for.
    pub(super) fn close(&mut self, index: u32, close: &Close) {
        let phase = if close.code.is_some() { Phase::Closing } else { Phase::Finishing };
        let label = close.code.map_or(CodeLabel::NONE, |code| CodeLabel::of(Some(code)));
        self.end(index, close.cause, label, close.code.map(|code| (code, close.reason)), phase);
    }

    /// Ends a connection that did not ask for it: it may say a last word, and is told to come back.
    pub(super) fn close_unasked(&mut self, index: u32, cause: Cause) {
        if self.slab.get(index).phase != Phase::Open {
            return;
        }
        if self.slab.get(index).outbox.is_none() {
            self.enter(index, |connection, _, out| connection.before_close(cause, out));
        }
        if self.slab.get(index).phase != Phase::Open {
            return;
        }
        let engineio = self.slab.get(index).connection.as_ref().is_some_and(|c| c.sid_secret().is_some());
        // Everybody who was there in the drain's window has a time in it.
        let straggles = self.slab.get(index).closes_at > self.drain_until;
        let (code, reason) = match cause {
            Cause::Drain if straggles => (codes::GOING_AWAY, "this server is about to end"),
            Cause::Drain => (codes::RESTART, "this server restarts"),
            Cause::Shed => (codes::RESTART, "another server has more room"),
            Cause::Slow => (codes::TRY_LATER, "too slow"),
            _ => (codes::GOING_AWAY, "closed by the server"),
        };
        self.close(index, &Close { code: (!engineio).then_some(code), reason, cause });
    }

    /// The client closed; its close is answered with the same code.
    pub(super) fn on_peer_close(&mut self, index: u32, code: Option<u16>) {
        match self.slab.get(index).phase {
            Phase::Open => {
                let mut answer = Vec::with_capacity(4);
                push_close(&mut answer, code, "");
                self.end(index, Cause::Client, CodeLabel::of(code), None, Phase::Finishing);
                self.push_closing(index, &answer);
            }
            Phase::Closing => self.slab.at(index).phase = Phase::Finishing,
            Phase::Free | Phase::Finishing | Phase::HalfClosed => {}
        }
        self.settle(index);
    }

    /// The client broke the protocol.
    pub(super) fn on_violation(&mut self, index: u32, violation: Violation) {
        let cause = if violation.is_limit() { Cause::Limit } else { Cause::Protocol };
        let (code, reason) = (violation.code(), violation.reason());
        self.end(index, cause, CodeLabel::of(Some(code)), Some((code, reason)), Phase::Finishing);
        // A second fault, after our own close: the client's answer will not come any more.
        if self.slab.get(index).phase == Phase::Closing {
            self.slab.at(index).phase = Phase::Finishing;
        }
        self.settle(index);
    }

    /// The socket is at its end or broken.
    pub(super) fn broken(&mut self, index: u32) {
        if self.slab.get(index).phase == Phase::Open {
            self.finish(index, Cause::Transport, CodeLabel::NONE);
        }
        if self.slab.get(index).phase != Phase::Free {
            self.free(index);
        }
    }

    /// The common end: the state machine's last call, the close frame, and a bound for the rest.
    fn end(&mut self, index: u32, cause: Cause, label: CodeLabel, frame: Option<(u16, &str)>, next: Phase) {
        if self.slab.get(index).phase != Phase::Open {
            return;
        }
        self.finish(index, cause, label);
        if self.slab.get(index).polling.is_some() {
            return self.end_polling(index, cause);
        }
        let closes_at = self.now() + self.settings.close_ms;
        let slot = self.slab.at(index);
        (slot.phase, slot.closes_at) = (next, closes_at);
        if let Some((code, reason)) = frame {
            let mut bytes = Vec::with_capacity(4 + reason.len());
            push_close(&mut bytes, Some(code), reason);
            self.push_closing(index, &bytes);
        }
        self.set_timer(index);
        // Whoever called: what is queued leaves in the next turn at the latest.
        self.again.push_back(index);
    }

    /// Queues a close frame behind what waits, whatever the bounds say.
    fn push_closing(&mut self, index: u32, frame: &[u8]) {
        match &mut self.slab.at(index).outbox {
            Some(outbox) => outbox.push_excused(frame),
            None => self.push_private(index, frame),
        }
    }

    /// The state machine's last call. The connection leaves its rooms.
    pub(super) fn finish(&mut self, index: u32, cause: Cause, label: CodeLabel) {
        let label = if self.slab.get(index).polling.is_some() { CodeLabel::POLLING } else { label };
        self.handle.stats().closed(cause, label);
        let rooms = self.leave_all(index);
        // In the meantime nothing may call into it.
        self.slab.at(index).phase = Phase::Finishing;
        let Some(mut connection) = self.slab.at(index).connection.take() else { return };
        let mut actions = Vec::new();
        connection.on_close(cause, rooms, &mut actions);
        let from = self.slab.key(index);
        for action in actions {
            if let Action::Request { id, identity, op } = action {
                self.request(crate::bridge::Request { from, id, identity, op, trace: None });
            }
        }
        if self.slab.get(index).polling.is_some() {
            // A polling session may still be asked for, by its secret.
            self.slab.at(index).connection = Some(connection);
        }
        self.let_go(index);
    }

    fn leave_all(&mut self, index: u32) -> Vec<RoomId> {
        let slot = self.slab.at(index);
        let memberships: Vec<_> =
            slot.room.take().into_iter().chain(slot.rooms.take().into_iter().flat_map(|r| *r)).collect();
        let mut rooms = Vec::with_capacity(memberships.len());
        for membership in memberships {
            if let Some(board) = &self.boards[membership.board as usize] {
                rooms.push(board.room);
                self.vacate(membership);
            }
        }
        rooms
    }

    /// When what was queued has left, our half of the socket closes first.
    pub(super) fn half_close(&mut self, index: u32) {
        let slot = self.slab.get(index);
        if slot.outbox.is_some() || slot.phase != Phase::Finishing {
            return;
        }
        let Some(socket) = &self.slab.sockets[index as usize] else { return };
        if socket.shutdown(Shutdown::Write).is_err() {
            return self.free(index);
        }
        self.slab.at(index).phase = Phase::HalfClosed;
        // The client's end may have been here before.
        self.again.push_back(index);
    }

    /// A WebSocket that probes lets its session go.
    pub(super) fn let_go(&mut self, index: u32) {
        let session = std::mem::replace(&mut self.slab.at(index).probes, NONE);
        if session != NONE {
            let key = self.slab.key(index);
            if let Some(polling) = &mut self.slab.at(session).polling {
                polling.let_go(key);
            }
        }
    }

    /// Forgets a connection.
    pub(super) fn free(&mut self, index: u32) {
        self.let_go(index);
        if self.fresh_for == index {
            self.fresh.clear();
        }
        self.wheel.set(index, None);
        if !self.upgrades.is_empty() {
            self.upgrades.remove(&index);
        }
        self.unseat(index);
        self.slab.remove(index);
    }

    /// Closes everything in random order over the window.
    pub(super) fn drain(&mut self, window_ms: u32) {
        // 0 says that there is no drain, and a shard may be that young.
        self.drain_until = (self.now() + u64::from(window_ms)).max(1);
        for index in 0..self.slab.slots.len() as u32 {
            if self.slab.get(index).phase == Phase::Open {
                self.close_within(index);
            }
        }
    }

    /// Closes so many, drawn at random, one after another over the window. A drain has its own window for all.
    pub(super) fn shed(&mut self, count: u32, window_ms: u32) {
        if self.drain_until != 0 {
            return;
        }
        let (slots, begin) = (&self.slab.slots, self.now().max(1));
        // A WebSocket that probes stays with its session.
        let stays = |slot: &Slot| slot.phase != Phase::Open || slot.closes_at != 0 || slot.probes != NONE;
        let may_go = (0..slots.len() as u32).filter(|index| !stays(&slots[*index as usize]));
        let chosen = fastrand::choose_multiple(may_go, count as usize);
        for (place, index) in (0..).zip(chosen) {
            self.slab.at(index).closes_at = begin + u64::from(window_ms) * place / u64::from(count);
            self.set_timer(index);
        }
    }

    /// Gives a connection its time in the drain's window; one that comes behind it has none, and goes at once.
    pub(super) fn close_within(&mut self, index: u32) {
        let now = self.now();
        self.slab.at(index).closes_at = fastrand::u64(now..=self.drain_until.max(now)).max(1);
        self.set_timer(index);
    }

    /// A polling session has ended; a GET may still hear of it.
    fn end_polling(&mut self, index: u32, cause: Cause) {
        let now = self.now();
        let Some(polling) = &mut self.slab.at(index).polling else { return };
        let candidate = polling.candidate();
        if polling.close(cause, now) == Verdict::Continue {
            let slot = self.slab.at(index);
            slot.phase = Phase::Closing;
            slot.closes_at = 0;
            self.set_timer(index);
        } else {
            self.free(index);
        }
        self.close_candidate(candidate, cause);
    }

    /// A WebSocket that probes ends with its session.
    pub(super) fn close_candidate(&mut self, candidate: Option<ConnKey>, cause: Cause) {
        if let Some(probe) = candidate.and_then(|key| self.slab.find(key)) {
            self.slab.at(probe).probes = NONE;
            self.close(probe, &Close { code: None, reason: "the session has ended", cause });
        }
    }
}
