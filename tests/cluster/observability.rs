//! `k8s/observability` by its own command, beside a release: traces of pods, scrapes, dashboards.

use crate::kube::{Kube, succeed};
use crate::release::{self, NAME, name};
use crate::traces::spans_by_service;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The namespace of its release, and its own.
const CHAT: &str = "chat";
const OWN: &str = "observability";

/// Its containers, the programs that images of them are made of here, and what the real images call these. Those
/// without a program cannot be built here: another one stands for them.
const CONTAINERS: [(&str, Option<&str>, &str); 5] = [
    ("collector", Some("collector"), "/otelcol-contrib"),
    ("jaeger", Some("jaeger"), "/go/bin/all-in-one-linux"),
    ("prometheus", Some("prometheus-kubernetes"), "/bin/prometheus"),
    ("kube-state-metrics", None, "/kube-state-metrics"),
    ("grafana", None, "/run.sh"),
];

/// Messages that are sent: the collector keeps a share of their traces.
const MESSAGES: usize = 60;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(project().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A message's trace over two edges, every pod scraped, metrics of spans and of the kubelet, dashboards in place;
/// and nothing is left when it is taken away.
pub(crate) async fn watches_a_release(kube: &Kube) {
    if kube.is_ours() {
        for (container, program, _) in CONTAINERS {
            let Some(program) = program else { continue };
            if succeed(kube.command("sh").args(["-c", "command -v \"$0\"", program])).is_err() {
                let why = format!("there is no {program} for {container}; scripts/tools brings it");
                return plaza_tests::not_run("k8s/observability in a cluster", &why);
            }
        }
        load_images(kube);
    }
    let readme = read("k8s/observability/README.md");
    let blocks: Vec<&str> = readme.split("```sh\n").skip(1).filter_map(|block| block.split("```").next()).collect();
    let [up, away] = blocks[..] else { panic!("it says how to bring it up and how to take it away: {blocks:?}") };

    kube.kubectl(&["delete", "namespace", CHAT, OWN, "--ignore-not-found", "--wait", "--timeout=180s"]);
    let (chart, names, traffic) = (release::chart(), release::values("values.yaml"), release::values("traffic.yaml"));
    kube.helm(&[
        "install",
        NAME,
        &chart,
        "--namespace",
        CHAT,
        "--create-namespace",
        "--wait",
        "--timeout=4m",
        "--values",
        &names,
        "--values",
        &traffic,
        // Only a processor's limit throttles, and only then the kubelet counts it.
        "--set",
        "edge.resources.limits.cpu=1",
        // Room on a small node for what comes beside the release, and for its pods' successors.
        "--set",
        "edge.resources.requests.cpu=100m,session.resources.requests.cpu=50m,fanout.resources.requests.cpu=50m",
    ]);
    shell(kube, up);
    settings_are_the_files(kube);

    let pods = release::pods_in(kube, CHAT, None);
    let edges: Vec<&str> = of_component(&pods, "edge").map(name).collect();
    let (_first, one) = release::forward_in(kube, CHAT, &format!("pod/{}", edges[0]), 5000).await;
    let (_second, two) = release::forward_in(kube, CHAT, &format!("pod/{}", edges[1]), 5000).await;
    let arguments = [format!("http://{one}"), format!("http://{two}"), MESSAGES.to_string()];
    let told = release::client("node", "traced.mjs", &arguments).await;
    let ids: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("trace ")).collect();
    assert_eq!(ids.len(), MESSAGES, "{told}");

    let some = || match kept(kube, &ids, &edges)? {
        0 => Err("none of the messages' traces".to_owned()),
        _ => Ok(()),
    };
    kube.wait("a message's trace from the first edge over fanout to both edges, in Jaeger", some).await;
    let scraped = || all_are_scraped(kube, &pods);
    kube.wait("every pod is scraped, and what else is configured", scraped).await;
    let kept = kept(kube, &ids, &edges).unwrap_or_else(|error| panic!("{error}"));
    assert!(kept < MESSAGES, "the collector keeps a share of the traces, not all {kept}");
    println!("  {kept} of {MESSAGES} messages' traces were kept");

    let mut wanted = queries();
    let all_have_data = || {
        wanted.retain(|query| !has_data(kube, query));
        if wanted.is_empty() { Ok(()) } else { Err(format!("no data for\n{}", wanted.join("\n"))) }
    };
    kube.wait("the dashboards' queries have data", all_have_data).await;
    let rules = ask(kube, "prometheus:9090", "/api/v1/rules").unwrap_or_else(|error| panic!("{error}"));
    let rules = rules["data"]["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
    assert!(rules.len() > 10 && rules.iter().all(|rule| rule["health"] == "ok"), "{rules:?}");

    shell(kube, away);
    let left = kube.kubectl(&["get", "clusterroles,clusterrolebindings", "--output=name"]);
    assert!(!left.contains(OWN), "{left}");
    kube.helm(&["uninstall", NAME, "--namespace", CHAT, "--wait", "--timeout=3m"]);
    kube.kubectl(&["delete", "namespace", CHAT, "--wait", "--timeout=180s"]);
}

/// Commands of a page, as they are written.
fn shell(kube: &Kube, commands: &str) {
    let script = format!("set -e\n{commands}");
    succeed(kube.command("bash").args(["-c", &script]).current_dir(project()))
        .unwrap_or_else(|error| panic!("{error}"));
}

/// Gives the cluster images under the names that the manifests have.
fn load_images(kube: &Kube) {
    let folder = kube.images().join(OWN);
    std::fs::create_dir_all(&folder).expect("the folder of the images can be written");
    let standin = folder.join("standin");
    let mut go = kube.command("go");
    go.args(["build", "-o"]).arg(&standin).arg(project().join("tests/cluster/standin/main.go"));
    go.env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=mod -buildvcs=false").env("GOWORK", "off");
    succeed(&mut go).unwrap_or_else(|error| panic!("{error}"));
    let manifests = read("k8s/observability/manifests.yaml");
    for (container, program, entrypoint) in CONTAINERS {
        let (_, rest) = manifests.split_once(&format!("- name: {container}\n          image: ")).expect("its image");
        let image = rest.lines().next().unwrap_or_default();
        let host = image.split('/').next().unwrap_or_default();
        let image = if host.contains('.') { image.to_owned() } else { format!("docker.io/{image}") };
        let program = match program {
            Some(program) => {
                succeed(kube.command("sh").args(["-c", "command -v \"$0\"", program])).expect("it is there")
            }
            None => standin.display().to_string(),
        };
        let archive = folder.join(format!("{container}.tar"));
        let mut make = Command::new(Kube::machine("image"));
        make.arg(&archive).args([&image, "--entrypoint", entrypoint, "--linked"]);
        succeed(make.arg(format!("{}:{entrypoint}", program.trim()))).unwrap_or_else(|error| panic!("{error}"));
        kube.load(&archive).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// Each map of settings holds the files that it is made of, and a pod has mounted it.
fn settings_are_the_files(kube: &Kube) {
    let pods = kube.get(&["pods", "--namespace", OWN]);
    let pods = pods["items"].as_array().expect("a list");
    let volumes = pods.iter().filter_map(|pod| pod["spec"]["volumes"].as_array()).flatten();
    let mounted: BTreeSet<&str> = volumes.filter_map(|volume| volume["configMap"]["name"].as_str()).collect();
    for (map, path) in [
        ("collector", "k8s/observability/config/collector.yaml"),
        ("prometheus", "k8s/observability/config/prometheus.yaml"),
        ("grafana-datasources", "k8s/observability/config/grafana/datasources.yaml"),
        ("grafana-providers", "k8s/observability/config/grafana/dashboards.yaml"),
        ("plaza-rules", "charts/plaza/rules"),
        ("plaza-dashboards", "charts/plaza/dashboards"),
    ] {
        let path = project().join(path);
        let listed =
            std::fs::read_dir(&path).map(|files| files.map(|file| file.expect("it can be read").path()).collect());
        let files: Vec<PathBuf> = listed.unwrap_or_else(|_| vec![path]);
        let text = |file: &PathBuf| std::fs::read_to_string(file).expect("it can be read");
        let base = |file: &PathBuf| file.file_name().expect("it has a name").to_string_lossy().into_owned();
        let files: BTreeMap<String, String> = files.iter().map(|file| (base(file), text(file))).collect();
        let found = kube.get(&["configmap", map, "--namespace", OWN]);
        let found: BTreeMap<String, String> = serde_json::from_value(found["data"].clone()).expect("text by file");
        assert!(found == files, "{map} has {:?}", found.keys());
        assert!(mounted.contains(map), "{map} is in none of {mounted:?}");
    }
}

fn of_component<'a>(pods: &'a [Value], component: &'a str) -> impl Iterator<Item = &'a Value> {
    pods.iter().filter(move |pod| pod["metadata"]["labels"]["app.kubernetes.io/component"] == component)
}

/// A GET to a Service, through the API server: the answer's JSON.
fn ask(kube: &Kube, service: &str, path: &str) -> Result<Value, String> {
    let text =
        kube.try_kubectl(&["get", "--raw", &format!("/api/v1/namespaces/{OWN}/services/{service}/proxy{path}")])?;
    serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
}

/// How many of these traces Jaeger has, from the first edge's frame over fanout to both edges.
fn kept(kube: &Kube, ids: &[&str], edges: &[&str]) -> Result<usize, String> {
    let answer = ask(kube, "jaeger:16686", "/api/traces?service=plaza-fanout&limit=500")?;
    let traces = answer["data"].as_array().cloned().unwrap_or_default();
    let is_whole = |trace: &&Value| {
        let spans = spans_by_service(trace);
        let has = |from: &str, part: &str| spans.get(from).is_some_and(|names| names.iter().any(|n| n.contains(part)));
        trace["traceID"].as_str().is_some_and(|id| ids.contains(&id))
            && has(&format!("plaza-edge {}", edges[0]), "ws.receive")
            && spans
                .iter()
                .any(|(from, names)| from.starts_with("plaza-fanout ") && names.iter().any(|n| n.contains("send ")))
            && edges.iter().all(|edge| has(&format!("plaza-edge {edge}"), "process "))
    };
    Ok(traces.iter().filter(is_whole).count())
}

/// Prometheus finds each pod of the release once, under its component, and the other jobs have what they scrape.
fn all_are_scraped(kube: &Kube, pods: &[Value]) -> Result<(), String> {
    let targets = ask(kube, "prometheus:9090", "/api/v1/targets?state=active")?;
    let targets = targets["data"]["activeTargets"].as_array().cloned().unwrap_or_default();
    let label = |target: &Value, name: &str| target["labels"][name].as_str().unwrap_or_default().to_owned();
    let told =
        targets.iter().map(|t| format!("{} {} {} {}", label(t, "job"), label(t, "pod"), t["health"], t["lastError"]));
    let told: Vec<String> = told.collect();
    if targets.iter().any(|target| target["health"] != "up") {
        return Err(format!("{told:?}"));
    }
    let found = targets.iter().filter(|target| label(target, "job") == "plaza");
    let found: BTreeSet<_> = found.map(|t| (label(t, "namespace"), label(t, "component"), label(t, "pod"))).collect();
    let wanted = ["edge", "session", "fanout"].into_iter().flat_map(|component| {
        of_component(pods, component).map(move |pod| (CHAT.to_owned(), component.to_owned(), name(pod).to_owned()))
    });
    let jobs: BTreeSet<_> = targets.iter().map(|target| label(target, "job")).collect();
    let all = ["kube-state-metrics", "kubelet", "plaza", "spans"].map(str::to_owned).into();
    if found == wanted.collect() && jobs == all { Ok(()) } else { Err(format!("{told:?}")) }
}

/// What must have data: the queries of the overview and of the cluster's dashboard, and metrics of spans. Of a query
/// that needs kube-state-metrics, for which nothing stands, only what it asks of the kubelet.
fn queries() -> Vec<String> {
    let mut found = vec!["traces_span_metrics_calls_total{span_name=\"process chat.out.{room}\"}".to_owned()];
    for file in ["overview", "kubernetes"] {
        let dashboard: Value =
            serde_json::from_str(&read(&format!("charts/plaza/dashboards/{file}.json"))).expect("dashboards are JSON");
        let panels = dashboard["panels"].as_array().cloned().unwrap_or_default();
        for target in panels.iter().flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default()) {
            let query = target["expr"].as_str().expect("a target has an expression");
            let filled = [("$namespace", CHAT), ("$pod", ".*"), ("$__rate_interval", "1m"), ("$__range", "5m")];
            let query = filled.iter().fold(query.to_owned(), |text, (variable, value)| text.replace(variable, value));
            if query.contains("kube_") {
                found.extend(query.match_indices("container_").filter_map(|(at, _)| {
                    let is_kubelets = !query[..at].ends_with('_');
                    let (selector, _) = query[at..].split_once('}').filter(|_| is_kubelets)?;
                    Some(format!("{selector}}}"))
                }));
            } else {
                found.push(query);
            }
        }
    }
    found
}

fn has_data(kube: &Kube, query: &str) -> bool {
    let mut path = "/api/v1/query?query=".to_owned();
    for byte in query.bytes() {
        let _ = write!(path, "%{byte:02X}");
    }
    let answer = ask(kube, "prometheus:9090", &path).unwrap_or_else(|error| panic!("{query}: {error}"));
    answer["data"]["result"].as_array().is_some_and(|result| !result.is_empty())
}
