//! The room log in NATS JetStream.
//!
//! ```text
//! publish: connection `publish` -- chat.in.<room> --> stream CHAT -- republish --> chat.out.<room>
//! read:    connection `read`    -- batched Direct Get, multi_last, STREAM.INFO, STREAM.MSG.GET
//! watch:   connection `watch`   -- leader elections, beats of other replicas, wakes of subscriptions
//! ```
//! Three connections, because each has one task in the library: an acknowledgement must not wait
//! behind a burst of events. [`supervise`] makes and checks the stream; everything else only works
//! while it says so.

mod lookback;
mod options;
mod provision;
mod publish;
mod read;
mod recent;
mod requests;
mod state;
mod supervise;
mod wire;

pub use options::Options;

use super::{Answer, Emit, EventLog, LogError, LogInfo, Outcome, Publish, Read, ReadAnswer, TailsAnswer, too_large};
use crate::log::MAX_EVENT_BYTES;
use crate::metrics::FanoutMetrics;
use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use lookback::LookBack;
use options::Connection;
use plaza_kit::admin::Readiness;
use plaza_kit::shutdown::Shutdown;
use plaza_proto::code::Code;
use plaza_proto::ids::RoomName;
use plaza_proto::position::{Epoch, Position};
use plaza_proto::subject;
use requests::Requests;
use state::{Known, Phase, State};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::timeout;

/// Publishes without a result, of all callers together; beyond, `busy`.
pub const MAX_IN_FLIGHT: usize = 1_000;
/// Time for one acknowledgement, and for handing a message to the connection.
const ACK_LIMIT: Duration = Duration::from_millis(400);
/// Rooms that are read whole at a time: the store goes through all that lies between their events.
const SCANS: usize = 4;
/// Messages that one subscription may hold: the answers to all reads under way, or one room's events.
const READ_CAPACITY: usize = 65_536;
const WATCH_CAPACITY: usize = 4_096;

/// Why JetStream can never serve as it is.
#[derive(Debug, thiserror::Error)]
pub enum JetStreamError {
    /// The URL or the credentials are not understood.
    #[error("--nats-url or --nats-creds cannot be used")]
    Settings(#[from] std::io::Error),
    /// An inbox could not be made.
    #[error("the connection to NATS ended before it began")]
    Inbox(#[from] async_nats::SubscribeError),
    /// The server is too old.
    #[error(
        "nats-server {found} is too old; 2.11 or newer is needed, for batched Direct Get, multi_last and message TTL"
    )]
    Version {
        /// What the server says it is.
        found: String,
    },
}

/// The log. Cheap to share; every method works from what the supervisor last found.
#[derive(Debug)]
pub struct JetStreamLog {
    shared: Arc<Shared>,
    failed: watch::Receiver<Option<String>>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    metrics: Arc<FanoutMetrics>,
    readiness: Readiness,
    publish: Link,
    read: Link,
    watch: Connection,
    state: Mutex<State>,
    recent: Mutex<recent::Recent>,
    /// Rooms that are read whole at a time.
    scans: Semaphore,
    window: Arc<Semaphore>,
    /// Which ids rooms have, for late retries.
    lookback: LookBack,
    /// Asks the supervisor to check the stream's identity now.
    check: Notify,
    /// Milliseconds since 1970-01-01 UTC of the last leader election heard of.
    election_time: AtomicU64,
}

/// A connection with requests on it.
#[derive(Debug)]
struct Link {
    connection: Connection,
    requests: Requests,
}

/// What a publish or a read works from.
#[derive(Clone, Copy, Debug)]
struct Serving {
    epoch: Epoch,
    known: Known,
}

impl JetStreamLog {
    /// Begins to connect, in the background: a server that is away is waited for.
    ///
    /// # Errors
    /// [`JetStreamError::Settings`].
    pub async fn start(
        options: Options,
        metrics: Arc<FanoutMetrics>,
        readiness: Readiness,
        shutdown: &Shutdown,
    ) -> Result<Arc<Self>, JetStreamError> {
        let watch = Connection::open(&options, "watch", WATCH_CAPACITY).await?;
        let shared = Arc::new(Shared {
            publish: Link::open(&options, "publish", &metrics, shutdown).await?,
            read: Link::open(&options, "read", &metrics, shutdown).await?,
            watch,
            options,
            metrics,
            readiness,
            state: Mutex::new(State::new()),
            recent: Mutex::default(),
            scans: Semaphore::new(SCANS),
            window: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            lookback: LookBack::new(),
            check: Notify::new(),
            election_time: AtomicU64::new(0),
        });
        let (fail, failed) = watch::channel(None);
        let supervisor = supervise::Supervisor::new(Arc::clone(&shared)).await?;
        let drained = shutdown.drained();
        shutdown.spawn_last("nats supervisor", async move {
            tokio::select! {
                version = supervisor.run() => drop(fail.send(Some(version))),
                () = drained.cancelled() => {}
            }
        });
        Ok(Arc::new(Self { shared, failed }))
    }

