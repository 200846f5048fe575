//! What the shards and the control runtime say to each other, and nothing else.
//!
//! ```text
//! shard (engine thread)                     control runtime
//!   connection --- Request{from, id, op} -->  hub: rooms, sequencers, sessions, publish link
//!   connection <-- Inbound::Reply ----------  (the reply carries `from` and `id` back)
//!   room log   <-- Inbound::Deliver --------  one per event and shard that has members
//! ```
//! A shard's inbox is one FIFO. That makes a join exact: every `Deliver` behind a [`Reply::Joined`]
//! is an event after the joined position, every one before it is not for that member.

pub mod requests;

use crate::trace::TraceWish;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use plaza_kit::trace::Span;
use plaza_proto::client;
use plaza_proto::code::{Code, Locale};
use plaza_proto::event::Event;
use plaza_proto::ids::{MessageId, RoomName};
use plaza_proto::position::Position;
use std::sync::Arc;

/// Names one connection of this edge, for ever: a slot is used again only under a new generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnKey {
    /// Which shard holds it.
    pub shard: u16,
    /// Its place in that shard's slab.
    pub slot: u32,
    /// Grows each time the slot is used again.
    pub generation: u32,
}

impl std::fmt::Display for ConnKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.shard, self.slot, self.generation)
    }
}

/// A room on this edge, numbered by the hub; not used again while any shard may know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomId(pub u32);

/// How room events look on a connection. Each event is encoded once per variant that some member uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Variant {
    /// Socket.IO, the tutorial's lines, Chinese.
    TextZh,
    /// Socket.IO, the same lines in English.
    TextEn,
    /// Socket.IO, `message` with an object.
    Event,
    /// Plaza's own protocol, JSON text messages.
    PlazaJson,
    /// Plaza's own protocol, protobuf binary messages.
    PlazaProto,
}

impl Variant {
    /// How many there are.
    pub const COUNT: usize = 5;
    /// All of them, in the order of [`Delivery::frames`].
    pub const ALL: [Self; Self::COUNT] = [Self::TextZh, Self::TextEn, Self::Event, Self::PlazaJson, Self::PlazaProto];

    /// It is one of Socket.IO.
    pub const fn is_socket_io(self) -> bool {
        matches!(self, Self::TextZh | Self::TextEn | Self::Event)
    }
}

/// One event of a room, encoded, for every member on one shard.
#[derive(Debug)]
pub struct Delivery {
    /// The room.
    pub room: RoomId,
    /// The stream's sequence; 0 for a volatile event, which a member that is behind skips.
    pub seq: u64,
    /// A member that does not get it (the sender of `typing`).
    pub skip: Option<ConnKey>,
    /// Complete unmasked WebSocket frames by [`Variant`]; empty bytes: this variant shows nothing;
    /// `None`: no member used the variant when it was encoded.
    pub frames: [Option<Bytes>; Variant::COUNT],
    /// When the event reached this edge, for the latency histogram.
    pub received: std::time::Instant,
    /// Microseconds that it had been stored then, by the store's clock and this edge's.
    pub age_us: u32,
    /// The span of what this edge does with it, if it is sampled. It ends with the last shard that drops it.
    pub trace: Option<Arc<Span>>,
}

/// A message to a shard.
#[derive(Debug)]
pub enum Inbound {
    /// An event for a room's members. The only kind that may find the inbox full.
    Deliver(Arc<Delivery>),
    /// The answer to a [`Request`].
    Reply {
        /// Who asked. Gone by now: dropped, and a [`Reply::Joined`] in it is left again.
        to: ConnKey,
        /// The request's id.
        id: u32,
        /// The answer.
        reply: Reply,
    },
    /// Something nobody asked for.
    Control(Control),
    /// A socket after its upgrade.
    Adopt(Box<crate::engine::Adopt>),
    /// A long-polling request, answered through the channel inside.
    Poll(Box<crate::engine::Poll>),
}

/// A shard's inbox as the hub sees it.
pub trait Outlet: Send {
    /// Queues an event of a room.
    ///
    /// # Errors
    /// [`Full`]: the shard is behind; the hub offers the event again from the room's ring.
    fn try_deliver(&self, delivery: Arc<Delivery>) -> Result<(), Full>;
    /// Queues what must arrive: replies and controls.
    fn send(&self, message: Inbound);
    /// Lets the shard look at what was queued. The hub calls it once after each round.
    fn wake(&self);
}

