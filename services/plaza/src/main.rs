//! `plaza`: all of Plaza in one process, for development and for a first look. The three services are
//! the same as in a cluster and speak gRPC to each other on loopback; only what they store stays in
//! memory, unless Redis or NATS is named.

mod banner;
mod serve;
mod settings;

use std::process::ExitCode;

fn main() -> ExitCode {
    let settings = match settings::read() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    match run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "stopped");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: settings::All) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve::serve(settings));
    // What still runs has had its time.
    runtime.shutdown_timeout(std::time::Duration::from_millis(100));
    result
}
