//! The edge's feed: the same cases over NATS and over the channel inside `plaza`, and what only NATS
//! can do wrong.

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{Config, Republish};
use bytes::Bytes;
use plaza_edge::config::NatsOptions;
use plaza_edge::feed::memory::MemoryFeed;
use plaza_edge::feed::nats::NatsFeed;
use plaza_edge::feed::{EventFeed, FeedItem};
use plaza_kit::shutdown::Shutdown;
use plaza_proto::fanout::Command;
use plaza_proto::feed::FeedMessage;
use plaza_proto::ids::{MessageId, RoomName};
use plaza_proto::subject;
use plaza_tests::nats::NatsServer;
use prost::Message;
use std::time::Duration;
use tokio::sync::mpsc;

const SOON: Duration = Duration::from_secs(10);

fn room(name: &str) -> RoomName {
    RoomName::parse(name).expect("a valid name")
}

fn id(n: u8) -> MessageId {
    MessageId([n; 16])
}

/// The store's side of a feed.
enum Store {
    Nats { jetstream: Box<async_nats::jetstream::Context>, client: async_nats::Client, incarnation: String },
    Memory { feed: mpsc::Sender<FeedMessage>, last: u64, previous: std::collections::HashMap<RoomName, u64> },
}

impl Store {
    async fn event(&mut self, room: &RoomName, n: u8) {
        let body = Bytes::from(vec![n]);
        match self {
            Self::Nats { jetstream, .. } => {
                let mut headers = HeaderMap::new();
                headers.insert(subject::MSG_ID, id(n).to_string());
                let ack = jetstream.publish_with_headers(subject::room_in(room), headers, body).await.expect("sent");
                ack.await.expect("stored");
            }
            Self::Memory { feed, last, previous } => {
                *last += 1;
                let before = previous.insert(room.clone(), *last).unwrap_or(0);
                let event = FeedMessage::Event {
                    room: room.clone(),
                    seq: *last,
                    previous: before,
                    id: id(n),
                    time: 1,
                    body,
                    traceparent: None,
                };
                feed.send(event).await.expect("the feed lives");
            }
        }
    }

    async fn out(&mut self, room: &RoomName, message: FeedMessage, header: (&str, &str), more: Option<(&str, &str)>) {
        match self {
            Self::Nats { client, .. } => {
                let mut headers = HeaderMap::new();
                for (name, value) in [Some(header), more].into_iter().flatten() {
                    headers.insert(name, value);
                }
                client
                    .publish_with_headers(subject::room_out(room), headers, Bytes::from_static(b"v"))
                    .await
                    .expect("sent");
            }
            Self::Memory { feed, .. } => feed.send(message).await.expect("the feed lives"),
        }
    }

    async fn command(&mut self, command: &Command) {
        let body = Bytes::from(command.encode_to_vec());
        match self {
            Self::Nats { client, incarnation, .. } => {
                client.publish(subject::control_edge(incarnation), body).await.expect("sent");
            }
            Self::Memory { feed, .. } => feed.send(FeedMessage::Command(body)).await.expect("the feed lives"),
        }
    }
}

async fn nats_store(server: &NatsServer) -> Store {
    let client = async_nats::connect(server.url()).await.expect("the server runs");
    let jetstream = async_nats::jetstream::new(client.clone());
    let config = Config {
        name: subject::STREAM.into(),
        subjects: vec![subject::IN_ALL.into()],
        republish: Some(Republish {
            source: subject::REPUBLISH_SOURCE.into(),
            destination: subject::REPUBLISH_DESTINATION.into(),
            headers_only: false,
        }),
        ..Config::default()
    };
    jetstream.create_stream(config).await.expect("the stream is made");
    Store::Nats { jetstream: Box::new(jetstream), client, incarnation: "edge#1".into() }
}

async fn next(feed: &mut dyn EventFeed) -> FeedItem {
    let mut items = Vec::new();
    tokio::time::timeout(SOON, feed.recv(&mut items, 1)).await.expect("the feed says something");
    items.pop().expect("the feed lives")
}

