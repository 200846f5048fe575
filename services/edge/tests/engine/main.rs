//! The engine behind real sockets: what arrives, in which order, and how connections end.

mod harness;

use harness::{Client, Server, masked, until};
use plaza_edge::bridge::{ConnKey, Control, Op, RoomId};
use plaza_edge::conn::Cause;
use plaza_edge::engine::{Settings, SocketOptions};
use plaza_edge::wire::websocket::{CodeLabel, Opcode};
use plaza_kit::trace::Span;
use std::net::Shutdown;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

#[test]
fn w02_frames_behind_the_handshake_are_not_lost() {
    let server = Server::start();
    let mut client = Client::connect_with(server.address, "", &masked(0x81, b"early"));
    assert_eq!(client.next_text(), "early");
}

#[test]
fn messages_of_any_size_and_cut_come_back() {
    let server = Server::start();
    let mut client = server.client("");
    for length in [0, 1, 125, 126, 60_000] {
        let text = "y".repeat(length);
        for piece in masked(0x81, text.as_bytes()).chunks(7_001) {
            client.raw(piece);
        }
        assert_eq!(client.next_text(), text);
    }
    for byte in masked(0x82, b"one by one") {
        client.raw(&[byte]);
    }
    assert_eq!(client.next(), Some((Opcode::Binary, b"one by one".to_vec())));
}

#[test]
fn every_member_gets_every_event_once_and_in_order() {
    let server = Server::start();
    let mut members: Vec<_> = (0..300).map(|_| server.client("1")).collect();
    let mut outsider = server.client("2");
    for seq in 1..=50 {
        server.deliver(1, seq, &format!("event {seq}"));
    }
    server.deliver(2, 51, "elsewhere");
    for member in &mut members {
        for seq in 1..=50 {
            assert_eq!(member.next_text(), format!("event {seq}"));
        }
    }
    assert_eq!(outsider.next_text(), "elsewhere");
}

#[test]
fn r03_events_of_several_rooms_leave_in_the_order_of_the_stream() {
    let server = Server::start();
    let mut both = server.client("1,2");
    let mut one = server.client("1");
    for seq in 1..=400 {
        server.deliver(if seq % 3 == 0 { 2 } else { 1 }, seq, &seq.to_string());
    }
    for seq in 1..=400u64 {
        assert_eq!(both.next_text(), seq.to_string());
        if seq % 3 != 0 {
            assert_eq!(one.next_text(), seq.to_string());
        }
    }
}

#[test]
fn who_leaves_gets_what_came_before_and_nothing_after() {
    let server = Server::start();
    let mut client = server.client("1");
    let mut other = server.client("1");
    server.deliver(1, 1, "before");
    assert_eq!(client.next_text(), "before");
    client.text("leave 1");
    assert_eq!(client.next_text(), "leave 1");
    server.deliver(1, 2, "after");
    assert_eq!((other.next_text(), other.next_text()), ("before".into(), "after".into()));
    client.text("join 1");
    assert_eq!(client.next_text(), "join 1");
    server.deliver(1, 3, "again");
    assert_eq!(client.next_text(), "again");
}

#[test]
fn a_skipped_member_misses_only_that_event() {
    let server = Server::start();
    let mut members: Vec<_> = (0..3).map(|_| server.client("1")).collect();
    members[1].text("key");
    let key = members[1].next_text();
    assert_eq!(members[1].next_text(), "key");
    let numbers: Vec<u32> = key.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    let key = ConnKey { shard: 0, slot: numbers[0], generation: numbers[1] };
    server.deliver(1, 1, "one");
    server.deliver_but(1, 0, "typing", Some(key));
    server.deliver(1, 2, "two");
    for (number, member) in members.iter_mut().enumerate() {
        assert_eq!(member.next_text(), "one");
        if number != 1 {
            assert_eq!(member.next_text(), "typing");
        }
        assert_eq!(member.next_text(), "two");
    }
}

