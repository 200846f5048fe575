//! The rows: which faults come, how long they stay, and what must hold meanwhile.
//!
//! | module | job |
//! |---|---|
//! | [`faults`] | one fault after the other |
//! | [`crowd`] | clients that do not read, attack, or use up an edge |
//! | [`redis`] | Redis empty, hanging, or replaced by a replica |
//! | [`steps`] | services that end at a named step of their work |
//! | [`store`] | a log that is rolled back, deleted, poisoned or full |

mod crowd;
mod faults;
mod redis;
mod steps;
mod store;

use crate::checker::Rules;
use crate::run::{Red, Run, Scale};
use crate::world::{Kind, Setup};
use plaza_kit::chaos::Rule;
use std::time::Duration;

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) number: u32,
    pub(crate) about: &'static str,
    /// What is done in it.
    plan: Plan,
    /// More arguments of the fanout services.
    fanout: &'static [&'static str],
    /// Redis is watched by sentinels, and names are unique.
    sentinels: bool,
    /// NATS servers.
    servers: Servers,
    /// Clients must reconnect and resume in it.
    resumes: bool,
    /// The store really loses something, so resets are right.
    resets: bool,
    /// Many clients with little to say.
    crowd: bool,
    /// Clients that stop to read, past every proxy.
    slow: bool,
}

