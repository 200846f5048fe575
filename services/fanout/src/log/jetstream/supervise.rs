//! One task that makes the stream, checks its identity when that may have changed, sends beats, and
//! says what has changed.
//!
//! ```text
//! Starting -- connected, stream found or made --> Serving
//! Serving  -- reconnect, election, a beat of another epoch, a sequence given anew --> Checking
//! Checking -- same history --> Serving; another history --> new epoch --> Serving
//! ```

use super::publish::Attempt;
use super::state::{Limits, Phase};
use super::wire::StreamInfo;
use super::{JetStreamError, Shared, now, provision};
use crate::log::{Emit, LogError};
use async_nats::{HeaderMap, Message as NatsMessage, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use plaza_kit::chaos::{self, Step};
use plaza_proto::fanout::{Beat, Command, Resync, command};
use plaza_proto::ids::MessageId;
use plaza_proto::position::Epoch;
use plaza_proto::{subject, time};
use prost::Message;
use serde_json::json;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

const BEAT: Duration = Duration::from_secs(1);
/// How long a beat stays in the stream.
const BEAT_TTL: &str = "10s";
/// How often the connections are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// The pause after a check that failed.
const RETRY: Duration = Duration::from_millis(500);
/// The second resync after an election: what the new leader stores meanwhile is covered, too.
const SECOND_RESYNC: Duration = Duration::from_secs(2);
/// When neither a beat was stored nor a check passed for so long, the connections may be open and dead:
/// they are made anew. Pings would find that after 15 s.
const SILENCE: Duration = Duration::from_secs(6);
/// Epochs left behind that are remembered.
const EPOCHS: usize = 64;

pub(super) struct Supervisor {
    shared: Arc<Shared>,
    elections: Subscriber,
    beats: Subscriber,
    /// Name of this process in its beats.
    replica: String,
    /// Connects of all connections at the last check.
    connects: u64,
    connected: bool,
    /// When to check again; `None`: all is well.
    check_at: Option<Instant>,
    /// When the last check began.
    checked: Option<Instant>,
    second_resync: Option<Instant>,
    /// Epochs that the stream has had and left, the newest last.
    left: VecDeque<Epoch>,
    /// Who led the stream at the last check: an election may happen while nobody here hears of it.
    leader: String,
    /// When the server last answered, or the connections were last made anew.
    answered: Instant,
    /// The last fault that was logged, so that each is logged once.
    fault: Option<String>,
}

impl Supervisor {
    pub(super) async fn new(shared: Arc<Shared>) -> Result<Self, JetStreamError> {
        let elected = format!("$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.{}", subject::STREAM);
        let elections = shared.watch.client.subscribe(elected).await?;
        let beats = shared.watch.client.subscribe(format!("{}{}", subject::OUT_PREFIX, subject::BEAT)).await?;
        let replica = MessageId(rand::random()).to_string();
        tracing::info!(url = shared.options.shown_url(), "waiting for nats");
        shared.readiness.expect("nats");
        shared.readiness.set_degraded("nats", Some("not connected yet".to_owned()));
        Ok(Self {
            shared,
            elections,
            beats,
            replica,
            connects: 0,
            connected: false,
            check_at: Some(Instant::now()),
            checked: None,
            second_resync: None,
            left: VecDeque::new(),
            leader: String::new(),
            answered: Instant::now(),
            fault: None,
        })
    }

    /// Runs until the server turns out to be too old, and returns its version.
    pub(super) async fn run(mut self) -> String {
        let mut looks = interval(LOOK);
        let mut beats = interval(BEAT);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                _ = looks.tick() => {
                    self.look();
                    self.renew_silent().await;
                }
                _ = beats.tick() => self.beat().await,
                () = shared.check.notified() => self.check_soon(),
                Some(elected) = self.elections.next() => self.elected(&elected).await,
                Some(beat) = self.beats.next() => self.heard(&beat),
                () = at(self.second_resync) => {
                    self.second_resync = None;
                    self.resync().await;
                }
                () = at(self.check_at), if self.connected => {
                    if let Err(JetStreamError::Version { found }) = self.check().await {
                        return found;
                    }
                }
            }
        }
    }

    /// Notices connections that were lost or renewed; one log line for each change. Until then nothing is
    /// acknowledged or read on a new one: see [`Shared::serving`].
    fn look(&mut self) {
        let shared = &self.shared;
        let all = [&shared.publish.connection, &shared.read.connection, &shared.watch];
        let connected = all.iter().all(|connection| connection.is_connected());
        let connects = all.iter().map(|connection| connection.connects()).sum();
        if connected && (connects != self.connects || !self.connected) {
            tracing::info!("connected to nats");
            if self.connects > 0 {
                // An election may have been missed, or hints to edges lost.
                self.second_resync = Some(Instant::now() + SECOND_RESYNC);
            }
            self.connects = connects;
            self.suspect();
        }
        if self.connected && !connected {
            tracing::warn!("connection to nats lost, waiting for it");
            self.shared.readiness.set_degraded("nats", Some("not connected".to_owned()));
        }
        self.connected = connected;
    }

    /// Makes connections anew that say nothing, although they seem to be open.
    async fn renew_silent(&mut self) {
        if !self.connected {
            self.answered = Instant::now();
        }
        if self.answered.elapsed() < SILENCE {
            return;
        }
        self.answered = Instant::now();
        tracing::warn!(silent_s = SILENCE.as_secs(), "nats does not answer, connecting anew");
        for client in
            [&self.shared.publish.connection.client, &self.shared.read.connection.client, &self.shared.watch.client]
        {
            // It fails only when the client has ended.
            let _ = client.force_reconnect().await;
        }
    }

    fn suspect(&mut self) {
        self.shared.suspect();
        self.check_soon();
    }

    /// Asks for a check at once, or a pause after the last one, so that many askers cost one.
    fn check_soon(&mut self) {
        let earliest = self.checked.map_or_else(Instant::now, |checked| checked + RETRY);
        self.check_at = Some(earliest.max(Instant::now()));
    }

    /// Finds the stream, compares it with what is known, and lets publishes and reads go on.
    async fn check(&mut self) -> Result<(), JetStreamError> {
        self.checked = Some(Instant::now());
        let version = self.shared.publish.connection.client.server_info().version;
        if self.shared.state().phase == Phase::Starting {
            provision::check_version(&version)?;
        }
        let connects = self.shared.connects();
        match self.identify().await {
            Ok((info, epoch)) => {
                self.answered = Instant::now();
                self.check_at = None;
                if self.serve(&info, epoch, connects) {
                    // Everybody hears of it at once.
                    self.beat().await;
                }
                if !self.leader.is_empty() && self.leader != info.cluster.leader {
                    self.note_election(now(), &info.cluster.leader).await;
                }
                self.leader = info.cluster.leader;
            }
            Err(error) => {
                self.check_at = Some(Instant::now() + RETRY);
                self.tell_fault(error.to_string());
            }
        }
        Ok(())
    }

    async fn identify(&self) -> Result<(StreamInfo, Epoch), LogError> {
        let shared = &self.shared;
        let requests = &shared.read.requests;
        let info = provision::ensure(requests, &shared.options).await?;
        chaos::step(Step::Provisioned);
        let epoch = provision::epoch(&info)?;
        let state = *shared.state();
        // One that it had before comes back with a log of before.
        let is_older = self.left.contains(&epoch);
        if state.phase == Phase::Starting || epoch != state.epoch && !is_older {
            return Ok((info, epoch));
        }
        let at_known = match state.known.seq {
            0 => None,
            seq => shared.leader_message(&json!({ "seq": seq })).await?.map(|event| event.id.check()),
        };
        if !is_older && state.check(info.state.last_seq, at_known).is_ok() {
            return Ok((info, epoch));
        }
        tracing::error!(known = state.known.seq, last = info.state.last_seq, "the stream was rolled back");
        let used: Vec<Epoch> = self.left.iter().copied().chain([state.epoch]).collect();
        let renewed = provision::renew_epoch(requests, &info, &used).await?;
        let epoch = provision::epoch(&renewed)?;
        Ok((renewed, epoch))
    }

    /// Publishes and reads may go on. `true`: under another epoch than before.
    fn serve(&mut self, info: &StreamInfo, epoch: Epoch, connects: u64) -> bool {
        let limits = Limits {
            per_room: info.limit("max_msgs_per_subject").unwrap_or(u64::MAX),
            age_ms: info.limit("max_age").map(|nanos| nanos / 1_000_000),
            bytes: info.limit("max_bytes").unwrap_or(u64::MAX),
            is_replicated: info.limit("num_replicas").is_some_and(|replicas| replicas > 1),
        };
        let mut state = self.shared.state();
        let (before, started) = (state.epoch, state.phase == Phase::Starting);
        state.serve(epoch, limits, connects, info.state.last_seq, now());
        drop(state);
        let is_other = before != epoch && !started;
        if is_other {
            self.left.push_back(before);
            if self.left.len() > EPOCHS {
                self.left.pop_front();
            }
            self.shared.metrics.epoch_changes.inc();
            tracing::warn!("the stream has a new epoch: clients read anew");
        } else if started || self.fault.is_some() {
            tracing::info!(stream = subject::STREAM, last_seq = info.state.last_seq, "the room log is ready");
        }
        self.fault = None;
        self.shared.readiness.set_degraded("nats", None);
        is_other
    }

    fn tell_fault(&mut self, fault: String) {
        if self.fault.as_ref() != Some(&fault) {
            tracing::warn!(fault, "the room log is not ready, trying again");
            self.shared.readiness.set_degraded("nats", Some(fault.clone()));
            self.fault = Some(fault);
        }
    }

    /// Proof that the whole way is alive, from a publish to every edge.
    async fn beat(&mut self) {
        let Ok(serving) = self.shared.serving() else { return };
        let beat = Beat {
            epoch: serving.epoch.0.to_vec(),
            replica: self.replica.clone(),
            election_time: self.shared.election_time.load(Ordering::Relaxed),
        };
        let id = MessageId(rand::random());
        let mut headers = HeaderMap::new();
        headers.insert(subject::MSG_ID, id.to_string().as_str());
        headers.insert("Nats-TTL", BEAT_TTL);
        let to = format!("{}{}", subject::IN_PREFIX, subject::BEAT);
        let attempt = self.shared.attempt(&to, headers, Bytes::from(beat.encode_to_vec()), id).await;
        if matches!(attempt, Attempt::Stored { .. }) {
            self.answered = Instant::now();
            self.shared.metrics.beats.inc();
        }
    }

    /// A beat of another epoch: another replica has met a roll-back.
    fn heard(&mut self, message: &NatsMessage) {
        let Ok(beat) = Beat::decode(message.payload.clone()) else { return };
        let serving = self.shared.serving();
        if serving.is_ok_and(|serving| beat.epoch != serving.epoch.0) {
            self.suspect();
        }
    }

    async fn elected(&mut self, message: &NatsMessage) {
        let told = serde_json::from_slice::<serde_json::Value>(&message.payload).unwrap_or_default();
        let at = told["timestamp"].as_str().and_then(time::parse_utc).unwrap_or_else(now);
        let leader = told["leader"].as_str().unwrap_or_default();
        if !leader.is_empty() {
            leader.clone_into(&mut self.leader);
        }
        self.suspect();
        self.note_election(at, leader).await;
    }

    /// The old leader may have stored events that nobody distributes.
    async fn note_election(&mut self, at: u64, leader: &str) {
        self.shared.election_time.store(at, Ordering::Relaxed);
        tracing::info!(leader, "the stream has elected a leader");
        self.second_resync = Some(Instant::now() + SECOND_RESYNC);
        self.resync().await;
    }

    async fn resync(&self) {
        let election_time = self.shared.election_time.load(Ordering::Relaxed);
        let resync = command::Command::Resync(Resync { election_time });
        let command = Command { id: String::new(), command: Some(resync) };
        let command = Bytes::from(command.encode_to_vec());
        if let Err(error) = self.shared.emit(Emit::Control { edge: None, command }).await {
            tracing::warn!(%error, "the resync could not be sent");
        }
    }
}

/// Waits for a moment, or for ever without one.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
