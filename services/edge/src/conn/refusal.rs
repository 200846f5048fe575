//! Why a wish is refused, in words for the client.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use plaza_proto::code::{Code, Locale};
use plaza_proto::ids::{BadRoomName, RoomName, guest_user_id};
use plaza_proto::position::Position;
use plaza_proto::text::BadText;

/// A refused or failed wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The table's code.
    pub(crate) code: Code,
    /// What was wrong and what would be right, in English.
    pub(crate) detail: String,
}

impl Refusal {
    /// With the table's sentence.
    pub(crate) fn new(code: Code) -> Self {
        Self { code, detail: code.english().to_owned() }
    }

    /// A malformed request.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self { code: Code::BadRequest, detail: detail.into() }
    }

    /// The sentence for this client.
    pub(crate) fn message(&self, locale: Locale) -> &str {
        match locale {
            Locale::Zh => self.code.chinese(),
            Locale::En => &self.detail,
        }
    }
}

impl From<BadRoomName> for Refusal {
    fn from(error: BadRoomName) -> Self {
        Self { code: Code::BadRoom, detail: error.to_string() }
    }
}

impl From<BadText> for Refusal {
    fn from(error: BadText) -> Self {
        Self { code: error.code(), detail: error.to_string() }
    }
}

/// Reads a room's name.
pub(crate) fn room(name: &str) -> Result<RoomName, Refusal> {
    Ok(RoomName::parse(name)?)
}

/// Reads a position; an empty text is none.
pub(crate) fn position(text: &str) -> Result<Option<Position>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    Position::parse(text).map(Some).map_err(|error| Refusal { code: Code::BadPosition, detail: error.to_string() })
}

/// The user of a guest key; an empty key is none. Keys that can be guessed are refused: whoever has the
/// key is the user.
pub(crate) fn guest_user(key: &str) -> Result<Option<Box<str>>, Refusal> {
    let mut bytes = [0; 16];
    match key {
        "" => Ok(None),
        key if key.len() == 22 && B64.decode_slice(key, &mut bytes) == Ok(16) => {
            Ok(Some(guest_user_id(key).into_boxed_str()))
        }
        _ => Err(Refusal::bad_request("guest is 16 random bytes as 22 characters base64url")),
    }
}

/// The language that a client asks for.
pub(crate) fn locale_of(text: &str, default: Locale) -> Locale {
    match text {
        text if text.starts_with("zh") => Locale::Zh,
        text if text.starts_with("en") => Locale::En,
        _ => default,
    }
}
