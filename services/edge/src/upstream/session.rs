//! The session link: this edge's lease, and the operations that keep sessions and presence.
//!
//! ```text
//! Register --> Registered --> Apply, Heartbeat ... --lease lost, or the data was lost--> Register anew
//! ```
//! Operations go up in order, one call at a time, in batches of what has gathered meanwhile. A call that
//! finds its replica away is made once more at another one, as long as such calls are few. One that
//! somebody waits for fails when the service does; one that is owed is kept until it has been applied.

use super::admission::{Class, Lines, Wish};
use super::registration::{Registration, SharedKey};
use super::replicas::Replicas;
use super::{Backoff, CALL, Context, Outcome};
use crate::trace::TRACER;
use plaza_kit::discovery::Targets;
use plaza_kit::grpc::within;
use plaza_kit::trace::layer::ClientSpan;
use plaza_kit::trace::{Server, SpanContext, SpanKind};
use plaza_proto::code::Code;
use plaza_proto::fanout::{Command, Rejected};
use plaza_proto::session::edge_lease_service_client::EdgeLeaseServiceClient;
use plaza_proto::session::op_result::Result as Wire;
use plaza_proto::session::{
    ApplyRequest, ApplyResponse, HeartbeatRequest, Op, OpResult, RegisterRequest, ResumeKey, RoomPosition, Session, op,
};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// The call that applies operations.
const APPLY: &str = "plaza.session.v1.EdgeLeaseService/Apply";
const REGISTER: &str = "plaza.session.v1.EdgeLeaseService/Register";
const HEARTBEATS: &str = "plaza.session.v1.EdgeLeaseService/Heartbeat";
/// Operations in one call.
const BATCH: usize = 64;
/// Operations between the hub and the task.
const QUEUE: usize = 256;
/// Between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// What each call earns of a second attempt.
const RETRY_SHARE: f64 = 0.1;
/// Second attempts that are saved up at most.
const RETRIES: f64 = 10.0;

/// What the session link tells the hub.
#[derive(Debug)]
pub enum SessionEvent {
    /// A lease has begun.
    Registered {
        /// The incarnation.
        incarnation: Arc<str>,
        /// There was a lease before: wants all that must be told anew under this one, before anything else is.
        anew: Option<oneshot::Sender<Vec<Op>>>,
    },
    /// An operation that somebody waits for has a result.
    Applied(u64, Result<Applied, (Code, String)>),
    /// A session that was told anew lives elsewhere by now, or belongs to somebody else.
    Moved(String),
    /// A session that was told anew cannot have its name any more: somebody else has it.
    NameLost(String),
    /// Commands that came with a heartbeat.
    Commands(Vec<Command>),
    /// How full this edge is, and the others: with each heartbeat's answer.
    Load(Load),
    /// Whether the service answers.
    Reachable(bool),
}

/// What an operation gave.
#[derive(Debug, Default)]
pub struct Applied {
    /// The session as it is now, for those operations that answer with it.
    pub session: Option<Session>,
    /// After a recovery: the rooms, and where each one's replay begins.
    pub positions: Vec<RoomPosition>,
}

/// This edge among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Connections of this edge, as the heartbeat told them.
    pub connections: u32,
    /// Mean of all `edges`, rounded down.
    pub mean: u32,
    /// Living edges that do not drain, this one among them; 0: the service does not tell.
    pub edges: u32,
}

/// What the next heartbeat tells.
#[derive(Debug, Default)]
struct Held {
    connections: AtomicU32,
    draining: AtomicBool,
}

/// One operation on its way.
#[derive(Debug)]
struct Entry {
    op: Op,
    /// `None`: owed.
    tag: Option<u64>,
    /// Of the sampled request behind it.
    context: Option<SpanContext>,
}

impl Wish for Entry {
    fn is_awaited(&self) -> bool {
        self.tag.is_some()
    }
}

