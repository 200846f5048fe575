//! What may happen to Redis: it loses everything, hangs, or is replaced by a replica that lacks the last writes.

use crate::person::Person;
use crate::run::{LIMIT, Red, Run};
use crate::world::{Node, Store};
use plaza_proto::session::ListSessionsRequest;
use plaza_proto::session::session_service_client::SessionServiceClient;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// New sessions begin again within this after a master is gone.
const REPLACED: Duration = Duration::from_secs(15);
/// People whose names only the old master knows.
const HOLDERS: usize = 6;
/// How long others go on to ask for these names: longer than names are kept back after a loss (10 s), and than it
/// takes until an edge is told so by a heartbeat (5 s).
const PRESSURE: Duration = Duration::from_secs(18);

pub(super) async fn lose(run: &mut Run) -> Result<(), Red> {
    run.strike("kill -9 of Redis, everything lost");
    run.world.kill_redis();
    // Chat goes on without it.
    run.caught_up("the loss of Redis").await?;
    run.world.redis.restart().await;
    run.heal().await
}

pub(super) async fn hang(run: &mut Run) -> Result<(), Red> {
    let pause = if run.scale.is_small {
        run.seconds(2.0, 4.0)
    } else {
        run.seconds(5.0, if run.row == 26 { 20.0 } else { 60.0 })
    };
    run.strike(format!("Redis hangs for {:.1} s", pause.as_secs_f64()));
    run.world.pause(Store::Redis(0)).await;
    let before = run.swarm.board.acknowledged.load(Relaxed);
    run.sleep(pause).await;
    let meanwhile = run.swarm.board.acknowledged.load(Relaxed) - before;
    run.world.redis.process(0).signal("CONT");
    // Half of what the swarm sends in quiet times, to leave room for a busy machine.
    let least = (run.scale.rate * pause.as_secs_f64() / 2.0) as u64;
    if meanwhile < least {
        return Err(format!("only {meanwhile} messages were acknowledged while Redis hung; {least} were due"));
    }
    run.heal().await
}

/// The replica hears no more, people get names, the master stands still and the replica is promoted without those
/// names. The old master comes back. Nobody else ever gets one of the names.
pub(super) async fn fail_over(run: &mut Run) -> Result<(), Red> {
    for round in 0..if run.scale.is_small { 1 } else { 3 } {
        run.some_load().await;
        let old = run.world.redis.watched().master().await;
        run.world.redis.watched().replicated(old).await;
        run.strike("the master of Redis stands still, and its replica, which lacks the last writes, is promoted");
        run.world.redis.watched().part(old).await;
        let edges = run.world.edges.iter().filter_map(Node::addr).collect::<Vec<_>>();
        let name = |n: usize| format!("holder {round} {n}");
        // They answer pings and hold what they have.
        let mut holders = JoinSet::new();
        for n in 0..HOLDERS {
            let mut holder = Person::start(edges[n % edges.len()]).await?;
            holder.claim(&name(n)).await?.map_err(|code| format!("{} is refused: {code}", name(n)))?;
            holders.spawn(holder.stay());
        }
        if run.world.redis.watched().is_linked(1 - old).await {
            return Err("the replica has heard of the names: nothing would be lost".to_owned());
        }
        run.world.pause(Store::Redis(old)).await;
        let begin = Instant::now();
        while Person::start_socket_io(edges[0]).await.is_err() {
            if begin.elapsed() > REPLACED {
                return Err(format!("no new session within {REPLACED:?} after the master stood still"));
            }
            run.sleep(Duration::from_millis(100)).await;
        }
        let served = begin.elapsed();
        let new = run.world.redis.watched().master().await;
        if new == old {
            return Err("the sentinels promoted nobody".to_owned());
        }
        // Everybody asks for every name, at an edge that does not hold it, from the first moment on.
        let mut thieves = Vec::new();
        for edge in &edges {
            thieves.push(Person::start(*edge).await?);
        }
        run.world.redis.process(old).signal("CONT");
        let (begin, mut asked) = (Instant::now(), 0u32);
        while begin.elapsed() < PRESSURE || !run.world.redis.watched().is_replica(old).await {
            for n in 0..HOLDERS {
                let thief = (n + 1) % edges.len();
                if thieves[thief].claim(&name(n)).await?.is_ok() {
                    return Err(format!("{} has a second holder after {:?}", name(n), begin.elapsed()));
                }
                asked += 1;
            }
            if begin.elapsed() > LIMIT {
                return Err("the old master still believes that it is one".to_owned());
            }
            run.sleep(Duration::from_millis(50)).await;
        }
        run.world.redis.watched().mend().await;
        if holders.try_join_next().is_some() {
            return Err("somebody who held a name was sent away".to_owned());
        }
        for n in 0..HOLDERS {
            let listed = sessions(run, &name(n)).await?;
            if listed != 1 {
                return Err(format!("{listed} sessions have the name {}", name(n)));
            }
        }
        // That nobody got a name says something only if somebody can.
        drop(holders);
        let begin = Instant::now();
        while thieves[1].claim(&name(0)).await?.is_err() {
            if begin.elapsed() > REPLACED {
                return Err(format!("{} stays taken after its holder has left", name(0)));
            }
            run.sleep(Duration::from_millis(100)).await;
        }
        run.note(format!(
            "new sessions {:.1} s after the master stood still; {asked} claims of taken names, none of them granted",
            served.as_secs_f64()
        ));
        run.heal().await?;
    }
    Ok(())
}

/// Sessions with a name, as the session service lists them.
async fn sessions(run: &Run, name: &str) -> Result<usize, Red> {
    let addr = run.world.sessions[0].front.addr();
    let mut service =
        SessionServiceClient::connect(format!("http://{addr}")).await.map_err(|e| format!("session0: {e}"))?;
    let request = ListSessionsRequest { username: name.to_owned(), ..ListSessionsRequest::default() };
    let listed = service.list_sessions(request).await.map_err(|e| format!("session0: {e}"))?;
    Ok(listed.into_inner().sessions.len())
}
