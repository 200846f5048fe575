//! Memberships that begin. A join is answered at an instant when its room is live and its replay
//! reaches the room's position: everything behind the answer in the shard's inbox comes after it.

use super::encode;
use super::hub::{Hub, Waiter};
use crate::bridge::{ConnKey, Joined, Reply, RoomId, Variant};
use crate::feed::sequencer::{Millis, ResetReason, Sequencer, Stored};
use crate::upstream::read::ReadKey;
use bytes::Bytes;
use plaza_proto::code::Code;
use plaza_proto::fanout::ReadResponse;
use plaza_proto::position::Position;
use plaza_proto::session::{JoinRoom, Op, op};
use std::sync::Arc;

/// A join that is not answered by then fails.
const DEADLINE: Millis = 10_000;
/// Events of one replay at most; more is `trimmed`, as a room keeps no more by default.
const REPLAY: usize = 1_000;
/// A read that failed, or that brought nothing new, is made again after this, in milliseconds.
const AGAIN: Millis = 100;
/// Answers in a row that end before what the room has delivered; more, and those events are gone.
const SHORT_ANSWERS: u32 = 20;

/// A join that waits.
#[derive(Debug)]
pub(super) struct Joining {
    pub(super) to: ConnKey,
    pub(super) id: u32,
    pub(super) variant: Variant,
    /// Answered by `Opened` rather than by `Joined`.
    pub(super) opens: bool,
    pub(super) deadline: Millis,
    pub(super) replay: Option<Replay>,
}

/// What a member missed, gathered until it reaches the room's position.
#[derive(Debug)]
pub(super) struct Replay {
    after: Position,
    /// Events after `after`, without gap.
    events: Vec<Stored>,
    /// The event at `after` was seen, and is the one that was meant.
    checked: bool,
    reading: bool,
    /// No read before this.
    pause: Millis,
    /// Answers in a row that ended before what the room has delivered.
    short: u32,
    reset: Option<ResetReason>,
}

impl Replay {
    /// What comes after this position.
    pub(super) fn new(after: Position) -> Self {
        Self { after, events: Vec::new(), checked: after.check == 0, reading: false, pause: 0, short: 0, reset: None }
    }

    fn end(&self) -> u64 {
        self.events.last().map_or(self.after.seq, |event| event.seq)
    }
}

impl Joining {
    pub(super) fn new(
        to: ConnKey,
        id: u32,
        variant: Variant,
        opens: bool,
        after: Option<Position>,
        now: Millis,
    ) -> Self {
        Self { to, id, variant, opens, deadline: now + DEADLINE, replay: after.map(Replay::new) }
    }
}

impl Hub {
    /// Answers those joins of a room that can be answered now, and reads for those that cannot.
    pub(super) fn finish_joins(&mut self, id: RoomId) {
        let Some(room) = self.rooms.get_mut(id) else { return };
        if room.joining.is_empty() || !room.sequencer.is_joinable() {
            return;
        }
        let mut waiting = std::mem::take(&mut room.joining);
        let mut reads: Vec<ReadKey> = Vec::new();
        let mut ready = Vec::new();
        let now = self.now;
        waiting.retain_mut(|joining| {
            if room.shards[usize::from(joining.to.shard)].behind.is_some() {
                // Older events are still on their way to this shard: a member would get them too.
                return true;
            }
            let Some(replay) = &mut joining.replay else {
                ready.push((joining.to, joining.id, joining.opens, joining.variant, None));
                return false;
            };
            match advance(replay, &room.sequencer) {
                Step::Ready => {
                    let replay = joining.replay.take();
                    ready.push((joining.to, joining.id, joining.opens, joining.variant, replay));
                    false
                }
                Step::Read(seq) => {
                    if !replay.reading && replay.pause <= now {
                        replay.reading = true;
                        let room = room.name.clone();
                        reads.push(ReadKey { room, before: false, seq, at_least: 0, limit: 128 });
                    }
                    true
                }
            }
        });
        room.joining = waiting;
        for key in reads {
            self.read(key, Waiter::Joins(id));
        }
        for (to, request, opens, variant, replay) in ready {
            self.enter(id, to, request, opens, variant, replay.as_ref());
        }
    }

    /// A read for joins has an answer.
    pub(super) fn on_replay(&mut self, id: RoomId, key: &ReadKey, result: &Result<Arc<ReadResponse>, Code>) {
        let now = self.now;
        let Some(room) = self.rooms.get_mut(id) else { return };
        let mut pauses = false;
        for replay in room.joining.iter_mut().filter_map(|joining| joining.replay.as_mut()) {
            if !replay.reading || key.seq != wanted(replay) {
                continue;
            }
            replay.reading = false;
            let is_short = match result {
                Ok(answer) => {
                    take(replay, answer);
                    is_short(replay, answer, &room.sequencer)
                }
                // Nothing is known to be lost: the events may come with the next answer.
                Err(_) => true,
            };
            if is_short {
                replay.pause = now + AGAIN;
                pauses = true;
            }
        }
        if pauses {
            self.replays.push_back((now + AGAIN, id));
        }
        self.finish_joins(id);
    }

    /// Makes those reads for joins again whose pause is over.
    pub(super) fn read_again(&mut self) {
        while self.replays.front().is_some_and(|(due, _)| *due <= self.now)
            && let Some((_, id)) = self.replays.pop_front()
        {
            self.finish_joins(id);
        }
    }

