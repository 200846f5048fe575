//! One publish, from the first attempt to an outcome that is true.

use super::state::Phase;
use super::wire::{self, Ack, ApiError, err_code};
use super::{ACK_LIMIT, Serving, Shared, now};
use crate::log::{LogError, Outcome, Publish, RETRY_HORIZON};
use async_nats::HeaderMap;
use bytes::Bytes;
use plaza_kit::chaos::{self, Rule, Step};
use plaza_proto::code::Code;
use plaza_proto::ids::MessageId;
use plaza_proto::position::Position;
use plaza_proto::subject;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// Time for all attempts together: a leader's election takes up to 9 s.
const BUDGET: Duration = Duration::from_secs(10);
/// Headers with a wrong expectation, for a probe: the stream answers for a known id, and refuses the rest.
///
/// Where several servers keep the stream, its leader looks at the last sequence behind the id and before
/// anything is proposed. A wrong last id it lets pass, and then nats-server 2.15 stops the stream on every
/// server for good. A single server looks at the sequence before the id, and at the last id behind it.
const WRONG_OF_MANY: (&str, &str) = ("Nats-Expected-Last-Sequence", "4611686018427387904");
const WRONG_OF_ONE: (&str, &str) = ("Nats-Expected-Last-Msg-Id", "none");

/// What one attempt came to.
pub(super) enum Attempt {
    Stored {
        seq: u64,
        duplicate: bool,
        serving: Serving,
    },
    Rejected {
        code: Code,
        message: String,
    },
    /// Perhaps stored: again, under the same id.
    Again(Code),
    /// Refused as the probe wanted: the id is not among the recent ones.
    NotRecent,
}

/// Publishes until the store has answered for sure, or the budget is spent.
pub(super) async fn run(shared: Arc<Shared>, publish: Publish, _permit: OwnedSemaphorePermit) -> Outcome {
    let _in_flight = InFlight::new(&shared);
    let started = Instant::now();
    let until = started + BUDGET;
    let work = async {
        if publish.retry
            && !chaos::breaks(Rule::LookBefore)
            && let Some(outcome) = shared.look_before(&publish, until).await
        {
            return outcome;
        }
        shared.store(&publish, false, until).await.unwrap_or(Outcome::Unknown(Code::Timeout))
    };
    let outcome = tokio::time::timeout_at(until, work).await.unwrap_or(Outcome::Unknown(Code::Timeout));
    if matches!(outcome, Outcome::Stored { .. }) {
        shared.metrics.ack_seconds.observe(started.elapsed().as_secs_f64());
    }
    outcome
}

