//! The way from the memory log to the edge in the same process, with the faults of a real one.

use plaza_proto::feed::FeedMessage;
use plaza_proto::ids::RoomName;
use std::collections::HashSet;
use tokio::sync::mpsc;

/// Rooms whose losses are remembered singly; beyond, every room is told to look.
const MAX_LOST_ROOMS: usize = 1_024;

/// What the feed does wrong, each to one in `n` messages; 0 is never. Commands and resyncs pass unharmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Loses it without a word.
    pub drop_one_in: u32,
    /// Sends it twice.
    pub repeat_one_in: u32,
    /// Sends it after the message that follows.
    pub reorder_one_in: u32,
}

#[derive(Debug)]
pub(super) struct Feed {
    messages: mpsc::Sender<FeedMessage>,
    faults: Faults,
    /// Held back by a reorder, until the next message has gone out.
    held: Option<FeedMessage>,
    lost: Lost,
}

/// What a full channel has swallowed.
#[derive(Debug, Default)]
struct Lost {
    rooms: HashSet<RoomName>,
    everything: bool,
}

impl Feed {
    pub(super) fn new(capacity: usize) -> (Self, mpsc::Receiver<FeedMessage>) {
        let (messages, receiver) = mpsc::channel(capacity.max(1));
        (Self { messages, faults: Faults::default(), held: None, lost: Lost::default() }, receiver)
    }

    pub(super) fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
        if let Some(held) = self.held.take() {
            self.push(held);
        }
    }

    /// Hands a message on; never waits.
    pub(super) fn send(&mut self, message: FeedMessage) {
        if self.faults == Faults::default() || matches!(message, FeedMessage::Command(_) | FeedMessage::Resync(_)) {
            return self.push(message);
        }
        if one_in(self.faults.drop_one_in) {
            return;
        }
        if self.held.is_none() && one_in(self.faults.reorder_one_in) {
            self.held = Some(message);
            return;
        }
        if one_in(self.faults.repeat_one_in) {
            self.push(message.clone());
        }
        self.push(message);
        if let Some(held) = self.held.take() {
            self.push(held);
        }
    }

    fn push(&mut self, message: FeedMessage) {
        self.tell_losses();
        if let Err(mpsc::error::TrySendError::Full(message)) = self.messages.try_send(message) {
            self.lost.note(&message);
        }
    }

    /// The resync comes before the first message that finds room again.
    fn tell_losses(&mut self) {
        while let Some(mark) = self.lost.mark() {
            if self.messages.try_send(FeedMessage::Resync(mark.clone())).is_err() {
                return;
            }
            match mark {
                Some(room) => self.lost.rooms.remove(&room),
                None => std::mem::take(&mut self.lost).everything,
            };
        }
    }
}

impl Lost {
    fn note(&mut self, message: &FeedMessage) {
        match message {
            FeedMessage::Event { room, .. } | FeedMessage::Hint { room, .. } if !self.everything => {
                self.rooms.insert(room.clone());
                self.everything = self.rooms.len() > MAX_LOST_ROOMS;
            }
            FeedMessage::Event { .. } | FeedMessage::Hint { .. } | FeedMessage::Volatile { .. } => {}
            FeedMessage::Beat { .. } | FeedMessage::Command(_) | FeedMessage::Resync(_) => self.everything = true,
        }
    }

    /// What to tell next: everything, or one room.
    fn mark(&self) -> Option<Option<RoomName>> {
        if self.everything { Some(None) } else { self.rooms.iter().next().cloned().map(Some) }
    }
}

fn one_in(n: u32) -> bool {
    n > 0 && fastrand::u32(0..n) == 0
}
