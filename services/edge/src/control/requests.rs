//! What connections want, and what they are answered.

use super::conns::{Conn, MAX_ROOMS};
use super::hub::{Hub, Waiter};
use super::joins::{Joining, Purpose};
use super::recovery::Resuming;
use super::replay::Replay;
use super::room::Rooms;
use crate::bridge::Op as Wish;
use crate::bridge::{ConnKey, HistoryFrom, Inbound, Joined, Reply, Request, RoomId, SessionId, Variant};
use crate::feed::sequencer;
use crate::upstream::admission::Class;
use crate::upstream::publish::{Origin, Resolved};
use crate::upstream::read::ReadKey;
use crate::upstream::session::Applied;
use crate::wire::plaza::client_event;
use bytes::Bytes;
use plaza_kit::chaos::{self, Step};
use plaza_proto::batch::Stored;
use plaza_proto::code::Code;
use plaza_proto::event::Event;
use plaza_proto::event::event::Kind;
use plaza_proto::fanout::publish_item::Target;
use plaza_proto::fanout::{PublishItem, ReadResponse};
use plaza_proto::ids::RoomName;
use plaza_proto::position::Position;
use plaza_proto::session::{Close, JoinRoom, LeaveRoom, ListMembersResponse, Op, Open, Rename, op};
use std::sync::Arc;
use std::time::Duration;

/// Members that an answer to [`Wish::Who`] names.
const WHO: usize = 200;

/// Who waits for an operation of the session service.
#[derive(Debug)]
pub(super) enum Asked {
    /// A connection opens, and joins this room then.
    Open(ConnKey, u32, Option<RoomName>),
    /// A connection takes a name.
    Rename(ConnKey, u32),
    /// A connection continues an earlier session.
    Recover(Resuming),
    /// A session that continues by its ticket alone is told to the session service.
    Late(ConnKey, SessionId),
    /// A membership is written into the session's record.
    Join {
        /// Who joins.
        to: ConnKey,
        /// The request's id.
        id: u32,
        /// The room.
        room: RoomId,
        /// Which room of this number.
        born: u64,
        /// From where a replay would begin.
        position: Position,
    },
}

impl Asked {
    /// Whose request it is.
    fn from(&self) -> (ConnKey, u32) {
        match self {
            Self::Open(key, id, _) | Self::Rename(key, id) | Self::Join { to: key, id, .. } => (*key, *id),
            Self::Recover(resuming) => resuming.from(),
            Self::Late(to, _) => (*to, 0),
        }
    }

    /// Whom it may hold up. A session that is told late is in already, and its end must not overtake it.
    fn class(&self) -> Class {
        match self {
            Self::Open(..) => Class::New,
            Self::Recover(_) => Class::Resume,
            Self::Rename(..) | Self::Late(..) | Self::Join { .. } => Class::Established,
        }
    }
}

impl Hub {
    pub(super) fn on_request(&mut self, request: Request) {
        let Request { from, id, identity, op, trace } = request;
        if let Some(root) = trace {
            self.traces.begin(from, id, root, &op);
        }
        if matches!(op, Wish::Open { .. }) {
            chaos::step(Step::Authenticated);
        }
        match op {
            Wish::Open { room, resume } => match (self.conns.insert(from, identity), resume) {
                (true, None) => self.open(from, id, room),
                (true, Some(resume)) => self.resume(from, id, room, resume),
                (false, _) => self.fail(from, id, Code::BadRequest, "the session is open already"),
            },
            Wish::Close { rooms: _, recoverable } => self.close_session(from, recoverable),
            _ if self.conns.get(from).is_none_or(|conn| !conn.open) => {
                self.fail(from, id, Code::BadRequest, "the session is not open yet");
            }
            Wish::SetUsername { username } => self.set_username(from, id, username),
            Wish::Join { room, after, username: _ } => self.join(from, id, &room, after, Purpose::Join),
            Wish::Leave { room } => self.leave(from, id, room),
            Wish::Publish { room, event, retry, trace: _ } => self.publish(from, id, room, *event, retry),
            Wish::Typing { room, username } => self.typing(from, room, &username),
            Wish::History { room, from: place, limit } => self.history(from, id, room, place, limit),
            Wish::Who { room } => match self.member_of(from, room) {
                Some(name) => self.reader.members(from, id, name, self.traces.context(from, id)),
                None => self.fail(from, id, Code::NotJoined, Code::NotJoined.english()),
            },
        }
    }

