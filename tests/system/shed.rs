//! A fresh edge beside a full one: who moves over, with stock clients and real Redis and NATS.

use crate::clients::{passed, start};
use plaza_tests::cluster::{Cluster, http_get};
use plaza_tests::process::installed;
use plaza_tests::proxy::Proxy;

/// Fills an edge, adds another one, and lets the clients judge what comes of it.
async fn scale_out(args: &[&str], expected: &str) -> Cluster {
    let mut cluster = Cluster::start_with(1, args).await;
    let fresh = Proxy::start(None).await;
    let urls = [cluster.edges[0].url(), format!("http://{}", fresh.addr()), expected.to_owned()];
    let mut clients = start(&installed("node"), "shed.mjs", &urls);
    clients.wait_log("its clients", |log| log.contains("the edge is full").then_some(())).await;
    fresh.target(Some(cluster.add_edge(args).await.addr));
    passed(clients).await;
    cluster
}

async fn shed(cluster: &Cluster, edge: usize) -> u64 {
    let metrics = http_get(cluster.edges[edge].admin, "/metrics").await.expect("an answer");
    let line = metrics.lines().find_map(|line| line.strip_prefix("plaza_closes_total{cause=\"shed\"} "));
    line.and_then(|count| count.parse().ok()).expect("a count")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_excess_of_a_full_edge_moves_to_a_fresh_one_and_nothing_is_lost() {
    let cluster = scale_out(&["--message-rate", "0", "--shed-excess"], "moves").await;
    let closed = shed(&cluster, 0).await;
    assert!((22..=28).contains(&closed), "{closed} were closed");
    assert_eq!(shed(&cluster, 1).await, 0, "the emptier one keeps its clients");
    let log = cluster.edges[0].process.log();
    for said in ["connections above this edge's share are sent away", "no more connections are sent away"] {
        assert_eq!(log.matches(said).count(), 1, "{said}:\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_switch_nobody_moves() {
    let cluster = scale_out(&["--message-rate", "0"], "stays").await;
    assert_eq!(shed(&cluster, 0).await, 0);
}