#[test]
fn a_slow_member_catches_up_without_loss_and_its_neighbour_waits_for_nothing() {
    let server = lenient();
    let mut slow = server.client("1,2");
    let mut slower = server.client("1");
    let mut quick = server.client("1");
    let text = |seq: u64| format!("{seq} {}", "z".repeat(3_000));
    for seq in 1..=4_000 {
        server.deliver(1, seq, &text(seq));
    }
    for seq in 1..=4_000 {
        assert_eq!(quick.next_text(), text(seq));
    }
    for client in [&mut slow, &mut slower] {
        for seq in 1..=4_000 {
            assert_eq!(client.next_text(), text(seq));
        }
    }
    server.deliver(1, 4_001, "the last");
    assert_eq!((slow.next_text(), slower.next_text()), ("the last".into(), "the last".into()));
}

/// It lets members lag far behind.
fn lenient() -> Server {
    let settings = Settings { max_lag_bytes: 64 << 20, max_lag_messages: 1 << 20, ..Settings::default() };
    Server::with(settings, SocketOptions::default())
}

/// A sampled event for a room, and what is there as long as its span is not over.
fn traced(server: &Server, seq: u64, text: &str) -> Weak<Span> {
    let span = Arc::new(Span::untold());
    let held = Arc::downgrade(&span);
    server.deliver_traced(1, seq, text, None, Some(span));
    held
}

fn is_over(span: &Weak<Span>) -> bool {
    span.strong_count() == 0
}

