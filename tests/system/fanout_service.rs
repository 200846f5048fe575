//! The gRPC service, through its public `run`, over a log in memory.

use bytes::Bytes;
use plaza_fanout::{Config, FLAGS, MemoryLog, MemoryOptions, Parts, run};
use plaza_kit::admin::Readiness;
use plaza_kit::grpc::GrpcOptions;
use plaza_kit::metrics::Metrics;
use plaza_kit::settings::Settings;
use plaza_kit::shutdown::Shutdown;
use plaza_proto::code::Code;
use plaza_proto::event::event::{Content, Kind};
use plaza_proto::event::{Data, Event};
use plaza_proto::fanout::fanout_service_client::FanoutServiceClient;
use plaza_proto::fanout::publish_item::Target;
use plaza_proto::fanout::publish_result::Outcome;
use plaza_proto::fanout::read_history_request::From;
use plaza_proto::fanout::{self as api, ReadHistoryRequest, SubscribeRequest};
use plaza_proto::feed::FeedMessage;
use plaza_proto::ids::MessageId;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::transport::Channel;

struct Server {
    client: FanoutServiceClient<Channel>,
    feed: mpsc::Receiver<FeedMessage>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
}

impl Server {
    async fn start() -> Self {
        let (memory, feed) = MemoryLog::new(&MemoryOptions { history_per_room: 100, ..MemoryOptions::default() });
        let listener = plaza_kit::net::bind(([127, 0, 0, 1], 0).into(), "--listen").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let metrics = Arc::new(Metrics::new("test", "0"));
        let shutdown = Shutdown::new();
        let parts = Parts {
            listener,
            admin_listener: None,
            metrics: Arc::clone(&metrics),
            readiness: Readiness::new(),
            grpc: GrpcOptions::default(),
            memory: Some(memory),
            local: None,
        };
        let config = Config::from_settings(&mut Settings::from_pairs(&[FLAGS], &[]));
        shutdown.spawn("fanout", run(config, parts, shutdown.clone()));
        let channel = Channel::from_shared(format!("http://{address}")).expect("a valid address").connect_lazy();
        Self { client: FanoutServiceClient::new(channel), feed, metrics, shutdown }
    }

    async fn publish(&mut self, room: &str, event: Event) -> Result<api::Stored, Status> {
        let request = api::PublishRequest { room: room.into(), event: Some(event), ..Default::default() };
        Ok(self.client.publish(request).await?.into_inner().ok.expect("an answer has a place"))
    }

    async fn history(
        &mut self,
        room: &str,
        from: Option<From>,
        limit: u32,
    ) -> Result<api::ReadHistoryResponse, Status> {
        let request = ReadHistoryRequest { room: room.into(), from, limit };
        Ok(self.client.read_history(request).await?.into_inner())
    }
}

fn line(text: impl Into<String>) -> Event {
    Event {
        kind: Kind::Text.into(),
        user_id: "u".into(),
        username: "小明".into(),
        content: Some(Content::Text(text.into())),
        ..Event::default()
    }
}

fn texts(events: &[api::HistoryEvent]) -> Vec<String> {
    let text = |event: &api::HistoryEvent| match event.event.as_ref()?.content.clone()? {
        Content::Text(text) => Some(text),
        Content::Data(_) => None,
    };
    events.iter().filter_map(text).collect()
}

fn code<T: std::fmt::Debug>(result: Result<T, Status>) -> Code {
    Code::of_status(&result.expect_err("refused"))
}

