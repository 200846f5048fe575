use super::*;
use crate::bridge::{HistoryFrom, Variant};
use crate::conn::{Cause, Chat};
use crate::wire::RoomEvent;
use crate::wire::plaza::client_event;
use plaza_proto::code::Code;
use plaza_proto::event::event::{Content, Kind};
use plaza_proto::event::{Data, Event};
use plaza_proto::view::EventView;
use proptest::prelude::*;

fn settings() -> Settings {
    Settings { message_rate: 0, open_publish: true, ..Settings::default() }
}

fn chat_with(settings: Settings) -> Driver {
    let chat = Chat::new(Arc::new(settings.clone()));
    Driver::socket_io(settings, chat)
}

fn opened(asked: &Asked, username: Option<&str>, joined: Option<Joined>) -> Reply {
    Reply::Opened {
        identity: asked.identity.clone(),
        username: username.map(Arc::from),
        resumed: false,
        ticket: None,
        rooms: joined.into_iter().collect(),
        missed: Bytes::new(),
    }
}

/// In the lobby, the welcome read.
fn in_lobby() -> Driver {
    in_lobby_with(settings(), "40")
}

fn in_lobby_with(settings: Settings, connect: &str) -> Driver {
    let mut driver = chat_with(settings);
    let asked = driver.text(connect).asked();
    driver.reply(asked.id, opened(&asked, None, Some(joined("lobby", 1))));
    driver.out.clear();
    driver
}

