//! Traces: spans of sampled work, sent to an OpenTelemetry collector by the standard `OTEL_*` variables.
//!
//! ```text
//! Tracer::root    the sampling decision: a new trace, or the one that the caller's context names
//! Tracer::follow  a span below a context that came over a border; only if that one is sampled
//! Span            a recording span; ends when it is dropped
//! ```
//! Work that is not sampled has no span at all: what it costs is the branch that finds `None`. A context
//! crosses borders as W3C `traceparent` text: in gRPC metadata, in publish items, in NATS headers.

mod collector;
pub mod context;
mod export;
pub mod layer;
mod queue;
mod sampler;
mod server;

use std::borrow::Cow;
use std::time::SystemTime;

use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, Status, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracerProvider;

pub use export::{Spans, end, register, start};
pub use opentelemetry::Value;
pub use opentelemetry::trace::{SpanContext, SpanKind};
pub use server::Server;

/// A part of the program as the source of spans: the instrumentation scope.
#[derive(Clone, Copy, Debug)]
pub struct Tracer(&'static str);

/// Who asks for a root span.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin<'a> {
    /// The W3C context that the caller sent; anything that is not one is ignored.
    pub traceparent: Option<&'a str>,
    /// The caller asks for a trace, whatever the ratio says.
    pub asked: bool,
    /// The caller is a stranger: what it asks for is bounded to [`ASKED_PER_SECOND`].
    pub stranger: bool,
}

/// Traces that strangers can ask for, in each second of a process. Beyond it the ratio decides.
pub const ASKED_PER_SECOND: u32 = 20;

impl Tracer {
    /// A source of this name, such as `plaza-edge`.
    pub const fn named(scope: &'static str) -> Self {
        Self(scope)
    }

    /// A span at the border of this program, if this work is sampled: below the caller's context when
    /// there is one, else a new trace.
    #[inline]
    pub fn root(self, name: impl Into<Cow<'static, str>>, kind: SpanKind, origin: Origin<'_>) -> Option<Span> {
        let state = export::state()?;
        let parent = origin.traceparent.and_then(context::parse);
        state.decide(parent.as_ref(), origin).then(|| self.build(name.into(), kind, parent, None, Vec::new()))
    }

    /// A root span of work that began a while ago, told only now that it came to something.
    pub fn since(self, name: &'static str, kind: SpanKind, start: SystemTime) -> Option<Span> {
        let state = export::state()?;
        let sampled = state.decide(None, Origin::default());
        sampled.then(|| self.build(name.into(), kind, None, Some(start), Vec::new()))
    }

    /// A span below the context of `traceparent`; `None` when that is not sampled, or is no context.
    #[inline]
    pub fn follow(self, name: &'static str, kind: SpanKind, traceparent: &str) -> Option<Span> {
        export::state()?;
        let parent = context::parse(traceparent).filter(SpanContext::is_sampled)?;
        Some(self.build(name.into(), kind, Some(parent), None, Vec::new()))
    }

    /// A span below the one that the running call has (see [`layer`]); `None` when it has none.
    #[inline]
    pub fn here(self, name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Option<Span> {
        export::state()?;
        let parent = current()?;
        Some(self.build(name.into(), kind, Some(parent), None, Vec::new()))
    }

    /// A span below another one of this process.
    pub fn child(self, parent: &Span, name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Option<Span> {
        export::state()?;
        Some(self.build(name.into(), kind, Some(parent.context().clone()), None, Vec::new()))
    }

    /// A span below the first of several contexts, linked to the others: work for all of them at once.
    pub fn gather(self, name: &'static str, kind: SpanKind, contexts: &[SpanContext]) -> Option<Span> {
        export::state()?;
        let (first, rest) = contexts.split_first()?;
        let links = rest.iter().cloned().map(Link::with_context).collect();
        Some(self.build(name.into(), kind, Some(first.clone()), None, links))
    }

    fn build(
        self,
        name: Cow<'static, str>,
        kind: SpanKind,
        parent: Option<SpanContext>,
        start: Option<SystemTime>,
        links: Vec<Link>,
    ) -> Span {
        let cx = parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent));
        let mut builder = SpanBuilder::from_name(name).with_kind(kind).with_links(links);
        builder.start_time = start;
        let tracer = export::state().map(|state| state.provider.tracer(self.0));
        let span = tracer.map(|tracer| tracer.build_with_context(builder, &cx));
        Span(Box::new(span.expect("spans are built only while there is a provider")))
    }
}

/// A span that is recorded. It ends when it is dropped. Eight bytes, also as an option.
pub struct Span(Box<opentelemetry_sdk::trace::Span>);

impl Span {
    /// One that nobody is told of, for tests of how long a span is held.
    pub fn untold() -> Self {
        Self(Box::new(SdkTracerProvider::builder().build().tracer("untold").start("untold")))
    }

    /// Its context.
    pub fn context(&self) -> &SpanContext {
        self.0.span_context()
    }

    /// Its context as W3C text of 55 characters.
    pub fn traceparent(&self) -> String {
        context::format(self.context())
    }

    /// The trace's id: 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        self.context().trace_id().to_string()
    }

    /// Gives it another name, of a closed set as the first one.
    pub fn rename(&mut self, name: String) {
        self.0.update_name(name);
    }

    /// Sets an attribute. Names come from closed sets; values hold no text of people and no secret.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        self.0.set_attribute(KeyValue::new(name, value));
    }

    /// Who is called.
    pub fn call_to(&mut self, server: &Server) {
        self.0.set_attributes(server.attributes());
    }

    /// This is a call of a gRPC method (`package.Service/Method`), which goes, or came, to this server.
    pub fn grpc(&mut self, method: impl Into<Value>, server: Option<&Server>) {
        self.set("rpc.system.name", "grpc");
        self.set("rpc.method", method);
        if let Some(server) = server {
            self.call_to(server);
        }
    }

    /// The work failed: `kind` is a code of a closed set.
    pub fn fail(&mut self, kind: &'static str) {
        self.set("error.type", kind);
        self.0.set_status(Status::error(kind));
    }

    /// Points at another span that has to do with this one.
    pub fn link(&mut self, to: SpanContext) {
        self.0.add_link(to, Vec::new());
    }
}

impl std::fmt::Debug for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Span").field(&self.traceparent()).finish()
    }
}

/// The context of the span that the running call has, if it is sampled.
pub fn current() -> Option<SpanContext> {
    Context::map_current(|cx| {
        let span = cx.span();
        let context = span.span_context();
        context.is_sampled().then(|| context.clone())
    })
}
