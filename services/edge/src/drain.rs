//! The end of an edge: it stops taking new sockets, sends the old ones away evenly, and finishes what
//! was published.

use crate::bridge::{Control, Inbound};
use crate::engine::ShardHandle;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::Instant;

/// After the window connections are gone, or will not go.
const GRACE: Duration = Duration::from_millis(500);
/// How often the connections are counted.
const LOOK: Duration = Duration::from_millis(20);

/// Connections of all shards.
pub fn connections(shards: &[ShardHandle]) -> u64 {
    shards.iter().map(|shard| shard.stats().connections.load(Relaxed)).sum()
}

/// Closes every connection over `window`, in random order; returns when none is left, or soon after the
/// window.
pub async fn drain(shards: &[ShardHandle], window: Duration) {
    let count = connections(shards);
    if count == 0 {
        return;
    }
    tracing::info!(connections = count, window_ms = window.as_millis() as u64, "closing connections");
    let window_ms = u32::try_from(window.as_millis()).unwrap_or(u32::MAX);
    for shard in shards {
        shard.send(Inbound::Control(Control::Drain { window_ms }));
    }
    let end = Instant::now() + window + GRACE;
    while connections(shards) > 0 && Instant::now() < end {
        tokio::time::sleep(LOOK).await;
    }
}
