//! The session store is lost: edges assert what they hold, and nobody has to come again.

use futures_util::{SinkExt, StreamExt};
use plaza_proto::session::session_service_client::SessionServiceClient;
use plaza_proto::session::{CountMembersRequest, ListSessionsRequest};
use plaza_tests::cluster::Cluster;
use std::time::{Duration, Instant};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tonic::transport::Channel;

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
