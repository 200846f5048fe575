//! The thin path: install, look, talk, uninstall.

use crate::kube::Kube;
use crate::release::{self, NAME, NAMESPACE, name, pods, pods_in};
use serde_json::Value;
use std::path::Path;

/// What the chart brings when it is told nothing.
const COMPONENTS: &[(&str, usize)] = &[("edge", 2), ("session", 2), ("fanout", 2), ("redis", 1), ("nats", 1)];

/// `helm install --wait` with image names: every pod is ready, none has restarted, `helm test` passes.
pub(crate) async fn with_nothing_but_image_names(kube: &Kube) {
    release::fresh_namespace(kube);
    refuses_root(kube);
    let (chart, values) = (release::chart(), release::values("values.yaml"));
    kube.helm(&["install", NAME, &chart, "--namespace", NAMESPACE, "--wait", "--timeout=4m", "--values", &values]);
    assert_all_ready(kube, NAMESPACE);
    let told = kube.helm(&["test", NAME, "--namespace", NAMESPACE, "--timeout=3m"]);
    assert!(told.contains("Succeeded") || told.contains("Plaza works"), "{told}");
    assert_all_ready(kube, NAMESPACE);
}

/// Every pod that belongs into a namespace is ready, and none has restarted.
pub(crate) fn assert_all_ready(kube: &Kube, namespace: &str) {
    for (component, count) in COMPONENTS {
        let pods = pods_in(kube, namespace, Some(component));
        assert_eq!(pods.len(), *count, "pods of {component}");
        for pod in pods {
            let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
            assert!(!statuses.is_empty(), "{} has no containers", name(&pod));
            for status in statuses {
                assert_eq!(status["ready"], true, "{}: {status}", name(&pod));
                assert_eq!(status["restartCount"], 0, "{} was restarted: {status}", name(&pod));
            }
        }
    }
}

/// The namespace enforces what the chart's pods keep to: one that may become root is not let in.
fn refuses_root(kube: &Kube) {
    let image = ["run", "root", "--image=redis", "--restart=Never", "--namespace", NAMESPACE];
    let refused = kube.try_kubectl(&image).expect_err("restricted pod security lets a pod in that may become root");
    assert!(refused.contains("violates PodSecurity"), "{refused}");
}

/// The stock clients' programs, each client on a pod of its own choice.
pub(crate) async fn stock_clients_share_a_room(kube: &Kube) {
    release::apply(kube, &["values.yaml", "traffic.yaml"], &[]);
    release::wait_until_still(kube).await;
    let edges = pods(kube, Some("edge"));
    let (_first, one) = release::forward(kube, &format!("pod/{}", name(&edges[0])), 5000).await;
    let (_second, two) = release::forward(kube, &format!("pod/{}", name(&edges[1])), 5000).await;
    release::client("node", "chat.mjs", &[format!("http://{one}"), format!("http://{two}")]).await;
}

/// Classes generated from `proto/`, calls through the Service, and a client of the edges that it sees.
pub(crate) async fn the_session_service_answers(kube: &Kube) {
    release::apply(kube, &["values.yaml", "traffic.yaml"], &[]);
    let (_session, session) = release::forward(kube, &format!("service/{NAME}-session"), 50051).await;
    let edge = release::front(kube);
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto").display().to_string();
    release::client("python3", "backend.py", &[proto, session.to_string(), format!("http://{edge}")]).await;
}

/// After `helm uninstall` the namespace has what a new one has, and no volume is claimed.
pub(crate) async fn uninstall_leaves_nothing(kube: &Kube) {
    release::apply(kube, &["values.yaml", "traffic.yaml"], &[]);
    kube.helm(&["uninstall", NAME, "--namespace", NAMESPACE, "--wait", "--timeout=3m"]);
    let kinds = kube.kubectl(&["api-resources", "--namespaced", "--verbs=list,delete", "--output=name"]);
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
    let kinds = kinds.join(",");
    let look = || {
        let list = kube.get(&[&kinds, "--namespace", NAMESPACE]);
        let objects = list["items"].as_array().cloned().unwrap_or_default();
        let left: Vec<_> = objects.iter().filter(|object| !belongs_to_namespaces(object)).map(described).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("left: {}", left.join(", "))) }
    };
    kube.wait("nothing is left of the release", look).await;
    kube.kubectl(&["delete", "namespace", NAMESPACE, "--wait", "--timeout=180s"]);
}

/// What Kubernetes itself puts into every namespace.
fn belongs_to_namespaces(object: &Value) -> bool {
    matches!(
        (object["kind"].as_str(), name(object)),
        (Some("ServiceAccount"), "default") | (Some("ConfigMap"), "kube-root-ca.crt")
    )
}

fn described(object: &Value) -> String {
    format!("{} {}", object["kind"].as_str().unwrap_or("?"), name(object))
}