/// The next thing that is no beat and no resync.
async fn next_message(feed: &mut dyn EventFeed) -> FeedMessage {
    loop {
        match next(feed).await {
            FeedItem::Message(FeedMessage::Beat { .. } | FeedMessage::Resync(_))
            | FeedItem::Barrier(_)
            | FeedItem::Renewed => {}
            FeedItem::Message(message) => return message,
        }
    }
}

async fn barrier(feed: &mut dyn EventFeed, token: u64) {
    feed.barrier(token);
    while !matches!(next(feed).await, FeedItem::Barrier(heard) if heard == token) {}
}

/// What every feed does.
async fn conforms(feed: &mut dyn EventFeed, store: &mut Store) {
    let (here, other) = (room("here.1"), room("other"));
    feed.listen("edge#1");
    feed.subscribe(&here);
    feed.subscribe(&here);
    barrier(feed, 1).await;

    store.event(&other, 1).await;
    store.event(&here, 2).await;
    store.event(&here, 3).await;
    let FeedMessage::Event { room, seq, previous, id: first, body, .. } = next_message(feed).await else {
        panic!("a subscribed room's event comes, and no other's");
    };
    assert_eq!((room, seq, previous, first, &body[..]), (here.clone(), 2, 0, id(2), &[2][..]));
    let FeedMessage::Event { seq, previous, .. } = next_message(feed).await else { panic!("then the next one, once") };
    assert_eq!((seq, previous), (3, 2));

    let hint = FeedMessage::Hint { room: here.clone(), seq: 9 };
    store.out(&here, hint, (subject::REPAIR, "1"), Some((subject::SEQ, "9"))).await;
    assert!(matches!(next_message(feed).await, FeedMessage::Hint { seq: 9, .. }));
    let volatile = FeedMessage::Volatile { room: here.clone(), body: Bytes::from_static(b"v") };
    store.out(&here, volatile, (subject::KIND, subject::VOLATILE), None).await;
    assert!(matches!(next_message(feed).await, FeedMessage::Volatile { body, .. } if &body[..] == b"v"));
    store.command(&Command { id: "c".into(), command: None }).await;
    let FeedMessage::Command(body) = next_message(feed).await else { panic!("a command for this edge comes") };
    assert_eq!(Command::decode(body).expect("it is one").id, "c");

    feed.unsubscribe(&here);
    feed.subscribe(&other);
    barrier(feed, 2).await;
    store.event(&here, 4).await;
    store.event(&other, 5).await;
    let FeedMessage::Event { room, seq, previous, .. } = next_message(feed).await else {
        panic!("only the other room")
    };
    assert_eq!((room, seq, previous), (other, 5, 1));
}

#[tokio::test]
async fn the_channel_of_one_process_conforms() {
    let (sender, receiver) = mpsc::channel(64);
    let mut store = Store::Memory { feed: sender, last: 0, previous: std::collections::HashMap::new() };
    conforms(&mut MemoryFeed::new(receiver), &mut store).await;
}

#[tokio::test]
async fn nats_conforms() {
    let server = NatsServer::start().await;
    let mut store = nats_store(&server).await;
    let shutdown = Shutdown::new();
    let mut feed = nats_feed(&server, 4_096, &shutdown).await;
    conforms(&mut feed, &mut store).await;
    shutdown.begin();
}

async fn nats_feed(server: &NatsServer, capacity: usize, shutdown: &Shutdown) -> NatsFeed {
    let options = NatsOptions { url: server.url(), creds: None };
    NatsFeed::start_with(&options, capacity, shutdown).await.expect("the settings are right")
}

