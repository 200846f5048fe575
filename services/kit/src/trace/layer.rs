//! What is seen of gRPC calls: the server's side as a layer that counts and traces, the client's side as a
//! span around a call.

use std::pin::Pin;
use std::task::{Context as Poll, Poll as Ready};
use std::time::Instant;

use http::{Request, Response};
use opentelemetry::context::FutureExt as _;
use opentelemetry::trace::{SpanKind, TraceContextExt as _};
use opentelemetry::{Context, KeyValue};
use tonic::Code;
use tonic::metadata::MetadataValue;
use tower::{Layer, Service};

use super::context::TRACEPARENT;
use super::{Origin, Server, Span, Tracer};
use crate::metrics::GrpcCalls;

/// A method that nobody serves: anybody can make up its name.
pub(crate) const OTHER: &str = "_OTHER";

/// Counts each call with its duration, and gives a sampled one a SERVER span, below which the handler's own
/// spans stand. Health and reflection are left out, and so are the long streams, whose items are counted and
/// traced one by one.
#[derive(Clone, Debug)]
pub struct CallLayer {
    /// The source of the spans.
    pub tracer: Tracer,
    /// Where calls are counted.
    pub calls: GrpcCalls,
}

impl<S> Layer<S> for CallLayer {
    type Service = Seen<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Seen { inner, tracer: self.tracer, calls: self.calls.clone() }
    }
}

/// The service of [`CallLayer`].
#[derive(Clone, Debug)]
pub struct Seen<S> {
    inner: S,
    tracer: Tracer,
    calls: GrpcCalls,
}

impl<S, B, R> Service<Request<B>> for Seen<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Poll<'_>) -> Ready<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let uri = request.uri().clone();
        let Some(method) = method(uri.path()) else {
            // Whoever traces the items of a stream finds here what its caller named.
            if super::export::state().is_some()
                && let Some(authority) = uri.authority()
            {
                request.extensions_mut().insert(Server::of_authority(authority));
            }
            return Box::pin(self.inner.call(request));
        };
        let span = self.span(method, &request).map(|span| (span, method.to_owned()));
        let call = self.inner.call(request);
        let (calls, begin) = (self.calls.clone(), Instant::now());
        let ended = move |code, trace| calls.ended(&uri.path()[1..], code, begin.elapsed(), trace);
        let Some((span, name)) = span else {
            return Box::pin(async move {
                let result = call.await;
                ended(code_of(&result), None);
                result
            });
        };
        let trace = span.trace_id();
        let cx = Context::new().with_span(*span.0);
        let mut method = Method { cx: cx.clone(), name };
        Box::pin(async move {
            let result = call.with_context(cx.clone()).await;
            let code = code_of(&result);
            ended(code, Some(trace));
            let span = cx.span();
            if code == Code::Unimplemented {
                method.name = OTHER.to_owned();
                span.update_name(OTHER);
            }
            drop(method);
            span.set_attribute(KeyValue::new("rpc.status_code", code_name(code)));
            // The codes that are the server's fault.
            if matches!(code, Code::Unknown | Code::Unimplemented | Code::Internal | Code::Unavailable | Code::DataLoss)
            {
                span.set_attribute(KeyValue::new("error.type", code_name(code)));
                span.set_status(opentelemetry::trace::Status::error(code_name(code)));
            }
            span.end();
            result
        })
    }
}

impl<S> Seen<S> {
    fn span<B>(&self, method: &str, request: &Request<B>) -> Option<Span> {
        super::export::state()?;
        let traceparent = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
        let origin = Origin { traceparent, ..Origin::default() };
        let mut span = self.tracer.root(method.to_owned(), SpanKind::Server, origin)?;
        span.set("rpc.system.name", "grpc");
        if let Some(authority) = request.uri().authority() {
            span.call_to(&Server::of_authority(authority));
        }
        Some(span)
    }
}

/// The method in the span of a call: set when the call ends, or is given up, as only then it is known whether anybody
/// serves it.
struct Method {
    cx: Context,
    name: String,
}

impl Drop for Method {
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        self.cx.span().set_attribute(KeyValue::new("rpc.method", name));
    }
}

/// `package.Service/Method` of a path, if its calls are looked at.
fn method(path: &str) -> Option<&str> {
    let method = path.strip_prefix('/')?;
    let left_out = method.starts_with("grpc.") || method.ends_with("Stream") || method.ends_with("/Subscribe");
    (!left_out).then_some(method)
}

/// A refusal is in the head of the answer; what comes later has succeeded until then.
fn code_of<R, E>(result: &Result<Response<R>, E>) -> Code {
    result.as_ref().map_or(Code::Unknown, |response| {
        let status = response.headers().get("grpc-status").map(|value| value.as_bytes());
        status.map_or(Code::Ok, Code::from_bytes)
    })
}

/// The CLIENT span of a call.
#[derive(Debug)]
pub struct ClientSpan(Span);

impl ClientSpan {
    /// Makes `span` that of a call to `method` (`package.Service/Method`) of a server, and puts its context into
    /// the request's metadata.
    pub fn begin<T>(method: &'static str, server: &Server, mut span: Span, request: &mut tonic::Request<T>) -> Self {
        span.grpc(method, Some(server));
        if let Ok(value) = MetadataValue::try_from(span.traceparent()) {
            request.metadata_mut().insert(TRACEPARENT, value);
        }
        Self(span)
    }

    /// The trace's id.
    pub(crate) fn trace_id(&self) -> String {
        self.0.trace_id()
    }

    /// The call has ended, with an error of a closed set or without.
    pub(crate) fn done(mut self, error: Option<&'static str>) {
        match error {
            None => self.0.set("rpc.status_code", "OK"),
            Some(error) => self.0.fail(error),
        }
    }
}

/// A gRPC code as the semantic conventions spell it.
pub const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
