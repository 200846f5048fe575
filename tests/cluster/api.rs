//! What Plaza's own code does with the API of Kubernetes, with exactly the chart's rights and without any.

use crate::kube::Kube;
use crate::moves::{chatting, heal};
use crate::release::{self, NAMESPACE, kubectl, name, pods, settled};

/// Who uses the API, and what keeps its pods.
const USERS: &[(&str, &str)] = &[("edge", "deployment/plaza-edge"), ("session", "deployment/plaza-session")];

/// With the chart's rights no call fails; with the rights taken away every one does, and chat goes on.
pub(crate) async fn is_used_with_the_charts_rights_and_not_needed(kube: &Kube) {
    let mut swarm = chatting(kube, "api", 2).await;
    let bindings = kubectl(kube, &["get", "rolebindings", "--output=name"]);
    let bindings: Vec<&str> = bindings.split_whitespace().collect();
    assert!(!bindings.is_empty(), "the chart gives rights");
    for (component, _) in USERS {
        for pod in pods(kube, Some(component)) {
            assert_eq!(failures(kube, name(&pod)), 0.0, "{} has all the rights that it uses", name(&pod));
        }
    }

    let what = "every pod anew without rights";
    swarm.strike(what);
    kubectl(kube, &[&["delete"], &*bindings].concat());
    for object in USERS.iter().map(|(_, object)| *object).chain(["deployment/plaza-fanout"]) {
        kubectl(kube, &["rollout", "restart", object]);
        settled(kube, object);
    }
    release::wait_until_still(kube).await;
    heal(&mut swarm, what);
    for (component, _) in USERS {
        for pod in pods(kube, Some(component)) {
            let look = || match failures(kube, name(&pod)) {
                0.0 => Err(format!("{} counts no failure", name(&pod))),
                _ => Ok(()),
            };
            kube.wait("the metric tells that rights are missing", look).await;
        }
    }
    println!("{}", swarm.judge());
    release::apply(kube, &["values.yaml", "traffic.yaml"], &[]);
    assert_eq!(kubectl(kube, &["get", "rolebindings", "--output=name"]).split_whitespace().count(), bindings.len());
}

/// Failed calls of the API that a pod counts, of every use.
fn failures(kube: &Kube, pod: &str) -> f64 {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:9090/proxy/metrics");
    let metrics = kube.kubectl(&["get", "--raw", &path]);
    let lines = metrics.lines().filter(|line| line.starts_with("plaza_kubernetes_failures_total"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
