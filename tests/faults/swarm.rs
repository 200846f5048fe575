//! Clients that chat through faults: each sends numbered messages under client ids, sends again what has
//! no answer, comes back by itself, resumes each room where it stood, and records all of it.

use crate::board::Board;
use crate::history::{Event, History, Mid, mid};
use crate::speak::{Heard, Speak, Stand, hash};
use futures_util::{SinkExt, StreamExt};
use plaza_kit::shutdown::Shutdown;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A connection without a word for so long is dead: the edges of a run ping every 4 s.
const SILENCE: Duration = Duration::from_secs(9);
/// A request without an answer for so long: the connection is given up.
const ANSWER: Duration = Duration::from_secs(20);
/// Waits before a client comes back, full jitter below these.
const BACK: std::ops::RangeInclusive<u64> = 50..=400;
/// Wait after a message was refused for the moment.
const AGAIN: Duration = Duration::from_millis(150);

/// How large a swarm is and what it does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) clients: u32,
    pub(crate) rooms: u32,
    pub(crate) rooms_per_client: u32,
    /// Messages a second of all clients together.
    pub(crate) rate: f64,
    pub(crate) seed: u64,
}

/// A running swarm.
#[derive(Debug)]
pub(crate) struct Swarm {
    pub(crate) board: Arc<Board>,
    shutdown: Shutdown,
}

impl Swarm {
    /// Starts the clients; they use the edges behind `fronts`.
    pub(crate) fn start(plan: Plan, fronts: &[SocketAddr], history: &Arc<History>) -> Self {
        let rooms_of = |client: u32| -> Vec<u32> {
            (0..plan.rooms_per_client).map(|n| (client + n * (1 + client / plan.rooms)) % plan.rooms).collect()
        };
        let rooms: Vec<Vec<u32>> = (0..plan.clients)
            .map(|client| {
                let mut rooms = rooms_of(client);
                rooms.sort_unstable();
                rooms.dedup();
                rooms
            })
            .collect();
        let board = Arc::new(Board::new(plan.rooms as usize, &rooms));
        let shutdown = Shutdown::new();
        for (id, rooms) in (0..plan.clients).zip(rooms) {
            let mut random = fastrand::Rng::with_seed(plan.seed.wrapping_mul(1_000_003).wrapping_add(u64::from(id)));
            let client = Client {
                id,
                speak: if id % 3 == 2 { Speak::SocketIo } else { Speak::Plaza },
                guest: guest(&mut random),
                ticket: String::new(),
                rooms: rooms.into_iter().map(Room::new).collect(),
                // Half of the clients send the next message before the last one is answered.
                window: if id % 2 == 0 { 1 } else { 3 },
                next: 0,
                tags: 0,
                asked: HashMap::new(),
                pause: Duration::from_secs_f64(f64::from(plan.clients) / plan.rate),
                random,
                fronts: fronts.to_vec(),
                edge: 0,
                board: board.clone(),
                history: history.clone(),
            };
            shutdown.spawn("client", client.run(shutdown.clone()));
        }
        Self { board, shutdown }
    }

    /// Ends every client.
    pub(crate) async fn end(self) {
        self.shutdown.begin();
        self.shutdown.wait(Duration::from_secs(5)).await;
    }
}

/// A random 128-bit key: 22 characters base64url.
fn guest(random: &mut fastrand::Rng) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random.u128(..).to_be_bytes())
}

/// A message without an outcome.
#[derive(Debug)]
struct Pending {
    mid: Mid,
    text: String,
    /// It was sent at least once, on any connection.
    is_retry: bool,
    /// The request on this connection that waits for an answer.
    asked: Option<u64>,
    /// Not before.
    due: Instant,
}

#[derive(Debug)]
struct Room {
    number: u32,
    name: String,
    stand: Option<Stand>,
    is_joined: bool,
    pending: VecDeque<Pending>,
}

impl Room {
    fn new(number: u32) -> Self {
        Self { number, name: format!("room-{number}"), stand: None, is_joined: false, pending: VecDeque::new() }
    }
}

