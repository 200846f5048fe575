//! `plaza-edge`: sockets, rooms and their delivery.

use anyhow::Context;
use plaza_edge::check;
use plaza_edge::config::{Config, FLAGS, PROCESS_FLAGS, Process};
use plaza_edge::feed::FeedSource;
use plaza_edge::run::{Parts, run};
use plaza_edge::upstream::publish::stream::Route;
use plaza_kit::admin::Readiness;
use plaza_kit::discovery::tls::UPSTREAM_TLS_FLAGS;
use plaza_kit::metrics::Metrics;
use plaza_kit::program::Program;
use plaza_kit::shutdown::Shutdown;
use plaza_kit::telemetry::LOG_FLAGS;
use plaza_kit::{net, trace};
use std::process::ExitCode;
use std::sync::Arc;

const ABOUT: &str = "Terminates the sockets of Plaza: WebSocket, Engine.IO, Socket.IO, rooms and their delivery. \
                     `plaza-edge check` tries out a running Plaza as a client; its --help tells more";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a publish holds is allocated by one thread and freed by another, which costs the system's allocator a lock.
/// Without huge pages, of which it would take 17 MiB to begin with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "check") {
        return check::main(VERSION);
    }
    let flags = &[PROCESS_FLAGS, UPSTREAM_TLS_FLAGS, FLAGS, LOG_FLAGS];
    Program { name: "plaza-edge", about: ABOUT, version: VERSION, flags }
        .run(|settings| (Process::from_settings(settings), Config::from_settings(settings)), serve)
}

fn serve((process, config): (Process, Config)) -> anyhow::Result<()> {
    let mut listeners = Vec::new();
    for addr in &process.listen {
        listeners.extend(net::bind_shared(*addr, "listen", config.threads)?);
    }
    let peer_listener = Some(net::bind(process.peer_listen, "peer-listen")?);
    let admin_listener = Some(net::bind(process.admin_listen, "admin-listen")?);
    let metrics = Arc::new(Metrics::new("edge", VERSION));
    let (readiness, feed) = (Readiness::new(), FeedSource::Nats(process.nats));
    let parts = Parts { listeners, peer_listener, admin_listener, metrics, readiness, feed, publish: Route::Endpoints };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let shutdown = Shutdown::on_signals().context("cannot listen for signals")?;
        trace::start("plaza-edge", VERSION, &parts.metrics);
        let ended = run(config, parts, shutdown).await;
        trace::end().await;
        Ok(ended?)
    })
}
