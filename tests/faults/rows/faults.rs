//! What the nemesis can do to a running Plaza, one fault each: strike, wait, heal, and everybody catches up.

use super::redis;
use crate::run::{Red, Run};
use crate::world::{Kind, Store};
use plaza_tests::proxy::{Faults, Proxy, Way};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// A random fault, or, in a quarter of the cases, a quiet time.
pub(super) async fn mixed(run: &mut Run) -> Result<(), Red> {
    let n = run.random.usize(..6);
    match run.random.u32(..16) {
        0..=3 => {
            let quiet = run.seconds(1.0, 4.0);
            run.sleep(quiet).await;
            Ok(())
        }
        4..=5 => kill(run, Kind::Edge, n).await,
        6 => kill(run, Kind::Session, n).await,
        7..=8 => kill(run, Kind::Fanout, n).await,
        9 => restart_nats(run, n.is_multiple_of(2)).await,
        10 => pause_nats(run, n == 5).await,
        11 => redis::lose(run).await,
        12 => redis::hang(run).await,
        13 => restart_edge(run, n % 3).await,
        14 => freeze_nats_links(run, n.is_multiple_of(2)).await,
        _ => cut_links(run).await,
    }
}

/// Ends the n-th service of a kind at once; it comes back.
pub(super) async fn kill(run: &mut Run, kind: Kind, n: usize) -> Result<(), Red> {
    let n = n % run.world.nodes(kind).len();
    run.strike(format!("kill -9 of {}", run.world.nodes(kind)[n].name));
    run.world.nodes_mut(kind)[n].kill();
    if kind == Kind::Fanout {
        // The other one takes over while this one is away.
        run.caught_up("the kill").await?;
    } else {
        let down = run.seconds(0.0, 1.5);
        run.sleep(down).await;
    }
    run.world.nodes_mut(kind)[n].launch().await;
    run.heal().await
}

/// Ends the leader of the stream, or, of three servers, sometimes another one; it comes back.
pub(super) async fn restart_nats(run: &mut Run, politely: bool) -> Result<(), Red> {
    let servers = run.world.nats.urls().len();
    let leader = run.world.nats.leader().await;
    let server = if run.random.u32(..3) > 0 { leader } else { run.random.usize(..servers) };
    let which = match (servers, server == leader) {
        (1, _) => "NATS",
        (_, true) => "the leader of three NATS servers",
        (_, false) => "a follower of three NATS servers",
    };
    run.strike(if politely { format!("restart of {which} by SIGTERM") } else { format!("kill -9 of {which}") });
    if politely {
        run.world.terminate_nats(server).await;
    } else {
        run.world.kill_nats(server);
    }
    if servers == 3 {
        // The other two go on.
        run.caught_up("a NATS server went away").await?;
    } else {
        let down = run.seconds(0.0, 1.5);
        run.sleep(down).await;
    }
    run.world.nats.restart(server).await;
    run.world.nats.settled().await;
    run.heal().await
}

/// Part of the NATS servers stands still, as if the network had parted them: first a minority with the
/// leader, then a majority, in which nothing may be acknowledged.
pub(super) async fn part_nats(run: &mut Run, n: usize) -> Result<(), Red> {
    let leader = run.world.nats.leader().await;
    let pause = if run.scale.is_small { run.seconds(2.0, 4.0) } else { run.seconds(5.0, 15.0) };
    let others: Vec<usize> = (0..3).filter(|server| *server != leader).collect();
    if n.is_multiple_of(2) {
        run.strike(format!("the leader of three NATS servers is cut off for {:.1} s", pause.as_secs_f64()));
        run.world.pause(Store::Nats(leader)).await;
        run.caught_up("the leader was cut off").await?;
        run.sleep(pause).await;
        run.world.nats.process(leader).signal("CONT");
    } else {
        run.strike(format!("two followers of three NATS servers are cut off for {:.1} s", pause.as_secs_f64()));
        for server in &others {
            run.world.pause(Store::Nats(*server)).await;
        }
        // What had reached a second server before the stop may still be told.
        run.sleep(Duration::from_millis(500)).await;
        let before = run.swarm.board.acknowledged.load(Relaxed);
        run.sleep(pause).await;
        let meanwhile = run.swarm.board.acknowledged.load(Relaxed) - before;
        for server in &others {
            run.world.nats.process(*server).signal("CONT");
        }
        if meanwhile > 0 {
            return Err(format!("{meanwhile} messages were acknowledged while only one of three servers was there"));
        }
    }
    run.world.nats.settled().await;
    run.heal().await
}

