//! What is measured, and the table that says it.

use crate::load::{Drive, Plan};
use crate::measure::{Measured, measure};
use crate::server::{LOAD_CORE, Peer, SERVER_CORE};
use crate::speak::Speak;
use std::fmt::Write;
use std::net::SocketAddr;

/// A column: its head, its value in one measurement, and whether the ratio to Bun is of interest.
type Column = (&'static str, fn(&Measured) -> f64, bool);

/// One load that every peer gets.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    title: String,
    plan: Plan,
    columns: Vec<Column>,
    /// Who is measured, whatever was asked for; the first is what the others are compared with.
    own: Option<Vec<Peer>>,
}

/// Clients of the first stage of `idle`.
const FIRST_STAGE: u64 = 1_000;

impl Scenario {
    pub(crate) fn all(seconds: u64, connections: usize) -> Vec<Self> {
        let plan = |stages: Vec<usize>, senders, rooms, drive| Plan {
            server: SocketAddr::from(([127, 0, 0, 1], 0)),
            speak: Speak::Bun,
            stages,
            senders,
            rooms,
            drive,
        };
        let latency: [Column; 4] = [
            ("p50 ms", |m| m.outcome.p50 as f64 / 1e3, true),
            ("p99 ms", |m| m.outcome.p99 as f64 / 1e3, true),
            ("p99.9 ms", |m| m.outcome.p999 as f64 / 1e3, false),
            ("max ms", |m| m.outcome.max as f64 / 1e3, false),
        ];
        let flow: [Column; 5] = [
            ("deliveries/s", |m| m.outcome.deliveries as f64 / m.outcome.seconds, true),
            ("CPU us each", |m| m.server_micros as f64 / m.outcome.deliveries as f64, true),
            ("server core %", |m| m.server_micros as f64 / m.outcome.seconds / 1e4, false),
            ("load core %", |m| m.load_micros as f64 / m.outcome.seconds / 1e4, false),
            ("per read", |m| m.outcome.per_read, false),
        ];
        let missing: Column = ("missing", |m| m.outcome.missing as f64, false);
        let under_load: Vec<Column> = flow.into_iter().chain(latency).chain([missing]).collect();
        let idle: Vec<Column> = vec![
            ("bytes each", slope, true),
            ("MiB first", |m| m.private_bytes[0] as f64 / 1_048_576.0, false),
            ("MiB last", |m| last(m) / 1_048_576.0, false),
        ];
        let rooms: Vec<Column> = vec![
            ("bytes a room", |m| (last(m) - m.private_bytes[0] as f64) / 95_000.0, true),
            ("MiB last", |m| last(m) / 1_048_576.0, false),
        ];
        vec![
            Self {
                name: "idle",
                title: format!("private memory of an idle connection, slope from {FIRST_STAGE} to {connections}"),
                plan: plan(vec![FIRST_STAGE as usize, connections], 0, 0, Drive::Idle),
                columns: idle,
                own: None,
            },
            Self {
                name: "room",
                title: format!("open loop: one room of 2,000, 50 messages/s, {seconds} s"),
                plan: plan(vec![2_000], 10, 0, Drive::Open { per_second: 50, seconds }),
                columns: under_load.clone(),
                own: None,
            },
            Self {
                name: "loop1000",
                title: format!("closed loop: 1,000 connections, 10 senders, {seconds} s"),
                plan: plan(vec![1_000], 10, 0, Drive::Closed { seconds }),
                columns: under_load.clone(),
                own: None,
            },
            Self {
                name: "loop32",
                title: format!("closed loop: 32 of 32 send, {seconds} s"),
                plan: plan(vec![32], 32, 0, Drive::Closed { seconds }),
                columns: under_load.clone(),
                own: None,
            },
            Self {
                name: "rooms",
                title: "100,000 rooms with a member each: 5,000 connections in 20 rooms of their own each, slope from 250, connections included"
                    .to_owned(),
                plan: plan(vec![250, 5_000], 0, 20, Drive::Idle),
                columns: rooms,
                own: None,
            },
            Self {
                name: "trace",
                title: format!("the cost of tracing: closed loop, 32 of 32 send, {seconds} s; ratios to Plaza untraced"),
                plan: plan(vec![32], 32, 0, Drive::Closed { seconds }),
                columns: under_load,
                own: Some(vec![Peer::Plaza, Peer::Traced("0"), Peer::Traced("0.01"), Peer::Traced("1")]),
            },
        ]
    }

