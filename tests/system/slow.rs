//! Clients that stop to read while their room goes on quietly: row 13 of the fault model, where neither the bound
//! of bytes nor that of messages is reached, only that of time.

use crate::relay::metric;
use crate::sockets::{stored_event, upgrade};
use futures_util::{SinkExt, StreamExt};
use plaza_tests::cluster::{Cluster, Service};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// Who does not read is sent away within this (faults.md row 13).
const CUT: Duration = Duration::from_secs(15);
/// Between two messages, each of which makes a frame of about 1 KiB.
const PAUSE: Duration = Duration::from_millis(125);
/// Bytes that the client's kernel keeps.
const KEPT: u32 = 8 * 1024;

/// A client of one of the protocols, and the numbers of the messages that it has seen.
struct Client {
    ws: WebSocketStream<TcpStream>,
    is_plaza: bool,
    /// Plaza's ticket, or the pid.
    session: String,
    position: String,
    seen: Vec<usize>,
}

impl Client {
    /// Connects, or comes back where `before` stood, and is in the room.
    async fn start(edge: SocketAddr, is_plaza: bool, before: Option<&Self>) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(KEPT).unwrap();
        let stream = socket.connect(edge).await.unwrap();
        let (ws, _) =
            tokio_tungstenite::client_async(upgrade(edge, is_plaza), stream).await.expect("the edge takes sockets");
        let (session, position) = before.map(|b| (b.session.clone(), b.position.clone())).unwrap_or_default();
        let mut client = Self { ws, is_plaza, session, position, seen: Vec::new() };
        if is_plaza {
            client.say(&json!({ "hello": { "resume": client.session } }).to_string()).await;
            let welcome = client.hear("welcome").await;
            client.session = welcome["ticket"].as_str().expect("a ticket").to_owned();
            let mut join = json!({ "room": "r" });
            if before.is_some() {
                join["after"] = client.position.as_str().into();
            }
            client.say(&json!({ "id": 1, "join": join }).to_string()).await;
            let joined = client.hear("joined").await;
            assert_eq!(joined["recovered"] == true, before.is_some(), "{joined}");
        } else {
            let mut auth = json!({ "room": "r", "format": "event" });
            if before.is_some() {
                (auth["pid"], auth["offset"]) = (client.session.as_str().into(), client.position.as_str().into());
            }
            client.say(&format!("40{auth}")).await;
            let pid = client.hear("40").await["pid"].as_str().expect("a pid").to_owned();
            assert_eq!(pid == client.session, before.is_some(), "{pid}");
            client.session = pid;
        }
        client
    }

    async fn say(&mut self, text: &str) {
        self.ws.send(Message::text(text)).await.expect("sent");
    }

    /// The next message; `None`: the connection has ended.
    async fn next(&mut self) -> Option<String> {
        let next = tokio::time::timeout(Duration::from_secs(20), self.ws.next()).await;
        next.expect("something comes, or the end")?.ok()?.into_text().ok().map(|text| text.to_string())
    }

    /// Takes messages until one of this kind; what it says. Messages of the room are noted on the way.
    async fn hear(&mut self, kind: &str) -> Value {
        loop {
            let text = self.next().await.expect("the connection lives");
            self.note(&text);
            if let Some(rest) = text.strip_prefix(kind).filter(|_| !self.is_plaza) {
                return serde_json::from_str(rest).unwrap_or_default();
            }
            if let Ok(mut frame) = serde_json::from_str::<Value>(&text)
                && !frame[kind].is_null()
            {
                return frame[kind].take();
            }
        }
    }

    fn note(&mut self, text: &str) {
        let Some((position, event)) = stored_event(text, self.is_plaza) else { return };
        self.position = position;
        let number: Option<usize> = event["text"].as_str().and_then(|text| text.split(' ').next()?.parse().ok());
        self.seen.extend(number);
    }

    async fn until(&mut self, count: usize) {
        while self.seen.len() < count {
            let text = self.next().await.expect("the connection lives");
            self.note(&text);
        }
    }
}

async fn closes(edge: &Service, cause: &str) -> f64 {
    metric(edge, &format!("plaza_closes_total{{cause=\"{cause}\"}}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_sent_away_in_time_and_continues_where_it_stood() {
    let cluster = Cluster::start_with(1, &["--message-rate", "0"]).await;
    let edge = &cluster.edges[0];
    let mut writer = Client::start(edge.addr, false, None).await;
    writer.say("42[\"set_username\",\"ada\"]").await;
    let mut deaf = [Client::start(edge.addr, true, None).await, Client::start(edge.addr, false, None).await];
    let filler = "x".repeat(900);
    let mut sent = 0;
    let mut slowest = Duration::ZERO;
    // The writer is the neighbour, too: it has what it sent before it goes on.
    let mut say = async |writer: &mut Client| {
        let begin = Instant::now();
        writer.say(&format!("42{sent}[\"message\",\"{sent} {filler}\"]")).await;
        sent += 1;
        writer.until(sent).await;
        slowest = slowest.max(begin.elapsed());
        sent
    };
    say(&mut writer).await;
    for client in &mut deaf {
        client.until(1).await;
    }

    let begin = Instant::now();
    let mut lag = 0_f64;
    while closes(edge, "slow").await < 2.0 {
        lag = lag.max(metric(edge, "plaza_room_log_lag_seconds").await);
        assert!(begin.elapsed() < CUT, "{} of 2 are sent away", closes(edge, "slow").await);
        assert!(say(&mut writer).await < 200, "the bound of bytes would have cut them");
        tokio::time::sleep(PAUSE).await;
    }
    assert_eq!(closes(edge, "transport").await, 0.0);
    // The metric has shown it meanwhile, and shows that it is over.
    assert!(lag > 2.0, "the lag was at most {lag} s");
    let over = Instant::now();
    while metric(edge, "plaza_room_log_lag_seconds").await + metric(edge, "plaza_room_log_lag_events").await > 0.0 {
        assert!(over.elapsed() < CUT, "nobody is behind any more");
        tokio::time::sleep(PAUSE).await;
    }
    assert_eq!(metric(edge, "plaza_close_codes_total{code=\"1013\"}").await, 1.0, "Engine.IO has no close frame");
    let all = say(&mut writer).await;
    assert!(slowest < Duration::from_secs(1), "the neighbour waited {slowest:?}");

    for mut client in deaf {
        // What the kernel had for it, and the end.
        while let Some(text) = client.next().await {
            client.note(&text);
        }
        assert!(client.seen.len() < all, "it has read everything: {}", client.seen.len());
        let mut again = Client::start(edge.addr, client.is_plaza, Some(&client)).await;
        again.until(all - client.seen.len()).await;
        let seen = [client.seen, again.seen].concat();
        assert_eq!(seen, (0..all).collect::<Vec<_>>(), "plaza: {}", again.is_plaza);
    }
    assert_eq!(writer.seen, (0..all).collect::<Vec<_>>());
}
