//! One room's order: events in as they come, actions out. No I/O and no clock; the owner carries the
//! actions out and brings the results.
//!
//! ```text
//! start --> Joining --barrier--> (Read newest) --> Live <------------------------------+
//!                                                   | P > L, hint or tail beyond L     |
//!                                                   +--> Repairing --(L, target] read--+
//!                                                   | S <= L not in the ring, or P < L  |
//!                                                   +--> Verifying --L still stands----+
//!                                                   |         `--L is another--> reset, Joining
//!                                                   +--> Doubting --the log is the same+
//!                                                             `--it is another--> reset, Joining
//! ```
//! S is an event's sequence, P the one before it in the room, L the last that members were given. The
//! rule of continuity is `S > L and P == L`. P above L is a gap. P below L says that the event at L is gone:
//! by its age, or with the log that held it.
//!
//! On a new connection, or when somebody names another epoch, the log may be another one. Every room doubts
//! then: nothing is delivered before one of them has verified its L, and with it the epoch of what follows.

mod kept;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use kept::{Early, Ring};
use plaza_kit::chaos::{self, Rule};
use plaza_proto::fanout::ReadResponse;
use plaza_proto::ids::MessageId;
use plaza_proto::position::{Epoch, Position};

pub use kept::{Stored, parse};

/// Milliseconds of any monotonic clock.
pub type Millis = u64;

/// A repair for which the store answers so long, and never with what is missing, ends in a reset. While
/// the store is away nothing is known to be lost: members wait for it.
const REPAIR_BUDGET: Millis = 30_000;
/// Wait before a read is tried again: the first time, and at most.
const RETRY: (Millis, Millis) = (100, 3_000);
/// A barrier or a read that has no answer by then is asked for again.
const LOST: Millis = 2_000;

/// Why members lose their place. The text is part of the protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetReason {
    /// The stream is another one.
    Epoch,
    /// The log was rolled back: another event, or none, stands where the last one stood.
    RolledBack,
    /// Events are gone from the store before they were delivered.
    Trimmed,
    /// The events could not be read in time.
    Unavailable,
}

impl ResetReason {
    /// The reason as clients see it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Epoch => "epoch",
            Self::RolledBack => "rolled_back",
            Self::Trimmed => "trimmed",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What to read for the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// The newest event.
    Newest,
    /// Events after this sequence; an answer that ends below `at_least` is no answer.
    After {
        /// The sequence before the first one wanted.
        seq: u64,
        /// A sequence that surely exists.
        at_least: u64,
        /// At most so many events.
        limit: u32,
    },
}

/// What the owner shall do, in order.
#[derive(Debug)]
pub enum Action {
    /// Give the event, of this epoch, to every member.
    Deliver(Epoch, Stored),
    /// Ask the feed for a barrier; answer by [`Sequencer::on_barrier`] with the token.
    Barrier(u64),
    /// Read; answer by [`Sequencer::on_read`] or [`Sequencer::on_read_failed`] with the ticket.
    Read(u64, Read),
    /// Members lost events between the two positions; `from` is `None` when nothing was known.
    Reset {
        /// Why.
        reason: ResetReason,
        /// The last position before the hole.
        from: Option<Position>,
        /// Where delivery goes on.
        to: Position,
    },
    /// The room is live for the first time, or again after a reset: joins can be answered.
    Live,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Waits for the barrier, then for the newest event. `lost`: members hold a position that could not
    /// be continued and are to be told.
    Joining {
        barrier: bool,
        lost: Option<(ResetReason, Position)>,
    },
    Live,
    Repairing {
        since: Millis,
        target: u64,
    },
    Verifying {
        since: Millis,
    },
    /// Another room finds out whether the log is the same.
    Doubting,
}

/// One room's sequencer.
#[derive(Debug)]
pub struct Sequencer {
    state: State,
    epoch: Epoch,
    /// L.
    last: u64,
    /// Id of the event at L; `None` where no event stands (an empty room's tail).
    last_id: Option<MessageId>,
    /// When the event at L was stored.
    last_time: u64,
    ring: Ring,
    early: Early,
    /// Numbers barriers and reads; an answer with another number is stale.
    ticket: u64,
    /// A barrier or read is on its way since then.
    asked: Option<Millis>,
    /// Ask again at this time.
    retry_at: Option<Millis>,
    backoff: Millis,
}

impl Sequencer {
    /// A room that nobody has heard yet: the feed is subscribed before its first [`Action`] is carried out.
    pub fn start(now: Millis, out: &mut Vec<Action>) -> Self {
        let mut sequencer = Self {
            state: State::Joining { barrier: true, lost: None },
            epoch: Epoch::default(),
            last: 0,
            last_id: None,
            last_time: 0,
            ring: Ring::default(),
            early: Early::default(),
            ticket: 0,
            asked: None,
            retry_at: None,
            backoff: RETRY.0,
        };
        sequencer.ask(now, out);
        sequencer
    }

