//! The admin endpoints of every service: `/livez`, `/readyz`, `/metrics`, and `PUT /log-level`, whose body
//! is what `--log-level` takes.
//!
//! Liveness says that the process answers, and nothing else: a store that is away is no reason to
//! restart. Readiness says whether new work should come here: every latch is released, every
//! store has been there once, and no drain has begun. What is wrong without being a reason to take
//! traffic away is a `degraded` fact.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};

use crate::metrics::{self, Metrics};
use crate::shutdown::Shutdown;
use crate::telemetry;

/// Longest body of `PUT /log-level`, in bytes.
const LOG_LEVEL_BYTES: usize = 1024;

/// What a process waits for before it takes work. Clones are the same readiness.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<Facts>>);

#[derive(Debug, Default)]
struct Facts {
    /// How many latches of each name are still held.
    waiting: BTreeMap<&'static str, usize>,
    degraded: BTreeMap<&'static str, String>,
    /// Since when.
    draining: Option<Instant>,
}

impl Readiness {
    /// A readiness that waits for nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Something to wait for: not ready until the latch is released. The name is shown at
    /// `/readyz`, so it says what is missing: `session service`, `nats`.
    #[must_use]
    pub fn latch(&self, name: &'static str) -> Latch {
        *self.lock().waiting.entry(name).or_default() += 1;
        Latch { readiness: self.clone(), name }
    }

    /// Waits for the first good word on a fact: not ready until [`set_degraded`](Self::set_degraded) with
    /// `None` has been called for it once. Later outages degrade and do not take readiness away.
    pub fn expect(&self, name: &'static str) {
        self.lock().waiting.insert(name, 1);
    }

    /// Not ready from now on: the drain has begun.
    pub fn drain(&self) {
        self.lock().draining.get_or_insert_with(Instant::now);
    }

    /// States or, with `None`, ends a fact that operators should know and that does not fail
    /// readiness: `nats`, "no beat for 12 s".
    pub fn set_degraded(&self, name: &'static str, fact: Option<String>) {
        let mut facts = self.lock();
        match fact {
            Some(fact) => facts.degraded.insert(name, fact),
            None => {
                facts.waiting.remove(name);
                facts.degraded.remove(name)
            }
        };
    }

    /// Whether new work should come here.
    pub fn is_ready(&self) -> bool {
        let facts = self.lock();
        facts.waiting.is_empty() && facts.draining.is_none()
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        self.lock().draining.is_some()
    }

    /// The body of `/readyz`: one line for each fact.
    fn describe(&self) -> (bool, String) {
        let facts = self.lock();
        let ready = facts.waiting.is_empty() && facts.draining.is_none();
        let mut body = String::from(if ready { "ready\n" } else { "not ready\n" });
        if facts.draining.is_some() {
            body.push_str("draining\n");
        }
        for name in facts.waiting.keys() {
            body.push_str(&format!("waiting for {name}\n"));
        }
        for (name, fact) in &facts.degraded {
            body.push_str(&format!("degraded: {name}: {fact}\n"));
        }
        (ready, body)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The readiness as metrics.
impl Collector for Readiness {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (draining, degraded) = {
            let facts = self.lock();
            (facts.draining, facts.degraded.len())
        };
        let mut gauge = |name: &str, help: &str, value: i64| {
            let metric = ConstGauge::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        gauge("plaza_ready", "Whether new work should come here: 1 or 0", i64::from(self.is_ready()))?;
        gauge("plaza_draining", "Whether the drain has begun: 1 or 0", i64::from(draining.is_some()))?;
        gauge("plaza_degraded", "Facts that are wrong and take no traffic away, see /readyz", degraded as i64)?;
        let since = ConstGauge::new(draining.map_or(0.0, |begin| begin.elapsed().as_secs_f64()));
        let help = "Time since the drain began; 0 before";
        since.encode(encoder.encode_descriptor("plaza_drain", help, Some(&Unit::Seconds), since.metric_type())?)
    }
}

/// Holds readiness back. A latch that is dropped without [`release`](Self::release) holds it back
/// for ever: the part that should have released it has failed.
#[derive(Debug)]
pub struct Latch {
    readiness: Readiness,
    name: &'static str,
}

impl Latch {
    /// What was waited for is there.
    #[allow(clippy::needless_pass_by_value, reason = "a latch is released once")]
    pub fn release(self) {
        let mut facts = self.readiness.lock();
        if let Some(count) = facts.waiting.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                facts.waiting.remove(self.name);
            }
        }
    }
}

