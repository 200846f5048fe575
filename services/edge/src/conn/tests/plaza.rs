use super::*;
use crate::bridge::{Resume, Variant};
use crate::conn::{Cause, PlazaConnection};
use plaza_proto::client::{self, ClientFrame, ServerFrame, client_frame, server_frame};
use plaza_proto::code::Code;
use proptest::prelude::*;
use prost::Message as _;

fn settings() -> Arc<Settings> {
    Arc::new(Settings { message_rate: 0, open_publish: true, ..Settings::default() })
}

fn json() -> Driver {
    Driver::open(PlazaConnection::new(settings(), true))
}

fn opened(asked: &Asked, username: Option<&str>) -> Reply {
    Reply::Opened {
        identity: asked.identity.clone(),
        username: username.map(Arc::from),
        resumed: false,
        ticket: Some("t".into()),
        rooms: Vec::new(),
        missed: Bytes::new(),
    }
}

/// Welcomed, with a name, in room `a`.
fn in_room() -> Driver {
    let mut driver = json();
    let hello = driver.text(r#"{"hello":{}}"#).asked();
    driver.reply(hello.id, opened(&hello, Some("ann")));
    let join = driver.text(r#"{"join":{"room":"a"}}"#).asked();
    driver.reply(join.id, Reply::Joined(joined("a", 1)));
    driver.out.clear();
    driver
}

#[test]
fn hello_is_answered_by_welcome() {
    let mut driver = json();
    let asked =
        driver.text(r#"{"id":1,"hello":{"guest":"AAAAAAAAAAAAAAAAAAAAAA","resume":"old","unknown":[1]}}"#).asked();
    assert!(matches!(&asked.op, Op::Open { room: None, resume: Some(Resume::Ticket(ticket)) } if &**ticket == "old"));
    assert_eq!(asked.identity.variant, Variant::PlazaJson);
    driver.reply(asked.id, opened(&asked, Some("ann")));
    let (session, user) = (asked.identity.session.to_string(), asked.identity.user_id());
    assert_eq!(
        driver.texts(),
        [format!(
            r#"{{"id":1,"welcome":{{"sessionId":"{session}","userId":"{user}","username":"ann","resumed":false,"ticket":"t","pingIntervalMs":20000,"maxMessageBytes":65536}}}}"#
        )]
    );
}

#[test]
fn frames_before_welcome_wait_and_are_bounded() {
    let mut driver = json();
    let hello = driver.text(r#"{"hello":{}}"#).asked();
    driver.text(r#"{"id":2,"join":{"room":"a"}}"#).text(r#"{"id":3,"publish":{"room":"a","text":"x"}}"#);
    assert!(driver.out.is_empty());
    driver.reply(hello.id, opened(&hello, Some("ann")));
    let join = driver.asked();
    assert!(matches!(join.op, Op::Join { .. }));
    assert!(!driver.has_asked(), "the publish waits for the join");
    driver.reply(join.id, Reply::Joined(joined("a", 1)));
    assert!(matches!(driver.asked().op, Op::Publish { .. }));

    let mut flood = json();
    flood.text(r#"{"hello":{}}"#);
    for _ in 0..17 {
        flood.text("{}");
    }
    assert_eq!(flood.closed().map(|close| close.cause), Some(Cause::Limit));
}

#[test]
fn what_is_no_frame_is_a_bad_request_and_the_connection_goes_on() {
    let mut driver = in_room();
    for (text, id) in [
        ("", 0),
        ("x", 0),
        ("[]", 0),
        (r#"{"id":7}"#, 7),
        (r#"{"id":7,"nonsense":{}}"#, 7),
        (r#"{"id":7,"join":{"room":"b"},"leave":{"room":"a"}}"#, 7),
        (r#"{"id":7,"join":{"room":5}}"#, 7),
        (r#"{"id":7,"hello":{}}"#, 7),
        (r#"{"id":7,"publish":{"room":"a"}}"#, 7),
        (r#"{"id":7,"publish":{"room":"a","text":"x","type":"t"}}"#, 7),
        (r#"{"id":9007199254740992,"who":{"room":"a"}}"#, 0),
        (r#"{"id":-1,"who":{"room":"a"}}"#, 0),
    ] {
        let answer = driver.text(text).texts().pop().expect("an answer");
        let begin = if id == 0 { r#"{"error":"#.to_owned() } else { format!(r#"{{"id":{id},"error":"#) };
        assert!(answer.starts_with(&format!(r#"{begin}{{"code":"bad_request","#)), "{text}: {answer}");
    }
    assert!(driver.out.is_empty());
    assert!(json().text(r#"{"join":{"room":"a"}}"#).texts()[0].contains("hello"));
}

#[test]
fn the_other_kind_of_message_closes() {
    assert_eq!(json().binary(b"x").closed().and_then(|close| close.code), Some(1003));
    let mut proto = Driver::open(PlazaConnection::new(settings(), false));
    assert_eq!(proto.text("x").closed().and_then(|close| close.code), Some(1003));
}

#[test]
fn a_publish_without_id_is_answered_only_when_it_is_refused() {
    let mut driver = in_room();
    let asked = driver.text(r#"{"publish":{"room":"a","text":"hi"}}"#).asked();
    driver.reply(asked.id, published(3));
    assert!(driver.texts().is_empty());
    let asked = driver.text(r#"{"publish":{"room":"a","text":"hi"}}"#).asked();
    driver.reply(asked.id, Reply::Failed { code: Code::Timeout, message: "too late".to_owned() });
    assert!(matches!(driver.texts().as_slice(), [text] if text.contains("\"code\":\"timeout\"")));
}

#[test]
fn wishes_are_answered_by_their_id() {
    let mut driver = in_room();
    let asked = driver.text(r#"{"id":5,"publish":{"room":"a","text":"hi","clientId":"m","retry":true}}"#).asked();
    assert!(
        matches!(&asked.op, Op::Publish { event, retry: true, .. } if event.client_id == "m" && event.username == "ann")
    );
    driver.reply(asked.id, published(3));
    let (position, id) = (position(3), MessageId([3; 16]));
    assert_eq!(
        driver.texts(),
        [format!(r#"{{"id":5,"published":{{"room":"a","position":"{position}","id":"{id}","duplicate":false}}}}"#)]
    );
    let asked = driver.text(r#"{"id":6,"setUsername":{"username":"bob"}}"#).asked();
    driver.reply(asked.id, Reply::Renamed { username: "bob".into(), ticket: None });
    assert_eq!(driver.texts(), [r#"{"id":6,"ok":{"username":"bob"}}"#]);
    let asked = driver.text(r#"{"id":7,"who":{"room":"a"}}"#).asked();
    driver.reply(asked.id, Reply::Members { count: 1, members: vec![("bob".into(), "u".into())] });
    assert_eq!(
        driver.texts(),
        [r#"{"id":7,"presence":{"room":"a","count":1,"members":[{"username":"bob","userId":"u"}]}}"#]
    );
    let asked = driver.text(r#"{"id":8,"history":{"room":"a"}}"#).asked();
    driver.reply(asked.id, Reply::History { events: vec![], more: false });
    assert_eq!(driver.texts(), [r#"{"id":8,"history":{"room":"a","events":[],"more":false}}"#]);
    let asked = driver.text(r#"{"id":9,"leave":{"room":"a"}}"#).asked();
    driver.reply(asked.id, Reply::Failed { code: Code::Timeout, message: "late".into() });
    assert_eq!(driver.texts(), [r#"{"id":9,"error":{"code":"timeout","message":"late"}}"#]);
}

#[test]
fn what_was_sent_behind_an_unknown_outcome_is_refused_so_that_retries_keep_the_order() {
    let mut driver = in_room();
    let asked = driver.text(r#"{"id":5,"publish":{"room":"a","text":"1","clientId":"m1"}}"#).asked();
    driver.text(r#"{"id":6,"publish":{"room":"a","text":"2","clientId":"m2"}}"#);
    driver.reply(asked.id, Reply::Failed { code: Code::Timeout, message: "late".into() });
    let texts = driver.texts();
    assert!(texts[0].contains(r#""id":5,"error":{"code":"timeout""#), "{texts:?}");
    assert!(texts[1].contains(r#""id":6,"error":{"code":"busy""#), "{texts:?}");
    assert!(!driver.has_asked(), "the second one was not sent");
    // It left the client before the news came.
    let texts = driver.text(r#"{"id":7,"publish":{"room":"a","text":"3","clientId":"m3"}}"#).texts();
    assert!(texts[0].contains(r#""id":7,"error":{"code":"busy""#), "{texts:?}");
    let asked = driver.text(r#"{"id":8,"publish":{"room":"a","text":"1","clientId":"m1","retry":true}}"#).asked();
    driver.reply(asked.id, published(3)).texts();
    // New ones wait until the others have come again.
    let texts = driver.text(r#"{"id":9,"publish":{"room":"a","text":"4","clientId":"m4"}}"#).texts();
    assert!(texts[0].contains(r#""id":9,"error":{"code":"busy""#), "{texts:?}");
    for (id, n) in [(10, 2), (11, 3), (12, 4), (13, 5)] {
        let text = format!(r#"{{"id":{id},"publish":{{"room":"a","text":"{n}","clientId":"m{n}"}}}}"#);
        let asked = driver.text(&text).asked();
        driver.reply(asked.id, published(id));
    }
}

#[test]
fn a_room_that_was_left_and_joined_again_still_has_one_publish_on_its_way() {
    let mut driver = in_room();
    let first = driver.text(r#"{"id":1,"publish":{"room":"a","text":"1"}}"#).asked();
    let left = driver.text(r#"{"id":2,"leave":{"room":"a"}}"#).asked();
    driver.reply(left.id, Reply::Left);
    let again = driver.text(r#"{"id":3,"join":{"room":"a"}}"#).asked();
    driver.reply(again.id, Reply::Joined(joined("a", 1)));
    driver.text(r#"{"id":4,"publish":{"room":"a","text":"2"}}"#);
    assert!(!driver.has_asked());
    assert!(driver.reply(first.id, published(1)).has_asked());
}

#[test]
fn a_join_that_cannot_be_completed_says_what_is_missing() {
    let mut driver = in_room();
    let after = position(1);
    let asked = driver.text(&format!(r#"{{"id":1,"join":{{"room":"b","after":"{after}"}}}}"#)).asked();
    let entry = Joined { replay: vec!["f".into()], reset: Some("trimmed"), ..joined("b", 2) };
    driver.reply(asked.id, Reply::Joined(entry));
    let to = position(10);
    assert_eq!(
        driver.texts(),
        [
            format!(r#"{{"id":1,"joined":{{"room":"b","position":"{to}","members":3,"recovered":false}}}}"#),
            format!(r#"{{"reset":{{"room":"b","reason":"trimmed","from":"{after}","to":"{to}"}}}}"#)
        ]
    );
    assert!(matches!(driver.out[..], [Action::SendFrames(_), Action::Enter { .. }]));
}

#[test]
fn protobuf_says_the_same() {
    let mut driver = Driver::open(PlazaConnection::new(settings(), false));
    let frame = |id, body| ClientFrame { id, body: Some(body) }.encode_to_vec();
    let hello = driver.binary(&frame(1, client_frame::Body::Hello(client::Hello::default()))).asked();
    assert_eq!(hello.identity.variant, Variant::PlazaProto);
    driver.reply(hello.id, opened(&hello, None));
    let Some(Action::Send(Packet::Binary(bytes))) = driver.out.pop() else { panic!("a binary frame") };
    let answer = ServerFrame::decode(bytes).expect("a frame");
    assert!(matches!(answer, ServerFrame { id: 1, body: Some(server_frame::Body::Welcome(_)) }));
    driver.binary(&[0xff, 0xff]).binary(b"");
    assert_eq!(driver.out.len(), 2, "two errors");
    assert!(!driver.is_closed());
}

#[test]
fn a_silent_peer_is_pinged_and_then_dropped() {
    let mut driver = in_room();
    driver.until(21_000);
    assert!(matches!(driver.out[..], [Action::Ping]));
    driver.out.clear();
    driver.now = 22_000;
    driver.connection.on_pong(22_000, &mut driver.out);
    driver.until(42_000);
    assert!(matches!(driver.out[..], [Action::Ping]));
    driver.until(52_000);
    assert_eq!(driver.closed().map(|close| close.cause), Some(Cause::PingTimeout));
    assert_eq!(json().until(6_000).closed().map(|close| close.cause), Some(Cause::ConnectTimeout));
}

#[test]
fn a_drain_tells_when_to_come_back() {
    let mut driver = in_room();
    driver.connection.before_close(Cause::Drain, &mut driver.out);
    assert!(driver.texts()[0].starts_with(r#"{"reconnect":{"afterMs":"#));
}

#[test]
fn who_is_turned_away_comes_back_later_than_who_is_sent_away_and_each_at_another_time() {
    let told = |cause| {
        let mut driver = in_room();
        (0..200).for_each(|_| driver.connection.before_close(cause, &mut driver.out));
        let ms = |text: &String| text.split(|c: char| !c.is_ascii_digit()).find_map(|word| word.parse::<u32>().ok());
        let all: Vec<u32> = driver.texts().iter().filter_map(ms).collect();
        assert_eq!(all.len(), 200);
        (*all.iter().min().expect("some"), *all.iter().max().expect("some"))
    };
    let ((drained, last), (refused, latest)) = (told(Cause::Drain), told(Cause::Unavailable));
    assert!((100..500).contains(&drained) && (2_000..3_000).contains(&last), "{drained} to {last}");
    assert!((500..1_000).contains(&refused) && (4_000..5_000).contains(&latest), "{refused} to {latest}");
}

#[test]
fn overload_and_refusal_have_their_close_codes() {
    for (code, close) in [(Code::Unavailable, 4503), (Code::Unauthenticated, 4401)] {
        let mut driver = json();
        let id = driver.text(r#"{"hello":{}}"#).asked().id;
        driver.reply(id, Reply::Failed { code, message: "no".into() });
        assert_eq!(driver.closed().and_then(|c| c.code), Some(close));
    }
}

#[test]
fn a_session_that_was_asked_for_may_take_longer_than_a_client_that_says_nothing() {
    let mut driver = json();
    driver.until(5_999);
    let asked = driver.text(r#"{"hello":{}}"#).asked();
    driver.until(20_900);
    assert!(!driver.is_closed(), "fifteen seconds from the hello on");
    driver.until(21_000);
    assert_eq!(driver.closed().map(|close| (close.code, close.cause)), Some((Some(4503), Cause::Unavailable)));
    assert!(driver.texts()[0].starts_with(r#"{"reconnect":{"afterMs":"#), "it is told when to come back");
    let mut driver = json();
    let id = driver.text(r#"{"hello":{}}"#).asked().id;
    driver.until(10_000).reply(id, opened(&asked, None));
    driver.until(20_000);
    assert!(!driver.is_closed(), "open in time");
    let mut driver = json();
    driver.until(6_000);
    assert_eq!(driver.closed().map(|close| (close.code, close.cause)), Some((Some(1008), Cause::ConnectTimeout)));
}

proptest! {
    #[test]
    fn any_messages_leave_the_connection_sound(messages in proptest::collection::vec(
        prop_oneof![
            "\\{\"id\":[0-9]{1,3},\"(hello|join|leave|publish|typing|who|history|setUsername)\":\\{(\"room\":\"[ab]\")?\\}\\}",
            "[{}\":a-z0-9,]{0,30}",
        ], 0..30)) {
        let mut driver = in_room();
        for message in &messages {
            driver.text(message);
        }
        prop_assert!(!driver.is_closed());
        let requests = driver.out.iter().filter(|a| matches!(a, Action::Request { .. })).count();
        prop_assert!(requests <= messages.len());
    }

    #[test]
    fn any_bytes_leave_a_protobuf_connection_sound(messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..16)) {
        let mut driver = Driver::open(PlazaConnection::new(settings(), false));
        for message in &messages {
            driver.binary(message);
        }
        let closes = driver.out.iter().filter(|a| matches!(a, Action::Close(_))).count();
        prop_assert!(closes <= 1);
    }
}
