//! The same swarm against three npm socket.io servers with a Redis adapter and connection state recovery:
//! what they lose shows that the checker sees losses. Its clients are stock ones, on WebSocket.

use crate::checker::Rules;
use crate::history::{Event, History};
use crate::report;
use crate::run;
use crate::swarm::{Plan, Swarm};
use crate::world::{node, stock_clients};
use plaza_tests::process::Process;
use plaza_tests::proxy::Proxy;
use plaza_tests::redis::RedisServer;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Servers that are killed.
const FAULTS: u32 = 6;
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);

/// One npm server and the link to it.
struct Server {
    process: Option<Process>,
    front: Proxy,
}

/// Runs it; the report, and whether losses were seen.
///
/// # Errors
/// The swarm does not come back, or the history cannot be read.
pub(crate) async fn run(seed: u64, out: &Path) -> Result<(String, bool), run::Red> {
    let folder = out.join("socketio");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let path = folder.join("history.jsonl");
    let history = Arc::new(History::create(&path).map_err(|e| format!("{}: {e}", path.display()))?);
    let redis = RedisServer::start().await;
    let port = redis.url().trim_end_matches('/').rsplit(':').next().unwrap_or_default().to_owned();
    let mut servers = Vec::new();
    for _ in 0..3 {
        let (process, addr) = node("peer.mjs", std::slice::from_ref(&port)).await;
        servers.push(Server { process: Some(process), front: Proxy::start(Some(addr)).await });
    }
    let urls = servers.iter().map(|server| format!("http://{}", server.front.addr())).collect::<Vec<_>>().join(",");
    let (_stock, steering) = stock_clients(&[urls, "websocket".to_owned()]).await;
    let plan = Plan {
        clients: 30,
        stock: 30,
        rooms: 20,
        rooms_per_client: 3,
        rate: 150.0,
        seed,
        only_socket_io: true,
        buffer: None,
    };
    let swarm = Swarm::start(plan, &[steering], Some(steering), &history);
    let board = Arc::clone(&swarm.board);
    wait(|| board.online() == board.clients()).await?;
    let mut random = fastrand::Rng::with_seed(seed);
    for n in 0..FAULTS {
        tokio::time::sleep(Duration::from_millis(random.u64(500..2_000))).await;
        let what = format!("kill -9 of npm server {}", n % 3);
        let server = &mut servers[n as usize % 3];
        history.record(Event::Fault { what: what.clone() });
        drop(server.process.take());
        server.front.target(None);
        tokio::time::sleep(Duration::from_millis(random.u64(100..1_000))).await;
        let (process, addr) = node("peer.mjs", std::slice::from_ref(&port)).await;
        server.process = Some(process);
        server.front.target(Some(addr));
        history.record(Event::Heal { what: what.clone() });
        wait(|| board.online() == board.clients()).await?;
        history.record(Event::CaughtUp { what });
    }
    board.is_quiet.store(true, Relaxed);
    wait(|| board.pending.load(Relaxed) == 0).await?;
    // There is nothing to wait for: what has not come by now never does.
    tokio::time::sleep(Duration::from_secs(2)).await;
    swarm.end().await;
    history.finish().map_err(|e| format!("{}: {e}", path.display()))?;
    let rules = Rules { min_acknowledged: 500, min_received: 5_000, min_faults: u64::from(FAULTS), ..Rules::default() };
    let verdict = run::check(&path, rules)?;
    let lost = verdict.broken.get("H1 lost").map_or(0, |(count, _)| *count);
    let word = if lost > 0 { "seen" } else { "NOT SEEN" };
    let text = format!(
        "npm socket.io, three servers with the Redis adapter and connection state recovery, seed {seed}: losses {word}\n        \
         {} servers killed; {} messages acknowledged, {} received; {} of {} connections recovered; {lost} lost\n{}",
        verdict.counts.faults,
        verdict.counts.acknowledged,
        verdict.counts.received,
        verdict.counts.by_pid,
        verdict.counts.connections,
        report::verdict(&verdict),
    );
    Ok((text, lost > 0))
}

async fn wait(holds: impl Fn() -> bool) -> Result<(), run::Red> {
    let begin = Instant::now();
    while !holds() {
        if begin.elapsed() > LIMIT {
            return Err("the swarm does not come back to the npm servers".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    Ok(())
}
