//! The publish link: events go up in batches over any healthy stream, results come back by tag.
//!
//! ```text
//! submit --> lane (one unresolved event per connection and room) --> flight --> batch --> stream
//!                                                                      ^--- stream broken, unknown: again,
//!                                                                           same client id, for 15 s
//! ```
//! [`Link`] is free of I/O and of clocks; [`stream`] is its hands.

pub mod stream;
#[cfg(test)]
mod tests;

use crate::bridge::{ConnKey, RoomId};
use crate::feed::sequencer::Millis;
use plaza_kit::chaos::{self, Rule, Step};
use plaza_proto::batch::{Batch, ItemResult, Outcome, Stored};
use plaza_proto::code::Code;
use plaza_proto::fanout::{Place, PublishItem};
use plaza_proto::position::Position;
use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Unresolved events of this edge on their way; the same number may wait.
const IN_FLIGHT: usize = 256;
/// Events of one connection and room that may wait: more than the burst that the rate limit lets in, so
/// that whoever keeps to the rate is never told `busy` for it.
const WAITING_EACH: usize = 32;
/// Events in a batch at most, and their bytes.
const BATCH: (usize, usize) = (64, 48 << 10);
/// After this time the sender is told `timeout`.
const BUDGET: Millis = 15_000;
/// Wait before an event with an unknown outcome is sent again.
const AGAIN: Millis = 75;

/// Events on their way; each stays here, too, until it is resolved.
pub type Shared = Batch<Arc<PublishItem>>;

/// What a stream's task tells the hub.
#[derive(Debug)]
pub enum LinkEvent {
    /// A stream is open and takes batches.
    Up {
        /// Names the stream; never used again.
        stream: u64,
        /// Its batches.
        batches: mpsc::Sender<Shared>,
    },
    /// The stream broke: what it has not answered is unresolved.
    Down {
        /// The stream.
        stream: u64,
    },
    /// Results.
    Results(Vec<ItemResult>),
}

/// Who waits for a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A connection's publish.
    Conn {
        /// The connection.
        to: ConnKey,
        /// Its request; 0: nobody waits.
        id: u32,
        /// The room, which with the connection names the lane.
        room: RoomId,
    },
    /// Nobody: typing, echo.
    Nobody,
}

/// A resolved publish.
#[derive(Debug)]
pub struct Resolved {
    /// Who waited.
    pub origin: Origin,
    /// Where the event is stored, `None` for one that is passed on; or why it is not.
    pub result: Result<Option<Stored>, (Code, String)>,
    /// How often it was sent.
    pub sends: u32,
    /// When it was submitted.
    pub since: Millis,
}

#[derive(Debug)]
struct Flight {
    item: Arc<PublishItem>,
    origin: Origin,
    since: Millis,
    /// On this stream; `None`: to be sent.
    stream: Option<u64>,
    sends: u32,
}

#[derive(Debug)]
struct Stream {
    id: u64,
    batches: mpsc::Sender<Shared>,
    batch: Vec<Arc<PublishItem>>,
    bytes: usize,
}

/// Events of one connection and room behind the one on its way: request and time of each.
type Lane = VecDeque<(PublishItem, u32, Millis)>;

/// The edge's unresolved events and the streams that carry them.
#[derive(Debug, Default)]
pub struct Link {
    streams: Vec<Stream>,
    /// By the low half of the tag; the high half counts the uses of the place.
    flights: Vec<(u32, Option<Flight>)>,
    free: Vec<u32>,
    flying: usize,
    /// Unresolved events that are on no stream now, and when to send them.
    unsent: VecDeque<(Millis, u64)>,
    /// A lane exists while its head is unresolved; here are those behind it.
    lanes: foldhash::HashMap<(ConnKey, RoomId), Lane>,
    /// Heads that wait for a place among those in flight.
    ready: VecDeque<(PublishItem, Origin, Millis)>,
    waiting: usize,
    next_stream: usize,
    /// The newest event that this edge knows of.
    known: Option<Place>,
}

