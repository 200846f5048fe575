//! The wiring: a log, the service over it, and what runs beside.

use crate::log::jetstream::{JetStreamError, JetStreamLog};
use crate::log::{EventLog, memory::MemoryLog};
use crate::metrics::FanoutMetrics;
use crate::service::{Fanout, SERVICE_NAME};
use crate::{Config, log};
use plaza_kit::admin::{self, AdminError, Readiness};
use plaza_kit::grpc::{self, GrpcOptions, ServeError};
use plaza_kit::metrics::Metrics;
use plaza_kit::shutdown::Shutdown;
use plaza_kit::trace::Server;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tonic::service::Routes;

/// How often the memory log proves to its edge that it lives; JetStream's has its own beat.
const BEAT: Duration = Duration::from_secs(1);

/// What the caller has made: listeners are bound before anything starts.
#[derive(Debug)]
pub struct Parts {
    /// Of the gRPC API; non-blocking.
    pub listener: TcpListener,
    /// Of the admin routes; `None` when the process serves them elsewhere.
    pub admin_listener: Option<TcpListener>,
    /// Where metrics are registered.
    pub metrics: Arc<Metrics>,
    /// What the admin routes tell.
    pub readiness: Readiness,
    /// How gRPC is served.
    pub grpc: GrpcOptions,
    /// A log in memory, whose feed the caller holds. `None`: JetStream at [`Config::nats_url`].
    pub memory: Option<Arc<MemoryLog>>,
    /// Who publishes in this process without gRPC; it is given the service once the log is there.
    pub local: Option<oneshot::Sender<Fanout>>,
}

/// Why the room log ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Neither a log in memory nor a NATS server was named.
    #[error("no store: --nats-url is needed, such as nats://127.0.0.1:4222")]
    NoStore,
    /// The store can never serve.
    #[error(transparent)]
    Store(#[from] JetStreamError),
    /// The admin routes cannot be served.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// gRPC cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Serves the room log until the shutdown begins and open calls have ended.
///
/// A store that is away is waited for: the process lives, says so on `/readyz`, and answers
/// `unavailable`.
///
/// # Errors
/// [`RunError`]: at start, and when the store turns out to be one that can never serve.
pub async fn run(config: Config, parts: Parts, shutdown: Shutdown) -> Result<(), RunError> {
    let served = parts.metrics.served_calls();
    let metrics = Arc::new(parts.metrics.registry(FanoutMetrics::new));
    if let Some(listener) = parts.admin_listener {
        admin::serve(listener, Arc::clone(&parts.metrics), parts.readiness.clone(), &shutdown)?;
    }
    let latch = parts.readiness.latch("fanout");
    // A log in memory is in no NATS, whatever the settings name.
    let nats = config.nats_url.as_deref().filter(|_| parts.memory.is_none());
    let nats = nats.and_then(|urls| Server::of_urls(urls, 4_222));
    let (log, store): (Arc<dyn EventLog>, _) = match parts.memory {
        Some(memory) => {
            shutdown.spawn("beat", beat(Arc::clone(&memory), shutdown.clone()));
            (memory, None)
        }
        None => {
            let options = log::jetstream::Options::new(&config).ok_or(RunError::NoStore)?;
            let jetstream =
                JetStreamLog::start(options, Arc::clone(&metrics), parts.readiness.clone(), &shutdown).await?;
            (Arc::clone(&jetstream) as Arc<dyn EventLog>, Some(jetstream))
        }
    };
    let fanout = Fanout::new(log, nats, metrics, shutdown.clone());
    if let Some(local) = parts.local {
        // Whoever asked for it may be gone.
        let _gone = local.send(fanout.clone());
    }
    let routes = Routes::new(fanout.into_server());
    latch.release();
    let serving = grpc::serve(parts.listener, routes, &[SERVICE_NAME], parts.grpc, served, shutdown.clone());
    match store {
        None => serving.await?,
        Some(store) => tokio::select! {
            served = serving => served?,
            error = store.failed() => return Err(error.into()),
        },
    }
    Ok(())
}

async fn beat(log: Arc<MemoryLog>, shutdown: Shutdown) {
    let mut ticks = tokio::time::interval(BEAT);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => log.beat(),
            () = shutdown.cancelled() => return,
        }
    }
}
