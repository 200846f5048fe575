//! What Plaza is seen with: Jaeger, an OpenTelemetry collector and Prometheus, as `scripts/tools` has them.

use crate::not_run;
use crate::otlp::Span;
use crate::process::{PATIENCE, Process, free_port, fresh_folder, installed};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Whether a program is on PATH, or where `scripts/tools` puts it.
pub fn is_there(name: &str) -> bool {
    let (program, path) = (installed(name), std::env::var_os("PATH").unwrap_or_default());
    program.is_absolute() || std::env::split_paths(&path).any(|folder| folder.join(&program).is_file())
}

/// Whether these programs are there. If not, `what` is said to be not run.
pub fn are_there(what: &str, programs: &[&str]) -> bool {
    let absent = programs.iter().find(|name| !is_there(name));
    if let Some(name) = absent {
        not_run(what, &format!("there is no {name}; scripts/tools brings it"));
    }
    absent.is_none()
}

/// The body of a GET with status 200. In HTTP/1.0, so that it comes in one piece.
pub async fn get(addr: SocketAddr, path: &str) -> Option<String> {
    let mut stream = tokio::net::TcpStream::connect(addr).await.ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {addr}\r\nAccept: application/openmetrics-text, */*\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| body.to_owned())
}

/// Asks again until `found` finds what it wants.
///
/// # Panics
/// When it does not within [`PATIENCE`]: the message has the last answer.
pub async fn until<T>(addr: SocketAddr, path: &str, what: &str, found: impl Fn(&str) -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        let body = get(addr, path).await;
        if let Some(value) = body.as_deref().and_then(&found) {
            return value;
        }
        assert!(begin.elapsed() < PATIENCE, "no {what} at {addr}{path}: {body:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

/// A Jaeger that keeps traces in memory.
#[derive(Debug)]
pub struct Jaeger {
    /// The process.
    pub process: Process,
    /// Where it takes OTLP over gRPC.
    pub grpc: SocketAddr,
    /// Where it takes OTLP over HTTP.
    pub http: SocketAddr,
    query: SocketAddr,
}

impl Jaeger {
    /// Starts one and waits until it answers.
    pub async fn start() -> Self {
        let (grpc, http, query) = (loopback(), loopback(), loopback());
        // It would trace itself.
        let envs = [("OTEL_TRACES_SAMPLER", "always_off".to_owned())];
        let others = ["admin.http", "collector.grpc-server", "collector.http-server", "query.grpc-server"];
        let mut args: Vec<String> = others.iter().map(|name| format!("--{name}.host-port={}", loopback())).collect();
        args.push(format!("--collector.otlp.grpc.host-port={grpc}"));
        args.push(format!("--collector.otlp.http.host-port={http}"));
        args.push(format!("--query.http-server.host-port={query}"));
        let process = Process::start("jaeger", &installed("jaeger"), &args, &envs);
        until(query, "/api/services", "answer of Jaeger", |_| Some(())).await;
        Self { process, grpc, http, query }
    }

    /// What it has of a trace by now; empty when it does not know it.
    pub async fn peek(&self, id: &str) -> Vec<Span> {
        get(self.query, &format!("/api/traces/{id}")).await.map(|body| spans_of(&body)).unwrap_or_default()
    }

    /// Waits until a search for spans with this attribute finds a trace.
    pub async fn finds(&self, attribute: &str, value: &str, id: &str) {
        let path = format!("/api/traces?service=plaza-edge&limit=100&tags=%7B%22{attribute}%22%3A%22{value}%22%7D");
        let has = |body: &str| body.contains(&format!("\"traceID\":\"{id}\"")).then_some(());
        until(self.query, &path, &format!("trace {id} by {attribute}"), has).await;
    }

    /// Some trace with a span of this name, once there is one.
    pub async fn with(&self, name: &str) -> Vec<Span> {
        let path = format!("/api/traces?service=plaza-edge&operation={name}&limit=1");
        until(self.query, &path, name, |body| Some(spans_of(body)).filter(|spans| !spans.is_empty())).await
    }

    /// A trace, once it has so many spans.
    ///
    /// # Panics
    /// When that does not happen within [`PATIENCE`].
    pub async fn trace(&self, id: &str, count: usize) -> Vec<Span> {
        let enough = |body: &str| Some(spans_of(body)).filter(|spans| spans.len() >= count);
        until(self.query, &format!("/api/traces/{id}"), &format!("trace of {count} spans"), enough).await
    }
}

fn spans_of(body: &str) -> Vec<Span> {
    let answer: Value = serde_json::from_str(body).unwrap_or_default();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let tags = |tags: &Value| -> BTreeMap<String, String> {
        tags.as_array().into_iter().flatten().map(|tag| (text(&tag["key"]), text(&tag["value"]))).collect()
    };
    let trace = &answer["data"][0];
    let span = |span: &Value| {
        let process = &trace["processes"][span["processID"].as_str().unwrap_or_default()];
        let mut resource = tags(&process["tags"]);
        resource.insert("service.name".to_owned(), text(&process["serviceName"]));
        let attributes = tags(&span["tags"]);
        let references = span["references"].as_array().cloned().unwrap_or_default();
        let (parents, links): (Vec<_>, Vec<_>) = references.iter().partition(|to| to["refType"] == "CHILD_OF");
        let start = span["startTime"].as_u64().unwrap_or_default() * 1_000;
        Span {
            scope: attributes.get("otel.scope.name").cloned().unwrap_or_default(),
            name: text(&span["operationName"]),
            kind: match attributes.get("span.kind").map(String::as_str) {
                Some("server") => SpanKind::Server,
                Some("client") => SpanKind::Client,
                Some("producer") => SpanKind::Producer,
                Some("consumer") => SpanKind::Consumer,
                _ => SpanKind::Internal,
            },
            trace_id: text(&span["traceID"]),
            span_id: text(&span["spanID"]),
            parent_id: parents.first().map(|to| text(&to["spanID"])).unwrap_or_default(),
            links: links.iter().map(|to| (text(&to["traceID"]), text(&to["spanID"]))).collect(),
            resource,
            attributes,
            start,
            end: start + span["duration"].as_u64().unwrap_or_default() * 1_000,
        }
    };
    trace["spans"].as_array().into_iter().flatten().map(span).collect()
}

/// The collector with the configuration of `k8s/observability`, in front of a Jaeger.
#[derive(Debug)]
pub struct Collector {
    /// The process.
    pub process: Process,
    /// Where it takes OTLP over gRPC.
    pub grpc: SocketAddr,
    /// Where it takes OTLP over HTTP.
    pub http: SocketAddr,
    /// Where it shows metrics of spans.
    pub metrics: SocketAddr,
}

impl Collector {
    /// Starts one that decides after 1 s and keeps this share of the traces that are neither slow nor failed.
    pub async fn start(jaeger: &Jaeger, kept_percent: u8) -> Self {
        let (grpc, http, metrics, health) = (loopback(), loopback(), loopback(), loopback());
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s/observability/config/collector.yaml");
        let envs = [
            ("GRPC_LISTEN", grpc.to_string()),
            ("HTTP_LISTEN", http.to_string()),
            ("METRICS_LISTEN", metrics.to_string()),
            ("HEALTH_LISTEN", health.to_string()),
            ("TRACES_ENDPOINT", jaeger.grpc.to_string()),
            ("DECISION_WAIT", "1s".to_owned()),
            ("FLUSH_INTERVAL", "500ms".to_owned()),
            ("KEPT_PERCENT", kept_percent.to_string()),
        ];
        let args = ["--config".to_owned(), config.display().to_string()];
        let process = Process::start("collector", &installed("collector"), &args, &envs);
        until(health, "/", "healthy collector", |_| Some(())).await;
        Self { process, grpc, http, metrics }
    }
}

/// A Prometheus that scrapes each second.
#[derive(Debug)]
pub struct Prometheus {
    /// The process.
    pub process: Process,
    addr: SocketAddr,
}

impl Prometheus {
    /// Starts one with these targets, each with its value of the label `pod`, and the chart's alerts.
    ///
    /// # Panics
    /// When the temporary directory cannot be written.
    pub async fn start(targets: &[(SocketAddr, &str)]) -> Self {
        let addr = loopback();
        let folder = fresh_folder("prometheus");
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/plaza/rules/plaza.yaml");
        let mut config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: ['{}']\nscrape_configs:\n  - job_name: plaza\n    honor_labels: true\n    static_configs:\n",
            rules.display()
        );
        for (target, pod) in targets {
            let _ = writeln!(config, "      - {{ targets: ['{target}'], labels: {{ namespace: chat, pod: {pod} }} }}");
        }
        let file = folder.join("prometheus.yaml");
        std::fs::write(&file, config).expect("the folder was just made");
        let args = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", folder.join("data").display()),
            format!("--web.listen-address={addr}"),
            "--enable-feature=exemplar-storage".to_owned(),
        ];
        let process = Process::start_in("prometheus", &installed("prometheus"), &args, &[], folder);
        until(addr, "/-/ready", "ready Prometheus", |_| Some(())).await;
        Self { process, addr }
    }

    /// The `data` of an answer of its API, or what it says instead.
    ///
    /// # Errors
    /// Its answer, when that is no success.
    pub async fn ask(&self, path: &str, arguments: &[(&str, &str)]) -> Result<Value, String> {
        let mut path = format!("/api/v1/{path}?");
        for (name, value) in arguments {
            let _ = write!(path, "{name}=");
            for byte in value.bytes() {
                let _ = write!(path, "%{byte:02X}");
            }
            path.push('&');
        }
        let body = get(self.addr, &path).await.ok_or_else(|| format!("refused: {path}"))?;
        let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        if answer["status"] == "success" { Ok(answer["data"].clone()) } else { Err(body) }
    }

    /// The numbers that an expression has had in the last `seconds`, of all its series; not-a-numbers left out.
    ///
    /// # Errors
    /// What Prometheus says to an expression that it does not understand.
    pub async fn numbers(&self, expression: &str, seconds: u64) -> Result<Vec<f64>, String> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (start, end) = ((now - seconds).to_string(), now.to_string());
        let arguments = [("query", expression), ("start", &start), ("end", &end), ("step", "1")];
        let data = self.ask("query_range", &arguments).await?;
        let series = data["result"].as_array().cloned().unwrap_or_default();
        let samples = series.iter().flat_map(|series| series["values"].as_array().cloned().unwrap_or_default());
        let numbers = samples.filter_map(|sample| sample[1].as_str()?.parse::<f64>().ok());
        Ok(numbers.filter(|number| number.is_finite()).collect())
    }
}
