//! Sessions that continue on this edge.
//!
//! ```text
//! Open{resume} --> Recover at the session service, which fences the edge that had it
//!   unknown, expired, another user   --> a new session, no error
//!   Plaza's own protocol             --> Opened: the client joins its rooms by their positions
//!   Socket.IO: all its rooms, each with a replay from the offset or from its join
//!     all complete at one instant    --> entered together; Opened with what was missed in stream order
//!     anything missing               --> the old session is forgotten, a new one begins
//! ```
//! One stream orders all rooms, so that one offset is a place in each of them. It must be that of an
//! event in one of the rooms, unless it is older than the session: the stock client never forgets one.

use super::conns::Conn;
use super::hub::Hub;
use super::joins::{Joining, Purpose};
use super::replay::{Replay, Step};
use super::requests::Asked;
use super::ticket::{Ticket, VALID_SECONDS};
use crate::bridge::{ConnKey, Control, Identity, Inbound, Joined, Reply, Resume, RoomId, SessionId};
use crate::upstream::read::ReadKey;
use crate::upstream::session::Applied;
use crate::wire::Mark;
use bytes::Bytes;
use plaza_kit::chaos;
use plaza_proto::code::Code;
use plaza_proto::ids::{RoomName, session_user_id};
use plaza_proto::position::Position;
use plaza_proto::session::{Close, LeaveRoom, Op, Recover, RoomPosition, Session, op};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Events that one recovery replays in all rooms together; with more the session begins anew.
const REPLAY: usize = 5_000;

/// A session whose rooms are being gathered.
#[derive(Debug)]
pub(super) struct Recovery {
    id: u32,
    /// Where a new session would begin.
    home: Option<RoomName>,
    /// Who the connection would be with a new session.
    fresh: Arc<Identity>,
    /// The rooms, and where each was joined; `None`: it was left, and the offset may stand there.
    rooms: Vec<(RoomId, Option<Position>)>,
}

/// A connection that has asked for an earlier session.
#[derive(Debug)]
pub(super) struct Resuming {
    key: ConnKey,
    id: u32,
    home: Option<RoomName>,
    /// Key of the record from now on. A session of Plaza's own protocol is found by its ticket: then
    /// nobody needs the key, and it is only what a record must have.
    pid: SessionId,
    /// What the ticket says.
    ticket: Option<Ticket>,
    offset: Option<Position>,
}

