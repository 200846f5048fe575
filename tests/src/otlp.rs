//! A collector in this process: takes spans over OTLP, gRPC or HTTP, and keeps them for assertions.

pub mod http;

use crate::process::PATIENCE;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::server::{Server, ServerTlsConfig, TcpIncoming};
use tonic::{Request, Response, Status};

/// A span as it arrived.
#[derive(Clone, Debug)]
pub struct Span {
    /// Attributes of the process that sent it.
    pub resource: BTreeMap<String, String>,
    /// The part of the program.
    pub scope: String,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: SpanKind,
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// 16 hexadecimal digits; empty for a root.
    pub parent_id: String,
    /// Trace and span of each span that it points at.
    pub links: Vec<(String, String)>,
    /// Its attributes as text.
    pub attributes: BTreeMap<String, String>,
    /// Nanoseconds since 1970.
    pub start: u64,
    /// Nanoseconds since 1970.
    pub end: u64,
}

/// The receiver. It ends when it is dropped.
#[derive(Debug)]
pub struct Receiver {
    addr: SocketAddr,
    spans: watch::Receiver<Vec<Span>>,
    _end: DropGuard,
}

impl Receiver {
    /// Listens on a free port of loopback.
    ///
    /// # Panics
    /// When the kernel gives no port.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("the kernel has free ports");
        Self::start_on(listener)
    }

    /// Receives on a listener.
    ///
    /// # Panics
    /// When the listener has no address.
    pub fn start_on(listener: tokio::net::TcpListener) -> Self {
        Self::serve(listener, Server::builder())
    }

    /// Receives by TLS, on a free port of loopback.
    ///
    /// # Panics
    /// When the kernel gives no port, or the certificates are none.
    pub async fn start_tls(tls: ServerTlsConfig) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("the kernel has free ports");
        Self::serve(listener, Server::builder().tls_config(tls).expect("certificates that fit"))
    }

    fn serve(listener: tokio::net::TcpListener, mut server: Server) -> Self {
        let addr = listener.local_addr().expect("a bound listener has an address");
        let (sender, spans) = watch::channel(Vec::new());
        let end = CancellationToken::new();
        let ended = end.clone();
        let shutdown = plaza_kit::shutdown::Shutdown::new();
        shutdown.spawn("otlp receiver", async move {
            let incoming = TcpIncoming::from(listener);
            let served = server
                .add_service(TraceServiceServer::new(Service(sender)))
                .serve_with_incoming_shutdown(incoming, ended.cancelled_owned())
                .await;
            served.expect("the receiver serves");
        });
        Self { addr, spans, _end: end.drop_guard() }
    }

    /// The value of `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The variables that make a service send everything here, soon.
    pub fn envs(&self) -> Vec<(&'static str, String)> {
        vec![("OTEL_EXPORTER_OTLP_ENDPOINT", self.url()), ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned())]
    }

    /// Waits until `found` finds what it wants among all spans so far.
    ///
    /// # Panics
    /// When it does not within [`PATIENCE`]: the message has what is there.
    pub async fn wait<T>(&mut self, what: &str, found: impl Fn(&[Span]) -> Option<T>) -> T {
        let mut result = None;
        let wait = self.spans.wait_for(|spans| {
            result = found(spans);
            result.is_some()
        });
        let ended = tokio::time::timeout(PATIENCE, wait).await.is_ok_and(|spans| spans.is_ok());
        match result.filter(|_| ended) {
            Some(value) => value,
            None => panic!("no {what}; the spans:\n{}", tree(&self.spans.borrow())),
        }
    }
}

