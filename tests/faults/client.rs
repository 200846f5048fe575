//! One client of the swarm: sends numbered messages under client ids, sends again what has no answer,
//! comes back by itself, resumes each room where it stood, and records all of it. It comes back as the clients of
//! users do: later each time it is not let in, at a random moment, and when it was told when, then.

use crate::board::{Board, may_be_deaf};
use crate::history::{Event, History, Mid, is_not_stored, mid};
use crate::pace::{Again, Back, Pace};
use crate::speak::{Heard, Speak, Stand, hash};
use futures_util::{SinkExt, StreamExt};
use plaza_kit::shutdown::Shutdown;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// How long a handshake may take: as on our page.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A connection without a word for so long is dead: the edges of a run ping every 4 s.
const SILENCE: Duration = Duration::from_secs(9);
/// A request without an answer for so long: the connection is given up.
const ANSWER: Duration = Duration::from_secs(20);
/// Wait after a message was refused for the moment.
const AGAIN: Duration = Duration::from_millis(150);
/// More bytes of a message where somebody may be slow: small ones would take long to fill a buffer.
const PADDING: usize = 2_000;
/// Who is nearly deaf reads one message in this time.
const SIP: Duration = Duration::from_secs(1);

/// A message without an outcome.
#[derive(Debug)]
struct Pending {
    mid: Mid,
    text: String,
    /// It was sent, on any connection, and may be stored.
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
    /// On this connection.
    is_joined: bool,
    /// In this session, which may go on with another connection.
    is_in_session: bool,
    /// A join was refused for the moment: when it is asked for again.
    again: Again,
    pending: VecDeque<Pending>,
}

impl Room {
    fn new(number: u32) -> Self {
        Self {
            number,
            name: format!("room-{number}"),
            stand: None,
            is_joined: false,
            is_in_session: false,
            again: Again::default(),
            pending: VecDeque::new(),
        }
    }

    fn has_space(&self, window: usize) -> bool {
        self.stand.is_some() && self.pending.len() < window
    }
}

/// What a request was for.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Join(usize),
    Publish(usize, Mid),
}

type Socket = WebSocketStream<TcpStream>;

/// Why a connection ended.
type Ended = String;

#[derive(Debug)]
pub(crate) struct Client {
    id: u32,
    speak: Speak,
    guest: String,
    ticket: String,
    rooms: Vec<Room>,
    /// Messages of one room without an outcome, at most.
    window: usize,
    pace: Pace,
    next: u32,
    tags: u64,
    asked: HashMap<u64, (Asked, Instant)>,
    random: fastrand::Rng,
    fronts: Vec<SocketAddr>,
    edge: usize,
    back: Back,
    /// The server did not know the name: when it is told again.
    name: Again,
    /// When it last heard a word.
    heard: Instant,
    /// What the kernel keeps for it, if not its usual.
    buffer: Option<u32>,
    board: Arc<Board>,
    history: Arc<History>,
}

impl Client {
    #[expect(clippy::too_many_arguments, reason = "what a client is")]
    pub(crate) fn new(
        id: u32,
        speak: Speak,
        guest: String,
        rooms: Vec<u32>,
        window: usize,
        pace: Pace,
        random: fastrand::Rng,
        fronts: Vec<SocketAddr>,
        (board, history): (Arc<Board>, Arc<History>),
    ) -> Self {
        Self {
            id,
            speak,
            guest,
            ticket: String::new(),
            rooms: rooms.into_iter().map(Room::new).collect(),
            window,
            pace,
            next: 0,
            tags: 0,
            asked: HashMap::new(),
            random,
            fronts,
            edge: 0,
            back: Back::default(),
            name: Again::default(),
            heard: Instant::now(),
            buffer: None,
            board,
            history,
        }
    }