/// wire.md R3: one offset is a place in all rooms, so they must come in the stream's one order.
#[tokio::test]
async fn r03_rooms_are_heard_in_the_order_of_the_stream() {
    const ROOMS: usize = 12;
    const EVENTS: u64 = 600;
    let server = NatsServer::start().await;
    let store = nats_store(&server).await;
    let shutdown = Shutdown::new();
    let mut feed = nats_feed(&server, 4_096, &shutdown).await;
    let rooms: Vec<RoomName> = (0..ROOMS).map(|n| room(&format!("room-{n}"))).collect();
    rooms.iter().for_each(|room| feed.subscribe(room));
    barrier(&mut feed, 1).await;
    let Store::Nats { jetstream, .. } = &store else { unreachable!("it is NATS") };
    let mut acks = Vec::new();
    for n in 0..EVENTS as usize {
        // Runs of one room and jumps between rooms.
        let room = &rooms[(n / 3 * 5 + n % 2) % ROOMS];
        acks.push(jetstream.publish(subject::room_in(room), Bytes::new()).await.expect("sent"));
    }
    for ack in acks {
        ack.await.expect("stored");
    }
    let mut heard = Vec::new();
    while heard.len() < EVENTS as usize {
        if let FeedMessage::Event { seq, .. } = next_message(&mut feed).await {
            heard.push(seq);
        }
    }
    assert!(heard.is_sorted(), "{:?}", heard.windows(2).find(|pair| pair[0] > pair[1]));
    shutdown.begin();
}

#[tokio::test]
async fn data_i15_a_message_that_names_another_room_is_dropped() {
    let server = NatsServer::start().await;
    let mut store = nats_store(&server).await;
    let shutdown = Shutdown::new();
    let mut feed = nats_feed(&server, 4_096, &shutdown).await;
    let here = room("here");
    feed.subscribe(&here);
    barrier(&mut feed, 1).await;
    let Store::Nats { client, .. } = &store else { unreachable!("it is NATS") };
    let mut forged = HeaderMap::new();
    forged.insert("Nats-Subject", "chat.in.other");
    forged.insert("Nats-Sequence", "7");
    forged.insert("Nats-Last-Sequence", "0");
    client.publish_with_headers(subject::room_out(&here), forged, Bytes::new()).await.expect("sent");
    client.publish(subject::room_out(&here), Bytes::new()).await.expect("sent");
    store.event(&here, 1).await;
    assert!(matches!(next_message(&mut feed).await, FeedMessage::Event { seq: 1, .. }));
    shutdown.begin();
}

#[tokio::test]
async fn data_i10_a_slow_consumer_is_told_to_look() {
    let server = NatsServer::start().await;
    let mut store = nats_store(&server).await;
    let shutdown = Shutdown::new();
    let mut feed = nats_feed(&server, 16, &shutdown).await;
    let here = room("here");
    feed.subscribe(&here);
    barrier(&mut feed, 1).await;
    // Nobody takes anything from the feed meanwhile: its channel, then the subscription, overflow.
    let Store::Nats { client, .. } = &mut store else { unreachable!("it is NATS") };
    let mut headers = HeaderMap::new();
    headers.insert(subject::KIND, subject::VOLATILE);
    for _ in 0..20_000 {
        client.publish_with_headers(subject::room_out(&here), headers.clone(), Bytes::new()).await.expect("sent");
    }
    client.flush().await.expect("sent");
    let (mut heard, mut told) = (0, false);
    while !told {
        match next(&mut feed).await {
            FeedItem::Message(FeedMessage::Volatile { .. }) => heard += 1,
            FeedItem::Message(FeedMessage::Resync(None)) => told = true,
            item => panic!("{item:?}"),
        }
    }
    assert!(heard < 20_000, "something was dropped");
    shutdown.begin();
}

#[tokio::test]
async fn a_renewed_connection_hears_its_rooms_and_says_so() {
    let mut server = NatsServer::start().await;
    let mut store = nats_store(&server).await;
    let shutdown = Shutdown::new();
    let mut feed = nats_feed(&server, 4_096, &shutdown).await;
    let here = room("here");
    feed.subscribe(&here);
    barrier(&mut feed, 1).await;
    store.event(&here, 1).await;
    assert!(matches!(next_message(&mut feed).await, FeedMessage::Event { seq: 1, .. }));
    server.restart().await;
    while !matches!(next(&mut feed).await, FeedItem::Renewed) {}
    barrier(&mut feed, 2).await;
    store.event(&here, 2).await;
    assert!(matches!(next_message(&mut feed).await, FeedMessage::Event { seq: 2, previous: 1, .. }));
    feed.renew();
    while !matches!(next(&mut feed).await, FeedItem::Renewed) {}
    shutdown.begin();
}