impl Resuming {
    /// Whose request it is.
    pub(super) fn from(&self) -> (ConnKey, u32) {
        (self.key, self.id)
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// How a ticket's session is asked for.
pub(super) fn recover_of(ticket: &Ticket) -> Recover {
    Recover { pid: String::new(), user_id: ticket.user_id.clone(), session_id: ticket.session.to_string() }
}

impl Hub {
    /// Continues an earlier session. What names none is a new one.
    pub(super) fn resume(&mut self, key: ConnKey, id: u32, home: Option<RoomName>, resume: Resume) {
        let (pid, offset) = match &resume {
            Resume::Pid { pid, offset } => (*pid, *offset),
            Resume::Ticket(_) => (SessionId::random(), None),
        };
        let Some((recover, ticket)) = self.recover_op(key, resume) else { return self.open(key, id, home) };
        let asked = Asked::Recover(Resuming { key, id, home, pid, ticket: ticket.clone(), offset });
        if let Err(code) = self.ask(op::Op::Recover(recover), asked) {
            if let Some(ticket) = ticket {
                return self.continue_alone(key, id, pid, ticket);
            }
            self.conns.remove(key);
            self.fail(key, id, code, code.english());
        }
    }

    fn recover_op(&self, key: ConnKey, resume: Resume) -> Option<(Recover, Option<Ticket>)> {
        if self.recovery_ms == 0 {
            return None;
        }
        let user = self.conns.get(key)?.identity.user_id.as_deref();
        match resume {
            Resume::Pid { pid, .. } => {
                let user_id = user.unwrap_or_default().to_owned();
                Some((Recover { pid: pid.to_string(), user_id, session_id: String::new() }, None))
            }
            Resume::Ticket(text) => {
                let ticket = Ticket::read(&text, &self.registration.keys(), unix_seconds())?;
                if user.is_some_and(|user| user != ticket.user_id) {
                    return None;
                }
                Some((recover_of(&ticket), Some(ticket)))
            }
        }
    }

    /// What a client shows to continue this session.
    pub(super) fn ticket(&self, key: ConnKey) -> Option<Box<str>> {
        let conn = self.conns.get(key)?;
        let pid = conn.pid?;
        if conn.is_socket_io() {
            return Some(pid.to_string().into());
        }
        let username = conn.username.as_deref().unwrap_or_default().to_owned();
        let ticket = Ticket { session: conn.identity.session, user_id: conn.user_id.to_string(), username };
        ticket.sign(&self.registration.keys(), unix_seconds() + VALID_SECONDS).map(Into::into)
    }

    /// Tells a connection that it is in.
    pub(super) fn opened(&mut self, key: ConnKey, id: u32, resumed: bool, rooms: Vec<Joined>, missed: Bytes) {
        let Some(conn) = self.conns.get(key) else { return };
        let reply = Reply::Opened {
            identity: conn.identity.clone(),
            username: conn.username.clone(),
            resumed,
            ticket: self.ticket(key),
            rooms,
            missed,
        };
        self.reply(key, id, reply);
    }

    /// The session service has found the session, or has not.
    pub(super) fn on_recover(&mut self, resuming: Resuming, result: Result<Applied, (Code, String)>) {
        let (key, id) = (resuming.key, resuming.id);
        match result {
            Ok(Applied { session: Some(session), positions }) => {
                self.continue_session(resuming, session, &positions);
            }
            Err((Code::NotFound | Code::Forbidden | Code::BadRequest, _)) => {
                self.recovered(key, id, "unknown");
                self.open(key, id, resuming.home);
            }
            Ok(Applied { session: None, .. }) => {
                self.close_session(key, false);
                self.fail(key, id, Code::Internal, Code::Internal.english());
            }
            Err((Code::Unavailable | Code::Timeout | Code::Busy, _)) if resuming.ticket.is_some() => {
                let Resuming { pid, ticket, .. } = resuming;
                if let Some(ticket) = ticket {
                    self.continue_alone(key, id, pid, ticket);
                }
            }
            // The client comes again, within the window.
            Err((code, message)) => {
                self.release(&resuming);
                self.close_session(key, false);
                self.fail(key, id, code, message);
            }
        }
    }

    /// A recovery may have been carried out and its answer lost: then this edge would hold the session for as
    /// long as it lives. Its window begins, unless a connection here has it.
    fn release(&mut self, resuming: &Resuming) {
        let (pid, session_id) = match &resuming.ticket {
            Some(ticket) => (String::new(), ticket.session.to_string()),
            None => (resuming.pid.to_string(), String::new()),
        };
        let held = self.conns.of_session(&session_id).is_some()
            || resuming.ticket.is_none() && self.conns.iter().any(|conn| conn.pid == Some(resuming.pid));
        if !held {
            let close = Close { session_id, generation: 0, recoverable_ms: self.recovery_ms, pid };
            self.session.owe(Op { op: Some(op::Op::Close(close)) });
        }
    }

    fn continue_session(&mut self, resuming: Resuming, session: Session, positions: &[RoomPosition]) {
        let Resuming { key, id, home, pid, offset, .. } = resuming;
        let Session { session_id, user_id, username, generation, .. } = session;
        let (Some(fresh), Some(known)) =
            (self.conns.get(key).map(|conn| conn.identity.clone()), SessionId::parse(&session_id))
        else {
            // The connection is gone meanwhile: the next one may continue the session.
            let close = Close { session_id, generation, recoverable_ms: self.recovery_ms, pid: String::new() };
            return self.session.owe(Op { op: Some(op::Op::Close(close)) });
        };
        let Some(conn) = self.take_over(key, known, user_id, username, pid) else { return };
        conn.generation = generation;
        let is_socket_io = conn.is_socket_io();
        self.recoveries.insert(key, Recovery { id, home, fresh, rooms: Vec::new() });
        if !is_socket_io {
            // Its client joins again, with a position for each room.
            for RoomPosition { room, .. } in positions.iter().filter(|at| !at.position.is_empty()) {
                let leave = LeaveRoom { session_id: session_id.clone(), room: room.clone() };
                self.session.owe(Op { op: Some(op::Op::Leave(leave)) });
            }
            return self.finish_recovery(key);
        }
        self.gather(key, id, offset, positions);
    }

    /// Gives a connection the session that it continues; one that had it here ends.
    pub(super) fn take_over(
        &mut self,
        key: ConnKey,
        session: SessionId,
        user_id: String,
        username: String,
        pid: SessionId,
    ) -> Option<&mut Conn> {
        let fresh = self.conns.get(key)?.identity.clone();
        let session_id = session.to_string();
        if let Some(old) = self.conns.of_session(&session_id) {
            self.replace(old);
        }
        let own = user_id == session_user_id(&session_id);
        let user_id = (!own).then(|| user_id.into_boxed_str());
        let identity = Identity { session, user_id, variant: fresh.variant, locale: fresh.locale };
        let conn = self.conns.assume(key, identity.into())?;
        (conn.open, conn.generation) = (true, 0);
        conn.username = (!username.is_empty()).then(|| username.into());
        conn.pid = Some(pid);
        Some(conn)
    }

    /// Begins the replay of every room.
    fn gather(&mut self, key: ConnKey, id: u32, offset: Option<Position>, positions: &[RoomPosition]) {
        let mut rooms = Vec::with_capacity(positions.len());
        for RoomPosition { room, position } in positions {
            match (RoomName::parse(room), Position::parse(position)) {
                (Ok(room), Ok(joined)) => rooms.push((room, Some(joined))),
                (Ok(room), Err(_)) if position.is_empty() => rooms.push((room, None)),
                _ => return self.begin_anew(key),
            }
        }
        // An offset that is older than each join need stand nowhere.
        let stands = |at: &Position| offset.is_some_and(|offset| offset.epoch == at.epoch && offset.seq > at.seq);
        let wanted = rooms.iter().any(|(_, joined)| joined.as_ref().is_some_and(stands));
        rooms.retain(|(_, joined)| joined.is_some() || wanted);
        let now = self.now;
        for (name, joined) in rooms {
            let room = self.room(&name);
            let Some(conn) = self.conns.get_mut(key) else { return };
            conn.joining.push(name);
            let replay = match (offset, joined) {
                (Some(offset), None) => Replay::behind(offset),
                (Some(offset), Some(joined)) if offset.epoch == joined.epoch && offset.seq > joined.seq => {
                    Replay::behind(offset)
                }
                (_, Some(joined)) => Replay::from(joined),
                (None, None) => continue,
            };
            let joining = Joining::new(key, id, conn.identity.variant, Purpose::Recover, true, now);
            if let Some(room) = self.rooms.get_mut(room) {
                room.joining.push(joining.with(Some(replay)));
            }
            if let Some(recovery) = self.recoveries.get_mut(&key) {
                recovery.rooms.push((room, joined));
            }
        }
        let waits: Vec<RoomId> = self.recoveries.get(&key).map_or(&[][..], |r| &r.rooms).iter().map(|r| r.0).collect();
        for room in waits {
            self.finish_joins(room);
        }
        self.finish_recovery(key);
    }

    /// Enters all rooms of a session that continues, when each of them is complete at this instant.
    pub(super) fn finish_recovery(&mut self, key: ConnKey) {
        let Some(recovery) = self.recoveries.get(&key) else { return };
        let now = self.now;
        let (mut anchored, mut found, mut lost, mut events) = (false, None, false, 0);
        let (mut complete, mut reads, mut hints) = (true, Vec::new(), Vec::new());
        let mut furthest = 0;
        for &(id, joined) in &recovery.rooms {
            let Some(room) = self.rooms.get_mut(id) else { return };
            furthest = furthest.max(room.shown.seq);
            let behind = room.shards[usize::from(key.shard)].behind.is_some();
            let joinable = room.sequencer.is_joinable();
            let Some(joining) = room.joining.iter_mut().find(|joining| joining.to == key) else { return };
            let Some(replay) = &mut joining.replay else { return };
            let step = if joinable { replay.advance(&room.sequencer, now) } else { Step::Wait };
            match step {
                Step::Ready => {}
                Step::Read(seq) => {
                    let room = room.name.clone();
                    reads.push((id, ReadKey { room, before: false, seq, at_least: 0, limit: 128 }));
                }
                Step::Hint(seq) => hints.push((id, seq)),
                Step::Wait => {}
            }
            complete &= step == Step::Ready && !behind;
            found = found.or(replay.found());
            // Of a room that was left nothing is missed.
            if joined.is_some() {
                lost |= replay.reset().is_some();
                anchored |= replay.has_anchor();
                events += replay.len();
            }
        }
        // With several rooms the last event of the replay is an offset in each of them.
        let several = recovery.rooms.len() > 1;
        let whole = !several || recovery.rooms.iter().all(|(id, _)| self.offsets.is_complete(*id, furthest));
        // Another room's event may have been lost in the election, and stand before the offset unseen.
        let doubtful = found.is_some_and(|time| self.watch.is_near_election(time));
        if lost || events > REPLAY || doubtful || complete && anchored && found.is_none() {
            return self.begin_anew(key);
        }
        for (id, read) in reads {
            self.read(read, super::hub::Waiter::Joins(id));
        }
        for (id, seq) in hints {
            self.with_sequencer(id, |sequencer, now, out| sequencer.on_hint(seq, now, out));
        }
        if complete
            && whole
            && let Some(recovery) = self.recoveries.remove(&key)
        {
            self.enter_all(key, recovery);
        }
    }

    fn enter_all(&mut self, key: ConnKey, recovery: Recovery) {
        let (mut joined, mut missed) = (Vec::with_capacity(recovery.rooms.len()), Vec::new());
        for (id, kept) in recovery.rooms {
            let (Some(room), Some(conn)) = (self.rooms.get_mut(id), self.conns.get_mut(key)) else { continue };
            let variant = conn.identity.variant;
            let Some(place) = room.joining.iter().position(|joining| joining.to == key) else { continue };
            let joining = room.joining.swap_remove(place);
            conn.joining.retain(|name| *name != room.name);
            let Some(kept) = kept else {
                self.release_later(id);
                continue;
            };
            room.enter(key, variant);
            conn.rooms.push((id, kept));
            if let Some(replay) = joining.replay {
                missed.extend(replay.frames(&room.name, variant, |_| Mark::Offset));
            }
            let (name, position) = (room.name.clone(), room.shown);
            self.appear(key, id);
            self.check_tail_soon(id);
            let members = self.rooms.get(id).map_or(0, super::room::Room::present);
            let (replay, reset) = (Vec::new(), None);
            joined.push(Joined { room: name, id, position, members, recovered: true, replay, reset });
        }
        chaos::step(chaos::Step::Replaying);
        missed.sort_by_key(|(seq, _)| *seq);
        let mut frames = Vec::with_capacity(missed.iter().map(|(_, frame)| frame.len()).sum());
        missed.iter().for_each(|(_, frame)| frames.extend_from_slice(frame));
        self.recovered(key, recovery.id, "complete");
        self.opened(key, recovery.id, true, joined, frames.into());
    }

    /// Something that the client has missed is gone: the old session ends, and a new one begins.
    fn begin_anew(&mut self, key: ConnKey) {
        let Some(Recovery { id, home, fresh, .. }) = self.recoveries.remove(&key) else { return };
        self.recovered(key, id, "incomplete");
        self.leave_queues(key);
        let Some(conn) = self.conns.get(key) else { return };
        let session_id = conn.identity.session.to_string();
        let close = Close { session_id, generation: conn.generation, recoverable_ms: 0, pid: String::new() };
        self.session.owe(Op { op: Some(op::Op::Close(close)) });
        let Some(conn) = self.conns.assume(key, fresh) else { return };
        (conn.open, conn.generation, conn.username, conn.pid) = (false, 0, None, None);
        self.open(key, id, home);
    }

    /// Counts what came of the wish to continue a session, and tells its trace.
    pub(super) fn recovered(&mut self, key: ConnKey, id: u32, result: &'static str) {
        self.metrics.recovered(result);
        self.traces.recovered(key, id, result);
    }

    /// A session goes on with another connection: the one that had it here ends.
    pub(super) fn replace(&mut self, old: ConnKey) {
        let Some(conn) = self.forget(old) else { return };
        let control = Control::Replaced { to: old, session: conn.identity.session };
        self.outlets[usize::from(old.shard)].send(Inbound::Control(control));
    }
}
