//! The table of HTTP errors.

/// Why a request is refused before or outside a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HandshakeError {
    /// `transport` is missing or not offered.
    #[error("Transport unknown")]
    TransportUnknown,
    /// No edge knows the `sid`.
    #[error("Session ID unknown")]
    SessionUnknown,
    /// No `sid` and not GET.
    #[error("Bad handshake method")]
    Method,
    /// A WebSocket without an upgrade, or a `sid` with a transport that is not the session's.
    #[error("Bad request")]
    BadRequest,
    /// Refused by Origin or limits.
    #[error("Forbidden")]
    Forbidden,
    /// `EIO` is missing or not 4.
    #[error("Unsupported protocol version")]
    Version,
}

impl HandshakeError {
    /// The protocol's number.
    pub const fn code(self) -> u8 {
        match self {
            Self::TransportUnknown => 0,
            Self::SessionUnknown => 1,
            Self::Method => 2,
            Self::BadRequest => 3,
            Self::Forbidden => 4,
            Self::Version => 5,
        }
    }

    /// The HTTP status: 403 for [`Self::Forbidden`], else 400.
    pub const fn status(self) -> u16 {
        match self {
            Self::Forbidden => 403,
            Self::TransportUnknown | Self::SessionUnknown | Self::Method | Self::BadRequest | Self::Version => 400,
        }
    }

    /// The compact JSON body, `application/json`.
    pub fn body(self) -> String {
        format!(r#"{{"code":{},"message":"{self}"}}"#, self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_protocols() {
        assert_eq!(HandshakeError::TransportUnknown.body(), r#"{"code":0,"message":"Transport unknown"}"#);
        assert_eq!(HandshakeError::SessionUnknown.body(), r#"{"code":1,"message":"Session ID unknown"}"#);
        assert_eq!(HandshakeError::Method.body(), r#"{"code":2,"message":"Bad handshake method"}"#);
        assert_eq!(HandshakeError::BadRequest.body(), r#"{"code":3,"message":"Bad request"}"#);
        assert_eq!(HandshakeError::Forbidden.body(), r#"{"code":4,"message":"Forbidden"}"#);
        assert_eq!(HandshakeError::Version.body(), r#"{"code":5,"message":"Unsupported protocol version"}"#);
        assert_eq!((HandshakeError::Forbidden.status(), HandshakeError::Version.status()), (403, 400));
    }
}