/// What a request was for.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Name,
    Join(usize),
    Publish(usize, Mid),
}

type Socket = WebSocketStream<TcpStream>;

/// Why a connection ended.
type Ended = String;

#[derive(Debug)]
struct Client {
    id: u32,
    speak: Speak,
    guest: String,
    ticket: String,
    rooms: Vec<Room>,
    window: usize,
    next: u32,
    tags: u64,
    asked: HashMap<u64, (Asked, Instant)>,
    pause: Duration,
    random: fastrand::Rng,
    fronts: Vec<SocketAddr>,
    edge: usize,
    board: Arc<Board>,
    history: Arc<History>,
}

impl Client {
    async fn run(mut self, shutdown: Shutdown) {
        while !shutdown.is_begun() {
            self.edge = self.random.usize(..self.fronts.len());
            tokio::select! {
                ended = self.connection() => self.lost(ended.err().unwrap_or_default()),
                () = shutdown.cancelled() => return,
            }
            let wait = Duration::from_millis(self.random.u64(BACK));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// The connection is gone: what it was asked is unknown.
    fn lost(&mut self, why: Ended) {
        self.board.set_online(self.id, false, self.edge);
        self.history.record(Event::Close { client: self.id, why });
        self.asked.clear();
        for room in &mut self.rooms {
            room.is_joined = false;
            for pending in &mut room.pending {
                if pending.asked.take().is_none() {
                    continue;
                }
                self.board.unknown.fetch_add(1, Relaxed);
                self.history.record(Event::SendInfo { client: self.id, mid: pending.mid, code: "closed".into() });
            }
        }
    }

    /// One connection from its opening to its end.
    async fn connection(&mut self) -> Result<(), Ended> {
        let front = self.fronts[self.edge];
        let mut socket = timeout(HANDSHAKE, connect(front, self.speak)).await.map_err(|_| "no handshake")??;
        if self.speak == Speak::Plaza {
            self.say(&mut socket, self.speak.hello(&self.guest, &self.ticket)).await?;
        }
        let mut turn = Instant::now() + self.pause.mul_f64(self.random.f64());
        let mut look = tokio::time::interval(Duration::from_millis(50));
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                message = socket.next() => {
                    heard = Instant::now();
                    match message {
                        Some(Ok(Message::Text(text))) => self.hear(&mut socket, &text).await?,
                        Some(Ok(Message::Close(frame))) => {
                            return Err(frame.map_or_else(|| "closed".into(), |f| format!("closed with {}", f.code)));
                        }
                        Some(Ok(_)) => {}
                        Some(Err(error)) => return Err(error.to_string()),
                        None => return Err("end of stream".into()),
                    }
                }
                () = tokio::time::sleep_until(turn) => {
                    turn += self.pause;
                    self.write_message();
                    self.send_due(&mut socket).await?;
                }
                _ = look.tick() => {
                    if heard.elapsed() > SILENCE {
                        return Err("silence".into());
                    }
                    if self.asked.values().any(|(_, since)| since.elapsed() > ANSWER) {
                        return Err("a request without an answer".into());
                    }
                    self.send_due(&mut socket).await?;
                }
            }
        }
    }

    async fn say(&self, socket: &mut Socket, text: String) -> Result<(), Ended> {
        match timeout(SILENCE, socket.send(Message::text(text))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("nothing can be written".into()),
        }
    }

    fn ask(&mut self, what: Asked) -> u64 {
        self.tags += 1;
        self.asked.insert(self.tags, (what, Instant::now()));
        self.tags
    }

    /// Thinks of a new message for one of its rooms, unless enough wait there.
    fn write_message(&mut self) {
        if self.board.is_quiet.load(Relaxed) {
            return;
        }
        let room = self.random.usize(..self.rooms.len());
        if self.rooms[room].pending.len() >= self.window || self.rooms[room].stand.is_none() {
            return;
        }
        let mid = mid(self.id, self.next);
        self.next += 1;
        let text = format!("{mid:x} {:x}", self.random.u64(..));
        self.board.pending.fetch_add(1, Relaxed);
        self.rooms[room].pending.push_back(Pending { mid, text, is_retry: false, asked: None, due: Instant::now() });
    }

