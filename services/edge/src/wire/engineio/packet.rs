//! Packets: one type byte, then text.

/// One packet that arrived as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// `0`: only a server sends it.
    Open,
    /// `1`: the transport can be closed.
    Close,
    /// `2`: with `probe` on a probing WebSocket.
    Ping(&'a str),
    /// `3`: the answer to the server's ping.
    Pong(&'a str),
    /// `4`: a message of the application.
    Message(&'a str),
    /// `5`: the probe was a success, this transport takes over.
    Upgrade,
    /// `6`: nothing; releases a waiting GET.
    Noop,
}

/// A text that is no packet; the connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPacket {
    /// There is no type byte.
    #[error("an Engine.IO packet is empty; its first character is its type, 0 to 6")]
    Empty,
    /// The type byte is not one of the seven.
    #[error("an Engine.IO packet has the type {0:?}; 0 to 6 are known")]
    Type(char),
}

/// Reads one packet.
///
/// # Errors
/// [`BadPacket`] for an empty text or an unknown type.
pub fn parse(text: &str) -> Result<Packet<'_>, BadPacket> {
    let mut chars = text.chars();
    let kind = chars.next().ok_or(BadPacket::Empty)?;
    let rest = chars.as_str();
    Ok(match kind {
        '0' => Packet::Open,
        '1' => Packet::Close,
        '2' => Packet::Ping(rest),
        '3' => Packet::Pong(rest),
        '4' => Packet::Message(rest),
        '5' => Packet::Upgrade,
        '6' => Packet::Noop,
        other => return Err(BadPacket::Type(other)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_type_has_its_byte() {
        assert_eq!(parse("0{}"), Ok(Packet::Open));
        assert_eq!(parse("1"), Ok(Packet::Close));
        assert_eq!(parse("2probe"), Ok(Packet::Ping("probe")));
        assert_eq!(parse("3"), Ok(Packet::Pong("")));
        assert_eq!(parse("4你好"), Ok(Packet::Message("你好")));
        assert_eq!(parse("5"), Ok(Packet::Upgrade));
        assert_eq!(parse("6"), Ok(Packet::Noop));
    }

    #[test]
    fn e20_an_empty_text_and_an_unknown_type_are_refused() {
        assert_eq!(parse(""), Err(BadPacket::Empty));
        assert_eq!(parse("7"), Err(BadPacket::Type('7')));
        assert_eq!(parse("é"), Err(BadPacket::Type('é')));
    }

    proptest! {
        #[test]
        fn any_text_is_a_packet_or_an_error(text: String) {
            if let Ok(Packet::Message(rest)) = parse(&text) {
                prop_assert_eq!(format!("4{rest}"), text);
            }
        }
    }
}
