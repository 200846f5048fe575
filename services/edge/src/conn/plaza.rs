//! Plaza's own protocol on a WebSocket: `hello` first, then any wish, each answered by its id.
//!
//! Frames that come before `welcome` wait, so that a client may send all it wants at once.

use super::member::{Marks, Member, Outcome, Page, Publishable, Tag};
use super::refusal::{Refusal, guest_user, locale_of};
use super::{Action, Cause, Close, Connection, Incoming, Millis, Packet, Settings};
use crate::bridge::{ConnKey, Control, Identity, Op, Reply, Resume, RoomId, SessionId, Variant};
use crate::trace::TraceWish;
use crate::wire::plaza::{BadFrame, Body, ClientFrame, Content, Hello, Publish, json, proto};
use plaza_proto::client::{self, ServerFrame, server_frame};
use plaza_proto::code::{Code, Locale};
use plaza_proto::position::Position;
use std::sync::Arc;

/// Frames that may wait for `welcome`, and their bytes.
const MAX_HELD: usize = 16;
const MAX_HELD_BYTES: usize = 16_384;
/// The request that opens the session; a member's own follow it.
const OPEN: u32 = 1;
/// Range of the time after which a client that must go comes back, in milliseconds.
const RECONNECT_MS: std::ops::Range<u32> = 100..3_000;
/// The same where there is no place now: a crowd that came back as soon would be refused again, and each handshake
/// costs. Up to what a stock Socket.IO client, which cannot be told, waits by itself.
const OVERLOADED_MS: std::ops::Range<u32> = 500..5_000;

/// How far the session has come.
#[derive(Debug)]
enum Session {
    /// `hello` is due.
    None,
    /// The hub is asked.
    Opening { identity: Arc<Identity>, tag: Tag, held: Vec<Box<[u8]>> },
    /// In.
    Open(Member),
}

/// The connection's state machine.
#[derive(Debug)]
pub struct PlazaConnection {
    settings: Arc<Settings>,
    json: bool,
    session: Session,
    closed: bool,
    awaiting_pong: bool,
    /// When the next ping leaves, or the pong is overdue.
    heartbeat: Millis,
    /// When `hello` is due, and then its answer.
    hello_deadline: Option<Millis>,
}

impl PlazaConnection {
    /// A connection that speaks JSON, or protobuf.
    pub fn new(settings: Arc<Settings>, json: bool) -> Self {
        Self {
            settings,
            json,
            session: Session::None,
            closed: false,
            awaiting_pong: false,
            heartbeat: Millis::MAX,
            hello_deadline: None,
        }
    }

    fn send(&self, tag: Tag, body: server_frame::Body, out: &mut Vec<Action>) {
        let frame = ServerFrame { id: tag.unwrap_or(0), body: Some(body) };
        out.push(Action::Send(if self.json {
            Packet::Text(json::encode(&frame).into())
        } else {
            Packet::Binary(proto::encode(&frame).into())
        }));
    }

    fn error(&self, tag: Tag, refusal: &Refusal, out: &mut Vec<Action>) {
        let locale = match &self.session {
            Session::None => Locale::En,
            Session::Opening { identity, .. } => identity.locale,
            Session::Open(member) => member.identity().locale,
        };
        let message = refusal.message(locale).to_owned();
        self.send(
            tag,
            server_frame::Body::Error(client::Error { code: refusal.code.as_str().to_owned(), message }),
            out,
        );
    }

    fn close(&mut self, code: Option<u16>, reason: &'static str, cause: Cause, out: &mut Vec<Action>) {
        self.closed = true;
        out.push(Action::Close(Close { code, reason, cause }));
    }

    /// There is no place now: the client comes back later.
    fn turn_away(&mut self, out: &mut Vec<Action>) {
        self.before_close(Cause::Unavailable, out);
        self.close(Some(4503), "overloaded", Cause::Unavailable, out);
    }

