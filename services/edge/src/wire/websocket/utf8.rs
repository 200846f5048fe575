//! UTF-8 checked piece by piece, failing at the first byte that cannot be right.

/// Where a text stands between two pieces: the bytes of a character that is not complete.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Utf8 {
    pending: [u8; 4],
    len: u8,
}

/// The text is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Invalid;

impl Utf8 {
    /// Checks the next piece.
    pub(super) fn push(&mut self, mut piece: &[u8]) -> Result<(), Invalid> {
        while self.len > 0 {
            let Some((&byte, rest)) = piece.split_first() else { return Ok(()) };
            piece = rest;
            self.pending[usize::from(self.len)] = byte;
            self.len += 1;
            match std::str::from_utf8(&self.pending[..usize::from(self.len)]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_some() => return Err(Invalid),
                Err(_) => {}
            }
        }
        match simdutf8::compat::from_utf8(piece) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_some() => Err(Invalid),
            Err(error) => {
                let tail = &piece[error.valid_up_to()..];
                self.pending[..tail.len()].copy_from_slice(tail);
                self.len = tail.len() as u8;
                Ok(())
            }
        }
    }

    /// The text may end here.
    pub(super) fn is_whole(self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The number of bytes after which the check fails, fed one by one.
    fn fails_after(text: &[u8]) -> Option<usize> {
        let mut utf8 = Utf8::default();
        (0..text.len()).find(|&i| utf8.push(&text[i..=i]).is_err()).map(|i| i + 1)
    }

    #[test]
    fn w09_the_first_impossible_byte_fails() {
        assert_eq!(fails_after(b"a\x80"), Some(2));
        assert_eq!(fails_after(b"\xC0"), Some(1));
        assert_eq!(fails_after(b"\xE0\x80"), Some(2));
        assert_eq!(fails_after(b"\xED\xA0"), Some(2));
        assert_eq!(fails_after(b"\xF4\x90"), Some(2));
        assert_eq!(fails_after(b"\xF0\x9F\x92\x41"), Some(4));
        assert_eq!(fails_after("κόσμε😀".as_bytes()), None);
    }

    proptest! {
        #[test]
        fn w09_any_cut_gives_the_verdict_of_the_whole(text: Vec<u8>, good: String, cut in 0usize..64) {
            for text in [text, good.into_bytes()] {
                let cut = cut.min(text.len());
                let mut utf8 = Utf8::default();
                let verdict = utf8.push(&text[..cut]).and_then(|()| utf8.push(&text[cut..])).is_ok() && utf8.is_whole();
                prop_assert_eq!(verdict, std::str::from_utf8(&text).is_ok());
            }
        }
    }
}
