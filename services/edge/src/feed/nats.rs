//! The feed over NATS: one core subscription per room with members here, the beats, and the control
//! subjects. Everything arrives on one connection; nothing is published but barriers to the own inbox.

use super::order::Gather;
use super::{EventFeed, FeedItem};
use crate::config::NatsOptions;
use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, HeaderMap, Message, Statistics, Subscriber};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt};
use plaza_kit::shutdown::Shutdown;
use plaza_kit::trace::Server;
use plaza_proto::fanout::Beat;
use plaza_proto::feed::FeedMessage;
use plaza_proto::ids::{MessageId, RoomName};
use plaza_proto::position::Epoch;
use plaza_proto::{subject, time};
use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};

/// Messages that wait for the hub, and in each subscription for the task.
const CAPACITY: usize = 4_096;
/// Orders on the way to the task.
const ORDERS: usize = 64;
/// The port of a URL that names none.
const PORT: u16 = 4_222;
/// A call of the client that takes longer is logged; it only hands a command to its task.
const CALL: Duration = Duration::from_secs(5);

/// Why there is no feed.
#[derive(Debug, thiserror::Error)]
pub enum NatsFeedError {
    /// The credentials file cannot be read.
    #[error("the NATS credentials file {path} cannot be read: {source}")]
    Credentials {
        /// Its path.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The client cannot begin: a malformed URL, which is not repeated, as it may hold a password.
    #[error("--nats-url cannot be used: {source}")]
    Connect {
        /// Why.
        source: async_nats::ConnectError,
    },
}

/// The hub's end.
#[derive(Debug)]
pub struct NatsFeed {
    server: Option<Server>,
    orders: mpsc::Sender<Order>,
    /// Orders that found no room yet, in order. Bounded by the rooms.
    waiting: VecDeque<Order>,
    items: mpsc::Receiver<FeedItem>,
}

#[derive(Debug)]
enum Order {
    Subscribe(RoomName),
    Unsubscribe(RoomName),
    Barrier(u64),
    Listen(String),
    Renew,
}

impl NatsFeed {
    /// Connects, now or as soon as NATS can be reached.
    ///
    /// # Errors
    /// [`NatsFeedError`]: the settings can never work.
    pub async fn start(options: &NatsOptions, shutdown: &Shutdown) -> Result<Self, NatsFeedError> {
        Self::start_with(options, CAPACITY, shutdown).await
    }

    /// The same with another capacity of each subscription, for tests of its overflow.
    ///
    /// # Errors
    /// [`NatsFeedError`]: the settings can never work.
    pub async fn start_with(
        options: &NatsOptions,
        capacity: usize,
        shutdown: &Shutdown,
    ) -> Result<Self, NatsFeedError> {
        let signs = Arc::new(Signs::default());
        let heard = signs.clone();
        let mut connect = ConnectOptions::new()
            .name("plaza-edge")
            .retry_on_initial_connect()
            .ping_interval(CALL)
            .subscription_capacity(capacity)
            .event_callback(move |event| {
                heard.note(&event);
                std::future::ready(())
            });
        if let Some(path) = &options.creds {
            connect = (connect.credentials_file(path).await)
                .map_err(|source| NatsFeedError::Credentials { path: path.clone(), source })?;
        }
        let servers: Vec<&str> = options.url.split(',').map(str::trim).collect();
        let client = (connect.connect(servers).await).map_err(|source| NatsFeedError::Connect { source })?;
        tracing::info!("waiting for NATS");
        let (orders, inbox) = mpsc::channel(ORDERS);
        let (out, items) = mpsc::channel(CAPACITY);
        let task = Task {
            statistics: client.statistics(),
            connects: 0,
            client,
            signs,
            out,
            rooms: HashMap::new(),
            streams: Gather::default(),
            own: None,
            barriers: String::new(),
        };
        let end = shutdown.clone();
        shutdown.spawn("nats feed", async move {
            tokio::select! {
                () = task.run(inbox) => {}
                () = end.cancelled() => {}
            }
        });
        Ok(Self { server: Server::of_urls(&options.url, PORT), orders, waiting: VecDeque::new(), items })
    }

    fn order(&mut self, order: Order) {
        self.waiting.push_back(order);
        self.hand_over();
    }

    fn hand_over(&mut self) {
        while let Some(order) = self.waiting.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(order)) = self.orders.try_send(order) {
                return self.waiting.push_front(order);
            }
        }
    }
}

impl EventFeed for NatsFeed {
    fn server(&self) -> Option<&Server> {
        self.server.as_ref()
    }

    fn subscribe(&mut self, room: &RoomName) {
        self.order(Order::Subscribe(room.clone()));
    }

