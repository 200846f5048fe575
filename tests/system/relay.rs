//! Three edges without sticky sessions: rows N1 and N2 of the wire reference, SEC12 of the fault model.

use crate::clients::run;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Method};
use plaza_edge::peer::Signer;
use plaza_edge::upstream::registration::SharedKey;
use plaza_proto::session::edge_lease_service_client::EdgeLeaseServiceClient;
use plaza_proto::session::{RegisterRequest, RegisterResponse};
use plaza_tests::balancer::Balancer;
use plaza_tests::cluster::{Cluster, Service, http_get};
use plaza_tests::process::installed;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const SEPARATOR: char = '\u{1e}';
/// "No answer in two seconds", and time for a busy machine to say so.
const AT_ONCE: Duration = Duration::from_millis(2_700);

pub(crate) type Ws = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// An answer: status and body.
pub(crate) type Answer = (u16, String);

/// Sends a request on a connection of its own.
pub(crate) async fn send(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if method != "GET" {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    stream.write_all(format!("{request}\r\n{body}").as_bytes()).await.unwrap();
    stream
}

/// Reads its answer.
async fn answer(mut stream: TcpStream) -> Answer {
    let mut text = String::new();
    let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_string(&mut text)).await;
    read.expect("no request hangs").unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    (head[9..12].parse().unwrap(), body.to_owned())
}

pub(crate) async fn request(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    answer(send(addr, method, path, headers, body).await).await
}

fn is_unknown(answer: &Answer) -> bool {
    answer.0 == 400 && answer.1.contains("\"code\":1,")
}

/// A session on polling, asked for at any edge.
pub(crate) struct Polling {
    sid: String,
}

impl Polling {
    async fn open(owner: SocketAddr) -> Self {
        let (status, body) = request(owner, "GET", "/socket.io/?EIO=4&transport=polling", &[], "").await;
        assert_eq!(status, 200, "{body}");
        Self::of(&body)
    }

    /// The session of an open packet.
    pub(crate) fn of(body: &str) -> Self {
        let (_, rest) = body.split_once("\"sid\":\"").expect("an open packet");
        Self { sid: rest.split('"').next().unwrap().to_owned() }
    }

    /// One that has joined namespace `/`, with nothing waiting.
    async fn connected(owner: SocketAddr) -> Self {
        let polling = Self::open(owner).await;
        assert_eq!(polling.post(owner, "40{\"room\":null}").await, (200, "ok".to_owned()));
        let mut seen = String::new();
        while !(seen.contains("40{") && seen.contains("[\"message\"")) {
            let (status, body) = polling.get(owner).await;
            assert_eq!(status, 200, "{body}");
            seen.push_str(&body);
        }
        polling
    }

    pub(crate) fn path(&self, transport: &str) -> String {
        format!("/socket.io/?EIO=4&transport={transport}&sid={}", self.sid)
    }

    async fn get(&self, at: SocketAddr) -> Answer {
        request(at, "GET", &self.path("polling"), &[], "").await
    }

    /// A GET that its owner has, as far as can be told from outside.
    async fn waiting(&self, at: SocketAddr) -> TcpStream {
        let get = send(at, "GET", &self.path("polling"), &[], "").await;
        let mut other = self.sid.clone();
        other.replace_range(20..24, "AAAA");
        for _ in 0..8 {
            // The same way to the same shard, with a secret that is wrong.
            assert!(is_unknown(&Self { sid: other.clone() }.get(at).await));
        }
        get
    }

    async fn post(&self, at: SocketAddr, body: &str) -> Answer {
        request(at, "POST", &self.path("polling"), &[("Content-Type", "text/plain;charset=UTF-8")], body).await
    }

    pub(crate) async fn probe(&self, at: SocketAddr) -> Result<Ws, Error> {
        Ok(connect_async(format!("ws://{at}{}", self.path("websocket"))).await?.0)
    }

    async fn assert_gone(&self, at: &[SocketAddr]) {
        for &edge in at {
            let answer = self.get(edge).await;
            assert!(is_unknown(&answer), "{answer:?}");
        }
    }
}

pub(crate) async fn next(ws: &mut Ws) -> Option<String> {
    let message = tokio::time::timeout(Duration::from_secs(60), ws.next()).await.expect("no socket hangs");
    match message? {
        Ok(Message::Text(text)) => Some(text.to_string()),
        Ok(Message::Close(_)) | Err(_) => None,
        Ok(message) => panic!("{message:?}"),
    }
}

