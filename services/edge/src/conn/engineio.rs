//! An Engine.IO session: heartbeat and packets, whatever its transport.
//!
//! ```text
//! open --0{..}--> |-- ping_interval --> 2 --> |-- ping_timeout --> closed
//!                 ^                           |
//!                 +------------- 3 <----------+
//! ```
//! Source: wire reference, rows E16 to E21.

use super::{Action, Cause, Close, Connection, Incoming, Millis, Packet, Settings};
use crate::bridge::{ConnKey, Control, Reply, RoomId};
use crate::wire::engineio::{self, OpenPacket, PING, Sid};
use bytes::Bytes;
use std::sync::Arc;

/// What runs inside a session. Messages come without their type byte; text that it sends has one (`4`).
pub trait Application: Send {
    /// The open packet is on its way.
    fn on_open(&mut self, key: ConnKey, now: Millis, out: &mut Vec<Action>);
    /// A text message.
    fn on_text(&mut self, message: &str, now: Millis, out: &mut Vec<Action>);
    /// A binary message.
    fn on_binary(&mut self, message: &[u8], now: Millis, out: &mut Vec<Action>);
    /// See [`Connection::on_reply`].
    fn on_reply(&mut self, _id: u32, _reply: Reply, _now: Millis, _out: &mut Vec<Action>) {}
    /// See [`Connection::on_control`].
    fn on_control(&mut self, _control: &Control, _now: Millis, _out: &mut Vec<Action>) {}
    /// See [`Connection::on_deadline`]; called at or after [`Self::deadline`].
    fn on_deadline(&mut self, _now: Millis, _out: &mut Vec<Action>) {}
    /// See [`Connection::deadline`].
    fn deadline(&self) -> Option<Millis> {
        None
    }
    /// See [`Connection::on_close`].
    fn on_close(&mut self, _cause: Cause, _rooms: Vec<RoomId>, _out: &mut Vec<Action>) {}
}

/// The session's state machine.
#[derive(Debug)]
pub struct EngineIo<A> {
    settings: Arc<Settings>,
    secret: [u8; 16],
    /// It began on polling.
    polling: bool,
    /// The pong to the last ping is due.
    awaiting_pong: bool,
    /// A close was asked for: nothing counts any more.
    closed: bool,
    /// When the next ping leaves, or the pong is overdue.
    heartbeat: Millis,
    application: A,
}

impl<A: Application> EngineIo<A> {
    /// A session with a fresh secret. `polling`: it begins on polling and may upgrade.
    pub fn new(settings: Arc<Settings>, polling: bool, application: A) -> Self {
        Self {
            settings,
            secret: rand::random(),
            polling,
            awaiting_pong: false,
            closed: false,
            heartbeat: Millis::MAX,
            application,
        }
    }

    fn on_text(&mut self, text: &str, now: Millis, out: &mut Vec<Action>) {
        match engineio::parse(text) {
            Ok(engineio::Packet::Message(message)) => self.application.on_text(message, now, out),
            Ok(engineio::Packet::Pong(_)) if self.awaiting_pong => {
                self.awaiting_pong = false;
                self.heartbeat = now + self.settings.ping_interval_ms;
            }
            Ok(engineio::Packet::Close) => out.push(close(Cause::Client)),
            Ok(engineio::Packet::Ping(_)) | Err(_) => out.push(close(Cause::Protocol)),
            Ok(
                engineio::Packet::Pong(_) | engineio::Packet::Open | engineio::Packet::Upgrade | engineio::Packet::Noop,
            ) => {}
        }
    }

    /// Notes a close that the application asked for.
    fn settle(&mut self, out: &[Action]) {
        self.closed |= matches!(out.last(), Some(Action::Close(_)));
    }
}

