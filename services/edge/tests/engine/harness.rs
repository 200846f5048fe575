//! One shard on its own thread behind a real listener, and clients on blocking sockets.

use bytes::Bytes;
use plaza_edge::accept::{HttpLimits, serve, upgrade};
use plaza_edge::bridge::requests::{self, RequestReceiver};
use plaza_edge::bridge::{ConnKey, Control, Delivery, Inbound, Op, Outlet, Reply, Request, RoomId, Variant};
use plaza_edge::conn::{Action, Cause, Close, Connection, Incoming, Millis, Packet};
use plaza_edge::engine::{Settings, Shard, ShardHandle, SocketOptions};
use plaza_edge::wire::websocket::{Opcode, frame};
use plaza_kit::trace::Span;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A connection that does what its client tells it: `join N`, `leave N`, `bye CODE`, `many N`, `ask`; all
/// else comes back.
struct Puppet {
    rooms: Vec<RoomId>,
    key: Option<ConnKey>,
}

impl Puppet {
    fn obey(&mut self, text: &str, out: &mut Vec<Action>) {
        let (word, number) = text.split_once(' ').unwrap_or((text, ""));
        let number: u32 = number.parse().unwrap_or(0);
        match word {
            "join" => out.push(Action::Enter { room: RoomId(number), variant: Variant::PlazaJson }),
            "leave" => out.push(Action::Exit(RoomId(number))),
            "bye" => out.push(Action::Close(Close {
                code: u16::try_from(number).ok().filter(|code| *code != 0),
                reason: "as asked",
                cause: Cause::Client,
            })),
            "many" => (0..number).for_each(|_| out.push(send(&"x".repeat(1_000)))),
            "key" => out.push(send(&format!("{:?}", self.key.map(|key| (key.slot, key.generation))))),
            _ => {}
        }
        out.push(send(text));
    }
}

fn send(text: &str) -> Action {
    Action::Send(Packet::Text(Bytes::copy_from_slice(text.as_bytes())))
}

impl Connection for Puppet {
    fn on_open(&mut self, key: ConnKey, _now: Millis, out: &mut Vec<Action>) {
        self.key = Some(key);
        out.extend(self.rooms.iter().map(|&room| Action::Enter { room, variant: Variant::PlazaJson }));
    }
    fn on_message(&mut self, message: Incoming<'_>, _now: Millis, out: &mut Vec<Action>) {
        match message {
            Incoming::Text(text) => self.obey(text, out),
            Incoming::Binary(data) => out.push(Action::Send(Packet::Binary(Bytes::copy_from_slice(data)))),
        }
    }
    fn on_reply(&mut self, _id: u32, _reply: Reply, _now: Millis, _out: &mut Vec<Action>) {}
    fn on_control(&mut self, control: &Control, _now: Millis, out: &mut Vec<Action>) {
        if let Control::Close { .. } = control {
            out.push(Action::Close(Close { code: Some(4401), reason: "kicked", cause: Cause::Kicked }));
        }
    }
    fn on_reset(&mut self, room: RoomId, _now: Millis, out: &mut Vec<Action>) {
        out.push(send(&format!("reset {}", room.0)));
    }
    fn on_deadline(&mut self, _now: Millis, _out: &mut Vec<Action>) {}
    fn deadline(&self) -> Option<Millis> {
        None
    }
    fn before_close(&mut self, cause: Cause, out: &mut Vec<Action>) {
        out.push(send(&format!("before {}", cause.as_str())));
    }
    fn on_close(&mut self, _cause: Cause, rooms: Vec<RoomId>, out: &mut Vec<Action>) {
        let identity = plaza_edge::bridge::Identity {
            session: plaza_edge::bridge::SessionId::random(),
            user_id: None,
            variant: Variant::PlazaJson,
            locale: plaza_proto::code::Locale::En,
        };
        out.push(Action::Request { id: 0, identity: identity.into(), op: Op::Close { rooms, recoverable: true } });
    }
}