    /// The room's name, when this connection is a member.
    fn member_of(&self, key: ConnKey, id: RoomId) -> Option<RoomName> {
        self.conns.get(key)?.is_in(id).then(|| self.rooms.get(id).map(|room| room.name.clone()))?
    }

    pub(super) fn reply(&mut self, to: ConnKey, id: u32, mut reply: Reply) {
        let error = if let Reply::Failed { code, .. } = &reply { Some(code.as_str()) } else { None };
        if let Reply::Opened { resumed: true, .. } = &reply {
            self.traces.resumed(to, id);
        }
        let asked = self.traces.end(to, id, error);
        if let Reply::Published { trace, .. } = &mut reply {
            *trace = asked;
        }
        if id != 0
            && let Some(outlet) = self.outlets.get(usize::from(to.shard))
        {
            outlet.send(Inbound::Reply { to, id, reply });
        }
    }

    pub(super) fn fail(&mut self, to: ConnKey, id: u32, code: Code, message: impl Into<String>) {
        self.reply(to, id, Reply::Failed { code, message: message.into() });
    }

    pub(super) fn ask(&mut self, op: op::Op, asked: Asked) -> Result<(), Code> {
        self.next_ask += 1;
        let context = self.traces.context(asked.from().0, asked.from().1);
        let class = asked.class();
        let result = self.session.ask(class, Op { op: Some(op) }, self.next_ask, context);
        self.metrics.admitted(class, result.is_ok());
        result?;
        self.asked.insert(self.next_ask, asked);
        Ok(())
    }

    /// Stores a new session.
    pub(super) fn open(&mut self, key: ConnKey, id: u32, room: Option<RoomName>) {
        let recoverable = self.recovery_ms > 0;
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.pid = recoverable.then(SessionId::random);
        let open = open_op(conn, conn.pid);
        if let Err(code) = self.ask(op::Op::Open(open), Asked::Open(key, id, room)) {
            self.conns.remove(key);
            self.fail(key, id, code, code.english());
        }
    }

    fn set_username(&mut self, key: ConnKey, id: u32, username: String) {
        let Some(conn) = self.conns.get(key) else { return };
        let rename = Rename { session_id: conn.identity.session.to_string(), username };
        if let Err(code) = self.ask(op::Op::Rename(rename), Asked::Rename(key, id)) {
            self.fail(key, id, code, code.english());
        }
    }

    /// The session service has applied something, or has not.
    pub(super) fn on_applied(&mut self, tag: u64, result: Result<Applied, (Code, String)>) {
        let asked = self.asked.remove(&tag);
        if matches!(asked, Some(Asked::Open(..) | Asked::Recover(_))) {
            chaos::step(Step::Leased);
        }
        match (asked, result) {
            (Some(Asked::Open(key, id, room)), Ok(Applied { session, .. })) => {
                // Closed before it was open: the close came to nothing then.
                let Some(conn) = self.conns.get_mut(key) else { return };
                conn.open = true;
                conn.generation = session.map_or(0, |session| session.generation);
                match room {
                    Some(room) => self.join(key, id, &room, None, Purpose::Open),
                    None => self.opened(key, id, false, Vec::new(), Bytes::new()),
                }
            }
            (Some(Asked::Open(key, id, _)), Err((code, message))) => {
                self.close_session(key, false);
                self.fail(key, id, code, message);
            }
            (Some(Asked::Rename(key, id)), Ok(Applied { session, .. })) => {
                let username: Arc<str> = session.map(|session| session.username).unwrap_or_default().into();
                self.rename(key, &username);
                let ticket = self.ticket(key);
                self.reply(key, id, Reply::Renamed { username, ticket });
            }
            (Some(Asked::Rename(key, id)), Err((code, message))) => self.fail(key, id, code, message),
            (Some(Asked::Recover(resuming)), result) => self.on_recover(resuming, result),
            (Some(Asked::Late(key, session)), result) => self.on_told(key, session, result),
            (Some(Asked::Join { to, id, room, born, position }), result) => {
                let result = result.map(|_| ()).map_err(|(code, _)| code);
                self.on_recorded((to, id), (room, born), position, result);
            }
            (None, _) => {}
        }
    }

