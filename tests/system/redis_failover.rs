//! The session store on servers that stand in for each other: no restart, nothing lost that was replicated.

use super::session_store::{OPTIONS, edge_name, on_a_cluster, open_as, registration, store_with, unique};
use plaza_proto::code::Code;
use plaza_session::store::{Outcome, Registration, SessionStore, StoreError, StoreOptions};
use plaza_tests::proxy::Proxy;
use plaza_tests::redis::RedisServer;
use plaza_tests::redis_sets::{RedisCluster, RedisFailover};
use std::time::{Duration, Instant};

/// A dead master is replaced within this (faults.md row 11).
const REPLACED: Duration = Duration::from_secs(15);

/// Leases outlive what happens here.
const PATIENT: StoreOptions = StoreOptions { lease: Duration::from_secs(60), ..OPTIONS };

/// Sends heartbeats until one is answered, and returns how long that took. The lease must have lived
/// on: a lost one would be another error.
async fn until_answered(store: &dyn SessionStore, edge: &str, counter: u64) -> Duration {
    let begin = Instant::now();
    loop {
        match store.heartbeat(edge, counter, None, Vec::new()).await {
            Ok(pulse) => {
                assert!(pulse.counter + 1 >= counter, "the store has lost what was written last: {pulse:?}");
                return begin.elapsed();
            }
            Err(StoreError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn hold_a_name(store: &dyn SessionStore, edge: &str) {
    store.register(registration(edge)).await.expect("a registration");
    store.heartbeat(edge, 1, None, Vec::new()).await.expect("a heartbeat");
    let applied = store.apply(edge, vec![open_as("one", unique("Ada"))]).await.expect("an open session");
    assert!(matches!(applied.outcomes[..], [Outcome::Session(_)]), "{applied:?}");
}

async fn name_is_held(store: &dyn SessionStore, edge: &str) {
    let applied = store.apply(edge, vec![open_as("two", unique("Ada"))]).await.expect("an answer");
    assert!(matches!(applied.outcomes[..], [Outcome::Refused(_)]), "the name was stolen: {applied:?}");
}

#[tokio::test]
async fn sentinels_name_another_master_and_the_store_follows() {
    let mut set = RedisFailover::start().await;
    let store = store_with(&set.url(), PATIENT);
    let edge = edge_name("a");
    hold_a_name(&store, &edge).await;
    let first = set.master().await;
    set.replicated(first).await;

    set.kill(first);
    let took = until_answered(&store, &edge, 2).await;
    assert!(took < REPLACED, "{took:?}");
    let second = set.master().await;
    assert_ne!(first, second);
    name_is_held(&store, &edge).await;

    // The old master comes back empty and believes that it is one: nothing of ours goes there.
    set.restart(first).await;
    let begin = Instant::now();
    while !set.is_replica(first).await {
        store.heartbeat(&edge, 3, None, Vec::new()).await.expect("the new master serves on");
        assert!(begin.elapsed() < Duration::from_secs(60), "the sentinels leave two masters");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    name_is_held(&store, &edge).await;
}

#[tokio::test]
async fn a_cluster_promotes_a_replica_and_the_store_follows() {
    let mut cluster = RedisCluster::start("{plaza}").await;
    let store = store_with(&cluster.url(), PATIENT);
    let edge = edge_name("a");
    hold_a_name(&store, &edge).await;
    cluster.replicated().await;
    cluster.kill_followed();
    let took = until_answered(&store, &edge, 2).await;
    assert!(took < REPLACED, "{took:?}");
    name_is_held(&store, &edge).await;
}

#[tokio::test]
async fn a_cluster_of_three_passes_the_cases_of_the_store() {
    on_a_cluster().await;
}

/// faults.md row 14: the old connection stays open for ever, and carries nothing.
#[tokio::test]
async fn a_half_open_connection_is_given_up_for_a_new_one() {
    let server = RedisServer::start().await;
    let target = server.url().trim_start_matches("redis://").trim_end_matches('/').parse().expect("an address");
    let link = Proxy::start(Some(target)).await;
    let store = store_with(&format!("redis://{}/", link.addr()), PATIENT);
    let edge = edge_name("a");
    hold_a_name(&store, &edge).await;
    for (counter, up, down) in [(2, true, true), (3, false, true), (4, true, false)] {
        link.freeze_open(up, down);
        let took = until_answered(&store, &edge, counter).await;
        assert!(took < Duration::from_secs(5), "{took:?}");
        name_is_held(&store, &edge).await;
    }
    assert!(link.counts().frozen > 0 && link.counts().accepted >= 4, "{:?}", link.counts());
}

/// faults.md row 11: a promoted replica without the last writes. What it has lost is not given to somebody else
/// before its holder has told it again.
#[tokio::test]
async fn a_name_that_a_server_has_lost_waits_for_its_holder() {
    let server = RedisServer::start().await;
    let options = StoreOptions { name_grace: Duration::from_secs(60), ..PATIENT };
    let (store, other) = (store_with(&server.url(), options), store_with(&server.url(), options));
    let (edge, elsewhere) = (edge_name("a"), edge_name("b"));
    hold_a_name(&store, &edge).await;
    other.register(registration(&elsewhere)).await.expect("a registration");
    other.heartbeat(&elsewhere, 1, None, Vec::new()).await.expect("a heartbeat");
    name_is_held(&other, &elsewhere).await;

    // Another server: it knows no scripts, and the write of the name has not reached it.
    let client = redis::Client::open(server.url()).expect("a URL");
    let mut raw = client.get_multiplexed_async_connection().await.expect("a connection");
    let names: Vec<String> = redis::cmd("KEYS").arg("{plaza}:n:*").query_async(&mut raw).await.expect("keys");
    assert_eq!(names.len(), 1, "{names:?}");
    let () = redis::cmd("DEL").arg(&names).query_async(&mut raw).await.expect("deleted");
    let () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut raw).await.expect("flushed");

    let thief = store.apply(&edge, vec![open_as("two", unique("Ada"))]).await.expect("an answer");
    let Outcome::Refused(refusal) = &thief.outcomes[0] else { panic!("the name was stolen: {thief:?}") };
    assert_eq!(refusal.code, Code::Busy);
    // Its edge comes under a new incarnation, as after a lost lease, and tells it again.
    let again = edge_name("a");
    let lease = Registration { replaces: edge.clone(), ..registration(&again) };
    store.register(lease).await.expect("a registration");
    let back = store.apply(&again, vec![open_as("one", unique("Ada"))]).await.expect("an answer");
    assert!(matches!(back.outcomes[..], [Outcome::Session(_)]), "{back:?}");
}

/// Two calls find a server without their script. One teaches it before the other has read its answer: that one does
/// not take the server for another one.
#[tokio::test]
async fn first_calls_at_once_are_no_loss() {
    let server = RedisServer::start().await;
    let store = store_with(&server.url(), PATIENT);
    let edge = edge_name("a");
    store.register(registration(&edge)).await.expect("a registration");
    let before = store.heartbeat(&edge, 1, None, Vec::new()).await.expect("a heartbeat").boot;
    let mut late = std::pin::pin!(store.totals());
    assert!(futures_util::poll!(&mut late).is_pending(), "it is on its way");
    store.totals().await.expect("totals");
    late.await.expect("totals");
    assert_eq!(store.heartbeat(&edge, 2, None, Vec::new()).await.expect("a heartbeat").boot, before);
}

/// A server that gets its first replica draws a new replication id, and has lost nothing: no lease ends, and names
/// are given at once.
#[tokio::test]
async fn a_first_replica_is_no_loss() {
    let (server, replica) = (RedisServer::start().await, RedisServer::start().await);
    let store = store_with(&server.url(), PATIENT);
    let edge = edge_name("a");
    hold_a_name(&store, &edge).await;
    let before = store.heartbeat(&edge, 2, None, Vec::new()).await.expect("a heartbeat").boot;
    let ask = async |url: String, command: &str, args: [String; 2]| -> redis::Value {
        let client = redis::Client::open(url).expect("a URL");
        let mut raw = client.get_multiplexed_async_connection().await.expect("a connection");
        let args = args.iter().filter(|arg| !arg.is_empty()).collect::<Vec<_>>();
        redis::cmd(command).arg(&args).query_async(&mut raw).await.expect("an answer")
    };
    let history = async || {
        let told = ask(server.url(), "INFO", ["replication".to_owned(), String::new()]).await;
        let told: String = redis::from_redis_value(told).expect("a text");
        let field = |name: &str| told.lines().find_map(|line| line.strip_prefix(name)).expect("the field").to_owned();
        (field("master_replid:"), told.contains("state=online"))
    };
    let first = history().await.0;

    let port = server.url().trim_end_matches('/').rsplit(':').next().expect("a port").to_owned();
    ask(replica.url(), "REPLICAOF", ["127.0.0.1".to_owned(), port]).await;
    let begin = Instant::now();
    while !history().await.1 {
        assert!(begin.elapsed() < Duration::from_secs(30), "the replica does not come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_ne!(history().await.0, first, "the server has not begun a new history: this test shows nothing");

    let after = store.heartbeat(&edge, 3, None, Vec::new()).await.expect("the lease lives on").boot;
    assert_eq!(after, before, "the edge is told that something may be lost");
    let applied = store.apply(&edge, vec![open_as("two", unique("Bob"))]).await.expect("an answer");
    assert!(matches!(applied.outcomes[..], [Outcome::Session(_)]), "a new name waits: {applied:?}");
    name_is_held(&store, &edge).await;

    // The replica is promoted, as sentinels do it: that is a server which may lack writes.
    ask(replica.url(), "REPLICAOF", ["NO".to_owned(), "ONE".to_owned()]).await;
    let promoted = store_with(&replica.url(), PATIENT);
    let other = edge_name("b");
    promoted.register(registration(&other)).await.expect("a registration");
    let told = promoted.heartbeat(&other, 1, None, Vec::new()).await.expect("a heartbeat").boot;
    assert_ne!(told, before, "a promoted replica is taken for the server before");
}