impl Link {
    /// Takes an event of a connection. Its `tag` is set here.
    ///
    /// # Errors
    /// [`Code::Busy`]: 32 of this connection and room, or 256 of the edge, wait already.
    pub fn submit(&mut self, item: PublishItem, to: ConnKey, id: u32, room: RoomId, now: Millis) -> Result<(), Code> {
        if chaos::breaks(Rule::Lanes) {
            self.fly(item, Origin::Conn { to, id, room }, now);
            return Ok(());
        }
        match self.lanes.entry((to, room)) {
            Entry::Occupied(mut lane) => {
                if lane.get().len() >= WAITING_EACH || self.waiting >= IN_FLIGHT {
                    return Err(Code::Busy);
                }
                lane.get_mut().push_back((item, id, now));
                self.waiting += 1;
                return Ok(());
            }
            Entry::Vacant(_) if self.flying >= IN_FLIGHT && self.waiting >= IN_FLIGHT => return Err(Code::Busy),
            Entry::Vacant(lane) => drop(lane.insert(VecDeque::new())),
        }
        self.head(item, Origin::Conn { to, id, room }, now);
        Ok(())
    }

    /// Sends an event that nobody waits for, if there is a stream and room; else it is dropped.
    pub fn offer(&mut self, item: PublishItem, now: Millis) {
        if !self.streams.is_empty() && self.flying < 2 * IN_FLIGHT {
            self.fly(item, Origin::Nobody, now);
        }
    }

    /// The newest event that this edge knows of. It goes along with each batch: what is stored behind it can
    /// only stand behind it, or the log is not what it was.
    pub fn know(&mut self, position: Position) {
        let Position { epoch, seq, check } = position;
        self.known = Some(Place { epoch: u64::from_be_bytes(epoch.0), seq, check });
    }

    /// Events that are not resolved yet, waiting ones included.
    pub fn unresolved(&self) -> usize {
        self.flying + self.waiting
    }

    /// A stream is open.
    pub fn up(&mut self, id: u64, batches: mpsc::Sender<Shared>, now: Millis) {
        self.streams.push(Stream { id, batches, batch: Vec::new(), bytes: 0 });
        self.send_due(now);
    }

    /// A stream broke: what it carried goes to another one.
    pub fn down(&mut self, id: u64, now: Millis) {
        self.streams.retain(|stream| stream.id != id);
        let mut lost = Vec::new();
        for (index, (uses, flight)) in self.flights.iter_mut().enumerate() {
            if let Some(flight) = flight.as_mut().filter(|f| f.stream == Some(id)) {
                flight.stream = None;
                lost.push((flight.since, tag(index as u32, *uses)));
            }
        }
        // In the order in which they were submitted, at once.
        lost.sort_unstable();
        self.unsent.extend(lost.into_iter().map(|(_, tag)| (now, tag)));
        self.send_due(now);
    }

    /// Results arrived. What is resolved is appended to `done`.
    pub fn results(&mut self, results: Vec<ItemResult>, now: Millis, done: &mut Vec<Resolved>) {
        for result in results {
            let outcome = match result.outcome {
                Outcome::Stored(stored) => Ok(Some(stored)),
                Outcome::PassedOn => Ok(None),
                Outcome::Rejected { code, message } => Err((code, message)),
                Outcome::Unknown(Code::Expired) => Err((Code::Expired, Code::Expired.english().to_owned())),
                Outcome::Unknown(_) => {
                    if let Some(flight) = self.flight(result.tag) {
                        flight.stream = None;
                        self.unsent.push_back((now + AGAIN, result.tag));
                    }
                    continue;
                }
            };
            self.resolve(result.tag, outcome, now, done);
        }
    }

    /// Time has passed: sends again what is due, gives up what took too long.
    pub fn tick(&mut self, now: Millis, done: &mut Vec<Resolved>) {
        let overdue: Vec<u64> = (self.flights.iter().enumerate())
            .filter(|(_, (_, f))| f.as_ref().is_some_and(|f| now >= f.since + BUDGET))
            .map(|(index, (uses, _))| tag(index as u32, *uses))
            .collect();
        for tag in overdue {
            self.resolve(tag, Err((Code::Timeout, Code::Timeout.english().to_owned())), now, done);
        }
        self.send_due(now);
    }

    /// Hands what was gathered to the streams. Called once after each round of the hub: a batch is what
    /// came in one round, so an idle link sends at once and a busy one in full batches.
    pub fn flush(&mut self, now: Millis) {
        for index in 0..self.streams.len() {
            self.flush_stream(index, now);
        }
    }

    fn head(&mut self, item: PublishItem, origin: Origin, now: Millis) {
        if self.flying < IN_FLIGHT {
            self.fly(item, origin, now);
        } else {
            self.waiting += 1;
            self.ready.push_back((item, origin, now));
        }
    }

