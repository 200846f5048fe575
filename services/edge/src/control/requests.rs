//! What connections want, and what they are answered.

use super::conns::{Conn, MAX_ROOMS};
use super::hub::{Hub, Waiter};
use super::joins::Joining;
use super::room::Rooms;
use crate::bridge::Op as Wish;
use crate::bridge::{ConnKey, HistoryFrom, Inbound, Joined, Reply, Request, RoomId, Variant};
use crate::feed::sequencer;
use crate::upstream::publish::{Origin, Resolved};
use crate::upstream::read::ReadKey;
use plaza_proto::code::Code;
use plaza_proto::event::Event;
use plaza_proto::event::event::Kind;
use plaza_proto::fanout::publish_item::Target;
use plaza_proto::fanout::{PublishItem, ReadResponse};
use plaza_proto::ids::{MessageId, RoomName};
use plaza_proto::position::Position;
use plaza_proto::session::{Close, JoinRoom, LeaveRoom, ListMembersResponse, Op, Open, Rename, Session, op};
use std::sync::Arc;

/// Members that an answer to [`Wish::Who`] names.
const WHO: usize = 200;

/// Who waits for an operation of the session service.
#[derive(Debug)]
pub(super) enum Asked {
    /// A connection opens, and joins this room then.
    Open(ConnKey, u32, Option<RoomName>),
    /// A connection takes a name.
    Rename(ConnKey, u32),
}

impl Asked {
    /// Whose request it is.
    fn from(&self) -> (ConnKey, u32) {
        match self {
            Self::Open(key, id, _) | Self::Rename(key, id) => (*key, *id),
        }
    }
}

impl Hub {
    pub(super) fn on_request(&mut self, request: Request) {
        let Request { from, id, identity, op, trace } = request;
        if let Some(root) = trace {
            self.traces.begin(from, id, root, &op);
        }
        match op {
            Wish::Open { room, resume: _ } => {
                if self.conns.insert(from, identity) {
                    self.open(from, id, room);
                } else {
                    self.fail(from, id, Code::BadRequest, "the session is open already");
                }
            }
            Wish::Close { rooms: _, recoverable: _ } => self.close_session(from),
            _ if self.conns.get(from).is_none_or(|conn| !conn.open) => {
                self.fail(from, id, Code::BadRequest, "the session is not open yet");
            }
            Wish::SetUsername { username } => self.set_username(from, id, username),
            Wish::Join { room, after, username: _ } => self.join(from, id, &room, after, false),
            Wish::Leave { room } => self.leave(from, id, room),
            Wish::Publish { room, event, retry, trace: _ } => self.publish(from, id, room, *event, retry),
            Wish::Typing { room, username } => self.typing(from, room, &username),
            Wish::History { room, from: place, limit } => self.history(from, id, room, place, limit),
            Wish::Who { room } => match self.member_of(from, room) {
                Some(name) => self.reader.members(from, id, name),
                None => self.fail(from, id, Code::NotJoined, Code::NotJoined.english()),
            },
        }
    }

    /// The room's name, when this connection is a member.
    fn member_of(&self, key: ConnKey, id: RoomId) -> Option<RoomName> {
        self.conns.get(key)?.rooms.contains(&id).then(|| self.rooms.get(id).map(|room| room.name.clone()))?
    }

