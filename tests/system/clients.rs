//! Stock clients against two edges with real Redis and NATS: what they print is what is asserted.

use plaza_tests::cluster::Cluster;
use plaza_tests::process::{Process, built, free_port, installed};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `tests/clients`, where the clients live.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// The Python of the virtual environment that `scripts/test` makes, else the system's.
fn python() -> PathBuf {
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/venv/bin/python3");
    if venv.exists() { venv } else { installed("python3") }
}

/// Runs a client program of `tests/clients` to its end, which must be a success.
pub(crate) async fn run(program: &Path, script: &str, args: &[String]) {
    passed(start(program, script, args)).await;
}

/// Starts a client program of `tests/clients`.
pub(crate) fn start(program: &Path, script: &str, args: &[String]) -> Process {
    assert!(
        folder().join("node_modules").exists(),
        "the stock clients are not installed: run `npm ci` in {} (scripts/test does)",
        folder().display()
    );
    let mut all = vec![folder().join(script).display().to_string()];
    all.extend_from_slice(args);
    Process::start(script.rsplit('/').next().unwrap_or(script), program, &all, &[])
}

/// Waits for the end of a client program, which must be a success.
pub(crate) async fn passed(mut process: Process) {
    let status = process.wait_within(Duration::from_secs(240)).await;
    let log = process.log();
    assert!(status.success() && log.contains(" passed, 0 failed"), "it ended with {status}:\n{log}");
}

pub(super) fn urls(cluster: &Cluster) -> Vec<String> {
    cluster.edges.iter().map(plaza_tests::cluster::Service::url).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_javascript_clients_chat_over_two_edges() {
    let cluster = Cluster::start_with(2, &["--open-publish", "--message-rate", "0"]).await;
    run(&installed("node"), "chat.mjs", &urls(&cluster)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_python_client_chats_over_two_edges() {
    let cluster = Cluster::start_with(2, &["--message-rate", "0"]).await;
    run(&python(), "chat.py", &urls(&cluster)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tutorials_page_works_in_two_browsers_on_two_edges() {
    let port = free_port();
    let cluster = Cluster::start_with(2, &["--allowed-origins", &format!("http://127.0.0.1:{port}")]).await;
    let mut args = vec![port.to_string()];
    args.extend(urls(&cluster));
    run(&installed("node"), "tutorial.mjs", &args).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_works_in_two_browsers_on_two_edges() {
    let cluster = Cluster::start_with(2, &["--message-rate", "0"]).await;
    run(&installed("node"), "../browser/page.spec.mjs", &urls(&cluster)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plazas_own_protocol_in_json_works_over_two_edges() {
    let cluster = Cluster::start_with(2, &["--message-rate", "0"]).await;
    run(&installed("node"), "plaza.mjs", &urls(&cluster)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_backend_calls_the_session_service_and_speaks_protobuf() {
    let cluster = Cluster::start(1).await;
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let args = [proto.display().to_string(), cluster.session.addr.to_string(), cluster.edges[0].url()];
    run(&python(), "backend.py", &args).await;
}

#[tokio::test]
async fn c08_the_stock_parsers_read_what_the_edge_writes() {
    let mut writer = Process::start("packets", &built("examples/socketio_packets"), &["5000".into(), "7".into()], &[]);
    assert!(writer.wait().await.success());
    let packets = writer.folder().join("packets.log").display().to_string();
    run(&installed("node"), "parser.mjs", &[packets]).await;
}