    fn on_bytes(&mut self, bytes: &[u8], now: Millis, out: &mut Vec<Action>) {
        if let Session::Opening { held, .. } = &mut self.session {
            let held_bytes: usize = held.iter().map(|frame| frame.len()).sum();
            if held.len() < MAX_HELD && held_bytes + bytes.len() <= MAX_HELD_BYTES {
                held.push(bytes.into());
            } else {
                self.close(Some(1008), "too many frames before welcome", Cause::Limit, out);
            }
            return;
        }
        let frame = if self.json {
            // The engine has checked text; only a held frame of the other kind could fail.
            std::str::from_utf8(bytes)
                .map_err(|_| BadFrame { id: 0, message: "not UTF-8".to_owned() })
                .and_then(json::decode)
        } else {
            proto::decode(bytes)
        };
        match frame {
            Ok(frame) => self.on_frame(frame, now, out),
            Err(BadFrame { id, message }) => self.error(tag_of(id), &Refusal::bad_request(message), out),
        }
    }

    fn on_frame(&mut self, frame: ClientFrame<'_>, now: Millis, out: &mut Vec<Action>) {
        let tag = tag_of(frame.id);
        let done = match (&self.session, frame.body) {
            (Session::None, Body::Hello(hello)) => self.hello(&hello, tag, now, out),
            (Session::None, _) => Err(Refusal::bad_request("the first frame is hello")),
            (_, Body::Hello(_)) => Err(Refusal::bad_request("hello comes once")),
            (_, body) => self.wish(&body, tag, now, out),
        };
        if let Err(refusal) = done {
            self.error(tag, &refusal, out);
        }
        self.dispatch(out);
    }

    fn hello(&mut self, hello: &Hello<'_>, tag: Tag, now: Millis, out: &mut Vec<Action>) -> Result<(), Refusal> {
        let identity = Arc::new(Identity {
            session: SessionId::random(),
            user_id: guest_user(&hello.guest)?,
            variant: if self.json { Variant::PlazaJson } else { Variant::PlazaProto },
            locale: locale_of(&hello.locale, Locale::En),
        });
        let resume = (!hello.resume.is_empty()).then(|| Resume::Ticket((*hello.resume).into()));
        out.push(Action::Request { id: OPEN, identity: Arc::clone(&identity), op: Op::Open { room: None, resume } });
        self.session = Session::Opening { identity, tag, held: Vec::new() };
        self.hello_deadline = Some(now + self.settings.open_timeout_ms);
        Ok(())
    }

    fn wish(&mut self, body: &Body<'_>, tag: Tag, now: Millis, out: &mut Vec<Action>) -> Result<(), Refusal> {
        let Session::Open(member) = &mut self.session else { return Err(Refusal::new(Code::Internal)) };
        match body {
            Body::Hello(_) => Err(Refusal::new(Code::Internal)),
            Body::SetUsername { username } => member.set_username(username, tag, now, out),
            Body::Join { room, after } => {
                if let Some((position, members)) = member.join(room, after, tag, now, out)? {
                    let body = joined(room, position, members, false);
                    self.send(tag, body, out);
                }
                Ok(())
            }
            Body::Leave { room } => member.leave(room, tag, now, out),
            Body::Publish(Publish { room: name, content, client_id, retry, trace, traceparent }) => {
                let content = match content {
                    Content::Text(text) => Publishable::Text(text),
                    Content::Data { kind, json } => Publishable::Data { kind, json },
                };
                let marks = Marks { client_id, retry: *retry, trace: TraceWish::new(*trace, traceparent) };
                member.publish(&member.room(name)?, content, marks, tag, now)
            }
            Body::Typing { room: name } => member.typing(&member.room(name)?, now, out),
            Body::History { room: name, before, after, limit } => {
                member.history(&member.room(name)?, Page { before, after, limit: *limit }, tag, now, out)
            }
            Body::Who { room: name } => member.who(&member.room(name)?, tag, now, out),
        }
    }

