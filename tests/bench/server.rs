//! The servers under test, each pinned to the first core.

use crate::speak::Speak;
use plaza_tests::process::{Process, built};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The core of every server, and the core of the load.
pub(crate) const SERVER_CORE: &str = "0";
pub(crate) const LOAD_CORE: &str = "1";

/// A server and how it is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Bun,
    SocketIo,
    Plaza,
    PlazaJson,
    /// Plaza that traces this share of its messages.
    Traced(&'static str),
}

impl Peer {
    pub(crate) const ALL: [Self; 4] = [Self::Bun, Self::Plaza, Self::PlazaJson, Self::SocketIo];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bun => "Bun publish",
            Self::SocketIo => "npm socket.io",
            Self::Plaza => "Plaza, Socket.IO",
            Self::PlazaJson => "Plaza, own JSON",
            Self::Traced("0") => "traced 0 %",
            Self::Traced("0.01") => "traced 1 %",
            Self::Traced(_) => "traced 100 %",
        }
    }

    pub(crate) const fn speak(self) -> Speak {
        match self {
            Self::Bun => Speak::Bun,
            Self::SocketIo | Self::Plaza | Self::Traced(_) => Speak::SocketIo,
            Self::PlazaJson => Speak::PlazaJson,
        }
    }

    /// Starts one and waits for its address. Spans go to `sink`.
    pub(crate) async fn start(self, sink: Option<SocketAddr>) -> (Process, SocketAddr) {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench");
        let script = |name: &str| scripts.join(name).display().to_string();
        let program: Vec<String> = match self {
            Self::Bun => vec![bun(&scripts).display().to_string(), script("bun.js")],
            Self::SocketIo => vec!["node".into(), script("socketio.mjs")],
            Self::Plaza | Self::PlazaJson | Self::Traced(_) => {
                let mut program = vec![built_here().display().to_string()];
                for flag in ["--listen", "--session-listen", "--fanout-listen", "--admin-listen"] {
                    program.extend([flag.to_owned(), "127.0.0.1:0".to_owned()]);
                }
                program.extend(["--threads", "1", "--log-format", "json"].map(str::to_owned));
                program
            }
        };
        let mut args = vec!["-c".to_owned(), SERVER_CORE.to_owned()];
        args.extend(program);
        let mut envs = Vec::new();
        if let (Self::Traced(share), Some(sink)) = (self, sink) {
            envs.push(("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{sink}")));
            envs.push(("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf".to_owned()));
            envs.push(("OTEL_TRACES_SAMPLER", "parentbased_traceidratio".to_owned()));
            envs.push(("OTEL_TRACES_SAMPLER_ARG", share.to_owned()));
        }
        let mut process = Process::start(self.name(), Path::new("taskset"), &args, &envs);
        let addr = match self {
            Self::Plaza | Self::PlazaJson | Self::Traced(_) => process.listening("listen").await,
            Self::Bun | Self::SocketIo => {
                process
                    .wait_log("its address", |log| log.split("listening on ").nth(1)?.lines().next()?.parse().ok())
                    .await
            }
        };
        (process, addr)
    }
}

/// The program of the npm package `bun`: in a package for each system, or moved from there by the
/// package's install script.
fn bun(scripts: &Path) -> PathBuf {
    let modules = scripts.join("node_modules");
    let packages = std::fs::read_dir(modules.join("@oven")).into_iter().flatten().filter_map(Result::ok);
    let mut places = packages.map(|entry| entry.path().join("bin/bun")).chain([modules.join("bun/bin/bun.exe")]);
    places.find(|path| path.exists()).unwrap_or_else(|| PathBuf::from("bun"))
}

/// `plaza` beside this program, or the one that `PLAZA_BENCH_BINARY` names.
fn built_here() -> PathBuf {
    std::env::var_os("PLAZA_BENCH_BINARY").map_or_else(
        || {
            let own = std::env::current_exe().expect("a running program has a path");
            let beside = own.with_file_name("plaza");
            if beside.exists() { beside } else { built("plaza") }
        },
        PathBuf::from,
    )
}
