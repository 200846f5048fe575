//! `plaza-session` as it runs: its gRPC API, Redis that goes and comes back, presence events that
//! are published once whatever is away.

use plaza_fanout::{MemoryLog, MemoryOptions};
use plaza_kit::admin::Readiness;
use plaza_kit::grpc::GrpcOptions;
use plaza_kit::metrics::Metrics;
use plaza_kit::settings::Settings;
use plaza_kit::shutdown::Shutdown;
use plaza_proto::code::Code;
use plaza_proto::event::event::Kind;
use plaza_proto::fanout::fanout_service_client::FanoutServiceClient;
use plaza_proto::fanout::{ReadHistoryRequest, SubscribeRequest};
use plaza_proto::session as pb;
use plaza_proto::session::edge_lease_service_client::EdgeLeaseServiceClient;
use plaza_proto::session::op::Op as Body;
use plaza_proto::session::session_service_client::SessionServiceClient;
use plaza_tests::cluster::{Service, http_get, wait_ready};
use plaza_tests::process::{PATIENCE, Process, free_port, installed};
use plaza_tests::redis::RedisServer;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

const PAUSE: Duration = Duration::from_millis(50);

async fn start(redis: &RedisServer, more: &[&str]) -> Service {
    let service = start_unready(redis, more).await;
    wait_ready(service.admin).await;
    service
}

/// Without waiting for Redis to be there.
async fn start_unready(redis: &RedisServer, more: &[&str]) -> Service {
    let mut args = vec!["--redis-url".to_owned(), redis.url()];
    args.extend(more.iter().map(|&arg| arg.to_owned()));
    Service::start("plaza-session", &args).await
}

fn channel(service: &Service) -> Channel {
    Endpoint::from_shared(service.url()).expect("a URL").timeout(Duration::from_secs(5)).connect_lazy()
}

fn edge_name() -> String {
    format!("edge-a#{}", plaza_session::random::boot())
}

async fn register(
    edges: &mut EdgeLeaseServiceClient<Channel>,
    incarnation: &str,
) -> Result<pb::RegisterResponse, Status> {
    let request = pb::RegisterRequest {
        edge: "edge-a".to_owned(),
        incarnation: incarnation.to_owned(),
        advertise_addr: "127.0.0.1:5001".to_owned(),
        ..pb::RegisterRequest::default()
    };
    edges.register(request).await.map(tonic::Response::into_inner)
}

async fn apply(edges: &mut EdgeLeaseServiceClient<Channel>, incarnation: &str, ops: Vec<Body>) -> Vec<pb::OpResult> {
    let ops = ops.into_iter().map(|op| pb::Op { op: Some(op) }).collect();
    let request = pb::ApplyRequest { incarnation: incarnation.to_owned(), ops };
    edges.apply(request).await.expect("a living lease").into_inner().results
}

fn present(room: &str, user: usize, present: bool) -> Body {
    Body::Presence(pb::SetPresence {
        room: room.to_owned(),
        user_id: format!("u{user}"),
        username: format!("User {user}"),
        present,
    })
}

/// A fanout with a log in memory, on an address of our choice.
async fn fanout(listener: std::net::TcpListener, log: Arc<MemoryLog>, shutdown: Shutdown) {
    let mut settings = Settings::from_pairs(&[plaza_fanout::FLAGS], &[]);
    let config = plaza_fanout::Config::from_settings(&mut settings);
    let parts = plaza_fanout::Parts {
        listener,
        admin_listener: None,
        metrics: Arc::new(Metrics::new("fanout", "test")),
        readiness: Readiness::new(),
        grpc: GrpcOptions::default(),
        memory: Some(log),
        local: None,
    };
    plaza_fanout::run(config, parts, shutdown).await.expect("fanout runs");
}

