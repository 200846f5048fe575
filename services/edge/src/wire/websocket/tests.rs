//! The cases W3 to W12 and W15 of wire.md against the parser.

use super::*;
use proptest::prelude::*;

const LIMITS: Limits = Limits { max_message_bytes: 1_000, max_fragments: 8, text: true, binary: true };

/// An event with bytes of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
    Violation(Violation),
}

/// A client frame: first byte, mask, payload.
fn client(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xFFFF => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    client(first, [0x37, 0xFA, 0x21, 0x3D], payload)
}

/// Feeds the pieces, up to the first violation or close.
fn feed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Vec<Got> {
    let mut parser = Parser::default();
    let mut events = Vec::new();
    for piece in pieces {
        let mut buffer = piece.to_vec();
        let mut at = 0;
        loop {
            match parser.next(&mut buffer, &mut at, limits, 0) {
                Ok(None) => break,
                Ok(Some(Event::Text(text))) => events.push(Got::Text(text.to_owned())),
                Ok(Some(Event::Binary(data))) => events.push(Got::Binary(data.to_vec())),
                Ok(Some(Event::Ping(data))) => events.push(Got::Ping(data.to_vec())),
                Ok(Some(Event::Pong)) => events.push(Got::Pong),
                Ok(Some(Event::Close(code))) => {
                    events.push(Got::Close(code));
                    return events;
                }
                Err(violation) => {
                    events.push(Got::Violation(violation));
                    return events;
                }
            }
        }
        assert_eq!(at, buffer.len());
    }
    events
}

fn all(stream: &[u8]) -> Vec<Got> {
    feed([stream], &LIMITS)
}

fn last_violation(stream: &[u8]) -> Option<Violation> {
    let cut = feed(stream.chunks(1), &LIMITS);
    assert_eq!(all(stream), cut, "bytes one by one give the same events");
    match cut.last() {
        Some(Got::Violation(violation)) => Some(*violation),
        _ => None,
    }
}

#[test]
fn w03_client_frames_must_be_masked_and_any_mask_works() {
    assert_eq!(last_violation(&[0x81, 0x00]), Some(Violation::Unmasked));
    for mask in [[0; 4], [1, 2, 3, 4], [0xFF; 4]] {
        let frame = client(0x81, mask, b"a text that is longer than a word");
        for cut in 0..frame.len() {
            let got = feed([&frame[..cut], &frame[cut..]], &LIMITS);
            assert_eq!(got, [Got::Text("a text that is longer than a word".into())]);
        }
    }
}

#[test]
fn w04_reserved_bits_and_opcodes_fail_at_once() {
    for bit in [0x40, 0x20, 0x10] {
        assert_eq!(last_violation(&[0x81 | bit]), Some(Violation::ReservedBits));
    }
    for opcode in (3..=7).chain(11..=15) {
        assert_eq!(last_violation(&[0x80 | opcode]), Some(Violation::ReservedOpcode));
        let mut inside = masked(0x01, b"begun");
        inside.push(0x80 | opcode);
        assert_eq!(last_violation(&inside), Some(Violation::ReservedOpcode));
    }
}

#[test]
fn w05_lengths_have_their_shortest_form_and_reserve_nothing() {
    assert_eq!(last_violation(&[0x81, 0xFE, 0, 125]), Some(Violation::Length));
    assert_eq!(last_violation(&[0x81, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]), Some(Violation::Length));
    assert_eq!(last_violation(&[0x81, 0xFF, 0x80, 0, 0, 0, 0, 1, 0, 0]), Some(Violation::Length));
    let huge = Limits { max_message_bytes: usize::MAX, ..LIMITS };
    let declared = [0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 1, 2];
    assert_eq!(feed([&declared[..]], &huge), []);
}

#[test]
fn w06_control_frames_are_short_whole_and_handled_between_fragments() {
    assert_eq!(last_violation(&[0x09]), Some(Violation::Control));
    assert_eq!(last_violation(&[0x89, 0xFE]), Some(Violation::Control));
    assert_eq!(all(&masked(0x89, &[7; 125])), [Got::Ping(vec![7; 125])]);
    let stream = [masked(0x01, b"a"), masked(0x8A, b"x"), masked(0x80, b"b")].concat();
    assert_eq!(all(&stream), [Got::Pong, Got::Text("ab".into())]);
}