/// A running shard.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) shard: ShardHandle,
    pub(crate) requests: RequestReceiver,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(Settings::default(), SocketOptions { control_frames_per_second: 0, ..SocketOptions::default() })
    }

    pub(crate) fn with(settings: Settings, options: SocketOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("non-blocking");
        let address = listener.local_addr().expect("an address");
        let (sender, requests) = requests::channel(10_000);
        let shard = Shard::new(0, settings, sender).expect("a shard");
        let handle = shard.handle();
        let stop = CancellationToken::new();
        let thread = std::thread::spawn({
            let (handle, stop) = (handle.clone(), stop.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                let route = axum::routing::any(move |request: axum::extract::Request| {
                    let rooms = request.uri().query().unwrap_or_default();
                    let rooms = rooms.split(',').filter_map(|room| room.parse().ok()).map(RoomId).collect();
                    let connection = Box::new(Puppet { rooms, key: None });
                    std::future::ready(upgrade(request, None, &handle, options, connection))
                });
                let router = axum::Router::new().route("/ws", route);
                let serving = serve(listener, router, HttpLimits::default(), stop.clone());
                let (ran, served) = runtime.block_on(async { tokio::join!(shard.run(stop), serving) });
                ran.and(served).expect("the shard runs");
            }
        });
        Self { address, shard: handle, requests, stop, thread: Some(thread) }
    }

    /// What a connection wishes from the hub next.
    pub(crate) fn next_request(&mut self) -> Request {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut one = Vec::new();
        runtime.block_on(self.requests.recv_many(&mut one, 1));
        one.pop().expect("a request")
    }

    /// An event of a room.
    pub(crate) fn deliver(&self, room: u32, seq: u64, payload: &str) {
        self.deliver_but(room, seq, payload, None);
    }

    pub(crate) fn deliver_but(&self, room: u32, seq: u64, payload: &str, skip: Option<ConnKey>) {
        self.deliver_traced(room, seq, payload, skip, None);
    }

    pub(crate) fn deliver_traced(
        &self,
        room: u32,
        seq: u64,
        payload: &str,
        skip: Option<ConnKey>,
        trace: Option<Arc<Span>>,
    ) {
        let frames = [None, None, None, Some(frame(Opcode::Text, payload.as_bytes())), None];
        let delivery = Delivery { room: RoomId(room), seq, skip, frames, received: Instant::now(), age_us: 0, trace };
        let delivery = Arc::new(delivery);
        while self.shard.try_deliver(Arc::clone(&delivery)).is_err() {
            self.shard.wake();
            std::thread::yield_now();
        }
        self.shard.wake();
    }

    pub(crate) fn control(&self, control: Control) {
        self.shard.send(Inbound::Control(control));
        self.shard.wake();
    }

    /// A client in these rooms, which has heard that it is in.
    pub(crate) fn client(&self, rooms: &str) -> Client {
        let mut client = Client::connect(self.address, rooms);
        client.text("hello");
        assert_eq!(client.next_text(), "hello");
        client
    }

    pub(crate) fn closed(&self, cause: Cause) -> u64 {
        self.shard.stats().closes(cause)
    }

    pub(crate) fn connections(&self) -> u64 {
        self.shard.stats().connections.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        if !std::thread::panicking() {
            ended.expect("a thread").expect("the shard does not panic");
        }
    }
}

/// A WebSocket client on a blocking socket.
pub(crate) struct Client {
    pub(crate) socket: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr, rooms: &str) -> Self {
        Self::connect_with(address, rooms, &[])
    }

    /// Sends `behind` in the same segment as the handshake.
    pub(crate) fn connect_with(address: SocketAddr, rooms: &str, behind: &[u8]) -> Self {
        let mut socket = TcpStream::connect(address).expect("a connection");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        socket.set_nodelay(true).expect("no delay");
        let mut request = format!(
            "GET /ws?{rooms} HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        .into_bytes();
        request.extend_from_slice(behind);
        socket.write_all(&request).expect("written");
        let mut client = Self { socket, buffer: Vec::new() };
        let end = loop {
            if let Some(end) = client.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(client.fill(), "the server answers");
        };
        let head = String::from_utf8_lossy(&client.buffer[..end]).into_owned();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        client.buffer.drain(..end);
        client
    }

    fn fill(&mut self) -> bool {
        let mut piece = [0; 16_384];
        match self.socket.read(&mut piece) {
            Ok(0) => false,
            Ok(read) => {
                self.buffer.extend_from_slice(&piece[..read]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("nothing arrives: {error}"),
        }
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.raw(&masked(0x81, text.as_bytes()));
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("written");
    }

    /// The next frame: opcode and payload; `None`: the server has closed.
    pub(crate) fn next(&mut self) -> Option<(Opcode, Vec<u8>)> {
        loop {
            if let Some((opcode, payload)) = plaza_edge::wire::websocket::read_server_frame(&self.buffer) {
                let data = self.buffer[payload.clone()].to_vec();
                self.buffer.drain(..payload.end);
                return Some((opcode, data));
            }
            if !self.fill() {
                assert!(self.buffer.is_empty(), "cut in a frame");
                return None;
            }
        }
    }

    pub(crate) fn next_text(&mut self) -> String {
        match self.next() {
            Some((Opcode::Text, payload)) => String::from_utf8(payload).expect("UTF-8"),
            other => panic!("no text: {other:?}"),
        }
    }

    /// The code of the close frame, after which the server closes.
    pub(crate) fn close_code(&mut self) -> Option<u16> {
        let (opcode, payload) = self.next().expect("a close frame");
        assert_eq!(opcode, Opcode::Close, "{}", String::from_utf8_lossy(&payload));
        payload.first_chunk().map(|code| u16::from_be_bytes(*code))
    }
}

/// A masked client frame.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

/// Waits for a condition of another thread.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
