//! Events as programs publish them and as the store keeps them.

use super::{Target, is_json, text};
use plaza_edge::bridge::Variant;
use plaza_edge::wire::websocket::read_server_frame;
use plaza_edge::wire::{Mark, RoomEvent, encode_event};
use plaza_fanout::validate;
use plaza_proto::event::event::{Content, Kind};
use plaza_proto::event::{Data, Event};
use plaza_proto::ids::{MessageId, RoomName};
use plaza_proto::position::{Epoch, Position};
use plaza_proto::view::EventView;
use prost::Message;

pub(super) const STORED: Target = Target { name: "stored-event", check: stored, seeds };

/// Read in place an event is the same. What passes the check passes it again unchanged, and is shown to every kind of
/// client in one frame, of which those in JSON are JSON. What the store holds need not have passed it: it is shown, or
/// it shows nothing.
fn stored(input: &[u8]) {
    let event = Event::decode(input);
    assert_eq!(EventView::parse(input), event.as_ref().ok().map(EventView::from), "read in place");
    let Ok(event) = event else { return };
    for volatile in [false, true] {
        let Ok(body) = validate::event(&event, volatile) else { continue };
        let checked = Event::decode(&body[..]).expect("what the check wrote");
        assert_eq!(validate::event(&checked, volatile).as_ref(), Ok(&body));
        show(EventView::from(&checked), true);
    }
    show(EventView::from(&event), false);
}

fn show(event: EventView<'_>, checked: bool) {
    let id = MessageId([3; 16]);
    let position = Position::of(Epoch([1; 8]), 7, id);
    let room = RoomName::parse("lobby").expect("a room");
    let event = RoomEvent { position, id, time: 1, event };
    for variant in Variant::ALL {
        for mark in [Mark::None, Mark::Offset] {
            let frame = encode_event(variant, &room, &event, Some(position), mark);
            if frame.is_empty() {
                continue;
            }
            let (_, payload) = read_server_frame(&frame).expect("a whole frame");
            assert_eq!(payload.end, frame.len(), "one frame");
            let json = match variant {
                Variant::PlazaJson => &frame[payload],
                Variant::TextZh | Variant::TextEn | Variant::Event => &frame[payload.start + 2..],
                Variant::PlazaProto => continue,
            };
            let json = text(json).expect("text");
            assert!(!checked || is_json(json), "{variant:?}: {json} of {:?}", event.event);
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let event = |kind: Kind, content: Option<Content>| Event {
        version: 1,
        kind: kind.into(),
        user_id: "s:abc".into(),
        username: "Ada".into(),
        previous_username: if kind == Kind::Renamed { "Bo".into() } else { String::new() },
        client_id: "one".into(),
        content,
    };
    let data = Data { r#type: "t".into(), json: "{\"x\":[\"\\ude00\",1e999]}".into() };
    let events = [
        event(Kind::Text, Some(Content::Text("hi 你好 \u{7}".into()))),
        event(Kind::Notice, Some(Content::Text("a\nb".into()))),
        event(Kind::Data, Some(Content::Data(data))),
        event(Kind::Joined, None),
        event(Kind::Renamed, None),
        event(Kind::Typing, None),
    ];
    events.iter().map(Event::encode_to_vec).collect()
}
