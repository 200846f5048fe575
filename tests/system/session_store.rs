//! The conformance cases of the session store: the same for memory and Redis.

use plaza_kit::admin::Readiness;
use plaza_kit::metrics::Metrics;
use plaza_proto::code::Code;
use plaza_proto::fanout::command::Command as Body;
use plaza_proto::ids::RoomName;
use plaza_proto::session::Session;
use plaza_session::metrics::SessionMetrics;
use plaza_session::random;
use plaza_session::store::memory::MemoryStore;
use plaza_session::store::redis::RedisStore;
use plaza_session::store::{
    Applied, Filter, Lease, Name, Op, Opening, OutboxEntry, Outcome, PresenceKind, RecoverBy, Registration, ResumeKey,
    SessionStore, StoreError, StoreOptions,
};
use plaza_tests::redis::RedisServer;
use plaza_tests::redis_sets::RedisCluster;
use std::time::{Duration, Instant};

/// Leases are short here, so that their end can be waited for. Cases that need a living lease for
/// longer send heartbeats.
pub(super) const OPTIONS: StoreOptions = StoreOptions {
    lease: Duration::from_secs(4),
    recovery_window: Duration::from_millis(400),
    key_rotation: Duration::from_secs(24 * 3600),
    name_grace: Duration::from_secs(6),
};

/// Runs every case, each on an empty store.
macro_rules! conformance {
    ($($case:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $case() {
                super::$case(&super::MemoryStore::new(super::OPTIONS)).await;
            })+
        }
        mod redis {
            $(#[tokio::test]
            async fn $case() {
                let server = super::RedisServer::start().await;
                super::$case(&super::redis_store(&server)).await;
            })+
        }
        /// One cluster serves all, one after the other.
        pub(super) async fn on_a_cluster() {
            let cluster = RedisCluster::start("{plaza}").await;
            let store = store_with(&cluster.url(), OPTIONS);
            $(
                cluster.flush().await;
                println!("{}", stringify!($case));
                $case(&store).await;
            )+
        }
    };
}

conformance! {
    a_session_is_opened_joined_renamed_and_closed,
    what_was_carried_out_may_be_repeated,
    a_session_is_recovered_with_its_rooms,
    a_session_without_a_user_is_recovered_by_its_key_alone,
    a_recovery_whose_answer_was_lost_can_be_released,
    the_newest_rooms_that_were_left_come_with_a_recovery,
    data_i13_an_ended_lease_can_do_nothing,
    data_i13_a_close_of_an_old_generation_changes_nothing,
    data_i12_a_user_on_two_edges_joins_and_leaves_once,
    data_i12_a_dead_edge_is_cleared_and_its_users_leave_once,
    an_edge_that_lost_its_lease_registers_again_and_nobody_leaves,
    another_name_is_a_rename,
    at_most_one_living_session_has_a_unique_name,
    a_recoverable_session_gives_its_name_free,
    names_wait_for_their_holders_after_a_loss,
    sessions_are_listed_by_name_and_edge_in_pages,
    members_are_listed_in_pages,
    a_command_is_repeated_until_it_is_confirmed,
    a_session_without_an_edge_is_closed_at_once,
    one_replica_at_a_time_reads_the_outbox,
    the_highest_resume_key_wins,
    an_edge_keeps_its_number,
    the_mean_is_over_living_edges_that_told_their_connections,
    rooms_of_a_session_are_bounded,
}

fn redis_store(server: &RedisServer) -> RedisStore {
    store_with(&server.url(), OPTIONS)
}

pub(super) fn store_with(url: &str, options: StoreOptions) -> RedisStore {
    let metrics = Metrics::new("test", "0");
    let metrics = metrics.registry(|registry| SessionMetrics::register(registry, metrics.made_calls()));
    RedisStore::new(url, options, metrics, Readiness::new()).expect("a URL of Redis")
}

pub(super) fn edge_name(edge: &str) -> String {
    format!("{edge}#{}", random::boot())
}

pub(super) fn registration(incarnation: &str) -> Registration {
    Registration {
        incarnation: incarnation.to_owned(),
        advertise_addr: format!("{}:5001", incarnation.split('#').next().expect("split gives one part")),
        replaces: String::new(),
        edge_number: 0,
        resume_keys: Vec::new(),
    }
}

async fn register(store: &dyn SessionStore, edge: &str) -> String {
    let incarnation = edge_name(edge);
    store.register(registration(&incarnation)).await.expect("a registration");
    incarnation
}

fn id(text: &str) -> String {
    format!("{text:A<20}")
}

