//! The rows: which faults come, how long they stay, and what must hold meanwhile.

use crate::checker::Rules;
use crate::run::{Red, Run};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) number: u32,
    pub(crate) about: &'static str,
    /// More arguments of the fanout services.
    pub(crate) fanout: &'static [&'static str],
    /// Clients must reconnect and resume in it.
    pub(crate) resumes: bool,
}

/// Every row that this program knows.
pub(crate) const ROWS: &[Row] = &[
    Row { number: 1, about: "kill -9 of an edge at any moment", fanout: &[], resumes: true },
    Row { number: 2, about: "kill -9 of a session service", fanout: &[], resumes: false },
    Row { number: 3, about: "kill -9 of a fanout service", fanout: &[], resumes: false },
    Row { number: 4, about: "restart of NATS by SIGTERM and kill -9", fanout: &[], resumes: false },
    Row { number: 6, about: "pause of NATS, with and without kill -9", fanout: &[], resumes: false },
    Row { number: 10, about: "restart of Redis with everything lost", fanout: &[], resumes: false },
    Row { number: 12, about: "Redis hangs", fanout: &[], resumes: false },
    Row { number: 14, about: "half-open connections on every link", fanout: &[], resumes: true },
    Row { number: 18, about: "rolling restart of everything by SIGTERM", fanout: &[], resumes: true },
    Row { number: 24, about: "retries after the dedupe window", fanout: &["--dedupe-window", "2s"], resumes: true },
    Row { number: 26, about: "all of it", fanout: &[], resumes: true },
];

impl Row {
    /// The row with this number.
    pub(crate) fn find(number: u32) -> Option<&'static Self> {
        ROWS.iter().find(|row| row.number == number)
    }

    /// What its history must have.
    pub(crate) fn rules(&self, run: &Run) -> Rules {
        Rules {
            min_acknowledged: u64::from(run.scale.clients) * 5,
            min_received: u64::from(run.scale.clients) * 50,
            min_faults: run.faults.max(1),
            min_recovered: if self.resumes { u64::from(run.scale.clients) } else { 0 },
            // A repair that takes 30 s ends in an honest reset.
            resets_allowed: self.number == 6 && !run.scale.is_small,
        }
    }

    /// Runs its faults.
    ///
    /// # Errors
    /// A predicate did not hold in time.
    pub(crate) async fn faults(&self, run: &mut Run) -> Result<(), Red> {
        let faults = run.scale.faults;
        match self.number {
            14 => half_open(run).await,
            18 => rolling_restart(run).await,
            26 => {
                let end = std::time::Instant::now() + Duration::from_secs_f64(run.scale.minutes * 60.0);
                while std::time::Instant::now() < end {
                    mixed(run).await?;
                }
                Ok(())
            }
            number => {
                for n in 0..faults {
                    run.some_load().await;
                    one(run, number, n as usize).await?;
                }
                Ok(())
            }
        }
    }
}

async fn one(run: &mut Run, row: u32, n: usize) -> Result<(), Red> {
    match row {
        1 => kill_edge(run, n % 3).await,
        2 => kill_session(run, n % 2).await,
        3 => kill_fanout(run, n % 2).await,
        4 => restart_nats(run, n.is_multiple_of(2)).await,
        6 => pause_nats(run, n % 3 == 2).await,
        10 => lose_redis(run).await,
        12 => hang_redis(run).await,
        _ => late_retries(run, n % 3).await,
    }
}

/// A random fault, or, in a quarter of the cases, a quiet time.
async fn mixed(run: &mut Run) -> Result<(), Red> {
    let n = run.random.usize(..6);
    match run.random.u32(..16) {
        0..=3 => {
            let quiet = run.seconds(1.0, 4.0);
            run.sleep(quiet).await;
            Ok(())
        }
        4..=5 => kill_edge(run, n % 3).await,
        6 => kill_session(run, n % 2).await,
        7..=8 => kill_fanout(run, n % 2).await,
        9 => restart_nats(run, n.is_multiple_of(2)).await,
        10 => pause_nats(run, n == 5).await,
        11 => lose_redis(run).await,
        12 => hang_redis(run).await,
        13 => restart_edge(run, n % 3).await,
        14 => freeze_nats_links(run, n.is_multiple_of(2)).await,
        _ => cut_links(run).await,
    }
}

