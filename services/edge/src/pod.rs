//! What the edge tells Kubernetes about its pod, where it was asked to: what it costs to delete it, and that
//! it drains. Nobody waits for it.

use crate::config::Kubernetes;
use crate::drain;
use crate::engine::ShardHandle;
use plaza_kit::kubernetes::pod::Pod;
use plaza_kit::shutdown::Shutdown;
use std::time::{Duration, Instant};

/// The last event of a drain may take so long: what ends beside it takes longer.
const LAST_EVENT: Duration = Duration::from_millis(700);

/// The pod, for as long as it serves.
#[derive(Debug)]
pub struct Teller {
    /// `None`: no events.
    pod: Option<Pod>,
    /// When the drain began, and with how many connections.
    drain: Option<(Instant, u64)>,
}

impl Teller {
    /// Starts what was asked for. Outside of a pod, which has no name, that is nothing.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(wanted: Kubernetes, shards: &[ShardHandle], shutdown: &Shutdown) -> Self {
        let pod = Pod::of_process();
        if pod.is_none() && (wanted.deletion_cost || wanted.drain_events) {
            tracing::warn!("without POD_NAME Kubernetes is told nothing of this edge");
        }
        if let Some(pod) = pod.clone().filter(|_| wanted.deletion_cost) {
            let (shards, stop) = (shards.to_vec(), shutdown.clone());
            shutdown.spawn("deletion cost", async move {
                tokio::select! {
                    () = pod.keep_cost(|| drain::connections(&shards)) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
        Self { pod: pod.filter(|_| wanted.drain_events), drain: None }
    }

    /// The drain has begun.
    pub fn draining(&mut self, shards: &[ShardHandle], window: Duration, shutdown: &Shutdown) {
        let count = drain::connections(shards);
        self.drain = Some((Instant::now(), count));
        if let Some(pod) = self.pod.clone() {
            let note = format!("{count} connections are closed over {} s", window.as_secs_f64());
            shutdown.spawn_last("event", async move { pod.event("DrainStarted", note).await });
        }
    }

    /// The drain is over.
    pub async fn drained(self, shards: &[ShardHandle]) {
        let (Some(pod), Some((begin, count))) = (self.pod, self.drain) else { return };
        let (left, took) = (drain::connections(shards), begin.elapsed().as_secs_f64());
        let note = format!("{} of {count} connections were closed in {took:.1} s", count.saturating_sub(left));
        let _late = tokio::time::timeout(LAST_EVENT, pod.event("DrainCompleted", note)).await;
    }
}
