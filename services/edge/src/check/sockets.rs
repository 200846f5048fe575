//! The two clients of the check: Plaza's own protocol and Socket.IO, each on a blocking WebSocket that is
//! read until a deadline.

use serde_json::Value;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{HandshakeError, Message, WebSocket};

/// Frames kept while another one is waited for.
const KEPT: usize = 256;
/// Larger than anything an edge sends.
const FRAME_BYTES: usize = 4 << 20;

/// A stream whose reads and writes end at a deadline.
#[derive(Debug)]
struct Timed {
    stream: TcpStream,
    deadline: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

type Socket = WebSocket<Timed>;

/// Opens a WebSocket on an edge.
fn open(edge: &str, path: &str, subprotocol: Option<&'static str>, deadline: Instant) -> Result<Socket, String> {
    let stream = connect(edge, deadline)?;
    let mut request = format!("ws://{edge}{path}").into_client_request().map_err(|error| error.to_string())?;
    if let Some(name) = subprotocol {
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(name));
    }
    let config = WebSocketConfig::default().max_message_size(Some(FRAME_BYTES));
    let opened = tungstenite::client::client_with_config(request, Timed { stream, deadline }, Some(config));
    let (socket, _) = opened.map_err(|error| match error {
        HandshakeError::Failure(tungstenite::Error::Http(answer)) => {
            let status = answer.status();
            let body = answer.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            format!("{edge} answers {status} {}; an edge that starts or drains says 503", body.trim())
        }
        HandshakeError::Failure(error) => format!("{edge} listens but does not speak WebSocket: {}", told(error)),
        HandshakeError::Interrupted(_) => format!("{edge} listens but did not answer in time"),
    })?;
    Ok(socket)
}

fn connect(edge: &str, deadline: Instant) -> Result<TcpStream, String> {
    let found = edge.to_socket_addrs().map_err(|error| format!("{edge} has no address: {error}"))?;
    let mut reason = "the name has no address".to_owned();
    for addr in found {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        match TcpStream::connect_timeout(&addr, left) {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(|error| error.to_string())?;
                return Ok(stream);
            }
            Err(error) => reason = error.to_string(),
        }
    }
    Err(format!("{edge} cannot be reached: {reason}; does an edge listen there?"))
}

/// A socket's error in words.
fn told(error: tungstenite::Error) -> String {
    match error {
        tungstenite::Error::Io(error)
            if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) =>
        {
            "no answer in time".to_owned()
        }
        other => other.to_string(),
    }
}

/// The next text; pings are answered underneath.
fn next_text(socket: &mut Socket) -> Result<String, String> {
    loop {
        match socket.read().map_err(told)? {
            Message::Text(text) => return Ok(text.as_str().to_owned()),
            Message::Close(frame) => {
                let why = frame.map(|frame| format!(" with {frame}")).unwrap_or_default();
                return Err(format!("the edge closed the connection{why}"));
            }
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}

fn send_text(socket: &mut Socket, text: String) -> Result<(), String> {
    socket.send(Message::text(text)).map_err(told)
}

/// A client of Plaza's own protocol in JSON.
#[derive(Debug)]
pub(super) struct Plaza {
    socket: Socket,
    id: u64,
    /// Frames that came while another one was waited for.
    seen: VecDeque<Value>,
}

impl Plaza {
    /// Connects; `hello` is the caller's.
    pub(super) fn open(edge: &str, deadline: Instant) -> Result<Self, String> {
        let socket = open(edge, "/ws", Some("plaza.v1.json"), deadline)?;
        Ok(Self { socket, id: 0, seen: VecDeque::new() })
    }

    /// Sends a frame with one body and gives the body `answer` of its answer.
    pub(super) fn ask(&mut self, mut frame: Value, answer: &str) -> Result<Value, String> {
        self.id += 1;
        frame["id"] = self.id.into();
        let id = frame["id"].clone();
        send_text(&mut self.socket, frame.to_string())?;
        loop {
            let mut found = self.next()?;
            if found["id"] == id {
                if let Some(error) = found.get("error") {
                    let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
                    return Err(format!("refused: {}, {}", text("code"), text("message")));
                }
                return match found[answer].take() {
                    Value::Null => Err(format!("an answer without `{answer}`: {found}")),
                    body => Ok(body),
                };
            }
            if self.seen.len() == KEPT {
                self.seen.pop_front();
            }
            self.seen.push_back(found);
        }
    }

    /// Waits for the event with this message id.
    pub(super) fn event(&mut self, id: &str) -> Result<Value, String> {
        loop {
            let frame = match self.seen.pop_front() {
                Some(frame) => frame,
                None => self.next()?,
            };
            if frame["event"]["id"] == id {
                return Ok(frame["event"].clone());
            }
        }
    }

    fn next(&mut self) -> Result<Value, String> {
        let text = next_text(&mut self.socket)?;
        serde_json::from_str(&text).map_err(|error| format!("a frame that is no JSON: {error}"))
    }
}

/// A client of Socket.IO on Engine.IO 4, as far as the check needs one.
#[derive(Debug)]
pub(super) struct SocketIo(Socket);

impl SocketIo {
    /// Connects to namespace `/` with this auth and gives the session id.
    pub(super) fn open(edge: &str, auth: &Value, deadline: Instant) -> Result<(Self, String), String> {
        let mut socket = open(edge, "/socket.io/?EIO=4&transport=websocket", None, deadline)?;
        let first = next_text(&mut socket)?;
        if !first.starts_with('0') {
            return Err(format!("the first packet is not an open packet: {first}"));
        }
        send_text(&mut socket, format!("40{auth}"))?;
        let mut client = Self(socket);
        let answer = client.next(|packet| packet.starts_with("40") || packet.starts_with("44"))?;
        let (kind, body) = answer.split_at(2);
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        match body["sid"].as_str() {
            Some(sid) if kind == "40" => Ok((client, sid.to_owned())),
            _ => Err(format!("refused: {answer}")),
        }
    }

    /// Waits for the event `message` with this text.
    pub(super) fn message(&mut self, text: &str) -> Result<(), String> {
        let wanted = |packet: &str| {
            let arguments: Value = packet.strip_prefix("42").and_then(|json| serde_json::from_str(json).ok())?;
            // A third one is the offset of stock recovery.
            Some(arguments[0] == "message" && arguments[1] == text)
        };
        self.next(|packet| wanted(packet) == Some(true)).map(drop)
    }

    /// The next packet that is `wanted`; Engine.IO pings are answered on the way.
    fn next(&mut self, wanted: impl Fn(&str) -> bool) -> Result<String, String> {
        loop {
            let packet = next_text(&mut self.0)?;
            if packet == "2" {
                send_text(&mut self.0, "3".to_owned())?;
            } else if wanted(&packet) {
                return Ok(packet);
            }
        }
    }
}
