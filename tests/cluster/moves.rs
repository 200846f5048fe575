//! What a cluster does to pods while clients chat: nothing acknowledged is lost, doubled or out of order.

use crate::kube::Kube;
use crate::release::{self, NAME, NAMESPACE, kubectl, name, pods, settled};
use crate::swarm::{CLIENTS, Healed, Swarm};

/// Every part, with the object that keeps its pods.
const PARTS: &[(&str, &str)] = &[
    ("edge", "deployment/plaza-edge"),
    ("session", "deployment/plaza-session"),
    ("fanout", "deployment/plaza-fanout"),
    ("redis", "deployment/plaza-redis"),
    ("nats", "statefulset/plaza-nats"),
];

/// After a part has moved, everybody is back and has everything within this. Row 1 of the faults allows 5 s in a
/// release on a machine of its own; this is a debug build that shares two cores with the whole cluster.
const BACK_MS: u64 = 10_000;

/// Row 1: after the death of an edge its clients are back within this (p99). It is enough for an orderly move, too,
/// where an edge tells clients of Plaza's own protocol to stay away for 0.1 to 3 s, so that they do not come all at once.
const AWAY_MS: u64 = 5_000;

/// The same without the waits that clients were told or chose (p99): what Plaza and the machine take. Measured on two
/// cores: 20 to 220 ms, and up to 930 ms beside six programs that never rest.
const RETURNING_MS: u64 = 2_000;

/// The parts that are Plaza's own: row 18 is about them.
const SERVICES: &[&str] = &["edge", "session", "fanout"];

/// A release for traffic, with nothing moving in it, and a swarm that chats through it.
pub(crate) async fn chatting(kube: &Kube, name: &str, values: &str) -> Swarm {
    release::apply(kube, &["values.yaml", "traffic.yaml"], &["--set", values]);
    release::wait_until_still(kube).await;
    Swarm::start(name, release::front(kube), CLIENTS, 3)
}

/// It is over: everybody is back in time, and every message has its outcome in time.
pub(crate) fn heal(swarm: &mut Swarm, what: &str) -> Healed {
    let healed = swarm.heal();
    println!("  {what}: {}", healed.told);
    assert!(healed.caught_up <= BACK_MS, "{what}: back after {} ms", healed.caught_up);
    assert!(healed.settled <= BACK_MS, "{what}: the last message has its outcome after {} ms", healed.settled);
    healed
}

/// The same after an orderly move of services: row 18 of the faults. How long messages took meanwhile is told and
/// not held against the row's second: the machine decides it, too.
fn heal_in_order(swarm: &mut Swarm, what: &str) {
    let healed = heal(swarm, what);
    assert!(healed.times <= 2, "{what}: a client had to come back {} times", healed.times);
    assert_back(&healed, what);
}

/// Clients who were away were back in time.
fn assert_back(healed: &Healed, what: &str) {
    let Healed { away_p99, returning_p99, .. } = healed;
    assert!(*away_p99 <= AWAY_MS, "{what}: clients were away for {away_p99} ms (p99)");
    assert!(
        *returning_p99 <= RETURNING_MS,
        "{what}: without their waits clients were away for {returning_p99} ms (p99)"
    );
}

/// 1 -> 3 -> 1 edges.
pub(crate) async fn scale_edges(kube: &Kube) {
    let mut swarm = chatting(kube, "scale", "edge.replicas=1").await;
    let edge = format!("deployment/{NAME}-edge");
    for replicas in ["3", "1"] {
        let what = format!("edges scaled to {replicas}");
        swarm.strike(&what);
        kubectl(kube, &["scale", &edge, "--replicas", replicas]);
        settled(kube, &edge);
        release::wait_until_still(kube).await;
        heal_in_order(&mut swarm, &what);
        swarm.scatter();
    }
    println!("{}", swarm.judge());
}

/// `kubectl rollout restart` of one part after the other.
pub(crate) async fn restart_every_part(kube: &Kube) {
    let mut swarm = chatting(kube, "restart", "edge.replicas=2").await;
    for (part, object) in PARTS {
        let what = format!("rollout restart of {part}");
        swarm.strike(&what);
        kubectl(kube, &["rollout", "restart", object]);
        settled(kube, object);
        release::wait_until_still(kube).await;
        if SERVICES.contains(part) {
            heal_in_order(&mut swarm, &what);
        } else {
            heal(&mut swarm, &what);
        }
    }
    println!("{}", swarm.judge());
}

/// `kubectl delete pod --force` of one pod of each part.
pub(crate) async fn delete_pods_by_force(kube: &Kube) {
    let mut swarm = chatting(kube, "force", "edge.replicas=2").await;
    for (part, object) in PARTS {
        let pods = pods(kube, Some(part));
        let pod = name(&pods[0]);
        let what = format!("delete by force of {pod}");
        swarm.strike(&what);
        kubectl(kube, &["delete", "pod", pod, "--force", "--grace-period=0"]);
        // The object goes at once, and the node ends what runs in its own time: only then clients notice.
        let [uid, node] = [&pods[0]["metadata"]["uid"], &pods[0]["spec"]["nodeName"]].map(|text| text.as_str());
        let (uid, node) = (uid.expect("a pod has an id"), node.expect("it is on a node"));
        let path = format!("/api/v1/nodes/{node}/proxy/runningpods/");
        let look =
            || if kube.kubectl(&["get", "--raw", &path]).contains(uid) { Err("it runs".to_owned()) } else { Ok(()) };
        kube.wait("the pod has ended", look).await;
        settled(kube, object);
        let healed = heal(&mut swarm, &what);
        if *part == "edge" {
            assert!(healed.times > 0, "{what}: no client noticed");
            assert_back(&healed, &what);
        }
    }
    println!("{}", swarm.judge());
}

/// An upgrade of every service and the way back, under traffic.
pub(crate) async fn upgrade_and_roll_back(kube: &Kube) {
    let mut swarm = chatting(kube, "upgrade", "edge.replicas=2").await;
    let before = revision(kube);
    swarm.strike("upgrade");
    release::apply(kube, &["values.yaml", "traffic.yaml"], &["--set", "logs.level=debug"]);
    release::wait_until_still(kube).await;
    heal_in_order(&mut swarm, "upgrade");
    swarm.strike("rollback");
    kube.helm(&["rollback", NAME, &before, "--namespace", NAMESPACE, "--wait", "--timeout=4m"]);
    release::wait_until_still(kube).await;
    heal_in_order(&mut swarm, "rollback");
    let edge = kube.get(&["deployment", &format!("{NAME}-edge"), "--namespace", NAMESPACE]);
    let environment = &edge["spec"]["template"]["spec"]["containers"][0]["env"];
    let level = environment.as_array().and_then(|all| all.iter().find(|entry| entry["name"] == "PLAZA_LOG_LEVEL"));
    assert_eq!(level.map(|level| &level["value"]), Some(&serde_json::json!("info")), "{environment}");
    println!("{}", swarm.judge());
}

/// The number of the release's last revision.
fn revision(kube: &Kube) -> String {
    let history = kube.helm(&["history", NAME, "--namespace", NAMESPACE, "--output=json", "--max=1"]);
    let history: serde_json::Value = serde_json::from_str(&history).expect("helm prints JSON");
    history[0]["revision"].to_string()
}