    fn unsubscribe(&mut self, room: &RoomName) {
        self.order(Order::Unsubscribe(room.clone()));
    }

    fn barrier(&mut self, token: u64) {
        self.order(Order::Barrier(token));
    }

    fn listen(&mut self, incarnation: &str) {
        self.order(Order::Listen(incarnation.to_owned()));
    }

    fn renew(&mut self) {
        self.order(Order::Renew);
    }

    fn recv<'a>(&'a mut self, items: &'a mut Vec<FeedItem>, limit: usize) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            loop {
                tokio::select! {
                    _ = self.items.recv_many(items, limit) => return,
                    permit = self.orders.reserve(), if !self.waiting.is_empty() => match (permit, self.waiting.pop_front()) {
                        (Ok(permit), Some(order)) => permit.send(order),
                        _ => return,
                    },
                }
            }
        })
    }
}

/// What the client's callback leaves for the task. It runs in line with the connection, so it only
/// sets these.
#[derive(Debug, Default)]
struct Signs {
    lost: AtomicBool,
    down: AtomicBool,
    wake: Notify,
}

impl Signs {
    fn note(&self, event: &Event) {
        match event {
            Event::Connected => {}
            Event::Disconnected => self.down.store(true, Ordering::Relaxed),
            Event::SlowConsumer(_) => self.lost.store(true, Ordering::Relaxed),
            Event::LameDuckMode | Event::Draining | Event::Closed | Event::ServerError(_) | Event::ClientError(_) => {
                return;
            }
        }
        self.wake.notify_one();
    }
}

/// What a subscription carries.
#[derive(Clone, Debug)]
enum Source {
    Room { room: RoomName, subject: String },
    Beats,
    Control,
    Barriers,
}

/// A subscription that ends when its keeper drops the other half of `stop`.
struct Tagged {
    subscriber: Subscriber,
    source: Source,
    stop: oneshot::Receiver<()>,
}

impl Stream for Tagged {
    type Item = FeedItem;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<FeedItem>> {
        if Pin::new(&mut self.stop).poll(context).is_ready() {
            return Poll::Ready(None);
        }
        loop {
            match std::task::ready!(self.subscriber.poll_next_unpin(context)) {
                None => return Poll::Ready(None),
                Some(message) => {
                    if let Some(item) = read(&self.source, message) {
                        return Poll::Ready(Some(item));
                    }
                }
            }
        }
    }
}

struct Task {
    client: Client,
    /// The library counts connections before anything comes on the new one.
    statistics: Arc<Statistics>,
    /// Connections that the hub knows of.
    connects: u64,
    signs: Arc<Signs>,
    out: mpsc::Sender<FeedItem>,
    /// Dropping the sender ends the room's stream, and with it the subscription.
    rooms: HashMap<RoomName, oneshot::Sender<()>>,
    streams: Gather<Tagged>,
    own: Option<oneshot::Sender<()>>,
    /// The inbox of this connection's barriers.
    barriers: String,
}

