//! What the clients say to each server: set-up as steps of text and expected answer, then messages.

use serde::{Deserialize, Serialize};

/// A protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Speak {
    /// The texts of `bun.js`.
    Bun,
    /// Socket.IO on WebSocket.
    SocketIo,
    /// Plaza's own protocol in JSON.
    PlazaJson,
}

/// One step of the set-up.
#[derive(Debug)]
pub(crate) struct Step {
    /// What to send; empty: only wait.
    pub(crate) send: String,
    /// The answer begins with this, or (Plaza's own) has it somewhere.
    pub(crate) expect: String,
}

impl Step {
    fn new(send: impl Into<String>, expect: impl Into<String>) -> Self {
        Self { send: send.into(), expect: expect.into() }
    }
}

/// Who a client is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who {
    pub(crate) index: usize,
    /// It sets a username, because it sends.
    pub(crate) named: bool,
    /// Rooms of its own that it joins, besides the common one.
    pub(crate) rooms: usize,
}

/// The room that all share.
const ROOM: &str = "bench";

impl Speak {
    /// The upgrade request. The key is the same for all: nothing of it is checked here.
    pub(crate) fn upgrade(self) -> String {
        let (path, extra) = match self {
            Self::Bun => (format!("/?room={ROOM}"), ""),
            Self::SocketIo => ("/socket.io/?EIO=4&transport=websocket".to_owned(), ""),
            Self::PlazaJson => ("/ws".to_owned(), "Sec-WebSocket-Protocol: plaza.v1.json\r\n"),
        };
        format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n"
        )
    }

    /// Step `n` of a client's set-up; `None`: it is ready.
    pub(crate) fn step(self, n: usize, who: Who) -> Option<Step> {
        let mut steps: Vec<Step> = match self {
            Self::Bun => Vec::new(),
            Self::SocketIo => vec![Step::new("", "0{"), Step::new(format!("40{{\"room\":\"{ROOM}\"}}"), "40{")],
            Self::PlazaJson => vec![
                Step::new("{\"hello\":{}}", "\"welcome\""),
                Step::new(format!("{{\"id\":2,\"join\":{{\"room\":\"{ROOM}\"}}}}"), "\"id\":2"),
            ],
        };
        if who.named {
            let name = format!("u{}", who.index);
            match self {
                Self::Bun => {}
                Self::SocketIo => steps.push(Step::new(format!("420[\"set_username\",\"{name}\"]"), "430[")),
                Self::PlazaJson => {
                    steps.push(Step::new(
                        format!("{{\"id\":1,\"setUsername\":{{\"username\":\"{name}\"}}}}"),
                        "\"id\":1",
                    ));
                }
            }
        }
        if n < steps.len() {
            return Some(steps.swap_remove(n));
        }
        let room = n - steps.len();
        if room >= who.rooms {
            return None;
        }
        let (name, id) = (format!("r{}-{room}", who.index), room + 10);
        Some(match self {
            Self::Bun => Step::new(format!("join:{name}"), "joined"),
            Self::SocketIo => Step::new(format!("42{id}[\"join\",\"{name}\"]"), format!("43{id}[")),
            Self::PlazaJson => {
                Step::new(format!("{{\"id\":{id},\"join\":{{\"room\":\"{name}\"}}}}"), format!("\"id\":{id}"))
            }
        })
    }

    /// Whether a message is the answer that a step expects.
    pub(crate) fn answers(self, payload: &[u8], expect: &str) -> bool {
        match self {
            Self::Bun | Self::SocketIo => payload.starts_with(expect.as_bytes()),
            Self::PlazaJson => payload.windows(expect.len()).any(|part| part == expect.as_bytes()),
        }
    }

    /// A message to everyone in the common room.
    pub(crate) fn publish(self, text: &str) -> String {
        match self {
            Self::Bun => text.to_owned(),
            Self::SocketIo => format!("42[\"message\",\"{text}\"]"),
            Self::PlazaJson => format!("{{\"publish\":{{\"room\":\"{ROOM}\",\"text\":\"{text}\"}}}}"),
        }
    }
}
