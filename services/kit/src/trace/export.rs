//! From `OTEL_*` variables to an exporter, and the end of it.
//!
//! Without an endpoint there is no exporter, no thread and no cost. With one, spans wait in a bounded
//! queue for a thread that sends them; when the collector cannot be reached they are dropped there and
//! counted, and only the change is logged.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::SpanContext;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Sampler as SdkSampler, SdkTracerProvider, SpanData, SpanExporter};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::collector::{self, Cause};
use super::queue::{self, Change, Fate, Queue};
use super::sampler::Sampler;
use super::{ASKED_PER_SECOND, Origin};
use crate::metrics::Metrics;
use crate::telemetry::LogGate;

/// Spans by result.
pub type Spans = Family<[(&'static str, &'static str); 1], Counter>;

/// What the flush at the end may take.
const FLUSH: Duration = Duration::from_millis(1_500);

static STATE: OnceLock<State> = OnceLock::new();
static ASKED: LogGate = LogGate::per_second(ASKED_PER_SECOND);

/// Tracing as this process has it.
#[derive(Debug)]
pub(super) struct State {
    pub(super) provider: SdkTracerProvider,
    sampler: Sampler,
}

/// `None`: nothing is traced.
#[inline]
pub(super) fn state() -> Option<&'static State> {
    STATE.get()
}

impl State {
    /// Whether work that begins here is sampled.
    pub(super) fn decide(&self, parent: Option<&SpanContext>, origin: Origin<'_>) -> bool {
        let wanted = origin.asked || parent.is_some_and(SpanContext::is_sampled);
        if wanted && (!origin.asked || !self.sampler.is_off()) && (!origin.stranger || ASKED.pass().is_some()) {
            return origin.asked || self.sampler.decide(parent, || fastrand::u64(..));
        }
        // What a stranger asked for beyond the bound is treated like anybody's.
        let parent = parent.filter(|parent| !(origin.stranger && parent.is_sampled()));
        self.sampler.decide(parent, || fastrand::u64(..))
    }
}

/// Begins to trace, if `OTEL_EXPORTER_OTLP_ENDPOINT` (or `..._TRACES_ENDPOINT`) names a collector, and
/// `OTEL_SDK_DISABLED` and `OTEL_TRACES_EXPORTER` do not say otherwise. `OTEL_SERVICE_NAME` and
/// `OTEL_RESOURCE_ATTRIBUTES` tell who sends; `service` is the name without them. Wrong values are logged
/// and replaced by the defaults. Only the first call in a process counts.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn start(service: &'static str, version: &'static str, metrics: &Metrics) {
    if !is_wanted() {
        return;
    }
    let sampler =
        Sampler::parse(variable("OTEL_TRACES_SAMPLER").as_deref(), variable("OTEL_TRACES_SAMPLER_ARG").as_deref());
    let sampler = sampler.unwrap_or_else(|problem| {
        tracing::warn!(problem, "a tracing setting is wrong; everything is sampled");
        Sampler::always()
    });
    let (exporter, cause) = match collector::exporter() {
        Ok(both) => both,
        Err(problem) => {
            tracing::warn!(problem, "a tracing setting is wrong; nothing is traced");
            return;
        }
    };
    let places = queue::places(variable("OTEL_BSP_MAX_QUEUE_SIZE").as_deref()).unwrap_or_else(|problem| {
        tracing::warn!(problem, "a tracing setting is wrong; the default is used");
        queue::PLACES
    });
    let fate = Fate::new(places, &metrics.registry(register));
    let exporter = Told { exporter, cause, fate: fate.clone() };
    let provider = SdkTracerProvider::builder()
        // The decision is made before a span is built: one that is built is wanted.
        .with_sampler(SdkSampler::AlwaysOn)
        .with_span_processor(Queue::new(exporter, fate))
        .with_resource(resource(service, version))
        .build();
    if STATE.set(State { provider, sampler }).is_ok() {
        tracing::info!("spans are exported over OTLP");
    }
}