    fn fly(&mut self, mut item: PublishItem, origin: Origin, since: Millis) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.flights.push((0, None));
            self.flights.len() as u32 - 1
        });
        let place = &mut self.flights[index as usize];
        place.0 = place.0.wrapping_add(1);
        let tag = tag(index, place.0);
        item.tag = tag;
        place.1 = Some(Flight { item: Arc::new(item), origin, since, stream: None, sends: 0 });
        self.flying += 1;
        if self.unsent.is_empty() {
            self.put(tag, since);
        } else {
            self.unsent.push_back((since, tag));
        }
    }

    fn flight(&mut self, tag: u64) -> Option<&mut Flight> {
        let (uses, flight) = self.flights.get_mut(tag as u32 as usize)?;
        if *uses == (tag >> 32) as u32 { flight.as_mut() } else { None }
    }

    /// Puts an event into the batch of the next healthy stream.
    fn put(&mut self, tag: u64, now: Millis) {
        if self.streams.is_empty() {
            return self.unsent.push_back((now, tag));
        }
        // Few streams serve one edge well; changing between them by event would only make small batches.
        let index = self.next_stream % self.streams.len();
        let id = self.streams[index].id;
        let Some(flight) = self.flight(tag) else { return };
        flight.stream = Some(id);
        flight.sends += 1;
        let item = Arc::clone(&flight.item);
        let size = prost::Message::encoded_len(&*item);
        if self.streams[index].bytes + size > BATCH.1 {
            self.flush_stream(index, now);
        }
        let stream = &mut self.streams[index];
        stream.bytes += size;
        if stream.batch.is_empty() {
            stream.batch.reserve(BATCH.0);
        }
        stream.batch.push(item);
        if stream.batch.len() >= BATCH.0 {
            self.flush_stream(index, now);
        }
    }

    fn flush_stream(&mut self, index: usize, now: Millis) {
        let stream = &mut self.streams[index];
        if stream.batch.is_empty() {
            return;
        }
        let items = std::mem::take(&mut stream.batch);
        stream.bytes = 0;
        if let Err(refused) = stream.batches.try_send(Batch { items, known: self.known }) {
            let (mpsc::error::TrySendError::Full(batch) | mpsc::error::TrySendError::Closed(batch)) = refused;
            // A stream that takes no more is slow or gone: another one next, and these a little later.
            self.next_stream = self.next_stream.wrapping_add(1);
            for item in batch.items {
                if let Some(flight) = self.flight(item.tag) {
                    flight.stream = None;
                    self.unsent.push_back((now + AGAIN, item.tag));
                }
            }
        }
        chaos::step(Step::Published);
    }

    fn send_due(&mut self, now: Millis) {
        for _ in 0..self.unsent.len() {
            let Some((due, tag)) = self.unsent.pop_front() else { return };
            if self.flight(tag).is_none() {
                continue;
            }
            if due <= now && !self.streams.is_empty() {
                self.put(tag, now);
            } else {
                self.unsent.push_back((due, tag));
            }
        }
    }

    fn resolve(
        &mut self,
        tag: u64,
        result: Result<Option<Stored>, (Code, String)>,
        now: Millis,
        done: &mut Vec<Resolved>,
    ) {
        if self.flight(tag).is_none() {
            return;
        }
        let index = tag as u32;
        let Some(flight) = self.flights[index as usize].1.take() else { return };
        self.free.push(index);
        self.flying -= 1;
        done.push(Resolved { origin: flight.origin, result, sends: flight.sends, since: flight.since });
        if let Origin::Conn { to, room, .. } = flight.origin {
            self.advance(to, room);
        }
        while self.flying < IN_FLIGHT
            && let Some((item, origin, since)) = self.ready.pop_front()
        {
            self.waiting -= 1;
            if now >= since + BUDGET {
                let result = Err((Code::Timeout, Code::Timeout.english().to_owned()));
                done.push(Resolved { origin, result, sends: 0, since });
                if let Origin::Conn { to, room, .. } = origin {
                    self.advance(to, room);
                }
            } else {
                self.fly(item, origin, since);
            }
        }
    }

    /// The head of a lane is resolved: the next one follows, or the lane ends.
    fn advance(&mut self, to: ConnKey, room: RoomId) {
        let Entry::Occupied(mut lane) = self.lanes.entry((to, room)) else { return };
        match lane.get_mut().pop_front() {
            Some((item, id, since)) => {
                self.waiting -= 1;
                self.head(item, Origin::Conn { to, id, room }, since);
            }
            None => drop(lane.remove()),
        }
    }
}

fn tag(index: u32, uses: u32) -> u64 {
    u64::from(uses) << 32 | u64::from(index)
}