    /// Measures all peers in turn, `runs` times, and writes the table.
    pub(crate) async fn run(&self, peers: &[Peer], runs: usize) -> String {
        let peers = self.own.as_deref().unwrap_or(peers);
        let mut results: Vec<Vec<Option<Measured>>> = vec![Vec::new(); peers.len()];
        let mut notes = String::new();
        for run in 1..=runs {
            for (peer, results) in peers.iter().zip(&mut results) {
                match measure(*peer, &self.plan).await {
                    Ok(measured) => results.push(Some(measured)),
                    Err(error) => {
                        let _ = writeln!(notes, "  run {run}, {}: {error:#}", peer.name());
                        results.push(None);
                    }
                }
            }
        }
        self.table(peers, &results) + &notes
    }

    fn table(&self, peers: &[Peer], results: &[Vec<Option<Measured>>]) -> String {
        let base = if self.own.is_some() { Some(0) } else { peers.iter().position(|peer| *peer == Peer::Bun) };
        let mut text = format!("\n{}: {}\n{:14}", self.name, self.title, "");
        for peer in peers {
            let _ = write!(text, "{:>27}", peer.name());
        }
        for (head, value, compared) in &self.columns {
            let _ = write!(text, "\n{head:14}");
            for (place, own) in results.iter().enumerate() {
                let base = base.filter(|base| *compared && place != *base).map(|base| &results[base]);
                let _ = write!(text, "{:>27}", cell(own, base, value));
            }
        }
        text + "\n"
    }
}

/// The median of a peer's values, and of its ratios to the runs of `base` with their range.
fn cell(own: &[Option<Measured>], base: Option<&Vec<Option<Measured>>>, value: &fn(&Measured) -> f64) -> String {
    let values: Vec<f64> = own.iter().flatten().map(value).collect();
    let pairs = own.iter().zip(base.into_iter().flatten());
    let ratios: Vec<f64> = pairs.filter_map(|(a, b)| Some(value(a.as_ref()?) / value(b.as_ref()?))).collect();
    let spread = |pick: fn(f64, f64) -> f64| ratios.iter().copied().reduce(pick).unwrap_or_default();
    match (median(&values), median(&ratios)) {
        (None, _) => "failed".to_owned(),
        (Some(value), None) => number(value),
        (Some(value), Some(ratio)) if ratios.len() == 1 => format!("{} ({ratio:.2})", number(value)),
        (Some(value), Some(ratio)) => {
            format!("{} ({ratio:.2}, {:.2}-{:.2})", number(value), spread(f64::min), spread(f64::max))
        }
    }
}

fn last(measured: &Measured) -> f64 {
    measured.private_bytes.last().copied().unwrap_or_default() as f64
}

/// Bytes per connection from the first stage to the last. The last is at least twice the first.
fn slope(measured: &Measured) -> f64 {
    (last(measured) - measured.private_bytes[0] as f64)
        / (measured.connections.saturating_sub(FIRST_STAGE)).max(1) as f64
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

fn number(value: f64) -> String {
    match value {
        large if large >= 1_000.0 => format!("{large:.0}"),
        small if small >= 10.0 => format!("{small:.1}"),
        tiny => format!("{tiny:.2}"),
    }
}

/// What the numbers were measured on.
pub(crate) fn machine() -> anyhow::Result<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map(|rest| rest.trim_start_matches(['\t', ':', ' ']));
    let commit = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output()?.stdout;
    Ok(format!(
        "commit {}, kernel {}, {}, congestion control {}, load average {}\n\
         servers on core {SERVER_CORE}, load on core {LOAD_CORE}, texts of {} bytes; medians, in brackets the ratio to Bun in the same run and its range",
        String::from_utf8_lossy(&commit).trim(),
        read("/proc/sys/kernel/osrelease"),
        model.unwrap_or("unknown CPU"),
        read("/proc/sys/net/ipv4/tcp_congestion_control"),
        read("/proc/loadavg"),
        crate::stamp::TEXT_BYTES,
    ))
}