    fn opened(&mut self, reply: Reply, now: Millis, out: &mut Vec<Action>) {
        let Session::Opening { tag, held, .. } = std::mem::replace(&mut self.session, Session::None) else {
            return;
        };
        match reply {
            Reply::Opened { identity, username, resumed, ticket, .. } => {
                let welcome = client::Welcome {
                    session_id: identity.session.to_string(),
                    user_id: identity.user_id(),
                    username: username.as_deref().unwrap_or_default().to_owned(),
                    resumed,
                    ticket: ticket.map(String::from).unwrap_or_default(),
                    ping_interval_ms: u32::try_from(self.settings.ping_interval_ms).unwrap_or(u32::MAX),
                    max_message_bytes: u32::try_from(self.settings.max_message_bytes).unwrap_or(u32::MAX),
                };
                self.send(tag, server_frame::Body::Welcome(welcome), out);
                self.hello_deadline = None;
                self.session = Session::Open(Member::new(Arc::clone(&self.settings), identity, username, OPEN));
                for frame in held {
                    self.on_bytes(&frame, now, out);
                }
            }
            Reply::Failed { code, message } => {
                self.error(tag, &Refusal { code, detail: message }, out);
                match code {
                    Code::Unauthenticated | Code::Forbidden => {
                        self.close(Some(4401), "not authenticated", Cause::Unauthenticated, out);
                    }
                    _ => self.turn_away(out),
                }
            }
            _ => self.close(Some(1011), "internal error", Cause::Unavailable, out),
        }
    }

    fn dispatch(&mut self, out: &mut Vec<Action>) {
        while let Session::Open(member) = &mut self.session
            && let Some(outcome) = member.dispatch(out)
        {
            self.answer(outcome, out);
        }
    }

    fn answer(&mut self, outcome: Outcome, out: &mut Vec<Action>) {
        use server_frame::Body as B;
        match outcome {
            Outcome::Renamed(tag, username, ticket) => {
                let ticket = ticket.map(String::from).unwrap_or_default();
                self.send(tag, B::Ok(client::Ok { username: username.as_ref().to_owned(), ticket }), out)
            }
            Outcome::Left(tag, _) => self.send(tag, B::Ok(client::Ok::default()), out),
            Outcome::Joined { tag, joined: entry, after } => {
                self.send(tag, joined(entry.room.as_str(), entry.position, entry.members, entry.recovered), out);
                if let Some(reason) = entry.reset {
                    let reset = client::Reset {
                        room: entry.room.to_string(),
                        reason: reason.to_owned(),
                        from: after.map(|p| p.to_string()).unwrap_or_default(),
                        to: entry.position.to_string(),
                    };
                    self.send(None, B::Reset(reset), out);
                }
                if let Session::Open(member) = &mut self.session {
                    member.enter(entry, out);
                }
            }
            // Who gave no id waits for no answer; the event itself comes back like everyone's.
            Outcome::Published { tag: None, trace: None, .. } => {}
            Outcome::Published { tag, room, position, id, duplicate, trace } => {
                let (position, id) = (position.to_string(), id.to_string());
                let trace_id = trace.map(String::from).unwrap_or_default();
                let published = client::Published { room: room.to_string(), position, id, duplicate, trace_id };
                self.send(tag, B::Published(published), out);
            }
            Outcome::History { tag, room, events, more } => {
                self.send(tag, B::History(client::HistoryPage { room: room.to_string(), events, more }), out);
            }
            Outcome::Members { tag, room, count, members } => {
                let members =
                    members.into_iter().map(|(username, user_id)| client::Member { username, user_id }).collect();
                self.send(tag, B::Presence(client::Presence { room: room.to_string(), count, members }), out);
            }
            Outcome::Failed { tag, refusal, .. } => self.error(tag, &refusal, out),
        }
    }

    fn beat(&mut self, now: Millis, out: &mut Vec<Action>) {
        if self.awaiting_pong {
            self.close(None, "", Cause::PingTimeout, out);
            return;
        }
        self.awaiting_pong = true;
        out.push(Action::Ping);
        self.heartbeat = now + self.settings.ping_timeout_ms;
    }
}

fn tag_of(id: u64) -> Tag {
    (id != 0).then_some(id)
}

fn joined(room: &str, position: Position, members: u32, recovered: bool) -> server_frame::Body {
    server_frame::Body::Joined(client::Joined {
        room: room.to_owned(),
        position: position.to_string(),
        members,
        recovered,
    })
}

impl Connection for PlazaConnection {
    fn on_open(&mut self, _key: ConnKey, now: Millis, _out: &mut Vec<Action>) {
        self.heartbeat = now + self.settings.ping_interval_ms;
        self.hello_deadline = Some(now + self.settings.connect_timeout_ms);
    }

