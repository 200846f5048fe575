//! How long a client may take for the head of a request.
//!
//! ```text
//! accept ── head_timeout ──> first head          answer ── idle_timeout ──> first byte ── head_timeout ──> head
//! ```
//! hyper has one time for both, which either closes connections that a load balancer keeps for reuse,
//! while it is about to reuse them, or lets slow heads hold a connection for as long. So the socket
//! counts what is read, and the timer that hyper asks looks at the count.

use super::limits::HttpLimits;
use hyper::rt::{Sleep, Timer};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A socket that counts the bytes that are read from it.
#[derive(Debug)]
pub(super) struct Counted {
    socket: TcpStream,
    read: Arc<AtomicU64>,
}

impl Counted {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self { socket, read: Arc::default() }
    }

    pub(super) fn into_inner(self) -> TcpStream {
        self.socket
    }

    /// The timer for the heads of this socket's requests.
    pub(super) fn timer(&self, limits: HttpLimits) -> HeadTimer {
        HeadTimer { read: self.read.clone(), limits }
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.socket).poll_read(cx, buf);
        self.read.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        result
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// What hyper asks for the time that a head may take.
#[derive(Debug)]
pub(super) struct HeadTimer {
    read: Arc<AtomicU64>,
    limits: HttpLimits,
}

impl HeadTimer {
    fn wait(&self) -> HeadSleep {
        let seen = self.read.load(Ordering::Relaxed);
        // Nothing read yet: the connection is new, and its time runs from the accept.
        let (idle, time) =
            if seen == 0 { (false, self.limits.header_timeout) } else { (true, self.limits.idle_timeout) };
        HeadSleep {
            sleep: Box::pin(tokio::time::sleep(time)),
            idle,
            seen,
            read: self.read.clone(),
            header_timeout: self.limits.header_timeout,
        }
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, _: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(self.wait())
    }

    fn sleep_until(&self, _: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(self.wait())
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, _: Instant) {
        *sleep = Box::pin(self.wait());
    }
}

/// Ends when the head is late. hyper polls it after each read that did not complete a head.
struct HeadSleep {
    sleep: Pin<Box<tokio::time::Sleep>>,
    /// Between requests: nothing of the next head has come.
    idle: bool,
    seen: u64,
    read: Arc<AtomicU64>,
    header_timeout: Duration,
}

impl Sleep for HeadSleep {}

impl Future for HeadSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.idle && self.read.load(Ordering::Relaxed) != self.seen {
            self.idle = false;
            let deadline = tokio::time::Instant::now() + self.header_timeout;
            self.sleep.as_mut().reset(deadline);
        }
        self.sleep.as_mut().poll(cx)
    }
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
