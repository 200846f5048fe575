//! Tickets: signed names of sessions, by which clients of Plaza's own protocol continue them at any edge.
//! Pure.
//!
//! | part | bytes |
//! |---|---|
//! | version, 2 | 1 |
//! | generation of the key | 8 |
//! | end of its validity, seconds since 1970-01-01 UTC | 8 |
//! | session id | 15 |
//! | length of the user id | 1 |
//! | user id, UTF-8 | 1 to 128 |
//! | username, UTF-8; nothing without one | up to 128 |
//! | HMAC-SHA256 of all that, and of what it is for | 32 |

use crate::bridge::SessionId;
use crate::upstream::registration::SharedKey;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// How long a ticket is valid, in seconds. The session ends before, when its recovery window does.
pub(super) const VALID_SECONDS: u64 = 7 * 24 * 3_600;

const VERSION: u8 = 2;
/// What else is signed with the same keys begins otherwise.
const PURPOSE: &[u8] = b"plaza ticket";
const HEAD: usize = 1 + 8 + 8 + 15 + 1;
const MAC: usize = 32;
const MAX_USER_BYTES: usize = 128;
const MAX_NAME_BYTES: usize = 128;
const MAX_TEXT_BYTES: usize = (HEAD + MAX_USER_BYTES + MAX_NAME_BYTES + MAC).div_ceil(3) * 4;

/// What a ticket vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) session: SessionId,
    pub(super) user_id: String,
    /// Empty: none yet.
    pub(super) username: String,
}

impl Ticket {
    /// Signs with the newest key; `None` before the first lease.
    pub(super) fn sign(&self, keys: &[SharedKey], expires: u64) -> Option<String> {
        let key = keys.first()?;
        let user_bytes = u8::try_from(self.user_id.len()).ok()?;
        let mut bytes = Vec::with_capacity(HEAD + self.user_id.len() + self.username.len() + MAC);
        bytes.push(VERSION);
        bytes.extend_from_slice(&key.generation.to_be_bytes());
        bytes.extend_from_slice(&expires.to_be_bytes());
        bytes.extend_from_slice(&self.session.0);
        bytes.push(user_bytes);
        bytes.extend_from_slice(self.user_id.as_bytes());
        bytes.extend_from_slice(self.username.as_bytes());
        let mac = mac(key, &bytes)?.finalize().into_bytes();
        bytes.extend_from_slice(&mac);
        Some(B64.encode(bytes))
    }

    /// Reads a ticket; `None` when it is malformed, expired, or signed with no key that is valid now.
    pub(super) fn read(text: &str, keys: &[SharedKey], now: u64) -> Option<Self> {
        if text.len() > MAX_TEXT_BYTES {
            return None;
        }
        let bytes = B64.decode(text).ok()?;
        let (signed, signature) = bytes.split_last_chunk::<MAC>()?;
        let (version, rest) = signed.split_first()?;
        let (generation, rest) = rest.split_first_chunk::<8>()?;
        let (expires, rest) = rest.split_first_chunk::<8>()?;
        let (session, rest) = rest.split_first_chunk::<15>()?;
        let (user_bytes, rest) = rest.split_first()?;
        let (user_id, username) = rest.split_at_checked(usize::from(*user_bytes))?;
        let key = keys.iter().find(|key| key.generation == u64::from_be_bytes(*generation))?;
        mac(key, signed)?.verify_slice(signature).ok()?;
        let valid = *version == VERSION && now < u64::from_be_bytes(*expires);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let (user_id, username) = (text(user_id)?, text(username)?);
        valid.then_some(Self { session: SessionId(*session), user_id, username })
    }
}

fn mac(key: &SharedKey, signed: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(&key.secret).ok()?;
    mac.update(PURPOSE);
    mac.update(signed);
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(generation: u64) -> SharedKey {
        SharedKey { generation, secret: [generation as u8; 32].as_slice().into() }
    }

    fn ticket() -> Ticket {
        Ticket { session: SessionId([5; 15]), user_id: "g:someone".into(), username: "小明".into() }
    }

    #[test]
    fn a_ticket_is_valid_under_two_generations_of_keys_and_until_it_expires() {
        let text = ticket().sign(&[key(2), key(1)], 100).expect("a key");
        assert_eq!(Ticket::read(&text, &[key(2), key(1)], 99), Some(ticket()));
        assert_eq!(Ticket::read(&text, &[key(3), key(2)], 99), Some(ticket()));
        assert_eq!(Ticket::read(&text, &[key(4), key(3)], 99), None, "its key is gone");
        assert_eq!(Ticket::read(&text, &[key(2)], 100), None, "expired");
        let stolen = SharedKey { generation: 2, secret: [9; 32].as_slice().into() };
        assert_eq!(Ticket::read(&text, &[stolen], 99), None, "another secret");
        assert_eq!(ticket().sign(&[], 100), None);
    }

    proptest! {
        #[test]
        fn a_changed_ticket_is_none(place in 0usize..72, bit in 0u8..8) {
            let text = ticket().sign(&[key(1)], u64::MAX).expect("a key");
            let mut bytes = B64.decode(&text).expect("base64url");
            let place = place % bytes.len();
            bytes[place] ^= 1 << bit;
            prop_assert_eq!(Ticket::read(&B64.encode(&bytes), &[key(1)], 0), None);
        }

        #[test]
        fn any_text_is_a_ticket_or_none(text: String) {
            prop_assert_eq!(Ticket::read(&text, &[key(1)], 0), None);
        }
    }
}
