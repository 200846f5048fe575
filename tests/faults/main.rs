//! Breaks Plaza on purpose and checks that nobody notices: real services, real stores, clients that
//! record what they see, faults from a seed, and a checker that reads the record.
//! `plaza-faults --help` says how; the table of faults is [`rows`].
//!
//! | module | job |
//! |---|---|
//! | [`world`] | services, stores, and a proxy on each link |
//! | [`swarm`] | clients that [`speak`] both protocols; where they stand is on the [`board`] |
//! | [`pace`] | when clients send, and when they come back |
//! | [`absence`], [`latency`] | how long they are away, and messages on their way |
//! | [`person`], [`attack`] | somebody beside the swarm; raw clients that mean no good |
//! | [`history`] | what they did and saw, one JSON line each |
//! | [`rows`] | the faults of each row |
//! | [`run`] | one row from start to verdict |
//! | [`outside`] | the swarm alone |
//! | [`checker`] | the verdict |

#![expect(clippy::print_stdout, reason = "the report is the program's output")]
#![expect(clippy::print_stderr, reason = "progress goes beside the report")]

mod absence;
mod attack;
mod board;
mod checker;
mod client;
mod history;
mod latency;
mod outside;
mod pace;
mod peer;
mod person;
mod report;
mod rows;
mod run;
mod sabotage;
mod speak;
mod stores;
mod swarm;
mod world;

use crate::report::Tally;
use crate::rows::{ROWS, Row};
use crate::run::{Run, Scale};
use futures_util::FutureExt;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;

const HELP: &str = "\
Breaks Plaza on purpose and checks that no message is lost, doubled or out of order.

plaza-faults [--row N,...] [--seed S] [--seeds N] [--small] [--minutes M] [--out FOLDER]
plaza-faults --check FILE     checks a history that was kept
plaza-faults --at HOST:PORT,...   the swarm alone, against edges that somebody else runs and breaks
plaza-faults --peer           the same swarm against npm socket.io servers: losses must be seen
plaza-faults --proof          every row with three seeds, row 26, broken rules and npm servers; then one table
plaza-faults --sabotage       breaks each of Plaza's own rules once: all of them must be noticed
  --rule NAME   only this one
  --row N,...   rows of the table below (default: all but 26)
  --seed S      what is random follows from it (default 1)
  --seeds N     so many runs of each row, with seeds S, S+1, ... (default 1)
  --small       few clients, few faults, short pauses: as in continuous integration
  --clients N   so many clients (default 126, small 24)
  --stock N     so many of the clients are stock ones (default 6, small 3)
  --faults N    faults in each row (default 12, small 3)
  --minutes M   length of row 26 (default 10)
  --out FOLDER  histories and logs go here (default target/faults)
The exit code is 0 when every run passed.";

#[derive(Debug)]
struct Options {
    rows: Vec<&'static Row>,
    seed: u64,
    seeds: u64,
    scale: Scale,
    out: PathBuf,
    task: Task,
    /// The only rule to break.
    rule: Option<String>,
}

/// What the program is asked to do.
#[derive(Debug)]
enum Task {
    Rows,
    Check(PathBuf),
    Outside(Vec<SocketAddr>),
    Peer,
    Sabotage,
    Proof,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--help") {
        println!("{HELP}\n\nrows:");
        for row in ROWS {
            println!("  {:>3}  {}", row.number, row.about);
        }
        return Ok(());
    }
    let mut options = parse(&args)?;
    let passed = match &options.task {
        Task::Rows => rows(&options).await.map(|(passed, _)| passed),
        Task::Proof => proof(&mut options).await,
        Task::Check(path) => run::check(path, checker::Rules::default()).map(|verdict| {
            println!("{}", report::verdict(&verdict));
            verdict.is_pass()
        }),
        Task::Outside(at) => outside::run(at, options.seed, options.scale, &options.out).await,
        Task::Peer => peer::run(options.seed, &options.out).await.map(|(text, seen)| {
            println!("{text}");
            seen
        }),
        Task::Sabotage => sabotage::run(&options).await.map(|missed| missed == 0),
    };
    std::process::exit(i32::from(!passed.map_err(anyhow::Error::msg)?));
}

/// The fewest acknowledged messages that are a proof.
const PROOF: u64 = 300_000;

/// Everything that is to be shown, and one table of it.
async fn proof(options: &mut Options) -> Result<bool, run::Red> {
    options.seeds = options.seeds.max(3);
    let (mut passed, mut runs) = rows(options).await?;
    (options.rows, options.seeds) = (ROWS.iter().filter(|row| row.number == 26).collect(), 1);
    let (mixed_passed, mixed) = rows(options).await?;
    runs.extend(mixed);
    let missed = sabotage::run(options).await?;
    let (peer, seen) = peer::run(options.seed, &options.out).await?;
    println!("{peer}\n\n{}", report::table(&runs));
    let acknowledged: u64 = runs.iter().map(|(_, _, tally)| tally.acknowledged).sum();
    let enough = options.scale.is_small || acknowledged >= PROOF;
    println!(
        "broken rules that nobody noticed: {missed}; losses of the npm servers: {}",
        if seen { "seen" } else { "not seen" }
    );
    passed &= mixed_passed && missed == 0 && seen && enough;
    println!("{}", if passed { "proven" } else { "NOT proven" });
    Ok(passed)
}

