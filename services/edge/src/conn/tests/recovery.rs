//! Connection state recovery as the state machine of a connection sees it. What the hub and the stores
//! decide is tested with them.

use super::*;
use crate::bridge::{Control, Resume, SessionId, Variant};
use crate::conn::{Cause, Chat, PlazaConnection};
use plaza_proto::code::Code;

const PID: &str = "AAECAwQFBgcICQoLDA0O";

fn chat() -> Driver {
    let settings = Settings { message_rate: 0, ..Settings::default() };
    let chat = Chat::new(Arc::new(settings.clone()));
    Driver::socket_io(settings, chat)
}

fn identity() -> Arc<Identity> {
    let session = SessionId([3; 15]);
    Arc::new(Identity { session, user_id: None, variant: Variant::TextZh, locale: plaza_proto::code::Locale::Zh })
}

fn opened(resumed: bool, rooms: Vec<Joined>) -> Reply {
    let (identity, username) = (identity(), Some("小明".into()));
    let missed = Bytes::from_static(b"frames");
    Reply::Opened { identity, username, resumed, ticket: Some(PID.into()), rooms, missed }
}

/// A recovered connection in two rooms, its first actions not yet read.
fn recovered() -> Driver {
    let mut driver = chat();
    let asked = driver.text(&format!(r#"40{{"pid":"{PID}"}}"#)).asked();
    driver.reply(asked.id, opened(true, vec![joined("lobby", 1), joined("dev", 2)]));
    driver
}

#[test]
fn s01_with_recovery_the_reply_has_sid_and_pid_in_this_order() {
    let mut driver = chat();
    let asked = driver.text("40").asked();
    driver.reply(asked.id, opened(false, Vec::new()));
    let sid = identity().session;
    assert_eq!(driver.texts()[0], format!(r#"40{{"sid":"{sid}","pid":"{PID}"}}"#));
}

#[test]
fn r01_a_recovered_connection_has_its_old_sid_rooms_and_name_and_no_second_welcome() {
    let mut driver = recovered();
    let (sid, actions) = (identity().session, std::mem::take(&mut driver.out));
    let [
        Action::Recovered { reply: Packet::Text(reply), missed },
        Action::Enter { room: RoomId(1), .. },
        Action::Enter { room: RoomId(2), .. },
    ] = &actions[..]
    else {
        panic!("{actions:?}")
    };
    assert_eq!(*reply, format!(r#"40{{"sid":"{sid}","pid":"{PID}"}}"#));
    assert_eq!(&missed[..], b"frames");
    let asked = driver.text(r#"42["message","hi"]"#).asked();
    let Op::Publish { event, .. } = asked.op else { panic!("{:?}", asked.op) };
    assert_eq!((event.username.as_str(), asked.identity), ("小明", identity()));
}

#[test]
fn r04_a_client_without_an_offset_asks_with_its_pid_alone() {
    let asked = chat().text(&format!(r#"40{{"pid":"{PID}"}}"#)).asked();
    let Op::Open { resume: Some(Resume::Pid { pid, offset: None }), .. } = asked.op else { panic!("{:?}", asked.op) };
    assert_eq!(pid.to_string(), PID);
    let offset = position(7);
    let asked = chat().text(&format!(r#"40{{"pid":"{PID}","offset":"{offset}"}}"#)).asked();
    assert!(
        matches!(asked.op, Op::Open { resume: Some(Resume::Pid { offset: Some(seen), .. }), .. } if seen == offset)
    );
}

#[test]
fn r06_what_cannot_be_a_pid_or_an_offset_is_an_ordinary_connect() {
    for auth in [
        r#"{"pid":5}"#.to_owned(),
        r#"{"pid":null,"offset":null}"#.to_owned(),
        r#"{"pid":"short"}"#.to_owned(),
        format!(r#"{{"pid":"{PID}","offset":"typed text"}}"#),
        format!(r#"{{"pid":"{PID}","offset":{{"a":[1]}}}}"#),
        r#"{"offset":"only"}"#.to_owned(),
    ] {
        let mut driver = chat();
        let asked = driver.text(&format!("40{auth}")).asked();
        assert!(matches!(&asked.op, Op::Open { resume: None, room: Some(_) }), "{auth}: {:?}", asked.op);
        assert!(driver.out.is_empty(), "no error");
    }
}

#[test]
fn r06_a_session_that_does_not_continue_is_a_new_one_with_its_welcome() {
    let mut driver = chat();
    let asked = driver.text(&format!(r#"40{{"pid":"{PID}"}}"#)).asked();
    driver.reply(asked.id, opened(false, vec![joined("lobby", 1)]));
    let texts = driver.texts();
    assert!(texts[0].starts_with("40{") && texts[1].contains("您已进入聊天室"), "{texts:?}");
}

#[test]
fn r08_a_replaced_connection_is_closed_without_a_disconnect() {
    let mut driver = recovered();
    driver.out.clear();
    let other = Control::Replaced { to: KEY, session: SessionId([4; 15]) };
    driver.connection.on_control(&other, driver.now, &mut driver.out);
    assert!(driver.out.is_empty(), "another session's");
    let control = Control::Replaced { to: KEY, session: identity().session };
    driver.connection.on_control(&control, driver.now, &mut driver.out);
    assert_eq!(driver.closed().map(|close| (close.cause, close.code)), Some((Cause::Replaced, None)));
    assert!(driver.texts().is_empty(), "a DISCONNECT would keep the client from coming back");
}

#[test]
fn r12_only_an_end_for_good_is_not_recoverable() {
    for cause in Cause::ALL {
        let mut driver = recovered();
        driver.out.clear();
        driver.connection.on_close(cause, Vec::new(), &mut driver.out);
        let Op::Close { recoverable, .. } = driver.asked().op else { panic!("a close") };
        let lost = [Cause::Protocol, Cause::Kicked, Cause::Unauthenticated].contains(&cause);
        assert_eq!(recoverable, !lost, "{cause:?}");
    }
    let mut driver = recovered();
    driver.out.clear();
    driver.text("41");
    driver.out.retain(|action| !matches!(action, Action::Exit(_)));
    assert!(matches!(driver.asked().op, Op::Close { recoverable: false, .. }), "the client has left");
}

#[test]
fn r13_the_pid_does_not_replace_the_rest_of_auth() {
    let key = "AAAAAAAAAAAAAAAAAAAAAA";
    let asked = chat().text(&format!(r#"40{{"pid":"{PID}","guest":"{key}"}}"#)).asked();
    assert!(asked.identity.user_id().starts_with("g:"), "the user is told to the session service, which compares");
    let mut driver = chat();
    driver.text(&format!(r#"40{{"pid":"{PID}","guest":"bob"}}"#));
    assert!(driver.texts()[0].starts_with("44{"));
}

#[test]
fn a_connect_that_cannot_be_decided_now_closes_the_transport_so_that_the_client_tries_again() {
    let mut driver = chat();
    let asked = driver.text(&format!(r#"40{{"pid":"{PID}"}}"#)).asked();
    driver.reply(asked.id, Reply::Failed { code: Code::Unavailable, message: String::new() });
    assert!(driver.texts().is_empty());
    assert_eq!(driver.closed().map(|close| close.cause), Some(Cause::Unavailable));
}

#[test]
fn plazas_own_protocol_tells_the_session_that_continues() {
    let mut driver = Driver::open(PlazaConnection::new(Arc::new(Settings::default()), true));
    let asked = driver.text(r#"{"id":1,"hello":{"resume":"ticket"}}"#).asked();
    driver.reply(asked.id, opened(true, Vec::new()));
    let welcome = driver.texts().remove(0);
    let sid = identity().session;
    assert!(welcome.contains(&format!(r#""sessionId":"{sid}","userId":"s:{sid}""#)), "{welcome}");
    assert!(welcome.contains(r#""resumed":true"#) && welcome.contains(r#""username":"小明""#), "{welcome}");
    let control = Control::Replaced { to: KEY, session: sid };
    driver.connection.on_control(&control, driver.now, &mut driver.out);
    assert_eq!(driver.closed().map(|close| close.cause), Some(Cause::Replaced));
}
