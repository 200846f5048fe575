//! NATS subjects, headers and the stream's name: spelt here and nowhere else.

use crate::ids::RoomName;

/// The stream of all rooms.
pub const STREAM: &str = "CHAT";
/// Key of the stream's metadata that holds its epoch, a uuid.
pub const EPOCH_KEY: &str = "plaza.epoch";
/// Rooms' stored events come in here; only fanout publishes.
pub const IN_PREFIX: &str = "chat.in.";
/// The stream's subjects.
pub const IN_ALL: &str = "chat.in.*";
/// Source of the stream's republish.
pub const REPUBLISH_SOURCE: &str = "chat.in.>";
/// Destination of the stream's republish.
pub const REPUBLISH_DESTINATION: &str = "chat.out.>";
/// Rooms' events go out here: stored ones by republish, hints and volatile ones by fanout.
pub const OUT_PREFIX: &str = "chat.out.";
/// Token of the beats, which no room name encodes to.
pub const BEAT: &str = "_beat";
/// Token of the epochs that the log has had, which no room name encodes to.
pub const EPOCH: &str = "_epoch";
/// Control subject of all edges.
pub const CONTROL_ALL: &str = "chat.ctl.all";
/// Control subject of one edge incarnation begins with this.
pub const CONTROL_EDGE_PREFIX: &str = "chat.ctl.edge.";

/// Header: the message id, for JetStream's deduplication.
pub const MSG_ID: &str = "Nats-Msg-Id";
/// Header: W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// Header of a tail hint: `1`. Its `Chat-Seq` says how far the room has come.
pub const REPAIR: &str = "Chat-Repair";
/// Header of a tail hint: the sequence that exists in the room.
pub const SEQ: &str = "Chat-Seq";
/// Header: `volatile` for events that are not stored.
pub const KIND: &str = "Chat-Kind";
/// Value of [`KIND`].
pub const VOLATILE: &str = "volatile";

/// A room as one subject token: letters, digits and `-` stay, every other byte becomes `_XX`.
pub fn room_token(room: &RoomName) -> String {
    let mut token = String::with_capacity(room.as_str().len() + 8);
    for byte in room.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            token.push(char::from(byte));
        } else {
            token.push_str(&format!("_{byte:02X}"));
        }
    }
    token
}

/// The room of a subject token; `None` for internal tokens and anything that no room encodes to.
pub fn token_room(token: &str) -> Option<RoomName> {
    let mut name = Vec::with_capacity(token.len());
    let mut bytes = token.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'_' {
            let hex = [bytes.next()?, bytes.next()?];
            name.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
        } else {
            name.push(byte);
        }
    }
    let room = RoomName::parse(std::str::from_utf8(&name).ok()?).ok()?;
    (room_token(&room) == token).then_some(room)
}

/// Where a room's stored events come in.
pub fn room_in(room: &RoomName) -> String {
    format!("{IN_PREFIX}{}", room_token(room))
}

/// Where a room's events go out.
pub fn room_out(room: &RoomName) -> String {
    format!("{OUT_PREFIX}{}", room_token(room))
}

/// The control subject of one edge incarnation; the `#` of the incarnation is not a subject character
/// of ours, so it is encoded like a room's.
pub fn control_edge(incarnation: &str) -> String {
    let token: String = incarnation
        .bytes()
        .map(|b| if b.is_ascii_alphanumeric() || b == b'-' { char::from(b).to_string() } else { format!("_{b:02X}") })
        .collect();
    format!("{CONTROL_EDGE_PREFIX}{token}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tokens_are_single_and_never_internal() {
        let room = RoomName::parse("_beat").expect("a valid name");
        assert_eq!(room_token(&room), "_5Fbeat");
        assert_eq!(token_room(BEAT), None);
        assert_eq!(token_room("_5fbeat"), None, "only the spelling that we write");
    }

    proptest! {
        #[test]
        fn every_room_reads_back(name in "[A-Za-z0-9_.:-]{1,64}") {
            let room = RoomName::parse(&name).expect("drawn from the allowed set");
            let token = room_token(&room);
            prop_assert!(!token.contains(['.', '*', '>', ' ']));
            prop_assert_eq!(token_room(&token), Some(room));
        }

        #[test]
        fn any_token_is_a_room_or_none(token: String) {
            let _ = token_room(&token);
        }
    }
}