#[test]
fn w07_a_ping_shows_before_the_fragmented_message_ends() {
    let stream = [masked(0x02, b"a"), masked(0x89, b"hello"), masked(0x80, b"b")].concat();
    assert_eq!(all(&stream), [Got::Ping(b"hello".to_vec()), Got::Binary(b"ab".to_vec())]);
}

#[test]
fn w08_fragments_come_in_order_and_may_be_empty() {
    assert_eq!(last_violation(&masked(0x80, b"")), Some(Violation::FragmentOrder));
    assert_eq!(last_violation(&[masked(0x01, b"a"), masked(0x81, b"b")].concat()), Some(Violation::FragmentOrder));
    let stream = [masked(0x01, b""), masked(0x00, b""), masked(0x80, b""), masked(0x82, b"")].concat();
    assert_eq!(all(&stream), [Got::Text(String::new()), Got::Binary(Vec::new())]);
}

#[test]
fn w09_text_fails_at_the_first_impossible_byte() {
    let bad = masked(0x81, b"abc\xF4\x90\x80\x80 and more that never arrives");
    // Two header bytes, the mask, "abc", and two bytes of the impossible character.
    let pieces = bad[..11].chunks(1);
    assert_eq!(feed(pieces, &LIMITS), [Got::Violation(Violation::NotUtf8)]);
    let split = [masked(0x01, "κ".as_bytes().split_at(1).0), masked(0x80, "κ".as_bytes().split_at(1).1)].concat();
    assert_eq!(all(&split), [Got::Text("κ".into())]);
    assert_eq!(last_violation(&masked(0x81, b"\xE2\x82")), Some(Violation::NotUtf8));
    assert_eq!(last_violation(&[masked(0x01, b"\xE2"), masked(0x80, b"")].concat()), Some(Violation::NotUtf8));
    assert_eq!(last_violation(&[masked(0x01, b"\xE2"), masked(0x00, b"a")].concat()), Some(Violation::NotUtf8));
}

#[test]
fn w10_limits_are_decided_at_the_header() {
    assert_eq!(all(&masked(0x82, &[0; 1_000])).len(), 1);
    assert_eq!(last_violation(&masked(0x82, &[0; 1_001])[..4]), Some(Violation::TooBig));
    let sum = [masked(0x02, &[0; 600]), masked(0x80, &[0; 401])[..4].to_vec()].concat();
    assert_eq!(last_violation(&sum), Some(Violation::TooBig));
    let mut many = masked(0x02, b"");
    (0..7).for_each(|_| many.extend(masked(0x00, b"")));
    assert_eq!(all(&many), []);
    many.push(0x00);
    assert_eq!(last_violation(&many), Some(Violation::TooManyFragments));
    assert_eq!(Violation::TooManyFragments.code(), codes::POLICY);
}

#[test]
fn w11_close_payloads_are_checked() {
    assert_eq!(all(&masked(0x88, b"")), [Got::Close(None)]);
    assert_eq!(last_violation(&masked(0x88, b"\x03")), Some(Violation::CloseCode));
    assert_eq!(last_violation(&masked(0x88, b"\x03\xE8\xC0")), Some(Violation::NotUtf8));
    assert_eq!(all(&masked(0x88, &[b"\x03\xE8".as_slice(), &[b'a'; 123]].concat())), [Got::Close(Some(1000))]);
}

#[test]
fn w12_only_registered_close_codes_are_taken() {
    for code in 0..=u16::MAX {
        let legal = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let got = all(&masked(0x88, &code.to_be_bytes()));
        let want = if legal { Got::Close(Some(code)) } else { Got::Violation(Violation::CloseCode) };
        assert_eq!(got, [want]);
    }
}

#[test]
fn a_kind_that_is_not_taken_is_a_violation() {
    let text_only = Limits { binary: false, ..LIMITS };
    assert_eq!(feed([&masked(0x82, b"x")[..]], &text_only), [Got::Violation(Violation::WrongKind)]);
    let binary_only = Limits { text: false, ..LIMITS };
    assert_eq!(feed([&masked(0x81, b"x")[..]], &binary_only), [Got::Violation(Violation::WrongKind)]);
    assert_eq!(Violation::WrongKind.code(), 1003);
}

