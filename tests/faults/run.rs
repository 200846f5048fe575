//! One run of one row: world, swarm, faults, and the verdict over what they recorded.

use crate::checker::{Checker, Rules, Verdict};
use crate::history::{Event, History, Line};
use crate::swarm::{Plan, Swarm};
use crate::world::{Hits, Node, Setup, World};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// A row is red when its predicate does not hold after this.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);
/// Bytes that the kernel keeps for a client of a row of slow ones.
const SMALL: u32 = 8 * 1024;
/// How often a predicate is looked at.
const LOOK: Duration = Duration::from_millis(25);

/// How much a run does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// Faults of one kind in a row.
    pub(crate) faults: u32,
    pub(crate) clients: u32,
    /// So many of them are stock socket.io-clients.
    pub(crate) stock: u32,
    pub(crate) rooms: u32,
    pub(crate) rooms_per_client: u32,
    pub(crate) rate: f64,
    /// Of row 26 only.
    pub(crate) minutes: f64,
    /// A few faults, short pauses: for continuous integration.
    pub(crate) is_small: bool,
}

/// A run in progress.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) row: u32,
    pub(crate) seed: u64,
    pub(crate) scale: Scale,
    pub(crate) random: fastrand::Rng,
    pub(crate) world: World,
    pub(crate) swarm: Swarm,
    history: Arc<History>,
    folder: PathBuf,
    begin: Instant,
    shown: Instant,
    open: Vec<String>,
    /// Faults begun and survived.
    pub(crate) faults: u64,
    /// What had hit when the open fault began.
    before: Hits,
    /// Faults that hit nothing.
    missed: Vec<String>,
    notes: Vec<String>,
    is_ticker: bool,
}

/// Why a run was given up; the history is checked all the same.
pub(crate) type Red = String;

impl Run {
    /// Starts everything.
    pub(crate) async fn start(row: u32, seed: u64, scale: Scale, setup: Setup, folder: &Path) -> Result<Self, Red> {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let history = History::create(&folder.join("history.jsonl")).map_err(|e| format!("history.jsonl: {e}"))?;
        let history = Arc::new(history);
        let world = World::start(3, &setup, folder).await;
        let Scale { clients, stock, rooms, rooms_per_client, rate, .. } = scale;
        let plan = Plan {
            clients,
            stock,
            rooms,
            rooms_per_client,
            rate,
            seed,
            only_socket_io: false,
            buffer: setup.slow.then_some(SMALL),
        };
        let fronts = if setup.slow { world.edges.iter().filter_map(Node::addr).collect() } else { world.fronts() };
        let swarm = Swarm::start(plan, &fronts, world.steering(), &history);
        let now = Instant::now();
        Ok(Self {
            row,
            seed,
            scale,
            random: fastrand::Rng::with_seed(seed),
            world,
            swarm,
            history,
            folder: folder.to_owned(),
            begin: now,
            shown: now,
            open: Vec::new(),
            faults: 0,
            before: Hits::default(),
            missed: Vec::new(),
            notes: Vec::new(),
            is_ticker: std::io::IsTerminal::is_terminal(&std::io::stderr()),
        })
    }

    /// Waits until every client chats.
    pub(crate) async fn begins(&mut self) -> Result<(), Red> {
        self.caught_up("start").await?;
        self.some_load().await;
        Ok(())
    }

    /// Says that a fault begins now.
    pub(crate) fn strike(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.before = self.world.hits();
        self.history.record(Event::Fault { what: what.clone() });
        self.open.push(what);
        self.show();
    }

    /// Something that the report is to say.
    pub(crate) fn note(&mut self, what: String) {
        self.notes.push(what);
    }

    /// Says that everything below Plaza works again, and waits until all clients are back and have all
    /// that was acknowledged, and new messages come through in every room.
    pub(crate) async fn heal(&mut self) -> Result<(), Red> {
        let what = self.open.last().cloned().unwrap_or_default();
        self.history.record(Event::Heal { what: what.clone() });
        self.caught_up(&what).await?;
        if self.world.hits() == self.before {
            self.missed.push(what.clone());
        }
        self.history.record(Event::CaughtUp { what });
        self.open.pop();
        self.faults += 1;
        Ok(())
    }

    /// Waits until every client is in its rooms, every room gets new messages, and every member has them.
    pub(crate) async fn caught_up(&mut self, after: &str) -> Result<(), Red> {
        let board = Arc::clone(&self.swarm.board);
        let before = board.acknowledged_seqs();
        self.wait(&format!("new acknowledgements in every room after {after}"), || {
            board.acknowledged_seqs().iter().zip(&before).all(|(now, before)| now > before)
        })
        .await?;
        let seqs = board.acknowledged_seqs();
        self.wait(&format!("everybody has everything after {after}"), || {
            board.online() == board.clients() && board.behind(&seqs) == 0
        })
        .await
    }

