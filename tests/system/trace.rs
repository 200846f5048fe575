//! Traces: what a collector gets of one message over two edges.

mod export;
mod lives;
mod queries;
mod readback;

use crate::sockets::upgrade;
use futures_util::{SinkExt, StreamExt};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use plaza_tests::cluster::{Cluster, http_get, http_post};
use plaza_tests::otlp::{Receiver, Span, tree};
use plaza_tests::process::{PATIENCE, Process, built};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const CLIENT_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT_SPAN: &str = "00f067aa0ba902b7";
/// What stands for the room `traced`.
const TRACED: &str = "d84973128c82104d";

/// A client of Plaza's own protocol, JSON.
pub(crate) struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    /// Connects, introduces itself, takes a name and joins the room.
    pub(crate) async fn enter(edge: SocketAddr, hello: Value, name: &str, room: &str) -> Self {
        let (mut client, _) = Self::hello(edge, hello).await;
        client.ask(json!({"id": 2, "setUsername": {"username": name}}), "ok").await;
        client.ask(json!({"id": 3, "join": {"room": room}}), "joined").await;
        client
    }

    /// Connects and introduces itself; the welcome.
    async fn hello(edge: SocketAddr, hello: Value) -> (Self, Value) {
        let (socket, _) = connect_async(upgrade(edge, true)).await.expect("the edge answers");
        let mut client = Self(socket);
        let welcome = client.ask(json!({"id": 1, "hello": hello}), "welcome").await;
        (client, welcome)
    }

    pub(crate) async fn ask(&mut self, frame: Value, answer: &str) -> Value {
        self.0.send(Message::text(frame.to_string())).await.expect("the socket is open");
        self.wait(answer).await
    }

    /// The next frame with this body.
    async fn wait(&mut self, body: &str) -> Value {
        let found = async {
            while let Some(message) = self.0.next().await {
                let Ok(Message::Text(text)) = message else { continue };
                let frame: Value = serde_json::from_str(&text).expect("frames are JSON");
                assert!(frame.get("error").is_none(), "{frame}");
                if let Some(found) = frame.get(body) {
                    return found.clone();
                }
            }
            panic!("the socket ended before {body}");
        };
        tokio::time::timeout(PATIENCE, found).await.expect("it comes in time")
    }

    /// Closes with this code; the edge has answered when this returns.
    pub(crate) async fn close(&mut self, code: u16) {
        let frame = CloseFrame { code: code.into(), reason: "".into() };
        self.0.send(Message::Close(Some(frame))).await.expect("the socket is open");
        while let Some(Ok(_)) = self.0.next().await {}
    }

    /// The line with this text has arrived.
    pub(crate) async fn reads(&mut self, text: &str) {
        while self.wait("event").await["text"] != text {}
    }
}

/// All spans of a trace, once there are so many.
async fn trace(receiver: &mut Receiver, id: &str, count: usize) -> Vec<Span> {
    let all = |spans: &[Span]| {
        let found: Vec<Span> = spans.iter().filter(|span| span.trace_id == id).cloned().collect();
        (found.len() >= count).then_some(found)
    };
    receiver.wait(&format!("trace {id} of {count} spans"), all).await
}

fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name} once in\n{}", tree(spans));
    found[0]
}

/// Shows the trace to who runs the test with `--nocapture`.
#[allow(clippy::print_stdout, reason = "the trace is what `just trace-demo` is run for")]
fn show(spans: &[Span]) {
    println!("{}", tree(spans));
}

fn service(span: &Span) -> &str {
    &span.resource["service.name"]
}

/// Asserts that a span names the server of its call.
fn goes_to(span: &Span, addr: SocketAddr) {
    let named = ["server.address", "server.port"].map(|name| span.attributes.get(name).map_or("", String::as_str));
    assert_eq!(named, [addr.ip().to_string().as_str(), addr.port().to_string().as_str()], "{span:?}");
}