    /// Some connection waits to continue a session that may be on its way here already.
    pub(super) fn is_resuming(&self) -> bool {
        self.asked.values().any(|asked| matches!(asked, Asked::Recover(_)))
    }

    fn join(&mut self, key: ConnKey, id: u32, name: &RoomName, after: Option<Position>, purpose: Purpose) {
        let now = self.now;
        let Some(conn) = self.conns.get(key) else { return };
        if conn.rooms.len() + conn.joining.len() >= MAX_ROOMS {
            return self.fail(key, id, Code::TooManyRooms, Code::TooManyRooms.english());
        }
        if conn.joining.contains(name) {
            return self.fail(key, id, Code::BadRequest, "a join of this room is on its way already");
        }
        let (variant, recorded) = (conn.identity.variant, conn.pid.is_some());
        if let Some(room) = self.rooms.named(name).and_then(|room| self.rooms.get(room))
            && conn.is_in(room.id)
        {
            let joined = Joined {
                room: name.clone(),
                id: room.id,
                position: room.shown,
                members: room.present(),
                recovered: false,
                replay: Vec::new(),
                reset: None,
            };
            return self.reply(key, id, Reply::Joined(joined));
        }
        let room = self.room(name);
        if let Some(conn) = self.conns.get_mut(key) {
            conn.joining.push(name.clone());
        }
        if let Some(room) = self.rooms.get_mut(room) {
            let joining = Joining::new(key, id, variant, purpose, recorded, now);
            room.joining.push(joining.with(after.map(Replay::new)));
        }
        self.finish_joins(room);
    }

    /// The room of this name; begins to hear it when nobody here did.
    pub(super) fn room(&mut self, name: &RoomName) -> RoomId {
        if let Some(id) = self.rooms.named(name) {
            return id;
        }
        let mut actions = Vec::new();
        let id = self.rooms.add(name, self.outlets.len(), self.now, &mut actions);
        self.feed.subscribe(name);
        self.carry_out(id, &mut actions);
        id
    }

    fn leave(&mut self, key: ConnKey, id: u32, room: RoomId) {
        let Some(name) = self.member_of(key, room) else {
            return self.fail(key, id, Code::NotJoined, Code::NotJoined.english());
        };
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.rooms.retain(|(joined, _)| *joined != room);
        let leave = LeaveRoom { session_id: conn.identity.session.to_string(), room: name.as_str().to_owned() };
        let (variant, user_id, named) = (conn.identity.variant, conn.user_id.clone(), conn.username.is_some());
        self.session.owe(Op { op: Some(op::Op::Leave(leave)) });
        self.part(key, room, variant);
        self.vanish(&user_id, named, room);
        self.reply(key, id, Reply::Left);
    }

    fn part(&mut self, key: ConnKey, id: RoomId, variant: Variant) {
        let Some(room) = self.rooms.get_mut(id) else { return };
        room.exit(key, variant);
        self.release_later(id);
    }

    /// A connection is gone: its memberships and its half-done joins with it. `recoverable`: its session
    /// can be continued for a while.
    pub(super) fn close_session(&mut self, key: ConnKey, recoverable: bool) {
        let Some(conn) = self.forget(key) else { return };
        let recoverable = recoverable && conn.open && conn.pid.is_some();
        let session_id = conn.identity.session.to_string();
        if !conn.open
            && let Some(tag) = self.session.withdraw_open(&session_id)
        {
            // Nobody has heard of it.
            self.asked.remove(&tag);
            return;
        }
        let close = Close {
            session_id,
            generation: conn.generation,
            recoverable_ms: if recoverable { self.recovery_ms } else { 0 },
            pid: String::new(),
        };
        self.session.owe(Op { op: Some(op::Op::Close(close)) });
    }

