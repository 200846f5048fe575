//! Somebody beside the swarm, who holds a connection open and may want a name. Nothing of it is recorded.

use crate::run::Red;
use crate::speak::{Heard, Speak};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// How long any answer may take, a refusal included.
const ANSWER: Duration = Duration::from_secs(10);

/// An open session.
#[derive(Debug)]
pub(crate) struct Person {
    ws: WebSocketStream<TcpStream>,
    speak: Speak,
    tags: u64,
}

impl Person {
    /// Opens a session of Plaza's own protocol, which needs no Redis.
    ///
    /// # Errors
    /// It is refused, or nobody answers.
    pub(crate) async fn start(edge: SocketAddr) -> Result<Self, Red> {
        Self::start_as(edge, Speak::Plaza).await
    }

    /// Opens a session of Socket.IO, which is written to Redis first.
    ///
    /// # Errors
    /// It is refused, or nobody answers.
    pub(crate) async fn start_socket_io(edge: SocketAddr) -> Result<Self, Red> {
        Self::start_as(edge, Speak::SocketIo).await
    }

    async fn start_as(edge: SocketAddr, speak: Speak) -> Result<Self, Red> {
        let started = async {
            let (path, protocol) = speak.path(0);
            let mut request = format!("ws://{edge}{path}").into_client_request().map_err(|e| e.to_string())?;
            if let Some(protocol) = protocol {
                request.headers_mut().insert("sec-websocket-protocol", protocol.parse().map_err(|_| "a header")?);
            }
            let stream = TcpStream::connect(edge).await.map_err(|e| e.to_string())?;
            let (ws, _) = tokio_tungstenite::client_async(request, stream).await.map_err(|e| e.to_string())?;
            let mut person = Self { ws, speak, tags: 0 };
            if speak == Speak::Plaza {
                person.say(speak.hello("", "")).await?;
            }
            loop {
                match speak.read(&person.next().await?) {
                    Heard::Open => person.say(speak.hello("", "")).await?,
                    Heard::Welcome { .. } => return Ok(person),
                    Heard::Refused | Heard::Failed { .. } => return Err("refused".to_owned()),
                    _ => {}
                }
            }
        };
        timeout(ANSWER, started).await.unwrap_or_else(|_| Err(format!("no session within {ANSWER:?}")))
    }

    /// Asks for a name, on Plaza's own protocol: nothing, or the code of the refusal.
    ///
    /// # Errors
    /// The connection ends, or nobody answers.
    pub(crate) async fn claim(&mut self, name: &str) -> Result<Result<(), String>, Red> {
        self.tags += 1;
        let tag = self.tags;
        self.say(self.speak.name(tag, name)).await?;
        let answered = async {
            loop {
                let frame: Value = serde_json::from_str(&self.next().await?).map_err(|e| e.to_string())?;
                if frame["id"] != tag {
                    continue;
                }
                return Ok(match frame["error"]["code"].as_str() {
                    Some(code) => Err(code.to_owned()),
                    None => Ok(()),
                });
            }
        };
        timeout(ANSWER, answered).await.unwrap_or_else(|_| Err(format!("no answer within {ANSWER:?}")))
    }

    /// Reads, and so answers pings, until the connection ends.
    pub(crate) async fn stay(mut self) {
        while self.next().await.is_ok() {}
    }

    async fn say(&mut self, text: String) -> Result<(), Red> {
        self.ws.send(Message::text(text)).await.map_err(|e| e.to_string())
    }

    async fn next(&mut self) -> Result<String, Red> {
        loop {
            match self.ws.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text.to_string()),
                Some(Ok(Message::Close(frame))) => return Err(format!("closed: {frame:?}")),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("end of stream".to_owned()),
            }
        }
    }
}
