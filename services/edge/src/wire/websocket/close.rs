//! Close codes: the ones we send, the ones we take, and the violations that lead to them.

/// The close codes that the edge sends (wire.md, section 7).
pub mod codes {
    /// The purpose is fulfilled.
    pub const NORMAL: u16 = 1000;
    /// This edge goes away.
    pub const GOING_AWAY: u16 = 1001;
    /// A frame broke the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// Text where binary was due, or the other way round.
    pub const WRONG_KIND: u16 = 1003;
    /// Text that is not UTF-8.
    pub const NOT_UTF8: u16 = 1007;
    /// A limit, a flood, a policy.
    pub const POLICY: u16 = 1008;
    /// A message above the limit.
    pub const TOO_BIG: u16 = 1009;
    /// A fault of ours.
    pub const INTERNAL: u16 = 1011;
    /// The edge restarts; come back.
    pub const RESTART: u16 = 1012;
    /// The client is too slow, or the edge overloaded; come back later.
    pub const TRY_LATER: u16 = 1013;
    /// Not, or no longer, authenticated; do not come back by yourself.
    pub const UNAUTHENTICATED: u16 = 4401;
    /// Overloaded; come back after the given time.
    pub const OVERLOADED: u16 = 4503;
}

/// The close code of a connection as a metric tells it: a closed set, whatever clients send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeLabel(usize);

impl CodeLabel {
    /// All texts, by [`Self::index`].
    pub const ALL: [&str; 19] = [
        "none", "polling", "1000", "1001", "1002", "1003", "1005", "1007", "1008", "1009", "1010", "1011", "1012",
        "1013", "1014", "4401", "4503", "3xxx", "4xxx",
    ];
    /// There was no close frame: the socket was cut, or belongs to an Engine.IO session that ended without one.
    pub const NONE: Self = Self(0);
    /// It was no WebSocket.
    pub const POLLING: Self = Self(1);

    /// That of a close frame; `None`: a frame without a code (1005). A code that applications choose is told by its
    /// range, unless it is one of ours.
    pub fn of(code: Option<u16>) -> Self {
        let code = code.unwrap_or(1005);
        let range = Self::ALL.len() - if code < 4000 { 2 } else { 1 };
        Self(Self::ALL.iter().position(|label| label.parse() == Ok(code)).unwrap_or(range))
    }

    /// Its place in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self.0
    }
}

/// Whether a client may send this code (RFC 6455, section 7.4, and the IANA registry).
pub const fn may_be_received(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// How a client broke the protocol. Nothing is read after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// RSV1, RSV2 or RSV3.
    #[error("reserved bits are set")]
    ReservedBits,
    /// Opcode 3 to 7 or 11 to 15.
    #[error("reserved opcode")]
    ReservedOpcode,
    /// A client frame without a mask.
    #[error("frame is not masked")]
    Unmasked,
    /// A length that is not in its shortest form, or has its top bit set.
    #[error("length is not in its shortest form")]
    Length,
    /// A control frame that is fragmented or longer than 125 bytes.
    #[error("control frame is fragmented or too long")]
    Control,
    /// A continuation without a message, or a message inside a message.
    #[error("fragments out of order")]
    FragmentOrder,
    /// A close frame with one byte, or with a code that must not be sent.
    #[error("bad close code")]
    CloseCode,
    /// Text, or the reason of a close, is not UTF-8.
    #[error("text is not UTF-8")]
    NotUtf8,
    /// A kind of message that this endpoint does not take.
    #[error("wrong kind of message")]
    WrongKind,
    /// A message above the limit.
    #[error("message too big")]
    TooBig,
    /// More fragments than the limit.
    #[error("too many fragments")]
    TooManyFragments,
}

impl Violation {
    /// The close code that tells the client.
    pub const fn code(self) -> u16 {
        match self {
            Self::ReservedBits
            | Self::ReservedOpcode
            | Self::Unmasked
            | Self::Length
            | Self::Control
            | Self::FragmentOrder
            | Self::CloseCode => codes::PROTOCOL,
            Self::NotUtf8 => codes::NOT_UTF8,
            Self::WrongKind => codes::WRONG_KIND,
            Self::TooBig => codes::TOO_BIG,
            Self::TooManyFragments => codes::POLICY,
        }
    }

    /// The reason in the close frame.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ReservedBits => "reserved bits are set",
            Self::ReservedOpcode => "reserved opcode",
            Self::Unmasked => "frame is not masked",
            Self::Length => "length is not in its shortest form",
            Self::Control => "control frame is fragmented or too long",
            Self::FragmentOrder => "fragments out of order",
            Self::CloseCode => "bad close code",
            Self::NotUtf8 => "text is not UTF-8",
            Self::WrongKind => "wrong kind of message",
            Self::TooBig => "message too big",
            Self::TooManyFragments => "too many fragments",
        }
    }

    /// A limit, not a fault of form.
    pub const fn is_limit(self) -> bool {
        matches!(self, Self::TooBig | Self::TooManyFragments)
    }
}
