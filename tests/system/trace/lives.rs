//! Traces of what is no message: sessions that continue, rooms that are repaired, edges that end.

use super::{Client, is_grpc, service};
use crate::clients;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use plaza_proto::fanout::TailsRequest;
use plaza_proto::fanout::fanout_service_client::FanoutServiceClient;
use plaza_tests::cluster::{Cluster, Service, wait_ready};
use plaza_tests::otlp::{Receiver, Span, tree};
use plaza_tests::process::installed;
use plaza_tests::proxy::Proxy;
use serde_json::json;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const APPLY: &str = "plaza.session.v1.EdgeLeaseService/Apply";
const READ: &str = "plaza.fanout.v1.FanoutService/Read";

/// A root that `wanted` picks, with its whole trace, once a CLIENT and a SERVER span of `call` stand below it.
async fn with_call(receiver: &mut Receiver, what: &str, call: &str, wanted: impl Fn(&Span) -> bool) -> Vec<Span> {
    let found = |spans: &[Span]| {
        spans.iter().filter(|span| wanted(span)).find_map(|root| {
            let all: Vec<Span> = spans.iter().filter(|span| span.trace_id == root.trace_id).cloned().collect();
            let below = |parent: &Span, kind| {
                all.iter().find(|s| s.name == call && s.kind == kind && s.parent_id == parent.span_id).cloned()
            };
            // A root that is the call itself has only the other side below it.
            let client = if root.name == call { root.clone() } else { below(root, SpanKind::Client)? };
            let server = below(&client, SpanKind::Server)?;
            assert_ne!(service(&server), service(&client), "{}", tree(&all));
            Some(all)
        })
    };
    receiver.wait(what, found).await
}

fn has(span: &Span, name: &str, value: &str) -> bool {
    span.attributes.get(name).is_some_and(|found| found == value)
}

