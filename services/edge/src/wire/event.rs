//! Room events as complete WebSocket frames, once per variant.

use super::json::{ObjectWriter, write_pieces};
use super::plaza;
use super::socketio::{self, lines};
use super::websocket::{FrameBuffer, Opcode};
use crate::bridge::Variant;
use bytes::Bytes;
use plaza_proto::code::Locale;
use plaza_proto::event::event::Kind;
use plaza_proto::ids::{MessageId, RoomName};
use plaza_proto::position::Position;
use plaza_proto::view::{ContentView, EventView};

/// A stored event with its place, as encoders take it.
#[derive(Clone, Copy, Debug)]
pub struct RoomEvent<'a> {
    /// Where it stands.
    pub position: Position,
    /// Message id.
    pub id: MessageId,
    /// Milliseconds since 1970-01-01 UTC by the store's clock.
    pub time: u64,
    /// The event.
    pub event: EventView<'a>,
}

/// What follows the argument of a Socket.IO event. The stock client takes the last argument of an event
/// for its offset whenever it is a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Nothing: recovery is off.
    None,
    /// The event's position, the offset of a client that has seen it.
    Offset,
    /// An offset that names no place: a client that continues from it begins a new session.
    Nowhere,
    /// The event is shown out of the stream's order: a string is followed by `null`, so that the offset
    /// stays where it is.
    Aside,
}

/// Encodes one stored event for every member that uses `variant`.
///
/// `previous` is the position before it in the room (Plaza's own protocol tells it); `mark` is for
/// Socket.IO. Empty bytes: the variant shows nothing of this event.
pub fn encode_event(
    variant: Variant,
    room: &RoomName,
    event: &RoomEvent<'_>,
    previous: Option<Position>,
    mark: Mark,
) -> Bytes {
    let frame = |write: &dyn Fn(&mut Vec<u8>) -> Written| frame(mark, event.position, write);
    match variant {
        Variant::TextZh => frame(&|out| write_line(out, Locale::Zh, event)),
        Variant::TextEn => frame(&|out| write_line(out, Locale::En, event)),
        Variant::Event => frame(&|out| write_object(out, room, event)),
        Variant::PlazaJson => plaza::json::event_frame(room, event, previous),
        Variant::PlazaProto => plaza::proto::event_frame(room, event, previous),
    }
}

/// Encodes "somebody is typing": volatile, so it carries no offset.
pub fn encode_typing(variant: Variant, room: &RoomName, username: &str) -> Bytes {
    match variant {
        Variant::TextZh | Variant::TextEn | Variant::Event => {
            let mut buffer = FrameBuffer::with_capacity(64 + username.len());
            let out = buffer.payload();
            socketio::begin_event(out, "/", None, "typing");
            ObjectWriter::new(argument(out)).string("room", room.as_str()).string("username", username).end();
            out.push(b']');
            buffer.finish(Opcode::Text)
        }
        Variant::PlazaJson => plaza::json::typing_frame(room, username),
        Variant::PlazaProto => plaza::proto::typing_frame(room, username),
    }
}

/// Writes the beginning of an event and its argument, up to the closing bracket; `None`: shows nothing.
type Written = Option<()>;

/// The tutorial's line of an event, or the event itself for data.
fn write_line(out: &mut Vec<u8>, locale: Locale, event: &RoomEvent<'_>) -> Written {
    let name = event.event.username;
    let line = match (event.event.kind, event.event.content) {
        (Kind::Text, Some(ContentView::Text(text))) => [name, ":", text],
        (Kind::Notice, Some(ContentView::Text(text))) => ["", "", text],
        (Kind::Left, _) => [name, "", lines::left(locale)],
        (Kind::Data, _) => return write_data(out, event),
        _ => return None,
    };
    socketio::begin_event(out, "/", None, "message");
    write_pieces(argument(out), &line);
    Some(())
}

/// The event as an object.
fn write_object(out: &mut Vec<u8>, room: &RoomName, event: &RoomEvent<'_>) -> Written {
    let stored = event.event;
    let (name, text) = match (stored.kind, stored.content) {
        (Kind::Text, Some(ContentView::Text(text))) => ("message", Some(text)),
        (Kind::Notice, Some(ContentView::Text(text))) => ("notice", Some(text)),
        (Kind::Joined, _) => ("joined", None),
        (Kind::Left, _) => ("left", None),
        (Kind::Renamed, _) => ("renamed", None),
        (Kind::Data, _) => return write_data(out, event),
        _ => return None,
    };
    socketio::begin_event(out, "/", None, name);
    let mut object = ObjectWriter::new(argument(out));
    object.string("room", room.as_str());
    if text.is_some() {
        object.plain("id", &event.id.encode()).plain("position", &event.position.encode());
    }
    if stored.kind != Kind::Notice {
        object.string("username", stored.username);
    }
    object.string_if("previousUsername", stored.previous_username);
    if let Some(text) = text {
        object.string("text", text).integer("at", event.time);
    }
    object.end();
    Some(())
}

/// Data of the application is an event of its own type. A type that would mislead the stock client
/// and JSON that would break it are not shown.
fn write_data(out: &mut Vec<u8>, event: &RoomEvent<'_>) -> Written {
    let Some(ContentView::Data { kind, json }) = event.event.content else { return None };
    let json = super::json::valid(json).filter(|_| !socketio::is_reserved(kind))?;
    socketio::begin_event(out, "/", None, kind);
    argument(out).extend_from_slice(json.as_bytes());
    Some(())
}