    /// Sends, in order, what is not on its way in rooms that are joined. Behind one that must wait
    /// everything waits, and one that comes again waits until nothing after it is on its way.
    async fn send_due(&mut self, socket: &mut Socket) -> Result<(), Ended> {
        for index in 0..self.rooms.len() {
            if !self.rooms[index].is_joined {
                continue;
            }
            for place in 0..self.rooms[index].pending.len() {
                let room = &self.rooms[index];
                let pending = &room.pending[place];
                if pending.asked.is_some() {
                    continue;
                }
                let is_overtaken = room.pending.range(place..).any(|later| later.asked.is_some());
                if pending.due > Instant::now() || is_overtaken {
                    break;
                }
                let mid = pending.mid;
                let tag = self.ask(Asked::Publish(index, mid));
                let room = &mut self.rooms[index];
                let pending = &mut room.pending[place];
                pending.asked = Some(tag);
                let retry = std::mem::replace(&mut pending.is_retry, true);
                let frame = self.speak.publish(tag, &room.name, &pending.text, &format!("{mid:x}"), retry);
                let (client, room, hash) = (self.id, room.number, hash(&pending.text));
                self.history.record(Event::SendInvoke { client, room, mid, hash, retry });
                self.say(socket, frame).await?;
            }
        }
        Ok(())
    }

    async fn hear(&mut self, socket: &mut Socket, message: &str) -> Result<(), Ended> {
        match self.speak.read(message) {
            Heard::Open => self.say(socket, self.speak.hello(&self.guest, &self.ticket)).await,
            Heard::Ping => self.say(socket, "3".into()).await,
            Heard::Welcome { ticket } => self.welcome(socket, ticket).await,
            Heard::Joined { tag, stand, recovered } => {
                if let Some((Asked::Join(index), _)) = self.asked.remove(&tag) {
                    self.joined(index, stand, recovered);
                    self.send_due(socket).await?;
                }
                Ok(())
            }
            Heard::Published { tag, at, id, duplicate } => {
                if let Some((Asked::Publish(index, mid), _)) = self.asked.remove(&tag) {
                    let (client, room) = (self.id, self.rooms[index].number);
                    self.history.record(Event::SendOk { client, room, mid, at, id, duplicate });
                    self.board.acknowledge(room, at.seq);
                    self.done(index, mid);
                    self.send_due(socket).await?;
                }
                Ok(())
            }
            Heard::Failed { tag, code } => self.failed(tag, &code),
            Heard::Event { room, stand, previous, id, text } => {
                let Some(index) = self.rooms.iter().position(|r| r.name == room) else {
                    return Err(format!("an event of {room}, which was not joined"));
                };
                let said = text.as_deref().map(|text| {
                    let mid = text.split(' ').next().and_then(|word| Mid::from_str_radix(word, 16).ok());
                    mid.unwrap_or(Mid::MAX)
                });
                let hash = text.as_deref().map_or(0, hash);
                let (client, number, at) = (self.id, self.rooms[index].number, stand.at);
                self.history.record(Event::Recv { client, room: number, at, previous, id, mid: said, hash });
                self.board.received.fetch_add(1, Relaxed);
                self.stand(index, stand);
                Ok(())
            }
            Heard::Reset { room, why, to } => {
                if let Some(index) = self.rooms.iter().position(|r| r.name == room) {
                    self.reset(index, why, to);
                }
                Ok(())
            }
            Heard::Refused => Err("refused".into()),
            Heard::Nothing => Ok(()),
        }
    }