/// Registers what exporters count: only a process that exports has it.
pub fn register(registry: &mut Registry) -> Spans {
    let spans = Spans::default();
    for result in ["exported", "lost"] {
        spans.get_or_create(&[("result", result)]).inc_by(0);
    }
    let help =
        "Spans by what became of them: exported, or lost with an export or at a full queue. Only with a collector";
    registry.register("plaza_trace_spans", help, spans.clone());
    spans
}

/// Sends what waits, for at most 1.5 s. To be called at the end of a `main`, inside its runtime.
pub async fn end() {
    let Some(state) = STATE.get() else { return };
    // Later than the deadline there is nobody left to tell: the process ends.
    let flush = tokio::task::spawn_blocking(|| state.provider.shutdown_with_timeout(FLUSH));
    let _ = tokio::time::timeout(FLUSH * 2, flush).await;
}

/// A variable that says something.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn is_wanted() -> bool {
    if collector::variable_of_traces("ENDPOINT").is_none()
        || variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
    {
        return false;
    }
    let exporter = variable("OTEL_TRACES_EXPORTER").unwrap_or_else(|| "otlp".to_owned());
    match exporter.as_str() {
        "otlp" => true,
        "none" => false,
        _ => {
            tracing::warn!(exporter, "nothing is traced: OTEL_TRACES_EXPORTER can be otlp or none");
            false
        }
    }
}

fn resource(service: &'static str, version: &'static str) -> Resource {
    // Two processes of one host differ by the random part.
    let host = variable("HOSTNAME").unwrap_or_else(|| service.to_owned());
    let instance = format!("{host}-{:08x}", fastrand::u32(..));
    let given = variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let is_given = |key: &str| given.split(',').any(|pair| pair.trim_start().starts_with(&format!("{key}=")));
    let mut builder = Resource::builder();
    if variable("OTEL_SERVICE_NAME").is_none() && !is_given("service.name") {
        builder = builder.with_service_name(service);
    }
    for (key, value) in [("service.version", version.to_owned()), ("service.instance.id", instance)] {
        if !is_given(key) {
            builder = builder.with_attribute(KeyValue::new(key, value));
        }
    }
    builder.build()
}

/// An exporter that counts, and that logs when exports begin to fail and when they work again.
#[derive(Debug)]
struct Told<E> {
    exporter: E,
    cause: Cause,
    fate: Arc<Fate>,
}

impl<E> Told<E> {
    fn tell(&self, count: usize, result: &OTelSdkResult) {
        match (self.fate.ended(count, result.is_err()), result) {
            (Some(Change::Losing), Err(error)) => {
                let error = reason(error, self.cause.take());
                tracing::warn!(error, "spans cannot be exported; they are dropped until the collector answers");
            }
            (Some(Change::Well), _) => tracing::info!("spans are exported again"),
            _ => {}
        }
    }
}

/// What an export fails of that a variable would mend: a part of the error, and what to set.
const HINTS: [(&str, &str); 3] = [
    ("peer certificate: UnknownIssuer", "OTEL_EXPORTER_OTLP_CERTIFICATE names a file of the authorities to trust"),
    ("CertificateRequired", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and ..._CLIENT_KEY tell the collector who sends"),
    ("InvalidContentType", "the collector speaks no TLS; http:// in OTEL_EXPORTER_OTLP_ENDPOINT says so"),
];

fn reason(error: &OTelSdkError, cause: Option<String>) -> String {
    let mut text = match error {
        OTelSdkError::Timeout(after) => format!("no answer in {after:?}"),
        other => other.to_string(),
    };
    if let Some(cause) = cause {
        text = format!("{text}: {cause}");
    }
    match HINTS.iter().find(|(part, _)| text.contains(part)) {
        Some((_, hint)) => format!("{text}; {hint}"),
        None => text,
    }
}

impl<E: SpanExporter> SpanExporter for Told<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        self.fate.taken(count);
        let result = self.exporter.export(batch).await;
        self.tell(count, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
