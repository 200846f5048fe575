//! Bodies of long-polling: packets joined by 0x1E, binary as `b` and base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Stands between the packets of a body.
const SEPARATOR: u8 = 0x1e;

/// One packet of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PollingPacket<'a> {
    /// With its type byte; not checked further.
    Text(&'a str),
    /// A binary message.
    Binary(Vec<u8>),
}

/// A body that is no list of packets; 400, and the session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPayload {
    /// Nothing stands between two separators, or the body is empty.
    #[error("a packet of the body is empty")]
    Empty,
    /// The text after `b` is not standard base64 with padding.
    #[error("a binary packet is not standard base64 with padding")]
    Base64,
}

/// The packets of a POST body, one by one: those behind a wrong one are not to be used.
pub fn packets(body: &str) -> impl Iterator<Item = Result<PollingPacket<'_>, BadPayload>> {
    body.split(char::from(SEPARATOR)).map(|packet| match packet.strip_prefix('b') {
        _ if packet.is_empty() => Err(BadPayload::Empty),
        Some(text) => STANDARD.decode(text).map(PollingPacket::Binary).map_err(|_| BadPayload::Base64),
        None => Ok(PollingPacket::Text(packet)),
    })
}

/// Adds a text packet, which brings its type byte, to the body of a GET.
pub fn append_text(body: &mut Vec<u8>, packet: &[u8]) {
    separate(body);
    body.extend_from_slice(packet);
}

/// Adds a binary message to the body of a GET.
pub fn append_binary(body: &mut Vec<u8>, message: &[u8]) {
    separate(body);
    body.push(b'b');
    let start = body.len();
    body.resize(start + message.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(message, &mut body[start..]);
    debug_assert_eq!(written, Ok(body.len() - start), "three bytes are four characters with padding");
}

fn separate(body: &mut Vec<u8>) {
    if !body.is_empty() {
        body.push(SEPARATOR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn e06_a_mix_of_text_and_binary_reads_in_order() {
        let read: Vec<_> = packets("4a\u{1e}bAQID\u{1e}4€").collect();
        assert_eq!(
            read,
            [Ok(PollingPacket::Text("4a")), Ok(PollingPacket::Binary(vec![1, 2, 3])), Ok(PollingPacket::Text("4€"))]
        );
    }

    #[test]
    fn e07_empty_packets_and_bad_base64_are_refused() {
        assert_eq!(packets("").next(), Some(Err(BadPayload::Empty)));
        assert_eq!(packets("4a\u{1e}").nth(1), Some(Err(BadPayload::Empty)));
        for wrong in ["bAQI", "b???", "bAQ-_", "bAQ=="] {
            let read = packets(wrong).next();
            assert!(wrong == "bAQ==" || read == Some(Err(BadPayload::Base64)), "{wrong}: {read:?}");
        }
    }

    proptest! {
        #[test]
        fn bodies_read_back(items in proptest::collection::vec(
            prop_oneof![
                "[0-6][^\u{1e}]{0,20}".prop_map(|t| (Some(t), vec![])),
                proptest::collection::vec(any::<u8>(), 0..40).prop_map(|b| (None, b)),
            ], 1..8)) {
            let mut body = Vec::new();
            for (text, bytes) in &items {
                match text {
                    Some(text) => append_text(&mut body, text.as_bytes()),
                    None => append_binary(&mut body, bytes),
                }
            }
            let body = String::from_utf8(body).expect("base64 and text are UTF-8");
            let read: Vec<_> = packets(&body).collect();
            prop_assert_eq!(read.len(), items.len());
            for (read, (text, bytes)) in read.into_iter().zip(&items) {
                match text {
                    Some(text) => prop_assert_eq!(read, Ok(PollingPacket::Text(text))),
                    None => prop_assert_eq!(read, Ok(PollingPacket::Binary(bytes.clone()))),
                }
            }
        }

        #[test]
        fn any_body_is_packets_or_an_error(body: String) {
            prop_assert!(packets(&body).count() <= body.len() + 1);
        }
    }
}
