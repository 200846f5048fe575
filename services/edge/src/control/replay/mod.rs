//! What a member missed in one room, gathered from the room's ring and from the store until it reaches
//! the room's position. Pure: the hub reads and brings the answers.

use super::encode;
use crate::bridge::Variant;
use crate::feed::sequencer::{Millis, ResetReason, Sequencer, Stored};
use crate::wire::Mark;
use bytes::Bytes;
use plaza_kit::chaos::{self, Rule};
use plaza_proto::fanout::ReadResponse;
use plaza_proto::ids::RoomName;
use plaza_proto::position::Position;

#[cfg(test)]
mod tests;

/// Events of one replay at most; more is `trimmed`, as a room keeps no more by default.
const REPLAY: usize = 1_000;
/// A read that failed, or that brought nothing new, is made again after this, in milliseconds.
pub(super) const AGAIN: Millis = 100;
/// Answers in a row that end before what the room has delivered; more, and those events are gone.
const SHORT_ANSWERS: u32 = 20;

/// What is known of the event at the position from which a replay begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Anchor {
    /// Nothing need stand there.
    Any,
    /// It must be the one that was meant. `here`: and be in this room.
    Wanted { here: bool },
    /// It is, stored at this time by the store's clock.
    Found(u64),
    /// Nothing of this room stands there.
    Elsewhere,
}

/// A replay that is being gathered.
#[derive(Debug)]
pub(super) struct Replay {
    after: Position,
    /// Events after `after`, without gap.
    events: Vec<Stored>,
    anchor: Anchor,
    /// Up to here the room has no other events, as the store has told.
    complete_to: u64,
    /// A read after this sequence is on its way.
    reading: Option<u64>,
    /// The room here must come so far first, or the member would get an event that it has seen.
    reach: u64,
    hinted: bool,
    /// No read before this.
    pause: Millis,
    /// Answers in a row that ended before what the room has delivered.
    short: u32,
    reset: Option<ResetReason>,
}

/// What a replay needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: it is complete, or never will be.
    Ready,
    /// Events after this sequence.
    Read(u64),
    /// The room is behind: it exists up to here.
    Hint(u64),
    /// What has been asked for.
    Wait,
}

impl Replay {
    /// What comes after a position of this room.
    pub(super) fn new(after: Position) -> Self {
        Self::with(after, if after.check == 0 { Anchor::Any } else { Anchor::Wanted { here: true } })
    }

    /// What comes after a position, whatever stands there.
    pub(super) fn from(after: Position) -> Self {
        Self::with(after, Anchor::Any)
    }

    /// What comes after an event of this room or of another one.
    pub(super) fn behind(event: Position) -> Self {
        Self::with(event, Anchor::Wanted { here: false })
    }

    fn with(after: Position, anchor: Anchor) -> Self {
        Self {
            after,
            events: Vec::new(),
            anchor,
            complete_to: after.seq,
            reading: None,
            reach: 0,
            hinted: false,
            pause: 0,
            short: 0,
            reset: None,
        }
    }

    /// Why it cannot be complete.
    pub(super) fn reset(&self) -> Option<ResetReason> {
        self.reset
    }

    /// When the event from which it begins was stored, if it was seen in this room.
    pub(super) fn found(&self) -> Option<u64> {
        match self.anchor {
            Anchor::Found(time) => Some(time),
            Anchor::Any | Anchor::Wanted { .. } | Anchor::Elsewhere => None,
        }
    }

    /// An event is known to be needed at which to begin.
    pub(super) fn has_anchor(&self) -> bool {
        self.anchor != Anchor::Any
    }

    /// How many events it has.
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// A read after `seq` is on its way.
    pub(super) fn awaits(&self, seq: u64) -> bool {
        self.reading == Some(seq)
    }

    fn end(&self) -> u64 {
        self.events.last().map_or(self.complete_to, |event| event.seq.max(self.complete_to))
    }

    fn read(&mut self, seq: u64, now: Millis) -> Step {
        if self.reading.is_some() || self.pause > now {
            return Step::Wait;
        }
        self.reading = Some(seq);
        Step::Read(seq)
    }

