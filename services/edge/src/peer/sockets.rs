//! Relayed WebSockets: bytes both ways between a client here and the engine of the owner.
//!
//! At the owner the other end is a socket of its engine like any other. Here it is a task that copies:
//! the engine's slots hold protocols, not pipes, and a client has such a socket only when a balancer
//! took its upgrade elsewhere than its handshake.

use futures_util::future::Either;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use prometheus_client::metrics::gauge::Gauge;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout};

/// Relayed sockets at once.
const SOCKETS: usize = 8_192;
/// Bytes on the way in each direction of one.
const BUFFER_BYTES: usize = 4 * 1024;
/// How long one half may stay open when the other has ended.
const HALF_CLOSED: Duration = Duration::from_secs(3);
/// How often the drain counts what is left.
const LOOK: Duration = Duration::from_millis(20);

/// All relayed sockets of an edge. Clones are the same.
#[derive(Clone, Debug)]
pub struct RelayedSockets {
    room: Arc<Semaphore>,
    count: Gauge,
    /// The end of the drain's window, once it has begun.
    drain: Arc<watch::Sender<Option<Instant>>>,
}

/// The right to one relayed socket.
#[derive(Debug)]
pub struct Place {
    all: RelayedSockets,
    _permit: OwnedSemaphorePermit,
}

impl RelayedSockets {
    /// None yet; `count` tells how many there are.
    pub fn new(count: Gauge) -> Self {
        Self { room: Arc::new(Semaphore::new(SOCKETS)), count, drain: Arc::new(watch::Sender::new(None)) }
    }

    /// Takes a place; `None`: there is none left, or the edge drains.
    pub fn place(&self) -> Option<Place> {
        let permit = self.room.clone().try_acquire_owned().ok()?;
        self.count.inc();
        let place = Place { all: self.clone(), _permit: permit };
        self.drain.borrow().is_none().then_some(place)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        SOCKETS - self.room.available_permits()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes all of them, evenly over `window`; returns when none is left, or `grace` after it.
    pub async fn drain(&self, window: Duration, grace: Duration) {
        let end = Instant::now() + window;
        self.drain.send_replace(Some(end));
        while !self.is_empty() && Instant::now() < end + grace {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Returns when the drain wants this one closed: at any time of the window.
    async fn wanted(&self) {
        let mut drain = self.drain.subscribe();
        let end = match drain.wait_for(Option::is_some).await {
            Ok(end) => end.unwrap_or_else(Instant::now),
            // The sender lives in `self`.
            Err(_) => return,
        };
        let window = end.saturating_duration_since(Instant::now());
        tokio::time::sleep(window.mul_f64(fastrand::f64())).await;
    }
}

impl Place {
    /// Copies until either end closes or breaks, or the drain ends it: then both are closed.
    pub async fn copy(self, client: OnUpgrade, owner: OnUpgrade) {
        let copy = async {
            let (Ok(client), Ok(owner)) = tokio::join!(client, owner) else { return };
            let (from_client, to_client) = tokio::io::split(TokioIo::new(client));
            let (from_owner, to_owner) = tokio::io::split(TokioIo::new(owner));
            let (mut up, mut down) = (pin!(pass_on(from_client, to_owner)), pin!(pass_on(from_owner, to_client)));
            // When one half has ended, the other has the time that the owner's engine would give it.
            // A broken end is the end of both; whose fault it was, the owner counts.
            let (ended, other) = tokio::select! {
                ended = up.as_mut() => (ended, Either::Left(down)),
                ended = down.as_mut() => (ended, Either::Right(up)),
            };
            if ended.is_ok() {
                let _late = timeout(HALF_CLOSED, other).await;
            }
        };
        tokio::select! {
            () = copy => {}
            () = self.all.wanted() => {}
        }
    }
}

/// Copies from one end to the other until the first has ended, and says so to the second.
async fn pass_on(from: impl AsyncRead, to: impl AsyncWrite) -> io::Result<()> {
    let (mut from, mut to) = (pin!(BufReader::with_capacity(BUFFER_BYTES, from)), pin!(to));
    tokio::io::copy_buf(&mut from, &mut to).await?;
    to.shutdown().await
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.count.dec();
    }
}
