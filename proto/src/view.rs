//! A stored event read in place: its texts stay where they are, in the store's bytes. An edge reads every event that
//! it shows; copies of five texts would be a tenth of what a message costs there.

use crate::event::Event;
use crate::event::event::{Content, Kind};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// An [`Event`], borrowed. The fields are described in event.proto.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventView<'a> {
    /// Version of the message.
    pub version: u32,
    /// What happened; a kind that this reader does not know is [`Kind::Unspecified`].
    pub kind: Kind,
    /// Who caused it.
    pub user_id: &'a str,
    /// The name shown for that user; may be empty.
    pub username: &'a str,
    /// The sender's own id of this message; may be empty.
    pub client_id: &'a str,
    /// A text, or data.
    pub content: Option<ContentView<'a>>,
    /// The name before; may be empty.
    pub previous_username: &'a str,
}

/// The content of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentView<'a> {
    /// A line of text.
    Text(&'a str),
    /// JSON of the application.
    Data {
        /// Its type.
        kind: &'a str,
        /// Perhaps no JSON.
        json: &'a [u8],
    },
}

impl<'a> EventView<'a> {
    /// Reads an encoded [`Event`], as `Event::decode` does it; `None`: it is none.
    pub fn parse(mut body: &'a [u8]) -> Option<Self> {
        let mut event = Self::default();
        while !body.is_empty() {
            let (tag, wire) = decode_key(&mut body).ok()?;
            match tag {
                1 => event.version = integer(wire, &mut body)? as u32,
                2 => event.kind = Kind::try_from(integer(wire, &mut body)? as i32).unwrap_or(Kind::Unspecified),
                3 => event.user_id = text(wire, &mut body)?,
                4 => event.username = text(wire, &mut body)?,
                5 => event.client_id = text(wire, &mut body)?,
                6 => event.content = Some(ContentView::Text(text(wire, &mut body)?)),
                7 => event.content = Some(data(event.content, bytes(wire, &mut body)?)?),
                8 => event.previous_username = text(wire, &mut body)?,
                _ => skip_field(wire, tag, &mut body, DecodeContext::default()).ok()?,
            }
        }
        Some(event)
    }
}

/// Data, whose parts may come one after the other.
fn data<'a>(before: Option<ContentView<'a>>, mut part: &'a [u8]) -> Option<ContentView<'a>> {
    let (mut kind, mut json) = match before {
        Some(ContentView::Data { kind, json }) => (kind, json),
        _ => ("", &[][..]),
    };
    while !part.is_empty() {
        let (tag, wire) = decode_key(&mut part).ok()?;
        match tag {
            1 => kind = text(wire, &mut part)?,
            2 => json = bytes(wire, &mut part)?,
            _ => skip_field(wire, tag, &mut part, DecodeContext::default()).ok()?,
        }
    }
    Some(ContentView::Data { kind, json })
}

fn integer(wire: WireType, rest: &mut &[u8]) -> Option<u64> {
    (wire == WireType::Varint).then(|| decode_varint(rest).ok())?
}

fn bytes<'a>(wire: WireType, rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    if wire != WireType::LengthDelimited {
        return None;
    }
    let length = usize::try_from(decode_varint(rest).ok()?).ok()?;
    let (field, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(field)
}

fn text<'a>(wire: WireType, rest: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(bytes(wire, rest)?).ok()
}

impl<'a> From<&'a Event> for EventView<'a> {
    fn from(event: &'a Event) -> Self {
        Self {
            version: event.version,
            kind: event.kind(),
            user_id: &event.user_id,
            username: &event.username,
            client_id: &event.client_id,
            content: event.content.as_ref().map(|content| match content {
                Content::Text(text) => ContentView::Text(text),
                Content::Data(data) => ContentView::Data { kind: &data.r#type, json: &data.json },
            }),
            previous_username: &event.previous_username,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Data;
    use proptest::prelude::*;
    use prost::Message;

    fn same(bytes: &[u8]) {
        let decoded = Event::decode(bytes).ok();
        assert_eq!(EventView::parse(bytes), decoded.as_ref().map(EventView::from), "{bytes:?}");
    }

    fn event(kind: i32, content: Option<Content>) -> Event {
        let [user_id, username, client_id, previous_username] = ["s:abc", "Ada", "one", "Bo"].map(str::to_owned);
        Event { version: 1, kind, user_id, username, client_id, content, previous_username }
    }

    #[test]
    fn parts_that_come_twice_and_parts_of_later_versions_are_read_as_by_prost() {
        let data = |kind: &str, json: &str| Content::Data(Data { r#type: kind.into(), json: json.to_owned().into() });
        let (text, none) = (Content::Text("hi 你好".into()), event(99, None));
        let pieces = [
            event(1, Some(text)).encode_to_vec(),
            event(2, Some(data("t", ""))).encode_to_vec(),
            event(2, Some(data("", "{}"))).encode_to_vec(),
            none.encode_to_vec(),
            // Fields 9 to 12 of each wire type, a group among them.
            vec![0x48, 1, 0x51, 1, 2, 3, 4, 5, 6, 7, 8, 0x5a, 1, 0, 0x63, 0x48, 1, 0x64],
        ];
        for first in &pieces {
            for second in &pieces {
                for third in &pieces {
                    let whole = [&first[..], second, third].concat();
                    same(&whole);
                    assert!(EventView::parse(&whole).is_some());
                }
            }
        }
        same(b"\x18\x01");
        same(b"\x1a\x01\xff");
        same(b"\x64");
    }

    proptest! {
        #[test]
        fn damaged_events_are_read_as_by_prost(place: prop::sample::Index, byte: u8, cut: prop::sample::Index, text: String) {
            let content = [Content::Text(text.clone()), Content::Data(Data { r#type: "t".into(), json: text.into() })];
            for content in content {
                let mut bytes = event(1, Some(content)).encode_to_vec();
                let at = place.index(bytes.len());
                bytes[at] = byte;
                same(&bytes);
                bytes.truncate(cut.index(bytes.len()));
                same(&bytes);
            }
        }

        #[test]
        fn any_bytes_are_read_as_by_prost(bytes: Vec<u8>) {
            same(&bytes);
        }
    }
}
