//! Pages of other origins, and clients whose CONNECT is refused: rows E15 and S4 of the wire reference on a
//! whole edge.

use crate::relay::{Polling, next, request, send};
use futures_util::SinkExt;
use plaza_tests::cluster::Cluster;
use std::net::SocketAddr;
use tokio::io::AsyncReadExt;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

const OPEN: &str = "/socket.io/?EIO=4&transport=polling";
const APP: &str = "https://app.example";

/// Status and headers of an answer, in small letters.
async fn head(edge: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, Vec<String>) {
    let mut text = String::new();
    send(edge, method, path, headers, "").await.read_to_string(&mut text).await.expect("an answer");
    let head = text.split("\r\n\r\n").next().expect("a head");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.get(9..12)?.parse().ok()).expect("a status");
    (status, lines.map(str::to_lowercase).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn e15_an_allowed_origin_reads_every_answer_and_no_other_does() {
    let cluster = Cluster::start_with(1, &["--allowed-origins", APP]).await;
    let edge = cluster.edges[0].addr;
    let known = Polling::of(&request(edge, "GET", OPEN, &[], "").await.1).path("polling");
    let unknown = "/socket.io/?EIO=4&transport=polling&sid=none";
    let preflight = ("Access-Control-Request-Method", "POST");
    for (method, path, status) in [
        ("GET", OPEN, 200),
        ("GET", unknown, 400),
        ("POST", unknown, 400),
        ("GET", "/socket.io/?EIO=3&transport=polling", 400),
        ("GET", "/socket.io/?EIO=4&transport=none", 400),
        ("OPTIONS", OPEN, 204),
        ("OPTIONS", &known, 204),
    ] {
        let what = format!("{method} {path}");
        let (got, headers) = head(edge, method, path, &[("Origin", APP), preflight]).await;
        assert_eq!(got, status, "{what}");
        let has = |line: &str| headers.iter().any(|header| header == line);
        assert!(has("access-control-allow-origin: https://app.example") && has("vary: origin"), "{what}: {headers:?}");
        for other in ["https://app.example.evil", "http://app.example", "https://app.example:8443", "null"] {
            let (_, headers) = head(edge, method, path, &[("Origin", other), preflight]).await;
            assert!(
                !headers.iter().any(|line| line.starts_with("access-control-allow")),
                "{what} {other}: {headers:?}"
            );
            assert!(headers.iter().any(|line| line == "vary: origin"), "{what} {other}: a cache must tell them apart");
        }
    }
    let log = cluster.edges[0].process.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("origin refused")).collect();
    assert!(lines.first().is_some_and(|line| line.contains("https://app.example.evil")), "{log}");
    assert!(lines.iter().all(|line| line.contains("name it in --allowed-origins")), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s04_a_refused_connect_says_why_and_may_be_tried_again() {
    let cluster = Cluster::start_with(1, &[]).await;
    let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket", cluster.edges[0].addr);
    let (mut ws, _) = connect_async(url).await.expect("upgraded");
    assert!(next(&mut ws).await.is_some_and(|open| open.starts_with('0')));
    for (auth, code) in [(r#"{"room":"a b"}"#, "bad_room"), (r#"{"guest":"bob"}"#, "bad_request")] {
        ws.send(Message::text(format!("40{auth}"))).await.expect("sent");
        let refused = next(&mut ws).await.expect("an answer");
        let refused: serde_json::Value =
            serde_json::from_str(refused.strip_prefix("44").expect("a refusal")).expect("JSON");
        assert_eq!(refused["data"]["code"], code);
        assert!(refused["message"].as_str().is_some_and(|message| !message.is_empty()), "{refused}");
    }
    ws.send(Message::text("40")).await.expect("sent");
    assert!(next(&mut ws).await.is_some_and(|answer| answer.starts_with("40{\"sid\"")), "it may try again");
}
