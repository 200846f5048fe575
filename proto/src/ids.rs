//! Names and ids, parsed once at the border and trusted after.

use crate::base64url;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;

/// A room's name: 1 to 64 of `A-Z a-z 0-9 _ . : -`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomName(Arc<str>);

/// A room name that is not allowed; says what would be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRoomName {
    /// No character at all.
    #[error("a room name is empty; 1 to 64 of A-Z a-z 0-9 _ . : - are allowed")]
    Empty,
    /// Too many characters.
    #[error("a room name has {0} bytes; at most 64 are allowed")]
    TooLong(usize),
    /// A character outside the set.
    #[error("a room name has the character {0:?}; A-Z a-z 0-9 _ . : - are allowed")]
    Character(char),
}

impl RoomName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`BadRoomName`] says which rule is broken.
    pub fn parse(name: &str) -> Result<Self, BadRoomName> {
        if name.is_empty() {
            return Err(BadRoomName::Empty);
        }
        if name.len() > 64 {
            return Err(BadRoomName::TooLong(name.len()));
        }
        match name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':' | '-'))) {
            Some(c) => Err(BadRoomName::Character(c)),
            None => Ok(Self(name.into())),
        }
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands for the room where its name must not be: the first 16 hexadecimal digits of the name's SHA-256.
    pub fn digest(&self) -> String {
        let mut first = [0; 8];
        first.copy_from_slice(&Sha256::digest(self.0.as_bytes())[..8]);
        format!("{:016x}", u64::from_be_bytes(first))
    }
}

impl fmt::Debug for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for RoomName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A message id: 128 bits, shown as 22 characters base64url; the `Nats-Msg-Id` of its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageId(pub [u8; 16]);

impl MessageId {
    /// The id of a message whose sender named it: the same for every retry, and for nobody else's.
    pub fn derive(room: &RoomName, user_id: &str, client_id: &str) -> Self {
        let mut hash = Sha256::new();
        for part in [room.as_str(), user_id, client_id] {
            hash.update((part.len() as u32).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let digest = hash.finalize();
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        Self(id)
    }

    /// Reads the 22 characters; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 22 {
            return None;
        }
        let mut id = [0; 16];
        (B64.decode_slice(text, &mut id).ok()? == 16).then_some(Self(id))
    }

    /// The 22 characters.
    pub fn encode(self) -> [u8; 22] {
        base64url::encode(&self.0)
    }

    /// The low 32 bits, kept in positions to tell a rolled-back log.
    pub fn check(self) -> u32 {
        let [.., a, b, c, d] = self.0;
        u32::from_be_bytes([a, b, c, d])
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.encode()).map_err(|_| fmt::Error)?)
    }
}

/// The user behind a guest key: `g:` and the 22 characters of its hash. The key itself is a secret.
pub fn guest_user_id(guest_key: &str) -> String {
    let digest = Sha256::digest(guest_key.as_bytes());
    format!("g:{}", B64.encode(&digest[..16]))
}

/// The user of a session without token and guest key.
pub fn session_user_id(session_id: &str) -> String {
    format!("s:{session_id}")
}

/// 15 random bytes as 20 characters base64url: a session id or a `pid`.
pub fn session_id(random: [u8; 15]) -> String {
    B64.encode(random)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn room_names_say_what_is_wrong() {
        assert_eq!(RoomName::parse(""), Err(BadRoomName::Empty));
        assert_eq!(RoomName::parse(&"x".repeat(300)), Err(BadRoomName::TooLong(300)));
        assert_eq!(RoomName::parse("a b"), Err(BadRoomName::Character(' ')));
        assert_eq!(RoomName::parse("acme:lobby-1.x_Y").map(|r| r.to_string()), Ok("acme:lobby-1.x_Y".into()));
    }

    #[test]
    fn message_ids_keep_rooms_and_users_apart() {
        let room = RoomName::parse("a").expect("a valid name");
        assert_ne!(MessageId::derive(&room, "u", "1x"), MessageId::derive(&room, "u1", "x"));
        assert_eq!(MessageId::derive(&room, "u", "1"), MessageId::derive(&room, "u", "1"));
    }

    proptest! {
        #[test]
        fn message_ids_read_back(bytes: [u8; 16]) {
            prop_assert_eq!(MessageId::parse(&MessageId(bytes).to_string()), Some(MessageId(bytes)));
        }

        #[test]
        fn any_text_is_a_message_id_or_none(text: String) {
            let _ = MessageId::parse(&text);
        }
    }
}
