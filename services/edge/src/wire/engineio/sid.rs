//! The sid of an Engine.IO session: where it lives, and a secret.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use std::fmt;

const BYTES: usize = 26;
const CHARACTERS: usize = 35;

/// Names a session by its owner's number, its place there and 128 random bits, so that no table of
/// sids is needed. Shown as 35 characters base64url, never logged: whoever has it holds the session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sid {
    /// Opaque number of the edge that owns the session.
    pub edge: u32,
    /// Its shard there.
    pub shard: u16,
    /// Its slot in the shard.
    pub slot: u32,
    /// 128 random bits.
    pub secret: [u8; 16],
}

impl Sid {
    /// Reads what [`fmt::Display`] writes; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; BYTES];
        if text.len() != CHARACTERS || B64.decode_slice(text, &mut bytes) != Ok(BYTES) {
            return None;
        }
        let (edge, rest) = bytes.split_first_chunk::<4>()?;
        let (shard, rest) = rest.split_first_chunk::<2>()?;
        let (slot, rest) = rest.split_first_chunk::<4>()?;
        let secret = rest.first_chunk::<16>()?;
        Some(Self {
            edge: u32::from_be_bytes(*edge),
            shard: u16::from_be_bytes(*shard),
            slot: u32::from_be_bytes(*slot),
            secret: *secret,
        })
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; BYTES];
        bytes[..4].copy_from_slice(&self.edge.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.shard.to_be_bytes());
        bytes[6..10].copy_from_slice(&self.slot.to_be_bytes());
        bytes[10..].copy_from_slice(&self.secret);
        let mut text = [0; CHARACTERS];
        let written = B64.encode_slice(bytes, &mut text).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&text[..written]).map_err(|_| fmt::Error)?)
    }
}

/// Without the secret, so that a log of it gives nothing away.
impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sid({}/{}/{})", self.edge, self.shard, self.slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn e04_sids_read_back_and_are_no_session_ids(edge: u32, shard: u16, slot: u32, secret: [u8; 16]) {
            let sid = Sid { edge, shard, slot, secret };
            prop_assert_eq!(sid.to_string().len(), CHARACTERS);
            prop_assert_ne!(CHARACTERS, plaza_proto::ids::session_id([0; 15]).len());
            prop_assert_eq!(Sid::parse(&sid.to_string()), Some(sid));
            let logged = format!("{sid:?}");
            prop_assert!(!logged.contains(&sid.to_string()));
        }

        #[test]
        fn any_text_is_a_sid_or_none(text: String) {
            let _ = Sid::parse(&text);
        }
    }
}