fn frame(mark: Mark, position: Position, write: &dyn Fn(&mut Vec<u8>) -> Written) -> Bytes {
    let mut buffer = FrameBuffer::with_capacity(256);
    let out = buffer.payload();
    if write(out).is_none() {
        return Bytes::new();
    }
    match mark {
        Mark::Offset | Mark::Nowhere => {
            // Base64url needs no escapes.
            let out = argument(out);
            out.extend_from_slice(if mark == Mark::Nowhere { b"\"!" } else { b"\"" });
            out.extend_from_slice(&position.encode());
            out.push(b'"');
        }
        Mark::Aside if out.ends_with(b"\"") => argument(out).extend_from_slice(b"null"),
        Mark::Aside | Mark::None => {}
    }
    out.push(b']');
    buffer.finish(Opcode::Text)
}

fn argument(out: &mut Vec<u8>) -> &mut Vec<u8> {
    out.push(b',');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use plaza_proto::position::Epoch;

    fn event(kind: Kind, content: Option<ContentView<'static>>) -> RoomEvent<'static> {
        let id = MessageId([7; 16]);
        let event = EventView { version: 1, kind, user_id: "g:x", username: "小明", content, ..EventView::default() };
        RoomEvent { position: Position::of(Epoch([1; 8]), 5, id), id, time: 1_700_000_000_000, event }
    }

    fn shown(variant: Variant, event: &RoomEvent<'_>, mark: Mark) -> String {
        let room = RoomName::parse("lobby").expect("a valid name");
        let frame = encode_event(variant, &room, event, None, mark);
        let header = match frame.get(1) {
            None => return String::new(),
            Some(126) => 4,
            Some(_) => 2,
        };
        String::from_utf8(frame[header..].to_vec()).expect("text")
    }

    #[test]
    fn text_variants_show_the_tutorials_lines() {
        let text = event(Kind::Text, Some(ContentView::Text("你好 \"<b>\"")));
        assert_eq!(shown(Variant::TextZh, &text, Mark::None), r#"42["message","小明:你好 \"<b>\""]"#);
        assert_eq!(
            shown(Variant::TextZh, &event(Kind::Left, None), Mark::None),
            r#"42["message","小明 已离开聊天室。"]"#
        );
        assert_eq!(
            shown(Variant::TextEn, &event(Kind::Left, None), Mark::None),
            r#"42["message","小明 has left the chat room."]"#
        );
        for silent in [Kind::Joined, Kind::Renamed] {
            assert_eq!(shown(Variant::TextZh, &event(silent, None), Mark::None), "");
            assert_eq!(shown(Variant::TextEn, &event(silent, None), Mark::None), "");
        }
    }

    #[test]
    fn the_event_variant_shows_objects() {
        let text = event(Kind::Text, Some(ContentView::Text("hi")));
        let (id, position) = (text.id, text.position);
        assert_eq!(
            shown(Variant::Event, &text, Mark::None),
            format!(
                r#"42["message",{{"room":"lobby","id":"{id}","position":"{position}","username":"小明","text":"hi","at":1700000000000}}]"#
            )
        );
        assert_eq!(
            shown(Variant::Event, &event(Kind::Joined, None), Mark::None),
            r#"42["joined",{"room":"lobby","username":"小明"}]"#
        );
        assert_eq!(
            shown(Variant::Event, &event(Kind::Left, None), Mark::None),
            r#"42["left",{"room":"lobby","username":"小明"}]"#
        );
    }

    #[test]
    fn data_is_an_event_of_its_type_and_passes_through_unchanged() {
        let data =
            |kind, json: &'static str| event(Kind::Data, Some(ContentView::Data { kind, json: json.as_bytes() }));
        for variant in [Variant::TextZh, Variant::TextEn, Variant::Event] {
            assert_eq!(
                shown(variant, &data("price", r#"{"b":1.50,"a":[]}"#), Mark::None),
                r#"42["price",{"b":1.50,"a":[]}]"#
            );
            assert_eq!(shown(variant, &data("disconnect", "1"), Mark::None), "", "a reserved name");
            assert_eq!(shown(variant, &data("price", "{"), Mark::None), "", "no JSON");
        }
    }

    #[test]
    fn r02_the_offset_is_the_last_argument_and_the_same_for_all() {
        let text = event(Kind::Text, Some(ContentView::Text("hi")));
        let offset = text.position;
        assert_eq!(shown(Variant::TextZh, &text, Mark::Offset), format!(r#"42["message","小明:hi","{offset}"]"#));
        assert!(shown(Variant::Event, &text, Mark::Offset).ends_with(&format!(r#"}},"{offset}"]"#)));
    }

    #[test]
    fn r02_what_is_shown_aside_leaves_the_offset_alone() {
        let text = event(Kind::Text, Some(ContentView::Text("hi")));
        assert_eq!(shown(Variant::TextZh, &text, Mark::Aside), r#"42["message","小明:hi",null]"#);
        assert!(shown(Variant::Event, &text, Mark::Aside).ends_with("}]"));
        let data = event(Kind::Data, Some(ContentView::Data { kind: "word", json: br#""x""# }));
        assert_eq!(shown(Variant::Event, &data, Mark::Aside), r#"42["word","x",null]"#);
    }

    #[test]
    fn typing_carries_no_offset_and_ends_with_an_object() {
        let room = RoomName::parse("lobby").expect("a valid name");
        let frame = encode_typing(Variant::TextZh, &room, "a");
        assert_eq!(&frame[2..], br#"42["typing",{"room":"lobby","username":"a"}]"#);
    }
}
