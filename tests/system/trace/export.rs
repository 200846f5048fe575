//! How spans leave: over gRPC and HTTP, with certificates, to collectors that are away or say nothing.

use super::{Client, service, trace};
use plaza_tests::cluster::{Cluster, Service, http_get};
use plaza_tests::otlp::{Receiver, Span, http::KEY_HEADER};
use plaza_tests::process::{PATIENCE, fresh_folder};
use plaza_tests::{certificates, not_run};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpSocket};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

type Envs = Vec<(&'static str, String)>;

/// The variables of an exporter that sends soon.
fn envs(protocol: &str, url: String) -> Envs {
    vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
        ("OTEL_EXPORTER_OTLP_HEADERS", KEY_HEADER.to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned()),
    ]
}

/// Services that send a message through one edge, and its trace, if it has one.
async fn one_message(envs: Envs) -> (Cluster, Option<String>) {
    let cluster = Cluster::start_in(1, &[], envs).await;
    let mut alice = Client::enter(cluster.edges[0].addr, json!({}), "alice", "traced").await;
    let publish = json!({"room": "traced", "text": "hello", "trace": true});
    let published = alice.ask(json!({"id": 4, "publish": publish}), "published").await;
    (cluster, published["traceId"].as_str().map(str::to_owned))
}