#[tokio::test]
async fn batches_are_answered_tag_by_tag() {
    let mut server = Server::start().await;
    let item = |tag, target, event| api::PublishItem { tag, target: Some(target), event, ..Default::default() };
    let room = |name: &str| Target::Room(name.into());
    let typing = Event { kind: Kind::Typing.into(), content: None, ..line("") };
    let named = Event { client_id: "1".into(), ..line("once") };
    let drawn = |tag, message_id: &[u8], event| api::PublishItem {
        message_id: Bytes::copy_from_slice(message_id),
        ..item(tag, room("a"), Some(event))
    };
    let batch = api::PublishBatch {
        known: None,
        items: vec![
            item(1, room("a"), Some(line("hi"))),
            item(2, room("bad room"), Some(line("hi"))),
            item(3, room("a"), Some(named.clone())),
            item(4, room("a"), Some(named)),
            item(5, Target::Echo("edge#1".into()), Some(Event::default())),
            api::PublishItem { volatile: true, ..item(6, room("a"), Some(typing)) },
            item(7, room("a"), None),
            drawn(8, &[3; 16], line("drawn")),
            drawn(9, &[3; 16], line("drawn")),
            drawn(10, &[3; 15], line("short")),
            drawn(11, &[3; 16], Event { client_id: "2".into(), ..line("two ids") }),
        ],
    };
    let (send, batches) = mpsc::channel(1);
    send.send(batch).await.expect("the stream takes it");
    let batches = tokio_stream(batches);
    let mut results = server.client.publish_stream(batches).await.expect("a stream").into_inner();
    let mut outcomes = HashMap::new();
    while outcomes.len() < 11 {
        let some = results.message().await.expect("results").expect("more to come");
        outcomes.extend(some.results.into_iter().map(|result| (result.tag, result.outcome.expect("an outcome"))));
    }
    let stored = |tag| match &outcomes[&tag] {
        Outcome::Ok(stored) => stored.clone(),
        other => panic!("{tag}: {other:?}"),
    };
    let refused = |tag| match &outcomes[&tag] {
        Outcome::Rejected(rejected) => rejected.code.clone(),
        other => panic!("{tag}: {other:?}"),
    };
    assert_eq!((stored(1).position.len(), stored(1).id.len(), stored(1).duplicate), (30, 22, false));
    assert_eq!(refused(2), "bad_room");
    assert_eq!(stored(4), api::Stored { duplicate: true, ..stored(3) });
    assert_eq!((stored(5), stored(6)), (api::Stored::default(), api::Stored::default()));
    assert_eq!(refused(7), "bad_request");
    assert_eq!((stored(8).id, stored(8).duplicate), (MessageId([3; 16]).to_string(), false));
    assert_eq!(stored(9), api::Stored { duplicate: true, ..stored(8) });
    assert_eq!([refused(10), refused(11)], ["bad_request"; 2]);
    drop(send);
    assert_eq!(results.message().await.expect("a clean end"), None);
    let text = server.metrics.encode();
    assert!(text.contains("plaza_fanout_publishes_total{result=\"stored\"} 5"), "{text}");
    assert!(text.contains("plaza_fanout_grpc_calls_total{method=\"PublishStream\",code=\"ok\"} 1"), "{text}");
}

#[tokio::test]
async fn an_echo_and_a_command_come_back_on_the_feed() {
    let mut server = Server::start().await;
    let close = api::CloseSession { session_id: "s".into(), generation: 0, reason: "bye".into(), replaced: false };
    let command = api::Command { id: "1".into(), command: Some(api::command::Command::Close(close)) };
    let request = api::ControlRequest { edge: "edge#1".into(), command: Some(command.clone()) };
    server.client.control(request).await.expect("sent");
    loop {
        if let FeedMessage::Command(bytes) = server.feed.recv().await.expect("the feed lives") {
            assert_eq!(prost::Message::decode(bytes).as_ref(), Ok(&command));
            return;
        }
    }
}

#[tokio::test]
async fn history_is_paged_by_position_in_both_directions() {
    let mut server = Server::start().await;
    for n in 0..7 {
        server.publish("r", line(n.to_string())).await.expect("stored");
    }
    let newest = server.history("r", None, 3).await.expect("a page");
    assert_eq!((texts(&newest.events), newest.more), (vec!["4".into(), "5".into(), "6".into()], true));
    let first = newest.events[0].position.clone();
    let older = server.history("r", Some(From::Before(first.clone())), 10).await.expect("a page");
    assert_eq!((texts(&older.events), older.more), (vec!["0".into(), "1".into(), "2".into(), "3".into()], false));
    let newer = server.history("r", Some(From::After(first)), 1).await.expect("a page");
    assert_eq!((texts(&newer.events), newer.more), (vec!["5".into()], true));
}

