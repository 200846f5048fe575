//! Memberships that begin. A join is answered at an instant when its room is live and its replay
//! reaches the room's position: everything behind the answer in the shard's inbox comes after it.

use super::encode;
use super::hub::{Hub, Waiter};
use super::offsets::unless_off;
use super::replay::{AGAIN, Replay, Step};
use super::requests::Asked;
use crate::bridge::{ConnKey, Joined, Reply, RoomId, Variant};
use crate::feed::sequencer::{Millis, ResetReason};
use crate::upstream::read::ReadKey;
use crate::wire::Mark;
use plaza_kit::chaos;
use plaza_proto::code::Code;
use plaza_proto::fanout::ReadResponse;
use plaza_proto::position::Position;
use plaza_proto::session::{JoinRoom, LeaveRoom, Op, op};
use std::sync::Arc;

/// A join that is not answered by then fails.
const DEADLINE: Millis = 10_000;

/// What a join leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Answered by [`Reply::Joined`].
    Join,
    /// Answered by [`Reply::Opened`].
    Open,
    /// One room of a session that continues: all of them are entered at one instant.
    Recover,
}

/// Whether the membership is in the session's record, from which another edge would continue it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Record {
    /// It must be before the join is answered.
    Due,
    /// It is on its way.
    Asked,
    /// It is, from this position on.
    Kept(Position),
    /// It may follow.
    Follows,
}

/// A join that waits.
#[derive(Debug)]
pub(super) struct Joining {
    pub(super) to: ConnKey,
    pub(super) id: u32,
    pub(super) variant: Variant,
    pub(super) purpose: Purpose,
    pub(super) deadline: Millis,
    pub(super) replay: Option<Replay>,
    record: Record,
}

impl Joining {
    /// `recorded`: the session can be continued from its record.
    pub(super) fn new(to: ConnKey, id: u32, variant: Variant, purpose: Purpose, recorded: bool, now: Millis) -> Self {
        let due = recorded && variant.is_socket_io() && purpose != Purpose::Recover;
        let record = if due { Record::Due } else { Record::Follows };
        Self { to, id, variant, purpose, deadline: now + DEADLINE, replay: None, record }
    }

    /// With what was missed.
    pub(super) fn with(self, replay: Option<Replay>) -> Self {
        Self { replay, ..self }
    }
}

impl Hub {
    /// Answers those joins of a room that can be answered now, and reads for those that cannot.
    pub(super) fn finish_joins(&mut self, id: RoomId) {
        let Some(room) = self.rooms.get_mut(id) else { return };
        if room.joining.is_empty() || !room.sequencer.is_joinable() {
            return;
        }
        let now = self.now;
        let mut waiting = std::mem::take(&mut room.joining);
        let (mut reads, mut hint, mut asks, mut recoveries) = (Vec::new(), 0, Vec::new(), Vec::new());
        let ready: Vec<Joining> = waiting
            .extract_if(.., |joining| {
                if room.shards[usize::from(joining.to.shard)].behind.is_some() {
                    // Older events are still on their way to this shard: a member would get them too.
                    return false;
                }
                if joining.record != Record::Follows && room.sequencer.is_waiting() {
                    // Its offset may be of another room, and stand behind what is still to come here.
                    return false;
                }
                match joining.replay.as_mut().map_or(Step::Ready, |replay| replay.advance(&room.sequencer, now)) {
                    Step::Ready => {}
                    Step::Read(seq) => {
                        let room = room.name.clone();
                        reads.push(ReadKey { room, before: false, seq, at_least: 0, limit: 128 });
                        return false;
                    }
                    Step::Hint(seq) => {
                        hint = hint.max(seq);
                        return false;
                    }
                    Step::Wait => return false,
                }
                if let Record::Kept(at) = joining.record
                    && !room.goes_on_from(at)
                {
                    joining.record = Record::Due;
                }
                if joining.purpose == Purpose::Recover {
                    recoveries.push(joining.to);
                } else if joining.record == Record::Due {
                    joining.record = Record::Asked;
                    asks.push((joining.to, joining.id, room.shown));
                }
                matches!(joining.record, Record::Kept(_) | Record::Follows) && joining.purpose != Purpose::Recover
            })
            .collect();
        room.joining = waiting;
        for key in reads {
            self.read(key, Waiter::Joins(id));
        }
        for joining in ready {
            self.enter(id, &joining);
        }
        for (to, request, position) in asks {
            self.record_join(id, to, request, position);
        }
        for key in recoveries {
            self.finish_recovery(key);
        }
        if hint > 0 {
            self.with_sequencer(id, |sequencer, now, out| sequencer.on_hint(hint, now, out));
        }
    }

    /// Writes a membership into the session's record, before anybody is told of it.
    fn record_join(&mut self, id: RoomId, to: ConnKey, request: u32, position: Position) {
        let (Some(room), Some(conn)) = (self.rooms.get(id), self.conns.get(to)) else { return };
        let join = JoinRoom {
            session_id: conn.identity.session.to_string(),
            room: room.name.as_str().to_owned(),
            position: position.to_string(),
        };
        let asked = Asked::Join { to, id: request, room: id, born: room.born, position };
        if let Err(code) = self.ask(op::Op::Join(join), asked) {
            self.fail_join(id, to, request, code);
        }
    }

