//! Publishes what happened to users in rooms: each JOINED, LEFT and RENAMED exactly once, in the
//! order of its room.
//!
//! ```text
//! store script --(same call that changes presence)--> outbox --> this loop --> fanout.Publish
//!                                                        ^                        |
//!                                                        +---- confirm <-- stored +
//! ```
//!
//! One replica reads at a time; another takes over when it stops. Whoever publishes an event uses
//! the same client id (boot and entry), so a repeated one is stored once. A fanout that is away is
//! waited for. The reader looks at once when its own replica has written, else ten times a second.

use crate::TRACER;
use crate::metrics::SessionMetrics;
use crate::store::{OutboxEntry, PresenceKind, SessionStore};
use futures_util::StreamExt;
use futures_util::stream;
use plaza_kit::discovery::BalancedChannel;
use plaza_kit::grpc::within;
use plaza_kit::shutdown::Shutdown;
use plaza_kit::telemetry::LogGate;
use plaza_kit::trace::layer::ClientSpan;
use plaza_kit::trace::{Origin, Server, SpanKind};
use plaza_proto::code::Code;
use plaza_proto::event::Event;
use plaza_proto::event::event::Kind;
use plaza_proto::fanout::PublishRequest;
use plaza_proto::fanout::fanout_service_client::FanoutServiceClient;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// The call that publishes one event.
const PUBLISH: &str = "plaza.fanout.v1.FanoutService/Publish";

/// Entries read at once.
const BATCH: usize = 256;
/// Rooms published to at once.
const ROOMS_AT_ONCE: usize = 32;
/// How long a replica has the outbox after it last read it. Longer than a batch takes.
const HOLD: Duration = Duration::from_secs(5);
/// Pause when nothing waits: the most that an event is late which another replica wrote.
const IDLE: Duration = Duration::from_millis(100);
/// How long events of this replica gather after the first of them: it reads the outbox 200 times a second at most.
const GATHER: Duration = Duration::from_millis(5);
/// Longest wait for one publish.
const DEADLINE: Duration = Duration::from_secs(3);
/// Longest pause between tries while fanout or the store is away.
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// An event older than this may have left fanout's short memory of ids: it looks in the log first.
const RETRY_AGE_MS: u64 = 60_000;

static REFUSALS: LogGate = LogGate::per_second(1);

/// The loop and what it needs.
#[derive(Debug)]
pub struct Publisher {
    store: Arc<dyn SessionStore>,
    fanout: FanoutServiceClient<BalancedChannel>,
    /// What `fanout` leads to, for spans.
    server: Server,
    news: Arc<News>,
    metrics: SessionMetrics,
    replica: String,
}

/// Tells the publisher that this replica has written to the outbox, so that it need not wait for its next look.
#[derive(Debug, Default)]
pub struct News(Notify);

impl News {
    /// Something may have been written.
    pub fn tell(&self) {
        self.0.notify_one();
    }

    /// Waits until something may have been written, and a moment for more of it.
    async fn gathered(&self) {
        self.0.notified().await;
        tokio::time::sleep(GATHER).await;
    }
}

/// Why a batch did not get through.
#[derive(Debug)]
enum Away {
    /// The store reports that itself.
    Store,
    /// With what fanout said.
    Fanout(String),
}

impl Publisher {
    /// A publisher with a name of its own; the channel leads to `server`.
    pub fn new(
        store: Arc<dyn SessionStore>,
        fanout: BalancedChannel,
        server: Server,
        news: Arc<News>,
        metrics: SessionMetrics,
    ) -> Self {
        Self { store, fanout: FanoutServiceClient::new(fanout), server, news, metrics, replica: crate::random::boot() }
    }

