//! What a line of text may hold: cleaned where it enters (the edge), checked again where it is stored
//! (fanout), by the same pure function.

use std::borrow::Cow;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// Longest text of an event in bytes of UTF-8, after cleaning.
pub const MAX_TEXT_BYTES: usize = 4_096;

/// A text that is refused; says what would be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadText {
    /// Nothing is left after cleaning.
    #[error("the text is empty; 1 to 4,096 bytes are allowed")]
    Empty,
    /// Too long.
    #[error("the text has {0} bytes; at most 4,096 are allowed")]
    TooLong(usize),
    /// A bidirectional control without its partner would turn the text around it, too.
    #[error(
        "the text has an unpaired bidirectional control U+{0:04X}; each opening one needs its closing one in the same line"
    )]
    UnpairedBidi(u32),
}

impl BadText {
    /// The code of the one table.
    pub const fn code(self) -> crate::code::Code {
        match self {
            Self::Empty | Self::UnpairedBidi(_) => crate::code::Code::BadText,
            Self::TooLong(_) => crate::code::Code::TooLarge,
        }
    }
}

/// Cleans a text: NFC, control characters (C0, DEL and C1) other than newline removed. Text that is
/// clean already is returned as it is, without an allocation. Cleaning twice changes nothing.
///
/// # Errors
/// [`BadText`] says which rule is broken; the length is that of the cleaned text.
pub fn clean(text: &str) -> Result<Cow<'_, str>, BadText> {
    // Far beyond what cleaning can shorten to the limit: refused before any work is done on it.
    if text.len() > 4 * MAX_TEXT_BYTES {
        return Err(BadText::TooLong(text.len()));
    }
    // Without an early exit the compiler looks at many bytes at a time.
    let plain = text.bytes().fold(true, |plain, b| plain & matches!(b, b'\n' | b' '..=b'~'));
    let cleaned = if plain {
        Cow::Borrowed(text)
    } else {
        check_bidi(text)?;
        normalise(text)
    };
    match cleaned.len() {
        0 => Err(BadText::Empty),
        n if n > MAX_TEXT_BYTES => Err(BadText::TooLong(n)),
        _ => Ok(cleaned),
    }
}

fn normalise(text: &str) -> Cow<'_, str> {
    let stripped = |c: &char| c.is_control() && *c != '\n';
    if !text.chars().any(|c| stripped(&c)) && is_nfc_quick(text.chars()) == IsNormalized::Yes {
        return Cow::Borrowed(text);
    }
    // Controls go first: composing across one that is removed later would not be idempotent.
    Cow::Owned(text.chars().filter(|c| !stripped(c)).nfc().collect())
}

/// Embeddings, overrides and isolates must be closed in the line that opens them (UAX 9, 3.3.2: a
/// paragraph's end closes all, but a chat line stands beside others).
fn check_bidi(text: &str) -> Result<(), BadText> {
    for line in text.split('\n') {
        let mut open = Vec::new();
        for c in line.chars() {
            match c {
                '\u{202A}' | '\u{202B}' | '\u{202D}' | '\u{202E}' => open.push((c, '\u{202C}')),
                '\u{2066}'..='\u{2068}' => open.push((c, '\u{2069}')),
                '\u{202C}' | '\u{2069}' => match open.pop() {
                    Some((_, close)) if close == c => {}
                    _ => return Err(BadText::UnpairedBidi(c.into())),
                },
                _ => {}
            }
        }
        if let Some((c, _)) = open.pop() {
            return Err(BadText::UnpairedBidi(c.into()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn clean_text_is_not_copied() {
        assert!(matches!(clean("hello\nworld"), Ok(Cow::Borrowed("hello\nworld"))));
        assert!(matches!(clean("大家好 👋"), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn controls_go_and_letters_are_composed() {
        assert_eq!(clean("a\u{7}b\tc\u{85}d\n").as_deref(), Ok("abcd\n"));
        assert_eq!(clean("e\u{301}").as_deref(), Ok("\u{e9}"));
        assert_eq!(clean("e\u{0}\u{301}").as_deref(), Ok("\u{e9}"));
        assert_eq!(clean("\u{1b}\u{0}"), Err(BadText::Empty));
    }

    #[test]
    fn bidi_controls_need_their_partner() {
        assert!(clean("a \u{2067}שלום\u{2069} b").is_ok());
        assert_eq!(clean("evil \u{202E}txt"), Err(BadText::UnpairedBidi(0x202E)));
        assert_eq!(clean("\u{2069}"), Err(BadText::UnpairedBidi(0x2069)));
        assert_eq!(clean("\u{2066}\n\u{2069}"), Err(BadText::UnpairedBidi(0x2066)), "a newline closes nothing");
    }

    #[test]
    fn the_limit_is_the_cleaned_length() {
        assert!(clean(&"x".repeat(MAX_TEXT_BYTES)).is_ok());
        assert_eq!(clean(&"x".repeat(5_000)), Err(BadText::TooLong(5_000)));
        assert_eq!(clean(""), Err(BadText::Empty));
    }

    proptest! {
        #[test]
        fn cleaning_is_idempotent(text in "[\\x00-\\x7f\u{300}-\u{30f}e\u{202a}-\u{202e}\u{1100}-\u{11ff}]{0,40}|\\PC{0,40}") {
            if let Ok(once) = clean(&text) {
                let twice = clean(&once);
                prop_assert_eq!(twice.as_deref(), Ok(&*once));
            }
        }
    }
}
