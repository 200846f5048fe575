//! Every query of the dashboards and every alert, asked of a real Prometheus that scrapes real services.

use super::Client;
use crate::clients;
use plaza_tests::cluster::Cluster;
use plaza_tests::observe::{Collector, Jaeger, Prometheus, are_there};
use plaza_tests::process::{PATIENCE, installed};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What only a cluster has, as kube-state-metrics and the kubelet write it: made up here, to run the queries.
const OF_A_CLUSTER: &str = "\
kube_horizontalpodautoscaler_status_desired_replicas{horizontalpodautoscaler=\"plaza-edge\"} 2
kube_horizontalpodautoscaler_status_current_replicas{horizontalpodautoscaler=\"plaza-edge\"} 2
kube_horizontalpodautoscaler_spec_max_replicas{horizontalpodautoscaler=\"plaza-edge\"} 4
kube_pod_annotations{annotation_controller_kubernetes_io_pod_deletion_cost=\"100\"} 1
kube_deployment_status_replicas_available{deployment=\"plaza-edge\"} 2
kube_pod_container_status_restarts_total{container=\"edge\"} 0
kube_pod_container_resource_limits{container=\"edge\",resource=\"memory\"} 1073741824
container_cpu_cfs_throttled_periods_total{container=\"edge\"} GROWS
container_cpu_cfs_periods_total{container=\"edge\"} GROWS
container_memory_working_set_bytes{container=\"edge\"} 100000000
";

/// Serves a text to everybody who asks, with the number of the request for `GROWS`, until the test ends.
#[expect(clippy::disallowed_methods, reason = "it ends with the test")]
async fn exporter(text: &'static str) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut asked = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            asked += 1;
            let text = text.replace("GROWS", &asked.to_string());
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                text.len()
            );
            let _ = stream.write_all((head + &text).as_bytes()).await;
        }
    });
    addr
}

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/plaza")
}

/// Title and expression of every panel, with the variables of Grafana filled in.
fn queries() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(chart().join("dashboards")).expect("the folder of dashboards") {
        let path = entry.expect("it can be listed").path();
        let text = std::fs::read_to_string(&path).expect("it can be read");
        let dashboard: Value = serde_json::from_str(&text).expect("dashboards are JSON");
        for panel in dashboard["panels"].as_array().expect("it has panels") {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expression = target["expr"].as_str().expect("it has an expression");
                let filled = [("$namespace", ".*"), ("$pod", ".*"), ("$__rate_interval", "10s"), ("$__range", "60s")];
                let filled = filled.iter().fold(expression.to_owned(), |text, (name, value)| text.replace(name, value));
                let file = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                found.push((format!("{file}: {}", panel["title"]), filled));
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_has_data_and_every_alert_is_understood() {
    if !are_there("the queries of dashboards and alerts", &["jaeger", "collector", "prometheus"]) {
        return;
    }
    let jaeger = Jaeger::start().await;
    let collector = Collector::start(&jaeger, 100).await;
    let envs = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", collector.grpc)),
        ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned()),
    ];
    let cluster = Cluster::start_in(2, &["--open-publish", "--message-rate", "0"], envs).await;
    let kube = exporter(OF_A_CLUSTER).await;
    let prometheus = Prometheus::start(&[
        (cluster.edges[0].admin, "edge-0"),
        (cluster.edges[1].admin, "edge-1"),
        (cluster.session.admin, "session-0"),
        (cluster.fanout.admin, "fanout-0"),
        (collector.metrics, "collector-0"),
        (kube, "edge-0"),
    ])
    .await;

    // Stock clients on both edges, on every transport; then somebody who stays and says something each moment.
    clients::run(&installed("node"), "chat.mjs", &clients::urls(&cluster)).await;
    let mut alice = Client::enter(cluster.edges[0].addr, json!({}), "alice", "watched").await;
    let mut bob = Client::enter(cluster.edges[1].addr, json!({}), "bob", "watched").await;
    let begin = Instant::now();
    let mut wanted = queries();
    assert!(wanted.len() > 80, "{} queries", wanted.len());
    let mut wrong = Vec::new();
    while !wanted.is_empty() && begin.elapsed() < PATIENCE {
        for n in 0..10 {
            let text = format!("line {n}");
            alice.ask(json!({"id": 4, "publish": {"room": "watched", "text": text}}), "published").await;
            bob.reads(&text).await;
        }
        let guest = format!("guest {}", begin.elapsed().as_millis());
        drop(Client::enter(cluster.edges[0].addr, json!({}), &guest, "watched").await);
        let mut without = Vec::new();
        for (place, expression) in wanted {
            match prometheus.numbers(&expression, 60).await {
                Ok(numbers) if numbers.is_empty() => without.push((place, expression)),
                Ok(_) => {}
                Err(said) => wrong.push(format!("{place}: {said}")),
            }
        }
        wanted = without;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let without: Vec<_> = wanted.iter().map(|(place, expression)| format!("{place}\n    {expression}")).collect();
    assert!(wrong.is_empty(), "not understood:\n{}", wrong.join("\n"));
    assert!(without.is_empty(), "no data in {:?}:\n{}", begin.elapsed(), without.join("\n"));

    // An alert has data only when it fires; what it compares has them always.
    let groups = prometheus.ask("rules", &[]).await.expect("Prometheus tells its rules");
    let rules = groups["groups"][0]["rules"].as_array().expect("the chart's group").clone();
    assert!(rules.len() > 10, "{groups}");
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        let query = rule["query"].as_str().expect("a rule has a query");
        for name in query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            if name.starts_with("plaza_") || name.starts_with("process_") || name.starts_with("kube_") {
                let numbers = prometheus.numbers(&format!("count({name})"), 60).await.expect("a name is an expression");
                assert!(!numbers.is_empty(), "{}: nobody exports {name}", rule["name"]);
            }
        }
    }
    // Exemplars arrive, and lead to a trace that Jaeger has.
    let query = [("query", "plaza_publish_to_socket_seconds_bucket"), ("start", "0"), ("end", "99999999999")];
    let exemplars = prometheus.ask("query_exemplars", &query).await.expect("Prometheus keeps exemplars");
    let id =
        exemplars[0]["exemplars"][0]["labels"]["trace_id"].as_str().expect("the buckets point at traces").to_owned();
    jaeger.trace(&id, 1).await;
}