    /// The kernel keeps at most about so many bytes for it.
    pub(crate) fn with_buffer(self, buffer: Option<u32>) -> Self {
        Self { buffer, ..self }
    }

    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        while !shutdown.is_begun() {
            self.edge = self.random.usize(..self.fronts.len() - usize::from(self.keeps_away()));
            tokio::select! {
                ended = self.connection() => self.lost(ended.err().unwrap_or_default()),
                () = shutdown.cancelled() => return,
            }
            let wait = self.back.wait(self.random.f64());
            self.board.absence.waits(self.id, wait);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// The connection is gone: what it was asked is unknown.
    fn lost(&mut self, why: Ended) {
        self.board.set_online(self.id, false, self.through());
        self.board.absence.lost(self.id, self.heard);
        self.history.record(Event::Close { client: self.id, why });
        self.asked.clear();
        self.name = Again::default();
        for room in &mut self.rooms {
            room.is_joined = false;
            room.again = Again::default();
            for pending in &mut room.pending {
                if pending.asked.take().is_none() {
                    continue;
                }
                pending.is_retry = true;
                self.board.unknown.fetch_add(1, Relaxed);
                self.history.record(Event::SendInfo { client: self.id, mid: pending.mid, code: "closed".into() });
            }
        }
    }

    /// The edge that it uses; a stock client is behind a balancer and uses all of them.
    fn through(&self) -> u32 {
        if self.speak == Speak::Stock { u32::MAX } else { self.edge as u32 }
    }

    /// One connection from its opening to its end.
    async fn connection(&mut self) -> Result<(), Ended> {
        let front = self.fronts[self.edge];
        let mut socket = timeout(HANDSHAKE, connect(front, self.buffer, &self.speak.path(self.id)))
            .await
            .map_err(|_| "no handshake")??;
        if self.speak == Speak::Plaza {
            self.say(&mut socket, self.speak.hello(&self.guest, &self.ticket)).await?;
        }
        let ended = self.session(&mut socket).await;
        if self.speak == Speak::Stock && ended.is_err() {
            // What the stock client has heard counts for it, also when we do not want to hear any more.
            let _gone = timeout(SILENCE, self.part(&mut socket)).await;
        }
        ended
    }

    /// Breaks a stock client's connection, and hears what it heard until then.
    async fn part(&mut self, socket: &mut Socket) {
        if self.say(socket, "41".into()).await.is_err() {
            return;
        }
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Text(text) = message
                && let heard @ Heard::Event { .. } = self.speak.read(&text)
            {
                let _told = self.heard(socket, heard).await;
            }
        }
    }

    async fn session(&mut self, socket: &mut Socket) -> Result<(), Ended> {
        let mut look = tokio::time::interval(Duration::from_millis(50));
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.heard = Instant::now();
        let mut read = self.heard;
        let scattered = self.board.scattered.load(Relaxed);
        loop {
            let deaf = self.is_deaf();
            if deaf {
                // It has only itself to blame.
                self.heard = Instant::now();
                self.asked.values_mut().for_each(|(_, since)| *since = self.heard);
            }
            let sips = self.id % 2 == 1 && read.elapsed() > SIP;
            tokio::select! {
                message = socket.next(), if !deaf || sips => {
                    self.heard = Instant::now();
                    read = self.heard;
                    match message {
                        Some(Ok(Message::Text(text))) => self.hear(socket, &text).await?,
                        Some(Ok(Message::Close(frame))) => {
                            return Err(frame.map_or_else(|| "closed".into(), |f| format!("closed with {} {}", f.code, f.reason)));
                        }
                        Some(Ok(_)) => {}
                        Some(Err(error)) => return Err(error.to_string()),
                        None => return Err("end of stream".into()),
                    }
                }
                () = tokio::time::sleep_until(self.due()), if self.has_space() => {
                    self.write_message();
                    self.send_due(socket).await?;
                }
                _ = look.tick() => {
                    if self.board.scattered.load(Relaxed) != scattered {
                        return Err("scattered".into());
                    }
                    if self.heard.elapsed() > SILENCE {
                        return Err("silence".into());
                    }
                    if self.asked.values().any(|(_, since)| since.elapsed() > ANSWER) {
                        return Err("a request without an answer".into());
                    }
                    self.ask_again(socket).await?;
                    self.send_due(socket).await?;
                }
            }
        }
    }

    /// In a row of slow ones, who may be deaf never uses the last edge.
    fn keeps_away(&self) -> bool {
        self.buffer.is_some() && self.speak != Speak::Stock && may_be_deaf(self.id)
    }

    /// Whether nobody who may be deaf uses its edge and that of a sender.
    fn is_apart(&self, sender: u32) -> bool {
        let last = self.fronts.len() as u32 - 1;
        self.buffer.is_some() && self.through() == last && self.board.is_on(sender, last)
    }