    fn enter(&mut self, id: RoomId, to: ConnKey, request: u32, opens: bool, variant: Variant, replay: Option<&Replay>) {
        let Some(room) = self.rooms.get_mut(id) else { return };
        let Some(conn) = self.conns.get_mut(to) else { return };
        conn.joining.retain(|name| *name != room.name);
        room.enter(to, variant);
        conn.rooms.push(id);
        let position = room.shown;
        let reset = replay.and_then(|replay| replay.reset);
        let recovered = replay.is_some() && reset.is_none();
        let frames = match replay {
            Some(replay) if recovered => replay_frames(room, replay, variant),
            _ => Vec::new(),
        };
        let (session, name) = (conn.identity.session, room.name.clone());
        self.appear(to, id);
        let Some(room) = self.rooms.get(id) else { return };
        let joined = Joined {
            room: name.clone(),
            id,
            position,
            members: room.present(),
            recovered,
            replay: frames,
            reset: reset.map(ResetReason::as_str),
        };
        let reply = if opens {
            Reply::Opened { username: None, resumed: false, ticket: None, joined: Some(joined) }
        } else {
            Reply::Joined(joined)
        };
        self.reply(to, request, reply);
        self.session.owe(Op {
            op: Some(op::Op::Join(JoinRoom {
                session_id: session.to_string(),
                room: name.as_str().to_owned(),
                position: position.to_string(),
            })),
        });
        self.check_tail_soon(id);
    }

    /// Joins that have waited too long fail.
    pub(super) fn expire_joins(&mut self) {
        let now = self.now;
        let mut failed = Vec::new();
        for room in self.rooms.iter_mut().filter(|room| !room.joining.is_empty()) {
            room.joining.retain(|joining| {
                let keep = now < joining.deadline;
                if !keep {
                    failed.push((joining.to, joining.id, joining.opens, room.id, room.name.clone()));
                }
                keep
            });
        }
        for (to, id, opens, room, name) in failed {
            if let Some(conn) = self.conns.get_mut(to) {
                conn.joining.retain(|waiting| *waiting != name);
            }
            if opens {
                self.close_session(to);
            }
            self.release_later(room);
            self.fail(to, id, Code::Unavailable, Code::Unavailable.english());
        }
    }
}

enum Step {
    Ready,
    /// Events after this sequence are needed.
    Read(u64),
}

fn wanted(replay: &Replay) -> u64 {
    if replay.checked { replay.end() } else { replay.after.seq.saturating_sub(1) }
}

/// Brings a replay as far as the ring allows.
fn advance(replay: &mut Replay, sequencer: &Sequencer) -> Step {
    let position = sequencer.position();
    if replay.reset.is_none() && replay.after.epoch != position.epoch {
        replay.reset = Some(ResetReason::Epoch);
    }
    if replay.reset.is_some() {
        return Step::Ready;
    }
    if !replay.checked {
        match sequencer.id_at(replay.after.seq) {
            Some(id) if id.check() == replay.after.check => replay.checked = true,
            Some(_) => {
                replay.reset = Some(ResetReason::RolledBack);
                return Step::Ready;
            }
            None => return Step::Read(wanted(replay)),
        }
    }
    if replay.end() < position.seq {
        let Some(rest) = sequencer.since(replay.end()) else { return Step::Read(wanted(replay)) };
        replay.events.extend(rest.cloned());
    }
    // A read may be ahead of the room here: those events come as deliveries.
    replay.events.retain(|event| event.seq <= position.seq);
    if replay.events.len() > REPLAY {
        replay.reset = Some(ResetReason::Trimmed);
    }
    Step::Ready
}

/// Adds a page to a replay.
fn take(replay: &mut Replay, answer: &ReadResponse) {
    let Some((epoch, events)) = crate::feed::sequencer::parse(answer) else {
        replay.reset = Some(ResetReason::Unavailable);
        return;
    };
    if epoch != replay.after.epoch {
        replay.reset = Some(ResetReason::Epoch);
        return;
    }
    let mut events = events.into_iter();
    if !replay.checked {
        match events.next() {
            Some(event) if event.seq == replay.after.seq && event.id.check() == replay.after.check => {
                replay.checked = true;
            }
            Some(event) if event.seq == replay.after.seq => replay.reset = Some(ResetReason::RolledBack),
            _ if answer.last_seq < replay.after.seq => replay.reset = Some(ResetReason::RolledBack),
            _ => replay.reset = Some(ResetReason::Trimmed),
        }
    } else if answer.trimmed {
        replay.reset = Some(ResetReason::Trimmed);
    }
    if replay.reset.is_some() {
        return;
    }
    replay.events.extend(events);
    if replay.events.len() > REPLAY {
        replay.reset = Some(ResetReason::Trimmed);
    }
}

/// Whether an answer ends before what the room has delivered, and the ring does not have the rest: a
/// replica that is behind. When it stays so, the events are gone. An answer may also be older than the
/// newest deliveries without being short: those are in the ring.
fn is_short(replay: &mut Replay, answer: &ReadResponse, sequencer: &Sequencer) -> bool {
    let is_short = replay.reset.is_none()
        && answer.complete
        && replay.end() < sequencer.position().seq
        && sequencer.since(replay.end()).is_none();
    replay.short = if is_short { replay.short + 1 } else { 0 };
    if replay.short > SHORT_ANSWERS {
        replay.reset = Some(ResetReason::Unavailable);
    }
    is_short
}

fn replay_frames(room: &super::room::Room, replay: &Replay, variant: Variant) -> Vec<Bytes> {
    let mut previous = replay.after;
    let mut frames = Vec::with_capacity(replay.events.len());
    for event in replay.events.iter().filter_map(|stored| encode::decode(stored, replay.after.epoch)) {
        let frame = encode::event(&room.name, &event, previous, variant);
        previous = event.position;
        if !frame.is_empty() {
            frames.push(frame);
        }
    }
    frames
}
