//! Requests and their answers on one connection: an inbox and a table of our own, because a request
//! may have many answers, and because one that times out must leave nothing behind.

use crate::log::LogError;
use crate::metrics::{NatsCall, NatsCalls, NatsResult};
use async_nats::{Client, HeaderMap, Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use plaza_kit::shutdown::Shutdown;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Requests on one connection.
#[derive(Debug)]
pub(super) struct Requests {
    client: Client,
    /// Inbox and a dot: a request's number follows.
    prefix: String,
    next: AtomicU64,
    waiting: Arc<Waiting>,
    metrics: NatsCalls,
}

/// Who waits, by number of the request.
#[derive(Debug, Default)]
struct Waiting(Mutex<HashMap<u64, Entry>>);

#[derive(Debug)]
struct Entry {
    /// Answers come until one with a status.
    many: bool,
    answers: Vec<Message>,
    done: oneshot::Sender<Vec<Message>>,
}

impl Requests {
    /// Subscribes to an inbox on this connection; it lives as long as the connection, through reconnects.
    pub(super) async fn new(
        client: Client,
        metrics: NatsCalls,
        shutdown: &Shutdown,
    ) -> Result<Self, async_nats::SubscribeError> {
        let prefix = format!("{}.", client.new_inbox());
        let inbox = client.subscribe(format!("{prefix}*")).await?;
        let waiting = Arc::<Waiting>::default();
        let answered = Arc::clone(&waiting);
        let (at, drained) = (prefix.len(), shutdown.drained());
        shutdown.spawn_last("nats answers", async move {
            tokio::select! {
                () = answered.deliver(inbox, at) => {}
                () = drained.cancelled() => {}
            }
        });
        Ok(Self { client, prefix, next: AtomicU64::new(1), waiting, metrics })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn one(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
        limit: Duration,
    ) -> Result<Message, LogError> {
        let mut answers = self.send(subject, headers, payload, false, limit).await?;
        answers.pop().ok_or(LogError::Unavailable("an answer without a message"))
    }

    /// Sends a request and waits for all of its answers; the last one has a status.
    pub(super) async fn many(&self, subject: &str, payload: Bytes, limit: Duration) -> Result<Vec<Message>, LogError> {
        self.send(subject.to_owned(), HeaderMap::new(), payload, true, limit).await
    }

    /// Exchanges, and counts it.
    async fn send(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
        many: bool,
        limit: Duration,
    ) -> Result<Vec<Message>, LogError> {
        let (call, begin) = (call(&subject), Instant::now());
        let result = self.exchange(subject, headers, payload, many, limit).await;
        let came = match &result {
            Ok(_) => NatsResult::Answered,
            Err(LogError::Timeout(_)) => NatsResult::Timeout,
            Err(_) => NatsResult::Unavailable,
        };
        self.metrics.ended(call, came, begin.elapsed());
        result
    }

    async fn exchange(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
        many: bool,
        limit: Duration,
    ) -> Result<Vec<Message>, LogError> {
        // Unsent requests would wait in the library's queue and act when nobody wants them any more.
        if self.client.connection_state() != async_nats::connection::State::Connected {
            return Err(LogError::Unavailable("not connected"));
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (done, answers) = oneshot::channel();
        self.waiting.lock().insert(number, Entry { many, answers: Vec::new(), done });
        let _forget = Forget { waiting: &self.waiting, number };
        let exchange = async {
            let reply = format!("{}{number}", self.prefix);
            let sent = self.client.publish_with_reply_and_headers(subject, reply, headers, payload).await;
            sent.map_err(|_| LogError::Unavailable("the connection has ended"))?;
            answers.await.map_err(|_| LogError::Unavailable("the connection has ended"))
        };
        let too_late = LogError::Timeout(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        timeout(limit, exchange).await.map_err(|_| too_late)?
    }
}

/// What is asked, by the subject.
fn call(subject: &str) -> NatsCall {
    match subject.strip_prefix("$JS.API.") {
        None => NatsCall::Publish,
        Some(api) if api.starts_with("DIRECT.") => NatsCall::Read,
        Some(api) if api.starts_with("STREAM.MSG.") => NatsCall::Message,
        Some(_) => NatsCall::Stream,
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn deliver(&self, mut inbox: Subscriber, number_at: usize) {
        while let Some(message) = inbox.next().await {
            let number = message.subject.get(number_at..).and_then(|number| number.parse().ok());
            if let Some(number) = number {
                self.answer(number, message);
            }
        }
    }

    fn answer(&self, number: u64, message: Message) {
        let mut waiting = self.lock();
        let Some(entry) = waiting.get_mut(&number) else { return };
        let last = !entry.many || message.status.is_some();
        entry.answers.push(message);
        if last && let Some(entry) = waiting.remove(&number) {
            // Nobody waits any more: timed out in this moment.
            let _ = entry.done.send(entry.answers);
        }
    }
}

/// Takes a request out of the table however its wait ends.
struct Forget<'a> {
    waiting: &'a Waiting,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.number);
    }
}
