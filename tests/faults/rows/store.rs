//! Faults of the log itself: it is rolled back, it goes and comes back empty, it holds what nobody can read,
//! or its disk is full.

use crate::run::{Red, Run};
use async_nats::HeaderMap;
use plaza_proto::ids::RoomName;
use plaza_proto::subject::{self, STREAM};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// NATS comes back with what it had stored a moment ago, as after a loss of power. Everybody is told.
pub(super) async fn roll_back(run: &mut Run) -> Result<(), Red> {
    run.world.terminate_nats(0).await;
    let copy = run.world.nats.single().save();
    run.world.nats.restart(0).await;
    run.caught_up("a copy of the log was made").await?;
    let since = run.seconds(1.0, 4.0);
    run.sleep(since).await;
    run.strike(format!("NATS loses the last {:.1} s", since.as_secs_f64()));
    let logs = run.swarm.board.epochs();
    run.world.kill_nats(0);
    run.world.nats.single().go_back(&copy);
    run.world.nats.restart(0).await;
    another_log(run, logs).await
}

/// The stream is deleted while everybody chats.
pub(super) async fn delete_stream(run: &mut Run) -> Result<(), Red> {
    run.strike("the stream is deleted");
    let logs = run.swarm.board.epochs();
    let client = run.world.nats.client().await?;
    let answer = client.request(format!("$JS.API.STREAM.DELETE.{STREAM}"), "".into()).await;
    let answer = answer.map_err(|e| format!("the stream cannot be deleted: {e}"))?;
    if !String::from_utf8_lossy(&answer.payload).contains("\"success\":true") {
        return Err(format!("the stream cannot be deleted: {}", String::from_utf8_lossy(&answer.payload)));
    }
    run.world.hit();
    another_log(run, logs).await
}

async fn another_log(run: &mut Run, logs: usize) -> Result<(), Red> {
    run.heal().await?;
    if run.swarm.board.epochs() == logs {
        return Err("the log was another one, and its epoch did not change".to_owned());
    }
    Ok(())
}

/// Events that no edge can read stand in the rooms.
pub(super) async fn poison(run: &mut Run, n: usize) -> Result<(), Red> {
    let poisons: [(&str, Vec<u8>); 4] = [
        ("bytes that are no event", vec![0xff; 64]),
        ("an event of version 99", vec![0x08, 99]),
        ("nothing", Vec::new()),
        ("48 KiB of noise", (0..48 * 1024).map(|_| run.random.u8(..)).collect()),
    ];
    let (what, body) = &poisons[n % poisons.len()];
    let with_id = run.random.bool();
    let rooms: Vec<u32> = (0..run.scale.rooms).filter(|_| run.random.u32(..4) == 0).collect();
    run.strike(format!("{what} in {} rooms, {} an id", rooms.len(), if with_id { "with" } else { "without" }));
    let client = run.world.nats.client().await?;
    for room in rooms {
        let mut headers = HeaderMap::new();
        if with_id {
            let id = format!("{:032x}", run.random.u128(..));
            headers.insert(subject::MSG_ID, id.as_str());
        }
        let room = subject::room_in(&RoomName::parse(&format!("room-{room}")).map_err(|_| "a room name")?);
        let answer = client.request_with_headers(room, headers, body.clone().into()).await;
        let answer = answer.map_err(|e| format!("the poison is not stored: {e}"))?;
        if String::from_utf8_lossy(&answer.payload).contains("\"error\"") {
            return Err(format!("the poison is not stored: {}", String::from_utf8_lossy(&answer.payload)));
        }
        run.world.hit();
    }
    run.heal().await
}

/// The disk of NATS is full for a while. Needs the right to mount; says so where there is none.
pub(super) async fn with_small_disk(run: &mut Run) -> Result<(), Red> {
    let store = run.world.nats.single().store().to_owned();
    let result = match move_to_small_disk(run, &store).await {
        Ok(()) => {
            let filled = fill_disk(run, &store).await;
            // Also when it came to nothing: what follows needs a disk with space.
            let larger = give_space(run, &store).await;
            filled.and(larger)
        }
        Err(red) => Err(red),
    };
    let result = match result {
        Ok(()) => run.heal().await,
        Err(red) => Err(red),
    };
    // Lazily: the server has files open until the run ends.
    let _ = Command::new("umount").args(["-l", &store.display().to_string()]).status();
    result
}

async fn move_to_small_disk(run: &mut Run, store: &Path) -> Result<(), Red> {
    run.world.terminate_nats(0).await;
    let copy = run.world.nats.single().save();
    mount(store, "size=24m")?;
    // The mount is empty: what was stored goes into it.
    let copied =
        Command::new("cp").args(["-a", &format!("{}/.", copy.display()), &store.display().to_string()]).status();
    let _ = std::fs::remove_dir_all(&copy);
    if !copied.is_ok_and(|status| status.success()) {
        return Err("what was stored does not fit on the small disk".to_owned());
    }
    run.world.nats.restart(0).await;
    Ok(())
}

/// Until nothing is acknowledged any more for two seconds.
async fn fill_disk(run: &mut Run, store: &Path) -> Result<(), Red> {
    run.caught_up("NATS moved to a small disk").await?;
    run.strike("the disk of NATS is full");
    let free = free_bytes(store);
    let kept = 512 * 1024;
    std::fs::write(ballast(store), vec![1; usize::try_from(free.saturating_sub(kept)).unwrap_or(0)])
        .map_err(|e| format!("the disk cannot be filled: {e}"))?;
    let board = run.swarm.board.clone();
    let begin = std::time::Instant::now();
    let mut last = (board.acknowledged.load(Relaxed), begin);
    while last.1.elapsed() < Duration::from_secs(2) {
        if begin.elapsed() > crate::run::LIMIT {
            return Err("a full disk did not stop the acknowledgements".to_owned());
        }
        run.sleep(Duration::from_millis(50)).await;
        let now = board.acknowledged.load(Relaxed);
        if now != last.0 {
            last = (now, std::time::Instant::now());
        }
    }
    run.world.hit();
    Ok(())
}

/// There is space again, and NATS starts anew, as its liveness check lets it in a cluster.
async fn give_space(run: &mut Run, store: &Path) -> Result<(), Red> {
    let freed = match std::fs::remove_file(ballast(store)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(format!("the ballast stays: {error}")),
        _ => Ok(()),
    };
    let larger = Command::new("mount").args(["-o", "remount,size=512m", &store.display().to_string()]).status();
    run.world.terminate_nats(0).await;
    run.world.nats.restart(0).await;
    freed?;
    if larger.is_ok_and(|status| status.success()) { Ok(()) } else { Err("the disk cannot be made larger".to_owned()) }
}

fn ballast(store: &Path) -> PathBuf {
    store.join("ballast")
}

fn mount(folder: &Path, size: &str) -> Result<(), Red> {
    let target = folder.display().to_string();
    let status = Command::new("mount").args(["-t", "tmpfs", "-o", size, "tmpfs", &target]).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        _ => Err("this row needs the right to mount a tmpfs (root, or a user namespace)".to_owned()),
    }
}

fn free_bytes(folder: &Path) -> u64 {
    let output = Command::new("df").args(["--output=avail", "-B1", &folder.display().to_string()]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().last().and_then(|line| line.trim().parse().ok()).unwrap_or(0)
}
