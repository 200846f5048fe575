//! Connections: pure state machines between a transport's messages and the hub's replies. No I/O and
//! no clock here; the engine calls them and carries out the [`Action`]s they push.

mod chat;
mod engineio;
mod hold;
mod member;
mod plaza;
mod probe;
mod refusal;
mod settings;
mod socketio;
#[cfg(test)]
mod tests;

pub use chat::Chat;
pub use engineio::{Application, EngineIo};
pub use plaza::PlazaConnection;
pub use probe::Probe;
pub use settings::{EdgeNumber, Settings};
pub use socketio::{Admission, Handler, SocketIo};

use crate::bridge::{ConnKey, Control, Identity, Op, Reply, RoomId, Variant};
use bytes::Bytes;
use std::sync::Arc;

/// Milliseconds on the shard's own monotonic clock.
pub type Millis = u64;

/// One message of a transport: a WebSocket message, or an Engine.IO packet of a polling body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// Text (for Engine.IO with its type byte).
    Text(Bytes),
    /// Binary (for Engine.IO without one).
    Binary(Bytes),
}

/// A message that arrived, borrowed from the read buffer.
#[derive(Clone, Copy, Debug)]
pub enum Incoming<'a> {
    /// Valid UTF-8.
    Text(&'a str),
    /// Anything.
    Binary(&'a [u8]),
}

/// What a connection asks of the engine, carried out in order.
#[derive(Debug)]
pub enum Action {
    /// Send one message on this connection.
    Send(Packet),
    /// Send bytes that are complete WebSocket frames already (a replay).
    SendFrames(Bytes),
    /// A Socket.IO session continues: send CONNECT's reply and the frames that were missed. On a WebSocket
    /// the reply leads, or a client that is cut off while it reads would show their first part twice; on
    /// polling it ends the one body that has them all.
    Recovered {
        /// CONNECT's reply.
        reply: Packet,
        /// Complete WebSocket frames.
        missed: Bytes,
    },
    /// Send a WebSocket ping (Plaza's own protocol).
    Ping,
    /// Pass a wish to the hub; the id comes back in [`Connection::on_reply`].
    Request {
        /// 0: no reply wanted.
        id: u32,
        /// Who the connection is.
        identity: Arc<Identity>,
        /// The wish.
        op: Op,
    },
    /// Put this connection into the room at the log's head, from this instant on.
    Enter {
        /// The room.
        room: RoomId,
        /// Which log.
        variant: Variant,
    },
    /// Take it out.
    Exit(RoomId),
    /// This WebSocket wants to take over the polling session `to`; the engine answers
    /// [`Connection::on_probe`] at once. The session is held for it until it ends or upgrades.
    Probe {
        /// The polling session; its generation is not known to the client and is not compared.
        to: ConnKey,
        /// The random part of the sid.
        secret: [u8; 16],
    },
    /// The client has probed: the session's waiting GET is answered with a noop, and so is each one
    /// that comes before the upgrade.
    Release,
    /// The probe is complete: this WebSocket becomes the transport of the session it probed for.
    Upgrade,
    /// End the connection. Nothing is sent or received after it but what was queued before.
    Close(Close),
}

/// How a connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// WebSocket close code; `None`: no close frame (Engine.IO: the transport is just closed).
    pub code: Option<u16>,
    /// Reason of the close frame, at most 123 bytes.
    pub reason: &'static str,
    /// Why, for metrics and logs: a closed set.
    pub cause: Cause,
}

