//! The harness itself: its servers are real and come back after a kill.

use plaza_tests::nats::NatsServer;
use plaza_tests::nats_cluster::NatsCluster;
use plaza_tests::redis::RedisServer;

#[tokio::test]
async fn redis_restarts_empty_on_its_port() {
    let mut server = RedisServer::start().await;
    let client = redis::Client::open(server.url()).expect("a valid url");
    let mut connection = client.get_multiplexed_async_connection().await.expect("the server runs");
    let () = redis::cmd("SET").arg("k").arg("v").query_async(&mut connection).await.expect("a plain SET");
    server.restart().await;
    let mut connection = client.get_multiplexed_async_connection().await.expect("the server runs again");
    let value: Option<String> = redis::cmd("GET").arg("k").query_async(&mut connection).await.expect("a plain GET");
    assert_eq!(value, None);
}

#[tokio::test]
async fn nats_keeps_its_stream_over_a_kill() {
    let mut server = NatsServer::start().await;
    let context = async_nats::jetstream::new(async_nats::connect(server.url()).await.expect("the server runs"));
    let config =
        async_nats::jetstream::stream::Config { name: "T".into(), subjects: vec!["t".into()], ..Default::default() };
    context.create_stream(config).await.expect("JetStream is on");
    context.publish("t", "1".into()).await.expect("sent").await.expect("stored");
    server.restart().await;
    let context = async_nats::jetstream::new(async_nats::connect(server.url()).await.expect("the server runs again"));
    let mut stream = context.get_stream("T").await.expect("the stream is still there");
    assert_eq!(stream.info().await.expect("its info").state.messages, 1);
}

#[tokio::test]
async fn three_nats_servers_elect_another_leader_and_lose_nothing() {
    let mut servers = NatsCluster::start().await;
    let client = async_nats::connect(servers.urls().split(',').collect::<Vec<_>>()).await.expect("they run");
    let context = async_nats::jetstream::new(client);
    let config = || async_nats::jetstream::stream::Config {
        name: "T".into(),
        subjects: vec!["t".into()],
        num_replicas: 3,
        ..Default::default()
    };
    // The three find each other a moment after the first election.
    while context.create_stream(config()).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    servers.settled("T").await;
    context.publish("t", "1".into()).await.expect("sent").await.expect("stored");
    let first = servers.leader("T").await;
    let second = servers.step_down("T").await;
    assert_ne!(first, second);
    servers.kill(second);
    let third = servers.leader("T").await;
    assert_ne!(second, third);
    servers.restart(second).await;
    servers.settled("T").await;
    let mut stream = context.get_stream("T").await.expect("the stream is still there");
    assert_eq!(stream.info().await.expect("its info").state.messages, 1);
}
