//! The frame that clients send most, a publish of a text, as `JSON.stringify` writes it: no space between the tokens,
//! no escape in the texts. It is read where it lies, in a third of the instructions of [`super::json`], which reads
//! every other frame, and these in the same way.

use super::frame::{Body, ClientFrame, Content, Publish};
use crate::wire::json::{MAX_INTEGER, is_plain};
use std::borrow::Cow;

/// `{"id":1,"publish":{"room":"a","text":"b","clientId":"c","retry":true}}`, of which the text is needed, and whose
/// inner fields may stand in any order; `None`: any other message, also a wrong one.
pub(super) fn publish(message: &str) -> Option<ClientFrame<'_>> {
    let (id, rest) = match message.strip_prefix("{\"id\":") {
        Some(rest) => id(rest)?,
        None => (0, message.strip_prefix('{')?),
    };
    let mut rest = rest.strip_prefix("\"publish\":{")?;
    let (mut room, mut text, mut client_id, mut retry) = (None, None, None, None);
    loop {
        let (name, value) = string(rest)?;
        let value = value.strip_prefix(':')?;
        let behind = match name {
            "room" => once(&mut room, string(value)?),
            "text" => once(&mut text, string(value)?),
            "clientId" => once(&mut client_id, string(value)?),
            "retry" => once(&mut retry, boolean(value)?),
            _ => None,
        }?;
        match behind.strip_prefix(',') {
            Some(next) => rest = next,
            None if behind == "}}" => break,
            None => return None,
        }
    }
    let publish = Publish {
        room: Cow::Borrowed(room.unwrap_or_default()),
        content: Content::Text(Cow::Borrowed(text?)),
        client_id: Cow::Borrowed(client_id.unwrap_or_default()),
        retry: retry.unwrap_or_default(),
        trace: false,
        traceparent: Cow::Borrowed(""),
    };
    Some(ClientFrame { id, body: Body::Publish(publish) })
}

/// Keeps a field's value, unless it has one; what follows.
fn once<'a, T>(field: &mut Option<T>, (value, behind): (T, &'a str)) -> Option<&'a str> {
    field.replace(value).is_none().then_some(behind)
}

/// A number and its comma.
fn id(rest: &str) -> Option<(u64, &str)> {
    let (digits, rest) = rest.split_once(',')?;
    let is_number = digits.bytes().all(|digit| digit.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    let id = digits.parse().ok().filter(|id| is_number && *id <= MAX_INTEGER)?;
    Some((id, rest))
}

/// A string without escapes, and what follows its quotes.
fn string(rest: &str) -> Option<(&str, &str)> {
    let inner = rest.strip_prefix('"')?;
    let (string, behind) = inner.split_at_checked(memchr::memchr(b'"', inner.as_bytes())?)?;
    is_plain(string).then_some((string, &behind[1..]))
}

fn boolean(rest: &str) -> Option<(bool, &str)> {
    let word = |word, value| Some((value, rest.strip_prefix(word)?));
    word("true", true).or_else(|| word("false", false))
}
