//! What may be stored: names, sizes and texts, checked once for every way in.

use crate::log::MAX_EVENT_BYTES;
use bytes::Bytes;
use plaza_proto::code::Code;
use plaza_proto::event::event::{Content, Kind};
use plaza_proto::event::{Data, Event};
use plaza_proto::ids::RoomName;
use plaza_proto::text;
use prost::Message;
use std::borrow::Cow;

/// Longest `data.json` in bytes.
pub const MAX_DATA_BYTES: usize = 12_288;
const MAX_USER_ID_BYTES: usize = 128;
const MAX_CLIENT_ID_BYTES: usize = 64;
const MAX_USERNAME_CHARS: usize = 32;
const MAX_TYPE_BYTES: usize = 64;
/// Version of [`Event`] that this code writes.
const VERSION: u32 = 1;

/// An event or a request that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub code: Code,
    /// What was wrong and what would be right.
    pub message: String,
}

impl Refusal {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The gRPC status.
    pub fn status(&self) -> tonic::Status {
        self.code.status(&self.message)
    }
}

/// Checks a room's name.
///
/// # Errors
/// `bad_room`.
pub fn room(name: &str) -> Result<RoomName, Refusal> {
    RoomName::parse(name).map_err(|error| Refusal::new(Code::BadRoom, error.to_string()))
}

/// Checks an event and encodes it, with its text cleaned. `version` 0 is taken as 1.
///
/// # Errors
/// `bad_request`, `bad_text`, `bad_username` or `too_large`.
pub fn event(event: &Event, volatile: bool) -> Result<Bytes, Refusal> {
    if event.version > VERSION {
        return Err(bad(format!("event.version is {}; 1 is known", event.version)));
    }
    check_names(event)?;
    let cleaned = check_kind(event, volatile)?;
    let body = match cleaned {
        // What edges send is clean, and written as it is.
        None if event.version == VERSION => event.encode_to_vec(),
        cleaned => {
            let content = cleaned.map(Content::Text).or_else(|| event.content.clone());
            Event { version: VERSION, content, ..event.clone() }.encode_to_vec()
        }
    };
    if body.len() > MAX_EVENT_BYTES {
        return Err(too_long("the event", body.len(), MAX_EVENT_BYTES));
    }
    Ok(Bytes::from(body))
}

fn check_names(event: &Event) -> Result<(), Refusal> {
    if event.user_id.len() > MAX_USER_ID_BYTES {
        return Err(bad_length("event.user_id", event.user_id.len(), MAX_USER_ID_BYTES));
    }
    if event.client_id.len() > MAX_CLIENT_ID_BYTES {
        return Err(bad_length("event.client_id", event.client_id.len(), MAX_CLIENT_ID_BYTES));
    }
    for name in [&event.username, &event.previous_username] {
        let chars = name.chars().count();
        if chars > MAX_USERNAME_CHARS {
            let message = format!("a username has {chars} characters; at most 32 are allowed");
            return Err(Refusal::new(Code::BadUsername, message));
        }
        if name.chars().any(char::is_control) {
            return Err(Refusal::new(Code::BadUsername, "a username has a control character; none is allowed"));
        }
    }
    Ok(())
}

/// The content belongs to the kind; TYPING is never stored. The text, where it had to be cleaned.
fn check_kind(event: &Event, volatile: bool) -> Result<Option<String>, Refusal> {
    let kind = Kind::try_from(event.kind).unwrap_or(Kind::Unspecified);
    if kind == Kind::Typing && !volatile {
        return Err(bad("event.kind TYPING is never stored; set volatile"));
    }
    if event.username.is_empty() && kind != Kind::Notice && kind != Kind::Data {
        return Err(Refusal::new(Code::BadUsername, "event.username is empty; 1 to 32 characters are allowed"));
    }
    match (kind, &event.content) {
        (Kind::Text | Kind::Notice, Some(Content::Text(line))) => check_text(line),
        (Kind::Text | Kind::Notice, _) => Err(bad("event.text is missing; TEXT and NOTICE have one")),
        (Kind::Data, Some(Content::Data(data))) => check_data(data).map(|()| None),
        (Kind::Data, _) => Err(bad("event.data is missing; DATA has it")),
        (Kind::Joined | Kind::Left | Kind::Renamed | Kind::Typing, None) => Ok(None),
        (Kind::Joined | Kind::Left | Kind::Renamed | Kind::Typing, Some(_)) => {
            Err(bad("the event has text or data; only TEXT, NOTICE and DATA have"))
        }
        (Kind::Unspecified, _) => Err(bad(format!("event.kind is {}; 1 to 7 are known", event.kind))),
    }
}