/// Asserts that a span says of its gRPC call what the semantic conventions ask for.
fn is_grpc(span: &Span, method: &str, server: SocketAddr) {
    assert_eq!((span.name.as_str(), span.attributes["rpc.method"].as_str()), (method, method));
    assert_eq!(span.attributes["rpc.system.name"], "grpc");
    goes_to(span, server);
}

/// The trace that the client began: from its frame to one member on the first edge and two on the second. The
/// frame's span.
fn across_two_edges(spans: &[Span]) -> &Span {
    let text = tree(spans);
    let root = one(spans, "ws.receive");
    assert_eq!((root.parent_id.as_str(), root.kind, service(root)), (CLIENT_SPAN, SpanKind::Server, "plaza-edge"));
    let publishing: Vec<_> = spans.iter().filter(|s| s.name.ends_with("FanoutService/PublishStream")).collect();
    let [call, serving] = [SpanKind::Client, SpanKind::Server].map(|kind| {
        *publishing.iter().find(|span| span.kind == kind).unwrap_or_else(|| panic!("no {kind:?} in\n{text}"))
    });
    assert_eq!((call.parent_id.as_str(), service(call)), (root.span_id.as_str(), "plaza-edge"), "{text}");
    assert_eq!((serving.parent_id.as_str(), service(serving)), (call.span_id.as_str(), "plaza-fanout"), "{text}");
    let send = one(spans, "send chat.in.{room}");
    assert_eq!((send.parent_id.as_str(), send.kind), (serving.span_id.as_str(), SpanKind::Producer), "{text}");

    let processing: Vec<_> = spans.iter().filter(|s| s.name == "process chat.out.{room}").collect();
    assert_eq!(processing.len(), 2, "one per edge:\n{text}");
    assert!(processing.iter().all(|s| s.parent_id == send.span_id && s.kind == SpanKind::Consumer), "{text}");
    // The room is found by what the docs say: `printf %s traced | sha256sum`.
    let of_room = |span: &Span| span.attributes.get("plaza.room").is_some_and(|room| room == TRACED);
    assert!(of_room(send) && processing.iter().all(|span| of_room(span)), "{text}");
    let edges: BTreeSet<_> = processing.iter().map(|s| s.resource["service.instance.id"].clone()).collect();
    let recipients: BTreeSet<_> = processing.iter().map(|s| s.attributes["plaza.recipients"].clone()).collect();
    assert_eq!((edges.len(), recipients), (2, ["1", "2"].map(str::to_owned).into()), "{text}");
    root
}