fn room(name: &str) -> RoomName {
    RoomName::parse(name).expect("a valid name")
}

fn name(text: &str) -> Name {
    Name { display: text.to_owned(), canonical: text.to_lowercase(), unique: None }
}

pub(super) fn unique(text: &str) -> Name {
    Name { unique: Some(text.to_lowercase()), ..name(text) }
}

fn opening(session: &str) -> Opening {
    Opening {
        session_id: id(session),
        user_id: format!("u:{session}"),
        protocol: "socketio".to_owned(),
        pid: Some(id(&format!("pid{session}"))),
        name: None,
    }
}

fn open(session: &str) -> Op {
    Op::Open(opening(session))
}

pub(super) fn open_as(session: &str, name: Name) -> Op {
    Op::Open(Opening { name: Some(name), ..opening(session) })
}

fn rename(session: &str, name: Name) -> Op {
    Op::Rename { session_id: id(session), name }
}

fn join(session: &str, room_name: &str, position: &str) -> Op {
    Op::Join { session_id: id(session), room: room(room_name), position: position.to_owned() }
}

fn close(session: &str, generation: u64, recoverable_ms: u32) -> Op {
    Op::Close { by: RecoverBy::Session(id(session)), generation, recoverable_ms }
}

fn recover(session: &str) -> Op {
    Op::Recover { by: RecoverBy::Pid(id(&format!("pid{session}"))), user_id: format!("u:{session}") }
}

fn present(room_name: &str, user: &str, username: &str) -> Op {
    Op::SetPresence { room: room(room_name), user_id: user.to_owned(), username: Some(username.to_owned()) }
}

fn absent(room_name: &str, user: &str) -> Op {
    Op::SetPresence { room: room(room_name), user_id: user.to_owned(), username: None }
}

async fn apply<const N: usize>(store: &dyn SessionStore, edge: &str, ops: [Op; N]) -> Applied {
    let applied = store.apply(edge, ops.into()).await.expect("a living lease");
    assert_eq!(applied.outcomes.len(), N);
    applied
}

async fn one(store: &dyn SessionStore, edge: &str, op: Op) -> Outcome {
    apply(store, edge, [op]).await.outcomes.remove(0)
}

fn session(outcome: Outcome) -> Session {
    match outcome {
        Outcome::Session(session) | Outcome::Recovered(session, _) => session,
        Outcome::Done | Outcome::Refused(_) => panic!("no session but {outcome:?}"),
    }
}

fn refused(outcome: &Outcome) -> Option<Code> {
    match outcome {
        Outcome::Refused(refusal) => Some(refusal.code),
        Outcome::Session(_) | Outcome::Recovered(..) | Outcome::Done => None,
    }
}

/// What waits in the outbox, as kind, user and name.
async fn events(store: &dyn SessionStore) -> Vec<(PresenceKind, String, String)> {
    let entries = store.outbox("test", 1_000, Duration::from_millis(1)).await.expect("an answer").entries;
    entries.into_iter().map(|e: OutboxEntry| (e.kind, e.user_id, e.username)).collect()
}