fn check_text(line: &str) -> Result<Option<String>, Refusal> {
    match text::clean(line) {
        Ok(Cow::Borrowed(_)) => Ok(None),
        Ok(Cow::Owned(cleaned)) => Ok(Some(cleaned)),
        Err(error) => Err(Refusal::new(error.code(), error.to_string())),
    }
}

fn check_data(data: &Data) -> Result<(), Refusal> {
    let name_ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-');
    if data.r#type.is_empty() || data.r#type.len() > MAX_TYPE_BYTES || !data.r#type.bytes().all(name_ok) {
        return Err(bad("event.data.type is not 1 to 64 of A-Z a-z 0-9 _ . : -"));
    }
    if data.json.len() > MAX_DATA_BYTES {
        return Err(too_long("event.data.json", data.json.len(), MAX_DATA_BYTES));
    }
    // It is put into frames unchanged, so anything but one JSON value would break them.
    let json =
        std::str::from_utf8(&data.json).map_err(|error| bad(format!("event.data.json is not UTF-8: {error}")))?;
    serde_json::from_str::<serde::de::IgnoredAny>(json)
        .map(drop)
        .map_err(|error| bad(format!("event.data.json is not JSON: {error}")))
}

fn bad(message: impl Into<String>) -> Refusal {
    Refusal::new(Code::BadRequest, message)
}

fn bad_length(field: &str, bytes: usize, max: usize) -> Refusal {
    bad(format!("{field} has {bytes} bytes; at most {max} are allowed"))
}

fn too_long(what: &str, bytes: usize, max: usize) -> Refusal {
    Refusal::new(Code::TooLarge, format!("{what} has {bytes} bytes; at most {max} are allowed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(content: &str) -> Event {
        Event {
            kind: Kind::Text.into(),
            user_id: "u".into(),
            username: "小明".into(),
            content: Some(Content::Text(content.into())),
            ..Event::default()
        }
    }

    fn data(json: impl Into<Bytes>) -> Event {
        let content = Some(Content::Data(Data { r#type: "move".into(), json: json.into() }));
        Event { kind: Kind::Data.into(), content, ..line("") }
    }

    fn refused(refused: &Event) -> Code {
        event(refused, false).expect_err("refused").code
    }

    #[test]
    fn a_line_is_cleaned_and_encoded() {
        let stored = |sent: &Event| Event::decode(event(sent, false).expect("allowed"));
        let cleaned = Event { version: 1, ..line("a\u{e9}") };
        assert_eq!(stored(&line("a\u{7}e\u{301}")).as_ref(), Ok(&cleaned));
        assert_eq!(stored(&line("a\u{e9}")).as_ref(), Ok(&cleaned), "version 0 is 1");
        assert_eq!(stored(&cleaned).as_ref(), Ok(&cleaned));
        assert_eq!(refused(&Event { version: 2, ..line("a") }), Code::BadRequest);
    }

    #[test]
    fn sizes_have_limits() {
        assert_eq!(refused(&line(&"x".repeat(4_097))), Code::TooLarge);
        assert_eq!(refused(&data(format!("\"{}\"", "x".repeat(12_287)))), Code::TooLarge);
        assert!(event(&data(format!("\"{}\"", "x".repeat(12_286))), false).is_ok());
        assert_eq!(refused(&Event { user_id: "u".repeat(129), ..line("a") }), Code::BadRequest);
        assert_eq!(refused(&Event { username: "u".repeat(33), ..line("a") }), Code::BadUsername);
    }

    #[test]
    fn content_fits_its_kind() {
        assert_eq!(refused(&line("")), Code::BadText);
        assert_eq!(refused(&Event { content: None, ..line("") }), Code::BadRequest);
        assert_eq!(refused(&Event { kind: 99, ..line("a") }), Code::BadRequest);
        assert_eq!(refused(&Event { kind: Kind::Joined.into(), ..line("a") }), Code::BadRequest);
        assert_eq!(refused(&data("{\"a\":1} x")), Code::BadRequest);
        assert_eq!(refused(&data("")), Code::BadRequest);
        assert_eq!(refused(&data(&b"\"\xff\""[..])), Code::BadRequest);
    }

    #[test]
    fn typing_is_never_stored() {
        let typing = Event { kind: Kind::Typing.into(), content: None, ..line("") };
        assert_eq!(refused(&typing), Code::BadRequest);
        assert!(event(&typing, true).is_ok());
    }
}