    fn on_message(&mut self, message: Incoming<'_>, now: Millis, out: &mut Vec<Action>) {
        if self.closed {
            return;
        }
        match (message, self.json) {
            (Incoming::Text(text), true) => self.on_bytes(text.as_bytes(), now, out),
            (Incoming::Binary(bytes), false) => self.on_bytes(bytes, now, out),
            (Incoming::Text(_), false) | (Incoming::Binary(_), true) => {
                self.close(Some(1003), "the other kind of message", Cause::Protocol, out);
            }
        }
    }

    fn on_pong(&mut self, now: Millis, _out: &mut Vec<Action>) {
        if self.awaiting_pong {
            self.awaiting_pong = false;
            self.heartbeat = now + self.settings.ping_interval_ms;
        }
    }

    fn on_reply(&mut self, id: u32, reply: Reply, now: Millis, out: &mut Vec<Action>) {
        if self.closed {
            return;
        }
        if matches!(self.session, Session::Opening { .. }) && id == OPEN {
            self.opened(reply, now, out);
            return;
        }
        let Session::Open(member) = &mut self.session else { return };
        if let Some(outcome) = member.on_reply(id, reply, now, out) {
            self.answer(outcome, out);
        }
        self.dispatch(out);
    }

    fn on_control(&mut self, control: &Control, _now: Millis, out: &mut Vec<Action>) {
        let Session::Open(member) = &mut self.session else { return };
        match control {
            Control::Close { session, reason, .. } if *session == member.identity().session && !self.closed => {
                let refusal = Refusal { code: Code::Forbidden, detail: reason.as_ref().to_owned() };
                self.error(None, &refusal, out);
                self.close(Some(4401), "closed by the operator", Cause::Kicked, out);
            }
            Control::Replaced { session, .. } if *session == member.identity().session && !self.closed => {
                self.close(Some(1000), "resumed on another connection", Cause::Replaced, out);
            }
            Control::Renamed { username, .. } => member.rename(Arc::clone(username)),
            Control::Close { .. }
            | Control::Replaced { .. }
            | Control::Reset { .. }
            | Control::Forget(_)
            | Control::Drain { .. }
            | Control::Shed { .. } => {}
        }
    }

    fn on_reset(&mut self, _room: RoomId, _now: Millis, _out: &mut Vec<Action>) {}

    fn on_deadline(&mut self, now: Millis, out: &mut Vec<Action>) {
        if self.closed {
            return;
        }
        if self.hello_deadline.is_some_and(|deadline| now >= deadline) {
            match self.session {
                Session::Opening { .. } => self.turn_away(out),
                _ => self.close(Some(1008), "no hello in time", Cause::ConnectTimeout, out),
            }
        } else if now >= self.heartbeat {
            self.beat(now, out);
        }
    }

    fn deadline(&self) -> Option<Millis> {
        if self.closed || self.heartbeat == Millis::MAX {
            return None;
        }
        Some(self.hello_deadline.map_or(self.heartbeat, |deadline| deadline.min(self.heartbeat)))
    }

    fn before_close(&mut self, cause: Cause, out: &mut Vec<Action>) {
        if matches!(cause, Cause::Drain | Cause::Shed | Cause::Slow | Cause::Unavailable) {
            let after_ms = fastrand::u32(if cause == Cause::Unavailable { OVERLOADED_MS } else { RECONNECT_MS });
            self.send(None, server_frame::Body::Reconnect(client::Reconnect { after_ms }), out);
        }
    }

    fn on_close(&mut self, cause: Cause, rooms: Vec<RoomId>, out: &mut Vec<Action>) {
        self.closed = true;
        let identity = match std::mem::replace(&mut self.session, Session::None) {
            Session::None => return,
            Session::Opening { identity, .. } => identity,
            Session::Open(member) => Arc::clone(member.identity()),
        };
        let recoverable = !matches!(cause, Cause::Kicked | Cause::Unauthenticated);
        out.push(Action::Request { id: 0, identity, op: Op::Close { rooms, recoverable } });
    }
}