/// Why a connection ended: label of the closes metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The client closed it.
    Client,
    /// The transport broke.
    Transport,
    /// No pong in time.
    PingTimeout,
    /// The client broke a protocol rule.
    Protocol,
    /// Nothing joined within the connect timeout.
    ConnectTimeout,
    /// Too slow: behind its rooms by more than the bound.
    Slow,
    /// Over a limit: size, rate, fragments.
    Limit,
    /// Kicked or revoked.
    Kicked,
    /// This edge drains.
    Drain,
    /// This edge has more than its share.
    Shed,
    /// Not authenticated.
    Unauthenticated,
    /// The services behind this edge cannot be reached.
    Unavailable,
    /// Rooms lost events that cannot be told on this protocol.
    Reset,
    /// Replaced by a newer connection, or its transport moved on.
    Replaced,
}

impl Cause {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::Client,
        Self::Transport,
        Self::PingTimeout,
        Self::Protocol,
        Self::ConnectTimeout,
        Self::Slow,
        Self::Limit,
        Self::Kicked,
        Self::Drain,
        Self::Shed,
        Self::Unauthenticated,
        Self::Unavailable,
        Self::Reset,
        Self::Replaced,
    ];

    /// Whether the client may continue its session on another connection. Not when either side has ended
    /// it for good, or when the client broke a rule.
    pub const fn is_recoverable(self) -> bool {
        !matches!(self, Self::Protocol | Self::Kicked | Self::Unauthenticated)
    }

    /// The label's text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Transport => "transport",
            Self::PingTimeout => "ping_timeout",
            Self::Protocol => "protocol",
            Self::ConnectTimeout => "connect_timeout",
            Self::Slow => "slow",
            Self::Limit => "limit",
            Self::Kicked => "kicked",
            Self::Drain => "drain",
            Self::Shed => "shed",
            Self::Unauthenticated => "unauthenticated",
            Self::Unavailable => "unavailable",
            Self::Reset => "reset",
            Self::Replaced => "replaced",
        }
    }
}

/// A connection's state machine. Implemented by Socket.IO over Engine.IO, by Plaza's own protocol, by
/// the upgrade probe, and by the echo of the wire profile.
pub trait Connection: Send {
    /// The transport is ready and the connection has its place; called once.
    fn on_open(&mut self, key: ConnKey, now: Millis, out: &mut Vec<Action>);
    /// A message arrived.
    fn on_message(&mut self, message: Incoming<'_>, now: Millis, out: &mut Vec<Action>);
    /// A WebSocket pong arrived.
    fn on_pong(&mut self, _now: Millis, _out: &mut Vec<Action>) {}
    /// The hub answered request `id`.
    fn on_reply(&mut self, id: u32, reply: Reply, now: Millis, out: &mut Vec<Action>);
    /// The hub says something unasked (only `Close`, `Replaced` and `Renamed` for this connection).
    fn on_control(&mut self, control: &Control, now: Millis, out: &mut Vec<Action>);
    /// A room lost events for this member; only asked of connections whose variant got no reset frame.
    fn on_reset(&mut self, room: RoomId, now: Millis, out: &mut Vec<Action>);
    /// The answer to [`Action::Probe`]: the session exists, polls, and no other WebSocket probes for it.
    fn on_probe(&mut self, _accepted: bool, _now: Millis, _out: &mut Vec<Action>) {}
    /// [`Self::deadline`] has passed.
    fn on_deadline(&mut self, now: Millis, out: &mut Vec<Action>);
    /// When [`Self::on_deadline`] wants to be called next; asked after each call.
    fn deadline(&self) -> Option<Millis>;
    /// What to say before an unasked close (drain, shed, slow): e.g. `reconnect{afterMs}` of Plaza's protocol.
    fn before_close(&mut self, _cause: Cause, _out: &mut Vec<Action>) {}
    /// The connection has ended; last call. Pushes at most requests ([`Op::Close`]).
    fn on_close(&mut self, cause: Cause, rooms: Vec<RoomId>, out: &mut Vec<Action>);
    /// The random part of the Engine.IO sid: a polling request must bring it. `Some` marks an Engine.IO
    /// session, which may live on polling; then its room frames are re-packed as packets.
    fn sid_secret(&self) -> Option<[u8; 16]> {
        None
    }
}