/// Reaps until a dead edge is cleared. Each step is a call to the store, which is asked again until
/// the lease has ended.
async fn reap_an_edge(store: &dyn SessionStore) {
    let begin = Instant::now();
    while store.reap().await.expect("an answer").edges == 0 {
        assert!(begin.elapsed() < plaza_tests::process::PATIENCE, "no edge died");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn heartbeat(store: &dyn SessionStore, edge: &str, done: &[String]) -> Vec<(String, Body)> {
    let pulse = store.heartbeat(edge, 1, Some(3), done.to_vec()).await.expect("a living lease");
    pulse.commands.into_iter().map(|c| (c.id, c.command.expect("a command has a body"))).collect()
}

async fn a_session_is_opened_joined_renamed_and_closed(store: &dyn SessionStore) {
    let edge = register(store, "edge-a").await;
    let opened = session(one(store, &edge, open("s1")).await);
    assert_eq!((opened.edge.as_str(), opened.generation, opened.username.as_str()), (edge.as_str(), 1, ""));
    assert!(opened.created_at > 1_600_000_000_000, "{}", opened.created_at);
    let applied = apply(
        store,
        &edge,
        [join("s1", "lobby", "p1"), join("s1", "b:1", ""), rename("s1", name("Alice 王")), close("s9", 0, 0)],
    )
    .await;
    assert_eq!(applied.outcomes[0], Outcome::Done);
    assert_eq!(applied.outcomes[3], Outcome::Done, "to close what is gone is no fault");
    let read = store.get(&id("s1")).await.expect("the session");
    assert_eq!(read.username, "Alice 王");
    assert_eq!(read.rooms, ["b:1", "lobby"]);
    assert_eq!(read.protocol, "socketio");
    let left = Op::Leave { session_id: id("s1"), room: room("lobby") };
    apply(store, &edge, [left, close("s1", 1, 0)]).await;
    assert!(matches!(store.get(&id("s1")).await, Err(StoreError::NotFound("session"))));
    assert_eq!(refused(&one(store, &edge, join("s1", "lobby", "")).await), Some(Code::NotFound));
    assert_eq!(refused(&one(store, &edge, recover("s1")).await), Some(Code::NotFound));
}

async fn what_was_carried_out_may_be_repeated(store: &dyn SessionStore) {
    let edge = register(store, "edge-a").await;
    for _ in 0..2 {
        store.register(registration(&edge)).await.expect("a registration");
        let ops = [open_as("s1", unique("Alice")), join("s1", "lobby", "p"), present("lobby", "u", "Alice")];
        let applied = apply(store, &edge, ops).await;
        assert!(applied.outcomes.iter().all(|outcome| refused(outcome).is_none()), "{applied:?}");
    }
    let read = store.get(&id("s1")).await.expect("the session");
    assert_eq!(read.generation, 1);
    assert_eq!(store.count(&room("lobby")).await.expect("a count"), 1);
    for _ in 0..2 {
        apply(store, &edge, [absent("lobby", "u"), close("s1", 1, 0)]).await;
    }
    let kinds: Vec<_> = events(store).await.into_iter().map(|event| event.0).collect();
    assert_eq!(kinds, [PresenceKind::Joined, PresenceKind::Left]);
}

async fn a_session_is_recovered_with_its_rooms(store: &dyn SessionStore) {
    let a = register(store, "edge-a").await;
    let b = register(store, "edge-b").await;
    apply(store, &a, [open_as("s1", name("Alice")), join("s1", "lobby", "p1"), join("s1", "x", "p2")]).await;
    let wrong_user = Op::Recover { by: RecoverBy::Session(id("s1")), user_id: "u:other".to_owned() };
    assert_eq!(refused(&one(store, &b, wrong_user).await), Some(Code::NotFound));

    let own = Op::Recover { by: RecoverBy::Session(id("s1")), user_id: String::new() };
    assert_eq!(refused(&one(store, &b, own).await), Some(Code::NotFound), "a user is named who owns it");

    // While the first edge still has it: it is told to close the old connection.
    let mut applied = apply(store, &b, [recover("s1")]).await;
    let Outcome::Recovered(recovered, positions) = applied.outcomes.remove(0) else { panic!("{applied:?}") };
    assert_eq!((recovered.edge.as_str(), recovered.generation), (b.as_str(), 2));
    assert_eq!(recovered.username, "Alice");
    assert_eq!(positions, [("lobby".to_owned(), "p1".to_owned()), ("x".to_owned(), "p2".to_owned())]);
    assert_eq!(applied.commands.len(), 1);
    assert_eq!(applied.commands[0].edge, a);
    let waiting = heartbeat(store, &a, &[]).await;
    assert!(
        matches!(&waiting[0].1, Body::Close(c) if c.session_id == id("s1") && c.generation == 1 && c.replaced),
        "{waiting:?}"
    );

    // After its end, within the window; and not after it.
    apply(store, &b, [close("s1", 2, 60_000)]).await;
    assert_eq!(store.get(&id("s1")).await.expect("a recoverable session").edge, "");
    let by_id = Op::Recover { by: RecoverBy::Session(id("s1")), user_id: "u:s1".to_owned() };
    assert_eq!(session(one(store, &a, by_id).await).generation, 3);
    apply(store, &a, [close("s1", 3, 1)]).await;
    let begin = Instant::now();
    while store.get(&id("s1")).await.is_ok() {
        assert!(begin.elapsed() < plaza_tests::process::PATIENCE, "the window does not end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    heartbeat(store, &a, &[]).await;
    assert_eq!(refused(&one(store, &a, recover("s1")).await), Some(Code::NotFound));
    store.reap().await.expect("an answer");
    assert_eq!(store.totals().await.expect("an answer").sessions, 0);
}

async fn the_newest_rooms_that_were_left_come_with_a_recovery(store: &dyn SessionStore) {
    let edge = &register(store, "a").await;
    apply(store, edge, [open("s1"), join("s1", "lobby", "p1"), join("s1", "x", "p2")]).await;
    let leave = |n: &str| Op::Leave { session_id: id("s1"), room: room(n) };
    for n in 0..18 {
        apply(store, edge, [join("s1", &format!("left-{n}"), "p"), leave(&format!("left-{n}"))]).await;
    }
    // One that was never joined is none that was left; one that is joined again is none any more.
    apply(store, edge, [leave("never"), join("s1", "left-5", "p5")]).await;
    let Outcome::Recovered(shown, positions) = one(store, edge, recover("s1")).await else { panic!("recovered") };
    assert_eq!(shown.rooms, ["left-5", "lobby", "x"]);
    let left: Vec<_> = positions.iter().filter(|(_, at)| at.is_empty()).map(|(name, _)| name.clone()).collect();
    assert!(
        left.len() == 15 && !left.contains(&"left-5".to_owned()) && left.contains(&"left-17".to_owned()),
        "{left:?}"
    );
}

async fn a_session_without_a_user_is_recovered_by_its_key_alone(store: &dyn SessionStore) {
    let edge = register(store, "edge-a").await;
    let own = Opening { user_id: format!("s:{}", id("s1")), ..opening("s1") };
    apply(store, &edge, [Op::Open(own), open("s2")]).await;
    let by_key =
        |session: &str| Op::Recover { by: RecoverBy::Pid(id(&format!("pid{session}"))), user_id: String::new() };
    assert_eq!(session(one(store, &edge, by_key("s1")).await).generation, 2);
    assert_eq!(refused(&one(store, &edge, by_key("s2")).await), Some(Code::NotFound));
}

async fn a_recovery_whose_answer_was_lost_can_be_released(store: &dyn SessionStore) {
    let (a, b) = (register(store, "a").await, register(store, "b").await);
    one(store, &a, open("s1")).await;
    one(store, &b, recover("s1")).await;
    let release = || Op::Close { by: RecoverBy::Pid(id("pids1")), generation: 0, recoverable_ms: 60_000 };
    // An edge that does not hold it changes nothing.
    assert!(matches!(one(store, &a, release()).await, Outcome::Done));
    assert_eq!(store.get(&id("s1")).await.expect("it is there").edge, b);
    assert!(matches!(one(store, &b, release()).await, Outcome::Done));
    assert_eq!(store.get(&id("s1")).await.expect("its window runs").edge, "");
    assert!(matches!(one(store, &a, recover("s1")).await, Outcome::Recovered(..)));
    let unknown = Op::Close { by: RecoverBy::Pid(id("nobody")), generation: 0, recoverable_ms: 60_000 };
    assert!(matches!(one(store, &b, unknown).await, Outcome::Done));
}

async fn data_i13_an_ended_lease_can_do_nothing(store: &dyn SessionStore) {
    let never = edge_name("edge-x");
    assert!(matches!(store.apply(&never, vec![open("s1")]).await, Err(StoreError::LeaseLost(_))));
    assert!(matches!(store.heartbeat(&never, 1, None, Vec::new()).await, Err(StoreError::LeaseLost(_))));
    let edge = register(store, "edge-a").await;
    apply(store, &edge, [open("s1"), present("lobby", "u", "Alice")]).await;
    reap_an_edge(store).await;
    assert!(matches!(store.apply(&edge, vec![open("s2")]).await, Err(StoreError::LeaseLost(_))));
    assert!(matches!(store.heartbeat(&edge, 2, None, Vec::new()).await, Err(StoreError::LeaseLost(_))));
    assert_eq!(store.count(&room("lobby")).await.expect("a count"), 0);
}

async fn data_i13_a_close_of_an_old_generation_changes_nothing(store: &dyn SessionStore) {
    let a = register(store, "edge-a").await;
    let b = register(store, "edge-b").await;
    apply(store, &a, [open("s1")]).await;
    apply(store, &b, [recover("s1")]).await;
    apply(store, &a, [close("s1", 1, 0), close("s1", 0, 0)]).await;
    apply(store, &b, [close("s1", 1, 0)]).await;
    let read = store.get(&id("s1")).await.expect("the session");
    assert_eq!((read.edge.as_str(), read.generation), (b.as_str(), 2));
}

async fn data_i12_a_user_on_two_edges_joins_and_leaves_once(store: &dyn SessionStore) {
    let a = register(store, "edge-a").await;
    let b = register(store, "edge-b").await;
    apply(store, &a, [present("lobby", "u", "Alice")]).await;
    apply(store, &b, [present("lobby", "u", "Alice")]).await;
    assert_eq!(store.count(&room("lobby")).await.expect("a count"), 1);
    apply(store, &a, [absent("lobby", "u"), absent("lobby", "u")]).await;
    assert_eq!(store.count(&room("lobby")).await.expect("a count"), 1);
    apply(store, &b, [absent("lobby", "u")]).await;
    assert_eq!(store.count(&room("lobby")).await.expect("a count"), 0);
    let alice = |kind| (kind, "u".to_owned(), "Alice".to_owned());
    assert_eq!(events(store).await, [alice(PresenceKind::Joined), alice(PresenceKind::Left)]);
}

async fn data_i12_a_dead_edge_is_cleared_and_its_users_leave_once(store: &dyn SessionStore) {
    let edge = register(store, "edge-a").await;
    let number = store.register(registration(&edge)).await.expect("a registration").edge_number;
    assert_eq!(store.find_edge(number).await.expect("a living edge"), "edge-a:5001");
    let without_pid = Op::Open(Opening { pid: None, ..opening("s2") });
    apply(store, &edge, [open("s1"), join("s1", "lobby", "p"), without_pid]).await;
    for n in 0..6 {
        let ops: Vec<Op> = (0..200).map(|u| present(&format!("room-{n}"), &format!("u{u}"), "Someone")).collect();
        store.apply(&edge, ops).await.expect("a living lease");
    }
    assert_eq!(events(store).await.len(), 1_000, "1,200 wait, 1,000 are shown");
    reap_an_edge(store).await;
    assert!(matches!(store.find_edge(number).await, Err(StoreError::NotFound("edge"))));
    let mut left = std::collections::HashSet::new();
    let mut seen = 0;
    loop {
        let entries = store.outbox("test", 500, Duration::from_millis(1)).await.expect("an answer").entries;
        if entries.is_empty() {
            break;
        }
        seen += entries.len();
        for entry in entries.iter().filter(|entry| entry.kind == PresenceKind::Left) {
            assert!(left.insert((entry.room.clone(), entry.user_id.clone())), "{entry:?} left twice");
        }
        store.confirm(entries.into_iter().map(|entry| entry.id).collect()).await.expect("an answer");
    }
    assert_eq!((seen, left.len()), (2_400, 1_200));
    assert_eq!(store.totals().await.expect("an answer").leases, 0);
    assert!(store.get(&id("s2")).await.is_err(), "a session without a recovery record ends with its edge");
    // The other one was recoverable for the window; then nothing is left.
    let begin = Instant::now();
    while store.totals().await.expect("an answer").sessions > 0 {
        assert!(begin.elapsed() < plaza_tests::process::PATIENCE, "the window does not end");
        store.reap().await.expect("an answer");
    }
}

/// Registers a new incarnation of the same process.
async fn replace(store: &dyn SessionStore, old: &str) -> String {
    let incarnation = edge_name("edge-a");
    let again = Registration { replaces: old.to_owned(), ..registration(&incarnation) };
    store.register(again).await.expect("a registration");
    incarnation
}

async fn an_edge_that_lost_its_lease_registers_again_and_nobody_leaves(store: &dyn SessionStore) {
    let old = register(store, "edge-a").await;
    apply(store, &old, [open_as("s1", unique("Alice")), join("s1", "lobby", "p"), present("lobby", "u", "Alice")])
        .await;
    apply(store, &old, [open("s2")]).await;
    let new = replace(store, &old).await;
    assert!(matches!(store.apply(&old, vec![open("s3")]).await, Err(StoreError::LeaseLost(_))), "the old one is over");
    assert!(matches!(store.register(registration(&old)).await, Err(StoreError::LeaseLost(_))), "and stays so");
    let again = session(one(store, &new, open_as("s1", unique("Alice"))).await);
    assert_eq!((again.edge.as_str(), again.generation), (new.as_str(), 1));
    assert_eq!(again.rooms, ["lobby"]);
    apply(store, &new, [present("lobby", "u", "Alice")]).await;
    let begin = Instant::now();
    loop {
        heartbeat(store, &new, &[]).await;
        if store.reap().await.expect("an answer").edges > 0 {
            break;
        }
        assert!(begin.elapsed() < plaza_tests::process::PATIENCE, "the old incarnation stays");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(events(store).await.len(), 1, "one JOINED");
    assert_eq!(store.get(&id("s1")).await.expect("the session").edge, new);
    assert_eq!(store.get(&id("s2")).await.expect("not registered again: recoverable").edge, "");
}

async fn another_name_is_a_rename(store: &dyn SessionStore) {
    let edge = register(store, "edge-a").await;
    apply(store, &edge, [present("lobby", "u", "Al:ice"), present("lobby", "u", "Bob"), present("lobby", "u", "Bob")])
        .await;
    let entries = store.outbox("test", 10, Duration::from_millis(1)).await.expect("an answer").entries;
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[1].kind, PresenceKind::Renamed);
    assert_eq!((entries[1].username.as_str(), entries[1].previous_username.as_str()), ("Bob", "Al:ice"));
    assert!(entries[0].age_ms < 60_000);
}

async fn at_most_one_living_session_has_a_unique_name(store: &dyn SessionStore) {
    let a = register(store, "edge-a").await;
    let b = register(store, "edge-b").await;
    apply(store, &a, [open("s1"), rename("s1", unique("Alice"))]).await;
    assert_eq!(refused(&one(store, &b, open_as("s2", unique("ALICE"))).await), Some(Code::UsernameTaken));
    assert!(store.get(&id("s2")).await.is_err(), "a refused opening opens nothing");
    apply(store, &b, [open("s2")]).await;
    assert_eq!(refused(&one(store, &b, rename("s2", unique("alice"))).await), Some(Code::UsernameTaken));
    let outside = store.set_username(&id("s2"), unique("Alice")).await;
    assert!(matches!(outside, Err(StoreError::Refused(r)) if r.code == Code::UsernameTaken));
    // Another name gives it free; so does the end of the session.
    apply(store, &a, [rename("s1", unique("Carol"))]).await;
    assert_eq!(session(one(store, &b, rename("s2", unique("alice"))).await).username, "alice");
    apply(store, &a, [close("s1", 0, 0)]).await;
    assert_eq!(session(one(store, &b, rename("s2", unique("Carol"))).await).username, "Carol");
    // Names that need not be unique never collide.
    apply(store, &a, [open_as("s3", name("Carol"))]).await;
}

async fn a_recoverable_session_gives_its_name_free(store: &dyn SessionStore) {
    let edge = register(store, "edge-a").await;
    apply(store, &edge, [open_as("s1", unique("Alice")), open_as("s2", unique("Bob"))]).await;
    apply(store, &edge, [close("s1", 0, 60_000), close("s2", 0, 60_000)]).await;
    assert_eq!(session(one(store, &edge, open_as("s3", unique("Alice"))).await).username, "Alice");
    assert_eq!(session(one(store, &edge, recover("s2")).await).username, "Bob", "nobody claimed it meanwhile");
    assert_eq!(session(one(store, &edge, recover("s1")).await).username, "", "somebody has it by now");
    assert_eq!(store.get(&id("s3")).await.expect("the session").username, "Alice");
}

async fn names_wait_for_their_holders_after_a_loss(store: &dyn SessionStore) {
    // The store is empty, and an edge says that it had a lease: what it held was lost.
    let back = replace(store, &edge_name("edge-a")).await;
    let fresh = register(store, "edge-b").await;
    apply(store, &fresh, [open("s2")]).await;
    assert_eq!(refused(&one(store, &fresh, rename("s2", unique("Alice"))).await), Some(Code::Busy));
    assert_eq!(session(one(store, &back, open_as("s1", unique("Alice"))).await).username, "Alice");
    apply(store, &back, [present("lobby", "u", "Alice")]).await;
    assert!(events(store).await.is_empty(), "who was there before does not join again");
    apply(store, &fresh, [present("lobby", "v", "Bob")]).await;
    assert_eq!(events(store).await.len(), 1, "who is new does");
    let begin = Instant::now();
    loop {
        heartbeat(store, &back, &[]).await;
        heartbeat(store, &fresh, &[]).await;
        match one(store, &fresh, rename("s2", unique("Bob"))).await {
            Outcome::Session(_) => break,
            outcome => assert_eq!(refused(&outcome), Some(Code::Busy)),
        }
        assert!(begin.elapsed() < plaza_tests::process::PATIENCE, "the grace does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(refused(&one(store, &fresh, rename("s2", unique("Alice"))).await), Some(Code::UsernameTaken));
}

async fn sessions_are_listed_by_name_and_edge_in_pages(store: &dyn SessionStore) {
    let a = register(store, "edge-a").await;
    let b = register(store, "edge-b").await;
    for n in 0..5 {
        let edge = if n % 2 == 0 { &a } else { &b };
        apply(store, edge, [open_as(&format!("s{n}"), name(if n < 3 { "Alice" } else { "Bob" }))]).await;
    }
    let pages = async |canonical: &str, edge: &str, limit: usize| {
        let filter = Filter { canonical: canonical.to_owned(), edge: edge.to_owned() };
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let page = store.list(filter.clone(), &after, limit).await.expect("a page");
            assert!(page.items.len() <= limit);
            found.extend(page.items.into_iter().map(|session| session.session_id));
            match page.next {
                Some(next) => after = next,
                None => return found,
            }
        }
    };
    let ids = |numbers: &[u32]| numbers.iter().map(|n| id(&format!("s{n}"))).collect::<Vec<_>>();
    for limit in [1, 2, 500] {
        assert_eq!(pages("", "", limit).await, ids(&[0, 1, 2, 3, 4]));
        assert_eq!(pages("alice", "", limit).await, ids(&[0, 1, 2]));
        assert_eq!(pages("", &a, limit).await, ids(&[0, 2, 4]));
        assert_eq!(pages("alice", &a, limit).await, ids(&[0, 2]));
        assert_eq!(pages("nobody", "", limit).await, ids(&[]));
    }
    apply(store, &a, [rename("s0", name("Bob")), close("s2", 0, 0)]).await;
    assert_eq!(pages("alice", "", 10).await, ids(&[1]));
    assert_eq!(pages("bob", "", 10).await, ids(&[0, 3, 4]));
}

async fn members_are_listed_in_pages(store: &dyn SessionStore) {
    let edge = register(store, "edge-a").await;
    apply(
        store,
        &edge,
        [present("r", "u2", "B"), present("r", "u1", "A"), present("r", "u3", "C"), present("q", "u4", "D")],
    )
    .await;
    let (first, count) = store.members(&room("r"), "", 2).await.expect("a page");
    assert_eq!(count, 3);
    let shown: Vec<_> = first.items.iter().map(|m| (m.user_id.as_str(), m.username.as_str())).collect();
    assert_eq!(shown, [("u1", "A"), ("u2", "B")]);
    let (second, _) = store.members(&room("r"), &first.next.expect("another page"), 2).await.expect("a page");
    assert_eq!(second.items.len(), 1);
    assert_eq!(second.next, None);
    assert_eq!(store.members(&room("empty"), "", 2).await.expect("a page").1, 0);
}

async fn a_command_is_repeated_until_it_is_confirmed(store: &dyn SessionStore) {
    let edge = register(store, "edge-a").await;
    apply(store, &edge, [open("s1"), open("s2")]).await;
    let (renamed, told) = store.set_username(&id("s1"), name("Alice")).await.expect("the session");
    assert_eq!(renamed.username, "Alice");
    let told = told.expect("its edge lives");
    assert_eq!(told.edge, edge);
    store.close(&id("s2"), "spam").await.expect("the session").expect("its edge lives");
    assert_eq!(refused(&one(store, &edge, recover("s2")).await), Some(Code::NotFound), "closed for good");
    for _ in 0..2 {
        let commands = heartbeat(store, &edge, &[]).await;
        assert_eq!(commands.len(), 2);
        assert_eq!(commands[0].0, told.command.id);
        assert!(matches!(&commands[0].1, Body::Renamed(r) if r.username == "Alice"));
        assert!(matches!(&commands[1].1, Body::Close(c) if c.reason == "spam" && c.generation == 1));
    }
    let left = heartbeat(store, &edge, &[told.command.id, "foreign".to_owned()]).await;
    assert_eq!(left.len(), 1);
    let pulse = store.heartbeat(&edge, 7, Some(5), vec![left[0].0.clone()]).await.expect("a living lease");
    assert!(pulse.commands.is_empty());
    assert_eq!((pulse.counter, pulse.mean_connections), (1, 5));
}

async fn a_session_without_an_edge_is_closed_at_once(store: &dyn SessionStore) {
    let edge = register(store, "edge-a").await;
    apply(store, &edge, [open("s1"), close("s1", 0, 60_000)]).await;
    assert_eq!(store.close(&id("s1"), "spam").await.expect("the session"), None);
    assert!(matches!(store.close(&id("s1"), "spam").await, Err(StoreError::NotFound("session"))));
    assert!(matches!(store.set_username(&id("s1"), name("A")).await, Err(StoreError::NotFound("session"))));
}

async fn one_replica_at_a_time_reads_the_outbox(store: &dyn SessionStore) {
    let edge = register(store, "edge-a").await;
    apply(store, &edge, [present("r", "u1", "A"), present("r", "u2", "B")]).await;
    let hold = Duration::from_millis(200);
    let first = store.outbox("one", 1, hold).await.expect("an answer");
    assert_eq!(first.entries.len(), 1);
    assert!(store.outbox("two", 10, hold).await.expect("an answer").entries.is_empty());
    let again = store.outbox("one", 10, hold).await.expect("an answer");
    assert_eq!(again.entries[0].id, first.entries[0].id, "not confirmed: read again under the same id");
    store.confirm(vec![first.entries[0].id.clone()]).await.expect("an answer");
    let begin = Instant::now();
    loop {
        let taken_over = store.outbox("two", 10, hold).await.expect("an answer");
        if let [entry] = taken_over.entries.as_slice() {
            assert_eq!(entry.user_id, "u2");
            assert_eq!(taken_over.boot, first.boot);
            break;
        }
        assert!(begin.elapsed() < plaza_tests::process::PATIENCE, "nobody takes over");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn the_highest_resume_key_wins(store: &dyn SessionStore) {
    let fresh: Lease = store.register(registration(&edge_name("edge-a"))).await.expect("a registration");
    assert_eq!(fresh.resume_keys.len(), 1);
    assert_eq!(fresh.resume_keys[0].generation, 1);
    let known = vec![ResumeKey { generation: 9, key: [9; 32] }, ResumeKey { generation: 8, key: [8; 32] }];
    let edge = edge_name("edge-b");
    let back = Registration { resume_keys: known.clone(), ..registration(&edge) };
    assert_eq!(store.register(back).await.expect("a registration").resume_keys, known);
    let pulse = store.heartbeat(&edge, 1, None, Vec::new()).await.expect("a living lease");
    assert_eq!(pulse.resume_keys, known);
    let forged = vec![ResumeKey { generation: 9, key: [0; 32] }];
    let forged = Registration { resume_keys: forged, ..registration(&edge_name("edge-c")) };
    assert_eq!(store.register(forged).await.expect("a registration").resume_keys, known, "the first one stays");
}

async fn the_mean_is_over_living_edges_that_told_their_connections(store: &dyn SessionStore) {
    let tell = async |edge: &str, connections| {
        let pulse = store.heartbeat(edge, 1, connections, Vec::new()).await.expect("a living lease");
        (pulse.mean_connections, pulse.counted_edges)
    };
    let (a, b) = (register(store, "edge-a").await, register(store, "edge-b").await);
    assert_eq!(tell(&a, None).await, (0, 0));
    assert_eq!(tell(&a, Some(300)).await, (300, 1), "the other one has not told yet");
    assert_eq!(tell(&b, Some(1)).await, (150, 2), "rounded down");
    assert_eq!(tell(&b, Some(0)).await, (150, 2), "an empty edge counts");
    assert_eq!(tell(&b, None).await, (300, 1), "one that drains does not");
    assert_eq!(tell(&b, Some(u32::MAX)).await.1, 2);
    let next = edge_name("edge-b");
    let again = Registration { replaces: b, ..registration(&next) };
    store.register(again).await.expect("a registration");
    assert_eq!(tell(&a, Some(300)).await, (300, 1), "nor does the incarnation before");
    assert_eq!(tell(&next, Some(100)).await, (200, 2));
    let begin = Instant::now();
    while tell(&a, Some(300)).await != (300, 1) {
        assert!(begin.elapsed() < plaza_tests::process::PATIENCE, "a dead edge counts");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn an_edge_keeps_its_number(store: &dyn SessionStore) {
    let wanted = Registration { edge_number: 77, ..registration(&edge_name("edge-a")) };
    let a = wanted.incarnation.clone();
    assert_eq!(store.register(wanted).await.expect("a registration").edge_number, 77);
    let other = Registration { edge_number: 77, ..registration(&edge_name("edge-b")) };
    let number = store.register(other).await.expect("a registration").edge_number;
    assert!(number != 77 && number != 0, "another edge has it");
    let again = Registration { replaces: a, ..registration(&edge_name("edge-a")) };
    assert_eq!(store.register(again).await.expect("a registration").edge_number, 77);
    assert_eq!(store.find_edge(77).await.expect("a living edge"), "edge-a:5001");
    assert!(matches!(store.find_edge(0).await, Err(StoreError::NotFound("edge"))));
}

async fn rooms_of_a_session_are_bounded(store: &dyn SessionStore) {
    let edge = register(store, "edge-a").await;
    apply(store, &edge, [open("s1")]).await;
    for half in [0..50, 50..100] {
        let ops: Vec<Op> = half.map(|n| join("s1", &format!("r{n}"), "p")).collect();
        let applied = store.apply(&edge, ops).await.expect("a living lease");
        assert!(applied.outcomes.iter().all(|outcome| *outcome == Outcome::Done));
    }
    assert_eq!(refused(&one(store, &edge, join("s1", "r100", "p")).await), Some(Code::TooManyRooms));
    assert_eq!(one(store, &edge, join("s1", "r5", "q")).await, Outcome::Done, "a room it is in is no new one");
    assert_eq!(store.get(&id("s1")).await.expect("the session").rooms.len(), 100);
}
