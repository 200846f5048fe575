//! The queue from the shards to the hub: one bounded FIFO. A shard hands over what a turn has brought in
//! one go, so that the hub is woken once for all of it and answers it as one batch.

use crate::bridge::Request;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// A queue of at most `capacity` requests.
pub fn channel(capacity: usize) -> (RequestSender, RequestReceiver) {
    let queue = Mutex::new(Queue { requests: VecDeque::new(), senders: 1, received: true });
    let shared = Arc::new(Shared { queue, capacity, arrived: Notify::new() });
    (RequestSender(Arc::clone(&shared)), RequestReceiver(shared))
}

/// A shard's end; cheap to clone.
#[derive(Debug)]
pub struct RequestSender(Arc<Shared>);

/// The hub's end.
#[derive(Debug)]
pub struct RequestReceiver(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    capacity: usize,
    /// Told when the queue is no longer empty, or has no sender any more.
    arrived: Notify,
}

#[derive(Debug)]
struct Queue {
    requests: VecDeque<Request>,
    senders: usize,
    /// There is a receiver.
    received: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No code panics while it holds the lock, so a poisoned queue is still whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RequestSender {
    /// Moves what there is room for from the front of `requests` into the queue, in order, and never
    /// waits. What is left in `requests` found the queue full. Without a receiver all of it is dropped.
    pub fn pass(&self, requests: &mut VecDeque<Request>) {
        let mut queue = self.0.lock();
        if !queue.received {
            return requests.clear();
        }
        let free = self.0.capacity.saturating_sub(queue.requests.len()).min(requests.len());
        let wake = queue.requests.is_empty() && free > 0;
        queue.requests.extend(requests.drain(..free));
        drop(queue);
        if wake {
            self.0.arrived.notify_one();
        }
    }
}

impl Clone for RequestSender {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Drop for RequestSender {
    fn drop(&mut self) {
        self.0.lock().senders -= 1;
        self.0.arrived.notify_one();
    }
}

impl RequestReceiver {
    /// Waits until something is there, and appends at most `limit` requests to `into`. The number; 0:
    /// every sender is gone and nothing is left. Safe to cancel.
    pub async fn recv_many(&mut self, into: &mut Vec<Request>, limit: usize) -> usize {
        loop {
            {
                let mut queue = self.0.lock();
                let count = queue.requests.len().min(limit);
                into.extend(queue.requests.drain(..count));
                if count > 0 || queue.senders == 0 {
                    return count;
                }
            }
            self.0.arrived.notified().await;
        }
    }

    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.0.lock().requests.len()
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for RequestReceiver {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.received = false;
        let left = std::mem::take(&mut queue.requests);
        drop(queue);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::{ConnKey, Identity, Op, SessionId, Variant};
    use plaza_proto::code::Locale;

    fn request(id: u32) -> Request {
        let identity =
            Identity { session: SessionId([0; 15]), user_id: None, variant: Variant::Event, locale: Locale::En };
        let from = ConnKey { shard: 0, slot: 0, generation: 1 };
        Request { from, id, identity: Arc::new(identity), op: Op::SetUsername { username: String::new() }, trace: None }
    }

    fn ids(requests: &[Request]) -> Vec<u32> {
        requests.iter().map(|request| request.id).collect()
    }

    #[tokio::test]
    async fn what_finds_no_room_stays_with_its_shard_in_order() {
        let (sender, mut receiver) = channel(3);
        let mut wishes: VecDeque<_> = (1..=5).map(request).collect();
        sender.pass(&mut wishes);
        assert_eq!(ids(wishes.make_contiguous()), [4, 5]);
        let mut got = Vec::new();
        assert_eq!(receiver.recv_many(&mut got, 2).await, 2);
        sender.pass(&mut wishes);
        assert_eq!(receiver.recv_many(&mut got, 9).await, 3);
        assert_eq!(ids(&got), [1, 2, 3, 4, 5]);
    }

    #[tokio::test]
    async fn the_hub_is_woken_by_the_first_request_and_by_the_end_of_the_last_sender() {
        let (sender, mut receiver) = channel(8);
        let other = sender.clone();
        let shard = std::thread::spawn(move || other.pass(&mut VecDeque::from([request(1)])));
        let mut got = Vec::new();
        assert_eq!(receiver.recv_many(&mut got, 8).await, 1);
        shard.join().expect("it has passed its request");
        let end = std::thread::spawn(move || drop(sender));
        assert_eq!(receiver.recv_many(&mut got, 8).await, 0);
        end.join().expect("it is gone");
    }

    #[test]
    fn without_a_hub_requests_are_dropped() {
        let (sender, receiver) = channel(8);
        drop(receiver);
        let mut wishes = VecDeque::from([request(1)]);
        sender.pass(&mut wishes);
        assert!(wishes.is_empty());
    }
}
