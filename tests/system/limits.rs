//! Connections of one address behind a trusted proxy, and of all together: SEC11 and row 22 of the fault model.

use crate::relay::{Polling, metric, next, request, send};
use futures_util::SinkExt;
use plaza_tests::cluster::{Cluster, http_get};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::{Error, Message};

const OPEN: &str = "/socket.io/?EIO=4&transport=polling";

async fn open(edge: SocketAddr, forwarded: &str) -> (u16, String) {
    request(edge, "GET", OPEN, &[("X-Forwarded-For", forwarded)], "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn sec11_an_address_has_its_connections_and_no_more() {
    let args = ["--connections-per-address", "2", "--trusted-proxies", "127.0.0.0/8"];
    let cluster = Cluster::start_with(1, &args).await;
    let edge = cluster.edges[0].addr;
    let (status, body) = open(edge, "198.51.100.1").await;
    assert_eq!(status, 200, "{body}");
    let polling = Polling::of(&body);
    // What the client forges stands further left.
    assert_eq!(open(edge, "203.0.113.9, 198.51.100.1").await.0, 200);

    let mut refused = String::new();
    let headers = [("X-Forwarded-For", "203.0.113.10, 198.51.100.1")];
    send(edge, "GET", OPEN, &headers, "").await.read_to_string(&mut refused).await.unwrap();
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after: "), "{refused}");
    let upgrade = [
        ("X-Forwarded-For", "198.51.100.1"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ];
    for path in ["/ws", "/socket.io/?EIO=4&transport=websocket"] {
        assert_eq!(request(edge, "GET", path, &upgrade, "").await.0, 503, "{path}");
    }
    assert_eq!(open(edge, "198.51.100.2").await.0, 200, "another address has its own");
    let limit = "plaza_handshakes_total{protocol=\"socketio\",transport=\"polling\",result=\"limit\"}";
    assert_eq!(metric(&cluster.edges[0], limit).await, 1.0);
    let log = cluster.edges[0].process.log();
    assert_eq!(log.lines().filter(|line| line.contains("too many connections from one address")).count(), 1, "{log}");

    // A session that changes its transport keeps its one place, and gives it back at its end.
    let mut ws = polling.probe(edge).await.expect("the session has its place already");
    for packet in ["2probe", "5"] {
        ws.send(Message::text(packet)).await.unwrap();
    }
    assert_eq!(next(&mut ws).await.as_deref(), Some("3probe"));
    assert_eq!(open(edge, "198.51.100.1").await.0, 503);
    drop(ws);
    let begin = Instant::now();
    while open(edge, "198.51.100.1").await.0 != 200 {
        assert!(begin.elapsed() < Duration::from_secs(20), "the place does not come back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sec11_a_client_that_is_no_trusted_proxy_is_counted_itself() {
    let cluster = Cluster::start_with(1, &["--connections-per-address", "2"]).await;
    let edge = cluster.edges[0].addr;
    assert_eq!(open(edge, "198.51.100.1").await.0, 200);
    assert_eq!(open(edge, "198.51.100.2").await.0, 200);
    assert_eq!(open(edge, "198.51.100.3").await.0, 503);
}

/// faults.md row 22.
#[tokio::test(flavor = "multi_thread")]
async fn an_edge_with_few_descriptors_turns_clients_away_lives_and_takes_others_at_once() {
    let mut cluster = Cluster::start(0).await;
    cluster.add_edge_under(&["prlimit", "--nofile=256"], &[]).await;
    let (edge, admin) = (cluster.edges[0].addr, cluster.edges[0].admin);
    let url = format!("ws://{edge}/ws");
    let mut sockets = Vec::new();
    let refused = loop {
        match connect_async(&url).await {
            Ok((socket, _)) => sockets.push(socket),
            Err(Error::Http(refused)) => break refused,
            Err(error) => panic!("after {}: {error}", sockets.len()),
        }
        assert!(sockets.len() < 256, "more sockets than descriptors");
    };
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"), "{refused:?}");
    assert!(sockets.len() > 100, "only {} clients had a place", sockets.len());
    // Those who do not even ask take what is left, and no more.
    let mut silent = Vec::new();
    while silent.len() < 128 {
        silent.push(TcpStream::connect(edge).await.unwrap());
    }
    let live = http_get(admin, "/livez").await;
    assert!(live.is_some_and(|answer| answer.starts_with("HTTP/1.1 200")), "it does not say that it lives");
    let open = metric(&cluster.edges[0], "process_open_fds").await;
    assert!(open < 240.0, "{open} of 256 descriptors are in use");

    drop((silent, sockets.split_off(sockets.len() / 2)));
    let begin = Instant::now();
    while connect_async(&url).await.is_err() {
        assert!(begin.elapsed() < Duration::from_secs(1), "half of them have left, and nobody gets in");
    }
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}