/// Services cannot reach NATS in one direction or in both, also on new connections.
pub(super) async fn cut_off_nats(run: &mut Run, n: usize) -> Result<(), Red> {
    let (up, down) = [(true, true), (true, false), (false, true)][n % 3];
    let of_fanout = (n / 3).is_multiple_of(2);
    let pause = if run.scale.is_small { run.seconds(2.0, 4.0) } else { run.seconds(3.0, 12.0) };
    let who = if of_fanout { "fanout services" } else { "edges" };
    run.strike(format!("{who} are cut off from NATS for {:.1} s (up {up}, down {down})", pause.as_secs_f64()));
    let way = |frozen: bool| Way { frozen_below: if frozen { u64::MAX } else { 0 }, ..Way::default() };
    let links = |run: &Run| if of_fanout { run.world.fanouts_to_nats.clone() } else { run.world.edges_to_nats.clone() };
    links(run).iter().for_each(|link| link.set(Faults { up: way(up), down: way(down), refuse: false }));
    run.sleep(pause).await;
    for link in links(run).iter() {
        link.reset_all();
        link.heal();
    }
    run.heal().await
}

pub(super) async fn pause_nats(run: &mut Run, and_kill: bool) -> Result<(), Red> {
    let longest = match run.row {
        _ if run.scale.is_small => 6.0,
        26 => 12.0,
        _ => 40.0,
    };
    let pause = run.seconds(1.0, longest);
    run.strike(format!("NATS is paused for {:.1} s{}", pause.as_secs_f64(), if and_kill { " and killed" } else { "" }));
    run.world.pause(Store::Nats(0)).await;
    run.sleep(pause).await;
    if and_kill {
        run.world.kill_nats(0);
        run.world.nats.restart(0).await;
    } else {
        run.world.nats.process(0).signal("CONT");
    }
    run.heal().await
}

pub(super) async fn restart_edge(run: &mut Run, n: usize) -> Result<(), Red> {
    run.strike(format!("restart of edge{n} by SIGTERM"));
    run.world.edges[n].terminate().await;
    run.world.edges[n].launch().await;
    run.heal().await
}

