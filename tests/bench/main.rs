//! Plaza beside its peers on one machine: the server on one core, the load on the other, the peers in
//! turn within each run, and ratios to Bun in the same run. `tests/bench/run --help` says how.
//!
//! | module | job |
//! |---|---|
//! | [`load`] | the load process: [`client`]s that [`speak`] a protocol, [`stamp`]s, a [`histogram`] |
//! | [`server`] | starts Bun, npm socket.io and `plaza` |
//! | [`measure`] | one server, one load, the kernel's counters |
//! | [`sink`] | takes the spans of servers that are traced |
//! | [`scenario`] | what is measured, and the table |

#![expect(clippy::print_stdout, reason = "the table is the program's output")]

mod client;
mod histogram;
mod load;
mod measure;
mod scenario;
mod server;
mod sink;
mod speak;
mod stamp;

use crate::scenario::Scenario;
use crate::server::Peer;

const HELP: &str = "\
Measures Plaza beside Bun's publish and the npm socket.io server. Absolute numbers hold on this
machine only; the ratios compare runs that alternate.

tests/bench/run [--runs N] [--seconds N] [--only NAME,...] [--peers NAME,...]
  --runs N      how often all peers are measured in turn (default 3)
  --seconds N   length of each measurement under load (default 5)
  --only NAMES  idle, room, loop1000, loop32, rooms, trace (default: all)
                `trace` measures Plaza alone: untraced, and with 0 %, 1 % and 100 % of its messages traced
  --peers NAMES bun, plaza, json, socketio (default: all)
  --connections N   clients of the last stage of `idle` (default 19000)
PLAZA_BENCH_BINARY names another plaza than the release build.";

#[derive(Debug)]
struct Options {
    runs: usize,
    seconds: u64,
    connections: usize,
    only: Option<Vec<String>>,
    peers: Vec<Peer>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [first, plan] = &args[..]
        && first == "load"
    {
        return load::run(serde_json::from_str(plan)?);
    }
    if args == ["sink"] {
        return sink::run();
    }
    if args.iter().any(|arg| arg == "--help") {
        println!("{HELP}");
        return Ok(());
    }
    let options = parse(&args)?;
    println!("{}", scenario::machine()?);
    for scenario in Scenario::all(options.seconds, options.connections) {
        if options.only.as_ref().is_none_or(|only| only.iter().any(|name| name == scenario.name)) {
            println!("{}", scenario.run(&options.peers, options.runs).await);
        }
    }
    Ok(())
}

fn parse(args: &[String]) -> anyhow::Result<Options> {
    let mut options = Options { runs: 3, seconds: 5, connections: 19_000, only: None, peers: Peer::ALL.to_vec() };
    for pair in args.chunks(2) {
        let [flag, value] = pair else { anyhow::bail!("{} needs a value\n\n{HELP}", pair[0]) };
        let list = || value.split(',').map(str::to_owned).collect::<Vec<_>>();
        match flag.as_str() {
            "--runs" => options.runs = value.parse()?,
            "--seconds" => options.seconds = value.parse()?,
            "--connections" => options.connections = value.parse()?,
            "--only" => options.only = Some(list()),
            "--peers" => options.peers = list().iter().map(|name| peer(name)).collect::<anyhow::Result<_>>()?,
            _ => anyhow::bail!("unknown argument {flag}\n\n{HELP}"),
        }
    }
    Ok(options)
}

fn peer(name: &str) -> anyhow::Result<Peer> {
    Ok(match name {
        "bun" => Peer::Bun,
        "plaza" => Peer::Plaza,
        "json" => Peer::PlazaJson,
        "socketio" => Peer::SocketIo,
        _ => anyhow::bail!("unknown peer {name}\n\n{HELP}"),
    })
}
