//! `plaza-session`: sessions, usernames and presence as a process of their own.

use plaza_kit::admin::Readiness;
use plaza_kit::discovery::tls::UPSTREAM_TLS_FLAGS;
use plaza_kit::grpc::{GRPC_FLAGS, GrpcOptions};
use plaza_kit::metrics::Metrics;
use plaza_kit::program::Program;
use plaza_kit::shutdown::Shutdown;
use plaza_kit::telemetry::LOG_FLAGS;
use plaza_kit::trace;
use plaza_session::config::{LISTEN_FLAGS, Listen, SHARED_FLAGS};
use plaza_session::{Config, FLAGS, Parts, run};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

const ABOUT: &str = "Plaza's sessions, usernames and presence: kept in Redis, served over gRPC";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Every call is bounded by a second; what is under way may end.
const DRAIN: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let flags = &[LISTEN_FLAGS, FLAGS, SHARED_FLAGS, UPSTREAM_TLS_FLAGS, GRPC_FLAGS, LOG_FLAGS];
    Program { name: "plaza-session", about: ABOUT, version: VERSION, flags }.run(
        |settings| {
            let listen = Listen::from_settings(settings);
            (listen, Config::from_settings(settings), GrpcOptions::from_settings(settings))
        },
        serve,
    )
}

#[tokio::main]
async fn serve((listen, config, grpc): (Listen, Config, GrpcOptions)) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals()?;
    let metrics = Arc::new(Metrics::new("session", VERSION));
    trace::start("plaza-session", VERSION, &metrics);
    let parts = Parts {
        listener: plaza_kit::net::bind(listen.grpc, "listen")?,
        admin_listener: Some(plaza_kit::net::bind(listen.admin, "admin-listen")?),
        metrics: metrics.clone(),
        readiness: Readiness::new(),
        grpc,
    };
    if config.redis_url.is_none() {
        tracing::warn!("no --redis-url: sessions are kept in this process alone, and end with it");
    }
    if config.fanout.is_none() {
        tracing::warn!("no --fanout-addr: joined, left and renamed are not published");
    }
    let result = run(config, parts, shutdown.clone()).await;
    shutdown.begin();
    shutdown.wait(DRAIN).await;
    trace::end().await;
    Ok(result?)
}
