//! The two forms say the same, by the names of the `.proto` file.

use super::*;
use crate::wire::RoomEvent;
use crate::wire::websocket::{Opcode, read_server_frame};
use plaza_proto::client::{self, ServerFrame, client_frame, server_frame};
use plaza_proto::event::event::{Content as StoredContent, Kind};
use plaza_proto::ids::{MessageId, RoomName};
use plaza_proto::position::{Epoch, Position};
use plaza_proto::view::EventView;
use proptest::prelude::*;
use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorSet};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The messages of the client protocol, as compiled.
fn messages() -> Vec<DescriptorProto> {
    let files = FileDescriptorSet::decode(plaza_proto::DESCRIPTORS).expect("our own descriptors");
    let file = files.file.into_iter().find(|file| file.package() == "plaza.client.v1").expect("the client protocol");
    file.message_type
}

/// The JSON names of a message's fields; an event's or publish's data lies flat beside its type.
fn names(message: &str) -> BTreeSet<String> {
    let messages = messages();
    let message = messages.iter().find(|m| m.name() == message).expect("a message of that name");
    let mut names: BTreeSet<String> = message.field.iter().map(|field| field.json_name().to_owned()).collect();
    if names.contains("data") && message.name() != "Data" {
        names.insert("type".to_owned());
    }
    names
}