/// A client of the first edge says hello in its own trace, and two of the second edge read it. They stay as long as
/// what is returned.
async fn hello_over_two_edges(cluster: &Cluster) -> [Client; 3] {
    let (first, second) = (cluster.edges[0].addr, cluster.edges[1].addr);
    let mut alice = Client::enter(first, json!({}), "alice", "traced").await;
    let mut bob = Client::enter(second, json!({}), "bob", "traced").await;
    let mut carol = Client::enter(second, json!({}), "carol", "traced").await;
    let traceparent = format!("00-{CLIENT_TRACE}-{CLIENT_SPAN}-01");
    let publish = json!({"room": "traced", "text": "hello", "trace": true, "traceparent": traceparent});
    let published = alice.ask(json!({"id": 4, "publish": publish}), "published").await;
    assert_eq!(published["traceId"], CLIENT_TRACE, "the answer names the client's own trace");
    bob.reads("hello").await;
    carol.reads("hello").await;
    [alice, bob, carol]
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_clients_frame_to_the_last_edge() {
    let mut receiver = Receiver::start().await;
    let cluster = Cluster::start_in(2, &[], receiver.envs()).await;
    let _clients = hello_over_two_edges(&cluster).await;

    let spans = trace(&mut receiver, CLIENT_TRACE, 6).await;
    let root = across_two_edges(&spans);
    // Who was called, by the names in the settings.
    let publish = "plaza.fanout.v1.FanoutService/PublishStream";
    let mut calls: Vec<_> = spans.iter().filter(|span| span.name == publish).collect();
    calls.sort_by_key(|span| span.kind == SpanKind::Server);
    calls.iter().for_each(|call| is_grpc(call, publish, cluster.fanout.addr));
    assert_eq!(calls[0].attributes["rpc.status_code"], "OK", "{:?}", calls[0]);
    let send = one(&spans, "send chat.in.{room}");
    let nats = cluster.nats.url().trim_start_matches("nats://").parse().expect("an address");
    goes_to(send, nats);
    let said = ["system", "operation.type", "operation.name", "destination.template"];
    let said = said.map(|name| send.attributes[&format!("messaging.{name}")].as_str());
    assert_eq!(said, ["nats", "send", "send", "chat.in.{room}"]);
    for process in spans.iter().filter(|span| span.kind == SpanKind::Consumer) {
        goes_to(process, nats);
        let said = ["system", "operation.type", "operation.name", "destination.template"];
        let said = said.map(|name| process.attributes[&format!("messaging.{name}")].as_str());
        assert_eq!(said, ["nats", "process", "process", "chat.out.{room}"]);
    }
    // The root points at the handshake of its connection, which is a trace of its own.
    let [(_, handshake)] = &root.links[..] else { panic!("one link:\n{}", tree(&spans)) };
    let handshake = receiver
        .wait("the handshake's span", |spans| spans.iter().find(|span| span.span_id == *handshake).cloned())
        .await;
    assert_eq!((handshake.name.as_str(), handshake.parent_id.as_str()), ("GET /ws", ""));
    assert_eq!(handshake.attributes["http.response.status_code"], "101");
    assert!(handshake.attributes.contains_key("plaza.connection.id"));
    assert_ne!(handshake.trace_id, CLIENT_TRACE);
    let shown = [spans, vec![handshake]].concat();
    show(&shown);
    // Its reader sees which edge did what: the one that the client is at also serves one member.
    let text = tree(&shown);
    let lines = |word: &str| text.lines().filter(|line| line.contains(word)).collect::<Vec<_>>();
    let on = |name: &str, word: &str| lines(word).iter().filter(|line| line.contains(name)).count();
    for (word, counts) in
        [("GET /ws  ", [1, 0]), ("ws.receive  ", [1, 0]), ("recipients 1", [1, 0]), ("recipients 2", [0, 1])]
    {
        assert_eq!([on("plaza-edge 1 ", word), on("plaza-edge 2 ", word)], counts, "{word} in\n{text}");
    }
    assert_eq!(lines("service.instance.id").len(), 2, "{text}");

    // The metrics of both edges point at traces: each bucket at the newest one.
    for edge in &cluster.edges {
        let metrics = http_get(edge.admin, "/metrics").await.expect("metrics");
        let mut buckets = metrics.lines().filter(|line| line.starts_with("plaza_publish_to_socket_seconds_bucket"));
        assert!(buckets.any(|line| line.contains("# {trace_id=\"")), "{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_context_is_ignored_and_a_name_is_traced_to_redis() {
    let mut receiver = Receiver::start().await;
    let cluster = Cluster::start_in(1, &[], receiver.envs()).await;
    let mut alice = Client::enter(cluster.edges[0].addr, json!({}), "alice", "traced").await;
    let publish = json!({"room": "traced", "text": "hello", "trace": true, "traceparent": "00-00-00-00"});
    let published = alice.ask(json!({"id": 4, "publish": publish}), "published").await;
    let id = published["traceId"].as_str().expect("a trace of its own").to_owned();
    let spans = trace(&mut receiver, &id, 5).await;
    assert_eq!(one(&spans, "ws.receive").parent_id, "");

    let naming = |spans: &[Span]| {
        let root = spans.iter().find(|s| s.attributes.get("plaza.request").is_some_and(|r| r == "set_username"))?;
        let found: Vec<Span> = spans.iter().filter(|span| span.trace_id == root.trace_id).cloned().collect();
        (found.len() >= 4).then_some(found)
    };
    let spans = receiver.wait("the trace of a name", naming).await;
    show(&spans);
    let redis = spans.iter().find(|s| s.attributes.get("db.system.name").is_some_and(|name| name == "redis"));
    let redis = redis.unwrap_or_else(|| panic!("no Redis in\n{}", tree(&spans)));
    let parent = spans.iter().find(|span| span.span_id == redis.parent_id).expect("it has a parent");
    assert_eq!(redis.attributes["db.namespace"], "0", "{redis:?}");
    assert_eq!((service(parent), parent.kind), ("plaza-session", SpanKind::Server));
    let apply = "plaza.session.v1.EdgeLeaseService/Apply";
    let call = spans.iter().find(|span| span.span_id == parent.parent_id).expect("it was called");
    assert_eq!((service(call), call.kind), ("plaza-edge", SpanKind::Client));
    [parent, call].iter().for_each(|span| is_grpc(span, apply, cluster.session.addr));
    assert_eq!((redis.name.as_str(), redis.kind), ("EVALSHA apply", SpanKind::Client));
    assert_eq!(redis.attributes["db.operation.name"], "EVALSHA");
    let server = cluster.redis.url().trim_start_matches("redis://").trim_end_matches('/').parse();
    goes_to(redis, server.expect("an address"));
    // Who asks who is there has the call in its trace, too.
    alice.ask(json!({"id": 5, "who": {"room": "traced"}}), "presence").await;
    let who = "plaza.session.v1.SessionService/ListMembers";
    let asked = |spans: &[Span]| {
        let root = spans.iter().find(|span| span.attributes.get("plaza.request").is_some_and(|r| r == "who"))?;
        let call = spans.iter().find(|span| span.name == who && span.parent_id == root.span_id)?;
        let served = spans.iter().find(|span| span.name == who && span.parent_id == call.span_id)?;
        Some([call.clone(), served.clone()])
    };
    let asked = receiver.wait("the trace of a question", asked).await;
    assert_eq!(asked.each_ref().map(|span| span.kind), [SpanKind::Client, SpanKind::Server]);
    asked.iter().for_each(|span| is_grpc(span, who, cluster.session.addr));
    // The presence event that came of joining, from the session service to fanout.
    let presence = |spans: &[Span]| {
        let name = "plaza.fanout.v1.FanoutService/Publish";
        spans.iter().find(|span| span.name == name && span.kind == SpanKind::Client).cloned()
    };
    let presence = receiver.wait("the call of a presence event", presence).await;
    let publish = "plaza.fanout.v1.FanoutService/Publish";
    is_grpc(&presence, publish, cluster.fanout.addr);
    // The times of calls point at their traces, where they are made and where they are served.
    for (service, side, method) in [
        (&cluster.edges[0], "client", apply),
        (&cluster.session, "server", apply),
        (&cluster.session, "client", publish),
    ] {
        let metrics = http_get(service.admin, "/metrics").await.expect("metrics");
        let (series, label) = (format!("plaza_grpc_{side}_seconds_bucket{{"), format!("method=\"{method}\""));
        let mut buckets = metrics.lines().filter(|line| line.starts_with(&series) && line.contains(&label));
        assert!(buckets.any(|line| line.contains("# {trace_id=\"")), "{side} {method} in\n{metrics}");
    }
}

/// Polls until an answer has this text; the packet that has it.
pub(crate) async fn poll(edge: SocketAddr, path: &str, text: &str) -> String {
    let found = async {
        loop {
            let answer = http_get(edge, path).await.expect("an answer");
            let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
            if let Some(packet) = body.split('\u{1e}').find(|packet| packet.contains(text)) {
                return packet.to_owned();
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("{text} does not come"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_io_client_that_polls_is_told_its_trace() {
    let mut receiver = Receiver::start().await;
    let cluster = Cluster::start_in(1, &[], receiver.envs()).await;
    let edge = cluster.edges[0].addr;
    let path = "/socket.io/?EIO=4&transport=polling";
    let open = poll(edge, path, "\"sid\"").await;
    let open: Value = serde_json::from_str(open.trim_start_matches('0')).expect("the open packet is JSON");
    let path = format!("{path}&sid={}", open["sid"].as_str().expect("a sid"));
    for (packet, answer) in [("40", "40{"), ("420[\"set_username\",\"alice\"]", "430[")] {
        http_post(edge, &path, packet).await.expect("an answer");
        poll(edge, &path, answer).await;
    }
    http_post(edge, &path, "421[\"message\",{\"text\":\"hello\",\"trace\":true}]").await.expect("an answer");
    let ack = poll(edge, &path, "431[").await;
    let ack: Value = serde_json::from_str(&ack[3..]).expect("an ack is JSON");
    let id = ack[0]["plaza_trace"].as_str().unwrap_or_else(|| panic!("no trace in {ack}"));
    let spans = trace(&mut receiver, id, 5).await;
    assert_eq!(one(&spans, "poll.receive").attributes["plaza.request"], "publish");
    assert_eq!(one(&spans, "process chat.out.{room}").attributes["plaza.recipients"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_that_outlives_a_crash_of_fanout_stays_one_trace() {
    let mut receiver = Receiver::start().await;
    let mut cluster = Cluster::start_in(1, &[], receiver.envs()).await;
    let mut alice = Client::enter(cluster.edges[0].addr, json!({}), "alice", "traced").await;
    // The event is on its way to a fanout that does nothing any more, and then is gone.
    cluster.fanout.process.pause().await;
    let publish = json!({"id": 4, "publish": {"room": "traced", "text": "hello", "trace": true}});
    alice.0.send(Message::text(publish.to_string())).await.expect("the socket is open");
    let begin = Instant::now();
    while !http_get(cluster.edges[0].admin, "/metrics")
        .await
        .is_some_and(|metrics| metrics.contains("\nplaza_unresolved_publishes 1\n"))
    {
        assert!(begin.elapsed() < PATIENCE, "the publish is not on its way");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.fanout.process.kill();
    let listen = cluster.fanout.addr.to_string();
    let nats = cluster.nats.url();
    let args = ["--listen", &listen, "--admin-listen", "127.0.0.1:0", "--log-format", "json", "--nats-url", &nats];
    let _again = Process::start("plaza-fanout", &built("plaza-fanout"), &args.map(str::to_owned), &receiver.envs());

    let published = alice.wait("published").await;
    let id = published["traceId"].as_str().expect("a trace");
    // Attempts that failed have spans too: from the member's end upwards, each has its parent.
    let whole = |spans: &[Span]| {
        let spans: Vec<Span> = spans.iter().filter(|span| span.trace_id == id).cloned().collect();
        let mut chain = vec![spans.iter().find(|span| span.kind == SpanKind::Consumer)?.clone()];
        while let Some(parent) = spans.iter().find(|span| span.span_id == chain[chain.len() - 1].parent_id) {
            chain.push(parent.clone());
        }
        (chain.len() == 5).then_some((spans, chain))
    };
    let (spans, chain) = receiver.wait("the whole trace", whole).await;
    let services: Vec<_> = chain.iter().map(service).collect();
    assert_eq!(services, ["plaza-edge", "plaza-fanout", "plaza-fanout", "plaza-edge", "plaza-edge"]);
    assert_eq!((chain[0].attributes["plaza.recipients"].as_str(), chain[4].name.as_str()), ("1", "ws.receive"));
    let sends: u32 = chain[3].attributes["plaza.sends"].parse().expect("a number");
    assert!(sends >= 2, "{}", tree(&spans));
    show(&spans);
}
