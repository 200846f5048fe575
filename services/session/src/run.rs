//! The wiring: a store, the services over it, and what runs beside.

use crate::config::Config;
use crate::control::ControlSender;
use crate::metrics::SessionMetrics;
use crate::outbox::{News, Publisher};
use crate::reaper;
use crate::service::{SERVICE_NAMES, Services};
use crate::store::memory::MemoryStore;
use crate::store::redis::{BadUrl, RedisStore};
use crate::store::{SessionStore, StoreOptions};
use plaza_kit::admin::{self, AdminError, Readiness};
use plaza_kit::grpc::{self, GrpcOptions, ServeError};
use plaza_kit::kubernetes::lease::Lease;
use plaza_kit::kubernetes::pod::Pod;
use plaza_kit::metrics::Metrics;
use plaza_kit::shutdown::Shutdown;
use std::net::TcpListener;
use std::sync::Arc;

/// What the caller has made: listeners are bound before anything starts.
#[derive(Debug)]
pub struct Parts {
    /// Of the gRPC API; non-blocking.
    pub listener: TcpListener,
    /// Of the admin endpoints; `None` when the process serves them elsewhere.
    pub admin_listener: Option<TcpListener>,
    /// Where metrics are registered.
    pub metrics: Arc<Metrics>,
    /// What `/readyz` tells.
    pub readiness: Readiness,
    /// How gRPC is served.
    pub grpc: GrpcOptions,
}

/// Why the service ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The Redis URL cannot be used.
    #[error("--redis-url cannot be used")]
    Redis(#[from] BadUrl),
    /// The admin endpoints cannot be served.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// gRPC cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Serves sessions until the shutdown begins and open calls have ended.
///
/// Redis and fanout may be away, at the start too: both are waited for, calls that need Redis answer
/// `unavailable`, and `/readyz` says what is degraded. It is 503 until Redis has answered once; a later
/// outage does not change it.
///
/// # Errors
/// [`RunError`], only at the start or when a listener fails.
pub async fn run(config: Config, parts: Parts, shutdown: Shutdown) -> Result<(), RunError> {
    let latch = parts.readiness.latch("session");
    let (served, made) = (parts.metrics.served_calls(), parts.metrics.made_calls());
    let metrics = parts.metrics.registry(|registry| SessionMetrics::register(registry, made));
    let options =
        StoreOptions { lease: config.lease, recovery_window: config.recovery_window, ..StoreOptions::default() };
    let store: Arc<dyn SessionStore> = match &config.redis_url {
        Some(url) => Arc::new(RedisStore::new(url, options, metrics.clone(), parts.readiness.clone())?),
        None => Arc::new(MemoryStore::new(options)),
    };
    let fanout = config.fanout.as_ref().map(|targets| targets.channel(&shutdown));
    let news = Arc::new(News::default());
    let services = Services {
        store: Arc::clone(&store),
        news: Arc::clone(&news),
        control: ControlSender::new(fanout.clone(), metrics.clone(), shutdown.clone()),
        metrics: metrics.clone(),
        unique_usernames: config.unique_usernames,
        lease_ms: u32::try_from(config.lease.as_millis()).unwrap_or(u32::MAX),
    };
    if let Some(listener) = parts.admin_listener {
        admin::serve(listener, parts.metrics, parts.readiness.clone(), &shutdown)?;
    }
    let lease = config.reaper_lease.map(|name| Lease::compete(name, identity(), &shutdown));
    shutdown.spawn("reaper", reaper::run(Arc::clone(&store), metrics.clone(), lease, shutdown.clone()));
    if let (Some(fanout), Some(targets)) = (fanout, config.fanout) {
        let publisher = Publisher::new(store, fanout, targets.server(), news, metrics);
        shutdown.spawn("outbox", publisher.run(shutdown.clone()));
    }
    latch.release();
    grpc::serve(parts.listener, services.routes(), SERVICE_NAMES, parts.grpc, served, shutdown).await?;
    Ok(())
}

/// Who holds the Lease, for people: the pod. Outside of one a number, as two processes must differ.
fn identity() -> String {
    Pod::of_process().map_or_else(|| format!("session-{:08x}", fastrand::u32(..)), |pod| pod.name)
}