type Runs = Vec<(&'static Row, u64, Tally)>;

/// Runs rows with seeds; whether all passed, and what each came to.
async fn rows(options: &Options) -> Result<(bool, Runs), run::Red> {
    let mut failed = 0;
    let (mut table, mut runs) = (Vec::new(), Vec::new());
    for row in &options.rows {
        for seed in options.seed..options.seed + options.seeds {
            // Also after a panic: the rows that follow have their own world.
            let run = AssertUnwindSafe(one(row, seed, options)).catch_unwind().await;
            let run = run.unwrap_or_else(|panic| Err(told(&*panic)));
            let (line, tally) = run.unwrap_or_else(|red| (report::not_made(row, seed, &red), Tally::NOT_MADE));
            println!("{line}");
            failed += u32::from(tally.word != "pass");
            table.push(line);
            runs.push((*row, seed, tally));
        }
    }
    println!("\n{}", report::summary(&table, failed));
    Ok((failed == 0, runs))
}

/// What a panic says.
fn told(panic: &(dyn std::any::Any + Send)) -> run::Red {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("the harness gave up: {}", text.unwrap_or("a panic"))
}

/// Runs one row with one seed; its line of the report, and what it came to.
async fn one(row: &Row, seed: u64, options: &Options) -> Result<(String, Tally), run::Red> {
    let folder = options.out.join(format!("row{}-seed{seed}", row.number));
    let _ = std::fs::remove_dir_all(&folder);
    let scale = row.scale(options.scale);
    let setup = row.setup(seed, scale.stock > 0, None);
    let mut run = Run::start(row.number, seed, scale, setup, &folder).await?;
    let result = row.faults(&mut run).await;
    let rules = row.rules(&run);
    let (verdict, counted) = run.finish(result, rules).await?;
    let passed = verdict.is_pass();
    if passed {
        // What is kept is for those who look for a fault.
        let _ = std::fs::remove_dir_all(&folder);
    }
    Ok((report::line(row, seed, &verdict, &counted, &folder), Tally::of(&verdict)))
}

fn parse(args: &[String]) -> anyhow::Result<Options> {
    let is_small = args.iter().any(|arg| arg == "--small");
    let scale = if is_small {
        Scale { faults: 3, clients: 24, stock: 3, rooms: 8, rooms_per_client: 3, rate: 80.0, minutes: 0.5, is_small }
    } else {
        // A room keeps 1,000 events, and who is away for a minute must find all of them.
        let (clients, rooms, rate) = (126, 240, 900.0);
        Scale { faults: 12, clients, stock: 6, rooms, rooms_per_client: 6, rate, minutes: 10.0, is_small }
    };
    let rows = ROWS.iter().filter(|row| row.number != 26).collect();
    let mut options =
        Options { rows, seed: 1, seeds: 1, scale, out: "target/faults".into(), task: Task::Rows, rule: None };
    for arg in args {
        match arg.as_str() {
            "--peer" => options.task = Task::Peer,
            "--sabotage" => options.task = Task::Sabotage,
            "--proof" => options.task = Task::Proof,
            _ => {}
        }
    }
    let alone = ["--small", "--peer", "--sabotage", "--proof"];
    let args: Vec<&String> = args.iter().filter(|arg| !alone.contains(&arg.as_str())).collect();
    for pair in args.chunks(2) {
        let [flag, value] = pair else { anyhow::bail!("{} needs a value\n\n{HELP}", pair[0]) };
        match flag.as_str() {
            "--row" => {
                let row = |number: &str| {
                    let row = number.parse().ok().and_then(Row::find);
                    row.ok_or_else(|| anyhow::anyhow!("row {number} is not known; --help lists the rows"))
                };
                options.rows = value.split(',').map(row).collect::<anyhow::Result<_>>()?;
            }
            "--seed" => options.seed = value.parse()?,
            "--seeds" => options.seeds = value.parse()?,
            "--clients" => options.scale.clients = value.parse()?,
            "--stock" => options.scale.stock = value.parse()?,
            "--faults" => options.scale.faults = value.parse()?,
            "--minutes" => options.scale.minutes = value.parse()?,
            "--out" => options.out = value.into(),
            "--at" => {
                let at = value.split(',').map(str::parse).collect::<Result<_, _>>();
                options.task = Task::Outside(at.map_err(|error| anyhow::anyhow!("--at {value}: {error}"))?);
            }
            "--rule" => options.rule = Some(value.to_string()),
            "--check" => options.task = Task::Check(value.into()),
            _ => anyhow::bail!("unknown argument {flag}\n\n{HELP}"),
        }
    }
    Ok(options)
}