    /// Waits until a predicate holds.
    ///
    /// # Errors
    /// It does not within [`LIMIT`].
    pub(crate) async fn wait(&mut self, what: &str, holds: impl Fn() -> bool) -> Result<(), Red> {
        let begin = Instant::now();
        while !holds() {
            if begin.elapsed() > LIMIT {
                let board = &self.swarm.board;
                let behind = board.behind(&board.acknowledged_seqs());
                return Err(format!(
                    "after {} s: no {what}; {} of {} clients are online, {behind} memberships are behind",
                    LIMIT.as_secs(),
                    board.online(),
                    board.clients()
                ));
            }
            self.sleep(LOOK).await;
        }
        Ok(())
    }

    /// Lets the swarm chat for a random while, so that the next fault comes at any moment.
    pub(crate) async fn some_load(&mut self) {
        let wait = Duration::from_millis(self.random.u64(100..1_200));
        self.sleep(wait).await;
    }

    /// A random time in this range of seconds.
    pub(crate) fn seconds(&mut self, from: f64, to: f64) -> Duration {
        Duration::from_secs_f64(from + self.random.f64() * (to - from))
    }

    /// Waits, and shows the progress once a second.
    pub(crate) async fn sleep(&mut self, time: Duration) {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if self.shown.elapsed() > Duration::from_secs(1) {
                self.show();
            }
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(Duration::from_millis(250))).await;
        }
    }

    /// Waits until every message has an outcome and everybody has everything.
    async fn everybody_done(&mut self) -> Result<(), Red> {
        let board = Arc::clone(&self.swarm.board);
        self.wait("outcome of every message", || board.pending.load(Relaxed) == 0).await?;
        let seqs = board.acknowledged_seqs();
        self.wait("everybody has everything at the end", || {
            board.online() == board.clients() && board.behind(&seqs) == 0
        })
        .await
    }

    fn show(&mut self) {
        self.shown = Instant::now();
        let board = &self.swarm.board;
        let line = format!(
            "row {} seed {} | {:>4} s | {} faults survived{} | {} of {} clients online | {} acknowledged, {} received, {} pending",
            self.row,
            self.seed,
            self.begin.elapsed().as_secs(),
            self.faults,
            self.open.last().map(|what| format!(", now: {what}")).unwrap_or_default(),
            board.online(),
            board.clients(),
            board.acknowledged.load(Relaxed),
            board.received.load(Relaxed),
            board.pending.load(Relaxed),
        );
        if self.is_ticker {
            eprint!("\r\x1b[K{line}");
        }
    }

    /// The last phase: no new messages, every outcome known, everybody has everything. Then the checker. Also when the
    /// row was given up: every fault ends first, so that what is missing then is missing.
    ///
    /// # Errors
    /// The history cannot be read.
    pub(crate) async fn finish(mut self, row: Result<(), Red>, mut rules: Rules) -> Result<(Verdict, Counted), Red> {
        let mut red: Vec<Red> = row.err().into_iter().collect();
        self.swarm.board.is_quiet.store(true, Relaxed);
        if !red.is_empty() {
            self.swarm.board.is_storm.store(false, Relaxed);
            self.swarm.board.is_deaf.store(false, Relaxed);
            self.world.mend().await;
        }
        if let Err(why) = self.everybody_done().await {
            self.history.record(Event::Cut { why: why.clone() });
            red.push(why);
        }
        // What comes after the last message (a repeated one) shows within a moment.
        self.sleep(Duration::from_millis(300)).await;
        if self.is_ticker {
            eprintln!();
        }
        self.world.keep_logs();
        self.swarm.end().await;
        self.history.finish().map_err(|e| format!("history.jsonl: {e}"))?;
        if !red.is_empty() {
            rules.min_faults = 0;
        }
        let mut verdict = check(&self.folder.join("history.jsonl"), rules)?;
        if !red.is_empty() {
            verdict.broken.entry("row").or_default().1 = red;
        }
        verdict.vacuous.extend(self.missed.iter().map(|what| format!("nothing was hit by: {what}")));
        let (hits, seconds) = (self.world.hits(), self.begin.elapsed().as_secs_f64());
        let counted = Counted { hits, seconds, notes: self.notes };
        Ok((verdict, counted))
    }
}

/// What the nemesis really did.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    pub(crate) hits: Hits,
    pub(crate) seconds: f64,
    pub(crate) notes: Vec<String>,
}

/// Checks a history that was recorded.
///
/// # Errors
/// The file cannot be read, or a line is not an event: its number is named.
pub(crate) fn check(path: &Path, rules: Rules) -> Result<Verdict, Red> {
    let file = std::fs::File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut checker = Checker::new(rules);
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(|e| format!("{}: {e}", path.display()))?;
        let line: Line =
            serde_json::from_str(&line).map_err(|e| format!("{}, line {}: {e}", path.display(), number + 1))?;
        checker.take(&line);
    }
    Ok(checker.finish())
}
