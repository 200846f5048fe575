use super::*;
use crate::conn::{Application, Cause};

/// Sends back what comes.
struct Echo;

impl Application for Echo {
    fn on_open(&mut self, _key: ConnKey, _now: Millis, _out: &mut Vec<Action>) {}

    fn on_text(&mut self, message: &str, _now: Millis, out: &mut Vec<Action>) {
        out.push(Action::Send(Packet::Text(format!("4{message}").into())));
    }

    fn on_binary(&mut self, message: &[u8], _now: Millis, out: &mut Vec<Action>) {
        out.push(Action::Send(Packet::Binary(message.to_vec().into())));
    }
}

fn echo() -> Driver {
    let settings = Settings { ping_interval_ms: 300, ping_timeout_ms: 200, ..Settings::default() };
    let mut driver = Driver::open(EngineIo::new(Arc::new(settings), true, Echo));
    driver.texts();
    driver
}

#[test]
fn e16_pings_follow_the_open_and_then_each_pong() {
    let mut driver = echo();
    assert_eq!(driver.connection.deadline(), Some(1_300));
    assert_eq!(driver.until(1_299).texts(), [""; 0]);
    assert_eq!(driver.until(1_300).texts(), ["2"]);
    driver.until(1_450).text("3");
    assert_eq!(driver.connection.deadline(), Some(1_750));
    assert_eq!(driver.until(1_750).texts(), ["2"]);
}

#[test]
fn e17_a_missing_pong_ends_it_at_interval_and_timeout_after_the_open() {
    let mut driver = echo();
    driver.until(1_499);
    assert!(!driver.is_closed());
    driver.until(1_500);
    assert_eq!(driver.closed().map(|close| close.cause), Some(Cause::PingTimeout));
    assert_eq!(driver.connection.deadline(), None);
}

#[test]
fn e17_a_late_wake_up_does_not_shift_the_end() {
    let mut driver = echo();
    driver.connection.on_deadline(1_340, &mut driver.out);
    assert_eq!(driver.connection.deadline(), Some(1_500));
}

#[test]
fn e18_other_traffic_neither_delays_nor_replaces_pings() {
    let mut driver = echo();
    for now in 1_001..1_300 {
        driver.now = now;
        driver.text("4x");
    }
    driver.texts();
    assert_eq!(driver.until(1_300).texts(), ["2"]);
    for now in 1_301..1_500 {
        driver.now = now;
        driver.text("4x");
    }
    assert!(driver.until(1_500).is_closed(), "messages are no pong");
}

#[test]
fn e19_a_ping_of_the_client_closes() {
    for ping in ["2", "2probe"] {
        assert_eq!(echo().text(ping).closed().map(|close| close.cause), Some(Cause::Protocol), "{ping}");
    }
}

#[test]
fn e20_close_empty_and_unknown_packets_close() {
    for (text, cause) in [("1", Cause::Client), ("", Cause::Protocol), ("7", Cause::Protocol), ("x", Cause::Protocol)] {
        assert_eq!(echo().text(text).closed().map(|close| close.cause), Some(cause), "{text}");
    }
}

#[test]
fn e21_open_upgrade_noop_and_all_after_a_close_are_ignored() {
    let mut driver = echo();
    driver.text("0{}").text("5").text("6").text("3");
    assert!(driver.out.is_empty());
    driver.text("1").text("4x").binary(b"x").text("1").until(5_000);
    assert_eq!(driver.out.len(), 1);
}

#[test]
fn messages_are_echoed_by_kind() {
    let mut driver = echo();
    driver.text("4你好").binary(&[0, 255]);
    assert_eq!(driver.texts(), ["4你好"]);
    assert!(matches!(&driver.out[..], [Action::Send(Packet::Binary(bytes))] if bytes.as_ref() == [0, 255]));
}