/// How a row is done.
#[derive(Clone, Copy, Debug)]
enum Plan {
    /// Services of a kind end at each of their steps.
    Steps(Kind),
    /// So many faults of one kind.
    Each(fn(&mut Run, usize) -> Faulted<'_>),
    /// A list of its own.
    Once(fn(&mut Run) -> Faulted<'_>),
    /// Random faults for some minutes.
    Mixed,
}

type Faulted<'a> = std::pin::Pin<Box<dyn Future<Output = Result<(), Red>> + 'a>>;

/// How many NATS servers.
#[derive(Clone, Copy, Debug)]
enum Servers {
    One,
    Three,
    /// One with odd seeds, three with even ones.
    BySeed,
}

const fn row(number: u32, about: &'static str, plan: Plan) -> Row {
    Row {
        number,
        about,
        plan,
        fanout: &[],
        sentinels: false,
        servers: Servers::One,
        resumes: false,
        resets: false,
        crowd: false,
        slow: false,
    }
}

/// Every row that this program knows.
pub(crate) const ROWS: &[Row] = &[
    Row { resumes: true, ..row(1, "kill -9 of an edge at every step", Plan::Steps(Kind::Edge)) },
    row(2, "kill -9 of a session service at every step", Plan::Steps(Kind::Session)),
    row(3, "kill -9 of a fanout service at every step", Plan::Steps(Kind::Fanout)),
    Row {
        servers: Servers::BySeed,
        ..row(
            4,
            "restart of NATS by SIGTERM and kill -9: one server with odd seeds, three with even ones",
            Plan::Each(|run, n| Box::pin(faults::restart_nats(run, n.is_multiple_of(2)))),
        )
    },
    Row {
        servers: Servers::Three,
        ..row(
            5,
            "three NATS servers are parted, and services are cut off from them",
            Plan::Each(|run, n| match n % 2 {
                0 => Box::pin(faults::part_nats(run, n / 2)),
                _ => Box::pin(faults::cut_off_nats(run, n / 2)),
            }),
        )
    },
    row(
        6,
        "pause of NATS, with and without kill -9",
        Plan::Each(|run, n| Box::pin(faults::pause_nats(run, n % 3 == 2))),
    ),
    Row {
        resets: true,
        ..row(7, "NATS comes back without its last seconds", Plan::Each(|run, _| Box::pin(store::roll_back(run))))
    },
    Row { resets: true, ..row(8, "the stream is deleted", Plan::Each(|run, _| Box::pin(store::delete_stream(run)))) },
    row(9, "the disk of NATS is full", Plan::Once(|run| Box::pin(store::with_small_disk(run)))),
    row(10, "restart of Redis with everything lost", Plan::Each(|run, _| Box::pin(redis::lose(run)))),
    Row {
        sentinels: true,
        ..row(
            11,
            "a replica of Redis without the last writes is promoted",
            Plan::Once(|run| Box::pin(redis::fail_over(run))),
        )
    },
    row(12, "Redis hangs", Plan::Each(|run, _| Box::pin(redis::hang(run)))),
    Row {
        slow: true,
        ..row(13, "every fifth client stops to read, or nearly", Plan::Once(|run| Box::pin(crowd::deafen(run))))
    },
    Row {
        resumes: true,
        ..row(14, "half-open connections on every link", Plan::Once(|run| Box::pin(faults::half_open(run))))
    },
    Row {
        resumes: true,
        ..row(15, "clocks up to five minutes off", Plan::Once(|run| Box::pin(faults::shift_clocks(run))))
    },
    row(16, "everybody sends as fast as it can", Plan::Each(|run, _| Box::pin(faults::storm(run)))),
    Row {
        crowd: true,
        resumes: true,
        ..row(17, "thousands come back at once", Plan::Each(|run, n| Box::pin(faults::stampede(run, n))))
    },
    row(19, "events that nobody can read", Plan::Each(|run, n| Box::pin(store::poison(run, n)))),
    Row {
        resumes: true,
        ..row(18, "rolling restart of everything by SIGTERM", Plan::Once(|run| Box::pin(faults::rolling_restart(run))))
    },
    row(21, "slow heads, huge heads, pings and fragments without end", Plan::Once(|run| Box::pin(crowd::attack(run)))),
    row(22, "an edge without descriptors", Plan::Each(|run, n| Box::pin(crowd::exhaust(run, n)))),
    Row {
        resumes: true,
        ..row(
            23,
            "one of two session services is silent, slow or refuses",
            Plan::Each(|run, n| Box::pin(faults::lame_session(run, n))),
        )
    },
    Row {
        fanout: &["--dedupe-window", "2s"],
        resumes: true,
        ..row(24, "retries after the dedupe window", Plan::Each(|run, n| Box::pin(faults::late_retries(run, n % 3))))
    },
    Row { resumes: true, ..row(26, "all of it, at random", Plan::Mixed) },
];

impl Row {
    /// The row with this number.
    pub(crate) fn find(number: u32) -> Option<&'static Self> {
        ROWS.iter().find(|row| row.number == number)
    }

    /// What its history must have.
    pub(crate) fn rules(&self, run: &Run) -> Rules {
        Rules {
            min_acknowledged: u64::from(run.scale.clients) * if self.crowd { 1 } else { 5 },
            min_received: u64::from(run.scale.clients) * if self.crowd { 5 } else { 50 },
            min_faults: run.faults.max(1),
            min_recovered: match self.number {
                _ if !self.resumes => 0,
                // Of three edges one is half-open: its clients come back, and nobody else need.
                14 if run.scale.is_small => u64::from(run.scale.clients / 3),
                _ => u64::from(run.scale.clients),
            },
            // Rows without a lost edge give each of them about one reason to come back.
            min_by_pid: if self.resumes { u64::from(run.scale.stock / 3) } else { 0 },
            // A repair that takes 30 s ends in an honest reset.
            resets_allowed: self.resets || self.number == 6 && !run.scale.is_small,
        }
    }

    /// How much it does.
    pub(crate) fn scale(&self, scale: Scale) -> Scale {
        if !self.crowd {
            return scale;
        }
        let (clients, rooms, faults) = if scale.is_small { (100, 20, 2) } else { (3_000, 300, scale.faults.min(4)) };
        Scale { clients, rooms, rooms_per_client: 1, rate: 100.0, faults, ..scale }
    }

    /// What it needs.
    pub(crate) fn setup(&self, seed: u64, stock: bool, sabotage: Option<Rule>) -> Setup {
        let servers = match self.servers {
            Servers::One => 1,
            Servers::BySeed if seed % 2 == 1 => 1,
            Servers::Three | Servers::BySeed => 3,
        };
        let session: &[&str] = if self.sentinels { &["--unique-usernames"] } else { &[] };
        let Self { fanout, sentinels, slow, .. } = *self;
        Setup { fanout, edge: &[], session, sentinels, servers, stock, slow, sabotage }
    }

    /// Runs its faults.
    ///
    /// # Errors
    /// A predicate did not hold in time.
    pub(crate) async fn faults(&self, run: &mut Run) -> Result<(), Red> {
        run.begins().await?;
        match self.plan {
            Plan::Steps(kind) => steps::all(run, kind).await,
            Plan::Each(fault) => {
                for n in 0..run.scale.faults as usize {
                    run.some_load().await;
                    fault(run, n).await?;
                }
                Ok(())
            }
            Plan::Once(faults) => faults(run).await,
            Plan::Mixed => {
                let end = std::time::Instant::now() + Duration::from_secs_f64(run.scale.minutes * 60.0);
                while std::time::Instant::now() < end {
                    faults::mixed(run).await?;
                }
                Ok(())
            }
        }
    }
}
