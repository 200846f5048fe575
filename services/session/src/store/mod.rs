//! Where sessions, names, leases and presence live: the trait, and what goes in and comes out.
//!
//! Two implementations pass the same conformance cases: [`memory::MemoryStore`] for one process, and
//! [`redis::RedisStore`] for many replicas. Every call is atomic and may be repeated: a call without
//! an answer may have been carried out.

pub mod memory;
pub mod redis;

use plaza_proto::code::Code;
use plaza_proto::fanout::Command;
use plaza_proto::ids::RoomName;
use plaza_proto::session::{Member, Session};
use std::time::Duration;

/// Rooms that a session has left and that its record keeps.
pub const MAX_LEFT: usize = 16;
/// Most rooms of one session.
pub const MAX_ROOMS: usize = 100;

/// Most commands that wait for one edge; beyond it new ones are refused as busy.
pub const MAX_COMMANDS: usize = 1_000;

/// Most commands in one heartbeat's answer; the others come with the next.
pub const COMMANDS_PER_HEARTBEAT: usize = 64;

/// Most events in the outbox; beyond it the oldest are cut and counted.
pub const MAX_OUTBOX: usize = 10_000;

/// What a store is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Life of an edge's lease after its last heartbeat.
    pub lease: Duration,
    /// How long the sessions of a reaped edge can be recovered.
    pub recovery_window: Duration,
    /// Age at which a new resume key is made.
    pub key_rotation: Duration,
    /// After a loss of the data, how long living holders of names go before new claims.
    pub name_grace: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            recovery_window: Duration::from_secs(120),
            key_rotation: Duration::from_secs(24 * 3600),
            name_grace: Duration::from_secs(10),
        }
    }
}

/// Whether this is the user of a session without token and guest key.
fn is_own(user_id: &str, session_id: &str) -> bool {
    user_id.strip_prefix("s:") == Some(session_id)
}

/// A username, ready to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// As it is shown.
    pub display: String,
    /// As it is searched.
    pub canonical: String,
    /// What at most one living session may hold; `None` when names need not be unique.
    pub unique: Option<String>,
}

/// An edge that begins a lease. All parts were checked.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The new incarnation.
    pub incarnation: String,
    /// `host:port` of its peer listener.
    pub advertise_addr: String,
    /// The incarnation before it in the same process; empty at the first registration.
    pub replaces: String,
    /// The number that the incarnation before had; 0: none.
    pub edge_number: u32,
    /// Keys that the edge knows: generation and 32 bytes.
    pub resume_keys: Vec<ResumeKey>,
}

/// Signs resume tickets and relays.
#[derive(Clone, PartialEq, Eq)]
pub struct ResumeKey {
    /// 1 at first, one more with each rotation.
    pub generation: u64,
    /// The secret.
    pub key: [u8; 32],
}

impl std::fmt::Debug for ResumeKey {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResumeKey").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// What a registration gives.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Number of the incarnation, not 0.
    pub edge_number: u32,
    /// One or two keys, newest first.
    pub resume_keys: Vec<ResumeKey>,
    /// Identity of the data.
    pub boot: String,
}

/// A session that begins.
#[derive(Clone, Debug)]
pub struct Opening {
    /// 20 characters base64url.
    pub session_id: String,
    /// Its user.
    pub user_id: String,
    /// One of the three protocols.
    pub protocol: String,
    /// Key of the recovery record.
    pub pid: Option<String>,
    /// A name to claim at once; when it is refused, the session is not opened.
    pub name: Option<Name>,
}

