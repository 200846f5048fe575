//! The feed inside `plaza`: a channel from the log in the same process, filtered by the rooms that
//! have members here.

use super::{EventFeed, FeedItem};
use foldhash::{HashSet, HashSetExt};
use futures_util::future::BoxFuture;
use plaza_proto::feed::FeedMessage;
use plaza_proto::ids::RoomName;
use std::collections::VecDeque;
use tokio::sync::mpsc;

/// A feed over a channel.
#[derive(Debug)]
pub struct MemoryFeed {
    source: mpsc::Receiver<FeedMessage>,
    rooms: HashSet<RoomName>,
    /// Barriers and renewals asked for and not yet answered.
    pending: VecDeque<FeedItem>,
    batch: Vec<FeedMessage>,
}

impl MemoryFeed {
    /// A feed of what arrives on `source`.
    pub fn new(source: mpsc::Receiver<FeedMessage>) -> Self {
        Self { source, rooms: HashSet::new(), pending: VecDeque::new(), batch: Vec::new() }
    }
}

/// The room of what only its members get.
fn room_of(message: &FeedMessage) -> Option<&RoomName> {
    match message {
        FeedMessage::Event { room, .. } | FeedMessage::Hint { room, .. } | FeedMessage::Volatile { room, .. } => {
            Some(room)
        }
        FeedMessage::Resync(room) => room.as_ref(),
        FeedMessage::Beat { .. } | FeedMessage::Command(_) => None,
    }
}

impl EventFeed for MemoryFeed {
    fn subscribe(&mut self, room: &RoomName) {
        self.rooms.insert(room.clone());
    }

    fn unsubscribe(&mut self, room: &RoomName) {
        self.rooms.remove(room);
    }

    fn barrier(&mut self, token: u64) {
        self.pending.push_back(FeedItem::Barrier(token));
    }

    fn listen(&mut self, _incarnation: &str) {
        // One process, one edge: every command in the channel is for it.
    }

    fn renew(&mut self) {
        self.pending.push_back(FeedItem::Renewed);
    }

    fn recv<'a>(&'a mut self, items: &'a mut Vec<FeedItem>, limit: usize) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let before = items.len();
            items.extend(self.pending.drain(..));
            while items.len() == before {
                if self.source.recv_many(&mut self.batch, limit).await == 0 {
                    return;
                }
                let heard = |message: &FeedMessage| room_of(message).is_none_or(|room| self.rooms.contains(room));
                items.extend(self.batch.drain(..).filter(heard).map(FeedItem::Message));
            }
        })
    }
}
