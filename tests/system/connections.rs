//! What connections carry and how they end, as the metrics of a real edge tell it.

use crate::relay::metric;
use crate::trace::{Client, poll};
use plaza_tests::cluster::{Cluster, http_post};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn a_close_is_counted_by_its_code_and_by_its_cause() {
    let cluster = Cluster::start(1).await;
    let edge = &cluster.edges[0];
    let code = |code: &str| format!("plaza_close_codes_total{{code=\"{code}\"}}");
    let all = ["none", "polling", "1000", "1001", "1008", "1012", "1013", "4401", "3xxx", "4xxx"];
    for label in all {
        assert_eq!(metric(edge, &code(label)).await, 0.0, "{label} is there before anything has ended");
    }
    let mut alice = Client::enter(edge.addr, json!({}), "alice", "closing").await;
    alice.close(1000).await;
    let mut bob = Client::enter(edge.addr, json!({}), "bob", "closing").await;
    bob.close(4321).await;
    drop(Client::enter(edge.addr, json!({}), "carol", "closing").await);
    // Over long-polling: the packet of Engine.IO that says goodbye.
    let path = "/socket.io/?EIO=4&transport=polling";
    let open = poll(edge.addr, path, "\"sid\"").await;
    let open: Value = serde_json::from_str(open.trim_start_matches('0')).expect("the open packet is JSON");
    let path = format!("{path}&sid={}", open["sid"].as_str().expect("a sid"));
    http_post(edge.addr, &path, "1").await.expect("an answer");

    let begin = Instant::now();
    for label in ["1000", "4xxx", "none", "polling"] {
        while metric(edge, &code(label)).await < 1.0 {
            assert!(begin.elapsed() < Duration::from_secs(10), "no close counts as {label}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    for label in all {
        let expected = if ["1000", "4xxx", "none", "polling"].contains(&label) { 1.0 } else { 0.0 };
        assert_eq!(metric(edge, &code(label)).await, expected, "{label}");
    }
    assert_eq!(metric(edge, "plaza_closes_total{cause=\"client\"}").await, 3.0);
    assert_eq!(metric(edge, "plaza_closes_total{cause=\"transport\"}").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_long_polling_are_counted() {
    let cluster = Cluster::start(1).await;
    let edge = &cluster.edges[0];
    let counts =
        async || [metric(edge, "plaza_sent_bytes_total").await, metric(edge, "plaza_received_bytes_total").await];
    let before = counts().await;
    let path = "/socket.io/?EIO=4&transport=polling";
    let open = poll(edge.addr, path, "\"sid\"").await;
    let session: Value = serde_json::from_str(open.trim_start_matches('0')).expect("the open packet is JSON");
    let path = format!("{path}&sid={}", session["sid"].as_str().expect("a sid"));
    http_post(edge.addr, &path, "40").await.expect("an answer");
    let connected = poll(edge.addr, &path, "40{").await;
    let after = counts().await;
    assert!(after[0] - before[0] >= (open.len() + connected.len()) as f64, "{before:?} {after:?}");
    assert_eq!(after[1] - before[1], 2.0);
}