/// How a session of this family ends: with a close frame where the peer can be expected to read it.
pub(super) fn close(cause: Cause) -> Action {
    let (code, reason) = match cause {
        Cause::Client | Cause::Kicked => (Some(1000), ""),
        Cause::Protocol => (Some(1002), "protocol error"),
        Cause::ConnectTimeout => (Some(1008), "connect timeout"),
        Cause::Limit => (Some(1008), "limit"),
        Cause::Unavailable => (Some(1013), "try again later"),
        Cause::Transport
        | Cause::PingTimeout
        | Cause::Slow
        | Cause::Drain
        | Cause::Shed
        | Cause::Unauthenticated
        | Cause::Reset
        | Cause::Replaced => (None, ""),
    };
    Action::Close(Close { code, reason, cause })
}

/// A text packet.
pub(super) fn text(packet: impl Into<Bytes>) -> Action {
    Action::Send(Packet::Text(packet.into()))
}

impl<A: Application> Connection for EngineIo<A> {
    fn on_open(&mut self, key: ConnKey, now: Millis, out: &mut Vec<Action>) {
        let open = OpenPacket {
            sid: Sid { edge: self.settings.edge_number.get(), shard: key.shard, slot: key.slot, secret: self.secret },
            upgradable: self.polling,
            ping_interval_ms: self.settings.ping_interval_ms,
            ping_timeout_ms: self.settings.ping_timeout_ms,
            max_payload_bytes: self.settings.max_message_bytes,
        };
        out.push(text(open.encode()));
        self.heartbeat = now + self.settings.ping_interval_ms;
        self.application.on_open(key, now, out);
    }

    fn on_message(&mut self, message: Incoming<'_>, now: Millis, out: &mut Vec<Action>) {
        if self.closed {
            return;
        }
        match message {
            Incoming::Text(text) => self.on_text(text, now, out),
            Incoming::Binary(bytes) => self.application.on_binary(bytes, now, out),
        }
        self.settle(out);
    }

    fn on_reply(&mut self, id: u32, reply: Reply, now: Millis, out: &mut Vec<Action>) {
        if !self.closed {
            self.application.on_reply(id, reply, now, out);
            self.settle(out);
        }
    }

    fn on_control(&mut self, control: &Control, now: Millis, out: &mut Vec<Action>) {
        if !self.closed {
            self.application.on_control(control, now, out);
            self.settle(out);
        }
    }

    fn on_reset(&mut self, _room: RoomId, _now: Millis, out: &mut Vec<Action>) {
        if !std::mem::replace(&mut self.closed, true) {
            // Socket.IO cannot tell of a gap; a client that reconnects reads what it missed.
            out.push(close(Cause::Reset));
        }
    }

    fn on_deadline(&mut self, now: Millis, out: &mut Vec<Action>) {
        if self.closed {
            return;
        }
        if now >= self.heartbeat {
            if self.awaiting_pong {
                self.closed = true;
                out.push(close(Cause::PingTimeout));
                return;
            }
            self.awaiting_pong = true;
            out.push(text(PING));
            // Counted from when the ping was due, so that the end is exact; from now when the machine
            // stood still so long that the client would have no time left.
            let timeout = self.settings.ping_timeout_ms;
            self.heartbeat = self.heartbeat.max(now.saturating_sub(timeout / 2)) + timeout;
        }
        if self.application.deadline().is_some_and(|deadline| now >= deadline) {
            self.application.on_deadline(now, out);
            self.settle(out);
        }
    }

    fn deadline(&self) -> Option<Millis> {
        let heartbeat = (!self.closed && self.heartbeat != Millis::MAX).then_some(self.heartbeat)?;
        Some(self.application.deadline().map_or(heartbeat, |deadline| deadline.min(heartbeat)))
    }

    fn on_close(&mut self, cause: Cause, rooms: Vec<RoomId>, out: &mut Vec<Action>) {
        self.closed = true;
        self.application.on_close(cause, rooms, out);
    }

    fn sid_secret(&self) -> Option<[u8; 16]> {
        Some(self.secret)
    }
}
