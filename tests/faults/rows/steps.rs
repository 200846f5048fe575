//! Rows 1 to 3: a service ends at a named step of its work, as by kill -9, and comes back. The steps are
//! in the services only with the feature `chaos`; without it they are killed at any moment.

use super::faults;
use crate::run::{Red, Run};
use crate::world::{Kind, Node};
use plaza_kit::chaos::{self, Step};
use plaza_tests::proxy::{Faults, Proxy, Way};
use std::time::Duration;

const EDGE: &[Step] = &[
    Step::Accepted,
    Step::Upgraded,
    Step::Authenticated,
    Step::Leased,
    Step::Received,
    Step::Published,
    Step::Resolved,
    Step::Answered,
    Step::HalfDelivered,
    Step::Replaying,
    Step::Draining,
];
const SESSION: &[Step] = &[Step::Writing, Step::Written, Step::Renewed, Step::Released];
const FANOUT: &[Step] = &[Step::Taken, Step::Sent, Step::Stored, Step::Hinting, Step::Provisioned];

/// So many times traffic is sent to the service until it comes to its step.
const POKES: u32 = 15;
/// Between them.
const POKE: Duration = Duration::from_secs(4);
/// Longer than fanout waits for the acknowledgement of one attempt, by far shorter than for all of them.
const ACK_LATE: Duration = Duration::from_millis(700);
/// So long acknowledgements are late. In the rest of the poke a further attempt gets its own in time, and
/// learns from it that an earlier one was stored.
const LATE_FOR: Duration = Duration::from_secs(2);

/// Ends services of this kind at each of its steps.
pub(super) async fn all(run: &mut Run, kind: Kind) -> Result<(), Red> {
    let steps = match kind {
        Kind::Edge => EDGE,
        Kind::Session => SESSION,
        Kind::Fanout => FANOUT,
    };
    if !chaos::IS_BUILT_IN {
        for n in 0..run.scale.faults as usize {
            run.some_load().await;
            faults::kill(run, kind, n).await?;
        }
        return Ok(());
    }
    for (n, step) in steps.iter().enumerate() {
        run.some_load().await;
        at(run, kind, n, *step).await?;
    }
    Ok(())
}

async fn at(run: &mut Run, kind: Kind, n: usize, step: Step) -> Result<(), Red> {
    let (count, later) = when(run, step);
    let nodes = run.world.nodes(kind).len();
    let victim = n % nodes;
    run.strike(format!(
        "{} ends when it is at '{}' for the {count}. time",
        run.world.nodes(kind)[victim].name,
        step.as_str()
    ));
    let node = &mut run.world.nodes_mut(kind)[victim];
    node.kill();
    node.launch_armed(&format!("{}@{count}+{}", step.as_str(), later.as_millis())).await;
    if step == Step::Draining {
        poke(run, kind, victim, step);
        let board = run.swarm.board.clone();
        run.wait("clients on the edge that is to drain", || !board.has_left(victim)).await?;
        run.world.edges[victim].signal("TERM");
    }
    let mut pokes = 0;
    while !has_ended(run, kind, victim, step) {
        if pokes == POKES {
            return Err(format!("no service came to '{}' for the {count}. time", step.as_str()));
        }
        pokes += 1;
        if step != Step::Draining {
            poke(run, kind, victim, step);
        }
        if step == Step::Hinting {
            run.sleep(LATE_FOR).await;
            run.world.fanouts_to_nats.iter().for_each(Proxy::heal);
        }
        let end = std::time::Instant::now() + POKE;
        while std::time::Instant::now() < end && !has_ended(run, kind, victim, step) {
            run.sleep(Duration::from_millis(10)).await;
        }
    }
    let down = run.seconds(0.0, 0.5);
    run.sleep(down).await;
    run.world.nodes_mut(kind)[victim].launch().await;
    run.heal().await
}

/// Whether the service has ended at its step. One that drains may be done before.
fn has_ended(run: &mut Run, kind: Kind, victim: usize, step: Step) -> bool {
    let node = &mut run.world.nodes_mut(kind)[victim];
    node.has_aborted() || step == Step::Draining && node.has_left()
}

/// How often a service passes a step before it ends there, and how much later it ends: what was handed
/// to another thread or to the kernel needs a moment to be on its way.
fn when(run: &mut Run, step: Step) -> (u64, Duration) {
    let random = &mut run.random;
    let count = match step {
        Step::Provisioned | Step::Draining | Step::Hinting => 1,
        Step::Renewed => 1,
        Step::Replaying | Step::Released => random.u64(1..=3),
        Step::Accepted | Step::Upgraded | Step::Authenticated | Step::Leased => random.u64(1..=8),
        Step::Writing | Step::Written => random.u64(1..=12),
        _ => random.u64(1..=200),
    };
    let later = match step {
        Step::Published | Step::Sent => random.u64(0..=3),
        Step::Answered => random.u64(1..=3),
        Step::Draining => random.u64(0..=1_000),
        _ => 0,
    };
    (count, Duration::from_millis(later))
}

/// Sends the service what brings it to its step.
fn poke(run: &mut Run, kind: Kind, victim: usize, step: Step) {
    let world = &mut run.world;
    let others = |nodes: &[Node]| {
        let others = nodes.iter().enumerate().filter(|(n, _)| *n != victim);
        others.for_each(|(_, node)| node.front.reset_all());
    };
    match (kind, step) {
        // Clients come from other edges.
        (Kind::Edge, _) => others(&world.edges),
        // An edge stays with the service that answers it: those of the other one look for another, too.
        (Kind::Session, _) => {
            others(&world.sessions);
            world.edges[victim].front.reset_all();
        }
        (Kind::Fanout, Step::Hinting) => {
            others(&world.fanouts);
            // Acknowledgements come later than a publish waits for them, so what is stored is published again.
            let down = Way { latency: ACK_LATE, ..Way::default() };
            world.fanouts_to_nats.iter().for_each(|link| link.set(Faults { down, ..Faults::default() }));
        }
        (Kind::Fanout, _) => others(&world.fanouts),
    }
}
