//! The text of a message: when it was meant to leave, who sent it, and padding to 64 bytes.

/// Length of every text, in bytes.
pub(crate) const TEXT_BYTES: usize = 64;

/// Begins a stamp; stands nowhere else in what the servers send.
const MARK: u8 = b'@';

/// `@<16 digits of microseconds>#<6 digits of sender>` and padding.
pub(crate) fn write(micros: u64, sender: usize) -> String {
    let stamp = format!("@{micros:016}#{sender:06}");
    format!("{stamp:.<TEXT_BYTES$}")
}

/// Finds the stamp in a message: intended time in microseconds, and sender. Byte by byte, what stands before it would
/// cost the load as much as the whole delivery costs the server, and only with those whose messages are long.
pub(crate) fn read(payload: &[u8]) -> Option<(u64, usize)> {
    let at = memchr::memchr(MARK, payload)? + 1;
    let stamp = payload.get(at..at + 23)?;
    Some((number(&stamp[..16])?, number(&stamp[17..])? as usize))
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |sum, &digit| digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_within_any_message() {
        let text = write(1_234_567, 42);
        assert_eq!(text.len(), TEXT_BYTES);
        assert_eq!(read(format!("42[\"message\",\"u42:{text}\"]").as_bytes()), Some((1_234_567, 42)));
        assert_eq!(read(b"42[\"message\",\"u42 joined\"]"), None);
        assert_eq!(read(b"@123"), None);
    }
}
