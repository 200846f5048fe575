//! Everything on three NATS servers: leaders die and hand over, and what was acknowledged reaches
//! every member once, in order, without a further event.

use futures_util::stream::{FuturesUnordered, StreamExt};
use futures_util::{FutureExt, SinkExt};
use plaza_proto::event::Event;
use plaza_proto::event::event::{Content, Kind};
use plaza_proto::fanout::PublishRequest;
use plaza_proto::fanout::fanout_service_client::FanoutServiceClient;
use plaza_proto::position::Position;
use plaza_tests::cluster::{Service, wait_ready};
use plaza_tests::nats_cluster::NatsCluster;
use plaza_tests::redis::RedisServer;
use serde_json::Value;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tonic::transport::Channel;

const ROOMS: usize = 20;
const EVENTS: usize = 2_400;
/// Publishes without a result: the more, the more a leader can take with it.
const WINDOW: usize = 600;
/// After the last acknowledgement everything is everywhere within this (data I6 says 5 s; machines are busy).
const CONVERGED: Duration = Duration::from_secs(30);

/// What one member has seen: texts by room, in order.
type Seen = Arc<Mutex<HashMap<String, Vec<(u64, String)>>>>;

struct House {
    nats: NatsCluster,
    edges: Vec<Service>,
    fanouts: Vec<Service>,
    _session: Service,
    _redis: RedisServer,
}

impl House {
    /// Two fanouts and three edges; each begins with another one of the servers.
    async fn start() -> Self {
        let (nats, redis) = tokio::join!(NatsCluster::start(), RedisServer::start());
        let from = |first: usize| (0..3).map(|n| nats.url((first + n) % 3)).collect::<Vec<_>>().join(",");
        let mut fanouts = Vec::new();
        for n in 0..2 {
            let args = ["--nats-url", &from(n), "--nats-replicas", "3"].map(str::to_owned);
            let fanout = Service::start("plaza-fanout", &args).await;
            wait_ready(fanout.admin).await;
            fanouts.push(fanout);
        }
        let fanout_addr = fanouts.iter().map(Service::url).collect::<Vec<_>>().join(",");
        let args = ["--redis-url", &redis.url(), "--fanout-addr", &fanout_addr].map(str::to_owned);
        let session = Service::start("plaza-session", &args).await;
        let mut edges = Vec::new();
        for n in 0..3 {
            let session_addr = session.url();
            let args = ["--peer-listen", "127.0.0.1:0", "--session-addr", &session_addr, "--fanout-addr", &fanout_addr];
            let more = ["--nats-url", &from(n), "--threads", "1"];
            let args: Vec<String> = args.into_iter().chain(more).map(str::to_owned).collect();
            let edge = Service::start("plaza-edge", &args).await;
            wait_ready(edge.admin).await;
            edges.push(edge);
        }
        nats.settled("CHAT").await;
        Self { nats, edges, fanouts, _session: session, _redis: redis }
    }

    fn client(&self, which: usize) -> FanoutServiceClient<Channel> {
        let channel = Channel::from_shared(self.fanouts[which].url()).expect("an address").connect_lazy();
        FanoutServiceClient::new(channel)
    }
}

fn room(n: usize) -> String {
    format!("room-{n}")
}

/// A member of every room on one edge. Resets end the test: nothing here is lost for good.
async fn member(edge: SocketAddr) -> Seen {
    let (mut ws, _) = connect_async(format!("ws://{edge}/ws")).await.expect("the edge takes sockets");
    ws.send(Message::text("{\"hello\":{}}")).await.expect("sent");
    for n in 0..ROOMS {
        let join = format!("{{\"id\":{},\"join\":{{\"room\":\"{}\"}}}}", n + 1, room(n));
        ws.send(Message::text(join)).await.expect("sent");
    }
    let seen = Seen::default();
    let heard = Arc::clone(&seen);
    let mut joined = 0;
    let next = async |ws: &mut tokio_tungstenite::WebSocketStream<_>| -> Value {
        loop {
            let message = ws.next().await.expect("the edge keeps the socket").expect("a frame");
            if let Message::Text(text) = message {
                return serde_json::from_str(text.as_str()).expect("JSON");
            }
        }
    };
    while joined < ROOMS {
        joined += usize::from(next(&mut ws).await.get("joined").is_some());
    }
    #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
    tokio::spawn(async move {
        loop {
            let said = next(&mut ws).await;
            assert!(said.get("reset").is_none(), "{said}");
            if let Some(event) = said.get("event") {
                let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
                let seq = Position::parse(&text("position")).expect("a position").seq;
                heard.lock().unwrap().entry(text("room")).or_default().push((seq, text("text")));
            }
        }
    });
    seen
}