    pub(super) fn reply(&mut self, to: ConnKey, id: u32, mut reply: Reply) {
        let error = if let Reply::Failed { code, .. } = &reply { Some(code.as_str()) } else { None };
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

    fn ask(&mut self, op: op::Op, asked: Asked) -> Result<(), Code> {
        self.next_ask += 1;
        let context = self.traces.context(asked.from().0, asked.from().1);
        self.session.ask(Op { op: Some(op) }, self.next_ask, context)?;
        self.asked.insert(self.next_ask, asked);
        Ok(())
    }

    fn open(&mut self, key: ConnKey, id: u32, room: Option<RoomName>) {
        let Some(conn) = self.conns.get(key) else { return };
        if let Err(code) = self.ask(op::Op::Open(open_op(conn)), Asked::Open(key, id, room)) {
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
    pub(super) fn on_applied(&mut self, tag: u64, result: Result<Option<Session>, (Code, String)>) {
        self.session.answered();
        match (self.asked.remove(&tag), result) {
            (Some(Asked::Open(key, id, room)), Ok(_)) => match (self.conns.get_mut(key), room) {
                // Closed before it was open: the close came to nothing then.
                (None, _) => {}
                (Some(conn), Some(room)) => {
                    conn.open = true;
                    self.join(key, id, &room, None, true);
                }
                (Some(conn), None) => {
                    conn.open = true;
                    self.reply(key, id, Reply::Opened { username: None, resumed: false, ticket: None, joined: None });
                }
            },
            (Some(Asked::Open(key, id, _)), Err((code, message))) => {
                self.close_session(key);
                self.fail(key, id, code, message);
            }
            (Some(Asked::Rename(key, id)), Ok(session)) => {
                let username: Arc<str> = session.map(|session| session.username).unwrap_or_default().into();
                self.rename(key, &username);
                self.reply(key, id, Reply::Renamed(username));
            }
            (Some(Asked::Rename(key, id)), Err((code, message))) => self.fail(key, id, code, message),
            (None, _) => {}
        }
    }

    fn join(&mut self, key: ConnKey, id: u32, name: &RoomName, after: Option<Position>, opens: bool) {
        let now = self.now;
        let Some(conn) = self.conns.get(key) else { return };
        if conn.rooms.len() + conn.joining.len() >= MAX_ROOMS {
            return self.fail(key, id, Code::TooManyRooms, Code::TooManyRooms.english());
        }
        if conn.joining.contains(name) {
            return self.fail(key, id, Code::BadRequest, "a join of this room is on its way already");
        }
        let variant = conn.identity.variant;
        if let Some(room) = self.rooms.named(name).and_then(|room| self.rooms.get(room))
            && conn.rooms.contains(&room.id)
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
            room.joining.push(Joining::new(key, id, variant, opens, after, now));
        }
        self.finish_joins(room);
    }

    /// The room of this name; begins to hear it when nobody here did.
    fn room(&mut self, name: &RoomName) -> RoomId {
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
        conn.rooms.retain(|joined| *joined != room);
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

    /// A connection is gone: its memberships and its half-done joins with it.
    pub(super) fn close_session(&mut self, key: ConnKey) {
        let Some(conn) = self.conns.remove(key) else { return };
        self.traces.forget(key);
        for name in &conn.joining {
            let Some(id) = self.rooms.named(name) else { continue };
            if let Some(room) = self.rooms.get_mut(id) {
                room.joining.retain(|joining| joining.to != key);
            }
            self.release_later(id);
        }
        for &room in &conn.rooms {
            self.part(key, room, conn.identity.variant);
            self.vanish(&conn.user_id, conn.username.is_some(), room);
        }
        let close = Close { session_id: conn.identity.session.to_string(), generation: 0, recoverable_ms: 0 };
        self.session.owe(Op { op: Some(op::Op::Close(close)) });
    }

    fn publish(&mut self, key: ConnKey, id: u32, room: RoomId, mut event: Event, retry: bool) {
        let Some(name) = self.member_of(key, room) else {
            return self.fail(key, id, Code::NotJoined, Code::NotJoined.english());
        };
        let Some(conn) = self.conns.get(key) else { return };
        event.version = 1;
        event.user_id = conn.user_id.to_string();
        if event.client_id.is_empty() {
            // Drawn here, so that sending it again over another stream is harmless.
            event.client_id = MessageId(rand::random()).to_string();
        }
        let item = PublishItem {
            tag: 0,
            target: Some(Target::Room(name.as_str().to_owned())),
            event: Some(event),
            retry,
            volatile: false,
            traceparent: self.traces.publish(key, id),
        };
        if let Err(code) = self.link.submit(item, key, id, room, self.now) {
            self.metrics.published(Err(code));
            self.fail(key, id, code, code.english());
        }
    }

    /// Publishes have come to an end.
    pub(super) fn on_resolved(&mut self, resolved: &mut Vec<Resolved>) {
        for Resolved { origin, result, sends } in resolved.drain(..) {
            let Origin::Conn { to, id, .. } = origin else { continue };
            self.traces.published(to, id, result.as_ref().err().map(|(code, _)| code.as_str()), sends);
            self.metrics.published(result.as_ref().map(|_| ()).map_err(|(code, _)| *code));
            let reply = match result {
                Ok(stored) => match (Position::parse(&stored.position), MessageId::parse(&stored.id)) {
                    (Ok(position), Some(id)) => {
                        Reply::Published { position, id, duplicate: stored.duplicate, trace: None }
                    }
                    _ => Reply::Failed { code: Code::Internal, message: Code::Internal.english().to_owned() },
                },
                Err((code, message)) => Reply::Failed { code, message },
            };
            self.reply(to, id, reply);
        }
    }

    /// Tells the others, through the store, that somebody types. The sender's place travels along, so
    /// that its own edge leaves it out.
    fn typing(&mut self, key: ConnKey, room: RoomId, username: &str) {
        let (Some(name), Some(conn)) = (self.member_of(key, room), self.conns.get(key)) else { return };
        let event = Event {
            version: 1,
            kind: Kind::Typing.into(),
            user_id: conn.user_id.to_string(),
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

    pub(super) fn on_history(&mut self, to: ConnKey, id: u32, result: &Result<Arc<ReadResponse>, Code>) {
        let reply = match result {
            Ok(answer) => match sequencer::parse(answer) {
                Some((epoch, events)) => {
                    let events = events.iter().filter_map(|stored| super::encode::decode(stored, epoch)).collect();
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

fn open_op(conn: &Conn) -> Open {
    let protocol = match conn.identity.variant {
        Variant::TextZh | Variant::TextEn | Variant::Event => "socketio",
        Variant::PlazaJson => "plaza-json",
        Variant::PlazaProto => "plaza-proto",
    };
    Open {
        session_id: conn.identity.session.to_string(),
        user_id: conn.user_id.to_string(),
        protocol: protocol.to_owned(),
        pid: String::new(),
        username: conn.username.as_deref().unwrap_or_default().to_owned(),
    }
}

/// What tells a session anew: itself, its name, its rooms.
pub(super) fn session_ops(conn: &Conn, rooms: &Rooms) -> Vec<Op> {
    let session_id = conn.identity.session.to_string();
    let mut ops = vec![Op { op: Some(op::Op::Open(open_op(conn))) }];
    for room in conn.rooms.iter().filter_map(|id| rooms.get(*id)) {
        let join = JoinRoom {
            session_id: session_id.clone(),
            room: room.name.as_str().to_owned(),
            position: room.shown.to_string(),
        };
        ops.push(Op { op: Some(op::Op::Join(join)) });
    }
    ops
}