    /// Publishes until the shutdown begins.
    pub async fn run(self, shutdown: Shutdown) {
        let mut away = false;
        let mut backoff = IDLE;
        loop {
            let (pause, may_be_woken) = match self.batch().await {
                Ok(count) => {
                    if std::mem::take(&mut away) {
                        tracing::info!("fanout answers again: presence events are published");
                    }
                    backoff = IDLE;
                    (if count == 0 { IDLE } else { Duration::ZERO }, count == 0)
                }
                Err(why) => {
                    if let Away::Fanout(error) = why
                        && !std::mem::replace(&mut away, true)
                    {
                        tracing::warn!(error, "fanout does not answer: presence events wait");
                    }
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                    (backoff.mul_f64(0.5 + fastrand::f64() / 2.0), false)
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = self.news.gathered(), if may_be_woken => {}
            }
        }
    }

    /// Publishes what waits; how many entries are done with.
    async fn batch(&self) -> Result<usize, Away> {
        let outbox = self.store.outbox(&self.replica, BATCH, HOLD).await.map_err(|_| Away::Store)?;
        self.metrics.outbox_cut(outbox.cut);
        let mut rooms: BTreeMap<String, Vec<OutboxEntry>> = BTreeMap::new();
        for entry in outbox.entries {
            rooms.entry(entry.room.clone()).or_default().push(entry);
        }
        let boot = &outbox.boot;
        let published = stream::iter(rooms.into_values())
            .map(|entries| self.publish_in_order(boot, entries))
            .buffer_unordered(ROOMS_AT_ONCE);
        let (mut done, mut failure) = (Vec::new(), None);
        let mut published = std::pin::pin!(published);
        while let Some((ids, error)) = published.next().await {
            done.extend(ids);
            failure = failure.or(error);
        }
        let count = done.len();
        if count > 0 {
            // Not confirmed means published again under the same id: stored once all the same.
            self.store.confirm(done).await.map_err(|_| Away::Store)?;
        }
        failure.map_or(Ok(count), |error| Err(Away::Fanout(error)))
    }

    /// The entries of one room, until one has no result.
    async fn publish_in_order(&self, boot: &str, entries: Vec<OutboxEntry>) -> (Vec<String>, Option<String>) {
        let mut done = Vec::with_capacity(entries.len());
        for entry in entries {
            let id = entry.id.clone();
            match self.publish(boot, entry).await {
                Ok(()) => done.push(id),
                Err(error) => return (done, Some(error)),
            }
        }
        (done, None)
    }

    /// `Ok` when the entry is stored, or never can be.
    async fn publish(&self, boot: &str, entry: OutboxEntry) -> Result<(), String> {
        let retry = entry.age_ms > RETRY_AGE_MS;
        let request =
            PublishRequest { room: entry.room.clone(), event: Some(event(boot, entry)), retry, volatile: false };
        let mut request = within(DEADLINE, request);
        let span = TRACER.root(PUBLISH, SpanKind::Client, Origin::default());
        let span = span.map(|span| ClientSpan::begin(PUBLISH, &self.server, span, &mut request));
        let mut fanout = self.fanout.clone();
        let call = fanout.publish(request);
        let Err(status) = self.metrics.made.make_traced(span, PUBLISH, DEADLINE, call).await else {
            self.metrics.published("stored");
            return Ok(());
        };
        match Code::of_status(&status) {
            // No retry would help, and what comes after it in the room must not wait for ever.
            Code::BadRequest | Code::BadRoom | Code::BadText | Code::BadUsername | Code::TooLarge | Code::Expired => {
                self.metrics.published("refused");
                if let Some(suppressed) = REFUSALS.pass() {
                    tracing::error!(error = status.message(), suppressed, "fanout refused a presence event");
                }
                Ok(())
            }
            _ => Err(status.message().to_owned()),
        }
    }
}

fn event(boot: &str, entry: OutboxEntry) -> Event {
    let kind = match entry.kind {
        PresenceKind::Joined => Kind::Joined,
        PresenceKind::Left => Kind::Left,
        PresenceKind::Renamed => Kind::Renamed,
    };
    Event {
        version: 1,
        kind: kind.into(),
        client_id: format!("{boot}.{}", entry.id),
        user_id: entry.user_id,
        username: entry.username,
        previous_username: entry.previous_username,
        content: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn what_is_written_wakes_the_publisher_once_a_moment_later() {
        let news = News::default();
        // Nobody waits yet: it is not forgotten.
        news.tell();
        news.tell();
        let begin = Instant::now();
        news.gathered().await;
        assert_eq!(begin.elapsed(), GATHER);
        assert!(tokio::time::timeout(IDLE, news.gathered()).await.is_err(), "both are read at once");
    }
}