/// Waits, without anything that would move the shard, until the span is over.
fn ends(span: &Weak<Span>) {
    let begin = Instant::now();
    while !is_over(span) {
        assert!(begin.elapsed() < Duration::from_secs(10), "the span does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_span_of_an_event_ends_with_the_last_write_to_a_socket() {
    let server = lenient();
    let mut late = server.client("1,2");
    let mut later = server.client("1");
    let mut quick = server.client("1");
    let first = traced(&server, 1, "at once");
    for client in [&mut late, &mut later, &mut quick] {
        assert_eq!(client.next_text(), "at once");
    }
    ends(&first);

    // Two sockets take no more; what comes then is written to the third one, and waits for the others.
    let text = |seq: u64| format!("{seq} {}", "z".repeat(6_000));
    for seq in 2..=4_000 {
        server.deliver(1, seq, &text(seq));
    }
    let span = traced(&server, 4_001, "late");
    (2..=4_000).for_each(|seq| assert_eq!(quick.next_text(), text(seq)));
    assert_eq!(quick.next_text(), "late");
    // Rounds of the same room and of another one end meanwhile.
    server.deliver(1, 4_002, "behind it");
    assert_eq!(quick.next_text(), "behind it");
    let mut other = server.client("3");
    server.deliver(3, 1, "elsewhere");
    assert_eq!(other.next_text(), "elsewhere");
    for client in [&mut late, &mut later] {
        assert!(!is_over(&span), "it was not written to all");
        (2..=4_000).for_each(|seq| assert_eq!(client.next_text(), text(seq)));
        assert_eq!(client.next_text(), "late");
    }
    ends(&span);
}

#[test]
fn the_span_of_an_event_ends_with_the_member_that_did_not_read_it() {
    let server = lenient();
    let (deaf, mut quick) = (server.client("1"), server.client("1"));
    for seq in 1..=4_000 {
        server.deliver(1, seq, &"z".repeat(6_000));
    }
    let span = traced(&server, 4_001, "late");
    while quick.next_text() != "late" {}
    assert!(!is_over(&span), "one socket is full");
    drop(deaf);
    ends(&span);
}

#[test]
fn the_lag_of_a_room_is_the_age_of_what_its_slowest_member_has_not_got() {
    let server = lenient();
    let (mut late, mut quick) = (server.client("1"), server.client("1"));
    let lag = || {
        let stats = server.shard.stats();
        (stats.log_lag_us.load(Relaxed), stats.log_lag_events.load(Relaxed))
    };
    let text = |seq: u64| format!("{seq} {}", "z".repeat(6_000));
    (1..=4_000).for_each(|seq| server.deliver(1, seq, &text(seq)));
    (1..=4_000).for_each(|seq| assert_eq!(quick.next_text(), text(seq)));
    // From here on nothing happens, and the lag grows by the clock alone.
    until("one is behind", || lag().1 > 0);
    let (us, events) = lag();
    until("it falls behind", || lag().0 >= us + 1_000_000);
    assert!((1..=events).contains(&lag().1), "nothing new has come: {events}, then {}", lag().1);
    (1..=4_000).for_each(|seq| assert_eq!(late.next_text(), text(seq)));
    until("nobody is behind", || lag() == (0, 0));
}

#[test]
fn closes_are_counted_by_the_code_of_the_close_frame() {
    let server = Server::start();
    let mut told = server.client("1");
    told.text("bye 1008");
    assert_eq!(told.close_code(), Some(1008));
    for payload in [&[][..], &1000_u16.to_be_bytes(), &3999_u16.to_be_bytes(), &4000_u16.to_be_bytes()] {
        let mut client = server.client("1");
        client.raw(&masked(0x88, payload));
        assert_eq!(client.close_code(), payload.first_chunk().map(|code| u16::from_be_bytes(*code)));
    }
    let mut wrong = server.client("1");
    wrong.raw(&masked(0x88, &1006_u16.to_be_bytes()));
    assert_eq!(wrong.close_code(), Some(1002), "that code is never sent");
    drop(server.client("1"));
    let count = |code: &str| {
        let place = CodeLabel::ALL.iter().position(|label| *label == code).expect("a label");
        server.shard.stats().codes()[place]
    };
    until("the last one is gone", || count("none") == 1);
    for code in ["1008", "1005", "1000", "3xxx", "4xxx", "1002"] {
        assert_eq!(count(code), 1, "{code}");
    }
    assert_eq!(server.shard.stats().codes().iter().sum::<u64>(), 7);
}

#[test]
fn row_13_a_member_that_does_not_read_is_closed_at_a_frame_border() {
    let server = Server::start();
    let mut slow = server.client("1");
    let mut quick = server.client("1");
    let mut seq = 0;
    while server.closed(Cause::Slow) == 0 {
        seq += 1;
        server.deliver(1, seq, &"z".repeat(10_000));
        assert!(quick.next_text().starts_with('z'));
        assert!(seq < 5_000, "the kernel takes no more than this");
    }
    // Whole frames arrive up to the cut, the connection's last word when there is room for it, and then the
    // stream ends.
    while let Some((opcode, payload)) = slow.next() {
        let is_whole = payload.len() == 10_000 || payload == b"before slow";
        assert!(opcode == Opcode::Close || is_whole, "{opcode:?} {}", payload.len());
    }
    until("one connection is left", || server.connections() == 1);
}

#[test]
fn a_member_that_is_behind_skips_volatile_events_and_loses_no_other() {
    let server = Server::start();
    let mut slow = server.client("1");
    let mut quick = server.client("1");
    // Fill the kernel's buffers. The counter follows a moment later, so the events are small: dozens more
    // stay within the bound of bytes behind.
    let mut seq = 0;
    let text = "z".repeat(4_000);
    while server.shard.stats().log_bytes.load(std::sync::atomic::Ordering::Relaxed) == 0 {
        seq += 1;
        server.deliver(1, seq, &text);
        assert_eq!(quick.next_text(), text);
        quick.text("turn");
        assert_eq!(quick.next_text(), "turn");
        assert!(seq < 20_000, "the kernel takes no more than this");
    }
    for number in 0..2_000 {
        server.deliver(1, 0, &format!("typing {number}"));
    }
    for number in 0..2_000 {
        assert_eq!(quick.next_text(), format!("typing {number}"));
    }
    server.deliver(1, seq + 1, "the last");
    assert_eq!(quick.next_text(), "the last");
    let mut got = 0;
    loop {
        match slow.next_text() {
            last if last == "the last" => break,
            event => got += u64::from(event == text),
        }
    }
    assert_eq!((got, server.closed(Cause::Slow)), (seq, 0));
}

#[test]
fn i09_what_one_connection_alone_may_leave_unread_is_bounded() {
    let server = Server::start();
    let mut client = server.client("");
    for _ in 0..300 {
        client.text("many 100");
    }
    until("closed as slow", || server.closed(Cause::Slow) == 1);
}

#[test]
fn w07_a_ping_is_answered_inside_a_fragmented_message() {
    let server = Server::start();
    let mut client = server.client("");
    client.raw(&masked(0x01, b"be"));
    client.raw(&masked(0x89, b"payload"));
    assert_eq!(client.next(), Some((Opcode::Pong, b"payload".to_vec())));
    client.raw(&masked(0x80, b"gun"));
    assert_eq!(client.next_text(), "begun");
}

#[test]
fn w13_a_close_is_answered_once_with_the_same_code() {
    let server = Server::start();
    for code in [1000u16, 3000, 4999] {
        let mut client = server.client("");
        client.raw(&masked(0x01, b"in the middle"));
        client.raw(&masked(0x88, &code.to_be_bytes()));
        client.raw(&masked(0x81, b"too late"));
        assert_eq!(client.close_code(), Some(code));
        assert_eq!(client.next(), None);
    }
    let mut client = server.client("");
    client.raw(&masked(0x88, b""));
    assert_eq!(client.close_code(), None);
    assert_eq!(client.next(), None);
    drop(client);
    until("nothing is left", || server.connections() == 0);
}

#[test]
fn w14_the_server_closes_first_and_waits_at_most_two_seconds() {
    let server = Server::start();
    let mut client = server.client("");
    until("it is counted", || server.connections() == 1);
    client.text("bye 1000");
    let begun = Instant::now();
    assert_eq!(client.close_code(), Some(1000));
    // No answer, but the descriptor goes all the same.
    until("the slot is free", || server.connections() == 0);
    assert!(begun.elapsed() > Duration::from_millis(1_900) && begun.elapsed() < Duration::from_secs(4));
    let mut client = server.client("");
    client.text("bye 1000");
    assert_eq!(client.close_code(), Some(1000));
    client.raw(&masked(0x88, &1000u16.to_be_bytes()));
    assert_eq!(client.next(), None, "the server's half closes first");
    drop(client);
    until("the slot is free", || server.connections() == 0);
}

#[test]
fn w15_a_fault_gets_its_code_and_the_neighbour_goes_on() {
    let server = Server::start();
    let mut neighbour = server.client("1");
    for (bytes, code) in [
        (vec![0x81, 0x01, b'x'], 1002),
        (vec![0xC1, 0x80], 1002),
        (masked(0x81, b"\xFF"), 1007),
        (vec![0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 1], 1009),
        (masked(0x88, &1005u16.to_be_bytes()), 1002),
    ] {
        let mut client = server.client("1");
        client.raw(&bytes);
        assert_eq!(client.close_code(), Some(code));
        assert_eq!(client.next(), None);
        neighbour.text("still here");
        assert_eq!(neighbour.next_text(), "still here");
    }
}

#[test]
fn w10_a_message_that_does_not_end_is_closed() {
    let options = SocketOptions { message_ms: 300, ..SocketOptions::default() };
    let server = Server::with(Settings { tick_ms: 10, ..Settings::default() }, options);
    let mut client = server.client("");
    client.raw(&masked(0x01, b"begun"));
    assert_eq!(client.close_code(), Some(1008));
}

#[test]
fn sec08_one_control_frame_too_many_is_closed() {
    let server = Server::with(Settings::default(), SocketOptions::default());
    let mut client = server.client("");
    let flood: Vec<u8> = (0..30).flat_map(|_| masked(0x89, b"")).collect();
    client.raw(&flood);
    let code = loop {
        match client.next() {
            Some((Opcode::Pong, _)) => {}
            Some((Opcode::Close, payload)) => break payload,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code[..2], 1008u16.to_be_bytes());
}

#[test]
fn i10_whoever_goes_leaves_nothing_behind() {
    let mut server = Server::start();
    let clients: Vec<_> = (0..50).map(|n| server.client(&format!("1,{}", 2 + n % 3))).collect();
    until("all are there", || server.connections() == 50);
    drop(clients);
    until("none is there", || server.connections() == 0);
    for _ in 0..50 {
        let request = server.next_request();
        assert!(matches!(request.op, Op::Close { rooms, .. } if rooms.len() == 2));
    }
    until("no room is left", || server.shard.stats().rooms.load(std::sync::atomic::Ordering::Relaxed) == 0);
}

#[test]
fn a_time_limit_is_over_no_part_of_a_millisecond_early() {
    let limit = Duration::from_millis(20);
    let options = SocketOptions { message_ms: 20, ..SocketOptions::default() };
    let server = Server::with(Settings { tick_ms: 1, ..Settings::default() }, options);
    for _ in 0..100 {
        let mut client = server.client("1");
        let begin = Instant::now();
        client.raw(&masked(0x81, b"never whole")[..9]);
        assert_eq!(client.close_code(), Some(1008));
        assert!(begin.elapsed() >= limit, "{:?}", begin.elapsed());
    }
}

#[test]
fn a_drain_says_a_last_word_and_closes_within_its_window() {
    let server = Server::with(Settings { tick_ms: 10, ..Settings::default() }, SocketOptions::default());
    let mut clients: Vec<_> = (0..20).map(|_| server.client("1")).collect();
    server.control(Control::Drain { window_ms: 300 });
    for client in &mut clients {
        assert_eq!(client.next_text(), "before drain");
        assert_eq!(client.close_code(), Some(1012));
        client.socket.shutdown(Shutdown::Write).expect("open");
    }
    until("all are gone", || server.connections() == 0);
    assert_eq!(server.closed(Cause::Drain), 20);
}

#[test]
fn who_comes_behind_the_window_of_a_drain_hears_that_the_server_goes_away() {
    let server = Server::with(Settings { tick_ms: 10, ..Settings::default() }, SocketOptions::default());
    let mut early = server.client("1");
    server.control(Control::Drain { window_ms: 0 });
    assert_eq!(early.next_text(), "before drain");
    assert_eq!(early.close_code(), Some(1012));
    let mut late = Client::connect(server.address, "1");
    assert_eq!(late.next_text(), "before drain");
    assert_eq!(late.close_code(), Some(1001));
    assert_eq!(server.closed(Cause::Drain), 2);
}

#[test]
fn so_many_as_are_too_many_are_closed_one_after_another_and_the_others_stay() {
    let server = Server::with(Settings { tick_ms: 10, ..Settings::default() }, SocketOptions::default());
    let mut clients: Vec<_> = (0..20).map(|_| server.client("1")).collect();
    let begin = Instant::now();
    server.control(Control::Shed { count: 4, window_ms: 400 });
    until("some are gone", || server.closed(Cause::Shed) == 4);
    assert!(begin.elapsed() >= Duration::from_millis(300), "{:?}", begin.elapsed());
    server.control(Control::Shed { count: 30, window_ms: 0 });
    until("the others, too", || server.closed(Cause::Shed) == 20);
    for client in &mut clients {
        assert_eq!(client.next_text(), "before shed");
        assert_eq!(client.close_code(), Some(1012));
    }
    server.control(Control::Drain { window_ms: 60_000 });
    let mut late = server.client("1");
    server.control(Control::Shed { count: 1, window_ms: 0 });
    late.text("still here");
    assert_eq!(late.next_text(), "still here");
    assert_eq!(server.closed(Cause::Shed), 20, "a drain has its own window");
}

#[test]
fn a_reset_reaches_members_in_their_log_or_their_state_machine() {
    let server = Server::start();
    let mut client = server.client("1");
    let told = Some(plaza_edge::wire::websocket::frame(Opcode::Text, b"told"));
    server.control(Control::Reset { room: RoomId(1), frames: [None, None, None, told, None] });
    assert_eq!(client.next_text(), "told");
    server.control(Control::Reset { room: RoomId(1), frames: [const { None }; 5] });
    assert_eq!(client.next_text(), "reset 1");
}