/// Publishes one event until the store has it, always under the same id; its room and sequence.
async fn publish(mut clients: [FanoutServiceClient<Channel>; 2], n: usize) -> (String, u64, String) {
    let text = format!("event {n}");
    let event = Event {
        kind: Kind::Text.into(),
        user_id: "g:publisher".into(),
        username: "publisher".into(),
        client_id: format!("id-{n}"),
        content: Some(Content::Text(text.clone())),
        ..Event::default()
    };
    let mut attempt = 0;
    loop {
        let request = PublishRequest { room: room(n % ROOMS), event: Some(event.clone()), ..PublishRequest::default() };
        // Another replica may serve the retry.
        let answer = clients[(n + attempt) % 2].publish(request).await;
        if let Ok(stored) = answer {
            let ok = stored.into_inner().ok.expect("an answer has a place");
            return (room(n % ROOMS), Position::parse(&ok.position).expect("a position").seq, text);
        }
        attempt += 1;
        assert!(attempt < 60, "not stored: {answer:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Every member has every event once and in the order of the store.
async fn converged(members: &[Seen], acked: &HashMap<String, Vec<(u64, String)>>) {
    let begin = Instant::now();
    for (edge, seen) in members.iter().enumerate() {
        loop {
            let now = seen.lock().unwrap().clone();
            let behind = acked.iter().find(|(room, events)| now.get(*room).is_none_or(|s| s.len() < events.len()));
            let Some((room, events)) = behind else {
                assert_eq!(&now, acked, "the member on edge {edge} saw something else");
                break;
            };
            let got = now.get(room).map_or(0, Vec::len);
            assert!(begin.elapsed() < CONVERGED, "edge {edge} has {got} of {} events of {room}", events.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn publish_while(house: &mut House, members: &[Seen], range: std::ops::Range<usize>, fault: Fault) {
    let clients = [house.client(0), house.client(1)];
    let (mut flying, mut next, mut acked) = (FuturesUnordered::new(), range.start, 0);
    let mut all: HashMap<String, Vec<(u64, String)>> = HashMap::new();
    let mut hit = false;
    while acked < range.len() {
        while next < range.end && flying.len() < WINDOW {
            flying.push(publish(clients.clone(), next).boxed());
            next += 1;
        }
        let (room, seq, text) = flying.next().await.expect("some are under way");
        all.entry(room).or_default().push((seq, text));
        acked += 1;
        if !hit && acked > range.len() / 4 {
            hit = true;
            match fault {
                Fault::Kill(leader) => house.nats.kill(leader),
                Fault::StepDown => drop(house.nats.step_down("CHAT").await),
            }
        }
    }
    all.values_mut().for_each(|events| events.sort());
    converged(members, &all).await;
    members.iter().for_each(|seen| seen.lock().unwrap().clear());
}

#[derive(Clone, Copy)]
enum Fault {
    Kill(usize),
    StepDown,
}

#[tokio::test(flavor = "multi_thread")]
async fn data_i06_members_converge_after_leaders_die_and_hand_over() {
    let mut house = House::start().await;
    let mut members = Vec::new();
    for n in 0..3 {
        members.push(member(house.edges[n].addr).await);
    }
    publish_while(&mut house, &members, 0..EVENTS, Fault::StepDown).await;
    let leader = house.nats.leader("CHAT").await;
    publish_while(&mut house, &members, EVENTS..2 * EVENTS, Fault::Kill(leader)).await;
    house.nats.restart(leader).await;
    house.nats.settled("CHAT").await;

    // A server without the others: it acknowledges nothing, and what it is asked for waits.
    let leader = house.nats.leader("CHAT").await;
    let rest: Vec<usize> = (0..3).filter(|n| *n != leader).collect();
    for n in &rest {
        // Until then it may still acknowledge.
        house.nats.pause(*n).await;
    }
    let clients = [house.client(0), house.client(1)];
    let held = publish(clients, 2 * EVENTS);
    tokio::pin!(held);
    let early = tokio::time::timeout(Duration::from_secs(5), &mut held).await;
    assert!(early.is_err(), "stored by a minority: {early:?}");
    rest.iter().for_each(|n| house.nats.process(*n).signal("CONT"));
    let (room, seq, text) = held.await;
    converged(&members, &HashMap::from([(room, vec![(seq, text)])])).await;
}
