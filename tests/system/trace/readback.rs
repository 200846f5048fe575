//! The same traces as real backends show them: Jaeger, and the collector of `k8s/observability` in front of it.

use super::{CLIENT_TRACE, Client, TRACED, across_two_edges, hello_over_two_edges, show};
use futures_util::SinkExt;
use plaza_tests::cluster::Cluster;
use plaza_tests::observe::{Collector, Jaeger, are_there, until};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

/// The variables that send over HTTP, soon.
fn envs(to: std::net::SocketAddr) -> Vec<(&'static str, String)> {
    vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{to}")),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf".to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn jaeger_shows_one_message_over_two_edges() {
    if !are_there("the trace that is read back from Jaeger", &["jaeger"]) {
        return;
    }
    let jaeger = Jaeger::start().await;
    let cluster = Cluster::start_in(2, &[], envs(jaeger.http)).await;
    let _clients = hello_over_two_edges(&cluster).await;
    let spans = jaeger.trace(CLIENT_TRACE, 6).await;
    let root = across_two_edges(&spans);
    let [(upgrade, _)] = &root.links[..] else { panic!("one link: {root:?}") };
    let handshake = jaeger.trace(upgrade, 1).await;
    assert_eq!(handshake[0].name, "GET /ws");
    jaeger.finds("plaza.room", TRACED, CLIENT_TRACE).await;
    show(&[spans.clone(), handshake].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_collector_counts_all_spans_and_keeps_the_traces_that_failed() {
    if !are_there("the collector's configuration", &["jaeger", "collector"]) {
        return;
    }
    let jaeger = Jaeger::start().await;
    let collector = Collector::start(&jaeger, 0).await;
    let mut unique = envs(collector.http);
    unique.push(("PLAZA_UNIQUE_USERNAMES", "true".to_owned()));
    let cluster = Cluster::start_in(1, &[], unique).await;
    let mut alice = Client::enter(cluster.edges[0].addr, json!({}), "alice", "traced").await;
    let publish = json!({"room": "traced", "text": "hello", "trace": true});
    let published = alice.ask(json!({"id": 4, "publish": publish}), "published").await;
    let ordinary = published["traceId"].as_str().expect("a trace").to_owned();
    // A name that is taken: refused, and so a trace that failed.
    let (mut bob, _) = Client::hello(cluster.edges[0].addr, json!({})).await;
    let refused = json!({"id": 2, "setUsername": {"username": "alice"}});
    bob.0.send(Message::text(refused.to_string())).await.expect("the socket is open");

    let failed = jaeger.with("ws.receive").await;
    assert!(failed.iter().any(|span| span.attributes.contains_key("error.type")), "{failed:?}");
    assert!(jaeger.peek(&ordinary).await.is_empty(), "an ordinary trace is let go");
    let names = ["ws.receive", "process chat.out.{room}", "send chat.in.{room}"];
    let counted = |text: &str| {
        let calls = |name: &str| {
            let label = format!("span_name=\"{name}\"");
            text.lines().any(|line| line.starts_with("traces_span_metrics_calls_total{") && line.contains(&label))
        };
        names.iter().all(|name| calls(name)).then(|| text.to_owned())
    };
    let text = until(collector.metrics, "/metrics", "metrics of all spans", counted).await;
    let error = "status_code=\"STATUS_CODE_ERROR\"";
    assert!(text.lines().any(|line| line.contains(error) && line.contains("ws.receive")), "{text}");
    assert!(text.contains("traces_span_metrics_duration_seconds_bucket{"), "{text}");
}