/// The admin endpoints could not be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve the admin endpoints")]
pub struct AdminError(#[from] io::Error);

/// Starts to serve the admin endpoints, and returns. They are served until the drain has ended:
/// `/readyz` is 503 and `/metrics` still answers while it lasts.
///
/// `listener` is non-blocking, as [`net::bind`](crate::net::bind) gives it.
///
/// # Errors
/// The listener cannot be registered with the runtime.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn serve(
    listener: std::net::TcpListener,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    shutdown: &Shutdown,
) -> Result<(), AdminError> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    metrics.registry(|registry| registry.register_collector(Box::new(readiness.clone())));
    let (begun, drained) = (shutdown.clone(), shutdown.drained());
    let draining = readiness.clone();
    shutdown.spawn_last("readiness", async move {
        begun.cancelled().await;
        draining.drain();
    });
    let serving = axum::serve(listener, routes(metrics, readiness));
    shutdown.spawn_last("admin", async move {
        tokio::select! {
            result = serving => if let Err(error) = result {
                tracing::error!(%error, "admin endpoints ended");
            },
            () = drained.cancelled() => {}
        }
    });
    Ok(())
}

/// The routes of [`serve`], for a process that serves them elsewhere.
pub fn routes(metrics: Arc<Metrics>, readiness: Readiness) -> Router {
    // `get` answers HEAD too.
    Router::new()
        .route("/livez", get(async || text(StatusCode::OK, "text/plain; charset=utf-8", "alive\n".to_owned())))
        .route("/readyz", get(readyz).with_state(readiness))
        .route("/metrics", get(scrape).with_state(metrics))
        .route("/log-level", put(log_level).layer(DefaultBodyLimit::max(LOG_LEVEL_BYTES)))
}

async fn readyz(State(readiness): State<Readiness>) -> Response {
    let (ready, body) = readiness.describe();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    text(status, "text/plain; charset=utf-8", body)
}

/// Changes what is logged until the process ends.
async fn log_level(level: String) -> Response {
    match telemetry::set_level(level.trim()) {
        Ok(()) => text(StatusCode::OK, "text/plain; charset=utf-8", "changed\n".to_owned()),
        Err(message) => text(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", format!("{message}\n")),
    }
}

async fn scrape(State(metrics): State<Arc<Metrics>>) -> Response {
    text(StatusCode::OK, metrics::CONTENT_TYPE, metrics.encode())
}

fn text(status: StatusCode, content_type: &'static str, body: String) -> Response {
    (status, [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store")], body).into_response()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    use super::*;

    /// One request on a connection of its own; the whole answer.
    async fn ask(addr: SocketAddr, method: &'static str, path: &'static str) -> String {
        let request = move || {
            let mut stream = std::net::TcpStream::connect(addr)?;
            write!(stream, "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok::<_, io::Error>(answer)
        };
        tokio::task::spawn_blocking(request).await.unwrap().unwrap()
    }

    fn start(readiness: &Readiness, shutdown: &Shutdown) -> SocketAddr {
        let listener = crate::net::bind((Ipv4Addr::LOCALHOST, 0).into(), "admin-listen").unwrap();
        let addr = listener.local_addr().unwrap();
        serve(listener, Arc::new(Metrics::new("test", "0")), readiness.clone(), shutdown).unwrap();
        addr
    }

    #[tokio::test]
    async fn readiness_waits_for_every_latch_and_says_for_which() {
        let (readiness, shutdown) = (Readiness::new(), Shutdown::new());
        let (redis, nats) = (readiness.latch("redis"), readiness.latch("nats"));
        let addr = start(&readiness, &shutdown);
        redis.release();
        let answer = ask(addr, "GET", "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.ends_with("not ready\nwaiting for nats\n"), "{answer}");
        nats.release();
        readiness.set_degraded("nats", Some("no beat for 12 s".to_owned()));
        let answer = ask(addr, "GET", "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.ends_with("ready\ndegraded: nats: no beat for 12 s\n"), "{answer}");
        let answer = ask(addr, "HEAD", "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    }

    #[test]
    fn a_store_is_waited_for_once() {
        let readiness = Readiness::new();
        readiness.expect("nats");
        readiness.set_degraded("nats", Some("not connected".to_owned()));
        assert!(!readiness.is_ready());
        readiness.set_degraded("nats", None);
        assert!(readiness.is_ready());
        readiness.set_degraded("nats", Some("gone".to_owned()));
        assert!(readiness.is_ready(), "an outage is no reason to take traffic away");
    }

    #[tokio::test]
    async fn liveness_and_metrics_answer_while_draining() {
        let (readiness, shutdown) = (Readiness::new(), Shutdown::new());
        let addr = start(&readiness, &shutdown);
        let draining = shutdown.clone();
        let (finish, finished) = tokio::sync::oneshot::channel::<()>();
        shutdown.spawn("drain", async move {
            draining.cancelled().await;
            let _ = finished.await;
        });
        shutdown.begin();
        assert!(ask(addr, "GET", "/livez").await.starts_with("HTTP/1.1 200 "));
        assert!(ask(addr, "GET", "/metrics").await.contains("plaza_build_info{"));
        finish.send(()).unwrap();
        assert!(shutdown.wait(Duration::from_secs(5)).await);
        assert!(!readiness.is_ready());
        assert!(std::net::TcpStream::connect(addr).is_err());
    }
}
