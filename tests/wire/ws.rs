//! A tiny WebSocket client: frames as the test builds them, and Engine.IO packets on top.

use crate::http::{Http, Response, guarded};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// The sample key of RFC 6455, section 1.3, and its answer.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// An end that a test has caused comes sooner than this, and any timeout of the profile but those of
/// pings later.
const PROMPT: Duration = Duration::from_secs(4);

/// Bytes of one client frame; `first` is the first byte as it is (FIN, RSV, opcode).
pub(crate) fn frame_bytes(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | length as u8),
        length @ 126..0x1_0000 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// A complete frame with an arbitrary mask.
pub(crate) fn frame(opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame_bytes(0x80 | opcode, [0x12, 0x34, 0x56, 0x78], payload.as_ref())
}

/// A frame that is not the last of its message.
pub(crate) fn part(opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame_bytes(opcode, [0xa1, 0x00, 0xff, 0x5c], payload.as_ref())
}

/// A close frame's payload.
pub(crate) fn close_payload(code: u16, reason: impl AsRef<[u8]>) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_ref()].concat()
}

/// Text of an upgrade request.
pub(crate) fn upgrade_request(path: &str, extra: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n"
    )
}

/// What a server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// Close frame with its code.
    Close(Option<u16>),
    /// The connection ended (in order or reset).
    End,
}

/// A WebSocket.
#[derive(Debug)]
pub(crate) struct Ws {
    pub(crate) http: Http,
}

impl Ws {
    /// Opens a WebSocket that must be accepted.
    pub(crate) async fn open(addr: SocketAddr, path: &str) -> Self {
        Self::request(addr, path, "").await.unwrap_or_else(|response| panic!("refused: {response:?}"))
    }

    /// Asks for a WebSocket.
    pub(crate) async fn request(addr: SocketAddr, path: &str, extra: &str) -> Result<Self, Response> {
        let mut http = Http::connect(addr).await;
        http.write(upgrade_request(path, extra).as_bytes()).await.expect("the request is sent");
        let response = http.response().await;
        if response.status != 101 {
            return Err(response);
        }
        assert_eq!(response.header("sec-websocket-accept"), Some(ACCEPT));
        assert_eq!(response.header("sec-websocket-extensions"), None);
        Ok(Self { http })
    }

    /// Writes bytes as they are; the peer may be gone already.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.http.write(bytes.as_ref()).await.ok();
    }

    /// Sends a text message.
    pub(crate) async fn text(&mut self, text: &str) {
        self.write(frame(TEXT, text)).await;
    }

    /// Sends a binary message.
    pub(crate) async fn binary(&mut self, bytes: &[u8]) {
        self.write(frame(BINARY, bytes)).await;
    }

    /// The next frame. Servers neither mask nor, to messages of these sizes, fragment.
    pub(crate) async fn next(&mut self) -> Message {
        guarded("a frame or the end", self.read()).await.unwrap_or(Message::End)
    }

    async fn read(&mut self) -> std::io::Result<Message> {
        let stream = &mut self.http.stream;
        let first = stream.read_u8().await?;
        let second = stream.read_u8().await?;
        assert_eq!(first & 0xf0, 0x80, "FIN, and no reserved bit");
        assert_eq!(second & 0x80, 0, "a server does not mask");
        let length = match second {
            126 => u64::from(stream.read_u16().await?),
            127 => stream.read_u64().await?,
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).expect("it fits")];
        stream.read_exact(&mut payload).await?;
        Ok(match first & 0x0f {
            TEXT => Message::Text(String::from_utf8(payload).expect("text is UTF-8")),
            BINARY => Message::Binary(payload),
            CLOSE => Message::Close(payload.first_chunk().map(|code| u16::from_be_bytes(*code))),
            PING => Message::Ping(payload),
            PONG => Message::Pong(payload),
            other => panic!("opcode {other} from the server"),
        })
    }

    /// The next text message, Engine.IO pings answered and left out.
    pub(crate) async fn packet(&mut self) -> Message {
        loop {
            match self.next().await {
                Message::Text(ping) if ping == "2" => self.text("3").await,
                other => return other,
            }
        }
    }

    /// Asserts the next Engine.IO packet but pings.
    pub(crate) async fn expect(&mut self, text: &str) {
        assert_eq!(self.packet().await, Message::Text(text.to_owned()));
    }

    /// The next Engine.IO packet but pings, which must be text.
    pub(crate) async fn packet_text(&mut self) -> String {
        match self.packet().await {
            Message::Text(text) => text,
            other => panic!("{other:?} instead of text"),
        }
    }

    /// Asserts that the server ends this connection, and not for want of a pong: pings are answered.
    /// Packets before the end are passed over; a close frame may come or not.
    pub(crate) async fn assert_ends(&mut self) {
        let end = async { while !matches!(self.packet().await, Message::Close(_) | Message::End) {} };
        tokio::time::timeout(PROMPT, end).await.expect("the connection ends by itself");
    }

    /// Asserts that messages come back.
    pub(crate) async fn assert_echoes(&mut self) {
        self.text("still here").await;
        assert_eq!(self.next().await, Message::Text("still here".to_owned()));
    }

    /// Ends the sending side only.
    pub(crate) async fn shutdown(&mut self) {
        self.http.stream.get_mut().shutdown().await.ok();
    }
}
