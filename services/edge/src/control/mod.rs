//! The control runtime: one task, the hub, owns every room, membership and session of this edge. It
//! answers the shards' requests and hands them what the feed brings.
//!
//! | module | job |
//! |---|---|
//! | [`hub`] | the task: its loop, and who is told what |
//! | `conns` | connections as the hub knows them |
//! | `room` | a room: its sequencer, its members by shard and variant, its users |
//! | `requests` | what connections want |
//! | `joins` | memberships that begin, with their replays |
//! | `encode` | events as frames |
//! | `deliver` | what a sequencer asks for; events to shards |
//! | `presence` | who is in which room, told to the session service |
//! | `watch` | beats, echo, tail checks, commands |

use crate::bridge::{Delivery, Inbound, Request};
use crate::engine::{Full, ShardHandle};
use std::sync::Arc;
use tokio::sync::mpsc;

mod conns;
mod deliver;
mod encode;
pub mod hub;
mod joins;
mod presence;
mod requests;
mod room;
mod watch;

/// Requests that may wait for the hub.
const REQUESTS: usize = 8_192;

/// The way from the shards to the hub. A shard that finds it full answers with
/// [`plaza_proto::code::Code::Busy`], but keeps an [`crate::bridge::Op::Close`] and offers it again: nothing
/// else cleans up after a connection.
pub fn channel() -> (mpsc::Sender<Request>, mpsc::Receiver<Request>) {
    mpsc::channel(REQUESTS)
}

/// A shard's inbox as the hub sees it.
pub trait Outlet: Send {
    /// Hands over an event of a room.
    ///
    /// # Errors
    /// [`Full`]: the shard is behind; the hub offers the event again from the room's ring.
    fn try_deliver(&self, delivery: Arc<Delivery>) -> Result<(), Full>;
    /// Sends what must arrive: replies and controls.
    fn send(&self, message: Inbound);
}

impl Outlet for ShardHandle {
    fn try_deliver(&self, delivery: Arc<Delivery>) -> Result<(), Full> {
        Self::try_deliver(self, delivery)
    }

    fn send(&self, message: Inbound) {
        Self::send(self, message);
    }
}