/// The hub's end of the link.
#[derive(Debug)]
pub struct SessionLink {
    lines: Lines<Entry>,
    entries: mpsc::Sender<Entry>,
    done: mpsc::Sender<String>,
    held: Arc<Held>,
}

impl SessionLink {
    /// Begins to register `edge`, and keeps its lease until the shutdown. What comes with the lease is
    /// in `registration`.
    pub fn start(
        edge: String,
        advertise_addr: String,
        session: &Targets,
        registration: Registration,
        context: Context,
    ) -> Self {
        let (entries, inbox) = mpsc::channel(QUEUE);
        let (done, confirmed) = mpsc::channel(QUEUE);
        let held = Arc::new(Held::default());
        let shutdown = context.shutdown.clone();
        let lease = Lease {
            replicas: Replicas::new(session.clone(), session.endpoints(&context.shutdown)),
            server: session.server(),
            edge,
            advertise_addr,
            registration,
            context,
            inbox,
            confirmed,
            held: held.clone(),
            owed: VecDeque::new(),
            keys: Vec::new(),
            incarnation: String::new(),
            edge_number: 0,
            boot: String::new(),
            retries: RETRIES,
            counter: 0,
            acknowledged: 0,
        };
        shutdown.spawn("session link", lease.run());
        Self { lines: Lines::default(), entries, done, held }
    }

    /// Asks for an operation; [`SessionEvent::Applied`] follows with the tag.
    ///
    /// # Errors
    /// [`Code::Busy`]: too many of its class wait already.
    pub fn ask(&mut self, class: Class, op: Op, tag: u64, context: Option<SpanContext>) -> Result<(), Code> {
        self.lines.ask(class, Entry { op, tag: Some(tag), context })
    }

    /// An operation that must be applied some day. Their number is bounded by the sessions and
    /// memberships that were.
    pub fn owe(&mut self, op: Op) {
        self.lines.owe(Entry { op, tag: None, context: None });
    }

    /// A new session that was asked for is not wanted any more: its tag, when it has not been handed on yet. What is
    /// owed would overtake it otherwise.
    pub fn withdraw_open(&mut self, session_id: &str) -> Option<u64> {
        let opens = |entry: &Entry| matches!(&entry.op.op, Some(op::Op::Open(open)) if open.session_id == session_id);
        self.lines.withdraw(Class::New, opens)?.tag
    }

    /// How many operations of each class wait to be handed on.
    pub fn waiting(&self) -> [usize; Class::ALL.len()] {
        self.lines.waiting()
    }

    /// Forgets what has not been sent: a new lease begins, and everything is told again.
    pub fn forget_owed(&mut self) {
        self.lines.forget_owed();
    }

    /// Reports a command as carried out; a lost report only means that the command comes again.
    pub fn confirm(&self, command: String) {
        let _full = self.done.try_send(command);
    }

    /// Connections held now, for the next heartbeat, and whether they are being sent away.
    pub fn set_connections(&self, connections: usize, draining: bool) {
        self.held.connections.store(u32::try_from(connections).unwrap_or(u32::MAX), Ordering::Relaxed);
        self.held.draining.store(draining, Ordering::Relaxed);
    }

    /// Hands on what has gathered. Called once after each round of the hub.
    pub fn pump(&mut self) {
        while let Some((class, entry)) = self.lines.pop() {
            if let Err(refused) = self.entries.try_send(entry) {
                let (mpsc::error::TrySendError::Full(entry) | mpsc::error::TrySendError::Closed(entry)) = refused;
                self.lines.put_back(class, entry);
                return;
            }
        }
    }
}

struct Lease {
    replicas: Replicas,
    /// What the replicas are of, for spans.
    server: Server,
    edge: String,
    advertise_addr: String,
    registration: Registration,
    context: Context,
    inbox: mpsc::Receiver<Entry>,
    confirmed: mpsc::Receiver<String>,
    held: Arc<Held>,
    /// Owed operations whose call failed.
    owed: VecDeque<Op>,
    keys: Vec<ResumeKey>,
    incarnation: String,
    /// Of the last registration; 0: none yet.
    edge_number: u32,
    boot: String,
    /// Second attempts that may be made.
    retries: f64,
    /// Of the last heartbeat sent, and of the last one answered.
    counter: u64,
    acknowledged: u64,
}

