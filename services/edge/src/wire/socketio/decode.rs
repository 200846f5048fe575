//! Packets from the client.

use super::is_reserved;
use crate::wire::json::{Array, MAX_INTEGER, placeholders_fit};
use serde::Deserialize;
use std::borrow::Cow;

/// Most attachments of one packet.
pub const MAX_ATTACHMENTS: usize = 10;

/// A packet; everything borrowed from its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Begins with `/`.
    pub namespace: &'a str,
    /// The client wants an ACK with this id, at most 2^53-1.
    pub id: Option<u64>,
    /// The rest.
    pub kind: Kind<'a>,
}

/// What the packet is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// Wants to join the namespace; the auth data is a JSON object.
    Connect {
        /// As JSON text.
        auth: Option<&'a str>,
    },
    /// Leaves the namespace.
    Disconnect,
    /// An event.
    Event(Arguments<'a>),
    /// The answer to an event of ours.
    Ack {
        /// The arguments as JSON text.
        arguments: &'a str,
        /// Binary messages that follow.
        attachments: usize,
    },
    /// Only a server sends it.
    ConnectError,
}

/// Name and arguments of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments<'a> {
    /// The name. A numeric name and one that is no Unicode text stand here as JSON text.
    pub name: Cow<'a, str>,
    /// The first argument as JSON text.
    pub first: Option<&'a str>,
    /// All arguments as JSON text, without brackets: `1,"x"`.
    pub all: &'a str,
    /// Binary messages that follow.
    pub attachments: usize,
}

/// A text that is no packet of a client; the connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The type is missing or above 6.
    #[error("a Socket.IO packet has an unknown type; 0 to 6 are known")]
    Type,
    /// The number of attachments is missing, no integer, or above [`MAX_ATTACHMENTS`].
    #[error("a binary packet has no number of attachments from 0 to 10 before its dash")]
    Attachments,
    /// The ack id is above 2^53-1.
    #[error("an ack id is above 2^53-1")]
    Id,
    /// The payload is not what this type of packet carries.
    #[error("the payload is not the JSON that this type of packet carries")]
    Payload,
    /// The event's name is reserved.
    #[error("an event has a reserved name")]
    Reserved,
    /// A placeholder names no attachment.
    #[error("a placeholder names no attachment")]
    Placeholder,
}

/// Reads a packet: the text of an Engine.IO message without its type byte.
///
/// # Errors
/// [`DecodeError`]: the connection closes.
pub fn decode(text: &str) -> Result<Packet<'_>, DecodeError> {
    let kind = text.bytes().next().filter(|b| (b'0'..=b'6').contains(b)).ok_or(DecodeError::Type)? - b'0';
    let rest = &text[1..];
    let (attachments, rest) = if kind >= 5 { attachments(rest)? } else { (0, rest) };
    let (namespace, rest) = namespace(rest);
    let (id, payload) = ack_id(rest)?;
    let kind = match kind {
        0 => Kind::Connect { auth: connect_auth(payload)? },
        1 if payload.is_empty() => Kind::Disconnect,
        2 | 5 => Kind::Event(event(payload, attachments, kind == 5)?),
        3 | 6 => Kind::Ack { arguments: ack(payload, attachments, kind == 6)?, attachments },
        4 => Kind::ConnectError,
        _ => return Err(DecodeError::Payload),
    };
    Ok(Packet { namespace, id, kind })
}

fn attachments(text: &str) -> Result<(usize, &str), DecodeError> {
    let (count, rest) = text.split_once('-').ok_or(DecodeError::Attachments)?;
    if count.is_empty() || count.len() > 2 || !count.bytes().all(|b| b.is_ascii_digit()) {
        return Err(DecodeError::Attachments);
    }
    match count.parse() {
        Ok(count) if count <= MAX_ATTACHMENTS => Ok((count, rest)),
        _ => Err(DecodeError::Attachments),
    }
}

/// Any namespace but `/` begins with a slash and ends before a comma or with the text.
fn namespace(text: &str) -> (&str, &str) {
    if text.starts_with('/') { text.split_once(',').unwrap_or((text, "")) } else { ("/", text) }
}

fn ack_id(text: &str) -> Result<(Option<u64>, &str), DecodeError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (id, rest) = text.split_at(digits);
    if id.is_empty() {
        return Ok((None, rest));
    }
    let id = id.parse().ok().filter(|id| *id <= MAX_INTEGER).ok_or(DecodeError::Id)?;
    Ok((Some(id), rest))
}

fn connect_auth(payload: &str) -> Result<Option<&str>, DecodeError> {
    if payload.is_empty() {
        return Ok(None);
    }
    let object = crate::wire::json::valid(payload.as_bytes()).filter(|json| json.starts_with('{'));
    object.map(Some).ok_or(DecodeError::Payload)
}

fn event(payload: &str, attachments: usize, binary: bool) -> Result<Arguments<'_>, DecodeError> {
    let array = Array::parse(payload).ok_or(DecodeError::Payload)?;
    let first = array.first.ok_or(DecodeError::Payload)?;
    let name = match first.as_bytes()[0] {
        b'"' => Text::read(first),
        b'-' | b'0'..=b'9' => Cow::Borrowed(first),
        _ => return Err(DecodeError::Payload),
    };
    if is_reserved(&name) {
        return Err(DecodeError::Reserved);
    }
    if binary && !placeholders_fit(payload, attachments) {
        return Err(DecodeError::Placeholder);
    }
    Ok(Arguments { name, first: array.second, all: array.rest, attachments })
}

