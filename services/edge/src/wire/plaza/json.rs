//! The JSON form: `{"id"?, "<body>": {...}}` with lowerCamelCase names.

use super::frame::{BadFrame, Body, ClientFrame, Content, Hello, Publish, kind_name};
use super::plain;
use crate::wire::RoomEvent;
use crate::wire::json::{MAX_INTEGER, ObjectWriter, valid};
use crate::wire::websocket::{FrameBuffer, Opcode};
use bytes::Bytes;
use plaza_proto::client::{self, ServerFrame, server_frame};
use plaza_proto::ids::RoomName;
use plaza_proto::position::Position;
use plaza_proto::view::ContentView;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// A frame's names.
#[derive(Clone, Copy, Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum Name {
    Id,
    Hello,
    SetUsername,
    Join,
    Leave,
    Publish,
    Typing,
    History,
    Who,
    #[serde(other)]
    Unknown,
}

/// A body whose fields are not looked at yet, so that what is wrong with them is told under the frame's id.
enum Fields<'a> {
    Hello(HelloFields<'a>),
    Publish(PublishFields<'a>),
    Other(Name, OtherFields<'a>),
}

/// Reads a frame in one pass: its id, and its body if there is exactly one.
struct FrameVisitor;

impl<'de> Visitor<'de> for FrameVisitor {
    type Value = (u64, Option<Fields<'de>>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a body")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut id, mut body, mut several) = (None, None, false);
        while let Some(name) = map.next_key()? {
            let next = match name {
                Name::Id if id.is_some() => return Err(A::Error::duplicate_field("id")),
                Name::Id => {
                    id = Some(map.next_value::<Option<u64>>()?);
                    continue;
                }
                Name::Hello => map.next_value::<Option<Object<_>>>()?.map(|Object(fields)| Fields::Hello(fields)),
                Name::Publish => map.next_value::<Option<Object<_>>>()?.map(|Object(fields)| Fields::Publish(fields)),
                Name::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
                other => map.next_value::<Option<Object<_>>>()?.map(|Object(fields)| Fields::Other(other, fields)),
            };
            several |= body.is_some() && next.is_some();
            body = next.or(body);
        }
        Ok((id.flatten().unwrap_or(0), body.filter(|_| !several)))
    }
}

/// What derived code would also take as an array of all its fields.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// The id of a frame whose body cannot be read.
#[derive(Deserialize)]
struct OnlyId {
    id: Option<u64>,
}

/// A text, borrowed when it has no escapes.
#[derive(Deserialize, Default)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The fields of every body but `hello` and `publish`.
#[derive(Deserialize)]
struct OtherFields<'a> {
    #[serde(borrow)]
    username: Option<Text<'a>>,
    #[serde(borrow)]
    room: Option<Text<'a>>,
    #[serde(borrow)]
    before: Option<Text<'a>>,
    #[serde(borrow)]
    after: Option<Text<'a>>,
    limit: Option<u32>,
}

#[derive(Deserialize)]
struct HelloFields<'a> {
    #[serde(borrow)]
    token: Option<Text<'a>>,
    #[serde(borrow)]
    guest: Option<Text<'a>>,
    #[serde(borrow)]
    locale: Option<Text<'a>>,
    #[serde(borrow)]
    resume: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PublishFields<'a> {
    #[serde(borrow)]
    room: Option<Text<'a>>,
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    client_id: Option<Text<'a>>,
    retry: Option<bool>,
    trace: Option<bool>,
    #[serde(borrow)]
    traceparent: Option<Text<'a>>,
}

fn text(field: Option<Text<'_>>) -> Cow<'_, str> {
    field.unwrap_or_default().0
}

/// Reads a text message.
///
/// # Errors
/// [`BadFrame`] for anything that is not one known body in one object.
pub fn decode(message: &str) -> Result<ClientFrame<'_>, BadFrame> {
    if let Some(frame) = plain::publish(message) {
        return Ok(frame);
    }
    let mut deserializer = serde_json::Deserializer::from_str(message);
    let read = deserializer.deserialize_map(FrameVisitor).and_then(|frame| deserializer.end().map(|()| frame));
    let (id, body) = read.map_err(|error| unreadable(message, &error))?;
    if id > MAX_INTEGER {
        return Err(BadFrame::new(0, "an id is at most 2^53-1"));
    }
    let body = match body {
        None => return Err(BadFrame::no_body(id)),
        Some(Fields::Hello(hello)) => Body::Hello(Hello {
            token: text(hello.token),
            guest: text(hello.guest),
            locale: text(hello.locale),
            resume: text(hello.resume),
        }),
        Some(Fields::Publish(fields)) => publish(id, fields)?,
        Some(Fields::Other(name, fields)) => other(name, fields).ok_or_else(|| BadFrame::no_body(id))?,
    };
    Ok(ClientFrame { id, body })
}