/// Why a lease ends.
struct LeaseLost;

impl Lease {
    async fn run(mut self) {
        let shutdown = self.context.shutdown.clone();
        tokio::select! {
            () = self.keep() => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn keep(&mut self) {
        loop {
            self.register().await;
            let LeaseLost = self.hold().await;
            tracing::warn!(incarnation = %self.incarnation, "the lease is lost; registering anew");
        }
    }

    /// Registers under a new incarnation, however long it takes.
    async fn register(&mut self) {
        let mut backoff = Backoff::new();
        let mut said = false;
        let replaces = std::mem::take(&mut self.incarnation);
        let again = !replaces.is_empty();
        loop {
            let random: [u8; 15] = rand::random();
            let incarnation = format!("{}#{}{:02x}", self.edge, plaza_proto::ids::session_id(random), fastrand::u8(..));
            let request = RegisterRequest {
                edge: self.edge.clone(),
                incarnation: incarnation.clone(),
                advertise_addr: self.advertise_addr.clone(),
                resume_keys: self.keys.clone(),
                replaces: replaces.clone(),
                edge_number: self.edge_number,
            };
            let result = self.context.metrics.made.make(REGISTER, CALL, async {
                EdgeLeaseServiceClient::new(self.replicas.channel().await).register(within(CALL, request)).await
            });
            match told(result.await) {
                Ok(answer) => {
                    self.keys = answer.resume_keys;
                    self.boot = answer.boot;
                    self.edge_number = answer.edge_number;
                    self.share();
                    (self.counter, self.acknowledged) = (0, 0);
                    self.incarnation.clone_from(&incarnation);
                    tracing::info!(%incarnation, number = answer.edge_number, "registered with the session service");
                    return self.begin(incarnation.into(), again).await;
                }
                Err((code, message)) if !said => {
                    said = true;
                    tracing::warn!(%code, message, "the session service cannot be reached; trying again");
                    self.tell(SessionEvent::Reachable(false)).await;
                }
                Err(_) => {}
            }
            self.replicas.move_on();
            let wait = backoff.wait();
            self.refuse_for(wait).await;
        }
    }

    /// Tells the hub of a lease. Under another one than before, wishes that wait already would find none of the
    /// sessions that they are about: the hub's sessions go first.
    async fn begin(&mut self, incarnation: Arc<str>, again: bool) {
        self.owed.clear();
        if !again {
            return self.tell(SessionEvent::Registered { incarnation, anew: None }).await;
        }
        let (anew, all) = oneshot::channel();
        self.tell(SessionEvent::Registered { incarnation, anew: Some(anew) }).await;
        self.owed.extend(all.await.unwrap_or_default());
    }

    /// Applies and renews until the lease is lost.
    async fn hold(&mut self) -> LeaseLost {
        let mut beat = tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        let mut backoff = Backoff::new();
        let mut batch = Vec::new();
        loop {
            let idle = self.owed.is_empty() && batch.is_empty();
            let outcome = tokio::select! {
                _ = beat.tick() => match self.heartbeat().await {
                    Err(code) if self.may_try_again(code) => self.heartbeat().await,
                    result => result,
                },
                n = take(&mut self.inbox, &mut batch, idle) => {
                    if n == 0 && idle {
                        // The hub is gone.
                        return std::future::pending().await;
                    }
                    self.apply(&mut batch).await
                }
            };
            match outcome {
                Ok(()) => backoff = Backoff::new(),
                Err(Code::LeaseLost) => {
                    // Taken already, and behind what was owed.
                    self.put_off(batch, Code::Unavailable).await;
                    return LeaseLost;
                }
                Err(_) if !self.owed.is_empty() => {
                    let wait = backoff.wait();
                    self.refuse_for(wait).await;
                }
                Err(_) => {}
            }
        }
    }

    /// Makes one call: for what is owed, or, when nothing is, for the batch. On failure the owed operations are kept,
    /// and nobody waits any more.
    async fn apply(&mut self, batch: &mut Vec<Entry>) -> Result<(), Code> {
        let mut entries: Vec<Entry> = if self.owed.is_empty() {
            std::mem::take(batch)
        } else {
            let turn = ..self.owed.len().min(BATCH);
            self.owed.drain(turn).map(|op| Entry { op, tag: None, context: None }).collect()
        };
        let ops: Vec<Op> = entries.iter().map(|entry| entry.op.clone()).collect();
        let request = ApplyRequest { incarnation: self.incarnation.clone(), ops };
        let contexts: Vec<SpanContext> = entries.iter_mut().filter_map(|entry| entry.context.take()).collect();
        self.context.metrics.batch_operations.observe(entries.len() as f64);
        self.retries = (self.retries + RETRY_SHARE).min(RETRIES);
        let mut answer = self.call_apply(request.clone(), &contexts, 0).await;
        if matches!(&answer, Err((code, _)) if self.may_try_again(*code)) {
            answer = self.call_apply(request, &contexts, 1).await;
        }
        match answer {
            Ok(answer) => {
                let mut results = answer.results.into_iter();
                for entry in entries {
                    self.on_result(entry, outcome(results.next())).await;
                }
                Ok(())
            }
            Err((code, message)) => {
                tracing::debug!(%code, message, "operations could not be applied");
                let later = std::mem::take(&mut self.owed);
                self.put_off(entries, code).await;
                self.owed.extend(later);
                self.put_off(std::mem::take(batch), code).await;
                Err(code)
            }
        }
    }

    async fn on_result(&self, entry: Entry, result: Result<Applied, (Code, String)>) {
        if let Some(tag) = entry.tag {
            return self.tell(SessionEvent::Applied(tag, result)).await;
        }
        let Err((code, message)) = result else { return };
        tracing::debug!(%code, message, "an operation was refused");
        match (entry.op.op, code) {
            (Some(op::Op::Open(open)), Code::NotFound | Code::Forbidden) => {
                self.tell(SessionEvent::Moved(open.session_id)).await;
            }
            (Some(op::Op::Open(open)), Code::UsernameTaken) => {
                self.tell(SessionEvent::NameLost(open.session_id)).await;
            }
            _ => {}
        }
    }

    /// Keeps what is owed, and tells those who wait that they do so in vain.
    async fn put_off(&mut self, entries: Vec<Entry>, code: Code) {
        // Of leases nobody knows but this task.
        let seen = if code == Code::LeaseLost { Code::Unavailable } else { code };
        for entry in entries {
            match entry.tag {
                None => self.owed.push_back(entry.op),
                Some(tag) => {
                    self.tell(SessionEvent::Applied(tag, Err((seen, seen.english().to_owned())))).await;
                }
            }
        }
    }

    /// Calls once, after so many attempts that failed: each has a span of its own below those of its requests.
    async fn call_apply(
        &mut self,
        request: ApplyRequest,
        contexts: &[SpanContext],
        failed: i64,
    ) -> Result<ApplyResponse, (Code, String)> {
        let mut message = within(CALL, request);
        let span = TRACER.gather(APPLY, SpanKind::Client, contexts).map(|mut span| {
            if failed > 0 {
                span.set("plaza.resend_count", failed);
            }
            ClientSpan::begin(APPLY, &self.server, span, &mut message)
        });
        let call = async { EdgeLeaseServiceClient::new(self.replicas.channel().await).apply(message).await };
        told(self.context.metrics.made.make_traced(span, APPLY, CALL, call).await)
    }

    /// After a call: whether it is made once more. Then another replica is used, if there is one.
    fn may_try_again(&mut self, code: Code) -> bool {
        if !matches!(code, Code::Unavailable | Code::Timeout) {
            return false;
        }
        self.replicas.move_on();
        let may = self.retries >= 1.0;
        if may {
            self.retries -= 1.0;
        }
        may
    }

    async fn heartbeat(&mut self) -> Result<(), Code> {
        self.retries = (self.retries + RETRY_SHARE).min(RETRIES);
        self.counter += 1;
        let mut done = Vec::new();
        while let Ok(command) = self.confirmed.try_recv() {
            done.push(command);
        }
        let connections = self.held.connections.load(Ordering::Relaxed);
        let request = HeartbeatRequest {
            incarnation: self.incarnation.clone(),
            counter: self.counter,
            connections,
            done_command_ids: done,
            draining: self.held.draining.load(Ordering::Relaxed),
        };
        let answer = told({
            let call = async {
                EdgeLeaseServiceClient::new(self.replicas.channel().await).heartbeat(within(CALL, request)).await
            };
            self.context.metrics.made.make(HEARTBEATS, CALL, call).await
        });
        self.tell(SessionEvent::Reachable(answer.is_ok())).await;
        let answer = answer.map_err(|(code, _)| code)?;
        // A counter that our own calls do not explain, or another boot: the data is not what we wrote.
        if answer.boot != self.boot || !(self.acknowledged..self.counter).contains(&answer.counter) {
            return Err(Code::LeaseLost);
        }
        self.acknowledged = self.counter;
        if !answer.resume_keys.is_empty() {
            self.keys = answer.resume_keys;
            self.share();
        }
        if !answer.commands.is_empty() {
            self.tell(SessionEvent::Commands(answer.commands)).await;
        }
        let load = Load { connections, mean: answer.mean_connections, edges: answer.counted_edges };
        self.tell(SessionEvent::Load(load)).await;
        Ok(())
    }

    /// Tells all parts of the edge its number and keys.
    fn share(&self) {
        let keys = self.keys.iter();
        let keys = keys.map(|key| SharedKey { generation: key.generation, secret: key.key.as_slice().into() });
        self.registration.set(self.edge_number, keys.collect());
    }

    /// Answers what is asked meanwhile with `unavailable`, and keeps what is owed.
    async fn refuse_for(&mut self, wait: Duration) {
        let end = Instant::now() + wait;
        while let Ok(Some(entry)) = tokio::time::timeout_at(end, self.inbox.recv()).await {
            self.put_off(vec![entry], Code::Unavailable).await;
        }
    }

    async fn tell(&self, event: SessionEvent) {
        let _gone = self.context.outcomes.send(Outcome::Session(event)).await;
    }
}

/// Takes what waits; with `wait` at least one.
async fn take(inbox: &mut mpsc::Receiver<Entry>, batch: &mut Vec<Entry>, wait: bool) -> usize {
    if wait {
        return inbox.recv_many(batch, BATCH).await;
    }
    while batch.len() < BATCH
        && let Ok(entry) = inbox.try_recv()
    {
        batch.push(entry);
    }
    batch.len()
}

fn told<T>(result: Result<T, tonic::Status>) -> Result<T, (Code, String)> {
    result.map_err(|status| (Code::of_status(&status), status.message().to_owned()))
}

fn outcome(result: Option<OpResult>) -> Result<Applied, (Code, String)> {
    let OpResult { result, positions } = result.unwrap_or_default();
    match result {
        Some(Wire::Session(session)) => Ok(Applied { session: Some(session), positions }),
        Some(Wire::Done(_)) => Ok(Applied::default()),
        Some(Wire::Rejected(Rejected { code, message })) => {
            Err((Code::parse(&code).unwrap_or(Code::Internal), message))
        }
        None => Err((Code::Internal, "the session service gave no result".to_owned())),
    }
}