    /// A membership is in the record, or could not be written.
    pub(super) fn on_recorded(
        &mut self,
        (to, request): (ConnKey, u32),
        (id, born): (RoomId, u64),
        position: Position,
        result: Result<(), Code>,
    ) {
        let Some(room) = self.rooms.get_mut(id).filter(|room| room.born == born) else { return };
        let Some(joining) = room.joining.iter_mut().find(|joining| joining.to == to && joining.id == request) else {
            return;
        };
        match result {
            Ok(()) => {
                joining.record = Record::Kept(position);
                self.finish_joins(id);
            }
            Err(code) => self.fail_join(id, to, request, code),
        }
    }

    /// A read for joins has an answer.
    pub(super) fn on_replay(&mut self, id: RoomId, key: &ReadKey, result: &Result<Arc<ReadResponse>, Code>) {
        let Some(room) = self.rooms.get_mut(id) else { return };
        let (now, mut pauses) = (self.now, false);
        for replay in room.joining.iter_mut().filter_map(|joining| joining.replay.as_mut()) {
            if replay.awaits(key.seq) {
                pauses |= match result {
                    Ok(answer) => replay.take(answer, &room.sequencer, now),
                    Err(_) => {
                        replay.unread(now);
                        true
                    }
                };
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

    fn enter(&mut self, id: RoomId, joining: &Joining) {
        let Joining { to, id: request, variant, purpose, ref replay, record, .. } = *joining;
        let Some(room) = self.rooms.get_mut(id) else { return };
        let Some(conn) = self.conns.get_mut(to) else { return };
        conn.joining.retain(|name| *name != room.name);
        room.enter(to, variant);
        let kept = if let Record::Kept(position) = record { position } else { room.shown };
        // What has come since then would come again if the session continued from its record.
        let mark = |seq| unless_off(self.recovery_ms, if seq > kept.seq { Mark::Nowhere } else { Mark::Aside });
        conn.rooms.push((id, kept));
        let reset = replay.as_ref().and_then(Replay::reset);
        let recovered = replay.is_some() && reset.is_none();
        let (position, frames) = match replay {
            Some(replay) if recovered => (room.shown, replay.frames(&room.name, variant, mark)),
            _ => {
                let since = room.sequencer.since(kept.seq).into_iter().flatten();
                (kept, encode::replay(&room.name, kept, since, variant, mark))
            }
        };
        if recovered {
            chaos::step(chaos::Step::Replaying);
        }
        if record == Record::Follows {
            self.session.owe(Op {
                op: Some(op::Op::Join(JoinRoom {
                    session_id: conn.identity.session.to_string(),
                    room: room.name.as_str().to_owned(),
                    position: position.to_string(),
                })),
            });
        }
        let name = room.name.clone();
        self.appear(to, id);
        let Some(room) = self.rooms.get(id) else { return };
        let joined = Joined {
            room: name,
            id,
            position,
            members: room.present(),
            recovered,
            replay: frames.into_iter().map(|(_, frame)| frame).collect(),
            reset: reset.map(ResetReason::as_str),
        };
        if purpose == Purpose::Open {
            self.opened(to, request, false, vec![joined], bytes::Bytes::new());
        } else {
            self.reply(to, request, Reply::Joined(joined));
        }
        self.check_tail_soon(id);
    }

    /// Joins that have waited too long fail.
    pub(super) fn expire_joins(&mut self) {
        let now = self.now;
        let mut late = Vec::new();
        for room in self.rooms.iter().filter(|room| !room.joining.is_empty()) {
            let joins = room.joining.iter().filter(|joining| now >= joining.deadline);
            late.extend(joins.map(|joining| (room.id, joining.to, joining.id)));
        }
        for (room, to, id) in late {
            self.fail_join(room, to, id, Code::Unavailable);
        }
    }

    /// A join comes to nothing; with the first one, or one of a session that continues, so does the session.
    fn fail_join(&mut self, room: RoomId, to: ConnKey, id: u32, code: Code) {
        let Some(place) = self.rooms.get_mut(room) else { return };
        let Some(at) = place.joining.iter().position(|joining| joining.to == to && joining.id == id) else { return };
        let failed = place.joining.swap_remove(at);
        let name = place.name.clone();
        if let Some(conn) = self.conns.get_mut(to) {
            conn.joining.retain(|waiting| *waiting != name);
            if failed.purpose == Purpose::Join && failed.record != Record::Follows {
                let leave = LeaveRoom { session_id: conn.identity.session.to_string(), room: name.as_str().to_owned() };
                self.session.owe(Op { op: Some(op::Op::Leave(leave)) });
            }
        }
        if failed.purpose != Purpose::Join {
            self.close_session(to, failed.purpose == Purpose::Recover);
        }
        self.release_later(room);
        self.fail(to, id, code, code.english());
    }
}