fn ack(payload: &str, attachments: usize, binary: bool) -> Result<&str, DecodeError> {
    Array::parse(payload).ok_or(DecodeError::Payload)?;
    if binary && !placeholders_fit(payload, attachments) {
        return Err(DecodeError::Placeholder);
    }
    let inner = payload.trim().strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    inner.ok_or(DecodeError::Payload)
}

/// A JSON string, borrowed when it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Text<'a> {
    /// The string's text, or its JSON when it holds half of a surrogate pair.
    fn read(json: &'a str) -> Cow<'a, str> {
        serde_json::from_str::<Self>(json).map_or(Cow::Borrowed(json), |text| text.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(text: &str) -> (String, String) {
        match decode(text).map(|p| p.kind) {
            Ok(Kind::Event(event)) => (event.name.into_owned(), event.all.to_owned()),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn s02_a_namespace_ends_at_its_comma_or_with_the_text() {
        for (text, namespace, auth) in [
            ("0", "/", None),
            ("0{}", "/", Some("{}")),
            ("0/custom,", "/custom", None),
            ("0/custom", "/custom", None),
            (r#"0/custom,{"a": 1}"#, "/custom", Some(r#"{"a": 1}"#)),
        ] {
            assert_eq!(decode(text), Ok(Packet { namespace, id: None, kind: Kind::Connect { auth } }), "{text}");
        }
    }

    #[test]
    fn s07_what_is_no_packet_is_refused() {
        use DecodeError::{Id, Payload, Type};
        for (text, error) in [
            ("", Type),
            ("7", Type),
            ("é", Type),
            ("2{", Payload),
            (r#"2{"a":1}"#, Payload),
            (r#"2"abc""#, Payload),
            ("2[]", Payload),
            ("2", Payload),
            ("2[{}]", Payload),
            ("2[null]", Payload),
            (r#"2abc["a"]"#, Payload),
            (r#"2-1["a"]"#, Payload),
            (r#"29007199254740992["a"]"#, Id),
            ("31{}", Payload),
            ("31", Payload),
            ("0[]", Payload),
            ("0null", Payload),
            ("0\"x\"", Payload),
            ("1{}", Payload),
            ("1[]", Payload),
        ] {
            assert_eq!(decode(text), Err(error), "{text}");
        }
        assert_eq!(decode("4{}").map(|p| p.kind), Ok(Kind::ConnectError));
    }

    #[test]
    fn s08_reserved_names_are_refused() {
        for name in super::super::RESERVED {
            assert_eq!(decode(&format!(r#"2["{name}"]"#)), Err(DecodeError::Reserved));
        }
        assert_eq!(decode(r#"2["\u0063onnect"]"#), Err(DecodeError::Reserved), "an escape hides nothing");
    }

    #[test]
    fn s10_arguments_stay_text() {
        let packet = decode(r#"2/chat,17["ask",1,"x",{"k":[false]}]"#).expect("a packet");
        assert_eq!((packet.namespace, packet.id), ("/chat", Some(17)));
        assert_eq!(named(r#"217["ask",1.0,"x",{"k":[false]}]"#), ("ask".into(), r#"1.0,"x",{"k":[false]}"#.into()));
        assert_eq!(named("2[1,2]"), ("1".into(), "2".into()));
        assert_eq!(named(r#"2["\ud800"]"#), (r#""\ud800""#.into(), String::new()));
    }

    #[test]
    fn s11_ids_reach_the_largest_exact_integer() {
        assert_eq!(decode(r#"29007199254740991["a"]"#).map(|p| p.id), Ok(Some((1 << 53) - 1)));
    }

    #[test]
    fn s14_attachments_are_an_integer_up_to_ten() {
        for text in [
            r#"5["a"]"#,
            r#"5-["a"]"#,
            r#"5-1-["a"]"#,
            r#"51.5-["a"]"#,
            r#"511-["a"]"#,
            r#"51000000-["a"]"#,
            r#"5+1-["a"]"#,
        ] {
            assert_eq!(decode(text), Err(DecodeError::Attachments), "{text}");
        }
        assert!(matches!(decode(r#"50-["a"]"#).map(|p| p.kind), Ok(Kind::Event(Arguments { attachments: 0, .. }))));
        let wrong = r#"51-["a",{"_placeholder":true,"num":1}]"#;
        assert_eq!(decode(wrong), Err(DecodeError::Placeholder));
        assert!(decode(r#"510-["a",{"_placeholder":true,"num":9}]"#).is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_a_packet_or_an_error(text in r#"[0-7]?[0-9]{0,3}-?(/[a-z]{0,3},?)?[0-9]{0,18}[\[\]{}",:0-9a \\.-]{0,30}"#) {
            let _ = decode(&text);
        }

        #[test]
        fn events_read_back(namespace in "/[a-z/]{0,8}", name in "[^\u{0}]{0,10}", json in "[0-9]|\"[a-z]{0,9}\"|\\{\\}") {
            prop_assume!(!is_reserved(&name));
            let text = super::super::event(&namespace, &name, &json, 0);
            let text = String::from_utf8(text).expect("UTF-8");
            let packet = decode(&text[1..]).expect("our own packet");
            prop_assert_eq!(packet.namespace, namespace);
            let expected = Arguments { name: name.into(), first: Some(&json), all: &json, attachments: 0 };
            prop_assert_eq!(packet.kind, Kind::Event(expected));
        }
    }
}
