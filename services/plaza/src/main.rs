//! `plaza`: all of Plaza in one process, for development and for a first look. The three services are
//! the same as in a cluster and speak gRPC to each other on loopback; only what they store stays in
//! memory, unless Redis or NATS is named.

mod banner;
mod serve;
mod settings;

use plaza_kit::program::Program;
use std::process::ExitCode;

const ABOUT: &str = "Realtime chat rooms: all of Plaza in one process. It needs nothing else; with --redis-url and \
                     --nats-url it keeps what it stores there.";

/// The edge's: see `plaza-edge`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let program =
        Program { name: "plaza", about: ABOUT, version: env!("CARGO_PKG_VERSION"), flags: &settings::tables() };
    program.run(settings::All::from_settings, run)
}

fn run(settings: settings::All) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve::serve(settings));
    // What still runs has had its time.
    runtime.shutdown_timeout(std::time::Duration::from_millis(100));
    result
}
