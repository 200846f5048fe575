//! Usernames: the form that is shown, the form that is compared, and the form that is unique.
//!
//! | form | how it is made | used for |
//! |---|---|---|
//! | display | trimmed, inner white space one space, NFC | shown to people |
//! | canonical | display through PRECIS UsernameCaseMapped, part by part | searching by name |
//! | skeleton | canonical through the confusables of UTS 39 | `--unique-usernames`: names that look alike are one |
//!
//! Source: RFC 8264, RFC 8265 section 3 (a username is one or more parts with single spaces between
//! them), UTS 39 sections 4 and 5.2.

use precis_profiles::UsernameCaseMapped;
use precis_profiles::precis_core::profile::PrecisFastInvocation;
use unicode_normalization::UnicodeNormalization;
use unicode_security::{RestrictionLevel, RestrictionLevelDetection};

/// Most characters of a name, in both its forms.
pub const MAX_CHARACTERS: usize = 32;

/// Case mapping and normalisation may each enable the other once more (RFC 8264 section 7).
const ROUNDS: usize = 4;

/// A name that passed the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Username {
    display: String,
    canonical: String,
}

/// A name that is not allowed; says what would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUsername {
    /// Nothing but white space.
    #[error("the name is empty; 1 to 32 characters are allowed")]
    Empty,
    /// Too many characters.
    #[error("the name has {0} characters; at most 32 are allowed")]
    TooLong(usize),
    /// A character that PRECIS does not allow in a username.
    #[error("the name has the character U+{:04X}; letters, digits and ASCII punctuation are allowed", *.0 as u32)]
    Character(char),
    /// The parts are fine, their order is not: right-to-left and left-to-right text are mixed.
    #[error("the name mixes right-to-left and left-to-right text; one direction is allowed")]
    Direction,
    /// With unique names: scripts are mixed beyond UTS 39's Highly Restrictive level.
    #[error("the name mixes scripts that look alike, such as Latin and Cyrillic; one script is allowed")]
    Scripts,
}

impl Username {
    /// Checks a name as somebody typed it.
    ///
    /// # Errors
    /// [`BadUsername`] says which rule is broken.
    pub fn parse(typed: &str) -> Result<Self, BadUsername> {
        // Longer than any name whose characters all compose or map to one: not worth normalising.
        let characters = typed.chars().take(20 * MAX_CHARACTERS).count();
        if characters == 20 * MAX_CHARACTERS {
            return Err(BadUsername::TooLong(typed.chars().count()));
        }
        let display = single_spaces(typed).nfc().collect::<String>();
        let mut canonical = enforce(&display)?;
        for round in 0.. {
            let again = enforce(&canonical)?;
            if again == canonical {
                break;
            }
            if round == ROUNDS {
                return Err(BadUsername::Direction);
            }
            canonical = again;
        }
        for form in [&display, &canonical] {
            match form.chars().count() {
                0 => return Err(BadUsername::Empty),
                1..=MAX_CHARACTERS => {}
                n => return Err(BadUsername::TooLong(n)),
            }
        }
        Ok(Self { display, canonical })
    }

    /// The form that is shown.
    pub fn display(&self) -> &str {
        &self.display
    }

    /// The form that is compared: two names are the same when it is.
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// The form that is unique: two names look alike when it is the same.
    ///
    /// # Errors
    /// [`BadUsername::Scripts`] when the name mixes scripts in a way that only a look-alike needs.
    pub fn skeleton(&self) -> Result<String, BadUsername> {
        let without_spaces = self.canonical.replace(' ', "");
        if !without_spaces.as_str().check_restriction_level(RestrictionLevel::HighlyRestrictive) {
            return Err(BadUsername::Scripts);
        }
        Ok(unicode_security::skeleton(&self.canonical).collect())
    }
}

