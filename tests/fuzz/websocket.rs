//! Frames of clients, handshakes, and frames that edges read back.

use super::{Target, texts};
use http::{HeaderName, HeaderValue, Method, Request, Version};
use plaza_edge::wire::websocket::{
    Event, Limits, Opcode, Parser, Violation, check_upgrade, choose_subprotocol, frame, read_server_frame,
};
use tungstenite::protocol::{Message, Role, WebSocket, WebSocketConfig};

const LIMITS: Limits = Limits { max_message_bytes: 4_096, max_fragments: 8, text: true, binary: true };

pub(super) const STREAM: Target = Target { name: "websocket-stream", check: stream, seeds: stream_seeds };
pub(super) const HANDSHAKE: Target = Target { name: "websocket-handshake", check: handshake, seeds: handshake_seeds };
pub(super) const SERVER_FRAMES: Target =
    Target { name: "websocket-server-frames", check: server_frames, seeds: server_frame_seeds };

/// What a stream says, in an owned form.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
    Violation(Violation),
}

fn hear<'a>(pieces: impl Iterator<Item = &'a [u8]>, limits: &Limits) -> Vec<Heard> {
    let (mut parser, mut heard) = (Parser::default(), Vec::new());
    for piece in pieces {
        let (mut piece, mut at) = (piece.to_vec(), 0);
        loop {
            match parser.next(&mut piece, &mut at, limits, 1) {
                Ok(None) => break,
                Ok(Some(Event::Text(text))) => heard.push(Heard::Text(text.to_owned())),
                Ok(Some(Event::Binary(data))) => heard.push(Heard::Binary(data.to_vec())),
                Ok(Some(Event::Ping(data))) => heard.push(Heard::Ping(data.to_vec())),
                Ok(Some(Event::Pong)) => heard.push(Heard::Pong),
                Ok(Some(Event::Close(code))) => {
                    heard.push(Heard::Close(code));
                    return heard;
                }
                Err(violation) => {
                    heard.push(Heard::Violation(violation));
                    return heard;
                }
            }
        }
        assert_eq!(at, piece.len(), "the input is used up");
    }
    heard
}

/// However a stream is cut, it says the same; a fault has a code; and up to a fault another implementation
/// reads the same. The first byte says where it is cut.
fn stream(input: &[u8]) {
    let Some((&cut, stream)) = input.split_first() else { return };
    let whole = hear(std::iter::once(stream), &LIMITS);
    assert_eq!(hear(stream.chunks(1), &LIMITS), whole, "byte by byte");
    assert_eq!(hear(stream.chunks(usize::from(cut) + 1), &LIMITS), whole, "cut every {} bytes", usize::from(cut) + 1);
    for heard in &whole {
        match heard {
            Heard::Text(text) => assert!(text.len() <= LIMITS.max_message_bytes),
            Heard::Binary(data) => assert!(data.len() <= LIMITS.max_message_bytes),
            Heard::Ping(data) => assert!(data.len() <= 125),
            Heard::Pong | Heard::Close(_) => {}
            Heard::Violation(violation) => {
                assert!([1002, 1003, 1007, 1008, 1009].contains(&violation.code()), "{violation:?}");
                assert!(violation.reason().len() <= 123);
            }
        }
    }
    let legal: Vec<_> = whole.iter().take_while(|heard| !matches!(heard, Heard::Violation(_))).collect();
    let others = by_tungstenite(stream);
    let same = legal.iter().zip(&others).take_while(|(ours, theirs)| **ours == *theirs).count();
    assert_eq!(same, legal.len(), "ours {whole:?}, tungstenite's {others:?}");
}