impl Shared {
    /// Attempts until there is an outcome. A probe stores nothing: `None` when its id is not recent.
    async fn store(&self, publish: &Publish, probe: bool, until: Instant) -> Option<Outcome> {
        let subject = subject::room_in(&publish.room);
        let mut last = Code::Unavailable;
        loop {
            let headers = headers(publish, probe.then(|| self.wrong()));
            match self.attempt(&subject, headers, publish.body.clone(), publish.id).await {
                Attempt::Stored { seq, duplicate, serving } => {
                    if duplicate {
                        // The first attempt may have been stored and never distributed.
                        self.hint(publish, seq).await;
                    }
                    let position = Position::of(serving.epoch, seq, publish.id);
                    return Some(Outcome::Stored { position, duplicate });
                }
                Attempt::Rejected { code, message } => return Some(Outcome::Rejected { code, message }),
                Attempt::NotRecent => return None,
                // Once an attempt may have arrived, the outcome stays open.
                Attempt::Again(code) => last = if last == Code::Timeout { last } else { code },
            }
            self.metrics.retries.inc();
            let pause = Duration::from_millis(fastrand::u64(50..=100));
            if Instant::now() + pause >= until {
                return Some(Outcome::Unknown(last));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// What this stream refuses a probe for.
    fn wrong(&self) -> (&'static str, &'static str) {
        if self.state().limits.is_replicated { WRONG_OF_MANY } else { WRONG_OF_ONE }
    }

    /// One attempt: at most the acknowledgement's time.
    pub(super) async fn attempt(&self, subject: &str, headers: HeaderMap, body: Bytes, id: MessageId) -> Attempt {
        let Ok(serving) = self.serving() else { return Attempt::Again(Code::Unavailable) };
        chaos::step(Step::Sent);
        let answer = self.publish.requests.one(subject.to_owned(), headers, body, ACK_LIMIT).await;
        let ack = match answer.and_then(|message| wire::json::<Ack>(&message)) {
            Ok(ack) => ack,
            Err(LogError::Unavailable(_)) => {
                // Normal in an election; the supervisor finds out whether the stream is really missing.
                self.check.notify_one();
                return Attempt::Again(Code::Unavailable);
            }
            Err(LogError::Timeout(_)) if chaos::breaks(Rule::OkAfterStored) => {
                return Attempt::Stored { seq: serving.known.seq + 1, duplicate: false, serving };
            }
            Err(LogError::Timeout(_) | LogError::Protocol(_)) => {
                return Attempt::Again(Code::Timeout);
            }
        };
        if let Some(error) = &ack.error {
            return refused(error);
        }
        chaos::step(Step::Stored);
        let mut state = self.state();
        let same_log = state.phase == Phase::Serving && state.epoch == serving.epoch;
        if !same_log || state.connects != self.connects() {
            return Attempt::Again(Code::Timeout);
        }
        let noted = state.acknowledged(ack.seq, id.check(), ack.duplicate, serving.known, now());
        drop(state);
        if noted.is_err() {
            tracing::error!(seq = ack.seq, known = serving.known.seq, "the stream gives sequences anew");
            self.suspect();
            return Attempt::Again(Code::Timeout);
        }
        Attempt::Stored { seq: ack.seq, duplicate: ack.duplicate, serving }
    }

    /// Tells the room's edges that they may lack an event. Lost: their own tail checks find it.
    async fn hint(&self, publish: &Publish, seq: u64) {
        chaos::step(Step::Hinting);
        let mut headers = HeaderMap::new();
        headers.insert(subject::REPAIR, "1");
        headers.insert(subject::SEQ, seq.to_string().as_str());
        let _ = self.send(subject::room_out(&publish.room), headers, Bytes::new()).await;
    }

    /// The second check of a marked retry: is the id recent, or among the room's events? `None`: it
    /// was surely never stored, so it may be.
    async fn look_before(&self, publish: &Publish, until: Instant) -> Option<Outcome> {
        if let Some(outcome) = self.store(publish, true, until).await {
            return Some(outcome);
        }
        let Ok(serving) = self.serving() else { return Some(Outcome::Unknown(Code::Unavailable)) };
        let found = match self.find(&publish.room, publish.id).await {
            Ok(found) => found,
            Err(error) => return Some(Outcome::Unknown(error.code())),
        };
        match found.seq {
            Some(seq) => {
                self.hint(publish, seq).await;
                let position = Position::of(serving.epoch, seq, publish.id);
                Some(Outcome::Stored { position, duplicate: true })
            }
            None if found.reaches_back(now(), RETRY_HORIZON) => None,
            None => Some(Outcome::Unknown(Code::Expired)),
        }
    }
}

/// Only these: what a caller sends never becomes a header.
fn headers(publish: &Publish, wrong: Option<(&'static str, &'static str)>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let id = if chaos::breaks(Rule::Dedupe) { MessageId(rand::random()) } else { publish.id };
    headers.insert(subject::MSG_ID, id.to_string().as_str());
    if let Some(traceparent) = publish.traceparent.as_deref().filter(|text| is_traceparent(text)) {
        headers.insert(subject::TRACEPARENT, traceparent);
    }
    if let Some((expected, value)) = wrong {
        headers.insert(expected, value);
    }
    headers
}

/// W3C Trace Context, version 00: 55 characters of hex and dashes. Anything else could end a header line.
pub(super) fn is_traceparent(text: &str) -> bool {
    text.len() == 55 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

fn refused(error: &ApiError) -> Attempt {
    match error.err_code {
        err_code::WRONG_LAST_ID | err_code::WRONG_LAST_SEQ | err_code::WRONG_LAST_SEQ_NOW => Attempt::NotRecent,
        err_code::TOO_LARGE => {
            Attempt::Rejected { code: Code::TooLarge, message: "the event is larger than the stream takes".to_owned() }
        }
        err_code::STORAGE_FULL => {
            Attempt::Rejected { code: Code::StorageFull, message: "the store has no space left".to_owned() }
        }
        // Elections, a duplicate in process, a server that starts: all pass.
        _ => Attempt::Again(Code::Unavailable),
    }
}

/// Counts a publish while it has no result, however it ends.
struct InFlight<'a>(&'a Shared);

impl<'a> InFlight<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.metrics.in_flight.inc();
        Self(shared)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.metrics.in_flight.dec();
    }
}
