//! The autoscaler: more edges under load, fewer after it, one at a time, the emptiest first.

use crate::crowd::Crowd;
use crate::kube::Kube;
use crate::moves::heal;
use crate::release::{self, NAME, NAMESPACE, cost, kubectl, name, pods};
use crate::swarm::{CLIENTS, Swarm};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long the autoscaler may take for all of its way in one direction.
const PATIENCE: Duration = Duration::from_secs(240);

/// Clients that stay at the second and at the newest of three edges, where the swarm's own cannot change the order
/// of their costs. Without costs the newest would go first.
const CROWDS: [usize; 2] = [40, 200];

/// Up under a storm of messages, down to one when it is over; nothing is lost on either way.
pub(crate) async fn follows_the_load(kube: &Kube) {
    let costs = ["--set", "kubernetesApi.podDeletionCost=true"];
    release::apply(kube, &["values.yaml", "traffic.yaml", "autoscaling.yaml"], &costs);
    release::wait_until_still(kube).await;
    let mut swarm = Swarm::start("autoscaler", release::front(kube), CLIENTS, 6);

    swarm.strike("a storm of messages");
    swarm.storm(true);
    println!("  up under load: {}", told(&steps(kube, |replicas| replicas == 3).await));
    release::settled(kube, &format!("deployment/{NAME}-edge"));
    // Nobody is taken away before everybody has said what it costs, which is done once a minute at most.
    floor(kube, 3);
    swarm.storm(false);
    heal(&mut swarm, "a storm of messages");
    swarm.scatter();
    let mut edges = pods(kube, Some("edge"));
    edges.sort_by_key(|pod| pod["metadata"]["creationTimestamp"].as_str().map(str::to_owned));
    let mut crowds = Vec::new();
    for (edge, count) in edges[1..].iter().zip(CROWDS) {
        crowds.push(Crowd::at(kube, name(edge), count).await);
    }
    kube.wait("every edge has told what it costs", || costs_are_told(kube)).await;

    swarm.strike("calm after the storm");
    // While all of them must stay: the first may be gone at the first look.
    let before = all_edges(kube).expect("every edge answers");
    floor(kube, 1);
    let (downs, gone) = down(kube, before).await;
    println!("  down after it: {}", told(&downs));
    let order: Vec<&str> = edges[..2].iter().map(name).collect();
    assert_eq!(gone, order, "the emptiest edges go first");
    for pair in downs.windows(2) {
        let ((from, _), (to, _)) = (pair[0], pair[1]);
        assert_eq!(to + 1, from, "edges go one at a time: {}", told(&downs));
    }
    release::wait_until_still(kube).await;
    heal(&mut swarm, "calm after the storm");
    println!("{}", swarm.judge());
}

/// The fewest edges that the autoscaler leaves.
fn floor(kube: &Kube, edges: u64) {
    let patch = format!("{{\"spec\":{{\"minReplicas\":{edges}}}}}");
    kubectl(kube, &["patch", "hpa", &format!("{NAME}-edge"), "--patch", &patch]);
}

/// The edges that are asked for.
fn replicas(kube: &Kube) -> u64 {
    let edge = kube.get(&["deployment", &format!("{NAME}-edge"), "--namespace", NAMESPACE]);
    edge["spec"]["replicas"].as_u64().expect("a Deployment has replicas")
}

/// The numbers of edges that are asked for, each with its second.
type Steps = Vec<(u64, u64)>;

/// Looks again and again, until `is_end`.
async fn steps(kube: &Kube, mut is_end: impl FnMut(u64) -> bool) -> Steps {
    let begin = Instant::now();
    let mut steps = Steps::new();
    loop {
        let replicas = replicas(kube);
        if steps.last().is_none_or(|(last, _)| *last != replicas) {
            steps.push((replicas, begin.elapsed().as_secs()));
        }
        if is_end(replicas) {
            return steps;
        }
        assert!(begin.elapsed() < PATIENCE, "{replicas} edges after {PATIENCE:?}: {}", told(&steps));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// All the way to one edge, and the edges that went, in order. At no time do two of them drain, and each
/// had the fewest connections of all when it was chosen.
async fn down(kube: &Kube, mut before: Vec<Edge>) -> (Steps, Vec<String>) {
    let mut gone = Vec::<String>::new();
    let steps = steps(kube, |replicas| {
        let list = kube.get(&["pods", "--namespace", NAMESPACE, "--selector", "app.kubernetes.io/component=edge"]);
        let all = list["items"].as_array().cloned().unwrap_or_default();
        let (ending, staying): (Vec<Value>, Vec<Value>) =
            all.into_iter().partition(|pod| !pod["metadata"]["deletionTimestamp"].is_null());
        assert!(ending.len() <= 1, "{} edges drain at once", ending.len());
        match ending.first().map(|pod| name(pod).to_owned()) {
            Some(pod) if !gone.contains(&pod) => {
                println!("  {pod} goes of {before:?}");
                let fewest = before.iter().min_by_key(|edge| edge.connections).expect("somebody was there");
                assert_eq!(pod, fewest.pod, "the emptiest goes: {before:?}");
                gone.push(pod);
            }
            Some(_) => {}
            // An edge that ends meanwhile is seen in the next round, with what was known before it.
            None => {
                if let Some(edges) = staying.iter().map(|pod| Edge::of(kube, pod)).collect() {
                    before = edges;
                }
            }
        }
        replicas == 1 && gone.len() == 2
    });
    (steps.await, gone)
}

/// An edge and what it has.
#[derive(Debug)]
struct Edge {
    pod: String,
    cost: i64,
    connections: u64,
}

impl Edge {
    /// `None`: it does not answer any more.
    fn of(kube: &Kube, pod: &Value) -> Option<Self> {
        let connections = release::metric(kube, name(pod), "plaza_connections").ok()? as u64;
        Some(Self { pod: name(pod).to_owned(), cost: cost(pod).unwrap_or(0), connections })
    }
}

/// `None`: one of them does not answer.
fn all_edges(kube: &Kube) -> Option<Vec<Edge>> {
    pods(kube, Some("edge")).iter().map(|pod| Edge::of(kube, pod)).collect()
}

/// Whether each edge has the cost of the connections that it has now.
fn costs_are_told(kube: &Kube) -> Result<(), String> {
    let edges = all_edges(kube).ok_or("an edge does not answer")?;
    let is_told = |edge: &Edge| edge.cost == i64::from(plaza_kit::kubernetes::pod::cost(edge.connections));
    if edges.iter().all(is_told) { Ok(()) } else { Err(format!("{edges:?}")) }
}

fn told(steps: &[(u64, u64)]) -> String {
    steps.iter().map(|(edges, second)| format!("{edges} at {second} s")).collect::<Vec<_>>().join(", ")
}
