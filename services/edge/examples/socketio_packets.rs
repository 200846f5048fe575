//! Prints Socket.IO packets as the edge writes them, each with what a parser must read from it: one JSON
//! object a line, `{"packet", "attachments", "expect": {"type", "nsp", "id"?, "data"}}`. For a comparison
//! with the stock parser.
//!
//! `cargo run -p plaza-edge --example socketio_packets -- 1000 42` prints 1,000 packets of seed 42.

use bytes::Bytes;
use fastrand::Rng;
use plaza_edge::bridge::Variant;
use plaza_edge::wire::socketio::{ack, connect, connect_error, disconnect, event, private_line};
use plaza_edge::wire::websocket::read_server_frame;
use plaza_edge::wire::{Mark, RoomEvent, encode_event, encode_typing};
use plaza_proto::event::event::{Content, Kind};
use plaza_proto::event::{Data, Event};
use plaza_proto::ids::{MessageId, RoomName};
use plaza_proto::position::{Epoch, Position};
use plaza_proto::view::EventView;
use serde_json::{Value, json};
use std::io::Write;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let count: usize = arguments.next().map_or(Ok(1_000), |count| count.parse())?;
    let seed: u64 = arguments.next().map_or(Ok(1), |seed| seed.parse())?;
    let mut rng = Rng::with_seed(seed);
    let mut out = std::io::stdout().lock();
    for _ in 0..count {
        let (packet, attachments, expect) = draw(&mut rng)?;
        // The first character is the type of the Engine.IO message around the packet.
        let packet = packet.strip_prefix('4').unwrap_or(&packet);
        writeln!(out, "{}", json!({"packet": packet, "attachments": attachments, "expect": expect}))?;
    }
    Ok(())
}

/// One packet, its attachments and its meaning.
fn draw(rng: &mut Rng) -> anyhow::Result<(String, usize, Value)> {
    let namespace = if rng.bool() { "/".to_owned() } else { format!("/{}", word(rng)) };
    let (name, arguments) = (format!("x{}", text(rng)), arguments(rng));
    let id = rng.u64(0..1 << 53);
    let raw = arguments.iter().map(Value::to_string).collect::<Vec<_>>().join(",");
    let named = |name: &str| [&[Value::from(name)], &arguments[..]].concat();
    let (bytes, attachments, expect) = match rng.u8(0..10) {
        0 => {
            let sid = word(rng);
            (connect(&namespace, &sid, None), 0, json!({"type": 0, "nsp": namespace, "data": {"sid": sid}}))
        }
        1 => (disconnect(&namespace), 0, json!({"type": 1, "nsp": namespace})),
        2 => (event(&namespace, &name, &raw, 0), 0, json!({"type": 2, "nsp": namespace, "data": named(&name)})),
        3 => (ack(&namespace, id, &raw, 0), 0, json!({"type": 3, "nsp": namespace, "id": id, "data": arguments})),
        4 => {
            let (message, data) = (text(rng), value(rng, 2));
            let packet = connect_error(&namespace, &message, Some(data.to_string().as_bytes()));
            (packet, 0, json!({"type": 4, "nsp": namespace, "data": {"message": message, "data": data}}))
        }
        5 => {
            let places = r#"{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}"#;
            let (type_, packet, mut data) = if rng.bool() {
                (5, event(&namespace, &name, places, 2), vec![Value::from(name)])
            } else {
                (6, ack(&namespace, id, places, 2), vec![])
            };
            data.extend(["attachment 0", "attachment 1"].map(Value::from));
            let mut expect = json!({"type": type_, "nsp": namespace, "data": data});
            if type_ == 6 {
                expect["id"] = id.into();
            }
            (packet, 2, expect)
        }
        6 => {
            let line = text(rng);
            (private_line(&line), 0, json!({"type": 2, "nsp": "/", "data": ["message", line, null]}))
        }
        7 => {
            let (room, username) = (RoomName::parse(&word(rng))?, text(rng));
            let frame = encode_typing(Variant::Event, &room, &username);
            let data = json!(["typing", {"room": room.as_str(), "username": username}]);
            (payload(&frame), 0, json!({"type": 2, "nsp": "/", "data": data}))
        }
        _ => room_event(rng)?,
    };
    Ok((String::from_utf8(bytes)?, attachments, expect))
}

