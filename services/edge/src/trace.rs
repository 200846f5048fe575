//! The edge's spans. A sampled frame of a client is the root of a trace; what an edge does with a sampled
//! event is one span, however many members get it.
//!
//! ```text
//! GET /socket.io/                SERVER, ends when the shard has the socket
//! ws.receive                     SERVER, a new root linked to it; ends with the answer
//!  +- plaza.fanout.v1...         CLIENT, from the hub to the result; its context travels in the item
//!      +- (fanout: SERVER, PRODUCER; the context goes into the NATS headers)
//!          +- process chat.out.{room}   CONSUMER, one per edge; ends with the last write to a socket
//! ```

use crate::bridge::{ConnKey, Op};
use foldhash::HashMap;
use plaza_kit::trace::{Origin, Server, Span, SpanContext, SpanKind, Tracer};
use plaza_proto::ids::RoomName;
use std::sync::Arc;

/// The source of this service's spans.
pub(crate) const TRACER: Tracer = Tracer::named("plaza-edge");

/// Requests whose spans the hub keeps until their answer; those beyond end at once.
const OPEN: usize = 4_096;

/// What a client wants to be known about one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceWish {
    /// It wants the trace's id in its answer, and so a trace.
    pub asked: bool,
    /// The W3C context that it sent, not checked yet.
    pub traceparent: Option<Box<str>>,
}

impl TraceWish {
    /// `None`: nothing is wanted.
    pub(crate) fn new(asked: bool, traceparent: &str) -> Option<Box<Self>> {
        let traceparent = (!traceparent.is_empty()).then(|| traceparent.into());
        (asked || traceparent.is_some()).then(|| Box::new(Self { asked, traceparent }))
    }
}

/// The span of a client's frame, if it is sampled.
pub(crate) fn receive(op: &Op, polling: bool, upgrade: impl FnOnce() -> Option<SpanContext>) -> Option<Span> {
    let wish = if let Op::Publish { trace, .. } = op { trace.as_deref() } else { None };
    let origin = Origin {
        traceparent: wish.and_then(|wish| wish.traceparent.as_deref()),
        asked: wish.is_some_and(|wish| wish.asked),
        stranger: true,
    };
    let name = if polling { "poll.receive" } else { "ws.receive" };
    let mut span = TRACER.root(name, SpanKind::Server, origin)?;
    span.set("plaza.request", op.name());
    if let Some(upgrade) = upgrade() {
        span.link(upgrade);
    }
    Some(span)
}

/// The span of what this edge does with a stored event, if its context is sampled.
pub(crate) fn process(
    traceparent: Option<&str>,
    room: &RoomName,
    recipients: u32,
    store: Option<&Server>,
) -> Option<Arc<Span>> {
    let mut span = TRACER.follow("process chat.out.{room}", SpanKind::Consumer, traceparent?)?;
    span.set("messaging.system", "nats");
    span.set("messaging.operation.type", "process");
    span.set("messaging.operation.name", "process");
    span.set("messaging.destination.template", "chat.out.{room}");
    span.set("plaza.room", room.digest());
    span.set("plaza.recipients", i64::from(recipients));
    if let Some(store) = store {
        span.call_to(store);
    }
    Some(Arc::new(span))
}

/// The span of a read of the log: below the request that wants it, or a root when a room is repaired.
pub(crate) fn read(wanted_by: Option<SpanContext>, repair: bool, room: &RoomName) -> Option<Span> {
    let mut span = match wanted_by {
        Some(context) => TRACER.gather(READ, SpanKind::Client, &[context]),
        None if repair => TRACER.root(READ, SpanKind::Client, Origin::default()),
        None => None,
    }?;
    span.set("plaza.room", room.digest());
    Some(span)
}

/// Sampled requests that have no answer yet.
#[derive(Debug)]
pub(crate) struct Requests {
    open: HashMap<(ConnKey, u32), Traced>,
    /// Where publishes go.
    fanout: Server,
}

#[derive(Debug)]
struct Traced {
    root: Span,
    call: Option<Span>,
    asked: bool,
}

impl Requests {
    /// None yet; publishes go to `fanout`.
    pub(crate) fn new(fanout: Server) -> Self {
        Self { open: HashMap::default(), fanout }
    }

    /// The hub has taken a sampled request.
    pub(crate) fn begin(&mut self, from: ConnKey, id: u32, root: Span, op: &Op) {
        let asked = matches!(op, Op::Publish { trace: Some(wish), .. } if wish.asked);
        if self.open.len() < OPEN {
            self.open.insert((from, id), Traced { root, call: None, asked });
        }
    }

    /// The publish of this request goes up: the context to send along, empty when it is not sampled.
    pub(crate) fn publish(&mut self, from: ConnKey, id: u32) -> String {
        let Some(traced) = self.open.get_mut(&(from, id)) else { return String::new() };
        let mut call = TRACER.child(&traced.root, PUBLISH, SpanKind::Client);
        if let Some(call) = &mut call {
            call.grpc(PUBLISH, Some(&self.fanout));
        }
        let context = call.as_ref().map(Span::traceparent).unwrap_or_default();
        traced.call = call;
        context
    }

    /// The publish of this request has a result, after so many sends. The trace's id, if it is sampled.
    pub(crate) fn published(
        &mut self,
        from: ConnKey,
        id: u32,
        error: Option<&'static str>,
        sends: u32,
    ) -> Option<String> {
        let mut call = self.open.get_mut(&(from, id)).and_then(|traced| traced.call.take())?;
        call.set("plaza.sends", i64::from(sends));
        call.set("rpc.status_code", "OK");
        if let Some(error) = error {
            call.fail(error);
        }
        Some(call.trace_id())
    }

    /// The context of a request, for the calls that it needs.
    pub(crate) fn context(&self, from: ConnKey, id: u32) -> Option<SpanContext> {
        self.open.get(&(from, id)).map(|traced| traced.root.context().clone())
    }

    /// The session of this request continues an earlier one.
    pub(crate) fn resumed(&mut self, from: ConnKey, id: u32) {
        if let Some(traced) = self.open.get_mut(&(from, id)) {
            traced.root.set("plaza.resumed", true);
        }
    }

    /// This request asked for an earlier session: what came of it.
    pub(crate) fn recovered(&mut self, from: ConnKey, id: u32, result: &'static str) {
        if let Some(traced) = self.open.get_mut(&(from, id)) {
            traced.root.set("plaza.recovery", result);
        }
    }

    /// The answer leaves. The trace's id, if the client asked for it.
    pub(crate) fn end(&mut self, from: ConnKey, id: u32, error: Option<&'static str>) -> Option<Box<str>> {
        if self.open.is_empty() {
            return None;
        }
        let Traced { mut root, asked, .. } = self.open.remove(&(from, id))?;
        if let Some(error) = error {
            root.fail(error);
        }
        asked.then(|| root.trace_id().into())
    }

    /// The connection is gone, and with it who waits.
    pub(crate) fn forget(&mut self, from: ConnKey) {
        if !self.open.is_empty() {
            self.open.retain(|(key, _), _| *key != from);
        }
    }
}

/// The call that reads a room's events.
pub(crate) const READ: &str = "plaza.fanout.v1.FanoutService/Read";
const PUBLISH: &str = "plaza.fanout.v1.FanoutService/PublishStream";
