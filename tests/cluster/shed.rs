//! After a scale-out an edge that has more than its share sends the excess to the new one, with `edge.shedExcess`.

use crate::kube::Kube;
use crate::moves::heal;
use crate::release::{self, NAME, kubectl, metric, name, pods};
use crate::swarm::Swarm;

/// So few that the check is short, and some more than the 100 below which no edge sends anybody away.
const CLIENTS: u32 = 110;

/// When so many have come to the new edge, it is shown. About as many come back to the old one: the Service draws.
const MOVED: f64 = 2.0;

/// Nobody comes to the new edge but who was sent away, and nobody loses anything by it.
pub(crate) async fn moves_the_excess_to_a_new_edge(kube: &Kube) {
    let values = ["--set", "edge.replicas=1,edge.shedExcess=true"];
    release::apply(kube, &["values.yaml", "traffic.yaml"], &values);
    release::wait_until_still(kube).await;
    let mut swarm = Swarm::start("shed", release::front(kube), CLIENTS, 3);
    let full = pods(kube, Some("edge"));
    let full = name(&full[0]);

    let what = "a new edge beside a full one";
    swarm.strike(what);
    let edge = format!("deployment/{NAME}-edge");
    kubectl(kube, &["scale", &edge, "--replicas", "2"]);
    release::settled(kube, &edge);
    let edges = pods(kube, Some("edge"));
    let fresh = edges.iter().map(name).find(|pod| *pod != full).expect("the second edge is there");
    let look = || match metric(kube, fresh, "plaza_connections")? {
        moved if moved < MOVED => Err(format!("{moved} are at {fresh}")),
        _ => Ok(()),
    };
    kube.wait("the excess moves to the new edge", look).await;
    // Asked for last, they are at least those who have come.
    let [moved, sent] = [(fresh, "plaza_connections"), (full, "plaza_closes_total{cause=\"shed\"}")]
        .map(|(pod, of)| metric(kube, pod, of).unwrap_or_else(|error| panic!("{error}")));
    println!("  {sent} of {CLIENTS} connections were sent away, {moved} of them came to the new edge");
    assert!(moved <= sent, "{moved} came, and only {sent} were sent away");
    heal(&mut swarm, what);
    println!("{}", swarm.judge());
}