/// What tungstenite makes of it, up to a fault.
fn by_tungstenite(stream: &[u8]) -> Vec<Heard> {
    struct Pipe<'a>(&'a [u8]);
    impl std::io::Read for Pipe<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            std::io::Read::read(&mut self.0, buffer)
        }
    }
    impl std::io::Write for Pipe<'_> {
        fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
            Ok(buffer.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let config = WebSocketConfig::default().max_message_size(Some(LIMITS.max_message_bytes));
    let mut socket = WebSocket::from_raw_socket(Pipe(stream), Role::Server, Some(config));
    let mut heard = Vec::new();
    while let Ok(message) = socket.read() {
        heard.push(match message {
            Message::Text(text) => Heard::Text(text.as_str().to_owned()),
            Message::Binary(data) => Heard::Binary(data.to_vec()),
            Message::Ping(data) => Heard::Ping(data.to_vec()),
            Message::Pong(_) => Heard::Pong,
            Message::Close(close) => Heard::Close(close.map(|close| close.code.into())),
            Message::Frame(_) => continue,
        });
        if matches!(heard.last(), Some(Heard::Close(_))) {
            break;
        }
    }
    heard
}

/// A frame of a client.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xFA, 0x21, 0x3D];
    let mut frame = vec![first];
    match u8::try_from(payload.len()) {
        Ok(len @ 0..=125) => frame.push(0x80 | len),
        _ => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

fn stream_seeds() -> Vec<Vec<u8>> {
    let streams = [
        [masked(0x81, b"42[\"message\",\"hi\"]"), masked(0x82, &[1, 2, 3]), masked(0x88, &[0x03, 0xE8])].concat(),
        [masked(0x01, "你".as_bytes()), masked(0x89, b"ping"), masked(0x80, "好".as_bytes())].concat(),
        [masked(0x82, &[7; 300]), masked(0x8A, b""), masked(0x88, b"")].concat(),
        masked(0x81, &[0xC3]),
    ];
    streams.iter().map(|stream| [&[4], &stream[..]].concat()).collect()
}

/// Lines of a request: method, version, then `name: value`. What is accepted has everything that RFC 6455 asks for.
fn handshake(input: &[u8]) {
    let mut lines = input.split(|&byte| byte == b'\n');
    let Some(method) = lines.next().and_then(|line| Method::from_bytes(line).ok()) else { return };
    let version = match lines.next() {
        Some(b"1.0") => Version::HTTP_10,
        Some(b"2") => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    let mut request = Request::new(());
    (*request.method_mut(), *request.version_mut()) = (method, version);
    for line in lines {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            request.headers_mut().append(name, value);
        }
    }
    let chosen = choose_subprotocol(request.headers(), &["plaza.v1.json", "plaza.v1.proto"]);
    let offered = request.headers().get_all("sec-websocket-protocol");
    let named = |name: &str| offered.iter().any(|line| line.to_str().is_ok_and(|line| line.contains(name)));
    assert!(chosen.is_none_or(named), "only what was offered is chosen");
    let (parts, ()) = request.into_parts();
    if let Ok(accept) = check_upgrade(&parts) {
        assert_eq!((parts.method.as_str(), parts.version), ("GET", Version::HTTP_11));
        assert_eq!(accept.len(), 28, "a SHA-1 in base64");
        let key = parts.headers.get("sec-websocket-key").map(HeaderValue::as_bytes).unwrap_or_default();
        assert_eq!(tungstenite::handshake::derive_accept_key(key), accept);
    }
}

fn handshake_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "GET\n1.1\nUpgrade: websocket\nConnection: keep-alive, Upgrade\nSec-WebSocket-Version: 13\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Protocol: plaza.v1.proto, plaza.v1.json",
        "POST\n1.0\nUpgrade: h2c\nContent-Length: 3",
    ])
}

/// Long-polling reads room frames back out of their bytes: never beyond the input, and what was written is found.
fn server_frames(input: &[u8]) {
    let mut rest = input;
    while let Some((_, payload)) = read_server_frame(rest) {
        assert!(payload.start >= 2 && payload.end <= rest.len());
        rest = &rest[payload.end..];
    }
    for opcode in [Opcode::Text, Opcode::Binary] {
        let written = frame(opcode, input);
        let (read, payload) = read_server_frame(&written).expect("a whole frame");
        assert_eq!((read, &written[payload]), (opcode, input));
    }
}

fn server_frame_seeds() -> Vec<Vec<u8>> {
    vec![
        [&frame(Opcode::Text, b"42[\"a\"]")[..], &frame(Opcode::Binary, &[0; 130])[..]].concat(),
        vec![0x81, 127, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
    ]
}
