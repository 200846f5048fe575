//! The hub with real services behind it and no sockets before it: what shards ask, and what they are
//! told, in which order.

use plaza_edge::bridge::requests::RequestSender;
use plaza_edge::bridge::{
    ConnKey, Control, Delivery, Full, HistoryFrom, Identity, Inbound, Joined, Op, Outlet, Reply, Request, RoomId,
    SessionId, Variant,
};
use plaza_edge::config::{Config, FLAGS};
use plaza_edge::control::{self, Ends};
use plaza_edge::feed::memory::MemoryFeed;
use plaza_edge::metrics::HubMetrics;
use plaza_edge::upstream::publish::stream::Route;
use plaza_edge::upstream::registration::Registration;
use plaza_fanout::MemoryLog;
use plaza_fanout::log::memory::Faults;
use plaza_fanout::log::{EventLog, Outcome, Publish};
use plaza_kit::admin::Readiness;
use plaza_kit::discovery::Targets;
use plaza_kit::discovery::tls::UPSTREAM_TLS_FLAGS;
use plaza_kit::grpc::GrpcOptions;
use plaza_kit::metrics::Metrics;
use plaza_kit::net;
use plaza_kit::settings::Settings;
use plaza_kit::shutdown::Shutdown;
use plaza_proto::code::{Code, Locale};
use plaza_proto::event::Event;
use plaza_proto::event::event::{Content, Kind};
use plaza_proto::ids::{MessageId, RoomName};
use plaza_proto::position::Position;
use plaza_tests::proxy::{Faults as LinkFaults, Proxy, Way};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

const SOON: Duration = Duration::from_secs(10);

/// A shard's inbox that keeps what it is told.
#[derive(Clone, Default)]
struct Inbox(Arc<Kept>);

#[derive(Default)]
struct Kept {
    messages: Mutex<VecDeque<Inbound>>,
    full: AtomicBool,
    news: Notify,
}

impl Outlet for Inbox {
    fn try_deliver(&self, delivery: Arc<Delivery>) -> Result<(), Full> {
        if self.0.full.load(Ordering::Relaxed) {
            return Err(Full);
        }
        self.send(Inbound::Deliver(delivery));
        Ok(())
    }

    fn send(&self, message: Inbound) {
        self.0.messages.lock().expect("not poisoned").push_back(message);
    }

    fn wake(&self) {
        self.0.news.notify_one();
    }
}

impl Inbox {
    async fn next(&self) -> Inbound {
        let take = async {
            loop {
                if let Some(message) = self.0.messages.lock().expect("not poisoned").pop_front() {
                    return message;
                }
                self.0.news.notified().await;
            }
        };
        tokio::time::timeout(SOON, take).await.expect("the hub says something")
    }
}

struct House {
    requests: RequestSender,
    inbox: Inbox,
    log: Arc<MemoryLog>,
    metrics: Arc<Metrics>,
    /// The way to the session service.
    /// The ways to the session service. It stands for two replicas with one store behind them.
    to_session: [Proxy; 2],
    shutdown: Shutdown,
    slots: AtomicU32,
}