/// The room's events as kind and user, once `count` are there.
async fn history(addr: SocketAddr, room: &str, count: usize) -> Vec<(Kind, String)> {
    let channel = Endpoint::from_shared(format!("http://{addr}")).expect("a URL").connect_lazy();
    let mut client = FanoutServiceClient::new(channel);
    let begin = Instant::now();
    loop {
        let request = ReadHistoryRequest { room: room.to_owned(), limit: 100, ..ReadHistoryRequest::default() };
        if let Ok(answer) = client.read_history(request).await {
            let events: Vec<_> = answer.into_inner().events.into_iter().filter_map(|event| event.event).collect();
            if events.len() >= count {
                return events.into_iter().map(|event| (event.kind(), event.user_id)).collect();
            }
        }
        assert!(begin.elapsed() < PATIENCE, "{count} events of {room} are not there");
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generic_python_client_finds_the_session_service_by_reflection() {
    let redis = RedisServer::start().await;
    let service = start(&redis, &["--reflection"]).await;
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let venv = tests.join("../target/tools/venv/bin/python3");
    let python = if venv.exists() { venv } else { installed("python3") };
    let script = tests.join("clients/session_client.py").display().to_string();
    let mut client = Process::start("session_client", &python, &[script, service.addr.to_string()], &[]);
    let status = client.wait().await;
    let log = client.log();
    assert!(status.success() && log.contains(" passed, 0 failed"), "ended with {status}:\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_may_be_away_at_the_start_and_later() {
    let mut redis = RedisServer::start().await;
    redis.kill();
    let service = start_unready(&redis, &[]).await;
    let mut sessions = SessionServiceClient::new(channel(&service));
    let mut edges = EdgeLeaseServiceClient::new(channel(&service));
    for _ in 0..20 {
        let begin = Instant::now();
        let refused = sessions.count_members(pb::CountMembersRequest { room: "lobby".to_owned() }).await;
        assert_eq!(refused.map_err(|status| Code::of_status(&status)).err(), Some(Code::Unavailable));
        assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    }
    let ready = http_get(service.admin, "/readyz").await.expect("an answer");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("waiting for redis"), "{ready}");

    redis.restart().await;
    let first = edge_name();
    until(async || register(&mut edges, &first).await.ok()).await;
    redis.kill();
    until(async || {
        let ready = http_get(service.admin, "/readyz").await?;
        assert!(ready.starts_with("HTTP/1.1 200"), "an outage takes no readiness away: {ready}");
        ready.contains("degraded: redis").then_some(())
    })
    .await;
    redis.restart().await;
    let first = edge_name();
    until(async || register(&mut edges, &first).await.ok()).await;
    let boot = register(&mut edges, &first).await.expect("redis is back").boot;

    redis.restart().await;
    let heartbeat = pb::HeartbeatRequest { incarnation: first.clone(), counter: 1, ..pb::HeartbeatRequest::default() };
    until(async || {
        let refused = edges.heartbeat(heartbeat.clone()).await.err();
        refused.filter(|status| Code::of_status(status) == Code::LeaseLost)
    })
    .await;
    let again = register(&mut edges, &edge_name()).await.expect("redis is back");
    assert_ne!(again.boot, boot, "the data is another one");

    let log = service.process.log();
    let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert!(lines("waiting for it") <= 4, "a line for each change, not for each call:\n{log}");
    assert!(lines("redis answers") >= 2, "{log}");
}

/// Asks until there is an answer.
async fn until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begin.elapsed() < PATIENCE, "no such answer in time");
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_events_wait_for_fanout_and_are_published_once_and_in_order() {
    let redis = RedisServer::start().await;
    let addr: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let url = format!("http://{addr}");
    // Two replicas: whichever reads the outbox publishes it.
    let args = ["--fanout-addr", url.as_str()];
    let (one, two) = tokio::join!(start(&redis, &args), start(&redis, &args));
    let mut edges = EdgeLeaseServiceClient::new(channel(&one));
    let incarnation = edge_name();
    register(&mut edges, &incarnation).await.expect("a lease");
    let users = 20;
    apply(&mut edges, &incarnation, (0..users).map(|user| present("lobby", user, true)).collect()).await;

    let (log, _feed) = MemoryLog::new(&MemoryOptions::default());
    let first = Shutdown::new();
    let listener = plaza_kit::net::bind(addr, "listen").expect("a free port");
    let running = first.spawn("fanout", fanout(listener, Arc::clone(&log), first.clone()));
    history(addr, "lobby", users).await;
    first.begin();
    running.await.expect("fanout ends");

    // While it is away again, more happens, and one replica dies.
    apply(&mut EdgeLeaseServiceClient::new(channel(&two)), &incarnation, vec![present("lobby", 0, false)]).await;
    drop(one);
    let second = Shutdown::new();
    let listener = plaza_kit::net::bind(addr, "listen").expect("the port is free again");
    let running = second.spawn("fanout", fanout(listener, log, second.clone()));
    let events = history(addr, "lobby", users + 1).await;
    let mut expected: Vec<_> = (0..users).map(|user| (Kind::Joined, format!("u{user}"))).collect();
    expected.push((Kind::Left, "u0".to_owned()));
    assert_eq!(events, expected);
    second.begin();
    running.await.expect("fanout ends");
}

/// The publisher looks ten times a second by itself, counted from its last look: each event here is written right
/// after it, and would come 100 ms later.
#[tokio::test(flavor = "multi_thread")]
async fn a_join_is_told_at_once_by_the_replica_that_wrote_it() {
    let redis = RedisServer::start().await;
    let listener = plaza_kit::net::bind(([127, 0, 0, 1], 0).into(), "listen").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("a bound listener has an address"));
    let (log, _feed) = MemoryLog::new(&MemoryOptions::default());
    let shutdown = Shutdown::new();
    let running = shutdown.spawn("fanout", fanout(listener, log, shutdown.clone()));
    let service = start(&redis, &["--fanout-addr", url.as_str()]).await;
    let mut edges = EdgeLeaseServiceClient::new(channel(&service));
    let incarnation = edge_name();
    register(&mut edges, &incarnation).await.expect("a lease");
    let mut events = FanoutServiceClient::connect(url).await.expect("fanout listens");
    let subscribe = SubscribeRequest { room: "lobby".to_owned(), ..SubscribeRequest::default() };
    let mut events = events.subscribe(subscribe).await.expect("a room").into_inner();
    let mut times = Vec::new();
    for user in 0..20 {
        let begin = Instant::now();
        apply(&mut edges, &incarnation, vec![present("lobby", user, true)]).await;
        let event = tokio::time::timeout(PATIENCE, events.message()).await.expect("it comes");
        assert!(event.expect("the stream lives").is_some());
        times.push(begin.elapsed());
    }
    // All of them on a machine with time for it; one at least on any.
    let fastest = times.iter().min().expect("there are some");
    assert!(*fastest < Duration::from_millis(60), "{times:?}");
    shutdown.begin();
    running.await.expect("fanout ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn look_alike_names_have_one_holder() {
    let redis = RedisServer::start().await;
    let service = start(&redis, &["--unique-usernames"]).await;
    let mut edges = EdgeLeaseServiceClient::new(channel(&service));
    let incarnation = edge_name();
    register(&mut edges, &incarnation).await.expect("a lease");
    let wishes = vec![open(1, "paypal"), open(2, "PayPa1"), open(3, "p\u{430}ypal"), open(4, ""), open(5, "王小明")];
    let results = apply(&mut edges, &incarnation, wishes).await;
    assert_eq!(codes(results), [None, code("username_taken"), code("bad_username"), None, None]);
}

/// faults.md row 11: a server that was master before, and so knows every script, is promoted again without the last
/// writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_another_server_may_have_lost_is_held_back() {
    let redis = RedisServer::start().await;
    let service = start(&redis, &["--unique-usernames"]).await;
    let mut edges = EdgeLeaseServiceClient::new(channel(&service));
    let incarnation = edge_name();
    register(&mut edges, &incarnation).await.expect("a lease");
    assert_eq!(codes(apply(&mut edges, &incarnation, vec![open(1, "ada")]).await), [None]);

    let client = redis::Client::open(redis.url()).expect("a URL");
    let mut raw = client.get_multiplexed_async_connection().await.expect("a connection");
    let lost: Vec<String> = redis::cmd("KEYS").arg("{plaza}:n:*").query_async(&mut raw).await.expect("keys");
    let () = redis::cmd("DEL").arg(&lost).query_async(&mut raw).await.expect("they go");
    let boot = async |words: &[&str]| -> u32 {
        let mut raw = client.get_multiplexed_async_connection().await.expect("a connection");
        redis::cmd(words[0]).arg("{plaza}:boot").arg(&words[1..]).query_async(&mut raw).await.expect("a number")
    };
    // A replica that was promoted is another run of a server, with another history.
    assert_eq!(boot(&["HSET", "server", "another", "run", "another"]).await, 0, "the data knows who wrote it");
    // By the first wish of a batch as by all others of it.
    let thieves = vec![open(2, "ada"), open(3, "ada")];
    assert_eq!(codes(apply(&mut edges, &incarnation, thieves).await), [code("busy"), code("busy")]);

    // Data of a release that told no grace: nothing is known of its server, and nothing fails.
    assert_eq!(boot(&["HDEL", "name_grace", "doubt", "server", "run"]).await, 4);
    assert_eq!(boot(&["HSET", "server", "another"]).await, 1);
    assert_eq!(codes(apply(&mut edges, &incarnation, vec![open(4, "eve")]).await), [None]);
}

fn open(n: u8, username: &str) -> Body {
    Body::Open(pb::Open {
        session_id: format!("{n:0>20}"),
        user_id: format!("u{n}"),
        protocol: "plaza-json".to_owned(),
        pid: String::new(),
        username: username.to_owned(),
    })
}

fn code(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// Of each result its refusal, if it is one.
fn codes(results: Vec<pb::OpResult>) -> Vec<Option<String>> {
    let code = |result: pb::OpResult| match result.result.expect("each has a result") {
        pb::op_result::Result::Rejected(rejected) => Some(rejected.code),
        pb::op_result::Result::Session(_) | pb::op_result::Result::Done(_) => None,
    };
    results.into_iter().map(code).collect()
}