/// A root span of one of our own processes that has this name.
async fn lonely(receiver: &mut Receiver, name: &str) -> Span {
    let found = |spans: &[Span]| spans.iter().find(|span| span.name == name && span.parent_id.is_empty()).cloned();
    receiver.wait(name, found).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_resumes_on_another_edge_is_one_trace() {
    let mut receiver = Receiver::start().await;
    let cluster = Cluster::start_in(2, &[], receiver.envs()).await;
    let (old, welcome) = Client::hello(cluster.edges[0].addr, json!({})).await;
    drop(old);
    let (_new, again) = Client::hello(cluster.edges[1].addr, json!({"resume": welcome["ticket"]})).await;
    assert_eq!(again["resumed"], true, "{again}");
    let resumed = |span: &Span| has(span, "plaza.recovery", "complete");
    let spans = with_call(&mut receiver, "a resume with its call", APPLY, resumed).await;
    let root = spans.iter().find(|span| resumed(span)).expect("it was found");
    assert_eq!((root.name.as_str(), root.parent_id.as_str()), ("ws.receive", ""), "{}", tree(&spans));
    assert!(has(root, "plaza.request", "open") && has(root, "plaza.resumed", "true"), "{}", tree(&spans));
    assert_eq!(root.links.len(), 1, "the handshake of the new socket:\n{}", tree(&spans));
}

#[tokio::test(flavor = "multi_thread")]
async fn recoveries_of_stock_clients_the_clearing_of_a_dead_edge_and_a_drain_are_traced() {
    let mut receiver = Receiver::start().await;
    let mut envs = receiver.envs();
    envs.push(("PLAZA_SESSION_LEASE", "6s".to_owned()));
    let cluster = Cluster::start_in(2, &["--message-rate", "0", "--drain-window", "0"], envs).await;
    let mut args = clients::urls(&cluster);
    args.push(cluster.edges[0].process.id().to_string());
    // The last of its checks kills the first edge.
    clients::run(&installed("node"), "recovery.mjs", &args).await;
    for name in ["ws.receive", "poll.receive"] {
        let recovered = |span: &Span| span.name == name && has(span, "plaza.recovery", "complete");
        with_call(&mut receiver, "a recovery with its call", APPLY, recovered).await;
    }
    let unknown = |spans: &[Span]| spans.iter().find(|span| has(span, "plaza.recovery", "unknown")).cloned();
    let unknown = receiver.wait("a recovery of nothing", unknown).await;
    assert!(!unknown.attributes.contains_key("plaza.resumed"), "{unknown:?}");

    let reap = lonely(&mut receiver, "reap").await;
    assert_eq!((service(&reap), reap.attributes["plaza.edges"].as_str()), ("plaza-session", "1"));
    cluster.edges[1].process.signal("TERM");
    let drain = lonely(&mut receiver, "drain").await;
    assert_eq!(service(&drain), "plaza-edge");
    assert!(drain.attributes.contains_key("plaza.connections"), "{drain:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_nobody_serves_lends_its_name_to_no_span() {
    let mut receiver = Receiver::start().await;
    let cluster = Cluster::start_in(0, &[], receiver.envs()).await;
    // Fanout's call, asked of the session service.
    let mut wrong = FanoutServiceClient::connect(cluster.session.url()).await.expect("the session service listens");
    let refused = wrong.tails(TailsRequest::default()).await.expect_err("it is not served there");
    assert_eq!(refused.code(), tonic::Code::Unimplemented);
    let span = lonely(&mut receiver, "_OTHER").await;
    assert!(has(&span, "rpc.method", "_OTHER") && has(&span, "rpc.status_code", "UNIMPLEMENTED"), "{span:?}");
    wait_ready(cluster.fanout.admin).await;
    let mut right = FanoutServiceClient::connect(cluster.fanout.url()).await.expect("fanout listens");
    right.tails(TailsRequest { rooms: vec!["lobby".to_owned()] }).await.expect("it is served there");
    let tails = "plaza.fanout.v1.FanoutService/Tails";
    is_grpc(&lonely(&mut receiver, tails).await, tails, cluster.fanout.addr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_made_again_has_a_span_for_each_attempt() {
    let mut receiver = Receiver::start().await;
    let cluster = Cluster::start_in(0, &[], receiver.envs()).await;
    // Two ways to the session service: to the edge they are two replicas.
    let ways = [Proxy::start(Some(cluster.session.addr)).await, Proxy::start(Some(cluster.session.addr)).await];
    let sessions = ways.each_ref().map(|way| format!("http://{}", way.addr())).join(",");
    let args = [
        ("--peer-listen", "127.0.0.1:0".to_owned()),
        ("--session-addr", sessions),
        ("--fanout-addr", cluster.fanout.url()),
        ("--nats-url", cluster.nats.url()),
        ("--threads", "1".to_owned()),
    ];
    let args: Vec<String> = args.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
    let edge = Service::start_with("plaza-edge", &args, &receiver.envs()).await;
    wait_ready(edge.admin).await;
    let mut alice = Client::enter(edge.addr, json!({}), "alice", "traced").await;
    // The way in use goes nowhere any more; the other one is not open yet. A heartbeat may find that out first:
    // then the next name is given while the other way is frozen.
    let again = |spans: &[Span]| spans.iter().find(|span| has(span, "plaza.resend_count", "1")).cloned();
    let mut names = 0;
    let second = loop {
        names += 1;
        assert!(names < 20, "no call is made again");
        ways.iter().for_each(|way| way.freeze_open(true, true));
        let name = format!("alice {names}");
        alice.ask(json!({"id": 4, "setUsername": {"username": name}}), "ok").await;
        let seen = receiver.wait("a call that is made again", again);
        if let Ok(span) = tokio::time::timeout(Duration::from_secs(2), seen).await {
            break span;
        }
    };
    let attempts = |spans: &[Span]| {
        let of_request = |span: &&Span| span.parent_id == second.parent_id && span.name == APPLY;
        let mut found: Vec<Span> = spans.iter().filter(of_request).cloned().collect();
        found.sort_by_key(|span| span.start);
        let served = spans.iter().find(|span| span.parent_id == second.span_id).cloned()?;
        (found.len() == 2).then_some((found, served))
    };
    let (attempts, served) = receiver.wait("both attempts", attempts).await;
    assert!(attempts.iter().all(|attempt| attempt.kind == SpanKind::Client), "{attempts:?}");
    assert!(attempts[0].end <= attempts[1].start && attempts[1].span_id == second.span_id, "{attempts:?}");
    assert!(has(&attempts[0], "error.type", "timeout") && has(&attempts[1], "rpc.status_code", "OK"), "{attempts:?}");
    assert!(!attempts[0].attributes.contains_key("plaza.resend_count"), "{attempts:?}");
    assert_eq!((service(&served), served.kind), ("plaza-session", SpanKind::Server));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_repair_of_a_room_is_a_trace_of_its_own() {
    let mut receiver = Receiver::start().await;
    let cluster = Cluster::start_in(1, &[], receiver.envs()).await;
    let nats = cluster.nats.url().trim_start_matches("nats://").parse().ok();
    let link = Proxy::start(nats).await;
    let args = [
        ("--peer-listen", "127.0.0.1:0".to_owned()),
        ("--session-addr", cluster.session.url()),
        ("--fanout-addr", cluster.fanout.url()),
        ("--nats-url", format!("nats://{}", link.addr())),
        ("--threads", "1".to_owned()),
    ];
    let args: Vec<String> = args.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
    let second = Service::start_with("plaza-edge", &args, &receiver.envs()).await;
    wait_ready(second.admin).await;
    let mut alice = Client::enter(cluster.edges[0].addr, json!({}), "alice", "cut").await;
    let mut bob = Client::enter(second.addr, json!({}), "bob", "cut").await;
    alice.ask(json!({"id": 4, "publish": {"room": "cut", "text": "before"}}), "published").await;
    bob.reads("before").await;

    // The second edge hears nothing of two messages.
    let cut = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    link.target(None);
    link.reset_all();
    for text in ["meanwhile", "and again"] {
        alice.ask(json!({"id": 5, "publish": {"room": "cut", "text": text}}), "published").await;
    }
    link.target(nats);
    bob.reads("meanwhile").await;
    bob.reads("and again").await;
    let repair = |span: &Span| span.name == READ && span.parent_id.is_empty() && span.start > cut;
    let spans = with_call(&mut receiver, "the read that repairs", READ, repair).await;
    let root = spans.iter().find(|span| repair(span)).expect("it was found");
    assert_eq!((service(root), root.kind, root.links.len()), ("plaza-edge", SpanKind::Client, 0), "{}", tree(&spans));
    is_grpc(root, READ, cluster.fanout.addr);
}