impl House {
    async fn new() -> Self {
        let shutdown = Shutdown::new();
        let bind = || net::bind(([127, 0, 0, 1], 0).into(), "listen").expect("a port is free");
        let (session, fanout) = (bind(), bind());
        let target = |l: &std::net::TcpListener| {
            Targets::parse(&format!("http://{}", l.local_addr().expect("bound"))).expect("an address")
        };
        let session_addr = session.local_addr().ok();
        let to_session = [Proxy::start(session_addr).await, Proxy::start(session_addr).await];
        let [first, second] = to_session.each_ref().map(Proxy::addr);
        let session_at = Targets::parse(&format!("http://{first},http://{second}")).expect("two addresses");
        let fanout_at = target(&fanout);
        let (metrics, readiness) = (Arc::new(Metrics::new("test", "0")), Readiness::new());

        let tables =
            [plaza_session::FLAGS, plaza_session::config::SHARED_FLAGS, UPSTREAM_TLS_FLAGS, plaza_fanout::FLAGS, FLAGS];
        let mut settings = Settings::from_pairs(&tables, &[]);
        let mut session_config = plaza_session::Config::from_settings(&mut settings);
        session_config.fanout = Some(fanout_at.clone());
        let fanout_config = plaza_fanout::Config::from_settings(&mut settings);
        let config = Config::of_flags(&mut settings, session_at, fanout_at, Some("edge".into()), None);
        settings.finish().expect("defaults are right");

        let (log, feed) = MemoryLog::new(&fanout_config.memory_options());
        let parts = plaza_fanout::Parts {
            listener: fanout,
            admin_listener: None,
            metrics: metrics.clone(),
            readiness: readiness.clone(),
            grpc: GrpcOptions::default(),
            memory: Some(log.clone()),
            local: None,
        };
        let end = shutdown.clone();
        let local = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(plaza_fanout::run(fanout_config, parts, end)).expect("fanout runs");
        });
        drop(local);
        let parts = plaza_session::Parts {
            listener: session,
            admin_listener: None,
            metrics: metrics.clone(),
            readiness: readiness.clone(),
            grpc: GrpcOptions::default(),
        };
        shutdown.spawn("session", plaza_session::run(session_config, parts, shutdown.clone()));

        let (requests, asked) = control::channel();
        let inbox = Inbox::default();
        let ends = Ends {
            requests: asked,
            outlets: vec![Box::new(inbox.clone())],
            feed: Box::new(MemoryFeed::new(feed)),
            publish: Route::Endpoints,
        };
        let hub_metrics = metrics.registry(|registry| HubMetrics::register(registry, metrics.made_calls()));
        control::start(
            &config,
            "127.0.0.1:1".into(),
            Registration::default(),
            ends,
            hub_metrics,
            &readiness,
            &shutdown,
        );
        Self { requests, inbox, log, metrics, to_session, shutdown, slots: AtomicU32::new(0) }
    }

    /// A connection whose session is open.
    async fn open(&self, variant: Variant) -> Conn<'_> {
        let slot = self.slots.fetch_add(1, Ordering::Relaxed);
        let key = ConnKey { shard: 0, slot, generation: 1 };
        let identity = Identity { session: SessionId::random(), user_id: None, variant, locale: Locale::En };
        let conn = Conn { house: self, key, identity: Arc::new(identity) };
        // The lease may not have begun yet: then the answer is "unavailable", as for any client.
        loop {
            match conn.ask(Op::Open { room: None, resume: None }).await {
                Reply::Opened { .. } => return conn,
                Reply::Failed { code: Code::Unavailable, .. } => tokio::task::yield_now().await,
                reply => panic!("{reply:?}"),
            }
        }
    }

    /// Stores an event as another edge would.
    async fn store(&self, room: &RoomName, id: u128, text: &str) {
        let event = Event {
            version: 1,
            kind: Kind::Text.into(),
            username: "me".into(),
            content: Some(Content::Text(text.into())),
            ..Event::default()
        };
        let (room, id) = (room.clone(), MessageId(id.to_be_bytes()));
        let body = prost::Message::encode_to_vec(&event).into();
        let outcome = self.log.publish(Publish { room, id, body, retry: false, traceparent: None }).get().await;
        assert!(matches!(outcome, Outcome::Stored { duplicate: false, .. }), "{outcome:?}");
    }

    /// A gauge without labels.
    fn gauge(&self, name: &str) -> usize {
        let text = self.metrics.encode();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    async fn delivery(&self) -> Arc<Delivery> {
        match self.inbox.next().await {
            Inbound::Deliver(delivery) => delivery,
            message => panic!("{message:?}"),
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

struct Conn<'a> {
    house: &'a House,
    key: ConnKey,
    identity: Arc<Identity>,
}

impl Conn<'_> {
    async fn send(&self, id: u32, op: Op) {
        let request = Request { from: self.key, id, identity: self.identity.clone(), op, trace: None };
        self.house.requests.pass(&mut VecDeque::from([request]));
    }

    async fn ask(&self, op: Op) -> Reply {
        self.send(1, op).await;
        match self.house.inbox.next().await {
            Inbound::Reply { to, id: 1, reply } if to == self.key => reply,
            message => panic!("{message:?}"),
        }
    }

    async fn join(&self, room: &str, after: Option<Position>) -> Joined {
        let room = RoomName::parse(room).expect("a valid name");
        match self.ask(Op::Join { room, after, username: None }).await {
            Reply::Joined(joined) => joined,
            reply => panic!("{reply:?}"),
        }
    }

    async fn publish(&self, room: RoomId, text: &str) {
        let event = Event {
            kind: Kind::Text.into(),
            username: "me".into(),
            content: Some(Content::Text(text.into())),
            ..Event::default()
        };
        self.send(2, Op::Publish { room, event: Box::new(event), retry: false, trace: None }).await;
    }

    /// Publishes, and takes the event that comes back to the room.
    async fn say(&self, room: RoomId, text: &str) -> (Position, Arc<Delivery>) {
        self.publish(room, text).await;
        let (mut position, mut delivery) = (None, None);
        while position.is_none() || delivery.is_none() {
            match self.house.inbox.next().await {
                Inbound::Deliver(event) => delivery = Some(event),
                Inbound::Reply { id: 2, reply: Reply::Published { position: at, .. }, .. } => position = Some(at),
                message => panic!("{message:?}"),
            }
        }
        (position.expect("published"), delivery.expect("delivered"))
    }
}

fn frame(delivery: &Delivery, variant: Variant) -> &str {
    let frame = delivery.frames[variant as usize].as_ref().expect("the variant is in use");
    let at = frame.iter().position(|b| *b == b'{').expect("an object");
    std::str::from_utf8(&frame[at..]).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_encoded_for_the_variants_in_use_and_comes_once() {
    let house = House::new().await;
    let (a, b) = (house.open(Variant::PlazaJson).await, house.open(Variant::PlazaJson).await);
    let joined = a.join("lobby", None).await;
    assert_eq!(joined.id, b.join("lobby", None).await.id);
    let (position, delivery) = a.say(joined.id, "hello").await;
    assert_eq!(delivery.seq, position.seq);
    assert!(frame(&delivery, Variant::PlazaJson).contains(r#""text":"hello""#));
    assert!(frame(&delivery, Variant::PlazaJson).contains(&format!(r#""previous":"{}""#, joined.position)));
    assert!(delivery.frames[Variant::TextZh as usize].is_none(), "nobody uses it");
    let (_, second) = a.say(joined.id, "again").await;
    assert!(second.seq > delivery.seq);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_i05_a_join_gets_what_it_missed_and_then_the_rest() {
    let house = House::new().await;
    let (a, b) = (house.open(Variant::PlazaJson).await, house.open(Variant::PlazaJson).await);
    let joined = a.join("lobby", None).await;
    let (first, _) = a.say(joined.id, "one").await;
    a.say(joined.id, "two").await;
    let (third, _) = a.say(joined.id, "three").await;
    let again = b.join("lobby", Some(first)).await;
    assert!(again.recovered && again.reset.is_none());
    assert_eq!((again.position, again.replay.len()), (third, 2));
    assert!(std::str::from_utf8(&again.replay[0][4..]).expect("text").contains("two"));
    let (_, delivery) = a.say(joined.id, "four").await;
    assert!(frame(&delivery, Variant::PlazaJson).contains(&format!(r#""previous":"{third}""#)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_of_another_log_is_told_as_a_reset() {
    let house = House::new().await;
    let (a, b) = (house.open(Variant::PlazaJson).await, house.open(Variant::PlazaJson).await);
    let joined = a.join("lobby", None).await;
    let (first, _) = a.say(joined.id, "one").await;
    let other = Position { epoch: plaza_proto::position::Epoch([9; 8]), ..first };
    assert_eq!(b.join("lobby", Some(other)).await.reset, Some("epoch"));
    let rolled_back = Position { check: first.check ^ 1, ..first };
    let c = house.open(Variant::PlazaJson).await;
    assert_eq!(c.join("lobby", Some(rolled_back)).await.reset, Some("rolled_back"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_members_may_publish_ask_and_leave() {
    let house = House::new().await;
    let (a, b) = (house.open(Variant::PlazaJson).await, house.open(Variant::PlazaJson).await);
    let room = a.join("lobby", None).await.id;
    let limit = 5;
    for op in [Op::Leave { room }, Op::Who { room }, Op::History { room, from: HistoryFrom::Newest, limit }] {
        assert!(matches!(b.ask(op).await, Reply::Failed { code: Code::NotJoined, .. }));
    }
    assert!(matches!(a.ask(Op::Leave { room }).await, Reply::Left));
    assert!(matches!(a.ask(Op::Leave { room }).await, Reply::Failed { code: Code::NotJoined, .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_makes_present_and_the_end_of_the_connection_absent() {
    let house = House::new().await;
    let (a, b) = (house.open(Variant::PlazaJson).await, house.open(Variant::PlazaJson).await);
    let room = a.join("lobby", None).await.id;
    b.join("lobby", None).await;
    b.send(1, Op::SetUsername { username: "Bob".into() }).await;
    let Inbound::Reply { reply: Reply::Renamed { username: name, ticket: Some(_) }, .. } = house.inbox.next().await
    else {
        panic!("a name first")
    };
    assert_eq!(&*name, "Bob");
    let event = house.delivery().await;
    assert!(frame(&event, Variant::PlazaJson).contains(r#""kind":"joined""#));
    let Reply::Members { count, members } = a.ask(Op::Who { room }).await else { panic!("who is here") };
    assert_eq!((count, members[0].0.as_str()), (1, "Bob"));
    b.send(0, Op::Close { rooms: vec![room], recoverable: false }).await;
    let event = house.delivery().await;
    assert!(frame(&event, Variant::PlazaJson).contains(r#""kind":"left""#));
}

#[tokio::test(flavor = "multi_thread")]
async fn i10_a_join_of_a_connection_that_is_gone_leaves_nothing() {
    let house = House::new().await;
    let (a, b) = (house.open(Variant::PlazaJson).await, house.open(Variant::TextZh).await);
    let room = RoomName::parse("lobby").expect("a valid name");
    b.send(3, Op::Join { room, after: None, username: None }).await;
    b.send(0, Op::Close { rooms: Vec::new(), recoverable: false }).await;
    let joined = a.join("lobby", None).await;
    let (_, delivery) = a.say(joined.id, "hello").await;
    assert!(delivery.frames[Variant::TextZh as usize].is_none(), "no member is left of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn typing_reaches_the_others_and_skips_its_sender() {
    let house = House::new().await;
    let a = house.open(Variant::PlazaJson).await;
    let room = a.join("lobby", None).await.id;
    // A volatile event is dropped while there is no way up; a stored one waits for it.
    a.say(room, "hello").await;
    a.send(0, Op::Typing { room, username: "Ann".into() }).await;
    let delivery = house.delivery().await;
    assert_eq!((delivery.seq, delivery.skip), (0, Some(a.key)));
    assert!(frame(&delivery, Variant::PlazaJson).contains("Ann"));
}

#[tokio::test(flavor = "multi_thread")]
async fn history_comes_in_pages_oldest_first() {
    let house = House::new().await;
    let a = house.open(Variant::PlazaJson).await;
    let room = a.join("lobby", None).await.id;
    let mut positions = Vec::new();
    for n in 0..5 {
        positions.push(a.say(room, &n.to_string()).await.0);
    }
    let page = async |from| match a.ask(Op::History { room, from, limit: 2 }).await {
        Reply::History { events, more } => (events.into_iter().map(|event| event.position).collect::<Vec<_>>(), more),
        reply => panic!("{reply:?}"),
    };
    let shown: Vec<_> = positions.iter().map(ToString::to_string).collect();
    assert_eq!(page(HistoryFrom::Newest).await, (shown[3..].to_vec(), true));
    assert_eq!(page(HistoryFrom::Before(positions[2])).await, (shown[..2].to_vec(), false));
    assert_eq!(page(HistoryFrom::After(positions[2])).await, (shown[3..].to_vec(), false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_was_full_gets_what_it_missed_in_order() {
    let house = House::new().await;
    let a = house.open(Variant::PlazaJson).await;
    let room = a.join("lobby", None).await.id;
    house.inbox.0.full.store(true, Ordering::Relaxed);
    let mut positions = Vec::new();
    for n in 0..3 {
        a.publish(room, &n.to_string()).await;
        match house.inbox.next().await {
            Inbound::Reply { reply: Reply::Published { position, .. }, .. } => positions.push(position.seq),
            message => panic!("{message:?}"),
        }
    }
    house.inbox.0.full.store(false, Ordering::Relaxed);
    for seq in positions {
        assert_eq!(house.delivery().await.seq, seq);
    }
}

/// The feed loses, repeats and reorders; members see the room's log all the same.
#[tokio::test(flavor = "multi_thread")]
async fn data_i02_every_acknowledged_event_is_delivered_once_and_in_order() {
    let house = House::new().await;
    let a = house.open(Variant::PlazaJson).await;
    let room = a.join("lobby", None).await.id;
    house.log.set_faults(Faults { drop_one_in: 4, repeat_one_in: 5, reorder_one_in: 6 });
    let (mut acknowledged, mut delivered) = (Vec::new(), Vec::new());
    for n in 0..200 {
        a.publish(room, &n.to_string()).await;
        loop {
            match house.inbox.next().await {
                Inbound::Deliver(delivery) => delivered.push(delivery.seq),
                Inbound::Reply { reply: Reply::Published { position, .. }, .. } => {
                    break acknowledged.push(position.seq);
                }
                message => panic!("{message:?}"),
            }
        }
    }
    // The feed is still as bad; what is missing at the end comes by hints, tails and the next events.
    house.log.set_faults(Faults::default());
    a.publish(room, "end").await;
    while delivered.len() < 201 || acknowledged.len() < 201 {
        match house.inbox.next().await {
            Inbound::Deliver(delivery) => delivered.push(delivery.seq),
            Inbound::Reply { reply: Reply::Published { position, .. }, .. } => acknowledged.push(position.seq),
            Inbound::Control(Control::Reset { .. }) => panic!("nothing was lost for good"),
            message => panic!("{message:?}"),
        }
    }
    assert_eq!(delivered, acknowledged);
}

/// A client of Socket.IO whose session can be continued.
async fn socket_io(house: &House) -> Conn<'_> {
    let identity =
        Identity { session: SessionId::random(), user_id: None, variant: Variant::TextZh, locale: Locale::En };
    let key = ConnKey { shard: 0, slot: 70, generation: 1 };
    let conn = Conn { house, key, identity: Arc::new(identity) };
    let Reply::Opened { ticket: Some(_), .. } = conn.ask(Op::Open { room: None, resume: None }).await else {
        panic!("a session with a pid")
    };
    conn
}

/// The last argument of a Socket.IO event.
fn offset(frame: &[u8]) -> String {
    let text = String::from_utf8_lossy(frame);
    text[..text.len() - 2].rsplit('"').next().expect("it is in quotes").to_owned()
}

/// A session continues from where its joins stand in its record. What has come between the record and the answer
/// is shown with an offset that names no place: continued from the record it would come again.
#[tokio::test(flavor = "multi_thread")]
async fn r10_what_comes_while_a_join_is_written_down_is_no_offset() {
    let house = House::new().await;
    let writer = house.open(Variant::PlazaJson).await;
    let before = writer.join("lobby", None).await;
    let reader = socket_io(&house).await;
    let silent = LinkFaults { down: Way { frozen_below: u64::MAX, ..Way::default() }, ..LinkFaults::default() };
    house.to_session.iter().for_each(|way| way.set(silent));
    let room = RoomName::parse("lobby").expect("a valid name");
    reader.send(9, Op::Join { room, after: None, username: None }).await;
    writer.publish(before.id, "meanwhile").await;
    let meanwhile = house.delivery().await;
    house.to_session.iter().for_each(Proxy::heal);
    let joined = loop {
        match house.inbox.next().await {
            Inbound::Reply { reply: Reply::Joined(joined), .. } => break joined,
            Inbound::Reply { .. } => {}
            message => panic!("{message:?}"),
        }
    };
    assert_eq!((joined.position, joined.replay.len(), joined.recovered), (before.position, 1, false));
    assert!(meanwhile.seq > joined.position.seq);
    assert!(Position::parse(&offset(&joined.replay[0])).is_err(), "{}", offset(&joined.replay[0]));
}

/// A client of Socket.IO has one offset for all its rooms: the feed loses an event of one, and an event of another
/// that stands behind it comes. The lost one comes late, and is no place to continue from; the next one is.
#[tokio::test(flavor = "multi_thread")]
async fn r03_an_event_out_of_the_streams_order_is_no_offset() {
    let house = House::new().await;
    let writer = house.open(Variant::PlazaJson).await;
    let reader = socket_io(&house).await;
    let (a, b) = (writer.join("a", None).await.id, writer.join("b", None).await.id);
    reader.join("a", None).await;
    reader.join("b", None).await;
    house.log.set_faults(Faults { drop_one_in: 1, ..Faults::default() });
    writer.publish(a, "late").await;
    let Inbound::Reply { reply: Reply::Published { .. }, .. } = house.inbox.next().await else {
        panic!("stored, not delivered")
    };
    house.log.set_faults(Faults::default());
    writer.publish(b, "in time").await;
    // The tail check finds what was lost.
    let delivery = async || loop {
        if let Inbound::Deliver(delivery) = house.inbox.next().await {
            break delivery;
        }
    };
    let (in_time, late) = (delivery().await, delivery().await);
    writer.publish(b, "after").await;
    let after = delivery().await;
    let offset =
        |delivery: &Delivery| offset(delivery.frames[Variant::TextZh as usize].as_deref().expect("there is a member"));
    assert!(late.seq < in_time.seq && in_time.seq < after.seq);
    assert_eq!(Position::parse(&offset(&in_time)).map(|at| at.seq), Ok(in_time.seq));
    assert!(Position::parse(&offset(&late)).is_err(), "{}", offset(&late));
    assert_eq!(Position::parse(&offset(&after)).map(|at| at.seq), Ok(after.seq));
}

/// faults.md 8.5: a call that finds its replica away is made once more, at the other one.
#[tokio::test(flavor = "multi_thread")]
async fn joins_pass_while_one_of_two_session_replicas_is_away_or_silent() {
    let house = House::new().await;
    let mut conn = house.open(Variant::TextEn).await;
    let frozen = Way { frozen_below: u64::MAX, ..Way::default() };
    let away = LinkFaults { refuse: true, ..LinkFaults::default() };
    let silent = LinkFaults { up: frozen, down: frozen, ..LinkFaults::default() };
    let mut hits = 0;
    for (n, fault) in [away, silent].into_iter().cycle().take(8).enumerate() {
        let [down, up] = if n / 2 % 2 == 0 { [0, 1] } else { [1, 0] }.map(|way| &house.to_session[way]);
        up.heal();
        let before = down.counts();
        down.set(fault);
        down.reset_all();
        // A Socket.IO client's join is answered when it is in the record.
        conn.join(&format!("room-{n}"), None).await;
        let after = down.counts();
        hits += after.refused + after.frozen + after.reset - before.refused - before.frozen - before.reset;
        if n == 3 {
            conn = house.open(Variant::TextEn).await;
        }
    }
    assert!(hits > 0, "no call met a fault");
}

/// design.md section 4: what all rooms keep together is bounded, and a room that has lost its ring reads again.
#[tokio::test(flavor = "multi_thread")]
async fn rings_of_100_000_rooms_share_one_budget() {
    const CONNECTIONS: u32 = 1_000;
    const ROOMS_EACH: u32 = 100;
    const BUDGET: usize = 64 << 20;
    let house = House::new().await;
    let mut conns = Vec::new();
    for _ in 0..CONNECTIONS {
        conns.push(house.open(Variant::PlazaJson).await);
    }
    let name = |n: u32| RoomName::parse(&format!("room-{n}")).expect("a valid name");
    // A page of joins at a time, as the queue to the hub is bounded.
    for round in 0..ROOMS_EACH {
        for (n, conn) in (0..).zip(&conns) {
            let room = name(round * CONNECTIONS + n);
            conn.send(1, Op::Join { room, after: None, username: None }).await;
        }
        for _ in 0..CONNECTIONS {
            match house.inbox.next().await {
                Inbound::Reply { reply: Reply::Joined(_), .. } => {}
                message => panic!("{message:?}"),
            }
        }
    }
    let text = "x".repeat(700);
    let mut most = 0;
    for page in 0..ROOMS_EACH {
        for n in page * CONNECTIONS..(page + 1) * CONNECTIONS {
            house.store(&name(n), n.into(), &text).await;
        }
        for _ in 0..CONNECTIONS {
            house.delivery().await;
        }
        most = most.max(house.gauge("plaza_feed_cache_bytes"));
    }
    // It is told once a second.
    let end = tokio::time::Instant::now() + SOON;
    while most <= BUDGET / 2 && tokio::time::Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(50)).await;
        most = most.max(house.gauge("plaza_feed_cache_bytes"));
    }
    assert!(most <= BUDGET, "{most} bytes");
    // Without a bound it would be more than the texts.
    assert!(most > BUDGET / 2 && (CONNECTIONS * ROOMS_EACH) as usize * text.len() > BUDGET, "{most} bytes");
}
