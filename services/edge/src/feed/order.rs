//! The stream's order across rooms. A connection brings all rooms in the order of the stream, but the client
//! of NATS sorts them into one queue for each subscription, and whoever takes from the queues in turn
//! mixes them: a member of two rooms would get a later event of one before an earlier event of the
//! other, and its one offset would lie about the earlier one.
//!
//! So all queues are emptied before anything is handed on. What stands in some queue was preceded by
//! everything before it in the stream, which then stands in another queue or was taken already.

use super::FeedItem;
use futures_util::StreamExt;
use futures_util::stream::SelectAll;
use futures_util::task::{ArcWake, AtomicWaker, waker};
use plaza_proto::feed::FeedMessage;
use plaza_proto::ids::RoomName;
use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

/// Items of one batch at most. With more the order may suffer at its end, and events that come behind a later
/// one say so.
const BATCH: usize = 16_384;
/// Polls in a row that bring nothing and yet ask for another one.
const SPINS: usize = 64;

/// Remembers that some queue has called, and passes the call on.
#[derive(Debug, Default)]
struct Called {
    called: AtomicBool,
    task: AtomicWaker,
}

impl ArcWake for Called {
    fn wake_by_ref(called: &Arc<Self>) {
        called.called.store(true, Ordering::Release);
        called.task.wake();
    }
}

/// Queues that are emptied together.
#[derive(Debug)]
pub(super) struct Gather<S> {
    queues: SelectAll<S>,
    called: Arc<Called>,
    waker: Waker,
}

impl<S: futures_util::Stream<Item = FeedItem> + Unpin> Default for Gather<S> {
    fn default() -> Self {
        let called = Arc::new(Called::default());
        Self { queues: SelectAll::new(), waker: waker(called.clone()), called }
    }
}

impl<S: futures_util::Stream<Item = FeedItem> + Unpin> Gather<S> {
    /// One queue more. It goes when it ends.
    pub(super) fn push(&mut self, queue: S) {
        self.queues.push(queue);
    }

    /// Waits for items and appends all that have arrived, in the stream's order. Cancel safe.
    pub(super) async fn next(&mut self, batch: &mut Vec<FeedItem>) {
        // The runtime's budget would end a round before the queues are empty.
        tokio::task::coop::unconstrained(poll_fn(|context| self.poll(context, batch))).await;
        in_order(batch);
    }

    fn poll(&mut self, context: &mut Context<'_>, batch: &mut Vec<FeedItem>) -> Poll<()> {
        self.called.task.register(context.waker());
        let mut own = Context::from_waker(&self.waker);
        let mut spins = 0;
        while batch.len() < BATCH {
            self.called.called.store(false, Ordering::Release);
            match self.queues.poll_next_unpin(&mut own) {
                Poll::Ready(Some(item)) => batch.push(item),
                // Something came meanwhile, or the set of queues only paused.
                Poll::Pending if self.called.called.load(Ordering::Acquire) && spins < SPINS => spins += 1,
                Poll::Pending | Poll::Ready(None) => break,
            }
        }
        if batch.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }
}

fn event(item: &FeedItem) -> Option<(&RoomName, u64)> {
    match item {
        FeedItem::Message(FeedMessage::Event { room, seq, .. }) => Some((room, *seq)),
        FeedItem::Message(_) | FeedItem::Barrier(_) | FeedItem::Renewed => None,
    }
}

/// Puts the events among these items into the stream's order; what is no event keeps its place. Where
/// a room's own events go back, the log is another one in between, and nothing is moved.
fn in_order(items: &mut [FeedItem]) {
    if items.iter().filter_map(event).is_sorted_by_key(|(_, seq)| seq) {
        return;
    }
    let mut last: HashMap<&RoomName, u64> = HashMap::new();
    for (room, seq) in items.iter().filter_map(event) {
        if last.insert(room, seq).is_some_and(|before| before >= seq) {
            return;
        }
    }
    let places: Vec<usize> = (0..items.len()).filter(|&place| event(&items[place]).is_some()).collect();
    let mut sorted = places.clone();
    sorted.sort_by_key(|&place| event(&items[place]).map(|(_, seq)| seq));
    let mut events: Vec<Option<FeedItem>> =
        sorted.iter().map(|&place| Some(std::mem::replace(&mut items[place], FeedItem::Renewed))).collect();
    for (place, event) in places.into_iter().zip(&mut events) {
        if let Some(event) = event.take() {
            items[place] = event;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use plaza_proto::ids::MessageId;
    use proptest::prelude::*;
    use tokio::sync::mpsc;

    fn stored(room: &str, seq: u64) -> FeedItem {
        FeedItem::Message(FeedMessage::Event {
            room: RoomName::parse(room).expect("a valid name"),
            seq,
            previous: 0,
            id: MessageId([1; 16]),
            time: 1,
            body: Bytes::new(),
            traceparent: None,
        })
    }

    fn shown(items: &[FeedItem]) -> Vec<String> {
        let show = |item: &FeedItem| match (event(item), item) {
            (Some((room, seq)), _) => format!("{}{seq}", room.as_str()),
            (None, FeedItem::Barrier(token)) => format!("barrier {token}"),
            (None, _) => "other".to_owned(),
        };
        items.iter().map(show).collect()
    }

    #[test]
    fn events_are_sorted_around_what_is_none() {
        let mut items = vec![stored("a", 1), stored("a", 4), FeedItem::Barrier(7), stored("b", 2), stored("c", 3)];
        in_order(&mut items);
        assert_eq!(shown(&items), ["a1", "b2", "barrier 7", "c3", "a4"]);
    }

    #[test]
    fn a_log_that_went_back_is_left_as_it_came() {
        let mut items = vec![stored("a", 9), stored("b", 8), stored("a", 1)];
        in_order(&mut items);
        assert_eq!(shown(&items), ["a9", "b8", "a1"]);
    }

    proptest! {
        /// However many rooms, and however many tasks the budget of the runtime would cut short.
        #[test]
        fn rooms_come_in_the_order_of_the_stream(rooms in proptest::collection::vec(0_usize..8, 1..600)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let heard = runtime.block_on(async {
                let mut gather = Gather::default();
                let mut queues = Vec::new();
                for _ in 0..8 {
                    let (sender, receiver) = mpsc::channel(1_000);
                    queues.push(sender);
                    gather.push(Box::pin(futures_util::stream::unfold(receiver, |mut receiver| async {
                        Some((receiver.recv().await?, receiver))
                    })));
                }
                for (seq, &room) in (1..).zip(&rooms) {
                    queues[room].try_send(stored(&format!("r{room}."), seq)).expect("there is room");
                }
                let mut heard = Vec::new();
                gather.next(&mut heard).await;
                heard
            });
            let seqs: Vec<u64> = heard.iter().filter_map(event).map(|(_, seq)| seq).collect();
            prop_assert_eq!(seqs, (1..=rooms.len() as u64).collect::<Vec<_>>());
        }
    }
}
