//! A shard's one inbox: a bounded FIFO that other threads push into and the shard empties in batches.

use crate::bridge::{Delivery, Full, Inbound, Outlet};
use crate::engine::{Adopt, Poll, Stats};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Messages that the inbox holds without allocating.
pub(super) const INBOX_ROOM: usize = 1_024;

/// The sender's side of a shard's inbox; cheap to clone.
///
/// Never waits: one short lock, and a wake-up only when the shard sleeps.
#[derive(Clone, Debug)]
pub struct ShardHandle {
    shared: Arc<Shared>,
}

/// What the two sides share.
#[derive(Debug)]
pub(super) struct Shared {
    index: u16,
    capacity: usize,
    queue: Mutex<Queue>,
    waker: mio::Waker,
    stats: Stats,
}

#[derive(Debug)]
struct Queue {
    messages: VecDeque<Inbound>,
    /// The shard is about to sleep, or sleeps: the next message wakes it.
    sleeping: bool,
    /// The shard is gone; messages are dropped.
    closed: bool,
}

impl ShardHandle {
    pub(super) fn new(index: u16, capacity: usize, waker: mio::Waker) -> Self {
        let messages = VecDeque::with_capacity(INBOX_ROOM.min(capacity));
        let queue = Mutex::new(Queue { messages, sleeping: false, closed: false });
        Self { shared: Arc::new(Shared { index, capacity, queue, waker, stats: Stats::default() }) }
    }

    /// Which shard this is.
    pub fn index(&self) -> u16 {
        self.shared.index
    }

    /// The shard's counters.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Hands over a socket after its upgrade.
    ///
    /// # Errors
    /// [`Full`]: twice the bound waits; the socket is closed by dropping it.
    pub fn adopt(&self, adopt: Adopt) -> Result<(), Full> {
        self.hand_over(Inbound::Adopt(Box::new(adopt)))
    }

    /// Hands over a long-polling call.
    ///
    /// # Errors
    /// [`Full`]: twice the bound waits; answer 503.
    pub fn poll(&self, poll: Poll) -> Result<(), Full> {
        self.hand_over(Inbound::Poll(Box::new(poll)))
    }

    fn hand_over(&self, message: Inbound) -> Result<(), Full> {
        self.push(message, self.shared.capacity.saturating_mul(2))?;
        self.wake();
        Ok(())
    }

    /// Queues a message and wakes nobody.
    fn push(&self, message: Inbound, bound: usize) -> Result<(), Full> {
        let mut queue = self.lock();
        if queue.closed || queue.messages.len() >= bound {
            return Err(Full);
        }
        queue.messages.push_back(message);
        Ok(())
    }

    /// Moves what waits into `batch`, which is empty.
    pub(super) fn take(&self, batch: &mut VecDeque<Inbound>) {
        let mut queue = self.lock();
        queue.sleeping = false;
        if !queue.messages.is_empty() {
            std::mem::swap(&mut queue.messages, batch);
        }
    }

    /// Says that the shard is about to sleep, so that the next message wakes it. `true`: it must not,
    /// something waits.
    pub(super) fn sleep(&self) -> bool {
        let mut queue = self.lock();
        queue.sleeping = queue.messages.is_empty();
        !queue.sleeping
    }

    /// Refuses everything from now on and drops what waits.
    pub(super) fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        let left = std::mem::take(&mut queue.messages);
        drop(queue);
        drop(left);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No code panics while it holds the lock, so a poisoned queue is still whole.
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hub's way in: it wakes the shard once for all that a round has brought.
impl Outlet for ShardHandle {
    fn try_deliver(&self, delivery: Arc<Delivery>) -> Result<(), Full> {
        self.push(Inbound::Deliver(delivery), self.shared.capacity)
    }

    /// The number of replies and controls is bounded by the requests in flight and by the connections,
    /// so they have room above the bound for deliveries.
    fn send(&self, message: Inbound) {
        // A shard that is gone has no connection left to tell.
        let _gone = self.push(message, usize::MAX);
    }

    fn wake(&self) {
        let mut queue = self.lock();
        if queue.sleeping && !queue.messages.is_empty() {
            queue.sleeping = false;
            drop(queue);
            // Fails only when the shard's poll is gone, and then nobody is left to wake.
            let _ = self.shared.waker.wake();
        }
    }
}