/// One operation of an edge. All parts were checked.
#[derive(Clone, Debug)]
pub enum Op {
    /// A new session, or one that is registered again after a lost lease.
    Open(Opening),
    /// Continues a session on this edge.
    Recover {
        /// How it is found.
        by: RecoverBy,
        /// Must be its user; empty: a session whose user is its own.
        user_id: String,
    },
    /// Notes a room and where its replay begins.
    Join {
        /// The session.
        session_id: String,
        /// The room.
        room: RoomName,
        /// Opaque.
        position: String,
    },
    /// Forgets a room.
    Leave {
        /// The session.
        session_id: String,
        /// The room.
        room: RoomName,
    },
    /// Sets the name.
    Rename {
        /// The session.
        session_id: String,
        /// The new name.
        name: Name,
    },
    /// The connection ended.
    Close {
        /// The session.
        by: RecoverBy,
        /// Only this generation; 0: any.
        generation: u64,
        /// Keep the record for this long; 0: forget it.
        recoverable_ms: u32,
    },
    /// The user is in the room on this edge under this name, or (`None`) is not.
    SetPresence {
        /// The room.
        room: RoomName,
        /// The user.
        user_id: String,
        /// The name shown.
        username: Option<String>,
    },
}

/// How a session to recover is found.
#[derive(Clone, Debug)]
pub enum RecoverBy {
    /// By the key of its recovery record.
    Pid(String),
    /// By its id, which a signed ticket vouches for.
    Session(String),
}

/// What became of one operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Done: the session as it is now.
    Session(Session),
    /// Done: the session as it is now, and its rooms with the position of each join; with empty positions
    /// the newest [`MAX_LEFT`] rooms that it has left.
    Recovered(Session, Vec<(String, String)>),
    /// Done.
    Done,
    /// Refused; nothing was changed.
    Refused(Refusal),
}

/// Why something was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code.
    pub code: Code,
    /// What was wrong.
    pub message: String,
}

impl Refusal {
    /// A refusal with its sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// A command for an edge. It is kept until the edge confirms it.
#[derive(Clone, Debug, PartialEq)]
pub struct ForEdge {
    /// The edge's incarnation.
    pub edge: String,
    /// The command.
    pub command: Command,
}

/// What a batch of operations did.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// One for each operation, in order.
    pub outcomes: Vec<Outcome>,
    /// Commands for other edges, which their heartbeats repeat.
    pub commands: Vec<ForEdge>,
}

/// A heartbeat's answer.
#[derive(Clone, Debug)]
pub struct Pulse {
    /// Commands not confirmed yet, oldest first.
    pub commands: Vec<Command>,
    /// Mean connections over the counted edges, rounded down.
    pub mean_connections: u32,
    /// Living edges that have told their connections.
    pub counted_edges: u32,
    /// The counter before this heartbeat.
    pub counter: u64,
    /// Identity of the data.
    pub boot: String,
    /// One or two keys, newest first.
    pub resume_keys: Vec<ResumeKey>,
}

/// Which sessions to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Canonical name; empty: any.
    pub canonical: String,
    /// Edge incarnation; empty: any.
    pub edge: String,
}

/// One page.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// Ascending by id.
    pub items: Vec<T>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<String>,
}

/// What is published for a room: the user's first presence, last presence, or another name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxEntry {
    /// Unique within the boot; ascending.
    pub id: String,
    /// What happened.
    pub kind: PresenceKind,
    /// Where.
    pub room: String,
    /// Who.
    pub user_id: String,
    /// The name shown.
    pub username: String,
    /// Of a rename: the name before.
    pub previous_username: String,
    /// Age in milliseconds, by the store's clock.
    pub age_ms: u64,
}

/// What happened to a user in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresenceKind {
    /// First presence.
    Joined,
    /// Last presence ended.
    Left,
    /// Another name.
    Renamed,
}

/// The oldest events that wait to be published.
#[derive(Clone, Debug, Default)]
pub struct Outbox {
    /// Identity of the data.
    pub boot: String,
    /// Oldest first; empty also when another replica publishes.
    pub entries: Vec<OutboxEntry>,
    /// Events that were cut because too many waited, since the data exists.
    pub cut: u64,
}

