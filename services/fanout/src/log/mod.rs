//! The seam between the service and the store: one trait, two implementations that pass the same
//! conformance cases (`tests/system/fanout_log.rs`).

mod budget;
pub mod jetstream;
pub mod memory;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use plaza_proto::code::Code;
use plaza_proto::fanout;
use plaza_proto::ids::{MessageId, RoomName};
use plaza_proto::position::{Epoch, Position};

/// The most events that one [`Read`] may ask for.
pub const MAX_READ_EVENTS: u32 = 1_000;
/// The most event bytes of one [`ReadAnswer`], so that it stays below a gRPC message of 64 KiB.
pub const MAX_READ_BYTES: u32 = 48 * 1024;
/// The most rooms of one [`EventLog::tails`].
pub const MAX_TAIL_ROOMS: usize = 100;
/// The most encoded bytes of one event.
pub const MAX_EVENT_BYTES: usize = 15 * 1024;
/// How far a room's retained events must reach back before a marked retry that is not among them may
/// be stored: a sender gives up long before.
pub const RETRY_HORIZON: std::time::Duration = std::time::Duration::from_secs(3600);

/// Where events are stored, ordered and distributed.
///
/// Every method has its own time limit inside: none waits for ever.
pub trait EventLog: Send + Sync + std::fmt::Debug {
    /// Stores one event. The caller has validated it; only its size is checked again.
    fn publish(&self, publish: Publish) -> Answer<Outcome>;

    /// Takes note of an event that a caller knows of: with it a log that was rolled back is recognized.
    /// One that cannot be needs no such note.
    fn hear(&self, _known: Position) {}

    /// Reads events of one room.
    fn read(&self, read: Read) -> BoxFuture<'_, Result<ReadAnswer, LogError>>;

    /// The last sequence of each room, in the order asked; 0 for a room without events. At most
    /// [`MAX_TAIL_ROOMS`], which the caller has checked.
    fn tails<'a>(&'a self, rooms: &'a [RoomName]) -> BoxFuture<'a, Result<TailsAnswer, LogError>>;

    /// What the whole log is and holds.
    fn info(&self) -> BoxFuture<'_, Result<LogInfo, LogError>>;

    /// Distributes something that is not stored, at most once.
    fn emit(&self, emit: Emit) -> Answer<Result<(), LogError>>;

    /// An item each time when the room may have a new event; several may be one. Ends when the log ends.
    fn wakes(&self, room: &RoomName) -> BoxFuture<'_, Result<BoxStream<'static, ()>, LogError>>;
}

/// A result that is there, or a future of it: the memory log answers at once, and costs no task and
/// no allocation for that.
pub enum Answer<T> {
    /// It is there.
    Now(T),
    /// It comes.
    Later(BoxFuture<'static, T>),
}

impl<T> Answer<T> {
    /// Waits for the result.
    pub async fn get(self) -> T {
        match self {
            Self::Now(value) => value,
            Self::Later(future) => future.await,
        }
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Now(value) => f.debug_tuple("Now").field(value).finish(),
            Self::Later(_) => f.write_str("Later"),
        }
    }
}

/// One event to store.
#[derive(Clone, Debug)]
pub struct Publish {
    /// Its room.
    pub room: RoomName,
    /// Its id: derived from the sender's client id, or random. Stored once within the dedupe window.
    pub id: MessageId,
    /// The encoded `plaza.event.v1.Event`, at most [`MAX_EVENT_BYTES`].
    pub body: Bytes,
    /// An earlier attempt may be older than the dedupe window: look before storing.
    pub retry: bool,
    /// W3C trace context of a sampled message.
    pub traceparent: Option<String>,
}

/// What became of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Stored, and acknowledged by the store.
    Stored {
        /// Where.
        position: Position,
        /// By an earlier attempt with the same id.
        duplicate: bool,
    },
    /// Surely not stored.
    Rejected {
        /// Why.
        code: Code,
        /// What was wrong and what would be right.
        message: String,
    },
    /// Perhaps stored: [`Code::Timeout`], [`Code::Unavailable`] or [`Code::Expired`].
    Unknown(Code),
}

