use super::*;
use crate::conn::{Admission, Cause};
use crate::wire::socketio::{self as wire, Arguments};
use bytes::Bytes;
use proptest::prelude::*;

/// Accepts `/`, `/custom` and, after asking the hub, `/slow`; answers every event with an ACK or itself.
struct Plain;

impl Handler for Plain {
    fn has_namespace(&self, namespace: &str) -> bool {
        matches!(namespace, "/" | "/custom" | "/slow" | "/never")
    }

    fn on_connect(&mut self, namespace: &str, auth: Option<&str>, _now: Millis, out: &mut Vec<Action>) -> Admission {
        match namespace {
            "/slow" => return Admission::Pending,
            "/never" => {
                send(wire::connect_error(namespace, "no", None), out);
                return Admission::Refused;
            }
            _ => {}
        }
        send(wire::connect(namespace, "sid", None), out);
        send(wire::event(namespace, "auth", auth.unwrap_or("{}"), 0), out);
        Admission::Joined
    }

    fn on_event(
        &mut self,
        namespace: &str,
        id: Option<u64>,
        event: &Arguments<'_>,
        attachments: Vec<Bytes>,
        _now: Millis,
        out: &mut Vec<Action>,
    ) {
        send(
            match id {
                Some(id) => wire::ack(namespace, id, event.all, attachments.len()),
                None => wire::event(namespace, &event.name, event.all, attachments.len()),
            },
            out,
        );
        out.extend(attachments.into_iter().map(|bytes| Action::Send(Packet::Binary(bytes))));
    }

    fn on_disconnect(&mut self, _namespace: &str, _out: &mut Vec<Action>) {}

    fn on_reply(&mut self, _id: u32, _reply: Reply, _now: Millis, out: &mut Vec<Action>) -> Option<Admission> {
        send(wire::connect("/slow", "sid", None), out);
        Some(Admission::Joined)
    }
}

fn send(packet: Vec<u8>, out: &mut Vec<Action>) {
    out.push(Action::Send(Packet::Text(packet.into())));
}

fn plain() -> Driver {
    Driver::socket_io(Settings { connect_timeout_ms: 1_000, ..Settings::default() }, Plain)
}

fn connected() -> Driver {
    let mut driver = plain();
    driver.text("40");
    driver.texts();
    driver
}