/// A room's event in one of the three variants, perhaps with its offset.
fn room_event(rng: &mut Rng) -> anyhow::Result<(Vec<u8>, usize, Value)> {
    let (room, username, line) = (RoomName::parse(&word(rng))?, text(rng), text(rng));
    let id = MessageId(rng.u128(..).to_be_bytes());
    let position = Position::of(Epoch(rng.u64(..).to_be_bytes()), rng.u64(..), id);
    let (kind, json) = (word(rng), value(rng, 3));
    let (variant, content, stored, mut data) = match rng.u8(0..3) {
        0 => {
            let data = json!(["message", format!("{username}:{line}")]);
            (Variant::TextZh, Content::Text(line), Kind::Text, data)
        }
        1 => {
            let object = json!({
                "room": room.as_str(), "id": id.to_string(), "position": position.to_string(),
                "username": username, "text": line, "at": 7,
            });
            (Variant::Event, Content::Text(line), Kind::Text, json!(["message", object]))
        }
        _ => {
            let data = Data { r#type: kind.clone(), json: json.to_string().into() };
            (Variant::TextEn, Content::Data(data), Kind::Data, json!([kind, json]))
        }
    };
    let event = Event { version: 1, kind: stored.into(), username, content: Some(content), ..Event::default() };
    let event = RoomEvent { position, id, time: 7, event: EventView::from(&event) };
    let mark = if rng.bool() { Mark::Offset } else { Mark::None };
    if let (Mark::Offset, Some(data)) = (mark, data.as_array_mut()) {
        data.push(position.to_string().into());
    }
    let frame = encode_event(variant, &room, &event, None, mark);
    Ok((payload(&frame), 0, json!({"type": 2, "nsp": "/", "data": data})))
}

fn payload(frame: &Bytes) -> Vec<u8> {
    read_server_frame(frame).map(|(_, payload)| frame[payload].to_vec()).unwrap_or_default()
}

/// Characters that codecs trip over.
const CHARACTERS: &[char] = &[
    'a', 'Z', '0', '9', ' ', '"', '\\', '/', ',', '-', '[', ']', '{', '}', ':', '\n', '\r', '\t', '\u{0}', '\u{1e}',
    '\u{7f}', '\u{80}', 'é', '你', '\u{2028}', '\u{fffd}', '\u{feff}', '😀',
];

fn text(rng: &mut Rng) -> String {
    let length = rng.usize(0..12);
    (0..length).map(|_| CHARACTERS[rng.usize(..CHARACTERS.len())]).collect()
}

/// A room, a type, a namespace, an id: 1 to 12 plain characters, none of the reserved names.
fn word(rng: &mut Rng) -> String {
    let length = rng.usize(1..13);
    (0..length).map(|_| char::from(b"ABCXYZ0189_.:-"[rng.usize(..14)])).collect()
}

fn arguments(rng: &mut Rng) -> Vec<Value> {
    let length = rng.usize(0..4);
    (0..length).map(|_| value(rng, 3)).collect()
}

fn value(rng: &mut Rng, depth: usize) -> Value {
    match rng.u8(0..if depth == 0 { 5 } else { 7 }) {
        0 => Value::Null,
        1 => rng.bool().into(),
        2 => rng.i32(..).into(),
        3 => (f64::from(rng.i32(..)) / 1024.0).into(),
        4 => text(rng).into(),
        5 => (0..rng.usize(0..4)).map(|_| value(rng, depth - 1)).collect::<Vec<_>>().into(),
        _ => {
            Value::Object((0..rng.usize(0..4)).map(|n| (format!("{n}{}", text(rng)), value(rng, depth - 1))).collect())
        }
    }
}