    /// Whether it reads nothing now, or nearly nothing. A stock client cannot be told not to.
    fn is_deaf(&self) -> bool {
        self.speak != Speak::Stock && may_be_deaf(self.id) && self.board.is_deaf.load(Relaxed)
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

    /// When the next message is due.
    fn due(&self) -> Instant {
        if self.board.is_storm.load(Relaxed) { Instant::now() } else { self.pace.due() }
    }

    /// Whether some room may get a new message now.
    fn has_space(&self) -> bool {
        !self.board.is_quiet.load(Relaxed) && self.rooms.iter().any(|room| room.has_space(self.window))
    }

    /// Thinks of a new message for one of the rooms where not too many wait.
    fn write_message(&mut self) {
        let open: Vec<usize> = (0..self.rooms.len()).filter(|n| self.rooms[*n].has_space(self.window)).collect();
        let Some(room) = self.random.choice(open) else { return };
        self.pace.sent();
        let mid = mid(self.id, self.next);
        self.next += 1;
        let mut text = format!("{mid:x} {:x} {:x}", self.board.latency.now(), self.random.u64(..));
        if self.buffer.is_some() {
            text.push(' ');
            text.extend(std::iter::repeat_n('y', PADDING));
        }
        self.board.pending.fetch_add(1, Relaxed);
        self.rooms[room].pending.push_back(Pending { mid, text, is_retry: false, asked: None, due: Instant::now() });
    }

    /// What was refused for the moment, the name and joins, is asked for on the same connection.
    async fn ask_again(&mut self, socket: &mut Socket) -> Result<(), Ended> {
        if self.name.is_due() {
            self.say_name(socket).await?;
        }
        for index in 0..self.rooms.len() {
            if self.rooms[index].again.is_due() {
                self.say_join(socket, index).await?;
            }
        }
        Ok(())
    }

    /// The answer to a name is of no interest: texts wait for it at the edge.
    async fn say_name(&mut self, socket: &mut Socket) -> Result<(), Ended> {
        self.tags += 1;
        self.say(socket, self.speak.name(self.tags, &format!("c{}", self.id))).await
    }

    async fn say_join(&mut self, socket: &mut Socket, index: usize) -> Result<(), Ended> {
        let tag = self.ask(Asked::Join(index));
        let room = &self.rooms[index];
        let after = room.stand.as_ref().map(|stand| stand.text.as_str());
        self.say(socket, self.speak.join(tag, &room.name, after)).await
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
                let retry = pending.is_retry;
                let frame = self.speak.publish(tag, &room.name, &pending.text, &format!("{mid:x}"), retry);
                let (client, room, hash) = (self.id, room.number, hash(&pending.text));
                self.history.record(Event::SendInvoke { client, room, mid, hash, retry });
                self.say(socket, frame).await?;
            }
        }
        Ok(())
    }

    async fn hear(&mut self, socket: &mut Socket, message: &str) -> Result<(), Ended> {
        self.heard(socket, self.speak.read(message)).await
    }

    async fn heard(&mut self, socket: &mut Socket, heard: Heard) -> Result<(), Ended> {
        match heard {
            Heard::Open => self.say(socket, self.speak.hello(&self.guest, &self.ticket)).await,
            Heard::Ping => self.say(socket, "3".into()).await,
            Heard::Welcome { ticket, recovered } => self.welcome(socket, ticket, recovered).await,
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
                    self.board.acknowledge(room, at);
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
                if self.speak == Speak::Stock && !self.rooms[index].is_in_session {
                    // A join that was recorded, and whose answer was lost: the room is joined again.
                    return Ok(());
                }
                let said = text.as_deref().map(|text| {
                    let mid = text.split(' ').next().and_then(|word| Mid::from_str_radix(word, 16).ok());
                    mid.unwrap_or(Mid::MAX)
                });
                let written = text.as_deref().and_then(|text| u64::from_str_radix(text.split(' ').nth(1)?, 16).ok());
                let sender = said.map(|mid| (mid >> 32) as u32);
                // Who is deaf does not hear that it may go on, either: what it writes waits at itself.
                if let (Some(written), Some(sender)) = (written, sender.filter(|sender| !may_be_deaf(*sender)))
                    && !may_be_deaf(self.id)
                {
                    self.board.latency.arrived(written);
                    if self.is_apart(sender) {
                        self.board.apart.arrived(written);
                    }
                }
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
            Heard::Reconnect { after_ms } => {
                self.back.hint(Duration::from_millis(after_ms));
                Ok(())
            }
            Heard::Refused => Err("refused".into()),
            Heard::Nothing => Ok(()),
        }
    }

    /// `recovered`: the session goes on, with its rooms, and what was missed comes by itself.
    async fn welcome(&mut self, socket: &mut Socket, ticket: String, recovered: bool) -> Result<(), Ended> {
        self.ticket = ticket;
        self.board.connections.fetch_add(1, Relaxed);
        self.history.record(Event::Conn { client: self.id, edge: self.through(), recovered });
        if !recovered {
            self.rooms.iter_mut().for_each(|room| room.is_in_session = false);
            self.say_name(socket).await?;
        }
        for index in 0..self.rooms.len() {
            let stand = self.rooms[index].stand.clone();
            match stand {
                Some(stand) if recovered && self.rooms[index].is_in_session => self.joined(index, stand, Some(true)),
                _ => {
                    if recovered {
                        // The server may know of a join whose answer was lost: it begins where we stand.
                        self.tags += 1;
                        self.say(socket, self.speak.leave(self.tags, &self.rooms[index].name)).await?;
                    }
                    self.say_join(socket, index).await?;
                }
            }
        }
        Ok(())
    }

    /// `recovered`: `None` when the server says nothing of it.
    fn joined(&mut self, index: usize, stand: Stand, recovered: Option<bool>) {
        let room = &mut self.rooms[index];
        (room.is_joined, room.is_in_session, room.again) = (true, true, Again::default());
        let after = room.stand.as_ref().map(|stand| stand.at);
        self.history.record(Event::Join {
            client: self.id,
            room: room.number,
            after,
            at: stand.at,
            recovered: recovered == Some(true),
            all: self.speak == Speak::Plaza,
        });
        if after.is_none() {
            self.stand(index, stand);
        } else if recovered == Some(false) && self.speak != Speak::Plaza {
            self.reset(index, "not recovered".into(), Some(stand));
        }
        if self.rooms.iter().all(|room| room.is_joined) {
            self.back = Back::default();
            self.board.set_online(self.id, true, self.through());
            self.board.absence.back(self.id, Instant::now());
        }
    }

    fn stand(&mut self, index: usize, stand: Stand) {
        self.board.see(self.id, index, stand.at);
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
                        if code == "username_required" {
                            // The name was refused for the moment, or lost with its answer.
                            self.name.later(self.random.f64());
                        }
                        if code == "expired" {
                            // Nobody will ever know.
                            self.done(index, mid);
                        } else if let Some(pending) = self.rooms[index].pending.iter_mut().find(|p| p.mid == mid) {
                            pending.asked = None;
                            pending.is_retry |= !is_not_stored(code);
                            // Without a name it would come to the same.
                            pending.due = self.name.due().unwrap_or_else(|| Instant::now() + AGAIN);
                        }
                    }
                }
                Ok(())
            }
            Some((Asked::Join(index), _)) if matches!(code, "busy" | "unavailable" | "timeout" | "lease_lost") => {
                self.rooms[index].again.later(self.random.f64());
                Ok(())
            }
            Some((Asked::Join(_), _)) => Err(format!("join failed: {code}")),
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

async fn connect(
    front: SocketAddr,
    buffer: Option<u32>,
    (path, protocol): &(String, Option<&'static str>),
) -> Result<Socket, Ended> {
    let socket = TcpSocket::new_v4().map_err(|e| e.to_string())?;
    if let Some(bytes) = buffer {
        socket.set_recv_buffer_size(bytes).map_err(|e| e.to_string())?;
    }
    let stream = socket.connect(front).await.map_err(|e| e.to_string())?;
    let _ = stream.set_nodelay(true);
    let mut request = format!("ws://{front}{path}").into_client_request().map_err(|e| e.to_string())?;
    if let Some(protocol) = protocol {
        let protocol = protocol.parse().map_err(|_| "a header value")?;
        request.headers_mut().insert("sec-websocket-protocol", protocol);
    }
    let (socket, _) = tokio_tungstenite::client_async(request, stream).await.map_err(|e| e.to_string())?;
    Ok(socket)
}
