//! The session store is lost: edges assert what they hold, and nobody has to come again.

use futures_util::{SinkExt, StreamExt};
use plaza_proto::session::session_service_client::SessionServiceClient;
use plaza_proto::session::{CountMembersRequest, ListSessionsRequest};
use plaza_tests::cluster::Cluster;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tonic::transport::Channel;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn members(service: &mut SessionServiceClient<Channel>) -> Option<u32> {
    let answer = service.count_members(CountMembersRequest { room: "lobby".to_owned() }).await;
    answer.ok().map(|answer| answer.into_inner().count)
}

async fn until_one_member(service: &mut SessionServiceClient<Channel>) {
    let begin = Instant::now();
    while members(service).await != Some(1) {
        assert!(begin.elapsed() < Duration::from_secs(60), "the member is not there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_presence_outlive_the_loss_of_redis() {
    let mut cluster = Cluster::start(1).await;
    let url = format!("ws://{}/ws", cluster.edges[0].addr);
    let (mut ws, _) = connect_async(url).await.unwrap();
    for frame in ["{\"hello\":{}}", "{\"setUsername\":{\"username\":\"ada\"}}", "{\"join\":{\"room\":\"lobby\"}}"] {
        ws.send(Message::text(frame)).await.unwrap();
    }
    let mut service = SessionServiceClient::connect(cluster.session.url()).await.unwrap();
    until_one_member(&mut service).await;

    cluster.redis.restart().await;
    until_one_member(&mut service).await;
    let ada = ListSessionsRequest { username: "ada".to_owned(), ..ListSessionsRequest::default() };
    let sessions = service.list_sessions(ada).await.unwrap().into_inner().sessions;
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    assert_eq!(sessions[0].rooms, ["lobby"]);

    // The lease is another one, the number in the sids is not.
    let log = cluster.edges[0].process.log();
    let number = |line: &str| line.split("\"number\":").nth(1).map(|rest| rest.split(',').next().map(str::to_owned));
    let leases: Vec<_> =
        log.lines().filter(|l| l.contains("registered with the session service")).map(number).collect();
    assert_eq!(leases.len(), 2, "{log}");
    assert_eq!(leases[0], leases[1]);

    // The connection never noticed.
    ws.send(Message::text("{\"publish\":{\"room\":\"lobby\",\"text\":\"still here\"}}")).await.unwrap();
    loop {
        let message = tokio::time::timeout(Duration::from_secs(60), ws.next()).await.unwrap().unwrap().unwrap();
        if message.to_text().unwrap().contains("\"still here\"") {
            break;
        }
    }
}

/// faults.md row 11: a promoted replica lacks what was written last, the lease is as it was, and no counter shows
/// the loss.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_a_promoted_replica_lacks_is_told_again() {
    let cluster = Cluster::start(1).await;
    let url = format!("ws://{}/ws", cluster.edges[0].addr);
    let (mut ws, _) = connect_async(url).await.unwrap();
    say(&mut ws, "{\"hello\":{}}").await;
    say(&mut ws, "{\"setUsername\":{\"username\":\"ada\"}}").await;
    hear(&mut ws, "\"ok\"").await;
    let mut service = SessionServiceClient::connect(cluster.session.url()).await.unwrap();
    let mut listed = async || {
        let ada = ListSessionsRequest { username: "ada".to_owned(), ..ListSessionsRequest::default() };
        service.list_sessions(ada).await.unwrap().into_inner().sessions.len()
    };
    assert_eq!(listed().await, 1);

    let client = redis::Client::open(cluster.redis.url()).unwrap();
    let mut raw = client.get_multiplexed_async_connection().await.unwrap();
    let mut lost: Vec<String> = Vec::new();
    for keys in ["{plaza}:s:*", "{plaza}:c:*", "{plaza}:sessions"] {
        lost.extend(redis::cmd("KEYS").arg(keys).query_async::<Vec<String>>(&mut raw).await.unwrap());
    }
    let () = redis::cmd("DEL").arg(&lost).query_async(&mut raw).await.unwrap();
    assert_eq!(listed().await, 0, "{lost:?}");
    // Another server has no scripts, by which it is known.
    let () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut raw).await.unwrap();
    let begin = Instant::now();
    while listed().await != 1 {
        assert!(begin.elapsed() < Duration::from_secs(15), "nobody tells it again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What clients ask for while a lease begins anew is about sessions that the new one does not know yet.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_unknown_while_a_lease_begins_anew() {
    let cluster = Cluster::start_with(1, &["--message-rate", "0"]).await;
    let url = format!("ws://{}/ws", cluster.edges[0].addr);
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for client in 0..4 {
        let (url, stop) = (url.clone(), stop.clone());
        clients.spawn(async move {
            let (mut ws, _) = connect_async(url).await.unwrap();
            say(&mut ws, "{\"hello\":{}}").await;
            hear(&mut ws, "\"welcome\"").await;
            for id in (1..).take_while(|_| !stop.load(Relaxed)) {
                let name = format!("c{client}-{id}");
                say(&mut ws, &format!("{{\"id\":{id},\"setUsername\":{{\"username\":\"{name}\"}}}}")).await;
                let answer = hear(&mut ws, &format!("\"id\":{id},")).await;
                assert!(!answer.contains("not_found"), "{answer}");
            }
        });
    }

    // The server says that names may have been lost: each time the lease begins anew.
    let client = redis::Client::open(cluster.redis.url()).unwrap();
    let mut raw = client.get_multiplexed_async_connection().await.unwrap();
    let leases = || cluster.edges[0].process.log().matches("registered with the session service").count();
    for doubt in 1..=3 {
        let () = redis::cmd("HSET").arg("{plaza}:boot").arg("doubt").arg(doubt).query_async(&mut raw).await.unwrap();
        let begin = Instant::now();
        while leases() == doubt {
            assert!(begin.elapsed() < Duration::from_secs(60), "the lease does not begin anew");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    stop.store(true, Relaxed);
    clients.join_all().await;
}

async fn say(ws: &mut Socket, text: &str) {
    ws.send(Message::text(text)).await.unwrap();
}

/// The next text that contains this.
async fn hear(ws: &mut Socket, what: &str) -> String {
    let heard = async {
        loop {
            let message = ws.next().await.expect("the socket lives").expect("a frame");
            if let Ok(text) = message.to_text()
                && text.contains(what)
            {
                return text.to_owned();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), heard).await.expect(what)
}

#[tokio::test(flavor = "multi_thread")]
async fn data_i13_an_edge_that_wakes_after_its_lease_ends_the_socket_of_a_session_that_has_moved() {
    let cluster = Cluster::start_in(2, &[], vec![("PLAZA_SESSION_LEASE", "6s".to_owned())]).await;
    let url = |edge: usize| format!("ws://{}/ws", cluster.edges[edge].addr);
    let (mut old, _) = connect_async(url(0)).await.unwrap();
    say(&mut old, "{\"hello\":{}}").await;
    let welcome = hear(&mut old, "\"welcome\"").await;
    let ticket = field(&welcome, "ticket").to_owned();
    say(&mut old, "{\"setUsername\":{\"username\":\"ada\"}}").await;
    hear(&mut old, "\"ok\"").await;

    // Dead for the others: its sessions are cleared, so that nobody tells it of the move.
    cluster.edges[0].process.pause().await;
    let mut service = SessionServiceClient::connect(cluster.session.url()).await.unwrap();
    let begin = Instant::now();
    loop {
        let ada = ListSessionsRequest { username: "ada".to_owned(), ..ListSessionsRequest::default() };
        let sessions = service.list_sessions(ada).await.unwrap().into_inner().sessions;
        if sessions.first().is_some_and(|session| session.edge.is_empty()) {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{sessions:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (mut new, _) = connect_async(url(1)).await.unwrap();
    say(&mut new, &format!("{{\"hello\":{{\"resume\":\"{ticket}\"}}}}")).await;
    let welcome = hear(&mut new, "\"welcome\"").await;
    assert!(welcome.contains("\"resumed\":true") && welcome.contains("ada"), "{welcome}");

    cluster.edges[0].process.signal("CONT");
    let ended = async { while !matches!(old.next().await, None | Some(Err(_) | Ok(Message::Close(_)))) {} };
    tokio::time::timeout(Duration::from_secs(60), ended).await.expect("the old socket is closed");
    // The session is the new socket's.
    say(&mut new, "{\"id\":9,\"join\":{\"room\":\"lobby\"}}").await;
    hear(&mut new, "\"joined\"").await;
    let ada = ListSessionsRequest { username: "ada".to_owned(), ..ListSessionsRequest::default() };
    let sessions = service.list_sessions(ada).await.unwrap().into_inner().sessions;
    let held = &sessions[0].edge;
    assert!(!held.is_empty() && cluster.edges[1].process.log().contains(held), "{sessions:?}");
}

fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let rest = text.split(&format!("\"{name}\":\"")).nth(1).unwrap_or_else(|| panic!("no {name} in {text}"));
    rest.split('"').next().unwrap_or(rest)
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_p2_a_ticket_is_enough_to_continue_while_redis_is_dead() {
    let mut cluster = Cluster::start(2).await;
    let url = |edge: usize| format!("ws://{}/ws", cluster.edges[edge].addr);
    let (first, second) = (url(0), url(1));
    let (mut old, _) = connect_async(first).await.unwrap();
    say(&mut old, "{\"hello\":{}}").await;
    hear(&mut old, "\"welcome\"").await;
    say(&mut old, "{\"id\":2,\"setUsername\":{\"username\":\"ada\"}}").await;
    let named = hear(&mut old, "\"ok\"").await;
    say(&mut old, "{\"id\":3,\"join\":{\"room\":\"lobby\"}}").await;
    let joined = hear(&mut old, "\"joined\"").await;

    // Redis hangs; the client loses its connection, and a message comes meanwhile.
    cluster.redis.process().pause().await;
    say(&mut old, "{\"publish\":{\"room\":\"lobby\",\"text\":\"before\"}}").await;
    let before = hear(&mut old, "\"before\"").await;
    say(&mut old, "{\"publish\":{\"room\":\"lobby\",\"text\":\"missed\"}}").await;
    hear(&mut old, "\"missed\"").await;
    drop(old);
    let (mut new, _) = connect_async(second).await.unwrap();
    say(&mut new, &format!("{{\"hello\":{{\"resume\":\"{}\"}}}}", field(&named, "ticket"))).await;
    let welcome = hear(&mut new, "\"welcome\"").await;
    assert!(welcome.contains("\"resumed\":true") && field(&welcome, "username") == "ada", "{welcome}");
    let after = field(&before, "position");
    assert_ne!(after, field(&joined, "position"));
    say(&mut new, &format!("{{\"id\":4,\"join\":{{\"room\":\"lobby\",\"after\":\"{after}\"}}}}")).await;
    assert!(hear(&mut new, "\"joined\"").await.contains("\"recovered\":true"));
    let missed = hear(&mut new, "\"event\"").await;
    assert_eq!(field(&missed, "text"), "missed");
    say(&mut new, "{\"id\":5,\"publish\":{\"room\":\"lobby\",\"text\":\"after\"}}").await;
    assert_eq!(field(&hear(&mut new, "\"after\"").await, "username"), "ada");

    // It comes back with nothing: the session service is told of the session.
    cluster.redis.restart().await;
    let mut service = SessionServiceClient::connect(cluster.session.url()).await.unwrap();
    let begin = Instant::now();
    loop {
        let ada = ListSessionsRequest { username: "ada".to_owned(), ..ListSessionsRequest::default() };
        let found = service.list_sessions(ada).await.map(|answer| answer.into_inner().sessions).unwrap_or_default();
        if found.iter().any(|session| session.rooms == ["lobby"] && session.session_id == field(&welcome, "sessionId"))
        {
            assert_eq!(found.len(), 1, "{found:?}");
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    say(&mut new, "{\"id\":6,\"publish\":{\"room\":\"lobby\",\"text\":\"still\"}}").await;
    hear(&mut new, "\"still\"").await;
}