/// In the lobby with a name.
fn named() -> Driver {
    let mut driver = in_lobby();
    let asked = driver.text(r#"42["set_username","小明"]"#).asked();
    driver.reply(asked.id, Reply::Renamed { username: "小明".into(), ticket: None });
    driver.out.clear();
    driver
}

#[test]
fn a_client_starts_in_the_lobby_with_a_welcome() {
    let mut driver = chat_with(settings());
    let asked = driver.text("40").asked();
    assert!(matches!(&asked.op, Op::Open { room: Some(name), resume: None } if *name == room("lobby")));
    assert_eq!((asked.identity.variant, &asked.identity.user_id), (Variant::TextZh, &None));
    assert!(driver.out.is_empty(), "the session is stored before it is told");
    driver.reply(asked.id, opened(&asked, None, Some(joined("lobby", 1))));
    let sid = asked.identity.session.to_string();
    assert_eq!(driver.texts(), [format!(r#"40{{"sid":"{sid}"}}"#), r#"42["message","您已进入聊天室!",null]"#.into()]);
    assert!(matches!(driver.out[..], [Action::Enter { room: RoomId(1), variant: Variant::TextZh }]));
}

#[test]
fn auth_names_room_language_format_and_guest() {
    let open = |auth: &str| chat_with(settings()).text(&format!("40{auth}")).asked();
    let room_of = |auth: &str| match open(auth).op {
        Op::Open { room, .. } => room.map(|room| room.to_string()),
        other => panic!("{other:?}"),
    };
    assert_eq!(room_of("{}").as_deref(), Some("lobby"));
    assert_eq!(room_of(r#"{"room":"dev","foreign":[1]}"#).as_deref(), Some("dev"));
    assert_eq!(room_of(r#"{"room":null}"#), None);
    assert_eq!(open(r#"{"locale":"en"}"#).identity.variant, Variant::TextEn);
    assert_eq!(open(r#"{"locale":"en","format":"event"}"#).identity.variant, Variant::Event);
    let guest = open(r#"{"guest":"AAAAAAAAAAAAAAAAAAAAAA"}"#).identity.user_id();
    assert!(guest.starts_with("g:"), "{guest}");
}

#[test]
fn s04_a_bad_auth_is_refused_with_its_code() {
    for (auth, code) in
        [(r#"{"room":"a b"}"#, "bad_room"), (r#"{"guest":"bob"}"#, "bad_request"), (r#"{"room":5}"#, "bad_request")]
    {
        let mut driver = chat_with(settings());
        driver.text(&format!("40{auth}"));
        let texts = driver.texts();
        assert!(
            texts[0].starts_with(r#"44{"message":""#)
                && texts[0].ends_with(&format!(r#""data":{{"code":"{code}"}}}}"#)),
            "{texts:?}"
        );
        assert!(!driver.is_closed());
        assert!(driver.text("40").has_asked(), "it may try again");
    }
}

#[test]
fn an_overload_closes_the_transport_and_only_what_lasts_is_a_refusal() {
    let mut driver = chat_with(settings());
    let id = driver.text("40").asked().id;
    driver.reply(id, Reply::Failed { code: Code::Unavailable, message: String::new() });
    assert_eq!(driver.closed().map(|close| close.cause), Some(Cause::Unavailable));
    let mut driver = chat_with(settings());
    let id = driver.text("40").asked().id;
    driver.reply(id, Reply::Failed { code: Code::Unauthenticated, message: "no".into() });
    assert_eq!(driver.texts(), [r#"44{"message":"请重新登录","data":{"code":"unauthenticated"}}"#]);
}

#[test]
fn a_session_that_was_asked_for_may_take_longer_than_a_client_that_says_nothing() {
    let mut driver = chat_with(settings());
    driver.until(5_999);
    let asked = driver.text("40").asked();
    driver.until(20_900);
    assert!(!driver.is_closed(), "fifteen seconds from the CONNECT on");
    driver.until(21_000);
    assert_eq!(driver.closed().map(|close| close.cause), Some(Cause::Unavailable));
    let mut driver = chat_with(settings());
    let id = driver.text("40").asked().id;
    driver.until(10_000).reply(id, opened(&asked, None, Some(joined("lobby", 1))));
    driver.until(20_000);
    assert!(!driver.is_closed(), "open in time");
    let mut driver = chat_with(settings());
    driver.until(6_000);
    assert_eq!(driver.closed().map(|close| close.cause), Some(Cause::ConnectTimeout));
}

#[test]
fn a_name_is_confirmed_by_a_line_and_an_ack() {
    let mut driver = in_lobby();
    let asked = driver.text(r#"421["set_username","小明"]"#).asked();
    assert!(matches!(&asked.op, Op::SetUsername { username } if username == "小明"));
    driver.reply(asked.id, Reply::Renamed { username: "小明".into(), ticket: None });
    assert_eq!(
        driver.texts(),
        [r#"42["message","您的用户名已设置为:小明",null]"#, r#"431[{"ok":true,"username":"小明"}]"#]
    );
}

#[test]
fn a_message_without_a_name_is_told_in_a_line_or_in_the_ack() {
    let mut driver = in_lobby();
    driver.text(r#"42["message","hi"]"#).text(r#"427["message","hi"]"#);
    assert_eq!(
        driver.texts(),
        [
            r#"42["message","发送消息失败:请先设置用户名。",null]"#,
            r#"437[{"ok":false,"code":"username_required","message":"请先设置用户名"}]"#
        ]
    );
    assert!(!driver.has_asked());
}

#[test]
fn a_message_is_stored_and_acknowledged() {
    let mut driver = named();
    let asked = driver.text(r#"423["message","你好 <b>"]"#).asked();
    let Op::Publish { room: RoomId(1), event, retry: false, .. } = asked.op else { panic!("{:?}", asked.op) };
    assert_eq!((event.kind(), event.username.as_str()), (Kind::Text, "小明"));
    assert_eq!(event.content, Some(Content::Text("你好 <b>".into())));
    driver.reply(asked.id, published(4));
    let (id, position) = (MessageId([4; 16]), position(4));
    assert_eq!(
        driver.texts(),
        [format!(r#"433[{{"ok":true,"id":"{id}","position":"{position}","duplicate":false}}]"#)]
    );
    let asked = driver.text(r#"42["message",{"room":"lobby","text":"x","id":"m1","retry":true}]"#).asked();
    assert!(matches!(asked.op, Op::Publish { event, retry: true, .. } if event.client_id == "m1"));
}

#[test]
fn a_failed_message_without_ack_is_told_in_a_line() {
    let mut driver = named();
    let id = driver.text(r#"42["message","x"]"#).asked().id;
    driver.reply(id, Reply::Failed { code: Code::Unavailable, message: "down".into() });
    assert_eq!(driver.texts(), [r#"42["message","发送消息失败:服务暂时不可用,请稍后再试。",null]"#]);
}

#[test]
fn a_message_behind_a_name_on_its_way_waits_for_it() {
    let mut driver = in_lobby();
    let name = driver.text(r#"42["set_username","a"]"#).asked();
    driver.text(r#"42["message","one"]"#).text(r#"42["message","two"]"#);
    assert!(!driver.has_asked());
    driver.reply(name.id, Reply::Renamed { username: "a".into(), ticket: None });
    let first = driver.asked();
    assert!(matches!(&first.op, Op::Publish { event, .. } if event.username == "a"));
    assert!(!driver.has_asked(), "one of a room at a time");
    driver.reply(first.id, published(1));
    assert!(
        matches!(&driver.asked().op, Op::Publish { event, .. } if event.content == Some(Content::Text("two".into())))
    );
}

#[test]
fn a_burst_waits_its_turn_and_one_more_is_busy() {
    let mut driver = in_lobby_with(Settings { message_burst: 3, ..settings() }, "40");
    let name = driver.text(r#"42["set_username","a"]"#).asked();
    driver.reply(name.id, Reply::Renamed { username: "a".into(), ticket: None });
    driver.out.clear();
    // The first is on its way, eight wait: the least that may, however small the burst.
    for n in 10..19 {
        driver.text(&format!(r#"42{n}["message","{n}"]"#));
    }
    assert!(driver.texts().is_empty());
    driver.text(r#"4219["message","19"]"#);
    assert_eq!(driver.texts(), [r#"4319[{"ok":false,"code":"busy","message":"服务器繁忙,请稍后再试"}]"#]);
    for n in 10..19 {
        let asked = driver.asked();
        driver.reply(asked.id, published(n));
        assert!(driver.texts()[0].starts_with(&format!("43{n}[")));
    }
    assert!(!driver.has_asked());

    // What follows one that was refused does not overtake it.
    driver.now += 1_000;
    for n in 20..29 {
        driver.text(&format!(r#"42{n}["message",{{"text":"x","id":"m{n}"}}]"#));
    }
    let refused = |driver: &mut super::Driver, n: u64| {
        let texts = driver.text(&format!(r#"42{n}["message",{{"text":"x","id":"m{n}"}}]"#)).texts();
        texts.first().is_some_and(|text| text.contains("busy"))
    };
    assert!(refused(&mut driver, 29));
    for n in 20..29 {
        let asked = driver.asked();
        driver.reply(asked.id, published(n)).texts();
    }
    assert!(refused(&mut driver, 30), "29 comes first");
    assert!(!refused(&mut driver, 29) && !refused(&mut driver, 30) && !refused(&mut driver, 31));

    let mut burst = named();
    for n in 0..21 {
        burst.text(&format!(r#"42{n}["message","{n}"]"#));
    }
    assert!(burst.texts().is_empty(), "a burst that the rate allows finds room");
}

#[test]
fn rooms_are_joined_and_left() {
    let mut driver = named();
    let asked = driver.text(r#"421["join","dev"]"#).asked();
    assert!(matches!(&asked.op, Op::Join { username: Some(name), after: None, .. } if &**name == "小明"));
    driver.reply(asked.id, Reply::Joined(joined("dev", 2)));
    let answer =
        format!(r#"431[{{"ok":true,"room":"dev","position":"{}","members":3,"recovered":false}}]"#, position(10));
    assert_eq!(driver.texts(), std::slice::from_ref(&answer));
    assert!(matches!(driver.out[..], [Action::Enter { room: RoomId(2), .. }]));
    driver.out.clear();
    assert_eq!(driver.text(r#"421["join",{"room":"dev"}]"#).texts(), [answer], "joining again changes nothing");
    assert!(driver.out.is_empty());

    driver.text(r#"422["leave","dev"]"#);
    assert!(matches!(driver.out[..], [Action::Exit(RoomId(2)), Action::Request { .. }]));
    let asked = driver.asked();
    driver.reply(asked.id, Reply::Left);
    assert_eq!(driver.texts(), [r#"432[{"ok":true,"room":"dev"}]"#]);
    driver.text(r#"423["message",{"room":"dev","text":"x"}]"#);
    assert!(driver.texts()[0].contains(r#""code":"not_joined""#));
}

#[test]
fn replays_come_between_the_ack_and_the_live_events() {
    let mut driver = named();
    let asked = driver.text(&format!(r#"421["join",{{"room":"dev","after":"{}"}}]"#, position(3))).asked();
    assert!(matches!(&asked.op, Op::Join { after: Some(after), .. } if *after == position(3)));
    let missed = Joined { replay: vec!["frame".into()], recovered: true, ..joined("dev", 2) };
    driver.reply(asked.id, Reply::Joined(missed));
    assert!(
        matches!(driver.out[..], [Action::Send(_), Action::SendFrames(_), Action::Enter { .. }]),
        "{:?}",
        driver.out
    );
}

#[test]
fn data_needs_the_right_a_type_and_json() {
    let mut driver = in_lobby();
    let asked = driver.text(r#"42["publish",{"room":"lobby","type":"price","data":{"b":1.50}}]"#).asked();
    let Op::Publish { event, .. } = asked.op else { panic!("{:?}", asked.op) };
    let data = Data { r#type: "price".into(), json: r#"{"b":1.50}"#.into() };
    assert_eq!(event.content, Some(Content::Data(data)));
    for kind in ["message", "joined", "connect", "a b", ""] {
        driver.text(&format!(r#"421["publish",{{"room":"lobby","type":"{kind}","data":1}}]"#));
        assert!(driver.texts()[0].contains("bad_request"), "{kind}");
    }
    let mut closed = in_lobby_with(Settings { open_publish: false, ..settings() }, "40");
    closed.text(r#"421["publish",{"room":"lobby","type":"price","data":1}]"#);
    assert!(closed.texts()[0].contains("forbidden"));
}

#[test]
fn history_and_who_are_answered_in_acks() {
    let mut driver = named();
    let asked = driver.text(r#"421["history",{"room":"lobby","limit":2}]"#).asked();
    assert!(matches!(asked.op, Op::History { from: HistoryFrom::Newest, limit: 2, .. }));
    let id = MessageId([5; 16]);
    let event = Event {
        version: 1,
        kind: Kind::Text.into(),
        username: "b".into(),
        user_id: "g:b".into(),
        content: Some(Content::Text("old".into())),
        ..Event::default()
    };
    let event = RoomEvent { position: position(5), id, time: 77, event: EventView::from(&event) };
    let room = RoomName::parse("lobby").expect("a valid name");
    driver.reply(asked.id, Reply::History { events: vec![client_event(&room, &event, None)], more: true });
    assert_eq!(
        driver.texts(),
        [format!(
            r#"431[{{"ok":true,"room":"lobby","events":[{{"room":"lobby","position":"{}","kind":"text","username":"b","text":"old","at":77,"id":"{id}","userId":"g:b"}}],"more":true}}]"#,
            position(5)
        )]
    );
    let asked = driver.text(r#"422["who",{"room":"lobby"}]"#).asked();
    driver.reply(asked.id, Reply::Members { count: 1, members: vec![("小明".into(), "g:x".into())] });
    assert_eq!(driver.texts(), [r#"432[{"ok":true,"room":"lobby","count":1,"members":[{"username":"小明"}]}]"#]);
    driver.text(r#"423["history",{"room":"lobby","limit":101}]"#);
    assert!(driver.texts()[0].contains("bad_request"));
}

#[test]
fn typing_is_told_to_the_hub_without_a_reply() {
    let mut driver = named();
    let asked = driver.text(r#"42["typing",{"room":"lobby"}]"#).asked();
    assert_eq!(asked.id, 0);
    assert!(matches!(asked.op, Op::Typing { room: RoomId(1), .. }));
    assert!(driver.out.is_empty());
}

#[test]
fn sec8_the_rate_holds_for_each_session() {
    let mut driver = in_lobby_with(Settings { message_rate: 10, message_burst: 20, ..settings() }, "40");
    for _ in 0..20 {
        driver.text(r#"421["message","x"]"#);
    }
    assert!(driver.texts().iter().all(|text| text.contains("username_required")));
    assert!(driver.text(r#"421["message","x"]"#).texts()[0].contains("rate_limited"));
    driver.now += 100;
    assert!(driver.text(r#"421["message","x"]"#).texts()[0].contains("username_required"));
}

#[test]
fn text_of_4096_bytes_passes_and_one_more_does_not() {
    let mut driver = named();
    driver.text(&format!(r#"421["message","{}"]"#, "x".repeat(4_097)));
    assert!(driver.texts()[0].contains("too_large"));
    driver.text(&format!(r#"421["message","{}"]"#, "x".repeat(4_096)));
    assert!(driver.has_asked());
    driver.out.clear();
    driver.text(r#"421["message"," "]"#).text(r#"422["nonsense",1]"#).text(r#"423["message",5]"#);
    assert!(driver.texts().iter().skip(1).all(|text| text.contains("bad_request")));
}

#[test]
fn leaving_the_namespace_ends_the_session_and_a_new_one_may_begin() {
    let mut driver = named();
    let late = driver.text(r#"42["message","x"]"#).asked();
    driver.text("41");
    let asked = driver.asked();
    assert!(matches!(&asked.op, Op::Close { rooms, recoverable: false } if rooms == &[RoomId(1)]));
    assert!(matches!(driver.out[..], [Action::Exit(RoomId(1))]));
    driver.out.clear();
    let again = driver.text("40").asked();
    assert_ne!(again.identity.session, asked.identity.session);
    driver.reply(late.id, published(1));
    assert!(driver.out.is_empty(), "a reply to the old session is not the new one's");
    driver.reply(again.id, opened(&again, None, None));
    assert_eq!(driver.texts().len(), 2);
}

#[test]
fn the_end_of_a_connection_closes_its_session() {
    let mut driver = named();
    driver.connection.on_close(Cause::Transport, vec![RoomId(1)], &mut driver.out);
    assert!(matches!(driver.asked().op, Op::Close { recoverable: true, .. }));
}

#[test]
fn events_instead_of_lines_get_notices() {
    let mut driver = chat_with(settings());
    let asked = driver.text(r#"40{"format":"event","locale":"en"}"#).asked();
    driver.reply(asked.id, opened(&asked, Some("a"), None));
    assert_eq!(driver.texts()[1], r#"42["notice",{"text":"You have entered the chat room!"}]"#);
    driver.text(r#"421["message","x"]"#);
    assert_eq!(driver.texts(), [r#"431[{"ok":false,"code":"not_joined","message":"you are not in this room"}]"#]);
}

/// What a client and a hub may do to a connection.
#[derive(Clone, Debug)]
enum Step {
    Event(String),
    Answer { which: usize, good: bool },
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let event = prop_oneof![
        "\\[\"set_username\",\"[a-c]\"\\]",
        "\\[\"message\",\"[a-z]{0,3}\"\\]",
        "\\[\"message\",\\{\"room\":\"[ab]\",\"text\":\"x\"\\}\\]",
        "\\[\"join\",\"[ab]\"\\]",
        "\\[\"leave\",\"[ab]\"\\]",
        "\\[\"who\",\"[ab]\"\\]",
        "\\[\"history\",\\{\"room\":\"[ab]\"\\}\\]",
        "\\[\"typing\",\\{\"room\":\"[ab]\"\\}\\]",
        "\\[\"[a-z]{0,9}\",[0-9]\\]",
    ];
    let step = prop_oneof![
        5 => event.prop_map(Step::Event),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(which, good)| Step::Answer { which, good }),
        1 => (0u64..500).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..120)
}

fn good_reply(op: &Op) -> Reply {
    match op {
        Op::SetUsername { username } => Reply::Renamed { username: username.as_str().into(), ticket: None },
        Op::Join { room, .. } => Reply::Joined(joined(room.as_str(), u32::from(room.as_str().as_bytes()[0]))),
        Op::Leave { .. } => Reply::Left,
        Op::Publish { .. } => published(1),
        Op::History { .. } => Reply::History { events: vec![], more: false },
        Op::Who { .. } => Reply::Members { count: 0, members: vec![] },
        other => panic!("no reply is due to {other:?}"),
    }
}

proptest! {
    #[test]
    fn every_wish_is_answered_once_and_rooms_have_one_publish_in_flight(steps in steps()) {
        let mut driver = in_lobby();
        let (mut asked, mut wishes): (Vec<Asked>, u64) = (Vec::new(), 0);
        let mut answered = std::collections::HashMap::new();
        let mut finish = false;
        let mut steps = steps.into_iter();
        loop {
            match steps.next() {
                Some(Step::Event(event)) => {
                    driver.text(&format!("42{wishes}{event}"));
                    wishes += 1;
                }
                Some(Step::Answer { which, good }) if !asked.is_empty() => {
                    let Asked { id, op, .. } = asked.swap_remove(which % asked.len());
                    let failed = Reply::Failed { code: Code::Busy, message: "x".into() };
                    driver.reply(id, if good { good_reply(&op) } else { failed });
                }
                Some(Step::Answer { .. }) => {}
                Some(Step::Wait(time)) => driver.now += time,
                None if asked.is_empty() => finish = true,
                None => {
                    let Asked { id, op, .. } = asked.remove(0);
                    driver.reply(id, good_reply(&op));
                }
            }
            while driver.has_asked() {
                let request = driver.asked();
                if request.id != 0 {
                    asked.push(request);
                }
            }
            let mut publishing: Vec<_> = asked.iter().filter_map(|a| match &a.op { Op::Publish { room, .. } => Some(*room), _ => None }).collect();
            let count = publishing.len();
            publishing.sort();
            publishing.dedup();
            prop_assert_eq!(count, publishing.len(), "one publish in flight in each room");
            prop_assert!(asked.len() <= crate::conn::member::MAX_IN_FLIGHT);
            for text in driver.texts().iter().filter(|text| text.starts_with("43")) {
                let id: u64 = text[2..].split('[').next().expect("an id").parse().expect("a number");
                *answered.entry(id).or_insert(0) += 1;
            }
            if finish { break; }
        }
        prop_assert!(!driver.is_closed());
        prop_assert_eq!(answered.len() as u64, wishes, "every wish with an id is answered");
        prop_assert!(answered.values().all(|times| *times == 1));
    }
}