/// A message through one edge is traced as a whole: its spans.
async fn one_message_arrives(receiver: &mut Receiver, envs: Envs) -> Vec<Span> {
    let (_cluster, id) = one_message(envs).await;
    trace(receiver, &id.expect("a trace"), 5).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_standard_variables_say_who_sends_and_that_nobody_does() {
    let mut receiver = Receiver::start().await;
    let mut named = receiver.envs();
    named.push(("OTEL_SERVICE_NAME", "front".to_owned()));
    named.push(("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=one,deployment.environment.name=test".to_owned()));
    for span in one_message_arrives(&mut receiver, named).await {
        let expected =
            [("service.name", "front"), ("service.instance.id", "one"), ("deployment.environment.name", "test")];
        let has = |(key, value): &(&str, &str)| span.resource.get(*key).is_some_and(|found| found == value);
        assert!(expected.iter().all(has), "{:?}", span.resource);
        assert!(span.resource.contains_key("service.version"), "{:?}", span.resource);
    }
    for (name, off) in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_TRACES_SAMPLER", "parentbased_always_off"),
    ] {
        let mut envs = receiver.envs();
        envs.push((name, off.to_owned()));
        assert_eq!(one_message(envs).await.1, None, "{name}={off}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_travel_over_http_with_the_headers_that_were_asked_for() {
    let mut receiver = Receiver::start_http(None).await;
    // The path is the exporter's to add; the variable of the signal is taken as it stands, and wins.
    let general = envs("http/protobuf", receiver.url());
    one_message_arrives(&mut receiver, general).await;
    let mut of_traces = envs("grpc", "http://127.0.0.1:9".to_owned());
    of_traces.push(("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("{}/v1/traces", receiver.url())));
    of_traces.push(("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf".to_owned()));
    of_traces.push(("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "3000".to_owned()));
    one_message_arrives(&mut receiver, of_traces).await;
}

/// What openssl made: an authority, who is signed by it (`collector` and `plaza`, each with its key), and a stranger.
struct Certificates(PathBuf);

impl Certificates {
    /// `None` without openssl.
    fn make() -> Option<Self> {
        let folder = fresh_folder("certificates");
        for name in ["ca", "stranger"] {
            certificates::alone(&folder, name).ok()?;
        }
        for name in ["collector", "plaza"] {
            certificates::signed(&folder, "ca", name, "IP:127.0.0.1").ok()?;
        }
        Some(Self(folder))
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    fn pem(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.path(file)).expect("it was made")
    }

    /// A collector over gRPC or HTTP that asks who sends.
    async fn collector(&self, protocol: &str) -> Receiver {
        if protocol == "grpc" {
            let own = Identity::from_pem(self.pem("collector.pem"), self.pem("collector.key"));
            let clients = Certificate::from_pem(self.pem("ca.pem"));
            return Receiver::start_tls(ServerTlsConfig::new().identity(own).client_ca_root(clients)).await;
        }
        let read = |file| CertificateDer::from_pem_file(self.path(file)).expect("it was made");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(read("ca.pem")).expect("it is a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let key = PrivateKeyDer::from_pem_file(self.path("collector.key")).expect("it was made");
        let config = config
            .expect("the usual versions")
            .with_client_cert_verifier(clients.build().expect("there is whom to trust"))
            .with_single_cert(vec![read("collector.pem")], key)
            .expect("they fit");
        Receiver::start_http(Some(config)).await
    }

    /// The variables that send there by TLS and trust an authority.
    fn envs(&self, protocol: &str, receiver: &Receiver, authority: &str) -> Envs {
        let mut envs = envs(protocol, receiver.url().replace("http:", "https:"));
        for (name, file) in [
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", authority),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "plaza.pem"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "plaza.key"),
        ] {
            envs.push((name, self.path(file).to_string_lossy().into_owned()));
        }
        envs
    }
}

const PROTOCOLS: [&str; 2] = ["grpc", "http/protobuf"];

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_with_certificates_is_reached_by_tls_and_knows_who_sends() {
    let Some(certificates) = Certificates::make() else { return not_run("OTLP over TLS", "there is no openssl") };
    for protocol in PROTOCOLS {
        let mut receiver = certificates.collector(protocol).await;
        let envs = certificates.envs(protocol, &receiver, "ca.pem");
        one_message_arrives(&mut receiver, envs).await;
    }
    // What is left is the folder of a test that has passed.
    let _ = std::fs::remove_dir_all(certificates.0);
}

/// Spans of the edge that were lost, by its metrics.
async fn lost(edge: &Service) -> u64 {
    let metrics = http_get(edge.admin, "/metrics").await.expect("metrics");
    let line = metrics.lines().find_map(|line| line.strip_prefix("plaza_trace_spans_total{result=\"lost\"} "));
    line.and_then(|count| count.parse().ok()).expect("an exporter counts")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_trusted_costs_one_line_that_says_what_to_set() {
    let Some(certificates) = Certificates::make() else { return not_run("OTLP over TLS", "there is no openssl") };
    for protocol in PROTOCOLS {
        let receiver = certificates.collector(protocol).await;
        let cluster = Cluster::start_in(1, &[], certificates.envs(protocol, &receiver, "stranger.pem")).await;
        let edge = &cluster.edges[0];
        let mut alice = Client::enter(edge.addr, json!({}), "alice", "traced").await;
        let (begin, mut failures) = (Instant::now(), BTreeSet::new());
        // Export after export fails, and each message has its answer at once.
        while failures.len() < 4 {
            let sent = Instant::now();
            alice.ask(json!({"id": 4, "publish": {"room": "traced", "text": "hello"}}), "published").await;
            assert!(sent.elapsed() < Duration::from_secs(2), "{protocol}: {:?}", sent.elapsed());
            assert!(begin.elapsed() < PATIENCE, "{protocol}: {failures:?} spans were lost");
            failures.insert(lost(edge).await);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let log = edge.process.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains("spans cannot be exported")).collect();
        assert_eq!(lines.len(), 1, "{protocol}: {log}");
        let told = ["UnknownIssuer", "OTEL_EXPORTER_OTLP_CERTIFICATE names"];
        assert!(told.iter().all(|part| lines[0].contains(part)), "{protocol}: {}", lines[0]);
    }
    let _ = std::fs::remove_dir_all(certificates.0);
}

/// The collector is away at first; while it is, messages are as fast as without one, and one line says so. Then
/// it comes, which one line says too.
async fn unreachable_and_found(protocol: &str, start: impl Fn(TcpListener) -> Receiver) {
    // A port that is held and refuses.
    let nowhere = TcpSocket::new_v4().expect("a socket");
    nowhere.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let addr = nowhere.local_addr().expect("an address");
    let mut cluster = Cluster::start_in(1, &[], envs(protocol, format!("http://{addr}"))).await;
    let mut alice = Client::enter(cluster.edges[0].addr, json!({}), "alice", "traced").await;
    for n in 0..10 {
        alice.ask(json!({"id": 4, "publish": {"room": "traced", "text": format!("line {n}")}}), "published").await;
    }
    let said = "spans cannot be exported";
    let edge = &mut cluster.edges[0];
    edge.process.wait_log("the line about spans", |log| log.contains(said).then_some(())).await;
    // Many batches fail; when the collector comes, that is said once too.
    let mut receiver = start(nowhere.listen(1_024).expect("it takes connections"));
    let back = tokio::time::timeout(PATIENCE, async {
        loop {
            alice.ask(json!({"id": 5, "publish": {"room": "traced", "text": "again"}}), "published").await;
            if edge.process.log().contains("spans are exported again") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    back.await.expect("the collector is found again");
    assert_eq!(edge.process.log().matches(said).count(), 1, "{}", edge.process.log());
    receiver.wait("any span", |spans| spans.first().map(|_| ())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_collector_over_http_costs_one_line() {
    unreachable_and_found("http/protobuf", |listener| Receiver::start_http_on(listener, None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_collector_costs_one_line() {
    unreachable_and_found("grpc", Receiver::start_on).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_says_nothing_costs_a_bounded_buffer_and_no_latency() {
    const QUEUE: usize = 32;
    const MESSAGES: usize = 200;
    /// What an export may take: far longer than all messages together.
    const EXPORT: Duration = Duration::from_secs(60);
    // It takes connections, by the kernel's hand, and says nothing until it is served at last.
    let mute = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let mut envs = envs("grpc", format!("http://{}", mute.local_addr().expect("an address")));
    for (name, value) in [
        ("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE.to_string()),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", QUEUE.to_string()),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", EXPORT.as_millis().to_string()),
    ] {
        envs.push((name, value));
    }
    let mut cluster = Cluster::start_in(1, &["--message-rate", "0"], envs).await;
    let mut alice = Client::enter(cluster.edges[0].addr, json!({}), "alice", "traced").await;
    let begin = Instant::now();
    for n in 0..MESSAGES {
        alice.ask(json!({"id": 4, "publish": {"room": "traced", "text": format!("line {n}")}}), "published").await;
    }
    let took = begin.elapsed();
    assert!(took < EXPORT, "{MESSAGES} messages waited {took:?}: for the collector");
    // Of each message the edge has three spans; it keeps a batch on its way, and a queue. What is beyond is counted,
    // and told in one line.
    let edge = &mut cluster.edges[0];
    let dropped = lost(edge).await;
    let least = (3 * MESSAGES - 3 * QUEUE) as u64;
    assert!(dropped >= least, "{dropped} spans are counted, {least} are lost");
    alice.ask(json!({"id": 4, "publish": {"room": "traced", "text": "one more"}}), "published").await;
    assert!(lost(edge).await > dropped, "what is lost grows with each message");
    let told = "more spans wait than there are places";
    edge.process.wait_log("the line about the queue", |log| log.contains(told).then_some(())).await;

    // What is said from now on arrives behind what was kept.
    let mut receiver = Receiver::start_on(mute);
    let (begin, mut later) = (Instant::now(), BTreeSet::new());
    let kept = loop {
        assert!(begin.elapsed() < PATIENCE, "the collector is not found");
        let publish = json!({"room": "traced", "text": "again", "trace": true});
        let published = alice.ask(json!({"id": 5, "publish": publish}), "published").await;
        later.insert(published["traceId"].as_str().expect("a trace").to_owned());
        let earlier = |spans: &[Span]| {
            let is_later = |span: &&Span| later.contains(&span.trace_id);
            let of_edge = spans.iter().filter(|span| !is_later(span) && service(span) == "plaza-edge");
            spans.iter().any(|span| is_later(&span)).then(|| of_edge.count())
        };
        if let Ok(kept) = tokio::time::timeout(Duration::from_millis(200), receiver.wait("it", earlier)).await {
            break kept;
        }
    };
    assert!(kept <= 3 * QUEUE, "{kept} spans of {}", 3 * MESSAGES);
    let log = cluster.edges[0].process.log();
    let warnings = log.lines().filter(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\""));
    assert_eq!(warnings.count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_does_not_hold_up_the_end() {
    // It takes connections, by the kernel's hand, and says nothing.
    let mute = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let url = format!("http://{}", mute.local_addr().expect("an address"));
    let envs = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", url), ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned())];
    let mut cluster = Cluster::start_in(1, &["--drain-window", "0"], envs).await;
    let mut alice = Client::enter(cluster.edges[0].addr, json!({}), "alice", "traced").await;
    alice.ask(json!({"id": 4, "publish": {"room": "traced", "text": "hello"}}), "published").await;
    for service in cluster.edges.iter_mut().chain([&mut cluster.session, &mut cluster.fanout]) {
        let begin = Instant::now();
        service.process.signal("TERM");
        let status = service.process.wait().await;
        let (took, log) = (begin.elapsed(), service.process.log());
        assert!(status.success() && !log.contains("panicked"), "{status}\n{log}");
        assert!(took < Duration::from_secs(15), "{took:?}\n{log}");
    }
}