#[cold]
fn unreadable(message: &str, error: &serde_json::Error) -> BadFrame {
    let id = serde_json::from_str::<Object<OnlyId>>(message).ok().and_then(|Object(only)| only.id);
    BadFrame::new(id.filter(|id| *id <= MAX_INTEGER).unwrap_or(0), format!("the frame: {error}"))
}

fn other(name: Name, fields: OtherFields<'_>) -> Option<Body<'_>> {
    let room = text(fields.room);
    Some(match name {
        Name::SetUsername => Body::SetUsername { username: text(fields.username) },
        Name::Join => Body::Join { room, after: text(fields.after) },
        Name::Leave => Body::Leave { room },
        Name::Typing => Body::Typing { room },
        Name::Who => Body::Who { room },
        Name::History => Body::History {
            room,
            before: text(fields.before),
            after: text(fields.after),
            limit: fields.limit.unwrap_or(0),
        },
        Name::Id | Name::Hello | Name::Publish | Name::Unknown => return None,
    })
}

fn publish(id: u64, fields: PublishFields<'_>) -> Result<Body<'_>, BadFrame> {
    let content = match (fields.text, fields.kind, fields.data) {
        (Some(text), None, None) => Content::Text(text.0),
        (None, Some(kind), data) => {
            // JSON's null arrives as `None`, and is data like any other.
            Content::Data { kind: kind.0, json: Cow::Borrowed(data.map_or("null", RawValue::get).as_bytes()) }
        }
        _ => return Err(BadFrame::no_content(id)),
    };
    let retry = fields.retry.unwrap_or(false);
    Ok(Body::Publish(Publish {
        room: text(fields.room),
        content,
        client_id: text(fields.client_id),
        retry,
        trace: fields.trace.unwrap_or(false),
        traceparent: text(fields.traceparent),
    }))
}

/// Writes a server frame as the payload of a text message.
pub fn encode(frame: &ServerFrame) -> Vec<u8> {
    let mut out = Vec::with_capacity(192);
    write_frame(&mut out, frame);
    out
}

fn write_frame(out: &mut Vec<u8>, frame: &ServerFrame) {
    let mut outer = ObjectWriter::new(out);
    if frame.id != 0 {
        outer.integer("id", frame.id);
    }
    if let Some(body) = &frame.body {
        write_body(&mut outer, body);
    }
    outer.end();
}

fn write_body(outer: &mut ObjectWriter<'_>, body: &server_frame::Body) {
    use server_frame::Body as B;
    match body {
        B::Welcome(b) => ObjectWriter::new(outer.key("welcome"))
            .string("sessionId", &b.session_id)
            .string("userId", &b.user_id)
            .string_if("username", &b.username)
            .boolean("resumed", b.resumed)
            .string_if("ticket", &b.ticket)
            .integer("pingIntervalMs", b.ping_interval_ms.into())
            .integer("maxMessageBytes", b.max_message_bytes.into())
            .end(),
        B::Ok(b) => {
            ObjectWriter::new(outer.key("ok")).string_if("username", &b.username).string_if("ticket", &b.ticket).end()
        }
        B::Joined(b) => ObjectWriter::new(outer.key("joined"))
            .string("room", &b.room)
            .string("position", &b.position)
            .integer("members", b.members.into())
            .boolean("recovered", b.recovered)
            .end(),
        B::Published(b) => {
            let mut object = ObjectWriter::new(outer.key("published"));
            object.string("room", &b.room).string("position", &b.position).string("id", &b.id);
            object.boolean("duplicate", b.duplicate);
            if !b.trace_id.is_empty() {
                object.string("traceId", &b.trace_id);
            }
            object.end();
        }
        B::Error(b) => {
            ObjectWriter::new(outer.key("error")).string("code", &b.code).string("message", &b.message).end();
        }
        B::Event(b) => write_event(outer.key("event"), b),
        B::Typing(b) => {
            ObjectWriter::new(outer.key("typing")).string("room", &b.room).string("username", &b.username).end();
        }
        B::Presence(b) => {
            let mut object = ObjectWriter::new(outer.key("presence"));
            object.string("room", &b.room).integer("count", b.count.into());
            write_members(object.key("members"), &b.members);
            object.end();
        }
        B::Reset(b) => ObjectWriter::new(outer.key("reset"))
            .string("room", &b.room)
            .string("reason", &b.reason)
            .string_if("from", &b.from)
            .string_if("to", &b.to)
            .end(),
        B::Reconnect(b) => ObjectWriter::new(outer.key("reconnect")).integer("afterMs", b.after_ms.into()).end(),
        B::History(b) => {
            let mut object = ObjectWriter::new(outer.key("history"));
            object.string("room", &b.room);
            write_events(object.key("events"), &b.events);
            object.boolean("more", b.more).end();
        }
    }
}

/// An event as its object shows it. Ids, positions and kinds need no escape.
struct Shown<'a> {
    room: &'a str,
    position: &'a [u8],
    previous: &'a [u8],
    kind: &'a str,
    username: &'a str,
    content: Option<ContentView<'a>>,
    at: u64,
    id: &'a [u8],
    user_id: &'a str,
    client_id: &'a str,
    previous_username: &'a str,
}

impl Shown<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let mut object = ObjectWriter::new(out);
        object.string("room", self.room).plain("position", self.position);
        if !self.previous.is_empty() {
            object.plain("previous", self.previous);
        }
        object.plain("kind", self.kind.as_bytes()).string_if("username", self.username);
        match self.content {
            Some(ContentView::Text(text)) => {
                object.string("text", text);
            }
            Some(ContentView::Data { kind, json }) => {
                // A backend's data that is no JSON must not break the frame around it.
                object.string("type", kind).raw("data", valid(json).unwrap_or("null").as_bytes());
            }
            None => {}
        }
        object
            .integer("at", self.at)
            .plain("id", self.id)
            .string("userId", self.user_id)
            .string_if("clientId", self.client_id)
            .string_if("previousUsername", self.previous_username)
            .end();
    }
}

