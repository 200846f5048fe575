//! Publishing: one event in a call, or batches on a stream, with results in any order.

use super::{Fanout, trace};
use crate::log::{self, Answer, Emit, LogError, Publish};
use crate::validate::{self, Refusal};
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{BoxStream, FuturesUnordered, StreamExt, unfold};
use plaza_kit::chaos::{self, Step};
use plaza_proto::batch::{Batch, ItemResult, Outcome, Stored};
use plaza_proto::code::Code;
use plaza_proto::fanout as api;
use plaza_proto::fanout::publish_item::Target;
use plaza_proto::ids::MessageId;
use plaza_proto::position::{Epoch, Position};
use prost::Message;
use std::borrow::Borrow;
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::Status;

/// The most results of one answer.
const MAX_RESULTS: usize = 64;
/// The most items of one batch: four times what the contract promises, and still below a gRPC message.
const MAX_ITEMS: usize = 256;

/// Batches of an edge. Those from this process share their items with it.
pub(super) type Batches<I> = BoxStream<'static, Result<Batch<I>, Status>>;

/// Stores or passes on one event.
pub(super) async fn unary(fanout: &Fanout, request: api::PublishRequest) -> Result<api::PublishResponse, Status> {
    let item = api::PublishItem {
        tag: 0,
        target: Some(Target::Room(request.room)),
        event: request.event,
        retry: request.retry,
        volatile: request.volatile,
        traceparent: String::new(),
        message_id: Bytes::new(),
    };
    let outcome = start(fanout, &item).get().await;
    count(fanout, &outcome);
    match outcome {
        Outcome::Stored(stored) => Ok(api::PublishResponse { ok: Some(stored.into()) }),
        Outcome::PassedOn => Ok(api::PublishResponse { ok: Some(api::Stored::default()) }),
        Outcome::Rejected { code, message } => Err(code.status(message)),
        Outcome::Unknown(code) => Err(code.status(format_args!("{}; perhaps it was stored", code.english()))),
    }
}

/// Results for the batches of a stream. It is polled by the connection itself: no task and no channel
/// stand between a batch and its results, and an edge that takes no results sends no more batches.
pub(super) fn stream<I: Borrow<api::PublishItem> + Send + 'static>(
    fanout: Fanout,
    batches: Batches<I>,
) -> BoxStream<'static, Result<Vec<ItemResult>, Status>> {
    let link = Link { fanout, batches: Some(batches), pending: FuturesUnordered::new(), ready: VecDeque::new() };
    unfold(link, |mut link| async { link.next().await.map(|results| (results, link)) }).boxed()
}

struct Link<I> {
    fanout: Fanout,
    /// `None` once the edge has sent its last batch, or this server drains.
    batches: Option<Batches<I>>,
    pending: FuturesUnordered<Tagged>,
    ready: VecDeque<ItemResult>,
}

impl<I: Borrow<api::PublishItem> + Send> Link<I> {
    async fn next(&mut self) -> Option<Result<Vec<ItemResult>, Status>> {
        while self.ready.is_empty() {
            if self.batches.is_none() && self.pending.is_empty() {
                return None;
            }
            if let Err(status) = self.advance().await {
                return Some(Err(status));
            }
        }
        let take = self.ready.len().min(MAX_RESULTS);
        Some(Ok(self.ready.drain(..take).collect()))
    }

    /// Waits for one batch or one result, and takes what else is there.
    async fn advance(&mut self) -> Result<(), Status> {
        tokio::select! {
            Some((tag, outcome)) = self.pending.next(), if !self.pending.is_empty() => {
                self.resolve(tag, outcome);
                while self.ready.len() < MAX_RESULTS
                    && let Some(Some((tag, outcome))) = self.pending.next().now_or_never()
                {
                    self.resolve(tag, outcome);
                }
            }
            batch = next_batch(&mut self.batches), if self.batches.is_some() => match batch? {
                Some(batch) => self.take(batch)?,
                None => self.batches = None,
            },
            () = self.fanout.shutdown.cancelled(), if self.batches.is_some() => self.batches = None,
        }
        Ok(())
    }

    fn take(&mut self, batch: Batch<I>) -> Result<(), Status> {
        if batch.items.len() > MAX_ITEMS {
            let message = format!("a batch has {} items; at most {MAX_ITEMS} are allowed", batch.items.len());
            return Err(Code::BadRequest.status(message));
        }
        if let Some(api::Place { epoch, seq, check }) = batch.known {
            self.fanout.log.hear(Position { epoch: Epoch(epoch.to_be_bytes()), seq, check });
        }
        for item in batch.items {
            let item = item.borrow();
            let tag = item.tag;
            match start(&self.fanout, item) {
                Answer::Now(outcome) => self.resolve(tag, outcome),
                Answer::Later(outcome) => self.pending.push(Tagged { tag, outcome }),
            }
        }
        Ok(())
    }

