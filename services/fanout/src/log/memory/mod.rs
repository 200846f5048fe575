//! The room log inside one process: for development, and for tests that need no server. It keeps the
//! order, the dedupe window, the retention and the feed's losses of the real one.

mod dedupe;
mod feed;
mod store;

#[cfg(test)]
mod tests;

pub use feed::Faults;

use super::{
    Answer, Emit, EventLog, LogError, LogInfo, MAX_EVENT_BYTES, Outcome, Publish, Read, ReadAnswer, TailsAnswer,
};
use dedupe::Dedupe;
use feed::Feed;
use futures_util::future::{BoxFuture, ready};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use plaza_proto::code::Code;
use plaza_proto::feed::FeedMessage;
#[cfg(test)]
use plaza_proto::ids::MessageId;
use plaza_proto::ids::RoomName;
use plaza_proto::position::{Epoch, Position};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use store::Store;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::WatchStream;

/// The bounds of a [`MemoryLog`].
#[derive(Clone, Debug)]
pub struct MemoryOptions {
    /// The newest events kept of each room.
    pub history_per_room: usize,
    /// How long an event is kept.
    pub history_age: Duration,
    /// Event bytes of all rooms together; beyond, the oldest events go.
    pub max_bytes: usize,
    /// How long a message id is remembered.
    pub dedupe_window: Duration,
    /// So many of the newest message ids are remembered within the window, and never more than twice as many:
    /// about 50 bytes each.
    pub dedupe_ids: usize,
    /// Messages that the feed holds for a slow edge; beyond, they are dropped and a resync follows.
    pub feed_capacity: usize,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self {
            history_per_room: 1_000,
            history_age: Duration::from_secs(7 * 24 * 3600),
            max_bytes: 256 * 1024 * 1024,
            dedupe_window: Duration::from_secs(120),
            dedupe_ids: 65_536,
            feed_capacity: 16_384,
        }
    }
}

/// A log in memory, with one feed.
#[derive(Debug)]
pub struct MemoryLog {
    epoch: Epoch,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    store: Store,
    dedupe: Dedupe,
    feed: Feed,
    /// Who waits for a room ([`EventLog::wakes`]); entries without a waiter go with the next event or waiter.
    wakes: HashMap<RoomName, watch::Sender<u64>>,
    last_seq: u64,
    last_beat: u64,
}

impl MemoryLog {
    /// An empty log under a new epoch, and the feed for the edge in the same process.
    pub fn new(options: &MemoryOptions) -> (Arc<Self>, mpsc::Receiver<FeedMessage>) {
        let (feed, messages) = Feed::new(options.feed_capacity);
        let state = State {
            store: Store::new(options.history_per_room, options.history_age, options.max_bytes),
            dedupe: Dedupe::new(options.dedupe_window, options.dedupe_ids),
            feed,
            wakes: HashMap::new(),
            last_seq: 0,
            last_beat: 0,
        };
        (Arc::new(Self { epoch: Epoch(rand::random()), state: Mutex::new(state) }), messages)
    }

    /// Makes the feed lose, repeat and reorder what follows, as a network may. The log itself stays whole.
    pub fn set_faults(&self, faults: Faults) {
        self.state().feed.set_faults(faults);
    }

    /// Sends a beat: proof that the feed lives. It takes a sequence, as it does in a stream, and is not kept.
    pub fn beat(&self) {
        let mut state = self.state();
        let previous = state.last_beat;
        state.last_seq += 1;
        state.last_beat = state.last_seq;
        let beat = FeedMessage::Beat { seq: state.last_seq, previous, epoch: self.epoch, election_time: 0 };
        state.feed.send(beat);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code under the lock can leave it half done: a panic elsewhere must not end the log.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish_now(&self, publish: Publish) -> Outcome {
        if publish.body.len() > MAX_EVENT_BYTES {
            return super::too_large(publish.body.len());
        }
        let time = now();
        let mut state = self.state();
        let earlier = state
            .dedupe
            .get(publish.id, time)
            .or_else(|| publish.retry.then(|| state.store.find(&publish.room, publish.id)).flatten());
        if let Some(seq) = earlier {
            state.feed.send(FeedMessage::Hint { room: publish.room, seq });
            return Outcome::Stored { position: Position::of(self.epoch, seq, publish.id), duplicate: true };
        }
        if publish.retry && !state.store.reaches_back(&publish.room, time, super::RETRY_HORIZON) {
            return Outcome::Unknown(Code::Expired);
        }
        let id = publish.id;
        let seq = state.append(publish, time);
        Outcome::Stored { position: Position::of(self.epoch, seq, id), duplicate: false }
    }
}

impl State {
    fn append(&mut self, publish: Publish, time: u64) -> u64 {
        let Publish { room, id, body, traceparent, .. } = publish;
        self.last_seq += 1;
        let seq = self.last_seq;
        let previous = self.store.append(&room, seq, id, time, body.clone());
        self.dedupe.insert(id, seq, time);
        self.wake(&room, seq);
        self.feed.send(FeedMessage::Event { room, seq, previous, id, time, body, traceparent });
        seq
    }

    fn wake(&mut self, room: &RoomName, seq: u64) {
        if self.wakes.get(room).is_some_and(|waiting| waiting.send(seq).is_err()) {
            self.wakes.remove(room);
        }
    }
}

impl EventLog for MemoryLog {
    fn publish(&self, publish: Publish) -> Answer<Outcome> {
        Answer::Now(self.publish_now(publish))
    }

    fn read(&self, read: Read) -> BoxFuture<'_, Result<ReadAnswer, LogError>> {
        let mut state = self.state();
        state.store.expire(now());
        let (events, complete, trimmed) = state.store.read(&read);
        let answer = ReadAnswer { epoch: self.epoch, events, complete, trimmed, last_seq: state.last_seq };
        ready(Ok(answer)).boxed()
    }

    fn tails<'a>(&'a self, rooms: &'a [RoomName]) -> BoxFuture<'a, Result<TailsAnswer, LogError>> {
        let mut state = self.state();
        state.store.expire(now());
        let tails = rooms.iter().map(|room| state.store.tail(room)).collect();
        ready(Ok(TailsAnswer { epoch: self.epoch, tails, last_seq: state.last_seq })).boxed()
    }

    fn info(&self) -> BoxFuture<'_, Result<LogInfo, LogError>> {
        let state = self.state();
        let first_seq = state.store.first_seq().unwrap_or(state.last_seq + 1);
        ready(Ok(LogInfo { epoch: self.epoch, first_seq, last_seq: state.last_seq })).boxed()
    }

    fn emit(&self, emit: Emit) -> Answer<Result<(), LogError>> {
        let message = match emit {
            Emit::Volatile { room, body, .. } => FeedMessage::Volatile { room, body },
            // There is one edge in this process; it knows its own incarnation from a command's content.
            Emit::Control { command, .. } => FeedMessage::Command(command),
        };
        self.state().feed.send(message);
        Answer::Now(Ok(()))
    }

    fn wakes(&self, room: &RoomName) -> BoxFuture<'_, Result<BoxStream<'static, ()>, LogError>> {
        let mut state = self.state();
        state.wakes.retain(|_, waiting| waiting.receiver_count() > 0);
        let waiting = state.wakes.entry(room.clone()).or_insert_with(|| watch::channel(0).0).subscribe();
        ready(Ok(WatchStream::from_changes(waiting).map(|_| ()).boxed())).boxed()
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