#[test]
fn s02_and_s03_namespaces_are_joined_or_unknown() {
    let mut driver = plain();
    driver.text("40").text(r#"40/custom,{"token":"123"}"#).text("40/nope,");
    assert_eq!(
        driver.texts(),
        [
            r#"40{"sid":"sid"}"#,
            r#"42["auth",{}]"#,
            r#"40/custom,{"sid":"sid"}"#,
            r#"42/custom,["auth",{"token":"123"}]"#,
            r#"44/nope,{"message":"Invalid namespace"}"#
        ]
    );
    assert!(!driver.is_closed());
}

#[test]
fn s05_joining_nothing_in_time_closes_also_after_a_refusal() {
    for first in [None, Some("40/nope"), Some("40/never")] {
        let mut driver = plain();
        first.map(|first| driver.text(first));
        driver.until(1_999);
        assert!(!driver.is_closed(), "{first:?}");
        driver.until(2_000);
        assert_eq!(driver.closed().map(|close| close.cause), Some(Cause::ConnectTimeout), "{first:?}");
    }
    assert!(!connected().until(3_000).is_closed());
    // Whoever is asked has longer, and the client is not to blame.
    let mut slow = plain();
    slow.text("40/slow").until(15_999);
    assert!(!slow.is_closed());
    assert_eq!(slow.until(16_000).closed().map(|close| close.cause), Some(Cause::Unavailable));
    let mut slow = plain();
    slow.text("40/slow").reply(1, Reply::Left).until(3_000);
    assert!(!slow.is_closed());
}

#[test]
fn s06_packets_out_of_turn_close() {
    for packet in [r#"42["x"]"#, "41", "431[]", "44{}"] {
        assert!(plain().text(packet).is_closed(), "first packet {packet}");
    }
    for packet in ["40", r#"42/custom,["x"]"#, "41/custom", r#"44{"message":"x"}"#, r#"42/slow,["x"]"#] {
        assert!(connected().text(packet).is_closed(), "{packet}");
    }
    let mut slow = plain();
    assert!(slow.text("40/slow").text("40/slow").is_closed(), "a second CONNECT while the first waits");
}

#[test]
fn s09_leaving_a_namespace_is_silent_and_leaves_the_others() {
    let mut driver = connected();
    driver.text("40/custom");
    driver.texts();
    driver.text("41/custom,").text(r#"42["still"]"#);
    assert_eq!(driver.texts(), [r#"42["still"]"#]);
    driver.text("41");
    assert!(driver.out.is_empty());
    assert_eq!(driver.until(21_000).texts(), ["2"]);
    driver.text("3").text("40");
    assert_eq!(driver.texts().len(), 2, "it may join again");
}

#[test]
fn s10_and_s11_acks_carry_their_id_and_foreign_acks_are_ignored() {
    let mut driver = connected();
    driver.text(r#"4217["ask",1,"x",{"k":[false]}]"#).text(r#"439["unknown"]"#).text("43[]");
    assert_eq!(driver.texts(), [r#"4317[1,"x",{"k":[false]}]"#]);
    assert!(driver.out.is_empty());
}

#[test]
fn s12_and_s13_attachments_come_and_go_in_order_behind_their_header() {
    let mut driver = connected();
    let places = r#"{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}"#;
    driver.text(&format!(r#"452-17["m",{places}]"#)).binary(&[1]);
    assert!(driver.out.is_empty(), "not complete");
    driver.text("3").binary(&[2, 3]);
    let sent: Vec<_> = driver.out.iter().map(|action| format!("{action:?}")).collect();
    assert_eq!(sent.len(), 3);
    assert!(sent[0].contains("462-17["), "{sent:?}");
    assert!(sent[1].contains(r"\x01") && sent[2].contains(r"\x02\x03"), "{sent:?}");
}

#[test]
fn s14_attachments_out_of_turn_or_too_late_close() {
    assert!(connected().binary(&[1]).is_closed(), "none is due");
    let header = r#"451-["m",{"_placeholder":true,"num":0}]"#;
    assert!(connected().text(header).text(r#"42["x"]"#).is_closed(), "a text while one is due");
    let mut late = connected();
    late.text(header).until(10_999);
    assert!(!late.is_closed());
    assert!(late.until(11_000).is_closed());
    let mut large = connected();
    large.text(header).binary(&vec![0; 65_537]);
    assert_eq!(large.closed().map(|close| close.cause), Some(Cause::Limit));
    assert_eq!(connected().text(r#"450-["m",1]"#).texts(), [r#"42["m",1]"#]);
}

/// One step of a client that may send anything.
#[derive(Clone, Debug)]
enum Step {
    Text(String),
    Binary(Vec<u8>),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let packet = prop_oneof![
        Just("40".to_owned()),
        Just("41".to_owned()),
        Just("40/custom,".to_owned()),
        Just("40/slow".to_owned()),
        Just(r#"42["a",1]"#.to_owned()),
        Just(r#"429["a",{"b":[]}]"#.to_owned()),
        Just(r#"451-["a",{"_placeholder":true,"num":0}]"#.to_owned()),
        Just("3".to_owned()),
        "[0-7][0-6]?[0-9]{0,2}-?(/[a-z]{1,6},)?[\\[\\]{}\",:0-9a]{0,12}",
    ];
    let step = prop_oneof![
        8 => packet.prop_map(Step::Text),
        2 => proptest::collection::vec(any::<u8>(), 0..4).prop_map(Step::Binary),
        2 => (0u64..15_000).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..40)
}

proptest! {
    #[test]
    fn any_client_gets_each_ack_once_and_nothing_after_a_close(steps in steps()) {
        let mut driver = plain();
        let mut wanted = 0;
        for step in steps {
            match step {
                Step::Text(text) => {
                    wanted += usize::from(text.starts_with("429"));
                    driver.text(&text);
                }
                Step::Binary(bytes) => { driver.binary(&bytes); }
                Step::Wait(time) => { let now = driver.now + time; driver.until(now); }
            }
        }
        let closes = driver.out.iter().filter(|a| matches!(a, Action::Close(_))).count();
        prop_assert!(closes <= 1);
        prop_assert!(closes == 0 || matches!(driver.out.last(), Some(Action::Close(_))));
        let acks = driver.texts().iter().filter(|text| text.starts_with("439[")).count();
        prop_assert!(acks <= wanted);
    }
}
