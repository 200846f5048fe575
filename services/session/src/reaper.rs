//! Clears what dead edges left, every one to two seconds. Any number of replicas may do it; with a Lease one
//! does, while the API of the cluster says which.

use crate::TRACER;
use crate::metrics::SessionMetrics;
use crate::store::{Reaped, SessionStore, StoreError};
use plaza_kit::kubernetes::lease::Lease;
use plaza_kit::shutdown::Shutdown;
use plaza_kit::trace::SpanKind;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Runs until the shutdown begins. `lease`: when it is this process's turn; without one, always.
pub async fn run(store: Arc<dyn SessionStore>, metrics: SessionMetrics, lease: Option<Lease>, shutdown: Shutdown) {
    loop {
        // With jitter, so that replicas do not step on the same edge at once.
        let pause = Duration::from_millis(fastrand::u64(1_000..2_000));
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let mine = lease.as_ref().is_none_or(Lease::is_mine);
        metrics.reaping(mine);
        if mine {
            // A store that is away is reported by the store itself, once.
            let cleared = clear(store.as_ref(), &metrics, &shutdown).await;
            lease.iter().for_each(|lease| lease.worked(cleared.is_ok()));
        }
        if let Ok(totals) = store.totals().await {
            metrics.totals(totals);
        }
    }
}

/// Steps until nothing is left to clear. Each step is bounded, so other calls get their turn.
async fn clear(store: &dyn SessionStore, metrics: &SessionMetrics, shutdown: &Shutdown) -> Result<(), StoreError> {
    let (begin, mut all) = (SystemTime::now(), Reaped::default());
    while !shutdown.is_begun() {
        let step = store.reap().await?;
        metrics.reaped(step);
        all.edges += step.edges;
        all.sessions += step.sessions;
        all.presences += step.presences;
        if !step.more {
            break;
        }
    }
    if all.edges > 0 {
        let Reaped { edges, sessions, presences, .. } = all;
        tracing::info!(edges, sessions, presences, "cleared dead edges");
        if let Some(mut span) = TRACER.since("reap", SpanKind::Internal, begin) {
            for (name, count) in [("plaza.edges", edges), ("plaza.sessions", sessions)] {
                span.set(name, i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
    }
    Ok(())
}