/// Writes an event as an object: in frames, in history pages, and in acks on Socket.IO.
pub fn write_event(out: &mut Vec<u8>, event: &client::Event) {
    let content = event.content.as_ref().map(|content| match content {
        client::event::Content::Text(text) => ContentView::Text(text),
        client::event::Content::Data(data) => ContentView::Data { kind: &data.r#type, json: &data.data },
    });
    let shown = Shown {
        room: &event.room,
        position: event.position.as_bytes(),
        previous: event.previous.as_bytes(),
        kind: &event.kind,
        username: &event.username,
        content,
        at: event.at,
        id: event.id.as_bytes(),
        user_id: &event.user_id,
        client_id: &event.client_id,
        previous_username: &event.previous_username,
    };
    shown.write(out);
}

/// Writes a list of events.
pub fn write_events(out: &mut Vec<u8>, events: &[client::Event]) {
    write_list(out, events, write_event);
}

/// Writes a list of members.
pub fn write_members(out: &mut Vec<u8>, members: &[client::Member]) {
    write_list(out, members, |out, member| {
        ObjectWriter::new(out).string("username", &member.username).string("userId", &member.user_id).end();
    });
}

/// Writes a list.
pub fn write_list<T>(out: &mut Vec<u8>, items: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

/// A server frame as a complete WebSocket frame.
pub fn frame(frame: &ServerFrame) -> Bytes {
    let mut buffer = FrameBuffer::with_capacity(512);
    write_frame(buffer.payload(), frame);
    buffer.finish(Opcode::Text)
}

/// A room event as a complete WebSocket frame, written without a copy of the event.
pub fn event_frame(room: &RoomName, event: &RoomEvent<'_>, previous: Option<Position>) -> Bytes {
    let stored = event.event;
    let previous = previous.map(|position| position.encode());
    let shown = Shown {
        room: room.as_str(),
        position: &event.position.encode(),
        previous: previous.as_ref().map_or(&[], |text| &text[..]),
        kind: kind_name(stored.kind),
        username: stored.username,
        content: stored.content,
        at: event.time,
        id: &event.id.encode(),
        user_id: stored.user_id,
        client_id: stored.client_id,
        previous_username: stored.previous_username,
    };
    let mut buffer = FrameBuffer::with_capacity(512);
    let mut outer = ObjectWriter::new(buffer.payload());
    shown.write(outer.key("event"));
    outer.end();
    buffer.finish(Opcode::Text)
}

/// "Somebody is typing" as a complete WebSocket frame.
pub fn typing_frame(room: &RoomName, username: &str) -> Bytes {
    let notice = client::TypingNotice { room: room.to_string(), username: username.to_owned() };
    frame(&ServerFrame { id: 0, body: Some(server_frame::Body::Typing(notice)) })
}
