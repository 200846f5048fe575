//! `plaza-fanout`: the room log as a process of its own.

use plaza_fanout::config::{LISTEN_FLAGS, Listen};
use plaza_fanout::{Config, FLAGS, Parts, run};
use plaza_kit::admin::Readiness;
use plaza_kit::grpc::{GRPC_FLAGS, GrpcOptions};
use plaza_kit::metrics::Metrics;
use plaza_kit::program::Program;
use plaza_kit::settings::Settings;
use plaza_kit::shutdown::Shutdown;
use plaza_kit::telemetry::LOG_FLAGS;
use plaza_kit::trace;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

const ABOUT: &str = "Plaza's room log: stores and orders events in NATS JetStream, serves them over gRPC";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// A publish takes at most 10 s; what is under way may end.
const DRAIN: Duration = Duration::from_secs(12);

fn main() -> ExitCode {
    let flags = &[LISTEN_FLAGS, FLAGS, GRPC_FLAGS, LOG_FLAGS];
    Program { name: "plaza-fanout", about: ABOUT, version: VERSION, flags }.run(read, serve)
}

fn read(settings: &mut Settings) -> (Listen, Config, GrpcOptions) {
    let listen = Listen::from_settings(settings);
    let config = Config::from_settings(settings);
    if config.nats_url.is_none() {
        settings.problem("nats-url", "is needed, such as nats://127.0.0.1:4222".to_owned());
    }
    (listen, config, GrpcOptions::from_settings(settings))
}

#[tokio::main]
async fn serve((listen, config, grpc): (Listen, Config, GrpcOptions)) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals()?;
    let metrics = Arc::new(Metrics::new("fanout", VERSION));
    trace::start("plaza-fanout", VERSION, &metrics);
    let parts = Parts {
        listener: plaza_kit::net::bind(listen.grpc, "listen")?,
        admin_listener: Some(plaza_kit::net::bind(listen.admin, "admin-listen")?),
        metrics: metrics.clone(),
        readiness: Readiness::new(),
        grpc,
        memory: None,
        local: None,
    };
    let result = run(config, parts, shutdown.clone()).await;
    shutdown.begin();
    shutdown.wait(DRAIN).await;
    trace::end().await;
    Ok(result?)
}
