//! The chat in the Socket.IO namespace `/`: the tutorial's events and Plaza's own beside them.

use super::engineio::{close, text};
use super::member::{Marks, Member, Outcome, Page, Publishable, Tag, Wish};
use super::refusal::{Refusal, guest_user, locale_of, room};
use super::socketio::{Admission, Handler};
use super::{Action, Cause, Millis, Packet, Settings};
use crate::bridge::{Control, Identity, Op, Reply, Resume, RoomId, SessionId, Variant};
use crate::trace::TraceWish;
use crate::wire::json::ObjectWriter;
use crate::wire::plaza::json as plaza_json;
use crate::wire::socketio::{self, Arguments, lines};
use bytes::Bytes;
use plaza_proto::code::{Code, Locale};
use plaza_proto::ids::RoomName;
use plaza_proto::position::Position;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;

/// The room of clients that name none.
const LOBBY: &str = "lobby";

/// A string, borrowed when it has no escapes.
#[derive(Deserialize, Default)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// What CONNECT may bring; other keys are the application's own.
#[derive(Deserialize, Default)]
struct Auth<'a> {
    #[serde(borrow)]
    guest: Option<Text<'a>>,
    /// The outer one says whether the key is there: `null` is no room, nothing is the lobby.
    #[serde(borrow, default, deserialize_with = "present")]
    room: Option<Option<Text<'a>>>,
    #[serde(borrow)]
    locale: Option<Text<'a>>,
    #[serde(borrow)]
    format: Option<Text<'a>>,
    /// The stock client's own: of any type, since a wrong one is no error.
    #[serde(borrow)]
    pid: Option<&'a RawValue>,
    #[serde(borrow)]
    offset: Option<&'a RawValue>,
}

impl Auth<'_> {
    /// The session that the client asks for. What cannot be one is not asked for.
    fn resume(&self) -> Option<Resume> {
        let pid: Text<'_> = serde_json::from_str(self.pid?.get()).ok()?;
        let pid = SessionId::parse(&pid.0)?;
        let offset = match self.offset {
            None => None,
            Some(offset) => {
                let offset: Text<'_> = serde_json::from_str(offset.get()).ok()?;
                Some(Position::parse(&offset.0).ok()?)
            }
        };
        Some(Resume::Pid { pid, offset })
    }
}

fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Text<'a>>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// The fields of every event's object; absent texts are empty.
#[derive(Deserialize, Default)]
struct Fields<'a> {
    #[serde(borrow, default)]
    room: Option<Text<'a>>,
    #[serde(borrow, default)]
    text: Option<Text<'a>>,
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow, default)]
    after: Option<Text<'a>>,
    #[serde(borrow, default)]
    before: Option<Text<'a>>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    limit: Option<u32>,
    #[serde(default)]
    retry: Option<bool>,
    /// Asks for the trace's id in the ack.
    #[serde(default)]
    trace: Option<bool>,
    /// The W3C context of the client's own span.
    #[serde(borrow, default)]
    traceparent: Option<Text<'a>>,
}

