//! What a sequencer holds: the newest events, and those that came too early.

use bytes::Bytes;
use plaza_proto::fanout::ReadResponse;
use plaza_proto::ids::MessageId;
use plaza_proto::position::Epoch;
use std::collections::{BTreeMap, VecDeque};

/// Events a ring holds at most, and their bytes.
const RING: (usize, usize) = (128, 64 << 10);
/// Events an early buffer holds at most, and their bytes.
const EARLY: (usize, usize) = (1_024, 1 << 20);
/// What an entry costs besides its body, about.
const OVERHEAD: usize = 96;

/// An event as it is stored, not decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The stream's sequence.
    pub seq: u64,
    /// Sequence of the event before it in the room; 0 if there was none.
    pub previous: u64,
    /// Its message id.
    pub id: MessageId,
    /// Milliseconds since 1970-01-01 UTC by the store's clock.
    pub time: u64,
    /// The encoded event.
    pub body: Bytes,
    /// W3C trace context, if the message was sampled.
    pub traceparent: Option<String>,
}

impl Stored {
    fn cost(&self) -> usize {
        OVERHEAD + self.body.len()
    }
}

/// Epoch and events of a read's answer, ascending; `None` when it is malformed.
pub fn parse(answer: &ReadResponse) -> Option<(Epoch, Vec<Stored>)> {
    let epoch = Epoch(answer.epoch.as_slice().try_into().ok()?);
    let events = answer.events.iter().map(|event| {
        // An event that no Plaza wrote has no id of ours; it still has its place.
        let id = MessageId::parse(&event.id).unwrap_or(MessageId([0; 16]));
        let (seq, previous, time) = (event.seq, event.previous, event.time);
        // A part of the answer's buffer, which would be kept as a whole.
        let body = Bytes::copy_from_slice(&event.event);
        Stored { seq, previous, id, time, body, traceparent: None }
    });
    let events: Vec<_> = events.collect();
    events.is_sorted_by(|a, b| a.seq < b.seq).then_some((epoch, events))
}

/// The newest events that were delivered, oldest first, without gap.
#[derive(Debug, Default)]
pub(super) struct Ring {
    events: VecDeque<Stored>,
    bytes: usize,
    /// Every event after this sequence is here.
    base: u64,
}

impl Ring {
    pub(super) fn push(&mut self, event: Stored) {
        self.bytes += event.cost();
        self.events.push_back(event);
        while self.events.len() > RING.0 || (self.bytes > RING.1 && self.events.len() > 1) {
            if let Some(gone) = self.events.pop_front() {
                self.bytes -= gone.cost();
                self.base = self.base.max(gone.seq);
            }
        }
    }

    pub(super) fn since(&self, seq: u64) -> Option<impl Iterator<Item = &Stored>> {
        let from = self.events.partition_point(|event| event.seq <= seq);
        (seq >= self.base).then(|| self.events.range(from..))
    }

    pub(super) fn event_at(&self, seq: u64) -> Option<(MessageId, u64)> {
        let at = self.events.binary_search_by_key(&seq, |event| event.seq).ok()?;
        Some((self.events[at].id, self.events[at].time))
    }

    /// What it takes, places for further events included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.saturating_sub(self.events.len() * OVERHEAD) + self.events.capacity() * size_of::<Stored>()
    }

    /// Forgets all events; those after `base` are to follow.
    pub(super) fn clear(&mut self, base: u64) {
        *self = Self { base, ..Self::default() };
    }
}

/// Events that cannot be delivered yet, and how far the room is known to have come.
#[derive(Debug, Default)]
pub(super) struct Early {
    events: BTreeMap<u64, Stored>,
    bytes: usize,
    /// The room has come so far: by a hint, or by an event that found no place.
    noted: u64,
}

impl Early {
    pub(super) fn insert(&mut self, event: Stored) {
        if self.events.len() >= EARLY.0 || self.bytes + event.cost() > EARLY.1 {
            return self.note(event.seq);
        }
        self.bytes += event.cost();
        if let Some(twin) = self.events.insert(event.seq, event) {
            self.bytes -= twin.cost();
        }
    }

    pub(super) fn note(&mut self, seq: u64) {
        self.noted = self.noted.max(seq);
    }

    pub(super) fn take_noted(&mut self) -> u64 {
        std::mem::take(&mut self.noted)
    }

    /// Takes the first event behind `last`; those up to it are dropped.
    pub(super) fn next_after(&mut self, last: u64) -> Option<Stored> {
        while let Some((seq, event)) = self.events.pop_first() {
            self.bytes -= event.cost();
            if seq > last {
                return Some(event);
            }
        }
        None
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