fn single_spaces(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// UsernameCaseMapped of each part.
fn enforce(name: &str) -> Result<String, BadUsername> {
    let parts: Result<Vec<_>, _> =
        name.split_whitespace().map(|part| UsernameCaseMapped::enforce(part).map_err(why)).collect();
    Ok(parts?.join(" "))
}

fn why(error: precis_profiles::precis_core::Error) -> BadUsername {
    use precis_profiles::precis_core::{Error, UnexpectedError};
    match error {
        Error::BadCodepoint(info) => {
            BadUsername::Character(char::from_u32(info.cp).unwrap_or(char::REPLACEMENT_CHARACTER))
        }
        Error::Unexpected(
            UnexpectedError::ContextRuleNotApplicable(info) | UnexpectedError::MissingContextRule(info),
        ) => BadUsername::Character(char::from_u32(info.cp).unwrap_or(char::REPLACEMENT_CHARACTER)),
        Error::Invalid | Error::Unexpected(_) => BadUsername::Direction,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(typed: &str) -> String {
        Username::parse(typed).map(|name| name.canonical).expect("an allowed name")
    }

    fn skeleton(typed: &str) -> Result<String, BadUsername> {
        Username::parse(typed).and_then(|name| name.skeleton())
    }

    #[test]
    fn the_display_form_is_kept_and_the_canonical_form_compares() {
        let name = Username::parse("  Zoe\u{308}   Wei ").expect("an allowed name");
        assert_eq!(name.display(), "Zo\u{eb} Wei");
        assert_eq!(name.canonical(), "zo\u{eb} wei");
        for (a, b) in [
            ("Alice", "aLICE"),
            ("Alice", "\u{ff21}\u{ff4c}\u{ff49}\u{ff43}\u{ff45}"), // full width
            ("Stra\u{df}e", "stra\u{df}e"),
            ("e\u{301}", "\u{e9}"), // composed or not
            ("王小明", "王小明"),
            ("\u{130}a", "i\u{307}A"), // Turkish dotted capital
        ] {
            assert_eq!(canonical(a), canonical(b), "{a} and {b}");
        }
        assert_ne!(canonical("ali"), canonical("al\u{131}"), "dotless i is another letter");
    }

    #[test]
    fn names_that_are_not_allowed_say_why() {
        assert_eq!(Username::parse(""), Err(BadUsername::Empty));
        assert_eq!(Username::parse(" \t\n"), Err(BadUsername::Empty));
        assert_eq!(Username::parse(&"x".repeat(33)), Err(BadUsername::TooLong(33)));
        assert_eq!(Username::parse(&"x".repeat(5_000)), Err(BadUsername::TooLong(5_000)));
        for bad in
            ['\0', '\u{7f}', '\u{85}', '\u{200b}', '\u{200d}', '\u{202e}', '\u{2066}', '\u{feff}', '\u{fb01}', '☃']
        {
            let refused = Username::parse(&format!("a{bad}b"));
            let white_space = bad.is_whitespace();
            assert_eq!(refused.is_err(), !white_space, "U+{:04X}: {refused:?}", bad as u32);
        }
        assert_eq!(Username::parse("a\u{5d0}"), Err(BadUsername::Direction));
        assert!(Username::parse(&"王".repeat(32)).is_ok());
    }

    #[test]
    fn look_alikes_have_one_skeleton_or_are_refused() {
        for (a, b) in [("paypal", "paypa1"), ("Modern", "Modem"), ("\u{441}\u{430}\u{445}", "cax")] {
            assert_eq!(skeleton(a), skeleton(b), "{a} and {b}");
        }
        assert_eq!(skeleton("p\u{430}ypal"), Err(BadUsername::Scripts), "a Cyrillic letter among Latin ones");
        assert!(skeleton("王小明 Ming").is_ok(), "Han and Latin go together");
        assert_ne!(skeleton("alice"), skeleton("bob"));
    }

    proptest! {
        #[test]
        fn the_canonical_form_of_a_canonical_form_is_itself(typed in "\\PC{0,12}") {
            if let Ok(name) = Username::parse(&typed) {
                let again = Username::parse(name.canonical());
                prop_assert_eq!(again.map(|name| name.canonical), Ok(name.canonical));
            }
        }

        #[test]
        fn the_display_form_names_the_same_user(typed: String) {
            if let Ok(name) = Username::parse(&typed) {
                let again = Username::parse(name.display());
                prop_assert_eq!(again, Ok(name));
            }
        }

        #[test]
        fn letters_of_many_scripts_stay_stable(typed in "[\\p{L}\\p{M}\\p{N} ]{0,16}") {
            if let Ok(name) = Username::parse(&typed) {
                prop_assert_eq!(canonical(name.canonical()), name.canonical);
            }
        }
    }
}