/// A shard's inbox had no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shard's inbox is full")]
pub struct Full;

/// What the control runtime tells a shard unasked.
#[derive(Clone, Debug)]
pub enum Control {
    /// End one connection for good: kicked or revoked.
    Close {
        /// The connection.
        to: ConnKey,
        /// Only if it still holds this session.
        session: SessionId,
        /// Shown to the client.
        reason: Arc<str>,
    },
    /// The session goes on with another connection; this one is closed without a word.
    Replaced {
        /// The connection.
        to: ConnKey,
        /// Only if it still holds this session.
        session: SessionId,
    },
    /// A session got another name from outside.
    Renamed {
        /// The connection.
        to: ConnKey,
        /// The new name; empty: somebody else has the old one, and there is none.
        username: Arc<str>,
    },
    /// Events of a room are lost for its members on this shard; the text frames to tell them, by
    /// variant (only Plaza's own protocol has any; Socket.IO transports are closed).
    Reset {
        /// The room.
        room: RoomId,
        /// Complete WebSocket frames by variant.
        frames: [Option<Bytes>; Variant::COUNT],
    },
    /// The room has no member anywhere on this shard and its number may be used again.
    Forget(RoomId),
    /// Close everything in random order over this many milliseconds.
    Drain {
        /// Length of the window.
        window_ms: u32,
    },
    /// Close some at random, one after another over this many milliseconds.
    Shed {
        /// How many.
        count: u32,
        /// Length of the window.
        window_ms: u32,
    },
}

/// A session's id: 120 random bits, 20 characters base64url. For Socket.IO the sid of namespace `/`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub [u8; 15]);

impl SessionId {
    /// Draws a new one.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Reads the 20 characters; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut id = [0; 15];
        let read = URL_SAFE_NO_PAD.decode_slice(text, &mut id).ok()?;
        (text.len() == 20 && read == 15).then_some(Self(id))
    }
}

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&plaza_proto::ids::session_id(self.0))
    }
}

impl std::fmt::Debug for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Who a connection is. One allocation, shared by the connection and its requests.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    /// The session.
    pub session: SessionId,
    /// `sub` of the token, or `g:...` of the guest key; `None`: `s:` + session id.
    pub user_id: Option<Box<str>>,
    /// How room events look, which also tells the protocol.
    pub variant: Variant,
    /// Language of the server's sentences.
    pub locale: Locale,
}

impl Identity {
    /// The user id as events carry it.
    pub fn user_id(&self) -> String {
        self.user_id
            .as_deref()
            .map_or_else(|| plaza_proto::ids::session_user_id(&self.session.to_string()), str::to_owned)
    }
}

/// A connection's wish.
#[derive(Debug)]
pub struct Request {
    /// Who asks.
    pub from: ConnKey,
    /// Chosen by the connection; comes back with the reply. 0: no reply wanted.
    pub id: u32,
    /// Who the connection is.
    pub identity: Arc<Identity>,
    /// What it wants.
    pub op: Op,
    /// The span of the client's frame, if it is sampled.
    pub trace: Option<Span>,
}

/// What a connection can want.
#[derive(Debug)]
pub enum Op {
    /// Store the session, and join the first room if there is one. -> [`Reply::Opened`]
    Open {
        /// The room it starts in.
        room: Option<RoomName>,
        /// The ticket of an earlier session (Plaza's own protocol), or the `pid` and offset (Socket.IO).
        resume: Option<Resume>,
    },
    /// -> [`Reply::Renamed`]
    SetUsername {
        /// As typed.
        username: String,
    },
    /// -> [`Reply::Joined`]
    Join {
        /// The room.
        room: RoomName,
        /// Replay what came after it.
        after: Option<Position>,
        /// The session's name: present at once if there is one.
        username: Option<Arc<str>>,
    },
    /// -> [`Reply::Left`]
    Leave {
        /// The room.
        room: RoomId,
    },
    /// Store an event. -> [`Reply::Published`]
    Publish {
        /// A joined room.
        room: RoomId,
        /// Complete but for `user_id`, which the hub fills in.
        event: Box<Event>,
        /// The client marked it as a retry.
        retry: bool,
        /// What the client wants to know of its trace.
        trace: Option<Box<TraceWish>>,
    },
    /// Tell the others that this user types. No reply.
    Typing {
        /// A joined room.
        room: RoomId,
        /// The name to show.
        username: Arc<str>,
    },
    /// -> [`Reply::History`]
    History {
        /// A joined room.
        room: RoomId,
        /// Events before or after a position; neither: the newest.
        from: HistoryFrom,
        /// 1 to 100.
        limit: u32,
    },
    /// -> [`Reply::Members`]
    Who {
        /// A joined room.
        room: RoomId,
    },
    /// The connection is gone. Leaves every room. No reply.
    Close {
        /// The rooms it was in.
        rooms: Vec<RoomId>,
        /// It may come back with its `pid` or ticket.
        recoverable: bool,
    },
}

