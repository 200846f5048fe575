//! The two room logs: the same cases, then what only a real server can show.

use super::fanout_cases::{self as cases, HISTORY_PER_ROOM, event, fill, read, room, seqs, stored};
use async_nats::HeaderMap;
use futures_util::StreamExt;
use plaza_fanout::log::jetstream::{JetStreamLog, Options};
use plaza_fanout::log::{EventLog, LogError, Outcome, Publish, Start};
use plaza_fanout::metrics::FanoutMetrics;
use plaza_fanout::{Config, FLAGS, MemoryLog};
use plaza_kit::admin::Readiness;
use plaza_kit::metrics::Metrics;
use plaza_kit::settings::Settings;
use plaza_kit::shutdown::Shutdown;
use plaza_proto::code::Code;
use plaza_proto::ids::MessageId;
use plaza_proto::position::Epoch;
use plaza_tests::nats::NatsServer;
use plaza_tests::nats_cluster::NatsCluster;
use std::sync::Arc;
use std::time::Duration;

/// Longer than any step here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn config(pairs: &[(&str, &str)]) -> Config {
    let history = HISTORY_PER_ROOM.to_string();
    let pairs = [&[("history-per-room", history.as_str())], pairs].concat();
    let mut settings = Settings::from_pairs(&[FLAGS], &pairs);
    let config = Config::from_settings(&mut settings);
    settings.finish().expect("good settings");
    config
}

async fn jetstream(url: &str, pairs: &[(&str, &str)]) -> (Arc<JetStreamLog>, Shutdown) {
    let shutdown = Shutdown::new();
    let options = Options::new(&config(&[&[("nats-url", url)], pairs].concat())).expect("a url");
    let metrics = Arc::new(Metrics::new("test", "0").registry(FanoutMetrics::new));
    let log = JetStreamLog::start(options, metrics, Readiness::new(), &shutdown).await.expect("good settings");
    (log, shutdown)
}

/// A subscription that the server knows of: a message of our own has come back on the same connection.
async fn subscribed(client: &async_nats::Client, subject: &'static str) -> async_nats::Subscriber {
    let subscriber = client.subscribe(subject).await.expect("subscribed");
    let inbox = client.new_inbox();
    let mut barrier = client.subscribe(inbox.clone()).await.expect("subscribed");
    client.publish(inbox, "".into()).await.expect("sent");
    barrier.next().await.expect("the barrier comes back");
    subscriber
}

