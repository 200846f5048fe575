//! Clients that are a burden: they do not read, attack an edge, or use up its descriptors. The others must not notice.

use crate::attack::Attack;
use crate::board::may_be_deaf;
use crate::person::Person;
use crate::run::{Red, Run};
use plaza_tests::cluster::http_get;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Who does not read is sent away within this.
const CUT: Duration = Duration::from_secs(15);
/// Memory in bytes that an edge may need for all of them.
const GROWTH: u64 = 300 << 20;
/// How long is measured what is usual.
const QUIET: Duration = Duration::from_secs(5);
/// What a busy machine may add to any time.
const NOISE: Duration = Duration::from_millis(10);
/// More rounds, when in all others everybody waited longer than before: others may have used the machine.
const MORE: u32 = 2;
/// Descriptors of an edge that has few.
const FEW: u32 = 256;
/// An edge with a free descriptor takes the next client within this.
const ACCEPTS: Duration = Duration::from_secs(1);
/// Clients that find no place before an edge counts as full.
const REFUSED: u32 = 5;

/// Every fifth client reads nothing any more, or one message a second. Each is sent away, continues where it stood,
/// and nobody else waits.
///
/// A machine that others use, too, may be slow in any moment. So in each round nobody may wait longer than before it
/// or, in the same moments, on an edge that none of the deaf uses; and in some round nobody waits longer than before.
/// What makes everybody wait whenever some do not read shows in every round.
pub(super) async fn deafen(run: &mut Run) -> Result<(), Red> {
    let board = run.swarm.board.clone();
    let own = run.scale.clients - run.scale.stock;
    let deaf = u64::from(own.div_ceil(5));
    let rounds = if run.scale.is_small { 1 } else { 3 };
    let (mut as_before, mut usual) = (false, Duration::MAX);
    for round in 1.. {
        // Right after a round those who were deaf still send what they could not: that is not usual.
        usual = usual.min(self::usual(run).await);
        run.strike(format!("{deaf} of {} clients stop to read", run.scale.clients));
        let (before, memory) = (slow(run).await, memory(run).await);
        board.apart.lap();
        let begin = Instant::now();
        board.is_deaf.store(true, Relaxed);
        let mut gone = 0;
        while gone < deaf && begin.elapsed() < CUT {
            run.sleep(Duration::from_millis(100)).await;
            gone = slow(run).await - before;
        }
        let (took, p99, apart) = (begin.elapsed(), board.latency.lap().p99, board.apart.lap());
        if gone < deaf {
            board.is_deaf.store(false, Relaxed);
            return Err(format!("{gone} of {deaf} clients that did not read were sent away within {CUT:?}"));
        }
        let growth = self::memory(run).await.saturating_sub(memory);
        let (seqs, whole) = (board.acknowledged_seqs(), board.clone());
        let reads = move |client: u32| client >= own || !may_be_deaf(client);
        run.wait("everybody who reads has everything", || whole.behind_of(&seqs, reads) == 0).await?;
        board.is_deaf.store(false, Relaxed);
        (0..deaf).for_each(|_| run.world.hit());
        run.note(format!(
            "all that did not read were sent away after {:.1} s; 99 % of messages took {p99:.1?} meanwhile, {usual:.1?} \
             before, {:.1?} where nobody was deaf; memory grew by {} MiB",
            took.as_secs_f64(),
            apart.p99,
            growth >> 20
        ));
        let most = |of: Duration| of.mul_f64(1.2) + NOISE;
        if p99 > most(usual.max(apart.p99)) {
            return Err(format!(
                "messages to those who read took {p99:?}; before {usual:?}, where nobody was deaf {:?} ({} messages)",
                apart.p99, apart.count
            ));
        }
        as_before |= p99 <= most(usual);
        if growth > GROWTH {
            return Err(format!("the edges grew by {growth} bytes"));
        }
        run.heal().await?;
        match round {
            _ if as_before && round >= rounds => break,
            n if n >= rounds + MORE => {
                return Err(format!("in each of {round} rounds messages took longer than before"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Slow heads, huge heads, pings and fragments without end, at one edge. Each attacker is turned away, and nobody
/// else waits twice as long.
pub(super) async fn attack(run: &mut Run) -> Result<(), Red> {
    let board = run.swarm.board.clone();
    for _ in 0..if run.scale.is_small { 1 } else { 3 } {
        let usual = usual(run).await;
        let edge = run.random.usize(..run.world.edges.len());
        let addr = run.world.edges[edge].addr().ok_or("the edge is gone")?;
        let memory = memory(run).await;
        run.strike(format!("edge{edge} is attacked"));
        let attack = Attack::start(addr, if run.scale.is_small { 200 } else { 1_000 });
        board.latency.lap();
        run.sleep(Duration::from_secs(if run.scale.is_small { 8 } else { 20 })).await;
        let p99 = board.latency.lap().p99;
        let growth = self::memory(run).await.saturating_sub(memory);
        let told = attack.end().await?;
        run.world.hit();
        run.note(format!(
            "{told}; 99 % of messages took {p99:.1?} meanwhile, {usual:.1?} before; memory grew by {} MiB",
            growth >> 20
        ));
        if p99 > usual * 2 + NOISE {
            return Err(format!("messages took {p99:?} under attack, {usual:?} before"));
        }
        if growth > GROWTH {
            return Err(format!("the edges grew by {growth} bytes"));
        }
        run.heal().await?;
    }
    Ok(())
}

/// An edge with few descriptors gets more clients than it can hold. It goes on with those it has, lives, and takes
/// others as soon as some have left.
pub(super) async fn exhaust(run: &mut Run, n: usize) -> Result<(), Red> {
    let n = n % run.world.edges.len();
    run.strike(format!("edge{n} starts anew with {FEW} descriptors, and more clients come than it can hold"));
    run.world.edges[n].terminate().await;
    run.world.edges[n].launch_with_descriptors(FEW).await;
    run.caught_up("the edge came back").await?;
    let addr = run.world.edges[n].addr().ok_or("the edge is gone")?;
    let admin = run.world.edges[n].admin().ok_or("the edge is gone")?;
    // Half of them will leave.
    let (mut stays, mut leaves, mut all, mut refused) = (JoinSet::new(), JoinSet::new(), 0, 0);
    while refused < REFUSED && all < FEW {
        match timeout(ACCEPTS, Person::start(addr)).await {
            Ok(Ok(guest)) => {
                all += 1;
                if all % 2 == 0 { &mut stays } else { &mut leaves }.spawn(guest.stay());
            }
            Ok(Err(_)) | Err(_) => refused += 1,
        }
    }
    if refused < REFUSED {
        return Err(format!("{all} clients found a place in an edge with {FEW} descriptors"));
    }
    let lives = timeout(ACCEPTS, http_get(admin, "/livez")).await.ok().flatten();
    if !lives.is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
        return Err("a full edge does not say that it lives".to_owned());
    }
    run.caught_up("an edge was full").await?;
    if stays.try_join_next().or_else(|| leaves.try_join_next()).is_some() {
        return Err("a client that had a place was sent away".to_owned());
    }
    drop(leaves);
    let begin = Instant::now();
    let guest = loop {
        match timeout(ACCEPTS, Person::start(addr)).await {
            Ok(Ok(guest)) => break guest,
            _ if begin.elapsed() < ACCEPTS => tokio::time::sleep(Duration::from_millis(10)).await,
            _ => return Err(format!("half of {all} clients have left, and nobody gets in within {ACCEPTS:?}")),
        }
    };
    run.note(format!(
        "{all} more clients had a place; half of them left, and the next one was in after {:?}",
        begin.elapsed()
    ));
    if begin.elapsed() > ACCEPTS {
        return Err(format!("the next client was in only after {:?}", begin.elapsed()));
    }
    drop((guest, stays));
    run.heal().await
}

/// What 99 % of the messages take when nothing is broken.
async fn usual(run: &mut Run) -> Duration {
    let board = run.swarm.board.clone();
    board.latency.lap();
    run.sleep(QUIET).await;
    board.latency.lap().p99
}

/// Clients that were cut off because of their lag.
async fn slow(run: &Run) -> u64 {
    sum(run, "plaza_closes_total{cause=\"slow\"}").await
}

/// Bytes that all edges have in use.
async fn memory(run: &Run) -> u64 {
    sum(run, "process_resident_memory_bytes").await
}

async fn sum(run: &Run, series: &str) -> u64 {
    let mut sum = 0;
    for edge in &run.world.edges {
        sum += edge.counter(series).await;
    }
    sum
}