impl Op {
    /// A name for spans: of a closed set.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::SetUsername { .. } => "set_username",
            Self::Join { .. } => "join",
            Self::Leave { .. } => "leave",
            Self::Publish { .. } => "publish",
            Self::Typing { .. } => "typing",
            Self::History { .. } => "history",
            Self::Who { .. } => "who",
            Self::Close { .. } => "close",
        }
    }
}

/// How a client asks for its earlier session.
#[derive(Debug)]
pub enum Resume {
    /// Plaza's own protocol: the signed ticket.
    Ticket(Box<str>),
    /// Socket.IO: the `pid` and the last offset.
    Pid {
        /// Key of the recovery record.
        pid: SessionId,
        /// The last offset the client saw.
        offset: Option<Position>,
    },
}

/// Where a page of history begins.
#[derive(Clone, Copy, Debug)]
pub enum HistoryFrom {
    /// The newest events.
    Newest,
    /// The newest events before this one.
    Before(Position),
    /// The oldest events after this one.
    After(Position),
}

/// The answer to a request.
#[derive(Debug)]
pub enum Reply {
    /// To [`Op::Open`].
    Opened {
        /// Who the connection is from now on: another one than it asked as when a session continues.
        identity: Arc<Identity>,
        /// The name that came back with the session.
        username: Option<Arc<str>>,
        /// The session continues.
        resumed: bool,
        /// Ticket or `pid` for the next time; `None`: recovery is off.
        ticket: Option<Box<str>>,
        /// The first room, or all those that came back with the session.
        rooms: Vec<Joined>,
        /// What was missed in all of them, as complete frames in the stream's order.
        missed: Bytes,
    },
    /// To [`Op::SetUsername`]: the name as shown from now on.
    Renamed {
        /// The name as it is shown.
        username: Arc<str>,
        /// For Plaza's own protocol: what to show from now on.
        ticket: Option<Box<str>>,
    },
    /// To [`Op::Join`].
    Joined(Joined),
    /// To [`Op::Leave`].
    Left,
    /// To [`Op::Publish`]: the event is stored.
    Published {
        /// Where.
        position: Position,
        /// Its message id.
        id: MessageId,
        /// It had been stored before.
        duplicate: bool,
        /// The trace's id, if the client asked for it and there is one.
        trace: Option<Box<str>>,
    },
    /// To [`Op::History`].
    History {
        /// Oldest first.
        events: Vec<client::Event>,
        /// There are more in the direction asked for.
        more: bool,
    },
    /// To [`Op::Who`].
    Members {
        /// Users present.
        count: u32,
        /// At most 200: username and user id.
        members: Vec<(String, String)>,
    },
    /// Refused or failed.
    Failed {
        /// The table's code.
        code: Code,
        /// What was wrong and what would be right.
        message: String,
    },
}

/// A membership that begins.
#[derive(Debug)]
pub struct Joined {
    /// The name that was asked for.
    pub room: RoomName,
    /// Its number on this edge.
    pub id: RoomId,
    /// The member has everything up to here (with the replay), and gets everything after.
    pub position: Position,
    /// Users present as last known here.
    pub members: u32,
    /// `after` was given and the replay is complete.
    pub recovered: bool,
    /// Missed events, and those that have come while the join was written down, as complete frames of the
    /// connection's variant, oldest first.
    pub replay: Vec<Bytes>,
    /// Why the replay is not complete: "epoch", "rolled_back", "trimmed" or "unavailable".
    pub reset: Option<&'static str>,
}
