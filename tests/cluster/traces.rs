//! Traces of pods, read back from Jaeger, which runs in the cluster, too.

use crate::kube::{Kube, succeed};
use crate::release::{self, NAME, NAMESPACE, kubectl, name, pods};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Jaeger, as its Service is called.
const JAEGER: &str = "jaeger";

/// One message of `helm test` is one trace over edge and fanout, and each span names the pod it is from.
pub(crate) async fn come_to_jaeger(kube: &Kube) {
    let Ok(program) = succeed(kube.command("sh").args(["-c", "command -v jaeger"])) else {
        plaza_tests::not_run("traces of pods", "there is no jaeger on PATH; tests/tools/build observe makes it");
        return;
    };
    start_jaeger(kube, program.trim()).await;
    let endpoint = format!("otel.endpoint=http://{JAEGER}.{NAMESPACE}.svc.cluster.local:4317");
    release::apply(kube, &["values.yaml", "traffic.yaml"], &["--set", &endpoint, "--set", "otel.sampler=always_on"]);
    release::wait_until_still(kube).await;
    kube.helm(&["test", NAME, "--namespace", NAMESPACE, "--timeout=3m"]);

    let own: BTreeSet<String> = pods(kube, None).iter().map(|pod| name(pod).to_owned()).collect();
    let query = format!(
        "/api/v1/namespaces/{NAMESPACE}/services/{JAEGER}:16686/proxy/api/traces?service=plaza-fanout&limit=100"
    );
    let look = || {
        let answer: Value = serde_json::from_str(&kube.try_kubectl(&["get", "--raw", &query])?).expect("JSON");
        let traces = answer["data"].as_array().cloned().unwrap_or_default();
        let told: Vec<_> = traces.iter().map(spans_by_service).collect();
        let is_whole = |spans: &BTreeMap<String, BTreeSet<String>>| {
            let has = |service: &str, part: &str| {
                spans.iter().any(|(from, names)| {
                    from.starts_with(service)
                        && own.contains(from.rsplit(' ').next().unwrap_or_default())
                        && names.iter().any(|name| name.contains(part))
                })
            };
            has("plaza-edge", "ws.receive") && has("plaza-fanout", "send ") && has("plaza-edge", "process ")
        };
        if told.iter().any(is_whole) { Ok(()) } else { Err(format!("{told:?}")) }
    };
    kube.wait("a message's trace, from an edge over fanout to an edge", look).await;
    kubectl(kube, &["delete", "pod,service", JAEGER, "--wait"]);
}

/// The names of a trace's spans by "service pod".
pub(crate) fn spans_by_service(trace: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for span in trace["spans"].as_array().into_iter().flatten() {
        let process = &trace["processes"][span["processID"].as_str().unwrap_or_default()];
        let tags = process["tags"].as_array();
        let pod = tags.and_then(|tags| tags.iter().find(|tag| tag["key"] == "k8s.pod.name"));
        let pod = pod.and_then(|tag| tag["value"].as_str()).unwrap_or("without-pod");
        let from = format!("{} {pod}", process["serviceName"].as_str().unwrap_or_default());
        found.entry(from).or_default().insert(span["operationName"].as_str().unwrap_or_default().to_owned());
    }
    found
}

/// Jaeger with its spans in memory, in a pod of an image that is made of the program.
async fn start_jaeger(kube: &Kube, program: &str) {
    let archive = kube.images().join("jaeger.tar");
    let image = "plaza.test/jaeger:1";
    let mut make = kube.command(&Kube::machine("image").display().to_string());
    succeed(make.arg(&archive).args([image, "--entrypoint", "/jaeger", &format!("{program}:/jaeger")]))
        .unwrap_or_else(|error| panic!("{error}"));
    kube.load(&archive).unwrap_or_else(|error| panic!("{error}"));
    let labels = json!({ "app": JAEGER });
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": JAEGER, "namespace": NAMESPACE, "labels": labels },
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" }
            },
            "containers": [{
                "name": JAEGER,
                "image": image,
                "args": [
                    "--collector.otlp.enabled=true", "--collector.otlp.grpc.host-port=0.0.0.0:4317",
                    "--query.http-server.host-port=0.0.0.0:16686"
                ],
                "ports": [{ "containerPort": 4317 }, { "containerPort": 16686 }],
                "readinessProbe": { "tcpSocket": { "port": 4317 }, "periodSeconds": 1 },
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
        },
    });
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": JAEGER, "namespace": NAMESPACE },
        "spec": { "selector": labels, "ports": [{ "name": "otlp", "port": 4317 }, { "name": "http", "port": 16686 }] },
    });
    kubectl(kube, &["delete", "pod,service", JAEGER, "--ignore-not-found", "--wait"]);
    kube.apply(&pod.to_string());
    kube.apply(&service.to_string());
    kubectl(kube, &["wait", "--for=condition=Ready", &format!("pod/{JAEGER}"), "--timeout=120s"]);
}