/// Every server frame, with no field at its default; the data and the text of an event apart.
fn full_frames() -> Vec<(&'static str, &'static str, ServerFrame)> {
    use server_frame::Body as B;
    let s = |text: &str| text.to_owned();
    let event = |content| client::Event {
        room: s("r"),
        position: s("p"),
        previous: s("q"),
        kind: s("k"),
        username: s("u"),
        content: Some(content),
        at: 1,
        id: s("i"),
        user_id: s("g"),
        client_id: s("c"),
        previous_username: s("w"),
    };
    let data = client::Data { r#type: s("t"), data: r#"{"a":1}"#.into() };
    let bodies = [
        (
            "welcome",
            "Welcome",
            B::Welcome(client::Welcome {
                session_id: s("s"),
                user_id: s("g"),
                username: s("u"),
                resumed: true,
                ticket: s("t"),
                ping_interval_ms: 1,
                max_message_bytes: 2,
            }),
        ),
        ("ok", "Ok", B::Ok(client::Ok { username: s("u"), ticket: s("t") })),
        ("joined", "Joined", B::Joined(client::Joined { room: s("r"), position: s("p"), members: 1, recovered: true })),
        (
            "published",
            "Published",
            B::Published(client::Published {
                room: s("r"),
                position: s("p"),
                id: s("i"),
                duplicate: true,
                trace_id: s("t"),
            }),
        ),
        ("error", "Error", B::Error(client::Error { code: s("c"), message: s("m") })),
        ("event", "Event", B::Event(event(client::event::Content::Data(data)))),
        ("event", "Event", B::Event(event(client::event::Content::Text(s("x"))))),
        ("typing", "TypingNotice", B::Typing(client::TypingNotice { room: s("r"), username: s("u") })),
        (
            "presence",
            "Presence",
            B::Presence(client::Presence {
                room: s("r"),
                count: 1,
                members: vec![client::Member { username: s("u"), user_id: s("g") }],
            }),
        ),
        ("reset", "Reset", B::Reset(client::Reset { room: s("r"), reason: s("e"), from: s("f"), to: s("t") })),
        ("reconnect", "Reconnect", B::Reconnect(client::Reconnect { after_ms: 1 })),
        ("history", "HistoryPage", B::History(client::HistoryPage { room: s("r"), events: vec![], more: true })),
    ];
    bodies.map(|(name, message, body)| (name, message, ServerFrame { id: 5, body: Some(body) })).into()
}

fn keys(object: &Map<String, Value>) -> BTreeSet<String> {
    object.keys().cloned().collect()
}

#[test]
fn json_names_are_the_names_of_the_proto_file() {
    let mut bodies = BTreeSet::from(["id".to_owned()]);
    for (name, message, frame) in full_frames() {
        let value: Value = serde_json::from_slice(&json::encode(&frame)).expect("JSON");
        let outer = value.as_object().expect("an object");
        assert_eq!(keys(outer), BTreeSet::from(["id".to_owned(), name.to_owned()]));
        let mut expected = names(message);
        let body = outer[name].as_object().expect("an object");
        if message == "Event" {
            // One of text and data.
            let absent: &[&str] = if body.contains_key("text") { &["data", "type"] } else { &["text"] };
            absent.iter().for_each(|name| assert!(expected.remove(*name)));
        }
        assert_eq!(keys(body), expected, "{name}");
        bodies.insert(name.to_owned());
    }
    assert_eq!(bodies, names("ServerFrame"), "every body is encoded");
    let member = json!({"username": "u", "userId": "g"});
    assert_eq!(keys(member.as_object().expect("an object")), names("Member"));
}

#[test]
fn client_names_are_the_names_of_the_proto_file() {
    let full = json!({
        "hello": {"token": "a", "guest": "b", "locale": "c", "resume": "d"},
        "setUsername": {"username": "a"},
        "join": {"room": "a", "after": "b"},
        "leave": {"room": "a"},
        "publish": {"room": "a", "text": "b", "type": "t", "data": 1, "clientId": "c", "retry": true,
                    "trace": true, "traceparent": "d"},
        "typing": {"room": "a"},
        "history": {"room": "a", "before": "b", "after": "c", "limit": 4},
        "who": {"room": "a"},
    });
    let full = full.as_object().expect("an object");
    let mut bodies = keys(full);
    bodies.insert("id".to_owned());
    assert_eq!(bodies, names("ClientFrame"));
    for (name, body) in full {
        let message = format!("{}{}", name[..1].to_ascii_uppercase(), &name[1..]);
        let body = body.as_object().expect("an object");
        assert_eq!(keys(body), names(&message), "{name}");
        let variants: Vec<Map<String, Value>> = if name == "publish" {
            let without =
                |gone: &[&str]| body.clone().into_iter().filter(|(key, _)| !gone.contains(&key.as_str())).collect();
            vec![without(&["type", "data"]), without(&["text"])]
        } else {
            vec![body.clone()]
        };
        for body in variants {
            // No field may be lost: with its value gone, something else is read.
            let whole = json!({"id": 7, name: body}).to_string();
            let whole = json::decode(&whole).expect("a frame");
            assert_eq!(whole.id, 7);
            for key in body.keys() {
                let mut less = body.clone();
                less.remove(key);
                let less = json!({"id": 7, name: less}).to_string();
                assert_ne!(json::decode(&less).as_ref(), Ok(&whole), "{name}.{key} is read");
            }
        }
    }
}

#[test]
fn both_forms_of_an_event_carry_the_same() {
    let id = MessageId([3; 16]);
    let event = plaza_proto::event::Event {
        version: 1,
        kind: Kind::Text.into(),
        username: "小明".into(),
        user_id: "g:x".into(),
        client_id: "m".into(),
        content: Some(StoredContent::Text("hi".into())),
        ..Default::default()
    };
    let position = Position::of(Epoch([1; 8]), 5, id);
    let event = RoomEvent { position, id, time: 9, event: EventView::from(&event) };
    let room = RoomName::parse("lobby").expect("a valid name");
    let binary = proto::event_frame(&room, &event, Some(position));
    let (opcode, payload) = read_server_frame(&binary).expect("a whole frame");
    let frame = ServerFrame::decode(&binary[payload]).expect("a server frame");
    let text = json::event_frame(&room, &event, Some(position));
    let (text_opcode, payload) = read_server_frame(&text).expect("a whole frame");
    assert_eq!(&text[payload], json::encode(&frame));
    assert_eq!((text_opcode, opcode), (Opcode::Text, Opcode::Binary));
}

#[test]
fn data_that_is_no_json_does_not_break_its_frame() {
    let data = client::Data { r#type: "t".into(), data: "{".into() };
    let event = client::Event { content: Some(client::event::Content::Data(data)), ..Default::default() };
    let mut out = Vec::new();
    json::write_event(&mut out, &event);
    let value: Value = serde_json::from_slice(&out).expect("JSON");
    assert_eq!(value["data"], Value::Null);
}

#[test]
fn a_frame_is_an_object_with_one_body() {
    let frame = json::decode(r#" {"x":[{}],"who":{"room":"a","y":1e999},"join":null,"id":7}"#).expect("a frame");
    assert_eq!(frame, ClientFrame { id: 7, body: Body::Who { room: "a".into() } });
    for (wrong, id, message) in [
        ("", 0, "EOF"),
        ("7", 0, "expected an object with a body"),
        (r#"[7,null,null,null,null,null,null,null,{"room":"a"}]"#, 0, "expected an object with a body"),
        (r#"{"who":["u","a","","",1],"id":7}"#, 7, "expected an object"),
        (r#"{"who":{"room":5},"id":7}"#, 7, "invalid type: integer `5`"),
        (r#"{"who":{"room":5},"id":9007199254740992}"#, 0, "invalid type: integer `5`"),
        (r#"{"who":{"room":"a"},"id":9007199254740992}"#, 0, "an id is at most 2^53-1"),
        (r#"{"id":7}"#, 7, "exactly one of hello"),
        (r#"{"id":7,"who":{},"leave":{}}"#, 7, "exactly one of hello"),
        (r#"{"id":7,"who":{},"id":7}"#, 0, "duplicate field `id`"),
        (r#"{"id":7,"who":{}}{}"#, 0, "trailing characters"),
        (r#"{"id":7,"publish":{"room":"a","text":"b","type":"c"}}"#, 7, "either text, or type and data"),
    ] {
        let bad = json::decode(wrong).expect_err(wrong);
        assert!(bad.id == id && bad.message.contains(message), "{wrong}: {bad:?}");
    }
}

#[test]
fn raw_data_passes_through_unchanged() {
    let frame = json::decode(r#"{"publish":{"room":"a","type":"t","data":{"b": 1.50, "a":12345678901234567890}}}"#);
    let Body::Publish(Publish { content: Content::Data { json, .. }, .. }) = frame.expect("a frame").body else {
        panic!("a publish of data")
    };
    assert_eq!(std::str::from_utf8(&json), Ok(r#"{"b": 1.50, "a":12345678901234567890}"#));
}

#[test]
fn a_plain_publish_reads_as_with_a_space_before_it() {
    for (plain, message) in [
        (true, r#"{"publish":{"room":"a","text":"b"}}"#),
        (true, r#"{"id":9007199254740991,"publish":{"clientId":"c","retry":true,"text":"你 b","room":"a"}}"#),
        (true, r#"{"id":0,"publish":{"text":""}}"#),
        (false, r#"{"id":9007199254740992,"publish":{"room":"a","text":"b"}}"#),
        (false, r#"{"id":01,"publish":{"room":"a","text":"b"}}"#),
        (false, r#"{"id":,"publish":{"room":"a","text":"b"}}"#),
        (false, r#"{"id":+1,"publish":{"room":"a","text":"b"}}"#),
        (false, r#"{"publish":{"room":"a","text":"b"},"id":1}"#),
        (false, r#"{"publish":{"room":"a","text":"b"}} "#),
        (false, r#"{"publish":{"room":"a","text":"b"}}x"#),
        (false, r#"{"publish":{"room":"a","text":"b",}}"#),
        (false, r#"{"publish":{"room":"a"}}"#),
        (false, r#"{"publish":{}}"#),
        (false, r#"{"publish":{"text":"b","text":"b"}}"#),
        (false, r#"{"publish":{"text":"b","retry":true,"retry":true}}"#),
        (false, r#"{"publish":{"text":"b","retry":null}}"#),
        (false, r#"{"publish":{"text":"b","room":null}}"#),
        (false, r#"{"publish":{"text":"b","trace":true}}"#),
        (false, r#"{"publish":{"text":"b","type":"t"}}"#),
        (false, r#"{"publish":{"text":"a\"b"}}"#),
        (false, r#"{"publish":{"text":"\u4f60"}}"#),
        (false, "{\"publish\":{\"text\":\"a\nb\"}}"),
    ] {
        assert_eq!(super::plain::publish(message).is_some(), plain, "{message}");
        assert_eq!(json::decode(message).ok(), json::decode(&format!(" {message}")).ok(), "{message}");
    }
}

proptest! {
    #[test]
    fn both_forms_of_a_client_frame_read_the_same(id in 0u64..=(1 << 53) - 1, room: String, text: String, client_id: String, retry: bool) {
        let publish = client::Publish {
            room: room.clone(),
            client_id: client_id.clone(),
            retry,
            trace: retry,
            traceparent: client_id.clone(),
            content: Some(client::publish::Content::Text(text.clone())),
        };
        let binary = client::ClientFrame { id, body: Some(client_frame::Body::Publish(publish)) }.encode_to_vec();
        let json = json!({"id": id, "publish": {"room": room, "text": text, "clientId": client_id, "retry": retry,
                                                "trace": retry, "traceparent": client_id}});
        let json = json.to_string();
        prop_assert_eq!(proto::decode(&binary), json::decode(&json));
    }

    #[test]
    fn damaged_frames_are_frames_or_errors(place: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let json = br#"{"id":7,"publish":{"room":"a","type":"t","data":{"x":[1,2]},"clientId":"c","retry":true}}"#;
        let mut damaged = json.to_vec();
        damaged[place.index(json.len())] = byte;
        damaged.truncate(cut.index(json.len()) + 1);
        if let Ok(text) = std::str::from_utf8(&damaged) {
            let _ = json::decode(text);
        }
        let hello = client::Hello { token: "token".into(), guest: "guest".into(), locale: "zh".into(), resume: "r".into() };
        let mut damaged = client::ClientFrame { id: 9, body: Some(client_frame::Body::Hello(hello)) }.encode_to_vec();
        let length = damaged.len();
        damaged[place.index(length)] = byte;
        damaged.truncate(cut.index(length) + 1);
        let _ = proto::decode(&damaged);
    }
}
