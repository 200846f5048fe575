//! Names, lines, and the short texts in which ids, positions, times and traces travel.

use super::{Target, text, texts};
use plaza_kit::trace::context;
use plaza_proto::ids::{MessageId, RoomName};
use plaza_proto::position::Position;
use plaza_proto::subject::{room_token, token_room};
use plaza_proto::text::{MAX_TEXT_BYTES, clean};
use plaza_proto::time::parse_utc;
use plaza_session::username::{MAX_CHARACTERS, Username};

pub(super) const TEXT: Target = Target { name: "text", check: line, seeds: line_seeds };
pub(super) const USERNAME: Target = Target { name: "username", check: username, seeds: username_seeds };
pub(super) const NAMES: Target = Target { name: "names", check: names, seeds: name_seeds };

/// A clean text is bounded, has no control but the new line, and is clean.
fn line(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let Ok(cleaned) = clean(text) else { return };
    assert!((1..=MAX_TEXT_BYTES).contains(&cleaned.len()));
    assert!(!cleaned.chars().any(|c| c.is_control() && c != '\n'));
    assert_eq!(clean(&cleaned).as_deref(), Ok(&*cleaned));
}

fn line_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "hi",
        "你好\n\u{7f}a\u{300}",
        "\u{202E}turned\u{202C}",
        "\u{2066}a\u{2069} e\u{301}\u{1}",
        "\u{1F469}\u{200D}\u{1F680}",
    ])
}

/// A name that is taken is bounded, and the name as it is shown is taken as the same one.
fn username(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let Ok(name) = Username::parse(text) else { return };
    for form in [name.display(), name.canonical()] {
        assert!((1..=MAX_CHARACTERS).contains(&form.chars().count()), "{form:?}");
        assert!(!form.chars().any(char::is_control), "{form:?}");
    }
    assert_eq!(Username::parse(name.display()).as_ref(), Ok(&name));
    let canonical = Username::parse(name.canonical()).expect("a canonical name is a name");
    assert_eq!(canonical.canonical(), name.canonical());
    let _ = name.skeleton();
}

fn username_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "Ada",
        "  Ada   Lovelace ",
        "\u{ff21}da",
        "李雷",
        "e\u{301}",
        "\u{0391}\u{03a3}",
        "\u{5d0}\u{5d1}1",
        "p\u{430}ypal",
    ])
}

/// What is taken is what would be written.
fn names(input: &[u8]) {
    let Some(text) = text(input) else { return };
    if let Ok(room) = RoomName::parse(text) {
        assert_eq!(room.as_str(), text);
        assert_eq!(token_room(&room_token(&room)).as_ref(), Some(&room));
    }
    if let Some(room) = token_room(text) {
        assert_eq!(room_token(&room), text);
    }
    if let Ok(position) = Position::parse(text) {
        assert_eq!(position.to_string(), text);
    }
    if let Some(id) = MessageId::parse(text) {
        assert_eq!(id.encode(), text.as_bytes());
    }
    if let Some(context) = context::parse(text) {
        // Flags that nobody knows and what a later version adds are not passed on.
        assert_eq!(context::format(&context)[2..53], text[2..53]);
    }
    let _ = parse_utc(text);
}

fn name_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "lobby:1_a.b-C",
        "lobby_3A1_5Fa",
        "AQEBAQEBAQEBAAAAAAAAAAAHAwMDAw",
        "AwMDAwMDAwMDAwMDAwMDAw",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "2026-03-01T12:00:00.123456789Z",
    ])
}