    /// Forgets a connection and where it is a member.
    pub(super) fn forget(&mut self, key: ConnKey) -> Option<Box<Conn>> {
        self.leave_queues(key);
        self.recoveries.remove(&key);
        let conn = self.conns.remove(key)?;
        self.traces.forget(key);
        for &(room, _) in &conn.rooms {
            self.part(key, room, conn.identity.variant);
            self.vanish(&conn.user_id, conn.username.is_some(), room);
        }
        Some(conn)
    }

    /// A connection no longer waits to enter any room.
    pub(super) fn leave_queues(&mut self, key: ConnKey) {
        let joining = self.conns.get_mut(key).map(|conn| std::mem::take(&mut conn.joining)).unwrap_or_default();
        for id in joining.iter().filter_map(|name| self.rooms.named(name)).collect::<Vec<_>>() {
            if let Some(room) = self.rooms.get_mut(id) {
                room.joining.retain(|joining| joining.to != key);
            }
            self.release_later(id);
        }
    }

    fn publish(&mut self, key: ConnKey, id: u32, room: RoomId, mut event: Event, retry: bool) {
        let Some(name) = self.member_of(key, room) else {
            return self.fail(key, id, Code::NotJoined, Code::NotJoined.english());
        };
        chaos::step(Step::Received);
        let Some(conn) = self.conns.get(key) else { return };
        event.version = 1;
        event.user_id = (*conn.user_id).to_owned();
        // Drawn here, so that sending it again over another stream is harmless.
        let message_id = if event.client_id.is_empty() {
            Bytes::copy_from_slice(&rand::random::<u128>().to_ne_bytes())
        } else {
            Bytes::new()
        };
        let item = PublishItem {
            tag: 0,
            target: Some(Target::Room(name.as_str().to_owned())),
            event: Some(event),
            retry,
            volatile: false,
            traceparent: self.traces.publish(key, id),
            message_id,
        };
        if let Err(code) = self.link.submit(item, key, id, room, self.now) {
            self.metrics.refused(code);
            self.fail(key, id, code, code.english());
        }
    }

    /// Publishes have come to an end.
    pub(super) fn on_resolved(&mut self, resolved: &mut Vec<Resolved>) {
        for Resolved { origin, result, sends, since } in resolved.drain(..) {
            let Origin::Conn { to, id, .. } = origin else { continue };
            let trace = self.traces.published(to, id, result.as_ref().err().map(|(code, _)| code.as_str()), sends);
            let took = Duration::from_millis(self.now.saturating_sub(since));
            self.metrics.published(result.as_ref().map(|_| ()).map_err(|(code, _)| *code), took, trace);
            let reply = match result {
                // Nobody waits.
                Ok(_) if id == 0 => {
                    let _asked = self.traces.end(to, id, None);
                    continue;
                }
                Ok(Some(Stored { position, id, duplicate })) => {
                    Reply::Published { position, id, duplicate, trace: None }
                }
                // A client's event is always one to store.
                Ok(None) => Reply::Failed { code: Code::Internal, message: Code::Internal.english().to_owned() },
                Err((code, message)) => Reply::Failed { code, message },
            };
            self.reply(to, id, reply);
            chaos::step(Step::Answered);
        }
    }

    /// Tells the others, through the store, that somebody types. The sender's place travels along, so
    /// that its own edge leaves it out.
    fn typing(&mut self, key: ConnKey, room: RoomId, username: &str) {
        let (Some(name), Some(conn)) = (self.member_of(key, room), self.conns.get(key)) else { return };
        let event = Event {
            version: 1,
            kind: Kind::Typing.into(),
            user_id: (*conn.user_id).to_owned(),
            username: username.to_owned(),
            client_id: self.sender_text(key),
            ..Event::default()
        };
        let item = PublishItem {
            target: Some(Target::Room(name.as_str().to_owned())),
            event: Some(event),
            volatile: true,
            ..PublishItem::default()
        };
        self.link.offer(item, self.now);
    }

