//! A swarm against a Plaza that somebody else runs, and breaks: `--at`. What happens to it is told on
//! standard input, a line each, and answered on standard output:
//!
//! ```text
//!                           chatting                     everybody is there
//! scatter                   scattered                    everybody has connected anew
//! storm, calm                                            everybody sends as fast as it can; or as planned
//! strike WHAT               struck
//! heal                      caught up after 340 ms, settled after 900 ms; 12 clients were away, ...
//!                           everybody is back and has everything; every message on its way has an outcome
//! end                       the verdict; the exit code is 0 when it is a pass
//! ```
//! Whoever gives up says `red: ...` instead, and ends.

use crate::checker::Rules;
use crate::history::{Event, History};
use crate::report;
use crate::run::{self, LIMIT, Red, Scale};
use crate::swarm::{Plan, Swarm};
use crate::world::stock_clients;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Runs it to its end; whether it is a pass.
///
/// # Errors
/// The history cannot be written or read.
pub(crate) async fn run(at: &[SocketAddr], seed: u64, scale: Scale, out: &Path) -> Result<bool, Red> {
    std::fs::create_dir_all(out).map_err(|e| format!("{}: {e}", out.display()))?;
    let path = out.join("history.jsonl");
    let history = Arc::new(History::create(&path).map_err(|e| format!("{}: {e}", path.display()))?);
    let urls = at.iter().map(|front| format!("http://{front}")).collect::<Vec<_>>().join(",");
    let (_stock, steering) = stock_clients(&[urls]).await;
    let Scale { clients, stock, rooms, rooms_per_client, rate, .. } = scale;
    let plan = Plan { clients, stock, rooms, rooms_per_client, rate, seed, only_socket_io: false, buffer: None };
    let swarm = Swarm::start(plan, at, Some(steering), &history);
    let red = steered(&swarm, &history).await.err();
    if let Some(why) = &red {
        history.record(Event::Cut { why: why.clone() });
    }
    swarm.end().await;
    history.finish().map_err(|e| format!("{}: {e}", path.display()))?;
    let rules = Rules {
        min_acknowledged: u64::from(clients) * 5,
        min_received: u64::from(clients) * 50,
        min_faults: u64::from(red.is_none()),
        ..Rules::default()
    };
    let mut verdict = run::check(&path, rules)?;
    if let Some(red) = red {
        println!("red: {red}");
        verdict.broken.entry("row").or_default().1.push(red);
    }
    println!("{}", report::verdict(&verdict));
    Ok(verdict.is_pass())
}

/// Does what the lines on standard input say, until they end.
async fn steered(swarm: &Swarm, history: &History) -> Result<(), Red> {
    let board = &swarm.board;
    let mut open = "start".to_owned();
    caught_up(swarm, &open).await?;
    println!("chatting");
    for line in lines() {
        match line.split_once(' ').unwrap_or((&line, "")) {
            (word @ ("storm" | "calm"), _) => board.is_storm.store(word == "storm", Relaxed),
            ("scatter", _) => {
                let everybody = board.connections.load(Relaxed) + board.clients() as u64;
                board.scattered.fetch_add(1, Relaxed);
                let anew = || board.connections.load(Relaxed) >= everybody;
                wait(swarm, "new connection of everybody", anew).await?;
                caught_up(swarm, "everybody connected anew").await?;
                println!("scattered");
            }
            ("strike", what) => {
                what.clone_into(&mut open);
                history.record(Event::Fault { what: open.clone() });
                board.absence.begin();
                board.latency.lap();
                println!("struck");
            }
            ("heal", _) => {
                history.record(Event::Heal { what: open.clone() });
                let begin = Instant::now();
                caught_up(swarm, &open).await?;
                let caught_up = begin.elapsed().as_millis();
                // What was on its way when it began may still wait for its outcome: that is no quiet time.
                outcomes(swarm).await?;
                history.record(Event::CaughtUp { what: open.clone() });
                board.is_quiet.store(false, Relaxed);
                let (settled, absence, lap) = (begin.elapsed().as_millis(), board.absence.end(), board.latency.lap());
                println!("caught up after {caught_up} ms, settled after {settled} ms; {absence}; {lap}");
            }
            ("end", _) => break,
            _ => return Err(format!("`{line}` is no word of these")),
        }
    }
    outcomes(swarm).await?;
    let seqs = board.acknowledged_seqs();
    let everybody = || board.online() == board.clients() && board.behind(&seqs) == 0;
    wait(swarm, "everybody has everything at the end", everybody).await?;
    // What comes after the last message (a repeated one) shows within a moment.
    tokio::time::sleep(Duration::from_millis(300)).await;
    Ok(())
}

/// The lines of standard input, each as it comes. Meanwhile the swarm's own threads go on.
fn lines() -> impl Iterator<Item = String> {
    let next = || tokio::task::block_in_place(|| std::io::stdin().lines().next()?.ok());
    std::iter::from_fn(next)
}

/// Holds new messages back until all others have their outcomes.
async fn outcomes(swarm: &Swarm) -> Result<(), Red> {
    let board = &swarm.board;
    board.is_quiet.store(true, Relaxed);
    wait(swarm, "outcome of every message", || board.pending.load(Relaxed) == 0).await
}

/// Waits until every room gets new messages and every client has them.
async fn caught_up(swarm: &Swarm, after: &str) -> Result<(), Red> {
    let board = &swarm.board;
    let before = board.acknowledged_seqs();
    let new = || board.acknowledged_seqs().iter().zip(&before).all(|(now, before)| now > before);
    wait(swarm, &format!("new acknowledgements in every room after {after}"), new).await?;
    let seqs = board.acknowledged_seqs();
    let everybody = || board.online() == board.clients() && board.behind(&seqs) == 0;
    wait(swarm, &format!("everybody has everything after {after}"), everybody).await
}

async fn wait(swarm: &Swarm, what: &str, holds: impl Fn() -> bool) -> Result<(), Red> {
    let begin = Instant::now();
    while !holds() {
        if begin.elapsed() > LIMIT {
            let board = &swarm.board;
            return Err(format!(
                "after {} s: no {what}; {} of {} clients are online",
                LIMIT.as_secs(),
                board.online(),
                board.clients()
            ));
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    Ok(())
}
