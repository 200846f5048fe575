//! How spans leave: over gRPC and HTTP, with certificates, to collectors that are away or say nothing.

use super::{Client, trace};
use plaza_tests::cluster::Cluster;
use plaza_tests::not_run;
use plaza_tests::otlp::{Receiver, http::KEY_HEADER};
use plaza_tests::process::{PATIENCE, fresh_folder};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

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

/// A message through one edge is traced as a whole.
async fn one_message_arrives(receiver: &mut Receiver, envs: Envs) {
    let cluster = Cluster::start_in(1, &[], envs).await;
    let mut alice = Client::enter(cluster.edges[0].addr, json!({}), "alice", "traced").await;
    let publish = json!({"room": "traced", "text": "hello", "trace": true});
    let published = alice.ask(json!({"id": 4, "publish": publish}), "published").await;
    trace(receiver, published["traceId"].as_str().expect("a trace"), 5).await;
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

/// Certificate and key for 127.0.0.1, signed by themselves; `None` without openssl.
fn certificate(folder: &Path) -> Option<()> {
    let files = ["-keyout", "key.pem", "-out", "certificate.pem", "-days", "2"];
    let names = ["-subj", "/CN=collector", "-addext", "subjectAltName=IP:127.0.0.1"];
    let kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-addext", "basicConstraints=CA:FALSE"];
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-nodes"]).args(kind).args(names).args(files).current_dir(folder);
    let output = openssl.output().ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_with_certificates_is_reached_over_https_and_knows_who_sends() {
    let folder = fresh_folder("certificates");
    if certificate(&folder).is_none() {
        return not_run("OTLP over TLS", "there is no openssl");
    }
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    let read = CertificateDer::from_pem_file(&certificate).expect("it was made");
    // The same pair serves both sides: each trusts it, and shows it.
    let mut roots = rustls::RootCertStore::empty();
    roots.add(read.clone()).expect("it is a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config
        .expect("the usual versions")
        .with_client_cert_verifier(clients.build().expect("there is whom to trust"))
        .with_single_cert(vec![read], PrivateKeyDer::from_pem_file(&key).expect("it was made"))
        .expect("they fit");
    let mut receiver = Receiver::start_http(Some(config)).await;
    let mut envs = envs("http/protobuf", receiver.url().replace("http:", "https:"));
    for (name, file) in [
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", &certificate),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &certificate),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", &key),
    ] {
        envs.push((name, file.to_string_lossy().into_owned()));
    }
    one_message_arrives(&mut receiver, envs).await;
    // What is left is the folder of a test that has passed.
    let _ = std::fs::remove_dir_all(folder);
}

/// The collector is away at first; while it is, messages are as fast as without one, and one line says so. Then
/// it comes, which one line says too. Returns the variables, that of an absent collector.
async fn unreachable_and_found(protocol: &str, start: impl Fn(TcpListener) -> Receiver) -> Envs {
    let nowhere = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let addr = nowhere.local_addr().expect("an address");
    drop(nowhere);
    let envs = envs(protocol, format!("http://{addr}"));
    let mut cluster = Cluster::start_in(1, &[], envs.clone()).await;
    let mut alice = Client::enter(cluster.edges[0].addr, json!({}), "alice", "traced").await;
    for n in 0..10 {
        alice.ask(json!({"id": 4, "publish": {"room": "traced", "text": format!("line {n}")}}), "published").await;
    }
    let said = "spans cannot be exported";
    let edge = &mut cluster.edges[0];
    edge.process.wait_log("the line about spans", |log| log.contains(said).then_some(())).await;
    // Many batches fail; when the collector comes, that is said once too.
    let mut receiver = start(TcpListener::bind(addr).await.expect("the port is free again"));
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
    envs
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_collector_over_http_costs_one_line() {
    unreachable_and_found("http/protobuf", |listener| Receiver::start_http_on(listener, None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_collector_costs_one_line_and_a_ratio_of_nothing_sends_nothing() {
    let mut envs = unreachable_and_found("grpc", Receiver::start_on).await;
    envs.push(("OTEL_TRACES_SAMPLER", "parentbased_always_off".to_owned()));
    let silent = Cluster::start_in(1, &[], envs).await;
    let mut bob = Client::enter(silent.edges[0].addr, json!({}), "bob", "untraced").await;
    let publish = json!({"room": "untraced", "text": "hello", "trace": true});
    let published = bob.ask(json!({"id": 4, "publish": publish}), "published").await;
    assert!(published.get("traceId").is_none(), "{published}");
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