/// The first argument of an event: a string, or an object.
enum Argument<'a> {
    Text(Cow<'a, str>),
    Fields(Box<Fields<'a>>),
}

impl<'a> Argument<'a> {
    fn read(json: Option<&'a str>) -> Result<Self, Refusal> {
        let wrong = |e: serde_json::Error| Refusal::bad_request(e.to_string());
        match json {
            Some(json) if json.starts_with('"') => {
                Ok(Self::Text(serde_json::from_str::<Text<'_>>(json).map_err(wrong)?.0))
            }
            Some(json) if json.starts_with('{') => Ok(Self::Fields(serde_json::from_str(json).map_err(wrong)?)),
            None => Ok(Self::Fields(Box::default())),
            Some(_) => Err(Refusal::bad_request("the first argument is a string or an object")),
        }
    }

    /// For events whose string form is a room.
    fn room_fields(self) -> Box<Fields<'a>> {
        match self {
            Self::Text(room) => Box::new(Fields { room: Some(Text(room)), ..Fields::default() }),
            Self::Fields(fields) => fields,
        }
    }
}

fn empty<'a>(field: &'a Option<Text<'_>>) -> &'a str {
    field.as_ref().map_or("", |text| &text.0)
}

/// A session in the namespace.
#[derive(Debug)]
enum Session {
    /// Not asked for, or left.
    None,
    /// The hub is asked.
    Opening { identity: Arc<Identity>, request: u32 },
    /// In.
    Open(Member),
}

/// The handler of one connection.
#[derive(Debug)]
pub struct Chat {
    settings: Arc<Settings>,
    session: Session,
    /// The room that it started in: `message` with a text goes there.
    home: Option<RoomName>,
    /// The last request of an earlier session on this connection, whose replies may still come.
    last_request: u32,
}

impl Chat {
    /// Before its CONNECT.
    pub fn new(settings: Arc<Settings>) -> Self {
        Self { settings, session: Session::None, home: None, last_request: 0 }
    }

    fn opened(&mut self, reply: Reply, out: &mut Vec<Action>) -> Option<Admission> {
        let (identity, username, resumed, ticket, rooms, missed) = match reply {
            Reply::Opened { identity, username, resumed, ticket, rooms, missed } => {
                (identity, username, resumed, ticket, rooms, missed)
            }
            Reply::Failed { code, message } => return self.not_opened(&Refusal { code, detail: message }, out),
            _ => return self.not_opened(&Refusal::new(Code::Internal), out),
        };
        let Session::Opening { request, .. } = std::mem::replace(&mut self.session, Session::None) else {
            return None;
        };
        let reply = socketio::connect("/", &identity.session.to_string(), ticket.as_deref());
        if resumed {
            out.push(Action::Recovered { reply: Packet::Text(reply.into()), missed });
        } else {
            out.push(text(reply));
            out.push(private_line(&identity, lines::welcome(identity.locale)));
        }
        let mut member = Member::new(Arc::clone(&self.settings), identity, username, request);
        for joined in rooms {
            member.enter(joined, out);
        }
        self.session = Session::Open(member);
        Some(Admission::Joined)
    }

    fn not_opened(&mut self, refusal: &Refusal, out: &mut Vec<Action>) -> Option<Admission> {
        let Session::Opening { identity, .. } = std::mem::replace(&mut self.session, Session::None) else {
            return None;
        };
        // A client does not come back by itself after a refusal, so only what lasts is one.
        match refusal.code {
            Code::Unavailable | Code::Timeout | Code::Busy | Code::LeaseLost | Code::Internal | Code::RateLimited => {
                out.push(close(Cause::Unavailable));
            }
            _ => out.push(refuse(refusal, identity.locale)),
        }
        Some(Admission::Refused)
    }

    /// The room that an event names, or the one that the connection started in.
    fn named_room(&self, name: &str) -> Result<RoomName, Refusal> {
        if name.is_empty() {
            return self.home.clone().ok_or_else(|| Refusal::new(Code::NotJoined));
        }
        room(name)
    }

    fn wish(&mut self, event: &Arguments<'_>, tag: Tag, now: Millis, out: &mut Vec<Action>) -> Result<(), Refusal> {
        let argument = Argument::read(event.first)?;
        if &*event.name == "set_username" {
            let Argument::Text(username) = argument else {
                return Err(Refusal::bad_request("set_username has the name as its argument"));
            };
            return self.member()?.set_username(&username, tag, now, out);
        }
        if &*event.name == "message" {
            return match argument {
                Argument::Text(text) => self.publish("", Publishable::Text(&text), &Fields::default(), tag, now),
                Argument::Fields(fields) => {
                    let text = fields.text.as_ref().map(|text| text.0.as_ref());
                    let text = text.ok_or_else(|| Refusal::bad_request("message has a text"))?;
                    self.publish(empty(&fields.room), Publishable::Text(text), &fields, tag, now)
                }
            };
        }
        let fields = argument.room_fields();
        let name = empty(&fields.room);
        match &*event.name {
            "publish" => {
                let json = fields.data.map_or("null", RawValue::get).as_bytes();
                self.publish(name, Publishable::Data { kind: empty(&fields.kind), json }, &fields, tag, now)
            }
            "join" => {
                let again = self.member()?.join(name, empty(&fields.after), tag, now, out)?;
                if let (Some((position, members)), Some(id)) = (again, tag) {
                    ack(id, out, |object| {
                        object.string("room", name).plain("position", &position.encode());
                        object.integer("members", members.into()).boolean("recovered", false);
                    });
                }
                Ok(())
            }
            "leave" => self.member()?.leave(name, tag, now, out),
            "typing" => {
                let room = self.named_room(name)?;
                self.member()?.typing(&room, now, out)?;
                if let Some(id) = tag {
                    ack(id, out, |_| {});
                }
                Ok(())
            }
            "history" => {
                let room = self.named_room(name)?;
                let (before, after) = (empty(&fields.before), empty(&fields.after));
                let page = Page { before, after, limit: fields.limit.unwrap_or(0) };
                self.member()?.history(&room, page, tag, now, out)
            }
            "who" => {
                let room = self.named_room(name)?;
                self.member()?.who(&room, tag, now, out)
            }
            _ => Err(Refusal::bad_request(
                "the event is none of set_username, message, publish, join, leave, typing, history, who",
            )),
        }
    }

    fn publish(
        &mut self,
        name: &str,
        content: Publishable<'_>,
        fields: &Fields<'_>,
        tag: Tag,
        now: Millis,
    ) -> Result<(), Refusal> {
        let room = self.named_room(name)?;
        let retry = fields.retry.unwrap_or(false);
        let trace = TraceWish::new(fields.trace.unwrap_or(false), empty(&fields.traceparent));
        let marks = Marks { client_id: empty(&fields.id), retry, trace };
        self.member()?.publish(&room, content, marks, tag, now)
    }

    fn member(&mut self) -> Result<&mut Member, Refusal> {
        match &mut self.session {
            Session::Open(member) => Ok(member),
            Session::None | Session::Opening { .. } => Err(Refusal::new(Code::Internal)),
        }
    }

    /// Sends what may be sent now, and tells of what no longer can.
    fn dispatch(&mut self, out: &mut Vec<Action>) {
        while let Session::Open(member) = &mut self.session
            && let Some(outcome) = member.dispatch(out)
        {
            self.answer(outcome, out);
        }
    }

    fn answer(&mut self, outcome: Outcome, out: &mut Vec<Action>) {
        let Session::Open(member) = &mut self.session else { return };
        match outcome {
            Outcome::Renamed(tag, username, _) => {
                let identity = member.identity();
                out.push(private_line(identity, &lines::name_set(identity.locale, &username)));
                if let Some(id) = tag {
                    ack(id, out, |object| {
                        object.string("username", &username);
                    });
                }
            }
            Outcome::Joined { tag, joined, .. } => {
                if let Some(id) = tag {
                    ack(id, out, |object| {
                        object.string("room", joined.room.as_str()).plain("position", &joined.position.encode());
                        object.integer("members", joined.members.into()).boolean("recovered", joined.recovered);
                    });
                }
                member.enter(joined, out);
            }
            Outcome::Failed { tag, wish, refusal } => {
                let identity = Arc::clone(member.identity());
                fail(&identity, tag, wish, &refusal, out);
            }
            other => {
                let (Some(id), answer) = done(other) else { return };
                ack(id, out, answer);
            }
        }
    }
}

/// The ack of a wish that is done: its id, and what writes its fields.
fn done(outcome: Outcome) -> (Tag, impl FnOnce(&mut ObjectWriter<'_>)) {
    let tag = match &outcome {
        Outcome::Left(tag, _)
        | Outcome::Renamed(tag, ..)
        | Outcome::Joined { tag, .. }
        | Outcome::Published { tag, .. }
        | Outcome::History { tag, .. }
        | Outcome::Members { tag, .. }
        | Outcome::Failed { tag, .. } => *tag,
    };
    (tag, move |object: &mut ObjectWriter<'_>| match outcome {
        Outcome::Left(_, room) => {
            object.string("room", room.as_str());
        }
        Outcome::Published { position, id, duplicate, trace, .. } => {
            object.plain("id", &id.encode()).plain("position", &position.encode()).boolean("duplicate", duplicate);
            if let Some(trace) = trace {
                object.string("plaza_trace", &trace);
            }
        }
        Outcome::History { room, events, more, .. } => {
            object.string("room", room.as_str());
            plaza_json::write_events(object.key("events"), &events);
            object.boolean("more", more);
        }
        Outcome::Members { room, count, members, .. } => {
            object.string("room", room.as_str()).integer("count", count.into());
            plaza_json::write_list(object.key("members"), &members, |out, (username, _)| {
                ObjectWriter::new(out).string("username", username).end();
            });
        }
        Outcome::Renamed(..) | Outcome::Joined { .. } | Outcome::Failed { .. } => {}
    })
}

/// Sends `[{"ok":true, ...}]`.
fn ack(id: u64, out: &mut Vec<Action>, fields: impl FnOnce(&mut ObjectWriter<'_>)) {
    let mut packet = Vec::with_capacity(128);
    socketio::begin_ack(&mut packet, "/", id);
    let mut object = ObjectWriter::new(&mut packet);
    object.boolean("ok", true);
    fields(&mut object);
    object.end();
    packet.push(b']');
    out.push(text(packet));
}

/// Tells that a wish failed: in its ack, or without one as a line when a person waits for it.
fn fail(identity: &Identity, tag: Tag, wish: Wish, refusal: &Refusal, out: &mut Vec<Action>) {
    let message = refusal.message(identity.locale);
    match (tag, wish) {
        (Some(id), _) => {
            let mut packet = Vec::with_capacity(128);
            socketio::begin_ack(&mut packet, "/", id);
            ObjectWriter::new(&mut packet)
                .boolean("ok", false)
                .string("code", refusal.code.as_str())
                .string("message", message)
                .end();
            packet.push(b']');
            out.push(text(packet));
        }
        (None, Wish::Publish) => out.push(private_line(identity, &lines::not_sent(identity.locale, message))),
        (None, Wish::Rename) => out.push(private_line(identity, &lines::name_not_set(identity.locale, message))),
        (None, Wish::Other) => {}
    }
}

/// A line for this client alone; a notice for those who take events instead of lines.
fn private_line(identity: &Identity, line: &str) -> Action {
    if identity.variant != Variant::Event {
        return text(socketio::private_line(line));
    }
    let mut packet = Vec::with_capacity(32 + line.len());
    socketio::begin_event(&mut packet, "/", None, "notice");
    packet.push(b',');
    ObjectWriter::new(&mut packet).string("text", line).end();
    packet.push(b']');
    text(packet)
}

fn refuse(refusal: &Refusal, locale: Locale) -> Action {
    let mut data = Vec::with_capacity(32);
    ObjectWriter::new(&mut data).string("code", refusal.code.as_str()).end();
    text(socketio::connect_error("/", refusal.message(locale), Some(&data)))
}

/// What a CONNECT asks for.
struct Introduction {
    identity: Identity,
    /// The room to start in.
    home: Option<RoomName>,
    /// The session to continue.
    resume: Option<Resume>,
}

fn introduce(auth: Option<&str>) -> Result<Introduction, (Refusal, Locale)> {
    let auth: Auth<'_> = match auth.map(serde_json::from_str).transpose() {
        Ok(auth) => auth.unwrap_or_default(),
        Err(error) => return Err((Refusal::bad_request(format!("auth: {error}")), Locale::default())),
    };
    let locale = locale_of(empty(&auth.locale), Locale::Zh);
    let variant = match (empty(&auth.format), locale) {
        ("event", _) => Variant::Event,
        (_, Locale::Zh) => Variant::TextZh,
        (_, Locale::En) => Variant::TextEn,
    };
    let home = match &auth.room {
        Some(None) => Ok(None),
        Some(Some(name)) => room(&name.0).map(Some),
        None => room(LOBBY).map(Some),
    };
    let home = home.map_err(|refusal| (refusal, locale))?;
    let user_id = guest_user(empty(&auth.guest)).map_err(|refusal| (refusal, locale))?;
    let identity = Identity { session: SessionId::random(), user_id, variant, locale };
    Ok(Introduction { identity, home, resume: auth.resume() })
}

impl Handler for Chat {
    fn has_namespace(&self, namespace: &str) -> bool {
        namespace == "/"
    }

    fn on_connect(&mut self, _namespace: &str, auth: Option<&str>, _now: Millis, out: &mut Vec<Action>) -> Admission {
        match introduce(auth) {
            Ok(Introduction { identity, home, resume }) => {
                let identity = Arc::new(identity);
                self.home.clone_from(&home);
                let op = Op::Open { room: home, resume };
                let request = self.last_request.wrapping_add(1).max(1);
                self.last_request = request;
                out.push(Action::Request { id: request, identity: Arc::clone(&identity), op });
                self.session = Session::Opening { identity, request };
                Admission::Pending
            }
            Err((refusal, locale)) => {
                out.push(refuse(&refusal, locale));
                Admission::Refused
            }
        }
    }

    fn on_event(
        &mut self,
        _namespace: &str,
        id: Option<u64>,
        event: &Arguments<'_>,
        _attachments: Vec<Bytes>,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        let failed = self.wish(event, id, now, out).err();
        if let (Some(refusal), Session::Open(member)) = (failed, &self.session) {
            let wish = match &*event.name {
                "message" | "publish" => Wish::Publish,
                "set_username" => Wish::Rename,
                _ => Wish::Other,
            };
            fail(member.identity(), id, wish, &refusal, out);
        }
        self.dispatch(out);
    }

    fn on_disconnect(&mut self, _namespace: &str, out: &mut Vec<Action>) {
        self.home = None;
        if let Session::Open(mut member) = std::mem::replace(&mut self.session, Session::None) {
            self.last_request = member.last_request();
            let rooms = member.take_rooms();
            out.extend(rooms.iter().map(|room| Action::Exit(*room)));
            let op = Op::Close { rooms, recoverable: false };
            out.push(Action::Request { id: 0, identity: Arc::clone(member.identity()), op });
        }
    }

    fn on_reply(&mut self, id: u32, reply: Reply, now: Millis, out: &mut Vec<Action>) -> Option<Admission> {
        if matches!(self.session, Session::Opening { request, .. } if request == id) {
            return self.opened(reply, out);
        }
        if let Some(outcome) = self.member().ok()?.on_reply(id, reply, now, out) {
            self.answer(outcome, out);
        }
        self.dispatch(out);
        None
    }

    fn on_control(&mut self, control: &Control, _now: Millis, out: &mut Vec<Action>) {
        let Session::Open(member) = &mut self.session else { return };
        match control {
            Control::Close { session, .. } if *session == member.identity().session => {
                // The client does not come back by itself after a DISCONNECT.
                out.push(text(socketio::disconnect("/")));
                out.push(close(Cause::Kicked));
            }
            Control::Replaced { session, .. } if *session == member.identity().session => {
                out.push(close(Cause::Replaced));
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

    fn on_close(&mut self, cause: Cause, rooms: Vec<RoomId>, out: &mut Vec<Action>) {
        let identity = match std::mem::replace(&mut self.session, Session::None) {
            Session::None => return,
            Session::Opening { identity, .. } => identity,
            Session::Open(member) => Arc::clone(member.identity()),
        };
        let op = Op::Close { rooms, recoverable: cause.is_recoverable() };
        out.push(Action::Request { id: 0, identity, op });
    }
}
