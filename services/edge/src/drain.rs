//! The end of an edge: it stops taking new sockets, sends the old ones away evenly, and finishes what
//! was published.

use crate::bridge::{Control, Inbound, Outlet};
use crate::control::Unfinished;
use crate::engine::ShardHandle;
use crate::peer::RelayedSockets;
use crate::trace::TRACER;
use plaza_kit::chaos::{self, Step};
use plaza_kit::trace::{Origin, SpanKind};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::Instant;

/// After the window connections are gone, or will not go.
const GRACE: Duration = Duration::from_millis(500);
/// What was published has so long to be stored.
const FINISH: Duration = Duration::from_secs(1);
/// How often the connections are counted.
const LOOK: Duration = Duration::from_millis(20);

/// Connections of all shards.
pub fn connections(shards: &[ShardHandle]) -> u64 {
    shards.iter().map(|shard| shard.stats().connections.load(Relaxed)).sum()
}

/// Closes every connection over `window`, in random order, and those relayed to other edges; returns
/// when none is left, or soon after the window.
pub async fn drain(shards: &[ShardHandle], relayed: &RelayedSockets, window: Duration) {
    let (count, others) = (connections(shards), relayed.len());
    if count > 0 || others > 0 {
        tracing::info!(
            connections = count,
            relayed = others,
            window_ms = window.as_millis() as u64,
            "closing connections"
        );
    }
    let mut span = TRACER.root("drain", SpanKind::Internal, Origin::default());
    if let Some(span) = &mut span {
        span.set("plaza.connections", i64::try_from(count).unwrap_or(i64::MAX));
        span.set("plaza.relayed", i64::try_from(others).unwrap_or(i64::MAX));
    }
    tokio::join!(close(shards, window), relayed.drain(window, GRACE));
}

async fn close(shards: &[ShardHandle], window: Duration) {
    // Where nobody is, nobody needs time: who was let in at the last moment is told at once.
    let is_empty = connections(shards) == 0;
    let window = if is_empty { Duration::ZERO } else { window };
    let window_ms = u32::try_from(window.as_millis()).unwrap_or(u32::MAX);
    for shard in shards {
        shard.send(Inbound::Control(Control::Drain { window_ms }));
        shard.wake();
    }
    if is_empty {
        return;
    }
    chaos::step(Step::Draining);
    let end = Instant::now() + window + GRACE;
    while connections(shards) > 0 && Instant::now() < end {
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until what was published has its result, for a second at most: what has none by then was never
/// acknowledged, and its client sends it again.
pub async fn finish(unfinished: &Unfinished) {
    let end = Instant::now() + FINISH;
    // The last wishes of the connections are read within one look.
    loop {
        tokio::time::sleep(LOOK).await;
        if unfinished.count() == 0 {
            return;
        }
        if Instant::now() >= end {
            tracing::warn!(unfinished = unfinished.count(), "publishes without a result at the end of the drain");
            return;
        }
    }
}
