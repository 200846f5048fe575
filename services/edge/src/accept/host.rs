//! The accept loop of a shard: an axum router on hyper's HTTP/1, one small task per HTTP connection.

use super::address::Peer;
use super::ceiling::{Full, Space};
use super::head::Counted;
use super::limits::HttpLimits;
use super::listener::tune;
use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use plaza_kit::chaos::{self, Step};
use plaza_kit::platform;
use plaza_kit::telemetry::LogGate;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// Bytes of a request's head, and of the read buffer.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Header lines of a request.
const MAX_HEADERS: usize = 64;
/// How long requests that are open at the stop may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the loop rests when the system gives no more descriptors.
const OUT_OF_DESCRIPTORS_PAUSE: Duration = Duration::from_millis(100);

/// One line a second of clients that are turned away.
static FULL: LogGate = LogGate::per_second(1);

/// Accepts and serves until `stop`; then the listener closes, open requests have five seconds to end, and
/// idle connections end at once. Runs on a shard's current-thread runtime.
///
/// A request's head has at most 16 KiB and 64 headers. Out of descriptors, accepting pauses and goes on.
///
/// # Errors
/// The listener cannot be registered with the runtime.
pub async fn serve(
    listener: std::net::TcpListener,
    router: Router,
    limits: HttpLimits,
    stop: CancellationToken,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let tasks = TaskTracker::new();
    let permits = Arc::new(Semaphore::new(limits.max_connections));
    let mut exhausted = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        match accepted {
            Ok((socket, peer, permit)) => {
                chaos::step(Step::Accepted);
                exhausted = false;
                let space = limits.ceiling.map_or(Space::Enough, |ceiling| ceiling.space(socket.as_raw_fd()));
                if space != Space::Enough
                    && let Some(suppressed) = FULL.pass()
                {
                    let advice = "raise the limit of descriptors, or run more edges";
                    tracing::warn!(suppressed, advice, "new clients are turned away: few descriptors are left");
                }
                if space == Space::None {
                    continue;
                }
                let full = space == Space::Refuse;
                let (router, tasks_of_it, stop) = (router.clone(), tasks.clone(), stop.clone());
                let connection = serve_connection(socket, peer, full, router, limits, tasks_of_it, stop);
                tasks.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) if is_exhausted(&error) => {
                if !std::mem::replace(&mut exhausted, true) {
                    tracing::error!(%error, "accepting pauses: the system gives no more descriptors");
                }
                tokio::time::sleep(OUT_OF_DESCRIPTORS_PAUSE).await;
            }
            // The client was gone before it was accepted.
            Err(error) => tracing::debug!(%error, "a connection was not accepted"),
        }
    }
    drop(listener);
    tasks.close();
    let _late = tokio::time::timeout(STOP_TIMEOUT, tasks.wait()).await;
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, Peer, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    let (socket, from) = listener.accept().await?;
    tune(&socket)?;
    Ok((socket, Peer(from.ip()), permit))
}

/// Serves one HTTP connection until it ends or is upgraded. What goes wrong on it is the client's affair.
async fn serve_connection(
    socket: TcpStream,
    peer: Peer,
    full: bool,
    router: Router,
    limits: HttpLimits,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        // For `upgrade`, whose hand-over outlives the request.
        request.extensions_mut().insert(tasks.clone());
        request.extensions_mut().insert(peer);
        if full {
            request.extensions_mut().insert(Full);
        }
        router.clone().oneshot(request.map(Body::new))
    });
    let socket = Counted::new(socket);
    let connection = http1::Builder::new()
        .timer(socket.timer(limits))
        .header_read_timeout(limits.header_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%error, "an HTTP connection ended early");
    }
}

/// No descriptor or no memory for another socket.
fn is_exhausted(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| platform::EXHAUSTED.contains(&code))
}