/// Three events that are refused at once, with their acknowledgements asked for.
fn events(first: u32) -> String {
    let event = |n: u32| format!("42{}[\"message\",\"\"]", first + n);
    [event(0), event(1), event(2)].join("\u{1e}")
}

/// Which acknowledgements these packets are.
fn acknowledged(packets: &[&str]) -> Vec<String> {
    packets
        .iter()
        .map(|packet| packet.strip_prefix("43").unwrap_or("?").split('[').next().unwrap().to_owned())
        .collect()
}

fn addrs(cluster: &Cluster) -> [SocketAddr; 3] {
    [0, 1, 2].map(|edge| cluster.edges[edge].addr)
}

/// A number of an edge's metrics.
pub(crate) async fn metric(edge: &Service, name: &str) -> f64 {
    let text = http_get(edge.admin, "/metrics").await.expect("the admin port answers");
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Waits until a metric has a value.
async fn becomes(edge: &Service, name: &str, value: f64) {
    let begin = Instant::now();
    while metric(edge, name).await != value {
        assert!(begin.elapsed() < Duration::from_secs(30), "{name} does not become {value}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn n1_stock_clients_chat_behind_a_balancer_without_sticky_sessions() {
    let cluster = Cluster::start_with(3, &["--open-publish", "--message-rate", "0"]).await;
    let balancer = Balancer::start(addrs(&cluster).to_vec()).await;
    run(&installed("node"), "chat.mjs", &[balancer.url(), balancer.url()]).await;
    for edge in &cluster.edges {
        assert!(metric(edge, "plaza_relays_total{result=\"ok\"}").await > 0.0, "each edge has relayed");
        assert_eq!(metric(edge, "plaza_relays_total{result=\"dead\"}").await, 0.0, "every owner lives and answers");
        becomes(edge, "plaza_relayed_sockets", 0.0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn n1_polling_rows_hold_over_several_edges() {
    let cluster = Cluster::start_with(3, &["--message-rate", "0"]).await;
    let [a, b, c] = addrs(&cluster);

    // E6: what one body brought comes back in one GET.
    let polling = Polling::connected(a).await;
    assert_eq!(polling.post(b, &events(10)).await, (200, "ok".to_owned()));
    let (status, body) = polling.get(c).await;
    let packets: Vec<&str> = body.split(SEPARATOR).collect();
    assert_eq!((status, acknowledged(&packets)), (200, vec!["10".into(), "11".into(), "12".into()]), "{body}");

    // E8: a second GET at another edge.
    let (first, second) = (polling.waiting(b).await, send(c, "GET", &polling.path("polling"), &[], "").await);
    assert_eq!(answer(second).await.0, 400);
    assert_eq!(answer(first).await, (200, "1".to_owned()));
    polling.assert_gone(&[a, b, c]).await;

    // E12: a close by POST releases the GET that waits elsewhere.
    let polling = Polling::connected(a).await;
    let waiting = polling.waiting(b).await;
    assert_eq!(polling.post(c, "1").await, (200, "ok".to_owned()));
    assert_eq!(answer(waiting).await, (200, "6".to_owned()));
    polling.assert_gone(&[a, b, c]).await;

    // E14: the connection of a GET breaks at another edge.
    let polling = Polling::connected(a).await;
    drop(polling.waiting(b).await);
    while polling.post(c, "3").await.0 == 200 {}
    polling.assert_gone(&[a, b, c]).await;

    // E10 and E11: the owner's refusals come through.
    let polling = Polling::connected(a).await;
    let mut post = TcpStream::connect(b).await.unwrap();
    let head = format!("POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n", polling.path("polling"));
    post.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(answer(post).await.0, 413);
    let polling = Polling::connected(a).await;
    let binary = [("Content-Type", "application/octet-stream")];
    assert_eq!(request(b, "POST", &polling.path("polling"), &binary, "4x").await.0, 400);
    polling.assert_gone(&[a, b, c]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn n1_upgrades_complete_over_several_edges() {
    let mut cluster = Cluster::start_with(3, &["--message-rate", "0", "--drain-window", "300ms"]).await;
    let [a, b, c] = addrs(&cluster);

    // E22: the probe at one edge releases the GET at another.
    let polling = Polling::connected(a).await;
    let waiting = polling.waiting(b).await;
    let mut ws = polling.probe(c).await.expect("101");
    ws.send(Message::text("2probe")).await.unwrap();
    assert_eq!(next(&mut ws).await.as_deref(), Some("3probe"));
    assert_eq!(answer(waiting).await, (200, "6".to_owned()));
    assert_eq!(polling.get(a).await, (200, "6".to_owned()));

    // E25: a second one is closed.
    let mut second = polling.probe(b).await.expect("101");
    assert_eq!(next(&mut second).await, None);

    // E23: what is queued moves to the socket, in order.
    assert_eq!(polling.post(b, &events(20)).await.0, 200);
    ws.send(Message::text("5")).await.unwrap();
    ws.send(Message::text("4223[\"message\",\"\"]")).await.unwrap();
    let mut packets = Vec::new();
    while packets.len() < 4 {
        packets.push(next(&mut ws).await.expect("the socket is open"));
    }
    let packets: Vec<&str> = packets.iter().map(String::as_str).collect();
    assert_eq!(acknowledged(&packets), ["20", "21", "22", "23"]);

    // E24: polling is over, everywhere.
    for edge in [a, b, c] {
        for answer in [polling.get(edge).await, polling.post(edge, "3").await] {
            assert_eq!((answer.0, answer.1.contains("\"code\":3,")), (400, true), "{answer:?}");
        }
    }
    becomes(&cluster.edges[2], "plaza_relayed_sockets", 1.0).await;
    becomes(&cluster.edges[0], "plaza_connections{protocol=\"socketio\",transport=\"websocket\"}", 1.0).await;
    ws.close(None).await.unwrap();
    becomes(&cluster.edges[2], "plaza_relayed_sockets", 0.0).await;
    becomes(&cluster.edges[0], "plaza_connections{protocol=\"socketio\",transport=\"websocket\"}", 0.0).await;

    // An unknown session is refused before any 101, by its owner.
    let Err(Error::Http(refused)) = polling.probe(c).await else { panic!("no 101") };
    assert_eq!(refused.status(), 400);

    // A relayed socket ends in the drain of the edge that relays it, and in its owner's.
    for draining in [2, 0] {
        let polling = Polling::connected(a).await;
        let mut ws = polling.probe(cluster.edges[2].addr).await.expect("101");
        ws.send(Message::text("2probe")).await.unwrap();
        assert_eq!(next(&mut ws).await.as_deref(), Some("3probe"));
        ws.send(Message::text("5")).await.unwrap();
        cluster.edges[draining].process.signal("TERM");
        while next(&mut ws).await.is_some() {}
        assert!(cluster.edges[draining].process.wait().await.success());
        if draining == 2 {
            cluster.edges.remove(2);
            cluster.add_edge(&[]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn n2_a_dead_owner_is_an_unknown_session_within_two_seconds() {
    let mut cluster = Cluster::start_with(3, &["--message-rate", "0"]).await;
    let [a, b, c] = addrs(&cluster);
    let polling = Polling::connected(a).await;
    let (get, probing) = (polling.waiting(b).await, Polling::connected(a).await);
    let mut ws = probing.probe(c).await.expect("101");
    cluster.edges[0].process.kill();
    let begin = Instant::now();
    let waited = answer(get).await;
    assert!(is_unknown(&waited), "{waited:?}");
    assert_eq!(next(&mut ws).await, None, "the relayed socket has ended");
    for edge in [b, c] {
        let (got, posted) = tokio::join!(polling.get(edge), polling.post(edge, "3"));
        assert!(is_unknown(&got) && is_unknown(&posted), "{got:?} {posted:?}");
        let Err(Error::Http(refused)) = polling.probe(edge).await else { panic!("no 101") };
        assert_eq!(refused.status(), 400);
    }
    assert!(begin.elapsed() < AT_ONCE, "it took {:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn n2_an_owner_that_says_nothing_is_given_up_after_two_seconds() {
    let cluster = Cluster::start(1).await;
    // It takes connections, and never answers.
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let lease = register(&cluster, "silent", silent.local_addr().unwrap()).await;
    let sid = plaza_edge::wire::engineio::Sid { edge: lease.edge_number, shard: 0, slot: 0, secret: [1; 16] };
    let (polling, edge) = (Polling { sid: sid.to_string() }, cluster.edges[0].addr);
    let begin = Instant::now();
    let (got, posted, probe) = tokio::join!(polling.get(edge), polling.post(edge, "3"), polling.probe(edge));
    assert!(is_unknown(&got) && is_unknown(&posted), "{got:?} {posted:?}");
    let Err(Error::Http(refused)) = probe else { panic!("no 101") };
    assert_eq!(refused.status(), 400);
    assert!(begin.elapsed() >= Duration::from_millis(1_900), "only {:?}", begin.elapsed());
    assert!(begin.elapsed() < AT_ONCE, "it took {:?}", begin.elapsed());

    // A number that nobody has is known to be nobody's.
    let sid = plaza_edge::wire::engineio::Sid { edge: lease.edge_number ^ 1, ..sid };
    let nobody = Polling { sid: sid.to_string() };
    assert!(is_unknown(&nobody.get(edge).await));
    assert!(is_unknown(&nobody.get(edge).await));
}

/// Becomes an edge: its number and the keys.
async fn register(cluster: &Cluster, name: &str, addr: SocketAddr) -> RegisterResponse {
    let mut service = EdgeLeaseServiceClient::connect(cluster.session.url()).await.expect("a channel");
    let request = RegisterRequest {
        edge: name.to_owned(),
        incarnation: format!("{name}#{}{:02x}", plaza_proto::ids::session_id([7; 15]), 7),
        advertise_addr: addr.to_string(),
        ..RegisterRequest::default()
    };
    service.register(request).await.expect("a lease").into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn sec12_relays_are_signed_and_come_once_and_by_the_peer_port() {
    let mut cluster = Cluster::start(2).await;
    let lease = register(&cluster, "edge-x", SocketAddr::from(([127, 0, 0, 1], 1))).await;
    let keys: Vec<SharedKey> = (lease.resume_keys.iter())
        .map(|key| SharedKey { generation: key.generation, secret: key.key.as_slice().into() })
        .collect();
    let peer = cluster.edges[0].process.listening("peer-listen").await;
    let (own, other) = (cluster.edges[0].addr, cluster.edges[1].addr);
    let (mine, theirs) = (Polling::open(own).await, Polling::open(other).await);
    let path = mine.path("polling");
    let signer = Signer::new([7; 16]);
    let signature = |path: &str| -> HeaderValue { signer.sign(&keys, &Method::POST, path).expect("a key") };
    let post = async |at: SocketAddr, path: &str, values: &[&HeaderValue]| {
        let headers: Vec<(&str, &str)> = values.iter().map(|v| ("plaza-relay", v.to_str().unwrap())).collect();
        request(at, "POST", path, &headers, "40").await
    };

    let good = signature(&path);
    let (status, body) = post(peer, &path, &[&good]).await;
    assert_eq!(status, 200);
    assert!(body.contains("200ok"), "the owner's status and body: {body:?}");

    let stranger = [SharedKey { secret: [0; 32].into(), ..keys[0].clone() }];
    let forged = Signer::new([8; 16]).sign(&stranger, &Method::POST, &path).expect("a key");
    let fresh = signature(&path);
    for (what, values) in [
        ("unsigned", &[][..]),
        ("sent twice", &[&good]),
        ("signed by a stranger", &[&forged]),
        ("signed twice", &[&fresh, &fresh]),
    ] {
        let (status, body) = post(peer, &path, values).await;
        assert_eq!(status, 403, "{what}: {body}");
    }
    // A signature for one request is none for another, and no relay is relayed.
    assert_eq!(post(peer, &mine.path("websocket"), &[&fresh]).await.0, 403);
    let two_hops = theirs.path("polling");
    assert_eq!(post(peer, &two_hops, &[&signature(&two_hops)]).await.0, 403);
    // The public port takes none, good as it may be.
    let (status, body) = post(own, &path, &[&signature(&path)]).await;
    assert_eq!((status, body.contains("\"code\":4,")), (403, true), "{body}");
    // The peer port has nothing else.
    for path in ["/", "/ws", "/healthz", "/socket.io/?EIO=4&transport=polling"] {
        assert!(matches!(request(peer, "GET", path, &[], "").await.0, 403 | 404), "{path}");
    }
    assert_eq!(metric(&cluster.edges[0], "plaza_relay_refusals_total{reason=\"repeated\"}").await, 1.0);
}