/// The refusal of an event above [`MAX_EVENT_BYTES`].
pub(crate) fn too_large(bytes: usize) -> Outcome {
    let message = format!("the event has {bytes} bytes; at most {MAX_EVENT_BYTES} are allowed");
    Outcome::Rejected { code: Code::TooLarge, message }
}

/// Which events to read.
#[derive(Clone, Debug)]
pub struct Read {
    /// The room.
    pub room: RoomName,
    /// From where.
    pub from: Start,
    /// The room is known to have come this far: an answer that ends below is read again from the
    /// leader. 0: nothing is known.
    pub at_least_seq: u64,
    /// 1 to [`MAX_READ_EVENTS`].
    pub limit: u32,
    /// 1 to [`MAX_READ_BYTES`] of event bodies; one event is always given.
    pub max_bytes: u32,
}

/// The direction of a [`Read`]. Both give events oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Events with a larger sequence, from the oldest; 0: from the oldest retained.
    After(u64),
    /// The newest events with a smaller sequence; `u64::MAX`: the newest of all.
    Before(u64),
}

/// A stored event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The log's sequence.
    pub seq: u64,
    /// Sequence of the event before it in the room; 0: the first one retained, or unknown.
    pub previous: u64,
    /// Its message id.
    pub id: MessageId,
    /// Milliseconds since 1970-01-01 UTC by the store's clock.
    pub time: u64,
    /// The encoded `plaza.event.v1.Event`.
    pub body: Bytes,
}

impl From<Stored> for fanout::StoredEvent {
    fn from(stored: Stored) -> Self {
        Self {
            seq: stored.seq,
            previous: stored.previous,
            id: stored.id.to_string(),
            time: stored.time,
            event: stored.body,
        }
    }
}

/// The answer to a [`Read`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadAnswer {
    /// The log's identity.
    pub epoch: Epoch,
    /// Ascending by sequence.
    pub events: Vec<Stored>,
    /// The room's end (with [`Start::Before`] its begin) was reached.
    pub complete: bool,
    /// With [`Start::After`]: events after it may be gone.
    pub trimmed: bool,
    /// A sequence that the log has reached, at least as new as the events. Without events, and with
    /// [`Start::Before`] the end, none of the room's stands at or below it.
    pub last_seq: u64,
}

/// The answer to [`EventLog::tails`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailsAnswer {
    /// The log's identity.
    pub epoch: Epoch,
    /// One for each room asked.
    pub tails: Vec<u64>,
    /// The log's last sequence when it was asked.
    pub last_seq: u64,
}

/// The whole log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogInfo {
    /// Its identity.
    pub epoch: Epoch,
    /// The oldest sequence retained; one above the last when it is empty.
    pub first_seq: u64,
    /// The newest sequence ever given.
    pub last_seq: u64,
}

/// Something to distribute and not to store.
#[derive(Clone, Debug)]
pub enum Emit {
    /// An event for a room's members of this moment.
    Volatile {
        /// The room.
        room: RoomName,
        /// The encoded `plaza.event.v1.Event`.
        body: Bytes,
        /// W3C trace context of a sampled message.
        traceparent: Option<String>,
    },
    /// A command.
    Control {
        /// An edge incarnation; `None`: all edges.
        edge: Option<String>,
        /// The encoded `plaza.fanout.v1.Command`.
        command: Bytes,
    },
}

/// A store that does not answer as it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Not connected, no leader, or the stream does not exist (yet).
    #[error("the store cannot be reached now: {0}")]
    Unavailable(&'static str),
    /// No answer in time.
    #[error("the store did not answer within {0} ms")]
    Timeout(u64),
    /// An answer that is not understood.
    #[error("the store's answer is not understood: {0}")]
    Protocol(String),
}

impl LogError {
    /// The code of the one table.
    pub const fn code(&self) -> Code {
        match self {
            Self::Unavailable(_) => Code::Unavailable,
            Self::Timeout(_) => Code::Timeout,
            Self::Protocol(_) => Code::Internal,
        }
    }

    /// The gRPC status.
    pub fn status(&self) -> tonic::Status {
        self.code().status(self)
    }
}
