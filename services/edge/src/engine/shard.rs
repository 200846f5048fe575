//! A shard: its loop.

use crate::bridge::{Inbound, Request};
use crate::engine::{Settings, ShardHandle};
use std::collections::VecDeque;
use std::io;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// One engine thread's sockets, rooms and timers.
#[derive(Debug)]
pub struct Shard {
    poll: mio::Poll,
    handle: ShardHandle,
    settings: Settings,
    requests: mpsc::Sender<Request>,
}

/// The inbox's place among the poll's tokens.
const INBOX: mio::Token = mio::Token(usize::MAX);

impl Shard {
    /// Makes a shard; `requests` leads to the hub.
    ///
    /// # Errors
    /// The system gives no poll or no event descriptor (out of descriptors).
    pub fn new(index: u16, settings: Settings, requests: mpsc::Sender<Request>) -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), INBOX)?;
        let handle = ShardHandle::new(index, settings.inbox, waker);
        Ok(Self { poll, handle, settings, requests })
    }

    /// A sender into the inbox.
    pub fn handle(&self) -> ShardHandle {
        self.handle.clone()
    }

    /// Runs until `stop`, on a current-thread runtime that this thread drives. Connections that are left
    /// then are closed without a word: drain first, by `Control::Drain`.
    ///
    /// # Errors
    /// The poll cannot be registered with the runtime.
    pub async fn run(self, stop: CancellationToken) -> io::Result<()> {
        let outer = watch(self.poll)?;
        let mut batch: VecDeque<Inbound> = VecDeque::with_capacity(self.settings.inbox.min(256));
        while !stop.is_cancelled() {
            self.handle.take(&mut batch, true);
            batch.clear();
            if self.requests.is_closed() {
                break;
            }
            let mut ready = outer.readable().await?;
            ready.clear_ready();
        }
        self.handle.close();
        Ok(())
    }
}

/// Puts the shard's poll under the runtime's.
#[allow(deprecated, reason = "the successor is unsafe for descriptors that may be closed; a poll keeps its own")]
fn watch(poll: mio::Poll) -> io::Result<AsyncFd<mio::Poll>> {
    AsyncFd::with_interest(poll, Interest::READABLE)
}