#[tokio::test]
async fn positions_that_cannot_be_continued_are_refused() {
    let mut server = Server::start().await;
    let mut other = Server::start().await;
    let first = server.publish("r", line("first")).await.expect("stored").position;
    let foreign = other.publish("r", line("elsewhere")).await.expect("stored").position;
    assert_eq!(code(server.history("r", Some(From::After("x".into())), 1).await), Code::BadPosition);
    assert_eq!(code(server.history("r", Some(From::After(foreign.clone())), 1).await), Code::Trimmed);
    assert_eq!(code(server.history("r", Some(From::Before(foreign)), 1).await), Code::Trimmed);
    assert_eq!(code(server.history("r", None, 101).await), Code::BadRequest);
    for n in 0..101 {
        server.publish("r", line(n.to_string())).await.expect("stored");
    }
    let gone = server.history("r", Some(From::After(first)), 1).await.expect_err("trimmed");
    assert_eq!((gone.code(), Code::of_status(&gone)), (tonic::Code::OutOfRange, Code::Trimmed));
}

#[tokio::test]
async fn a_subscription_goes_on_from_a_position_and_then_lives() {
    let mut server = Server::start().await;
    let first = server.publish("r", line("0")).await.expect("stored").position;
    server.publish("r", line("1")).await.expect("stored");
    let request = SubscribeRequest { room: "r".into(), after: first };
    let mut behind = server.client.subscribe(request).await.expect("a stream").into_inner();
    let request = SubscribeRequest { room: "r".into(), after: String::new() };
    let mut live = server.client.subscribe(request).await.expect("a stream").into_inner();
    server.publish("other", line("x")).await.expect("stored");
    server.publish("r", line("2")).await.expect("stored");
    for expected in ["1", "2"] {
        let event = behind.message().await.expect("a response").expect("it goes on").event.expect("an event");
        assert_eq!(texts(&[event]), [expected]);
    }
    let event = live.message().await.expect("a response").expect("it goes on").event.expect("an event");
    assert_eq!(texts(&[event]), ["2"]);
    server.shutdown.begin();
    assert_eq!(live.message().await.expect("a clean end"), None);
    drop((behind, live));
    assert!(server.shutdown.wait(Duration::from_secs(10)).await, "the server ends when its streams do");
}

#[tokio::test]
async fn what_may_not_be_stored_is_refused_with_a_code() {
    let mut server = Server::start().await;
    let data = |json: &'static str| Event {
        kind: Kind::Data.into(),
        content: Some(Content::Data(Data { r#type: "t".into(), json: json.into() })),
        ..line("")
    };
    let cases = [
        ("a b", line("x"), Code::BadRoom),
        ("r", line(""), Code::BadText),
        ("r", line("x".repeat(4_097)), Code::TooLarge),
        ("r", data("{"), Code::BadRequest),
        ("r", Event { kind: Kind::Typing.into(), content: None, ..line("") }, Code::BadRequest),
        ("r", Event { username: String::new(), ..line("x") }, Code::BadUsername),
    ];
    for (room, event, expected) in cases {
        assert_eq!(code(server.publish(room, event).await), expected);
    }
    let read = api::ReadRequest { room: "r".into(), ..Default::default() };
    assert_eq!(code(server.client.read(read).await), Code::BadRequest);
    assert_eq!(code(server.client.tails(api::TailsRequest::default()).await), Code::BadRequest);
}

fn tokio_stream<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> impl futures_util::Stream<Item = T> + Send {
    futures_util::stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|item| (item, receiver)) })
}
