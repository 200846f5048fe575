//! Connection state recovery with the stock Socket.IO client, and resume of Plaza's own protocol, on two
//! edges with real Redis and NATS.

use crate::clients::{run, urls};
use futures_util::{SinkExt, StreamExt};
use plaza_tests::cluster::Cluster;
use plaza_tests::process::installed;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

#[tokio::test(flavor = "multi_thread")]
async fn stock_clients_recover_on_another_edge_and_after_a_kill() {
    let cluster = Cluster::start_with(2, &["--message-rate", "0"]).await;
    let mut args = urls(&cluster);
    args.push(cluster.edges[0].process.id().to_string());
    run(&installed("node"), "recovery.mjs", &args).await;
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What a stock client keeps between its connections.
struct Client {
    sid: String,
    pid: String,
    offset: String,
    /// Numbers of the messages it has seen.
    seen: Vec<usize>,
}

async fn packet(ws: &mut Socket) -> String {
    let next = async {
        loop {
            let message = ws.next().await.expect("the socket lives").expect("a frame");
            match message.into_text().expect("text").as_str() {
                "2" => ws.send(Message::text("3")).await.expect("sent"),
                text => return text.to_owned(),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), next).await.expect("the server says something")
}

/// Opens a transport and connects to the namespace; the answer's sid and pid.
async fn connect(edge: SocketAddr, auth: &Value) -> (Socket, String, String) {
    let url = format!("ws://{edge}/socket.io/?EIO=4&transport=websocket");
    let (mut ws, _) = connect_async(url).await.expect("the edge takes sockets");
    assert!(packet(&mut ws).await.starts_with('0'));
    ws.send(Message::text(format!("40{auth}"))).await.expect("sent");
    let answer = packet(&mut ws).await;
    let answer: Value = serde_json::from_str(answer.strip_prefix("40").expect("CONNECT comes first")).expect("JSON");
    let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
    (ws, text("sid"), text("pid"))
}

impl Client {
    async fn again(&self, edge: SocketAddr) -> Socket {
        let auth = json!({ "format": "event", "room": "r", "pid": self.pid, "offset": self.offset });
        let (ws, sid, pid) = connect(edge, &auth).await;
        assert_eq!((&sid, &pid), (&self.sid, &self.pid), "the session continues");
        ws
    }

    /// Takes packets until one of them is a numbered message.
    async fn take(&mut self, ws: &mut Socket) {
        loop {
            if self.hear(&packet(ws).await) {
                return;
            }
        }
    }

    fn hear(&mut self, packet: &str) -> bool {
        let Some(args) = packet.strip_prefix("42") else { return false };
        let args: Vec<Value> = serde_json::from_str(args).expect("JSON");
        let Some(offset) = args.last().and_then(Value::as_str) else { return false };
        offset.clone_into(&mut self.offset);
        let number: Option<usize> = args[1]["text"].as_str().and_then(|text| text.strip_prefix("m")?.parse().ok());
        self.seen.extend(number);
        number.is_some()
    }
}

async fn say(ws: &mut Socket, numbers: std::ops::RangeInclusive<usize>) {
    for n in numbers {
        ws.send(Message::text(format!("42{n}[\"message\",\"m{n}\"]"))).await.expect("sent");
        while !packet(ws).await.starts_with(&format!("43{n}[")) {}
    }
}

/// A writer, and a client that has seen its first message and then lost its connection.
async fn writer_and_lost_client(edge: SocketAddr) -> (Socket, Client) {
    let (mut writer, ..) = connect(edge, &json!({ "room": "r", "format": "event" })).await;
    writer.send(Message::text("42[\"set_username\",\"ada\"]")).await.expect("sent");
    let (mut ws, sid, pid) = connect(edge, &json!({ "room": "r", "format": "event" })).await;
    let mut client = Client { sid, pid, offset: String::new(), seen: Vec::new() };
    say(&mut writer, 1..=1).await;
    client.take(&mut ws).await;
    (writer, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn r09_a_replay_that_is_cut_again_and_again_is_complete_and_repeats_nothing() {
    const MESSAGES: usize = 200;
    let cluster = Cluster::start_with(2, &["--message-rate", "0"]).await;
    let edge = |n: usize| cluster.edges[n % 2].addr;
    let (mut writer, mut client) = writer_and_lost_client(edge(0)).await;

    say(&mut writer, 2..=MESSAGES).await;
    let (mut attempt, mut open) = (0, Vec::new());
    while client.seen.len() < MESSAGES {
        // At either edge, some of them while the connection before seems to live, some with nothing taken.
        let mut ws = client.again(edge(attempt)).await;
        for _ in 0..[7, 0, 31, 1][attempt % 4].min(MESSAGES - client.seen.len()) {
            client.take(&mut ws).await;
        }
        if attempt % 3 > 0 {
            open.push(ws);
        }
        attempt += 1;
        if attempt % 8 == 0 {
            // Live events follow the replay.
            say(&mut writer, MESSAGES + attempt..=MESSAGES + attempt).await;
        }
    }
    let missed = client.seen.split_off(MESSAGES);
    assert_eq!(client.seen, (1..=MESSAGES).collect::<Vec<_>>());
    assert!(missed.is_sorted(), "{missed:?}");
    assert!(attempt > 12, "cut {attempt} times");
}

async fn emit(ws: &mut Socket, id: usize, args: Value) {
    ws.send(Message::text(format!("42{id}{args}"))).await.expect("sent");
    while !packet(ws).await.starts_with(&format!("43{id}[{{\"ok\":true")) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn r05_an_offset_of_a_room_that_was_left_continues_the_session() {
    let cluster = Cluster::start_with(2, &["--message-rate", "0"]).await;
    let edge = |n: usize| cluster.edges[n].addr;
    let (mut writer, ..) = connect(edge(0), &json!({ "room": "r", "format": "event" })).await;
    writer.send(Message::text("42[\"set_username\",\"ada\"]")).await.expect("sent");
    emit(&mut writer, 901, json!(["join", "s"])).await;
    let (mut ws, sid, pid) = connect(edge(0), &json!({ "room": "r", "format": "event" })).await;
    let mut client = Client { sid, pid, offset: String::new(), seen: Vec::new() };
    emit(&mut ws, 1, json!(["join", "s"])).await;
    emit(&mut writer, 902, json!(["message", { "room": "s", "text": "m1" }])).await;
    client.take(&mut ws).await;
    emit(&mut ws, 2, json!(["leave", "s"])).await;
    drop(ws);
    say(&mut writer, 2..=4).await;
    let mut ws = client.again(edge(1)).await;
    while client.seen.len() < 4 {
        client.take(&mut ws).await;
    }
    // The room is left for good.
    emit(&mut writer, 903, json!(["message", { "room": "s", "text": "m99" }])).await;
    say(&mut writer, 5..=5).await;
    client.take(&mut ws).await;
    assert_eq!(client.seen, [1, 2, 3, 4, 5]);
}

/// One request of a polling client, whose answer is read or not.
async fn poll(edge: SocketAddr, sid: &str, body: Option<&str>, read: bool) -> String {
    let mut stream = TcpStream::connect(edge).await.expect("the edge takes sockets");
    let (verb, body) = body.map_or(("GET", ""), |body| ("POST", body));
    let sid = if sid.is_empty() { String::new() } else { format!("&sid={sid}") };
    let request = format!(
        "{verb} /socket.io/?EIO=4&transport=polling{sid} HTTP/1.1\r\nHost: {edge}\r\nConnection: close\r\n\
         Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    if read {
        stream.read_to_string(&mut answer).await.expect("an answer");
    } else {
        // A part of it has come when the client goes.
        stream.read_exact(&mut [0; 20]).await.expect("the answer begins");
    }
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_a_polled_replay_whose_answer_was_lost_comes_again_once() {
    let cluster = Cluster::start_with(2, &["--message-rate", "0"]).await;
    let edge = |n: usize| cluster.edges[n].addr;
    let (mut writer, mut client) = writer_and_lost_client(edge(0)).await;
    say(&mut writer, 2..=50).await;

    let begin = async |n: usize| {
        let open = poll(edge(n), "", None, true).await;
        let engine: Value = serde_json::from_str(open.trim_start_matches('0')).expect("an open packet");
        let engine = engine["sid"].as_str().expect("a sid").to_owned();
        let auth = json!({ "format": "event", "room": "r", "pid": client.pid, "offset": client.offset });
        poll(edge(n), &engine, Some(&format!("40{auth}")), true).await;
        engine
    };
    for n in [1, 0, 1] {
        let engine = begin(n).await;
        poll(edge(n), &engine, None, false).await;
    }
    let engine = begin(0).await;
    let body = poll(edge(0), &engine, None, true).await;
    let packets: Vec<&str> = body.split('\u{1e}').collect();
    for packet in &packets {
        client.hear(packet);
    }
    assert_eq!(client.seen, (1..=50).collect::<Vec<_>>());
    let connect = packets.last().expect("packets");
    assert!(connect.starts_with("40") && connect.contains(&client.sid), "CONNECT is the last: {connect}");
}