/// What one step of the reaper did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Dead edges that are cleared now.
    pub edges: u64,
    /// Sessions that were ended or made recoverable.
    pub sessions: u64,
    /// Presences that ended.
    pub presences: u64,
    /// There is more to do at once.
    pub more: bool,
}

/// What the store holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Sessions, recoverable ones too.
    pub sessions: u64,
    /// Living edges.
    pub leases: u64,
    /// Events that wait to be published.
    pub outbox: u64,
}

/// Why a call failed as a whole.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached, or did not answer in time: the call may have been carried out.
    #[error("the session store cannot be reached: {0}")]
    Unavailable(String),
    /// The incarnation's lease has ended, or never began.
    #[error("the lease of {0} has ended: register again")]
    LeaseLost(String),
    /// Nothing has that id.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// Refused with a reason.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// The store answered with what we cannot read, or its script failed.
    #[error("the session store answered wrongly: {0}")]
    Broken(String),
}

impl StoreError {
    /// The code that callers see.
    pub fn code(&self) -> Code {
        match self {
            Self::Unavailable(_) => Code::Unavailable,
            Self::LeaseLost(_) => Code::LeaseLost,
            Self::NotFound(_) => Code::NotFound,
            Self::Refused(refusal) => refusal.code,
            Self::Broken(_) => Code::Internal,
        }
    }
}

/// The store. All calls are bounded in time and in size, atomic, and safe to repeat.
#[tonic::async_trait]
pub trait SessionStore: std::fmt::Debug + Send + Sync {
    /// Begins a lease. Repeated while it lives it gives the same number; an incarnation whose lease has
    /// ended stays so.
    async fn register(&self, registration: Registration) -> Result<Lease, StoreError>;

    /// Applies operations in order, if the lease lives.
    async fn apply(&self, incarnation: &str, ops: Vec<Op>) -> Result<Applied, StoreError>;

    /// Renews the lease, if it lives, and forgets the confirmed commands. Without `connections` the edge
    /// counts in no mean.
    async fn heartbeat(
        &self,
        incarnation: &str,
        counter: u64,
        connections: Option<u32>,
        done: Vec<String>,
    ) -> Result<Pulse, StoreError>;

    /// The address of a living edge.
    async fn find_edge(&self, edge_number: u32) -> Result<String, StoreError>;

    /// One session.
    async fn get(&self, session_id: &str) -> Result<Session, StoreError>;

    /// Sessions after an id, at most `limit` looked at; a filtered page may hold fewer.
    async fn list(&self, filter: Filter, after: &str, limit: usize) -> Result<Page<Session>, StoreError>;

    /// Users present in a room after a user id, and how many there are in all.
    async fn members(&self, room: &RoomName, after: &str, limit: usize) -> Result<(Page<Member>, u32), StoreError>;

    /// How many users are present in a room.
    async fn count(&self, room: &RoomName) -> Result<u32, StoreError>;

    /// Changes a session's name from outside; its edge, if any, is to be told.
    async fn set_username(&self, session_id: &str, name: Name) -> Result<(Session, Option<ForEdge>), StoreError>;

    /// Ends a session from outside: it can be recovered no more, and its edge is to close it.
    async fn close(&self, session_id: &str, reason: &str) -> Result<Option<ForEdge>, StoreError>;

    /// The oldest events to publish, for one replica at a time: whoever reads them has them for
    /// `hold`, and renews that by reading or confirming.
    async fn outbox(&self, replica: &str, limit: usize, hold: Duration) -> Result<Outbox, StoreError>;

    /// Forgets published events.
    async fn confirm(&self, ids: Vec<String>) -> Result<(), StoreError>;

    /// Clears a bounded part of what dead edges left, and of records whose recovery window is over.
    async fn reap(&self) -> Result<Reaped, StoreError>;

    /// What the store holds now.
    async fn totals(&self) -> Result<Totals, StoreError>;
}
