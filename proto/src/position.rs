//! Positions: where an event stands, as opaque text for clients.

use crate::base64url;
use crate::ids::MessageId;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use std::fmt;

const VERSION: u8 = 1;
const BYTES: usize = 22;

/// A stream's identity: the first 8 bytes of its uuid. Another epoch means that sequences name other
/// events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Epoch(pub [u8; 8]);

/// An event's place in the log: epoch, sequence, and a check of its message id. Shown as 30
/// characters base64url of version, epoch, shard byte (0), sequence and check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// The stream it is in.
    pub epoch: Epoch,
    /// The stream's sequence; 0 is before the first event.
    pub seq: u64,
    /// [`MessageId::check`] of the event; 0 where no event stands (the tail of an empty room).
    pub check: u32,
}

/// A text that is no position of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a position is 30 characters that the server gave out")]
pub struct BadPosition;

impl Position {
    /// The position of a stored event.
    pub fn of(epoch: Epoch, seq: u64, id: MessageId) -> Self {
        Self { epoch, seq, check: id.check() }
    }

    /// Reads what [`fmt::Display`] writes.
    ///
    /// # Errors
    /// [`BadPosition`] for any other text, another version or another shard.
    pub fn parse(text: &str) -> Result<Self, BadPosition> {
        let mut bytes = [0; BYTES];
        if text.len() != 30 || B64.decode_slice(text, &mut bytes) != Ok(BYTES) {
            return Err(BadPosition);
        }
        let (version, rest) = bytes.split_first().ok_or(BadPosition)?;
        let (epoch, rest) = rest.split_first_chunk::<8>().ok_or(BadPosition)?;
        let (shard, rest) = rest.split_first().ok_or(BadPosition)?;
        let (seq, rest) = rest.split_first_chunk::<8>().ok_or(BadPosition)?;
        let check = rest.first_chunk::<4>().ok_or(BadPosition)?;
        if *version != VERSION || *shard != 0 {
            return Err(BadPosition);
        }
        Ok(Self { epoch: Epoch(*epoch), seq: u64::from_be_bytes(*seq), check: u32::from_be_bytes(*check) })
    }

    /// The 30 characters, without allocating.
    pub fn encode(&self) -> [u8; 30] {
        let mut bytes = [0; BYTES];
        bytes[0] = VERSION;
        bytes[1..9].copy_from_slice(&self.epoch.0);
        bytes[10..18].copy_from_slice(&self.seq.to_be_bytes());
        bytes[18..].copy_from_slice(&self.check.to_be_bytes());
        base64url::encode(&bytes)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.encode()).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn positions_read_back(epoch: [u8; 8], seq: u64, check: u32) {
            let position = Position { epoch: Epoch(epoch), seq, check };
            let text = position.to_string();
            prop_assert_eq!(text.len(), 30);
            prop_assert_eq!(Position::parse(&text), Ok(position));
        }

        #[test]
        fn any_text_is_a_position_or_an_error(text: String) {
            let _ = Position::parse(&text);
        }
    }
}