impl Task {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        self.barriers = self.client.new_inbox();
        let beats = format!("{}{}", subject::OUT_PREFIX, subject::BEAT);
        let mut fixed = Vec::new();
        for (name, source) in [
            (self.barriers.clone(), Source::Barriers),
            (beats, Source::Beats),
            (subject::CONTROL_ALL.to_owned(), Source::Control),
        ] {
            fixed.push(self.hear(name, source).await);
        }
        let signs = self.signs.clone();
        let mut arrived = Vec::new();
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.carry_out(order).await,
                    None => return,
                },
                () = self.streams.next(&mut arrived) => {
                    if self.tell_connected().await.is_err() {
                        return;
                    }
                    for item in arrived.drain(..) {
                        if self.out.send(item).await.is_err() {
                            return;
                        }
                    }
                }
                () = signs.wake.notified() => {
                    if self.tell_connected().await.is_err() {
                        return;
                    }
                    if signs.down.swap(false, Ordering::Relaxed) && self.client.connection_state() != State::Connected {
                        tracing::warn!("the connection to NATS is lost; trying again");
                    }
                    if signs.lost.swap(false, Ordering::Relaxed) {
                        tracing::warn!("messages from NATS were dropped here: this edge is too slow for them");
                        if self.out.send(FeedItem::Message(FeedMessage::Resync(None))).await.is_err() {
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Tells the hub of a new connection before it hears anything that came on it.
    async fn tell_connected(&mut self) -> Result<(), mpsc::error::SendError<FeedItem>> {
        let now = self.statistics.connects.load(Ordering::Relaxed);
        if now == self.connects {
            return Ok(());
        }
        let again = std::mem::replace(&mut self.connects, now) != 0;
        tracing::info!(again, "connected to NATS");
        if again { self.out.send(FeedItem::Renewed).await } else { Ok(()) }
    }

    async fn carry_out(&mut self, order: Order) {
        match order {
            Order::Subscribe(room) if !self.rooms.contains_key(&room) => {
                let source = Source::Room { room: room.clone(), subject: subject::room_in(&room) };
                if let Some(stop) = self.hear(subject::room_out(&room), source).await {
                    self.rooms.insert(room, stop);
                }
            }
            Order::Subscribe(_) => {}
            Order::Unsubscribe(room) => {
                self.rooms.remove(&room);
            }
            Order::Barrier(token) => {
                let publish = self.client.publish(self.barriers.clone(), token.to_be_bytes().to_vec().into());
                // One that is lost is asked for again.
                let _lost = tokio::time::timeout(CALL, publish).await;
            }
            Order::Listen(incarnation) => {
                self.own = self.hear(subject::control_edge(&incarnation), Source::Control).await
            }
            Order::Renew => {
                let _gone = tokio::time::timeout(CALL, self.client.force_reconnect()).await;
            }
        }
    }

    /// Subscribes. Waits as long as the client's queue is full: it empties when the server is back.
    async fn hear(&mut self, name: String, source: Source) -> Option<oneshot::Sender<()>> {
        let subscriber = loop {
            match tokio::time::timeout(CALL, self.client.subscribe(name.clone())).await {
                Ok(Ok(subscriber)) => break subscriber,
                Ok(Err(error)) => {
                    tracing::error!(subject = name, %error, "cannot subscribe");
                    return None;
                }
                Err(_) => tracing::warn!(subject = name, "the NATS client takes no subscription; trying again"),
            }
        };
        let (keep, stop) = oneshot::channel();
        self.streams.push(Tagged { subscriber, source, stop });
        Some(keep)
    }
}

/// What a message says; `None` for what is not ours.
fn read(source: &Source, message: Message) -> Option<FeedItem> {
    let said = match source {
        Source::Barriers => {
            let token = message.payload.as_ref().try_into().ok()?;
            return Some(FeedItem::Barrier(u64::from_be_bytes(token)));
        }
        Source::Control => FeedMessage::Command(message.payload),
        Source::Beats => {
            let headers = message.headers.as_ref()?;
            let beat = <Beat as prost::Message>::decode(message.payload).ok()?;
            let epoch = Epoch(beat.epoch.as_slice().try_into().ok()?);
            let (seq, previous) = (number(headers, SEQUENCE)?, number(headers, LAST_SEQUENCE)?);
            FeedMessage::Beat { seq, previous, epoch, election_time: beat.election_time }
        }
        Source::Room { room, subject } => room_message(room, subject, message)?,
    };
    Some(FeedItem::Message(said))
}

/// Headers that the server adds when it republishes.
const SUBJECT: &str = "Nats-Subject";
const SEQUENCE: &str = "Nats-Sequence";
const LAST_SEQUENCE: &str = "Nats-Last-Sequence";
const TIME_STAMP: &str = "Nats-Time-Stamp";

fn room_message(room: &RoomName, subject: &str, message: Message) -> Option<FeedMessage> {
    let headers = message.headers?;
    let room = room.clone();
    if last(&headers, subject::KIND) == Some(subject::VOLATILE) {
        return Some(FeedMessage::Volatile { room, body: message.payload });
    }
    if last(&headers, subject::REPAIR).is_some() {
        return Some(FeedMessage::Hint { room, seq: number(&headers, subject::SEQ)? });
    }
    if last(&headers, SUBJECT) != Some(subject) {
        return None;
    }
    let seq = number(&headers, SEQUENCE)?;
    let Some(previous) = number(&headers, LAST_SEQUENCE) else { return Some(FeedMessage::Hint { room, seq }) };
    let id = last(&headers, subject::MSG_ID).and_then(MessageId::parse).unwrap_or(MessageId([0; 16]));
    let time = last(&headers, TIME_STAMP).and_then(time::parse_utc).unwrap_or(0);
    let traceparent = last(&headers, subject::TRACEPARENT).map(str::to_owned);
    // The payload is a part of the connection's read buffer, and a kept part would keep all of it.
    let body = Bytes::copy_from_slice(&message.payload);
    Some(FeedMessage::Event { room, seq, previous, id, time, body, traceparent })
}

/// A header as the server wrote it: the last of several. One that a client smuggled in stands before it.
fn last<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get_last(name).map(async_nats::HeaderValue::as_str)
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    last(headers, name)?.parse().ok()
}