/// Asks until the log serves: it connects in the background.
async fn ready(log: &dyn EventLog) -> Epoch {
    let asked = async {
        loop {
            if let Ok(info) = log.info().await {
                return info.epoch;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("the log becomes ready")
}

#[tokio::test]
async fn the_memory_log_does_what_a_room_log_must() {
    let (log, _feed) = MemoryLog::new(&config(&[]).memory_options());
    cases::run_all(&*log).await;
}

#[tokio::test]
async fn the_jetstream_log_does_what_a_room_log_must() {
    let server = NatsServer::start().await;
    let (log, _shutdown) = jetstream(&server.url(), &[]).await;
    ready(&*log).await;
    cases::run_all(&*log).await;
}

/// A refusal that reaches the followers stops the stream of nats-server 2.15 on all of them.
#[tokio::test]
async fn a_marked_retry_is_looked_for_and_three_servers_go_on() {
    let servers = NatsCluster::start().await;
    let (log, _shutdown) = jetstream(&servers.urls(), &[("nats-replicas", "3")]).await;
    ready(&*log).await;
    for n in 0..20 {
        let marked = Publish { retry: true, ..event("retries", format!("event {n}")) };
        let (position, duplicate) = stored(&*log, marked.clone()).await;
        assert!(!duplicate, "it had never been stored");
        assert_eq!(stored(&*log, marked).await, (position, true));
    }
}

#[tokio::test]
async fn data_i03_one_id_through_two_replicas_is_stored_once() {
    let server = NatsServer::start().await;
    let (one, _a) = jetstream(&server.url(), &[]).await;
    let (two, _b) = jetstream(&server.url(), &[]).await;
    assert_eq!(ready(&*one).await, ready(&*two).await, "both have found the same stream");
    let publish = event("r", "x");
    let first = stored(&*one, publish.clone()).await;
    assert_eq!(stored(&*two, publish.clone()).await, (first.0, true));
    assert_eq!(seqs(&read(&*two, "r", Start::After(0)).await), [first.0.seq]);
}

#[tokio::test]
async fn data_i07_forged_headers_change_no_order_and_no_position() {
    let server = NatsServer::start().await;
    let (log, _shutdown) = jetstream(&server.url(), &[]).await;
    ready(&*log).await;
    let client = async_nats::connect(server.url()).await.expect("the server runs");
    let mut out = subscribed(&client, "chat.out.r").await;
    let before = fill(&*log, "r", 1).await[0];
    let mut forged = HeaderMap::new();
    for name in ["nats-last-sequence", "Nats-Last-Sequence", "nats-sequence", "Nats-Sequence", "Nats-Subject"] {
        forged.insert(name, "999999");
    }
    forged.insert("Nats-Num-Pending", "77");
    forged.insert("Nats-Time-Stamp", "1999-01-01T00:00:00Z");
    client.publish_with_headers("chat.in.r", forged, "forged".into()).await.expect("sent");
    client.flush().await.expect("sent");
    let distributed = [out.next().await, out.next().await];
    let after = fill(&*log, "r", 1).await[0];

    let answer = read(&*log, "r", Start::After(0)).await;
    assert_eq!(seqs(&answer), [before, before + 1, after]);
    assert_eq!(answer.events[1].previous, before);
    assert!(answer.complete && answer.events[1].time > 1_700_000_000_000);
    assert_eq!(answer.events[1].id, MessageId([0; 16]), "an id that is not ours");
    let tails = log.tails(&[room("r")]).await.expect("the store answers");
    assert_eq!(tails.tails, [after]);
    let headers = distributed[1].as_ref().and_then(|message| message.headers.clone()).expect("headers");
    let last = headers.get_last("Nats-Last-Sequence").map(|value| value.as_str().to_owned());
    assert_eq!(last, Some(before.to_string()), "the last value is the server's");
}

#[tokio::test]
async fn a_duplicate_ack_comes_with_a_hint_to_the_room() {
    let server = NatsServer::start().await;
    let (log, _shutdown) = jetstream(&server.url(), &[]).await;
    ready(&*log).await;
    let client = async_nats::connect(server.url()).await.expect("the server runs");
    let mut out = subscribed(&client, "chat.out.r").await;
    let publish = event("r", "x");
    let (position, _) = stored(&*log, publish.clone()).await;
    stored(&*log, publish).await;
    let event = out.next().await.expect("the event").headers.expect("headers");
    assert!(event.get("Chat-Repair").is_none());
    let hint = out.next().await.expect("the hint").headers.expect("headers");
    assert_eq!(hint.get_last("Chat-Repair").map(|value| value.as_str()), Some("1"));
    assert_eq!(hint.get_last("Chat-Seq").map(|value| value.as_str().to_owned()), Some(position.seq.to_string()));
}

#[tokio::test]
async fn faults_i04_a_retry_beyond_the_window_is_found_or_expires() {
    let server = NatsServer::start().await;
    let (log, _shutdown) = jetstream(&server.url(), &[("dedupe-window", "100ms")]).await;
    ready(&*log).await;
    let publish = event("r", "x");
    let retry = || log.publish(Publish { retry: true, ..publish.clone() }).get();
    let (position, _) = stored(&*log, publish.clone()).await;
    // Long enough for the stream to forget the id or not: found by the window or by the second check.
    for _ in 0..10 {
        fill(&*log, "other", 1).await;
        assert_eq!(retry().await, Outcome::Stored { position, duplicate: true });
    }
    fill(&*log, "r", HISTORY_PER_ROOM).await;
    let forgotten = async {
        loop {
            match retry().await {
                Outcome::Stored { position: found, duplicate: true } => assert_eq!(found, position),
                outcome => return outcome,
            }
        }
    };
    let outcome = tokio::time::timeout(PATIENCE, forgotten).await.expect("the window ends");
    assert_eq!(outcome, Outcome::Unknown(Code::Expired));
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for() {
    let mut server = NatsServer::start().await;
    let url = server.url();
    server.kill();
    let (log, _shutdown) = jetstream(&url, &[]).await;
    assert_eq!(log.publish(event("r", "x")).get().await, Outcome::Unknown(Code::Unavailable));
    assert!(matches!(log.info().await, Err(LogError::Unavailable(_))));
    server.restart().await;
    let epoch = ready(&*log).await;
    let first = fill(&*log, "r", 1).await[0];

    server.kill();
    let publish = event("r", "while it is away");
    let (outcome, ()) = tokio::join!(log.publish(publish).get(), server.restart());
    assert!(matches!(outcome, Outcome::Stored { .. }), "inside the budget: {outcome:?}");
    assert_eq!(ready(&*log).await, epoch, "the same stream keeps its epoch");
    let answer = read(&*log, "r", Start::After(first)).await;
    assert_eq!(answer.events.len(), 1);
}

#[tokio::test]
async fn data_i09_a_stream_made_anew_has_a_new_epoch() {
    let server = NatsServer::start().await;
    let (log, _shutdown) = jetstream(&server.url(), &[]).await;
    let epoch = ready(&*log).await;
    fill(&*log, "r", 5).await;
    let context = async_nats::jetstream::new(async_nats::connect(server.url()).await.expect("the server runs"));
    context.delete_stream("CHAT").await.expect("deleted");
    // Nobody tells the log: the next publishes and beats find no stream, or sequences given anew.
    let renewed = async {
        loop {
            if let Outcome::Stored { position, .. } = log.publish(event("r", "x")).get().await {
                return position;
            }
        }
    };
    let position = tokio::time::timeout(PATIENCE, renewed).await.expect("the stream is made again");
    assert_ne!(position.epoch, epoch);
    assert_eq!(seqs(&read(&*log, "r", Start::After(0)).await), [position.seq]);
}

#[tokio::test]
async fn faults_i02_a_rolled_back_stream_gets_a_new_epoch_before_anything_is_stored() {
    let mut server = NatsServer::start().await;
    let (log, _shutdown) = jetstream(&server.url(), &[]).await;
    let epoch = ready(&*log).await;
    fill(&*log, "r", 5).await;
    // The same stream, epoch and all, but without its events: what an old copy looks like.
    let (other, _other) = jetstream(&server.url(), &[]).await;
    ready(&*other).await;
    let context = async_nats::jetstream::new(async_nats::connect(server.url()).await.expect("the server runs"));
    let mut stream = context.get_stream("CHAT").await.expect("it is there");
    let config = stream.info().await.expect("its info").config.clone();
    let old = config.metadata["plaza.epoch"].clone();
    context.delete_stream("CHAT").await.expect("deleted");
    context.create_stream(config).await.expect("made with the old epoch");
    // Another service has begun to renew it, and ended.
    let begun = format!(r#"{{"from":"{old}","to":"01020304-0506-4708-8000-000000000000"}}"#);
    context.publish("chat.in._epoch", begun.into()).await.expect("sent").await.expect("stored");
    server.restart().await;
    let renewed = async {
        loop {
            if let Ok(info) = log.info().await
                && info.epoch != epoch
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, renewed).await.expect("the roll-back is found");
    let renewed = stored(&*log, event("r", "x")).await.0.epoch;
    assert_eq!(renewed, Epoch([1, 2, 3, 4, 5, 6, 0x47, 8]), "what another one had begun is carried through");
    // Replicas agree in the end, by each other's beats.
    let agreed = async {
        while ready(&*other).await != ready(&*log).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, agreed).await.expect("both have one epoch");
}