    /// True when members can join at [`Self::position`]. During a repair they can: they get what the
    /// repair delivers.
    pub fn is_joinable(&self) -> bool {
        matches!(self.state, State::Live | State::Repairing { .. })
    }

    /// True when members may miss events that the store has.
    pub fn is_waiting(&self) -> bool {
        !matches!(self.state, State::Live | State::Joining { lost: None, .. })
    }

    /// L as a position.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, seq: self.last, check: self.last_id.map_or(0, MessageId::check) }
    }

    /// The events after `seq`, when the ring holds all of them.
    pub fn since(&self, seq: u64) -> Option<impl Iterator<Item = &Stored>> {
        self.ring.since(seq)
    }

    /// The id of the event at `seq`, when the ring still has it.
    pub fn id_at(&self, seq: u64) -> Option<MessageId> {
        self.event_at(seq).map(|(id, _)| id)
    }

    /// Id and time of the event at `seq`, when they are still known.
    pub fn event_at(&self, seq: u64) -> Option<(MessageId, u64)> {
        if seq == self.last { self.last_id.map(|id| (id, self.last_time)) } else { self.ring.event_at(seq) }
    }

    /// Bytes in the ring and the early buffer.
    pub fn bytes(&self) -> usize {
        self.ring.bytes() + self.early.bytes()
    }

    /// Gives the ring's memory back; what is asked of it is read again.
    pub fn evict(&mut self) {
        self.ring.clear(self.last);
    }

    /// An event of the room arrived on the feed.
    pub fn on_event(&mut self, event: Stored, now: Millis, out: &mut Vec<Action>) {
        match self.state {
            State::Joining { .. } | State::Repairing { .. } | State::Verifying { .. } | State::Doubting => {
                self.early.insert(event);
            }
            State::Live if event.seq <= self.last => {
                if self.id_at(event.seq) != Some(event.id) {
                    self.verify(now, out);
                }
            }
            State::Live if event.previous < self.last && self.last_id.is_some() => {
                self.early.insert(event);
                self.verify(now, out);
            }
            State::Live if event.previous <= self.last || chaos::breaks(Rule::Repair) => self.deliver(event, out),
            State::Live => {
                let target = event.previous;
                self.early.insert(event);
                self.repair(target, now, out);
            }
        }
    }

    /// Something says that the room has come at least to `seq`.
    pub fn on_hint(&mut self, seq: u64, now: Millis, out: &mut Vec<Action>) {
        match &mut self.state {
            State::Joining { .. } | State::Verifying { .. } | State::Doubting => self.early.note(seq),
            State::Repairing { target, .. } => *target = (*target).max(seq),
            State::Live if seq > self.last => self.repair(seq, now, out),
            State::Live => {}
        }
    }

    /// The store told the room's tail: `last_seq` is the room's (0: empty), `stream_last` the stream's.
    pub fn on_tail(&mut self, epoch: Epoch, last_seq: u64, stream_last: u64, now: Millis, out: &mut Vec<Action>) {
        if !matches!(self.state, State::Live | State::Repairing { .. }) {
            return;
        }
        if epoch != self.epoch || stream_last < self.last {
            self.verify(now, out);
        } else if last_seq > self.last {
            self.on_hint(last_seq, now, out);
        }
    }

    /// Checks that the event at L still stands: after a renewed connection, or on doubt.
    pub fn verify(&mut self, now: Millis, out: &mut Vec<Action>) {
        match self.state {
            State::Live => {}
            State::Repairing { target, .. } => self.early.note(target),
            State::Joining { .. } | State::Verifying { .. } => return,
            State::Doubting => {}
        }
        self.enter(State::Verifying { since: now }, now, out);
    }

    /// The log may be another one: nothing is delivered before [`Self::trust`] or [`Self::distrust`], or
    /// before [`Self::verify`] has its answer. What was asked before is not believed any more.
    pub fn doubt(&mut self, now: Millis, out: &mut Vec<Action>) {
        match self.state {
            State::Joining { lost, .. } => return self.enter(State::Joining { barrier: true, lost }, now, out),
            State::Repairing { target, .. } => self.early.note(target),
            State::Live | State::Verifying { .. } | State::Doubting => {}
        }
        self.state = State::Doubting;
        self.ticket += 1;
        (self.asked, self.retry_at) = (None, None);
    }

    /// The log is the one that it was, under this epoch.
    pub fn trust(&mut self, epoch: Epoch, now: Millis, out: &mut Vec<Action>) {
        match self.state {
            State::Doubting if epoch == self.epoch => self.drain(now, out),
            State::Doubting => self.lose(ResetReason::Epoch, now, out),
            State::Joining { .. } | State::Live | State::Repairing { .. } | State::Verifying { .. } => {}
        }
    }

    /// The log is another one.
    pub fn distrust(&mut self, reason: ResetReason, now: Millis, out: &mut Vec<Action>) {
        if self.state == State::Doubting {
            self.lose(reason, now, out);
        }
    }

    /// Nothing is delivered while another room looks.
    pub fn is_doubting(&self) -> bool {
        self.state == State::Doubting
    }

    /// What a room that verified its log, or joins anew, has found; `None` while it does not know.
    pub fn found(&self) -> Option<Result<Epoch, ResetReason>> {
        match self.state {
            State::Live | State::Repairing { .. } => Some(Ok(self.epoch)),
            State::Joining { lost: Some((reason, _)), .. } => Some(Err(reason)),
            State::Joining { .. } | State::Verifying { .. } | State::Doubting => None,
        }
    }

    /// The feed has a barrier.
    pub fn on_barrier(&mut self, token: u64, now: Millis, out: &mut Vec<Action>) {
        if let State::Joining { barrier: true, lost } = self.state
            && token == self.ticket
        {
            self.enter(State::Joining { barrier: false, lost }, now, out);
        }
    }

    /// A read has an answer.
    pub fn on_read(&mut self, ticket: u64, answer: &ReadResponse, now: Millis, out: &mut Vec<Action>) {
        if ticket != self.ticket || self.asked.take().is_none() {
            return;
        }
        let Some((epoch, events)) = kept::parse(answer) else {
            return self.again(now);
        };
        match self.state {
            State::Joining { barrier: true, .. } | State::Live | State::Doubting => {}
            State::Joining { barrier: false, lost } => {
                self.joined(epoch, events.last(), answer.last_seq, lost, now, out)
            }
            State::Repairing { .. } | State::Verifying { .. } if epoch != self.epoch && !chaos::breaks(Rule::Epoch) => {
                self.lose(ResetReason::Epoch, now, out);
            }
            State::Repairing { since, target } => self.repaired(events, answer, since, target, now, out),
            State::Verifying { .. } => self.verified(events.first(), answer, now, out),
        }
    }

    /// A read failed: it is tried again, more and more slowly. `away`: the store was not reached, which
    /// takes nothing from the budget of a repair.
    pub fn on_read_failed(&mut self, ticket: u64, away: bool, now: Millis) {
        if ticket == self.ticket && self.asked.take().is_some() {
            if away {
                self.store_is_away(now);
            }
            self.again(now);
        }
    }

    /// The budget begins with the first answer.
    fn store_is_away(&mut self, now: Millis) {
        if let State::Repairing { since, .. } | State::Verifying { since } = &mut self.state {
            *since = now;
        }
    }

    /// When [`Self::on_tick`] has something to do.
    pub fn wake_at(&self) -> Option<Millis> {
        let lost = self.asked.map(|t| t + LOST);
        let budget = match self.state {
            State::Repairing { since, .. } | State::Verifying { since } => Some(since + REPAIR_BUDGET),
            State::Joining { .. } | State::Live | State::Doubting => None,
        };
        [lost, self.retry_at, budget].into_iter().flatten().min()
    }

    /// Time has passed: asks again for what has no answer, and gives up what took too long.
    pub fn on_tick(&mut self, now: Millis, out: &mut Vec<Action>) {
        let unanswered = self.asked.is_some_and(|t| now >= t + LOST);
        if unanswered {
            self.store_is_away(now);
        }
        if let State::Repairing { since, .. } | State::Verifying { since } = self.state
            && now >= since + REPAIR_BUDGET
        {
            return self.lose(ResetReason::Unavailable, now, out);
        }
        if unanswered || self.retry_at.is_some_and(|t| now >= t) {
            self.ask(now, out);
        }
    }

    /// Asks the store or the feed for what the state needs.
    fn ask(&mut self, now: Millis, out: &mut Vec<Action>) {
        self.ticket += 1;
        self.retry_at = None;
        self.asked = Some(now);
        out.push(match self.state {
            State::Joining { barrier: true, .. } => Action::Barrier(self.ticket),
            State::Joining { barrier: false, .. } => Action::Read(self.ticket, Read::Newest),
            State::Repairing { target, .. } => {
                Action::Read(self.ticket, Read::After { seq: self.last, at_least: target, limit: 128 })
            }
            State::Verifying { .. } => {
                Action::Read(self.ticket, Read::After { seq: self.last.saturating_sub(1), at_least: 0, limit: 1 })
            }
            State::Live | State::Doubting => {
                self.asked = None;
                return;
            }
        });
    }

    fn again(&mut self, now: Millis) {
        self.asked = None;
        self.retry_at = Some(now + self.backoff);
        self.backoff = (self.backoff * 2).min(RETRY.1);
    }

    fn enter(&mut self, state: State, now: Millis, out: &mut Vec<Action>) {
        self.state = state;
        self.backoff = RETRY.0;
        self.ask(now, out);
    }

    fn deliver(&mut self, event: Stored, out: &mut Vec<Action>) {
        self.last = event.seq;
        (self.last_id, self.last_time) = (Some(event.id), event.time);
        self.ring.push(event.clone());
        out.push(Action::Deliver(self.epoch, event));
    }

    fn repair(&mut self, target: u64, now: Millis, out: &mut Vec<Action>) {
        self.enter(State::Repairing { since: now, target }, now, out);
    }

    /// Members cannot be continued: the room joins anew, and they are told where delivery goes on.
    fn lose(&mut self, reason: ResetReason, now: Millis, out: &mut Vec<Action>) {
        let from = self.position();
        self.early.clear();
        self.enter(State::Joining { barrier: true, lost: Some((reason, from)) }, now, out);
    }

    fn joined(
        &mut self,
        epoch: Epoch,
        newest: Option<&Stored>,
        stream_last: u64,
        lost: Option<(ResetReason, Position)>,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        self.epoch = epoch;
        (self.last, self.last_id) = newest.map_or((stream_last, None), |event| (event.seq, Some(event.id)));
        self.ring.clear(self.last);
        if let Some(event) = newest {
            self.last_time = event.time;
            self.ring.push(event.clone());
        }
        if let Some((reason, from)) = lost {
            out.push(Action::Reset { reason, from: Some(from), to: self.position() });
        }
        self.drain(now, out);
        out.push(Action::Live);
    }

    fn repaired(
        &mut self,
        events: Vec<Stored>,
        answer: &ReadResponse,
        since: Millis,
        target: u64,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        let end = events.last().map_or(self.last, |event| event.seq);
        let gone = answer.trimmed && answer.last_seq >= target;
        if answer.complete && end < target && !gone {
            // A replica that is behind: nothing of its answer is believed.
            return self.again(now);
        }
        if answer.trimmed {
            let from = self.position();
            // What is left begins here; with nothing left the target itself is gone.
            match events.first() {
                Some(first) => {
                    let before = Position { epoch: self.epoch, seq: first.seq - 1, check: 0 };
                    self.ring.clear(before.seq);
                    out.push(Action::Reset { reason: ResetReason::Trimmed, from: Some(from), to: before });
                }
                None => {
                    (self.last, self.last_id) = (target, None);
                    self.ring.clear(target);
                    out.push(Action::Reset { reason: ResetReason::Trimmed, from: Some(from), to: self.position() });
                }
            }
        }
        let before = self.last;
        for event in events {
            if event.seq > self.last {
                self.deliver(event, out);
            }
        }
        if self.last < target {
            // A full page: the next one. Only a repair without progress runs out of its budget.
            let since = if self.last > before { now } else { since };
            self.state = State::Repairing { since, target };
            self.backoff = RETRY.0;
            return self.ask(now, out);
        }
        self.drain(now, out);
    }

    fn verified(&mut self, found: Option<&Stored>, answer: &ReadResponse, now: Millis, out: &mut Vec<Action>) {
        if answer.last_seq < self.last {
            return self.lose(ResetReason::RolledBack, now, out);
        }
        match (found, self.last_id) {
            (Some(event), Some(id)) if event.seq == self.last && event.id != id => {
                self.lose(ResetReason::RolledBack, now, out);
            }
            // An event where an empty room's tail was: the sequence names something else by now.
            (Some(event), None) if event.seq == self.last => self.lose(ResetReason::RolledBack, now, out),
            // It stands, or has been trimmed.
            _ => self.drain(now, out),
        }
    }

    /// Goes live with what arrived meanwhile, or on repairing when there is a hole in it.
    fn drain(&mut self, now: Millis, out: &mut Vec<Action>) {
        self.state = State::Live;
        self.asked = None;
        self.retry_at = None;
        while let Some(event) = self.early.next_after(self.last) {
            if event.previous > self.last {
                let target = event.previous;
                self.early.insert(event);
                return self.repair(target, now, out);
            }
            self.deliver(event, out);
        }
        let noted = self.early.take_noted();
        if noted > self.last {
            self.repair(noted, now, out);
        }
    }
}
