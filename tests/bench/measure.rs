//! One measurement: a server, a load beside it, and what the kernel counted.

use crate::load::{Outcome, Plan};
use crate::server::{LOAD_CORE, Peer};
use crate::sink;
use anyhow::{Context, bail};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

/// What was measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// Private memory of the server after each stage, in bytes.
    pub(crate) private_bytes: Vec<u64>,
    /// Clients after the last stage.
    pub(crate) connections: u64,
    pub(crate) outcome: Outcome,
    /// CPU time while messages flowed, in microseconds.
    pub(crate) server_micros: u64,
    pub(crate) load_micros: u64,
}

/// Starts the server, runs the plan against it and ends both.
pub(crate) async fn measure(peer: Peer, plan: &Plan) -> anyhow::Result<Measured> {
    let sink = if matches!(peer, Peer::Traced(_)) { Some(sink::start().await?) } else { None };
    let (server, addr) = peer.start(sink.as_ref().map(|(_, addr)| *addr)).await;
    let plan = Plan { server: addr, speak: peer.speak(), ..plan.clone() };
    let mut child = Command::new("taskset")
        .args(["-c", LOAD_CORE])
        .arg(std::env::current_exe()?)
        .args(["load", &serde_json::to_string(&plan)?])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("taskset (util-linux) pins the load")?;
    let result = follow(&mut child, server.id(), &plan.stages);
    child.kill().ok();
    child.wait()?;
    result.with_context(|| format!("{}; its log ends with {:?}", peer.name(), server.log().lines().last()))
}

/// Follows the load's lines and reads the counters at each.
fn follow(child: &mut Child, server: u32, stages: &[usize]) -> anyhow::Result<Measured> {
    let load = child.id();
    let mut stdin = child.stdin.take().context("piped")?;
    let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
    let mut next =
        || -> anyhow::Result<String> { lines.next().context("the load has ended early")?.map_err(Into::into) };
    let go = |stdin: &mut ChildStdin| -> anyhow::Result<()> { Ok(stdin.write_all(b"\n")?) };
    let mut measured =
        Measured { connections: stages.last().copied().unwrap_or_default() as u64, ..Measured::default() };
    for _ in stages {
        let line = next()?;
        anyhow::ensure!(line == "ready", "the load says {line:?}");
        measured.private_bytes.push(settled_private_bytes(server)?);
        go(&mut stdin)?;
    }
    let mut line = next()?;
    if line == "begin" {
        let (server_begin, load_begin) = (cpu_micros(server)?, cpu_micros(load)?);
        line = next()?;
        measured.server_micros = cpu_micros(server)? - server_begin;
        measured.load_micros = cpu_micros(load)? - load_begin;
    }
    measured.outcome = serde_json::from_str(&line)?;
    go(&mut stdin)?;
    Ok(measured)
}

/// CPU time of all threads of a process, ended ones included.
fn cpu_micros(id: u32) -> anyhow::Result<u64> {
    let mut nanos = 0;
    for task in std::fs::read_dir(format!("/proc/{id}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        nanos += text.split(' ').next().context("schedstat has three numbers")?.parse::<u64>()?;
    }
    Ok(nanos / 1_000)
}

/// Private memory, read when it has stopped changing (garbage collectors take their time), or after 3 s.
fn settled_private_bytes(id: u32) -> anyhow::Result<u64> {
    let mut last = private_bytes(id)?;
    for _ in 0..15 {
        std::thread::sleep(std::time::Duration::from_millis(200));
        let now = private_bytes(id)?;
        if now.abs_diff(last) < 64 * 1024 {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}

fn private_bytes(id: u32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{id}/smaps_rollup"))?;
    let kibibytes: u64 = text
        .lines()
        .filter(|line| line.starts_with("Private_Clean:") || line.starts_with("Private_Dirty:"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum();
    if kibibytes == 0 {
        bail!("smaps_rollup of {id} tells no private memory");
    }
    Ok(kibibytes * 1024)
}
