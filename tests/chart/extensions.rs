//! Objects of what extends Kubernetes, against the schemas of their kinds.

use crate::helm::root;
use crate::renders::{EXTENSIONS, name, renders};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};

/// The objects of these kinds in all renders, by a name for people.
fn objects() -> Vec<(String, &'static Value)> {
    let by_case = renders().by_name.iter().flat_map(|(case, render)| {
        let extends = |object: &&Value| EXTENSIONS.iter().any(|kind| object["kind"] == *kind);
        render.documents.iter().filter(extends).map(move |object| {
            (format!("{case}: {} {}", object["kind"].as_str().unwrap_or_default(), name(object)), object)
        })
    });
    by_case.collect()
}

/// What the schemas say about each object.
fn problems(objects: &[&Value]) -> Vec<Vec<String>> {
    let script = root().join("tests/chart/extensions.mjs");
    let mut child = Command::new("node")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node is installed, as scripts/tools sees to");
    let input = serde_json::to_vec(objects).expect("they are JSON");
    child.stdin.take().expect("it is piped").write_all(&input).expect("extensions.mjs reads all");
    let output = child.wait_with_output().expect("extensions.mjs ends");
    assert!(output.status.success(), "extensions.mjs failed; scripts/tools installs what it needs");
    serde_json::from_slice(&output.stdout).expect("extensions.mjs writes a list for each")
}

#[test]
fn gateways_keda_and_the_prometheus_operator_accept_every_object() {
    let (names, objects): (Vec<String>, Vec<&Value>) = objects().into_iter().unzip();
    for kind in EXTENSIONS {
        assert!(objects.iter().any(|object| object["kind"] == kind), "no case renders a {kind}");
    }
    let wrong = names.iter().zip(problems(&objects)).filter(|(_, problems)| !problems.is_empty());
    let wrong: Vec<_> = wrong.map(|(name, problems)| format!("{name}: {}", problems.join("; "))).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// One spoilt field each: an object's kind, where, what comes there, and what is said of it.
const SPOILT: &[(&str, &str, &str, &str)] = &[
    ("HTTPRoute", "/spec/rules/0/backendRefs/0/prot", "80", "/spec/rules/0/backendRefs/0/prot: no such field"),
    ("HTTPRoute", "/spec/rules/0/backendRefs/0/port", "\"80\"", "/spec/rules/0/backendRefs/0/port: type"),
    ("HTTPRoute", "/spec/rules/0/timeouts/request", "\"soon\"", "/spec/rules/0/timeouts/request: pattern"),
    ("HTTPRoute", "/metadata/annotation", "{}", "/metadata/annotation: no such field"),
    ("GRPCRoute", "/spec/rules/0/matches/0/method/services", "\"x\"", "/method/services: no such field"),
    ("GRPCRoute", "/spec/hostnames", "\"grpc.chat.example.com\"", "/spec/hostnames: type"),
    ("ScaledObject", "/spec/fallback/failureThreshold", "\"3\"", "/spec/fallback/failureThreshold: type"),
    ("ScaledObject", "/spec/triggers/0/metadata/threshold", "1000", "/spec/triggers/0/metadata/threshold: type"),
    ("ScaledObject", "/spec/minReplicas", "2", "/spec/minReplicas: no such field"),
    ("PodMonitor", "/spec/podMetricsEndpoints/0/interval", "\"often\"", "/0/interval: pattern"),
    ("PodMonitor", "/spec/endpoints", "[]", "/spec/endpoints: no such field"),
    ("PrometheusRule", "/spec/groups/0/rules/0/annotations/runbook_url", "1", "/annotations/runbook_url: type"),
    ("PrometheusRule", "/spec/groups/0/rules/0/severity", "\"page\"", "/spec/groups/0/rules/0/severity: no such field"),
];

#[test]
fn a_field_that_is_unknown_or_of_another_type_is_found() {
    let objects = objects();
    let spoilt = SPOILT.iter().map(|(kind, path, value, _)| {
        let object = objects.iter().find(|(_, object)| object["kind"] == *kind);
        let (_, object) = object.unwrap_or_else(|| panic!("no case renders a {kind}"));
        let mut object = Value::clone(object);
        let (parent, field) = path.rsplit_once('/').expect("a path begins with a slash");
        let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("{kind} has no {parent}"));
        parent[field] = serde_json::from_str(value).expect("it is JSON");
        object
    });
    let mut spoilt: Vec<Value> = spoilt.collect();
    spoilt.push(json!({ "apiVersion": "keda.sh/v9", "kind": "ScaledObject", "metadata": { "name": "x" } }));
    let told = problems(&spoilt.iter().collect::<Vec<_>>());
    let expected = SPOILT.iter().map(|(.., said)| *said).chain(["keda.sh/v9 ScaledObject: there is no schema"]);
    for (said, told) in expected.zip(told) {
        assert!(told.len() == 1 && told[0].contains(said), "`{said}` was expected: {told:?}");
    }
}