async fn kill_edge(run: &mut Run, n: usize) -> Result<(), Red> {
    run.strike(format!("kill -9 of edge{n}"));
    run.world.edges[n].kill();
    let down = run.seconds(0.0, 1.5);
    run.sleep(down).await;
    run.world.edges[n].launch().await;
    run.heal().await
}

async fn kill_session(run: &mut Run, n: usize) -> Result<(), Red> {
    run.strike(format!("kill -9 of session{n}"));
    run.world.sessions[n].kill();
    let down = run.seconds(0.0, 2.0);
    run.sleep(down).await;
    run.world.sessions[n].launch().await;
    run.heal().await
}

async fn kill_fanout(run: &mut Run, n: usize) -> Result<(), Red> {
    run.strike(format!("kill -9 of fanout{n}"));
    run.world.fanouts[n].kill();
    // The other one takes over while this one is away.
    run.caught_up("the kill").await?;
    run.world.fanouts[n].launch().await;
    run.heal().await
}

async fn restart_nats(run: &mut Run, politely: bool) -> Result<(), Red> {
    run.strike(if politely { "restart of NATS by SIGTERM" } else { "kill -9 of NATS" });
    if politely {
        run.world.terminate_nats().await;
    } else {
        run.world.nats.kill();
    }
    let down = run.seconds(0.0, 1.5);
    run.sleep(down).await;
    run.world.restart_nats().await;
    run.heal().await
}

async fn pause_nats(run: &mut Run, and_kill: bool) -> Result<(), Red> {
    let longest = match run.row {
        _ if run.scale.is_small => 6.0,
        26 => 20.0,
        _ => 40.0,
    };
    let pause = run.seconds(1.0, longest);
    run.strike(format!("NATS is paused for {:.1} s{}", pause.as_secs_f64(), if and_kill { " and killed" } else { "" }));
    run.world.nats.process().signal("STOP");
    run.sleep(pause).await;
    if and_kill {
        run.world.nats.kill();
        run.world.restart_nats().await;
    } else {
        run.world.nats.process().signal("CONT");
    }
    run.heal().await
}

async fn lose_redis(run: &mut Run) -> Result<(), Red> {
    run.strike("kill -9 of Redis, everything lost");
    run.world.redis.kill();
    // Chat goes on without it.
    run.caught_up("the loss of Redis").await?;
    run.world.redis.restart().await;
    run.heal().await
}

async fn hang_redis(run: &mut Run) -> Result<(), Red> {
    let pause = if run.scale.is_small { run.seconds(2.0, 4.0) } else { run.seconds(5.0, 60.0) };
    run.strike(format!("Redis hangs for {:.1} s", pause.as_secs_f64()));
    run.world.redis.process().signal("STOP");
    let before = run.swarm.board.acknowledged.load(Relaxed);
    run.sleep(pause).await;
    let meanwhile = run.swarm.board.acknowledged.load(Relaxed) - before;
    run.world.redis.process().signal("CONT");
    // Half of what the swarm sends in quiet times, to leave room for a busy machine.
    let least = (run.scale.rate * pause.as_secs_f64() / 2.0) as u64;
    if meanwhile < least {
        return Err(format!("only {meanwhile} messages were acknowledged while Redis hung; {least} were due"));
    }
    run.heal().await
}

async fn restart_edge(run: &mut Run, n: usize) -> Result<(), Red> {
    run.strike(format!("restart of edge{n} by SIGTERM"));
    run.world.edges[n].terminate().await;
    run.world.edges[n].launch().await;
    run.heal().await
}