    fn resolve(&mut self, tag: u64, outcome: Outcome) {
        count(&self.fanout, &outcome);
        self.ready.push_back(ItemResult { tag, outcome });
    }
}

async fn next_batch<I>(batches: &mut Option<Batches<I>>) -> Result<Option<Batch<I>>, Status> {
    match batches {
        Some(batches) => batches.next().await.transpose(),
        None => Ok(None),
    }
}

/// An outcome that comes, and whose it is.
struct Tagged {
    tag: u64,
    outcome: BoxFuture<'static, Outcome>,
}

impl Future for Tagged {
    type Output = (u64, Outcome);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let tag = self.tag;
        self.outcome.poll_unpin(cx).map(|outcome| (tag, outcome))
    }
}

/// Checks an item and hands it to the log.
fn start(fanout: &Fanout, item: &api::PublishItem) -> Answer<Outcome> {
    match Checked::new(item) {
        Ok(Checked::Store(mut publish)) => {
            let id = publish.id;
            chaos::step(Step::Taken);
            let trace = trace::begin(&mut publish, &fanout.servers);
            match fanout.log.publish(publish) {
                Answer::Now(outcome) => {
                    trace::end(trace, &outcome);
                    Answer::Now(named(outcome, id))
                }
                Answer::Later(outcome) => {
                    let finish = move |outcome| {
                        trace::end(trace, &outcome);
                        named(outcome, id)
                    };
                    Answer::Later(outcome.map(finish).boxed())
                }
            }
        }
        Ok(Checked::PassOn(emit)) => match fanout.log.emit(emit) {
            Answer::Now(result) => Answer::Now(passed_on(&result)),
            Answer::Later(result) => Answer::Later(result.map(|result| passed_on(&result)).boxed()),
        },
        Err(Refusal { code, message }) => Answer::Now(Outcome::Rejected { code, message }),
    }
}

/// An item that may go on.
enum Checked {
    Store(Publish),
    PassOn(Emit),
}

impl Checked {
    fn new(item: &api::PublishItem) -> Result<Self, Refusal> {
        let missing = |field| Refusal::new(Code::BadRequest, format!("{field} is missing"));
        let event = item.event.as_ref().ok_or_else(|| missing("event"))?;
        let room = match &item.target {
            Some(Target::Room(room)) => validate::room(room)?,
            Some(Target::Echo(edge)) => return Ok(Self::PassOn(echo(edge.clone(), event.clone()))),
            None => return Err(missing("room")),
        };
        let id = match (event.client_id.as_str(), &*item.message_id) {
            ("", []) => MessageId(rand::random()),
            ("", id) => MessageId(id.try_into().map_err(|_| {
                Refusal::new(Code::BadRequest, format!("message_id has {} bytes; 16 or none are allowed", id.len()))
            })?),
            (client_id, []) => MessageId::derive(&room, &event.user_id, client_id),
            _ => {
                return Err(Refusal::new(
                    Code::BadRequest,
                    "message_id and event.client_id are set; one of them is allowed",
                ));
            }
        };
        let body = validate::event(event, item.volatile)?;
        let traceparent = (!item.traceparent.is_empty()).then(|| item.traceparent.clone());
        if item.volatile {
            return Ok(Self::PassOn(Emit::Volatile { room, body, traceparent }));
        }
        Ok(Self::Store(Publish { room, id, body, retry: item.retry, traceparent }))
    }
}

fn echo(edge: String, event: plaza_proto::event::Event) -> Emit {
    let echo = api::command::Command::Echo(api::Echo { event: Some(event) });
    let command = api::Command { id: String::new(), command: Some(echo) };
    Emit::Control { edge: Some(edge), command: Bytes::from(command.encode_to_vec()) }
}

/// What the log says of the event with this id.
fn named(outcome: log::Outcome, id: MessageId) -> Outcome {
    match outcome {
        log::Outcome::Stored { position, duplicate } => Outcome::Stored(Stored { position, id, duplicate }),
        log::Outcome::Rejected { code, message } => Outcome::Rejected { code, message },
        log::Outcome::Unknown(code) => Outcome::Unknown(code),
    }
}

fn passed_on(result: &Result<(), LogError>) -> Outcome {
    match result {
        Ok(()) => Outcome::PassedOn,
        Err(error) => Outcome::Unknown(error.code()),
    }
}

fn count(fanout: &Fanout, outcome: &Outcome) {
    let publishes = &fanout.metrics.publishes;
    match outcome {
        Outcome::PassedOn => publishes.passed_on.inc(),
        Outcome::Stored(stored) => {
            if stored.duplicate {
                fanout.metrics.duplicate_acks.inc();
            }
            publishes.stored.inc()
        }
        Outcome::Rejected { .. } => publishes.rejected.inc(),
        Outcome::Unknown(_) => publishes.unknown.inc(),
    };
}