#[test]
fn a_parser_at_a_border_holds_no_box() {
    let mut parser = Parser::default();
    for piece in [masked(0x01, b"a"), masked(0x80, b"b")] {
        let mut piece = piece;
        let mut at = 0;
        while parser.next(&mut piece, &mut at, &LIMITS, 5).is_ok_and(|event| event.is_some()) {}
        assert_eq!(at, piece.len());
    }
    assert_eq!(parser.incomplete_since(), None);
    assert_eq!(std::mem::size_of::<Parser>(), 8);
}

/// Streams that are mostly legal, with damage here and there.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        any::<String>().prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..200),
        Just(vec![b'x'; 300]),
    ];
    let first = prop_oneof![8 => prop_oneof![Just(0x81), Just(0x82), Just(0x01), Just(0x00), Just(0x80), Just(0x89)], 1 => any::<u8>()];
    let frame = (first, any::<[u8; 4]>(), payload).prop_map(|(first, mask, payload)| {
        let payload = if first & 0x08 != 0 { &payload[..payload.len().min(125)] } else { &payload };
        client(first, mask, payload)
    });
    (
        proptest::collection::vec(frame, 0..12),
        proptest::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>())),
    )
        .prop_map(|(frames, damage)| {
            let mut stream = frames.concat();
            if let (Some((place, byte)), false) = (damage, stream.is_empty()) {
                let place = place.index(stream.len());
                stream[place] = byte;
            }
            stream
        })
}

proptest! {
    #[test]
    fn w15_any_cut_gives_the_same_events(stream in streams(), cuts in proptest::collection::vec(1usize..50, 1..20)) {
        let mut pieces = Vec::new();
        let mut rest = &stream[..];
        for cut in cuts.into_iter().cycle() {
            if rest.is_empty() { break; }
            let (piece, behind) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = behind;
        }
        prop_assert_eq!(feed(pieces, &LIMITS), all(&stream));
    }

    #[test]
    fn w15_any_bytes_give_a_documented_code(stream in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Some(Got::Violation(violation)) = all(&stream).last() {
            prop_assert!([1002, 1003, 1007, 1008, 1009].contains(&violation.code()));
            prop_assert!(violation.reason().len() <= 123);
        }
    }

    #[test]
    fn legal_streams_read_as_another_implementation_reads_them(stream in streams()) {
        let ours = all(&stream);
        let theirs = other(&stream);
        // Both may stop at a fault, and name it differently; up to there they agree. The other one shows a
        // close with a code that is not allowed as a close with 1002.
        let legal = |got: &[Got]| got.iter().take_while(|g| !matches!(g, Got::Violation(_))).cloned().collect::<Vec<_>>();
        let faulty = matches!(ours.last(), Some(Got::Violation(_)));
        let theirs = match theirs.split_last() {
            Some((Got::Close(Some(1002)), before)) if faulty => before,
            // It reads on behind a length that is longer than it need be, which damage may make of a short one.
            _ if ours.last() == Some(&Got::Violation(Violation::Length)) => &theirs[..theirs.len().min(ours.len() - 1)],
            _ => &theirs[..],
        };
        prop_assert_eq!(legal(&ours), legal(theirs));
    }
}

/// The same stream through tungstenite, with the same limits.
fn other(stream: &[u8]) -> Vec<Got> {
    use tungstenite::protocol::{Message, Role, WebSocket, WebSocketConfig};
    /// Reads the stream, and swallows answers.
    struct Both<'a>(&'a [u8]);
    impl std::io::Read for Both<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(buffer)
        }
    }
    impl std::io::Write for Both<'_> {
        fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
            Ok(buffer.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let config = WebSocketConfig::default().max_message_size(Some(LIMITS.max_message_bytes));
    let mut socket = WebSocket::from_raw_socket(Both(stream), Role::Server, Some(config));
    let mut got = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => got.push(Got::Text(text.as_str().to_owned())),
            Ok(Message::Binary(data)) => got.push(Got::Binary(data.to_vec())),
            Ok(Message::Ping(data)) => got.push(Got::Ping(data.to_vec())),
            Ok(Message::Pong(_)) => got.push(Got::Pong),
            Ok(Message::Close(frame)) => {
                got.push(Got::Close(frame.map(|frame| frame.code.into())));
                return got;
            }
            Ok(Message::Frame(_)) | Err(_) => return got,
        }
    }
}
