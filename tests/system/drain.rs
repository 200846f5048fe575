//! The end of an edge, seen from outside: what load balancers, clients and the kubelet are told.

use crate::clients::{passed, start};
use crate::relay::{request, send};
use futures_util::StreamExt;
use plaza_tests::cluster::{Cluster, http_get};
use plaza_tests::process::installed;
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::{Error, Message};

const CLIENTS: usize = 60;
const WINDOW: Duration = Duration::from_secs(3);

/// How a socket ended.
struct End {
    /// The close code; 0: there was no close frame.
    code: u16,
    at: Instant,
    /// What was said before it, in texts.
    said: Vec<String>,
}

/// The end of a socket, which is open when this returns.
async fn end(url: String) -> impl Future<Output = End> {
    let (mut ws, _) = connect_async(url).await.expect("upgraded");
    async move {
        let mut said = Vec::new();
        let code = loop {
            match ws.next().await {
                Some(Ok(Message::Close(Some(frame)))) => break frame.code.into(),
                Some(Ok(Message::Close(None)) | Err(_)) | None => break 0,
                Some(Ok(Message::Text(text))) => said.push(text.to_string()),
                Some(Ok(_)) => {}
            }
        };
        End { code, at: Instant::now(), said }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_edge_turns_new_sockets_away_and_lets_the_old_ones_go_evenly() {
    // It is told to speak to an API that is not there, which must not hold it up.
    let args = ["--drain-window", "3s", "--drain-events", "--pod-deletion-cost"];
    let envs = vec![("POD_NAME", "edge-0".to_owned()), ("KUBECONFIG", "/nowhere".to_owned())];
    let mut cluster = Cluster::start_in(1, &args, envs).await;
    let (edge, admin) = (cluster.edges[0].addr, cluster.edges[0].admin);
    let mut sockets = JoinSet::new();
    for n in 0..CLIENTS {
        let path = if n % 2 == 0 { "/ws" } else { "/socket.io/?EIO=4&transport=websocket" };
        sockets.spawn(end(format!("ws://{edge}{path}")).await);
    }
    let begin = Instant::now();
    cluster.edges[0].process.signal("TERM");
    cluster.edges[0].process.wait_log("the drain", |log| log.contains("closing connections").then_some(())).await;

    let (ready, body) = request(admin, "GET", "/readyz", &[], "").await;
    assert!(ready == 503 && body.contains("draining"), "{ready}: {body}");
    assert_eq!(request(edge, "GET", "/healthz", &[], "").await.0, 503, "load balancers send nobody");
    let mut answer = String::new();
    let polling = send(edge, "GET", "/socket.io/?EIO=4&transport=polling", &[], "");
    polling.await.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    let after = answer.lines().find_map(|line| line.strip_prefix("retry-after: ")).and_then(|text| text.parse().ok());
    assert!(after.is_some_and(|seconds: u8| (1..=15).contains(&seconds)), "{answer}");
    for path in ["/socket.io/?EIO=4&transport=websocket", "/ws"] {
        let Err(Error::Http(refused)) = connect_async(format!("ws://{edge}{path}")).await else { panic!("no 101") };
        assert_eq!(refused.status(), 503, "{path}");
    }

    let mut closes = Vec::new();
    while closes.len() < CLIENTS {
        let live = http_get(admin, "/livez").await;
        while let Some(close) = sockets.try_join_next() {
            closes.push(close.expect("it does not panic"));
        }
        // While a socket is open the edge is alive, and says so.
        let lives = live.is_some_and(|answer| answer.starts_with("HTTP/1.1 200"));
        assert!(lives || closes.len() == CLIENTS, "liveness failed in the drain");
        assert!(begin.elapsed() < Duration::from_secs(60), "{} of {CLIENTS} are closed", closes.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Plaza's own protocol names a time to come back at, and a code. Engine.IO ends without either, and without the
    // goodbye `41`, after which a stock client would stay away.
    let (own, engineio): (Vec<&End>, Vec<&End>) = closes.iter().partition(|end| end.code == 1012);
    assert_eq!((own.len(), engineio.len()), (CLIENTS / 2, CLIENTS / 2));
    for end in own {
        let frame: Value = serde_json::from_str(&end.said.concat()).expect("one frame was said");
        let after = frame["reconnect"]["afterMs"].as_u64();
        assert!(after.is_some_and(|after| (100..3_000).contains(&after)), "{frame}");
    }
    for end in engineio {
        assert_eq!(end.code, 0);
        assert!(end.said.len() == 1 && end.said[0].starts_with("0{"), "nothing but the open packet: {:?}", end.said);
    }
    let (first, last) = (closes.iter().map(|end| end.at).min(), closes.iter().map(|end| end.at).max());
    let spread = last.expect("some").duration_since(first.expect("some"));
    assert!(spread > WINDOW / 3, "{CLIENTS} sockets were closed within {spread:?}");
    assert!(cluster.edges[0].process.wait().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_clients_of_a_stopping_edge_come_back_at_another_one_and_lose_nothing() {
    let mut cluster = Cluster::start_with(2, &["--message-rate", "0", "--drain-window", "3s"]).await;
    let urls = cluster.edges.iter().map(plaza_tests::cluster::Service::url).collect::<Vec<_>>();
    let mut clients = start(&installed("node"), "drain.mjs", &urls);
    clients.wait_log("its clients", |log| log.contains("the edge may stop").then_some(())).await;
    cluster.edges[0].process.signal("TERM");
    passed(clients).await;
    assert!(cluster.edges[0].process.wait().await.success());
}