    /// Resolves when the server turns out to be one that can never serve.
    pub async fn failed(&self) -> JetStreamError {
        let mut failed = self.failed.clone();
        // The borrow must not live on while this waits.
        let version = failed.wait_for(Option::is_some).await.ok().and_then(|version| version.clone());
        match version {
            Some(found) => JetStreamError::Version { found },
            // The supervisor has ended with the drain.
            None => std::future::pending().await,
        }
    }
}

impl Link {
    async fn open(
        options: &Options,
        name: &str,
        metrics: &FanoutMetrics,
        shutdown: &Shutdown,
    ) -> Result<Self, JetStreamError> {
        let connection = Connection::open(options, name, READ_CAPACITY).await?;
        let requests = Requests::new(connection.client.clone(), metrics.nats.clone(), shutdown).await?;
        Ok(Self { connection, requests })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serving(&self) -> Result<Serving, LogError> {
        let state = *self.state();
        match state.phase {
            Phase::Starting => Err(LogError::Unavailable("not connected yet")),
            Phase::Checking => Err(LogError::Unavailable("the stream's identity is being checked")),
            Phase::Serving if state.connects != self.connects() => {
                Err(LogError::Unavailable("the connection is new: the stream's identity is not checked yet"))
            }
            Phase::Serving => Ok(Serving { epoch: state.epoch, known: state.known }),
        }
    }

    /// How often the connections have been made on which publishes and reads go.
    fn connects(&self) -> u64 {
        self.publish.connection.connects() + self.read.connection.connects()
    }

    /// Stops publishes and reads until the stream's identity has been checked.
    fn suspect(&self) {
        let mut state = self.state();
        if state.phase == Phase::Serving {
            state.phase = Phase::Checking;
        }
        drop(state);
        self.check.notify_one();
    }

    /// Publishes without waiting for anybody's answer.
    async fn send(&self, subject: String, headers: HeaderMap, body: Bytes) -> Result<(), LogError> {
        if !self.publish.connection.is_connected() {
            return Err(LogError::Unavailable("not connected"));
        }
        let sent = self.publish.requests.client().publish_with_headers(subject, headers, body);
        match timeout(ACK_LIMIT, sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(LogError::Unavailable("the connection has ended")),
            Err(_) => Err(LogError::Timeout(400)),
        }
    }

    async fn emit(&self, emit: Emit) -> Result<(), LogError> {
        match emit {
            Emit::Volatile { room, body, traceparent } => {
                let mut headers = HeaderMap::new();
                headers.insert(subject::KIND, subject::VOLATILE);
                if let Some(traceparent) = traceparent {
                    headers.insert(subject::TRACEPARENT, traceparent.as_str());
                }
                self.send(subject::room_out(&room), headers, body).await
            }
            Emit::Control { edge, command } => {
                let subject = edge.map_or_else(|| subject::CONTROL_ALL.to_owned(), |edge| subject::control_edge(&edge));
                self.send(subject, HeaderMap::new(), command).await
            }
        }
    }
}

impl EventLog for JetStreamLog {
    fn publish(&self, publish: Publish) -> Answer<Outcome> {
        if publish.body.len() > MAX_EVENT_BYTES {
            return Answer::Now(too_large(publish.body.len()));
        }
        if self.shared.state().phase == Phase::Starting {
            return Answer::Now(Outcome::Unknown(Code::Unavailable));
        }
        let Ok(permit) = Arc::clone(&self.shared.window).try_acquire_owned() else {
            let message = format!("{MAX_IN_FLIGHT} publishes wait for the store; try again after a moment");
            return Answer::Now(Outcome::Rejected { code: Code::Busy, message });
        };
        Answer::Later(publish::run(Arc::clone(&self.shared), publish, permit).boxed())
    }

    fn hear(&self, known: Position) {
        self.shared.state().hear(known);
    }

    fn read(&self, read: Read) -> BoxFuture<'_, Result<ReadAnswer, LogError>> {
        self.shared.read_events(read).boxed()
    }

    fn tails<'a>(&'a self, rooms: &'a [RoomName]) -> BoxFuture<'a, Result<TailsAnswer, LogError>> {
        self.shared.read_tails(rooms).boxed()
    }

    fn info(&self) -> BoxFuture<'_, Result<LogInfo, LogError>> {
        async {
            let serving = self.shared.serving()?;
            let state = self.shared.stream_info().await?.state;
            Ok(LogInfo { epoch: serving.epoch, first_seq: state.first_seq, last_seq: state.last_seq })
        }
        .boxed()
    }

    fn emit(&self, emit: Emit) -> Answer<Result<(), LogError>> {
        let shared = Arc::clone(&self.shared);
        Answer::Later(async move { shared.emit(emit).await }.boxed())
    }

    fn wakes(&self, room: &RoomName) -> BoxFuture<'_, Result<BoxStream<'static, ()>, LogError>> {
        let subscribed = self.shared.watch.client.subscribe(subject::room_out(room));
        async {
            match timeout(ACK_LIMIT, subscribed).await {
                Ok(Ok(subscriber)) => Ok(subscriber.map(|_| ()).boxed()),
                Ok(Err(_)) => Err(LogError::Unavailable("the connection has ended")),
                Err(_) => Err(LogError::Timeout(400)),
            }
        }
        .boxed()
    }
}

/// Milliseconds since 1970-01-01 UTC by the local clock.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