    async fn welcome(&mut self, socket: &mut Socket, ticket: String) -> Result<(), Ended> {
        self.ticket = ticket;
        self.board.connections.fetch_add(1, Relaxed);
        self.history.record(Event::Conn { client: self.id, edge: self.edge as u32 });
        let tag = self.ask(Asked::Name);
        self.say(socket, self.speak.name(tag, &format!("c{}", self.id))).await?;
        // The answer to a name is of no interest: texts wait for it at the edge.
        self.asked.remove(&tag);
        for index in 0..self.rooms.len() {
            let tag = self.ask(Asked::Join(index));
            let after = self.rooms[index].stand.as_ref().map(|stand| stand.text.clone());
            self.say(socket, self.speak.join(tag, &self.rooms[index].name, after.as_deref())).await?;
        }
        Ok(())
    }

    fn joined(&mut self, index: usize, stand: Stand, recovered: bool) {
        let room = &mut self.rooms[index];
        room.is_joined = true;
        let after = room.stand.as_ref().map(|stand| stand.at);
        self.history.record(Event::Join {
            client: self.id,
            room: room.number,
            after,
            at: stand.at,
            recovered,
            all: self.speak == Speak::Plaza,
        });
        if after.is_none() {
            self.stand(index, stand);
        } else if !recovered && self.speak == Speak::SocketIo {
            self.reset(index, "not recovered".into(), Some(stand));
        }
        if self.rooms.iter().all(|room| room.is_joined) {
            self.board.set_online(self.id, true, self.edge);
        }
    }

    fn stand(&mut self, index: usize, stand: Stand) {
        self.board.see(self.id, index, stand.at.seq);
        self.rooms[index].stand = Some(stand);
    }

    fn reset(&mut self, index: usize, why: String, to: Option<Stand>) {
        let from = self.rooms[index].stand.as_ref().map(|stand| stand.at);
        let Some(to) = to.or_else(|| self.rooms[index].stand.clone()) else { return };
        let (client, room) = (self.id, self.rooms[index].number);
        self.history.record(Event::Reset { client, room, from, to: to.at, why });
        self.stand(index, to);
    }

    fn failed(&mut self, tag: u64, code: &str) -> Result<(), Ended> {
        match self.asked.remove(&tag) {
            Some((Asked::Publish(index, mid), _)) => {
                let client = self.id;
                match code {
                    "bad_request" | "bad_room" | "bad_text" | "too_large" | "forbidden" | "storage_full" => {
                        self.history.record(Event::SendFail { client, mid, code: code.to_owned() });
                        self.done(index, mid);
                    }
                    _ => {
                        self.board.unknown.fetch_add(1, Relaxed);
                        self.history.record(Event::SendInfo { client, mid, code: code.to_owned() });
                        if code == "expired" {
                            // Nobody will ever know.
                            self.done(index, mid);
                        } else if let Some(pending) = self.rooms[index].pending.iter_mut().find(|p| p.mid == mid) {
                            pending.asked = None;
                            pending.due = Instant::now() + AGAIN;
                        }
                    }
                }
                Ok(())
            }
            Some((Asked::Join(_), _)) => Err(format!("join failed: {code}")),
            Some((Asked::Name, _)) => Ok(()),
            // An error that answers no request: `reconnect` or a close follows.
            None => Ok(()),
        }
    }

    /// A message has its outcome.
    fn done(&mut self, index: usize, mid: Mid) {
        self.board.pending.fetch_sub(1, Relaxed);
        self.rooms[index].pending.retain(|pending| pending.mid != mid);
    }
}

async fn connect(front: SocketAddr, speak: Speak) -> Result<Socket, Ended> {
    let stream = TcpStream::connect(front).await.map_err(|e| e.to_string())?;
    let _ = stream.set_nodelay(true);
    let (path, protocol) = speak.path();
    let mut request = format!("ws://{front}{path}").into_client_request().map_err(|e| e.to_string())?;
    if let Some(protocol) = protocol {
        let protocol = protocol.parse().map_err(|_| "a header value")?;
        request.headers_mut().insert("sec-websocket-protocol", protocol);
    }
    let (socket, _) = tokio_tungstenite::client_async(request, stream).await.map_err(|e| e.to_string())?;
    Ok(socket)
}
