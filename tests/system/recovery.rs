//! Connection state recovery with the stock Socket.IO client, and resume of Plaza's own protocol, on two
//! edges with real Redis and NATS.

use crate::clients::{run, urls};
use plaza_tests::cluster::Cluster;
use plaza_tests::process::installed;

#[tokio::test(flavor = "multi_thread")]
async fn stock_clients_recover_on_another_edge_and_after_a_kill() {
    let cluster = Cluster::start_with(2, &["--message-rate", "0"]).await;
    let mut args = urls(&cluster);
    args.push(cluster.edges[0].process.id().to_string());
    run(&installed("node"), "recovery.mjs", &args).await;
}
