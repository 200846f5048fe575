//! The autoscaler: more edges under load, fewer after it, one at a time.

use crate::kube::Kube;
use crate::release::{self, NAME, NAMESPACE, pods};
use crate::swarm::Swarm;
use std::time::{Duration, Instant};

/// How long the autoscaler may take for all of its way in one direction.
const PATIENCE: Duration = Duration::from_secs(240);

/// Up under a storm of messages, down to one when it is over; nothing is lost on either way.
pub(crate) async fn follows_the_load(kube: &Kube) {
    release::apply(kube, &["values.yaml", "traffic.yaml", "autoscaling.yaml"], &[]);
    release::wait_until_still(kube).await;
    // Without stock clients: one that polls may see events twice when it comes back in the middle of a storm.
    let mut swarm = Swarm::start("autoscaler", release::front(kube), 0);

    swarm.strike("a storm of messages");
    swarm.storm(true);
    let ups = steps(kube, |replicas| replicas == 3).await;
    println!("  up under load: {}", told(&ups));
    swarm.storm(false);
    swarm.heal();
    release::settled(kube, &format!("deployment/{NAME}-edge"));
    swarm.scatter();

    swarm.strike("calm after the storm");
    let downs = steps(kube, |replicas| replicas == 1).await;
    println!("  down after it: {}", told(&downs));
    for pair in downs.windows(2) {
        let ((from, _), (to, _)) = (pair[0], pair[1]);
        assert_eq!(to + 1, from, "edges go one at a time: {}", told(&downs));
    }
    release::wait_until_still(kube).await;
    swarm.heal();
    println!("{}", swarm.judge());
}

/// The numbers of edges that are asked for, each with its second, until `is_end`; at no time do two drain.
async fn steps(kube: &Kube, is_end: impl Fn(u64) -> bool) -> Vec<(u64, u64)> {
    let begin = Instant::now();
    let mut steps: Vec<(u64, u64)> = Vec::new();
    loop {
        let edge = kube.get(&["deployment", &format!("{NAME}-edge"), "--namespace", NAMESPACE]);
        let replicas = edge["spec"]["replicas"].as_u64().expect("a Deployment has replicas");
        if steps.last().is_none_or(|(last, _)| *last != replicas) {
            steps.push((replicas, begin.elapsed().as_secs()));
        }
        if is_end(replicas) {
            return steps;
        }
        let ending = kube.get(&["pods", "--namespace", NAMESPACE])["items"].as_array().map_or(0, |all| {
            let edges = all.iter().filter(|pod| pod["metadata"]["labels"]["app.kubernetes.io/component"] == "edge");
            edges.filter(|pod| !pod["metadata"]["deletionTimestamp"].is_null()).count()
        });
        assert!(ending <= 1, "{ending} edges drain at once: {}", told(&steps));
        let left = pods(kube, Some("edge")).len();
        assert!(begin.elapsed() < PATIENCE, "{left} edges are left after {PATIENCE:?}: {}", told(&steps));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn told(steps: &[(u64, u64)]) -> String {
    steps.iter().map(|(edges, second)| format!("{edges} at {second} s")).collect::<Vec<_>>().join(", ")
}
