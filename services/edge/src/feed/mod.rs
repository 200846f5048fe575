//! The way down: what the store distributes, as this edge hears it, and how a room makes an exact
//! sequence of it.
//!
//! | module | job |
//! |---|---|
//! | [`sequencer`] | one room: each event once, in order, without gap, or a reset that says so. Pure |
//! | [`nats`] | the feed over NATS: one subscription per room |
//! | `order` | rooms that are heard apart, in the stream's one order again |
//! | [`memory`] | the feed inside `plaza`: a channel, filtered by the subscribed rooms |

use futures_util::future::BoxFuture;
use plaza_kit::trace::Server;
use plaza_proto::feed::FeedMessage;
use plaza_proto::ids::RoomName;
use tokio::sync::mpsc;

pub mod memory;
pub mod nats;
mod order;
pub mod sequencer;

/// Where the feed comes from.
#[derive(Debug)]
pub enum FeedSource {
    /// NATS servers.
    Nats(crate::config::NatsOptions),
    /// A channel from the log in the same process.
    Memory(mpsc::Receiver<FeedMessage>),
}

/// What a feed says.
#[derive(Debug)]
pub enum FeedItem {
    /// Something distributed.
    Message(FeedMessage),
    /// Every subscription made before the barrier of this token is in force.
    Barrier(u64),
    /// The connection is a new one, perhaps to a server with another past; what follows came on it. What came
    /// between the two connections is lost.
    Renewed,
}

/// Hears what the store distributes. The calls return at once; what they ask for happens in order while
/// [`Self::recv`] is awaited.
pub trait EventFeed: Send {
    /// Hears a room from now on; twice is once.
    fn subscribe(&mut self, room: &RoomName);
    /// Hears it no longer.
    fn unsubscribe(&mut self, room: &RoomName);
    /// Asks for [`FeedItem::Barrier`] once every subscription made before is in force. A barrier may be
    /// lost with its connection: ask again after a second.
    fn barrier(&mut self, token: u64);
    /// Hears the commands for this incarnation of the edge, and no longer those of the one before.
    fn listen(&mut self, incarnation: &str);
    /// The store that it comes from, for spans; `None`: it is not reached by an address.
    fn server(&self) -> Option<&Server> {
        None
    }
    /// Gives the connection up for a new one. [`FeedItem::Renewed`] follows.
    fn renew(&mut self);
    /// Waits for news and appends at most `limit` of it. Appends nothing only when the feed has ended.
    /// Cancel safe: what was not appended comes with the next call.
    fn recv<'a>(&'a mut self, items: &'a mut Vec<FeedItem>, limit: usize) -> BoxFuture<'a, ()>;
}