    fn history(&mut self, key: ConnKey, id: u32, room: RoomId, from: HistoryFrom, limit: u32) {
        let Some(name) = self.member_of(key, room) else {
            return self.fail(key, id, Code::NotJoined, Code::NotJoined.english());
        };
        let epoch = self.rooms.get(room).map(|room| room.sequencer.position().epoch);
        let (before, seq) = match from {
            HistoryFrom::Newest => (true, u64::MAX),
            HistoryFrom::Before(position) | HistoryFrom::After(position) if Some(position.epoch) != epoch => {
                return self.fail(key, id, Code::BadPosition, Code::BadPosition.english());
            }
            HistoryFrom::Before(position) => (true, position.seq),
            HistoryFrom::After(position) => (false, position.seq),
        };
        let key_ = ReadKey { room: name, before, seq, at_least: 0, limit: limit.clamp(1, 100) };
        self.read(key_, Waiter::History(key, id));
    }

    pub(super) fn on_history(
        &mut self,
        to: ConnKey,
        id: u32,
        room: &RoomName,
        result: &Result<Arc<ReadResponse>, Code>,
    ) {
        let reply = match result {
            Ok(answer) => match sequencer::parse(answer) {
                Some((epoch, events)) => {
                    let shown = events.iter().filter_map(|stored| super::encode::decode(stored, epoch));
                    let events = shown.map(|event| client_event(room, &event, None)).collect();
                    Reply::History { events, more: !answer.complete }
                }
                None => Reply::Failed { code: Code::Internal, message: Code::Internal.english().to_owned() },
            },
            Err(code) => Reply::Failed { code: *code, message: code.english().to_owned() },
        };
        self.reply(to, id, reply);
    }

    pub(super) fn on_members(
        &mut self,
        to: ConnKey,
        id: u32,
        name: &RoomName,
        result: Result<ListMembersResponse, Code>,
    ) {
        let reply = match result {
            Ok(page) => {
                let mut count = page.count;
                let mut members: Vec<_> = page.members.into_iter().map(|m| (m.username, m.user_id)).collect();
                if let Some(room) = self.rooms.named(name).and_then(|id| self.rooms.get_mut(id)) {
                    // Who has come a moment ago is here, though the service may not know it yet.
                    for (user_id, user) in room.users.iter().filter(|(_, user)| user.connections > 0) {
                        if members.len() < WHO && members.iter().all(|(_, known)| **known != **user_id) {
                            members.push((user.username.to_string(), user_id.to_string()));
                            count += 1;
                        }
                    }
                    room.counted = count;
                }
                Reply::Members { count, members }
            }
            Err(code) => Reply::Failed { code, message: code.english().to_owned() },
        };
        self.reply(to, id, reply);
    }
}

/// A session as it is told to the session service.
pub(super) fn open_op(conn: &Conn, pid: Option<SessionId>) -> Open {
    let protocol = match conn.identity.variant {
        Variant::TextZh | Variant::TextEn | Variant::Event => "socketio",
        Variant::PlazaJson => "plaza-json",
        Variant::PlazaProto => "plaza-proto",
    };
    Open {
        session_id: conn.identity.session.to_string(),
        user_id: (*conn.user_id).to_owned(),
        protocol: protocol.to_owned(),
        pid: pid.map(|pid| pid.to_string()).unwrap_or_default(),
        username: conn.username.as_deref().unwrap_or_default().to_owned(),
    }
}

/// What tells a session anew: itself, its name, its rooms.
pub(super) fn session_ops(conn: &Conn, rooms: &Rooms) -> Vec<Op> {
    let session_id = conn.identity.session.to_string();
    let mut ops = vec![Op { op: Some(op::Op::Open(open_op(conn, conn.pid))) }];
    for (room, position) in conn.rooms.iter().filter_map(|(id, position)| Some((rooms.get(*id)?, position))) {
        let join = JoinRoom {
            session_id: session_id.clone(),
            room: room.name.as_str().to_owned(),
            position: position.to_string(),
        };
        ops.push(Op { op: Some(op::Op::Join(join)) });
    }
    ops
}
