//! The spans of a sampled publish: SERVER below the edge's context, PRODUCER below that. The producer's
//! context goes into the store's headers, and so to every edge that gets the event.

use crate::log::{Outcome, Publish};
use plaza_kit::trace::{Server, Span, SpanKind, Tracer};

const TRACER: Tracer = Tracer::named("plaza-fanout");
const METHOD: &str = "plaza.fanout.v1.FanoutService/PublishStream";
const DESTINATION: &str = "chat.in.{room}";

/// Both spans of a publish, from the request to the store's acknowledgement.
#[derive(Debug)]
pub(super) struct PublishSpans {
    // Dropped, and so ended, before its parent.
    producer: Span,
    server: Span,
}

/// Between whom a publish goes, as far as that is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Servers {
    /// This one, as the caller names it.
    pub(super) own: Option<Server>,
    pub(super) nats: Option<Server>,
}

/// Begins the spans if the message is sampled, and puts their context in the place of the edge's. Below a
/// unary call its own span is the parent.
pub(super) fn begin(publish: &mut Publish, servers: &Servers) -> Option<Box<PublishSpans>> {
    let (server, producer) = match publish.traceparent.as_deref() {
        Some(traceparent) => {
            let mut server = TRACER.follow(METHOD, SpanKind::Server, traceparent)?;
            server.grpc(METHOD, servers.own.as_ref());
            let producer = TRACER.child(&server, "send chat.in.{room}", SpanKind::Producer)?;
            (server, producer)
        }
        None => {
            let store = TRACER.here("store", SpanKind::Internal)?;
            let producer = TRACER.child(&store, "send chat.in.{room}", SpanKind::Producer)?;
            (store, producer)
        }
    };
    let mut spans = PublishSpans { producer, server };
    spans.producer.set("messaging.system", "nats");
    spans.producer.set("messaging.operation.type", "send");
    spans.producer.set("messaging.operation.name", "send");
    spans.producer.set("messaging.destination.template", DESTINATION);
    if let Some(nats) = &servers.nats {
        spans.producer.call_to(nats);
    }
    spans.producer.set("plaza.room", publish.room.digest());
    publish.traceparent = Some(spans.producer.traceparent());
    Some(Box::new(spans))
}

/// The store has answered, or has not.
pub(super) fn end(spans: Option<Box<PublishSpans>>, outcome: &Outcome) {
    let Some(mut spans) = spans else { return };
    let error = match outcome {
        Outcome::Stored { duplicate, .. } => {
            spans.producer.set("plaza.duplicate", *duplicate);
            None
        }
        Outcome::Rejected { code, .. } | Outcome::Unknown(code) => Some(code.as_str()),
    };
    if let Some(error) = error {
        spans.producer.fail(error);
        spans.server.fail(error);
    }
}