async fn rolling_restart(run: &mut Run) -> Result<(), Red> {
    for n in 0..3 {
        run.some_load().await;
        restart_edge(run, n).await?;
    }
    for n in 0..2 {
        run.strike(format!("restart of fanout{n} by SIGTERM"));
        run.world.fanouts[n].terminate().await;
        run.world.fanouts[n].launch().await;
        run.heal().await?;
        run.strike(format!("restart of session{n} by SIGTERM"));
        run.world.sessions[n].terminate().await;
        run.world.sessions[n].launch().await;
        run.heal().await?;
    }
    Ok(())
}

/// What was sent is stored, but its acknowledgement reaches the client only after the dedupe window,
/// as a retry on another edge.
async fn late_retries(run: &mut Run, n: usize) -> Result<(), Red> {
    run.strike(format!("answers of edge{n} stay away"));
    run.world.edges[n].front.freeze_open(false, true);
    let board = run.swarm.board.clone();
    run.wait("clients leave the edge", || board.has_left(n)).await?;
    run.world.edges[n].front.reset_all();
    run.world.edges[n].front.heal();
    run.heal().await
}

async fn half_open(run: &mut Run) -> Result<(), Red> {
    for (up, down) in [(true, true), (false, true), (true, false)] {
        let n = run.random.usize(..3);
        run.some_load().await;
        run.strike(format!("edge{n} is half-open to its clients (up {up}, down {down})"));
        run.world.edges[n].front.freeze_open(up, down);
        let board = run.swarm.board.clone();
        run.wait("clients leave the edge", || board.has_left(n)).await?;
        run.world.edges[n].front.reset_all();
        run.world.edges[n].front.heal();
        run.heal().await?;
        if run.scale.is_small {
            break;
        }
    }
    for (up, down) in [(true, true), (false, true)] {
        run.strike(format!("edges are half-open to NATS (up {up}, down {down})"));
        run.world.edges_to_nats.freeze_open(up, down);
        // Plaza finds out by itself: the frozen connections stay frozen.
        run.caught_up("edges were half-open to NATS").await?;
        run.world.edges_to_nats.reset_all();
        run.world.edges_to_nats.heal();
        run.heal().await?;
    }
    freeze_nats_links(run, true).await?;
    for n in 0..2 {
        run.strike(format!("fanout{n} is half-open to its callers"));
        run.world.fanouts[n].front.freeze_open(true, true);
        run.caught_up("fanout was half-open").await?;
        run.world.fanouts[n].front.reset_all();
        run.world.fanouts[n].front.heal();
        run.heal().await?;
    }
    run.strike("session is half-open to Redis");
    run.world.to_redis.freeze_open(true, true);
    run.caught_up("session was half-open to Redis").await?;
    run.world.to_redis.heal();
    run.heal().await
}

/// The connections of all fanout services to NATS, or of all edges, are silent until Plaza renews them.
async fn freeze_nats_links(run: &mut Run, of_fanout: bool) -> Result<(), Red> {
    let link = |run: &Run, freeze: bool| {
        let link = if of_fanout { &run.world.fanouts_to_nats } else { &run.world.edges_to_nats };
        if freeze {
            link.freeze_open(true, true);
        } else {
            link.reset_all();
            link.heal();
        }
    };
    run.strike(format!("{} are half-open to NATS", if of_fanout { "fanout services" } else { "edges" }));
    link(run, true);
    run.caught_up("the links to NATS were silent").await?;
    link(run, false);
    run.heal().await
}

/// Every connection to NATS, or to an edge, is reset at once.
async fn cut_links(run: &mut Run) -> Result<(), Red> {
    let n = run.random.usize(..3);
    run.strike(format!("connections to NATS and to edge{n} are reset"));
    run.world.edges_to_nats.reset_all();
    run.world.fanouts_to_nats.reset_all();
    run.world.edges[n].front.reset_all();
    run.heal().await
}