pub(super) async fn rolling_restart(run: &mut Run) -> Result<(), Red> {
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
pub(super) async fn late_retries(run: &mut Run, n: usize) -> Result<(), Red> {
    run.strike(format!("answers of edge{n} stay away"));
    freeze_until_clients_leave(run, n, false, true).await
}

/// The ways between an edge and its clients stay open and carry nothing, up, down or both, until its
/// clients have given it up. Then they are new.
async fn freeze_until_clients_leave(run: &mut Run, n: usize, up: bool, down: bool) -> Result<(), Red> {
    let board = run.swarm.board.clone();
    let frozen = board.on_edge(n);
    run.world.edges[n].front.freeze_open(up, down);
    // Some come back to the same edge, on a connection that works.
    run.wait("clients leave the edge", || board.have_ended(&frozen)).await?;
    run.world.edges[n].front.reset_all();
    run.world.edges[n].front.heal();
    run.heal().await
}

pub(super) async fn half_open(run: &mut Run) -> Result<(), Red> {
    for (up, down) in [(true, true), (false, true), (true, false)] {
        let n = run.random.usize(..3);
        run.some_load().await;
        run.strike(format!("edge{n} is half-open to its clients (up {up}, down {down})"));
        freeze_until_clients_leave(run, n, up, down).await?;
        if run.scale.is_small {
            break;
        }
    }
    for (up, down) in [(true, true), (false, true)] {
        run.strike(format!("edges are half-open to NATS (up {up}, down {down})"));
        run.world.edges_to_nats.iter().for_each(|link| link.freeze_open(up, down));
        // Plaza finds out by itself: the frozen connections stay frozen.
        run.caught_up("edges were half-open to NATS").await?;
        run.world.edges_to_nats.iter().for_each(|link| link.reset_all());
        run.world.edges_to_nats.iter().for_each(|link| link.heal());
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
pub(super) async fn freeze_nats_links(run: &mut Run, of_fanout: bool) -> Result<(), Red> {
    let link = |run: &Run, freeze: bool| {
        let links = if of_fanout { &run.world.fanouts_to_nats } else { &run.world.edges_to_nats };
        for link in links.iter() {
            if freeze {
                link.freeze_open(true, true);
            } else {
                link.reset_all();
                link.heal();
            }
        }
    };
    run.strike(format!("{} are half-open to NATS", if of_fanout { "fanout services" } else { "edges" }));
    link(run, true);
    run.caught_up("the links to NATS were silent").await?;
    link(run, false);
    run.heal().await
}

/// Every connection to NATS, or to an edge, is reset at once.
pub(super) async fn cut_links(run: &mut Run) -> Result<(), Red> {
    let n = run.random.usize(..3);
    run.strike(format!("connections to NATS and to edge{n} are reset"));
    run.world.edges_to_nats.iter().chain(&*run.world.fanouts_to_nats).for_each(Proxy::reset_all);
    run.world.edges[n].front.reset_all();
    run.heal().await
}

/// One of two session services is silent, slow or refuses; everybody comes back through the other one.
pub(super) async fn lame_session(run: &mut Run, n: usize) -> Result<(), Red> {
    let silent = Way { frozen_below: u64::MAX, ..Way::default() };
    let slow = Way { latency: Duration::from_millis(600), ..Way::default() };
    let (what, fault) = match n % 3 {
        0 => ("swallows every call", Faults { up: silent, ..Faults::default() }),
        1 => ("answers after the deadline", Faults { down: slow, ..Faults::default() }),
        _ => ("refuses connections", Faults { refuse: true, ..Faults::default() }),
    };
    let (lame, edge) = (run.random.usize(..run.world.sessions.len()), run.random.usize(..run.world.edges.len()));
    run.strike(format!("session{lame} {what}, and all clients of edge{edge} come back"));
    run.world.sessions[lame].front.set(fault);
    if fault.refuse {
        run.world.sessions[lame].front.reset_all();
    }
    run.world.edges[edge].front.reset_all();
    run.caught_up("one session service was lame").await?;
    run.world.sessions[lame].front.reset_all();
    run.world.sessions[lame].front.heal();
    run.heal().await
}

/// Every service comes back with a clock that is minutes off, each by another time.
pub(super) async fn shift_clocks(run: &mut Run) -> Result<(), Red> {
    const PLACES: [&str; 3] = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib64/faketime/libfaketime.so.1",
    ];
    let library = PLACES.into_iter().find(|place| std::path::Path::new(place).exists());
    let library = library.ok_or("this row needs libfaketime (Debian: faketime)")?;
    for kind in [Kind::Edge, Kind::Session, Kind::Fanout] {
        for n in 0..run.world.nodes(kind).len() {
            let seconds = run.random.i64(-300..=300);
            run.strike(format!("the clock of {} is {seconds:+} s off", run.world.nodes(kind)[n].name));
            run.world.nodes_mut(kind)[n].terminate().await;
            run.world.nodes_mut(kind)[n].launch_with_clock(library, seconds).await;
            run.heal().await?;
        }
    }
    Ok(())
}

/// Everybody sends as fast as it is taken. What is taken is not less than in quiet times.
pub(super) async fn storm(run: &mut Run) -> Result<(), Red> {
    let board = run.swarm.board.clone();
    let rate = |run: &Run, before: u64, begin: std::time::Instant| {
        (run.swarm.board.acknowledged.load(Relaxed) - before) as f64 / begin.elapsed().as_secs_f64()
    };
    let (before, begin) = (board.acknowledged.load(Relaxed), std::time::Instant::now());
    run.sleep(Duration::from_secs(3)).await;
    let quiet = rate(run, before, begin);
    let length = if run.scale.is_small { 3.0 } else { 8.0 };
    run.strike(format!("everybody sends as fast as it can for {length:.0} s"));
    board.is_storm.store(true, Relaxed);
    let (before, begin) = (board.acknowledged.load(Relaxed), std::time::Instant::now());
    run.sleep(Duration::from_secs_f64(length)).await;
    let storm = rate(run, before, begin);
    board.is_storm.store(false, Relaxed);
    run.world.hit();
    run.note(format!("{quiet:.0} messages a second before the storm, {storm:.0} in it"));
    if storm < 0.8 * quiet {
        return Err(format!("{storm:.0} messages a second in the storm, {quiet:.0} before it; at least 80 % are due"));
    }
    run.heal().await
}

/// Edges end, one or all at once, and everybody who was there comes back without a pause.
pub(super) async fn stampede(run: &mut Run, n: usize) -> Result<(), Red> {
    let which: Vec<usize> = if n.is_multiple_of(2) { vec![n / 2 % 3] } else { vec![0, 1, 2] };
    run.strike(format!("kill -9 of {} of 3 edges with all their clients", which.len()));
    for edge in &which {
        run.world.edges[*edge].kill();
    }
    for edge in &which {
        run.world.edges[*edge].launch().await;
    }
    run.heal().await
}
