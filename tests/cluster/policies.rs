//! NetworkPolicy and RBAC: who reaches what.

use crate::kube::Kube;
use crate::release::{self, NAME, NAMESPACE, kubectl};
use serde_json::json;

/// Strangers reach the edge and nothing else; who is named in `session.allowFrom` reaches the session service.
pub(crate) async fn let_nobody_else_in(kube: &Kube) {
    let allow = r#"session.allowFrom=[{"podSelector":{"matchLabels":{"app":"shop"}}}]"#;
    release::apply(kube, &["values.yaml", "traffic.yaml"], &["--set-json", allow]);
    release::wait_until_still(kube).await;

    let (works, told) = visit(kube, "shop", "edge:80", "session:50051").await;
    assert!(works, "who is named is let in:\n{told}");
    let (works, told) = visit(kube, "stranger", "edge:80", "session:50051").await;
    assert!(!works && told.contains("FAILED") && told.contains(" session "), "a stranger calls session:\n{told}");
    let steps = ["connect", "join", "send", "receive"];
    assert!(steps.iter().all(|step| told.lines().any(|line| line.starts_with("ok ") && line.contains(step))), "{told}");
    for store in ["redis:6379", "nats:4222", "fanout:50052"] {
        let (works, told) = visit(kube, "stranger", store, "session:50051").await;
        assert!(!works && told.contains("cannot be reached"), "a stranger reaches {store}:\n{told}");
    }
}

/// Runs the check of `helm test` in a pod with the label `app` for these addresses; whether it passed, and
/// what it printed.
async fn visit(kube: &Kube, app: &str, url: &str, session: &str) -> (bool, String) {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "visitor", "namespace": NAMESPACE, "labels": { "app": app } },
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" }
            },
            "containers": [{
                "name": "visitor",
                "image": format!("registry.example.com/team/plaza-edge:{}", env!("CARGO_PKG_VERSION")),
                "args": [
                    "check", format!("--url=http://{NAME}-{url}"), format!("--session-addr=http://{NAME}-{session}"),
                    "--timeout=10s"
                ],
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
        },
    });
    kube.apply(&pod.to_string());
    let ended = || {
        let pod = kube.get(&["pod", "visitor", "--namespace", NAMESPACE]);
        let phase = pod["status"]["phase"].as_str().unwrap_or_default().to_owned();
        if matches!(phase.as_str(), "Succeeded" | "Failed") { Ok(()) } else { Err(phase) }
    };
    kube.wait("the visitor has ended", ended).await;
    let log = kubectl(kube, &["logs", "visitor"]);
    kubectl(kube, &["delete", "pod", "visitor", "--wait"]);
    (log.contains("Plaza works"), log)
}
