//! The engine: one shard a thread, which owns its sockets, timers and room logs.
//!
//! ```text
//! accept --Adopt--> inbox --> slot: descriptor, parser, Connection (a state machine of conn/)
//!                                |  bytes in -> messages -> Connection -> Actions -> private packets out
//! hub ---Deliver--> inbox --> room log: encoded frames --sweep--> one send per member
//! ```

mod board;
mod close;
mod core;
mod inbox;
mod lag;
mod log;
mod options;
mod outbox;
mod poll;
mod polling;
mod read;
mod rooms;
mod session;
mod shard;
mod slot;
mod stats;
mod sweep;
mod wheel;
mod write;
mod written;

use crate::accept::places::Place;
use crate::conn::Connection;
use bytes::Bytes;
use plaza_kit::trace::Span;
use std::sync::Arc;

pub use inbox::ShardHandle;
pub use options::{Settings, SocketOptions};
pub use poll::{Poll, PollAnswer, PollCall};
pub use polling::{Polling, Verdict, read_post};
pub use shard::Shard;
pub use stats::{Buckets, LATENCY_BOUNDS_US, Stats, TracedBuckets};

/// A WebSocket after its handshake, on the way into a shard.
pub struct Adopt {
    /// The socket, non-blocking; the 101 is written.
    pub socket: std::net::TcpStream,
    /// Bytes that the client sent behind its handshake.
    pub leftover: Bytes,
    /// The protocol that runs on it.
    pub connection: Box<dyn Connection>,
    /// Its rules.
    pub options: SocketOptions,
    /// The place of its client, where those are counted; kept until the end.
    pub place: Option<Arc<Place>>,
    /// The span of its handshake, if it is sampled: it ends in the shard.
    pub trace: Option<Span>,
}

impl std::fmt::Debug for Adopt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adopt").field("socket", &self.socket).field("options", &self.options).finish_non_exhaustive()
    }
}