struct Service(watch::Sender<Vec<Span>>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send_modify(|spans| spans.extend(spans_of(request.into_inner())));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn spans_of(request: ExportTraceServiceRequest) -> Vec<Span> {
    let mut spans = Vec::new();
    for group in request.resource_spans {
        let resource = map(group.resource.map(|resource| resource.attributes).unwrap_or_default());
        for scoped in group.scope_spans {
            let scope = scoped.scope.map(|scope| scope.name).unwrap_or_default();
            spans.extend(scoped.spans.into_iter().map(|span| Span {
                resource: resource.clone(),
                scope: scope.clone(),
                kind: span.kind(),
                trace_id: hex(&span.trace_id),
                span_id: hex(&span.span_id),
                parent_id: hex(&span.parent_span_id),
                links: span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect(),
                attributes: map(span.attributes),
                name: span.name,
                start: span.start_time_unix_nano,
                end: span.end_time_unix_nano,
            }));
        }
    }
    spans
}

fn map(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    pairs.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(yes)) => yes.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Traces as text: spans below their parents, in order of their begin. Processes of the same service are numbered;
/// the lines at the end say which is which.
pub fn tree(spans: &[Span]) -> String {
    let mut text = String::new();
    let is_root = |span: &&Span| spans.iter().all(|other| other.span_id != span.parent_id);
    let mut roots: Vec<_> = spans.iter().filter(is_root).collect();
    roots.sort_by_key(|span| span.start);
    let processes = Processes::of(spans);
    for root in roots {
        let _ = writeln!(text, "trace {}", root.trace_id);
        branch(&mut text, &processes, spans, root, root.start, 1);
    }
    for (service, instance) in &processes.0 {
        let name = processes.name(service, instance);
        if name != *service {
            let _ = writeln!(text, "  {name} is service.instance.id {instance}");
        }
    }
    text
}

/// Service and instance of all who sent some spans, in order of their first one.
struct Processes<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Processes<'a> {
    fn of(spans: &'a [Span]) -> Self {
        let mut all: Vec<_> = spans.iter().map(|span| (span.start, process(span))).collect();
        all.sort_unstable();
        let mut first = Vec::new();
        for (_, process) in all {
            if !first.contains(&process) {
                first.push(process);
            }
        }
        Self(first)
    }

    /// The service, with a number when there are several of it.
    fn name(&self, service: &str, instance: &str) -> String {
        let same: Vec<_> = self.0.iter().filter(|(other, _)| *other == service).collect();
        match same.iter().position(|(_, other)| *other == instance) {
            Some(place) if same.len() > 1 => format!("{service} {}", place + 1),
            _ => service.to_owned(),
        }
    }
}

fn process(span: &Span) -> (&str, &str) {
    let of = |key: &str| span.resource.get(key).map_or("?", String::as_str);
    (of("service.name"), of("service.instance.id"))
}

fn branch(text: &mut String, processes: &Processes<'_>, spans: &[Span], span: &Span, begin: u64, depth: usize) {
    let ms = |nanos: u64| nanos as f64 / 1e6;
    let (service, instance) = process(span);
    let (service, name) = (processes.name(service, instance), &span.name);
    let (at, took) = (ms(span.start.saturating_sub(begin)), ms(span.end.saturating_sub(span.start)));
    let width = 58_usize.saturating_sub(2 * depth);
    let _ = write!(
        text,
        "{:indent$}{name:width$} {:8?} {service:14} at {at:7.2} ms, took {took:7.2} ms",
        "",
        span.kind,
        indent = 2 * depth
    );
    for key in ["plaza.request", "plaza.recipients", "plaza.connection.id", "error.type"] {
        if let Some(value) = span.attributes.get(key) {
            let _ = write!(text, ", {key} {value}");
        }
    }
    let _ = writeln!(text);
    for (_, linked) in &span.links {
        let target = spans.iter().find(|other| other.span_id == *linked);
        let _ =
            writeln!(text, "{:indent$}-> {}", "", target.map_or(linked.as_str(), |t| &t.name), indent = 2 * depth + 2);
    }
    let mut children: Vec<_> =
        spans.iter().filter(|c| c.parent_id == span.span_id && c.trace_id == span.trace_id).collect();
    children.sort_by_key(|child| child.start);
    for child in children {
        branch(text, processes, spans, child, begin, depth + 1);
    }
}
