//! What Plaza's own code does with the API of Kubernetes, with exactly the chart's rights and without any.

use crate::kube::Kube;
use crate::moves::{chatting, heal};
use crate::release::{self, NAME, NAMESPACE, cost, kubectl, metric, name, pods, settled};

/// Who uses the API, and what keeps its pods.
const USERS: &[(&str, &str)] = &[("edge", "deployment/plaza-edge"), ("session", "deployment/plaza-session")];

/// With the chart's rights no call fails; with the rights taken away every one does, and chat goes on.
pub(crate) async fn is_used_with_the_charts_rights_and_not_needed(kube: &Kube) {
    let mut swarm = chatting(kube, "api", "kubernetesApi.podDeletionCost=true").await;
    let bindings = kubectl(kube, &["get", "rolebindings", "--output=name"]);
    let bindings: Vec<&str> = bindings.split_whitespace().collect();
    assert!(!bindings.is_empty(), "the chart gives rights");
    kube.wait("a session pod holds the reaper's Lease", || holds_the_lease(kube)).await;
    kube.wait("an edge with clients costs more than one without", || costs(kube)).await;
    let what = "rollout restart of edge";
    swarm.strike(what);
    let drained = pods(kube, Some("edge"));
    kubectl(kube, &["rollout", "restart", "deployment/plaza-edge"]);
    settled(kube, "deployment/plaza-edge");
    release::wait_until_still(kube).await;
    heal(&mut swarm, what);
    for pod in &drained {
        kube.wait("an Event tells of the drain", || told_of_drain(kube, name(pod))).await;
    }
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

fn holds_the_lease(kube: &Kube) -> Result<(), String> {
    let lease = kube.get(&["lease", &format!("{NAME}-reaper"), "--namespace", NAMESPACE]);
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
    let sessions = pods(kube, Some("session"));
    let is_one = sessions.iter().any(|pod| holder.starts_with(name(pod)));
    if is_one { Ok(()) } else { Err(format!("`{holder}` holds it")) }
}

fn costs(kube: &Kube) -> Result<(), String> {
    let edges = pods(kube, Some("edge"));
    let costs: Vec<Option<i64>> = edges.iter().map(cost).collect();
    if costs.iter().all(|cost| cost.is_some_and(|cost| cost > 0)) { Ok(()) } else { Err(format!("{costs:?}")) }
}

fn told_of_drain(kube: &Kube, pod: &str) -> Result<(), String> {
    let events = kube.get(&["events.events.k8s.io", "--namespace", NAMESPACE]);
    let events = events["items"].as_array().cloned().unwrap_or_default();
    let about = events.iter().filter(|event| event["regarding"]["name"] == pod);
    let reasons: Vec<&str> = about.filter_map(|event| event["reason"].as_str()).collect();
    let is_told = ["DrainStarted", "DrainCompleted"].iter().all(|reason| reasons.contains(reason));
    if is_told { Ok(()) } else { Err(format!("{pod}: {reasons:?}")) }
}

/// Failed calls of the API that a pod counts, of every use.
fn failures(kube: &Kube, pod: &str) -> f64 {
    metric(kube, pod, "plaza_kubernetes_failures_total").unwrap_or_else(|error| panic!("{error}"))
}