    /// Goes as far as the ring allows.
    pub(super) fn advance(&mut self, sequencer: &Sequencer, now: Millis) -> Step {
        let position = sequencer.position();
        if self.reset.is_none() && self.after.epoch != position.epoch && !chaos::breaks(Rule::Epoch) {
            self.reset = Some(ResetReason::Epoch);
        }
        if self.reset.is_some() {
            return Step::Ready;
        }
        if let Anchor::Wanted { here } = self.anchor {
            let before = self.after.seq.saturating_sub(1);
            match sequencer.event_at(self.after.seq) {
                Some((id, time)) if id.check() == self.after.check => self.anchor = Anchor::Found(time),
                Some(_) => self.reset = Some(ResetReason::RolledBack),
                None if position.seq >= self.after.seq && sequencer.since(before).is_some() => self.absent(here),
                // Where the room here is behind, what it has not got yet is read, too.
                None => return self.read(before.min(position.seq), now),
            }
            if self.reset.is_some() {
                return Step::Ready;
            }
        }
        if position.seq < self.reach {
            return if std::mem::replace(&mut self.hinted, true) { Step::Wait } else { Step::Hint(self.reach) };
        }
        if self.end() < position.seq {
            let Some(rest) = sequencer.since(self.end()) else { return self.read(self.end(), now) };
            self.events.extend(rest.cloned());
        }
        // A read may be ahead of the room here: those events come as deliveries.
        self.events.retain(|event| event.seq <= position.seq);
        self.bound();
        Step::Ready
    }

    /// Takes what a read has brought. `true`: it brought nothing new, and is made again after [`AGAIN`].
    pub(super) fn take(&mut self, answer: &ReadResponse, sequencer: &Sequencer, now: Millis) -> bool {
        self.reading = None;
        self.add(answer, sequencer.position());
        // A replica that is behind; when it stays so, the events are gone. An answer that is older than
        // the newest deliveries is none of these: those are in the ring.
        let is_short = self.reset.is_none()
            && answer.complete
            && self.end() < sequencer.position().seq
            && sequencer.since(self.end()).is_none();
        self.short = if is_short { self.short + 1 } else { 0 };
        if self.short > SHORT_ANSWERS {
            self.reset = Some(ResetReason::Unavailable);
        }
        if is_short {
            self.pause = now + AGAIN;
        }
        is_short
    }

    /// A read has failed. Nothing is known to be lost: it is made again after [`AGAIN`].
    pub(super) fn unread(&mut self, now: Millis) {
        self.reading = None;
        self.pause = now + AGAIN;
    }

    fn add(&mut self, answer: &ReadResponse, position: Position) {
        let Some((epoch, mut events)) = crate::feed::sequencer::parse(answer) else {
            self.reset = Some(ResetReason::Unavailable);
            return;
        };
        if epoch != self.after.epoch && !chaos::breaks(Rule::Epoch) {
            self.reset = Some(ResetReason::Epoch);
            return;
        }
        if let Anchor::Wanted { here } = self.anchor {
            let split = events.partition_point(|event| event.seq < self.after.seq);
            if let Some(before) = split.checked_sub(1).and_then(|last| events.get(last)) {
                (self.reach, self.hinted) = (before.seq, false);
            }
            match events.get(split) {
                Some(event) if event.seq == self.after.seq && event.id.check() == self.after.check => {
                    self.anchor = Anchor::Found(event.time);
                    (self.reach, self.hinted) = (event.seq, false);
                }
                Some(event) if event.seq == self.after.seq => self.reset = Some(ResetReason::RolledBack),
                // The page ends before it: the room comes so far, then the rest is read.
                None if !answer.complete => return,
                None if answer.last_seq < self.after.seq => self.reset = Some(ResetReason::RolledBack),
                _ if answer.trimmed => self.reset = Some(ResetReason::Trimmed),
                _ => self.absent(here),
            }
            events.drain(..split + usize::from(self.found().is_some()));
        } else if answer.trimmed {
            self.reset = Some(ResetReason::Trimmed);
        }
        if self.reset.is_some() {
            return;
        }
        // The ring may have told some of it while the read was on its way.
        let end = self.end();
        self.events.extend(events.into_iter().filter(|event| event.seq > end));
        if answer.complete && self.end() < position.seq && position.check == 0 {
            // No event of the room stands there: it is the log's tail from when the room was empty.
            self.complete_to = position.seq;
        }
        self.bound();
    }

    fn absent(&mut self, here: bool) {
        self.anchor = Anchor::Elsewhere;
        if here {
            self.reset = Some(ResetReason::Trimmed);
        }
    }

    fn bound(&mut self) {
        if self.events.len() > REPLAY {
            self.reset = Some(ResetReason::Trimmed);
        }
    }

    /// The events as frames, with their sequences.
    pub(super) fn frames(&self, room: &RoomName, variant: Variant, mark: impl Fn(u64) -> Mark) -> Vec<(u64, Bytes)> {
        let skipped = usize::from(chaos::breaks(Rule::ResumeExactly));
        encode::replay(room, self.after, self.events.iter().skip(skipped), variant, mark)
    }
}
