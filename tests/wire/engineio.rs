//! Engine.IO v4: rows E1 to E28.

use crate::http::{Http, get, guarded, request, settle};
use crate::polling::{ENGINE, Polling, SEPARATOR, SOCKET};
use crate::target::Target;
use crate::ws::{CLOSE, Message, TEXT, Ws, close_payload, frame, upgrade_request};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::time::sleep;

/// Ping settings of the wire profile.
const INTERVAL: Duration = Duration::from_millis(300);
const TIMEOUT: Duration = Duration::from_millis(200);
/// Where a row names a time, the best of several tries may be this late: the others tell only how busy
/// the machine is.
const LATE: Duration = Duration::from_millis(60);
/// Too early is never right, but for the time between the server's clock and ours.
const EARLY: Duration = Duration::from_millis(20);

const OPEN_WS: &str = "/engine.io/?EIO=4&transport=websocket";

/// Keys and values that every open packet has.
fn assert_open(open: &Value, upgrades: &Value) {
    let object = open.as_object().expect("an object");
    let keys: HashSet<&str> = object.keys().map(String::as_str).collect();
    assert_eq!(keys, HashSet::from(["sid", "upgrades", "pingInterval", "pingTimeout", "maxPayload"]));
    assert_eq!(&open["upgrades"], upgrades);
    assert_eq!((&open["pingInterval"], &open["pingTimeout"]), (&300.into(), &200.into()));
    assert_eq!(open["maxPayload"], 1_000_000);
}

/// How much more than `period` has passed since `since`; it must not be less.
fn lateness(since: Instant, period: Duration) -> Duration {
    let passed = since.elapsed() + EARLY;
    passed.checked_sub(period).unwrap_or_else(|| panic!("only {passed:?} of {period:?} have passed"))
}

/// Asserts that the best try was on time.
fn assert_punctual(late: &[Duration]) {
    assert!(late.iter().any(|late| *late < EARLY + LATE), "late every time: {late:?}");
}

/// A WebSocket session of the raw echo, its open packet read.
async fn session(target: &Target) -> (Ws, Value) {
    let mut ws = Ws::open(target.addr, OPEN_WS).await;
    let open = ws.packet_text().await;
    (ws, serde_json::from_str(open.strip_prefix('0').expect("an open packet")).expect("JSON"))
}

/// A polling session with a WebSocket that has been told `3probe`.
async fn probing(target: &Target) -> (Polling, Ws) {
    let polling = Polling::open(target.addr, ENGINE).await;
    let mut probe = Ws::open(target.addr, &polling.url("websocket")).await;
    probe.text("2probe").await;
    assert_eq!(probe.next().await, Message::Text("3probe".to_owned()));
    (polling, probe)
}

#[tokio::test]
async fn e01_the_open_packet_names_sid_upgrades_and_settings() {
    let target = Target::start().await;
    let response = get(target.addr, "/engine.io/?EIO=4&transport=polling&t=abc&unknown=1").await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("text/plain; charset=UTF-8"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    let open = serde_json::from_str(response.text().strip_prefix('0').expect("an open packet")).expect("JSON");
    assert_open(&open, &serde_json::json!(["websocket"]));

    let (_ws, open) = session(&target).await;
    assert_open(&open, &serde_json::json!([]));
}

#[tokio::test]
async fn e02_a_wrong_version_or_transport_is_refused() {
    let target = Target::start().await;
    for (query, code) in [
        ("transport=polling", 5),
        ("EIO=3&transport=polling", 5),
        ("EIO=abc&transport=polling", 5),
        ("EIO=4", 0),
        ("EIO=4&transport=abc", 0),
    ] {
        get(target.addr, &format!("/engine.io/?{query}")).await.assert_error(400, code);
    }
    for query in [
        "transport=websocket",
        "EIO=3&transport=websocket",
        "EIO=abc&transport=websocket",
        "EIO=4",
        "EIO=4&transport=abc",
    ] {
        match Ws::request(target.addr, &format!("/engine.io/?{query}"), "").await {
            Err(response) => {
                assert_eq!((response.status, response.header("connection")), (400, Some("close")), "{query}")
            }
            Ok(mut ws) => {
                let mut rest = Vec::new();
                guarded("the end", ws.http.stream.read_to_end(&mut rest)).await.ok();
                assert!(!rest.windows(5).any(|bytes| bytes == b"\"sid\""), "{query}: no open packet");
            }
        }
    }
    get(target.addr, "/engine.io/?EIO=4&transport=websocket").await.assert_error(400, 3);
}

#[tokio::test]
async fn e03_a_handshake_is_a_get_and_a_sid_must_be_known() {
    let target = Target::start().await;
    for method in ["POST", "PUT", "DELETE"] {
        request(target.addr, method, "/engine.io/?EIO=4&transport=polling", &[], b"").await.assert_error(400, 2);
    }
    let unknown = "/engine.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAAAAAA";
    get(target.addr, unknown).await.assert_error(400, 1);
    request(target.addr, "POST", unknown, &[], b"4x").await.assert_error(400, 1);
    let upgrade = Ws::request(target.addr, "/engine.io/?EIO=4&transport=websocket&sid=AAAAAAAAAAAAAAAAAAAA", "").await;
    let response = upgrade.expect_err("no 101 for an unknown sid");
    assert_eq!(response.status, 400);
    for query in
        ["EIO=4&transport=polling&transport=websocket", "EIO=4&transport[]=polling", "EIO[]=4&transport=polling"]
    {
        assert_eq!(get(target.addr, &format!("/engine.io/?{query}")).await.status, 400, "{query}");
    }
    let sid = Polling::open(target.addr, ENGINE).await.sid;
    for query in [format!("sid={sid}&sid={sid}"), "sid[]=a".to_owned(), "sid=%ff%00".to_owned()] {
        let response = get(target.addr, &format!("/engine.io/?EIO=4&transport=polling&{query}")).await;
        assert_ne!(response.status, 500, "{query}");
    }
    if let Some(target) = Target::ours("it takes the same version twice").await {
        for query in
            ["EIO=4&EIO=4&transport=polling".to_owned(), format!("EIO=4&transport=polling&sid={sid}&sid={sid}")]
        {
            assert_eq!(get(target.addr, &format!("/engine.io/?{query}")).await.status, 400, "{query}");
        }
    }
    Polling::open(target.addr, ENGINE).await;
}

#[tokio::test]
async fn e04_sids_are_long_distinct_and_tell_nothing() {
    let target = Target::start().await;
    let mut sids = HashSet::new();
    for _ in 0..50 {
        let sid = Polling::open(target.addr, ENGINE).await.sid;
        assert!(sid.len() >= 20, "{sid} is shorter than 120 bits");
        assert!(
            sid.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)),
            "{sid} needs no escaping"
        );
        assert!(!sid.contains("127") || !sid.contains(&target.addr.port().to_string()), "{sid} is no address");
        assert!(sids.insert(sid));
    }
    let socket = Polling::open(target.addr, SOCKET).await;
    socket.say("40").await;
    let connected = socket.take(2).await;
    assert!(!connected[0].contains(&socket.sid), "the Socket.IO sid is another one");
}

#[tokio::test]
async fn e05_a_get_waits_for_a_packet_a_ping_or_a_close() {
    let target = Target::start().await;
    let before = Instant::now();
    let polling = Polling::open(target.addr, ENGINE).await;
    assert_eq!(polling.poll().await.text(), "2");
    assert!(before.elapsed() >= INTERVAL);
    polling.say("3").await;

    let mut waiting = polling.waiting().await;
    polling.say("4now").await;
    assert_eq!(waiting.response().await.text(), "4now");

    polling.say("4one").await;
    polling.say("4two").await;
    assert_eq!(polling.poll().await.text(), format!("4one{SEPARATOR}4two"));
}

#[tokio::test]
async fn e06_a_body_of_several_packets_comes_back_in_one_get() {
    let target = Target::start().await;
    let polling = Polling::open(target.addr, ENGINE).await;
    polling.say(format!("4a{SEPARATOR}4b{SEPARATOR}4c")).await;
    assert_eq!(polling.packets().await, ["4a", "4b", "4c"]);

    let binary = |bytes: &[u8]| format!("b{}", BASE64_STANDARD.encode(bytes));
    let mixed =
        ["4text".to_owned(), binary(&[0, 1, 2, 0x1e, 255]), "4€ and 你好".to_owned(), binary(&[]), binary(b"x")];
    polling.say(mixed.join("\u{1e}")).await;
    assert_eq!(polling.packets().await, mixed);
}

#[tokio::test]
async fn e07_a_bad_packet_ends_the_session() {
    let target = Target::start().await;
    for body in ["9abc", "abc", "4before\u{1e}9bad\u{1e}4after", "4a\u{1e}\u{1e}4b", ""] {
        let polling = Polling::open(target.addr, ENGINE).await;
        let mut http = Http::connect(target.addr).await;
        http.send("POST", &polling.url("polling"), &[], body.as_bytes()).await;
        // The reference says `ok` to some, and ends the session all the same.
        if let Some(response) = http.answer().await
            && !target.is_other()
        {
            assert_eq!(response.status, 400, "{body:?}");
        }
        assert_eq!(polling.poll().await.status, 400, "{body:?}");
    }
    let Some(target) = Target::ours("it takes bad base64").await else { return };
    for body in ["b!!!!", "bAAA", "bAAAA=", "b AAA"] {
        let polling = Polling::open(target.addr, ENGINE).await;
        assert_eq!(polling.post(body).await.status, 400, "{body:?}");
        polling.assert_gone().await;
    }
}

#[tokio::test]
async fn e08_a_second_get_ends_the_session() {
    let target = Target::start().await;
    let polling = Polling::open(target.addr, ENGINE).await;
    let (mut first, mut second) = (polling.waiting().await, Http::connect(target.addr).await);
    second.send("GET", &polling.url("polling"), &[], b"").await;
    assert_eq!(second.response().await.status, 400);
    let first = first.response().await;
    assert_eq!((first.status, first.text()), (200, "1"));
    polling.assert_gone().await;
}

#[tokio::test]
async fn e09_a_second_post_beside_one_that_is_read_ends_the_session() {
    let target = Target::start().await;
    let polling = Polling::open(target.addr, ENGINE).await;
    let mut first = Http::connect(target.addr).await;
    let head = format!("POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n4ab", polling.url("polling"));
    first.write(head.as_bytes()).await.expect("written");
    settle(target.addr).await;
    assert_eq!(polling.post("4second").await.status, 400);
    polling.assert_gone().await;
}

#[tokio::test]
async fn e10_a_body_above_the_limit_is_refused_unread() {
    let target = Target::start().await;
    let polling = Polling::open(target.addr, ENGINE).await;
    polling.say([b"4".as_slice(), &[b'x'; 999_999]].concat()).await;
    assert_eq!(polling.packets().await[0].len(), 1_000_000, "exactly the limit");

    let polling = Polling::open(target.addr, ENGINE).await;
    let mut http = Http::connect(target.addr).await;
    let head =
        format!("POST {} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", polling.url("polling"));
    http.write(head.as_bytes()).await.expect("written");
    let chunk = [b"10000\r\n".as_slice(), &[b'4'; 0x1_0000], b"\r\n"].concat();
    for _ in 0..17 {
        if http.write(&chunk).await.is_err() {
            break;
        }
    }
    if let Some(response) = http.answer().await {
        assert_eq!(response.status, 413);
    }

    let Some(target) = Target::ours("it reads before it looks at Content-Length").await else { return };
    let polling = Polling::open(target.addr, ENGINE).await;
    let mut http = Http::connect(target.addr).await;
    let head =
        format!("POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000001\r\n\r\n", polling.url("polling"));
    http.write(head.as_bytes()).await.expect("written");
    assert_eq!(http.response().await.status, 413, "no byte of the body was sent");
}

#[tokio::test]
async fn e11_only_utf8_text_is_a_body() {
    let target = Target::start().await;
    let polling = Polling::open(target.addr, ENGINE).await;
    let headers = [("Content-Type", "application/octet-stream")];
    let response = request(target.addr, "POST", &polling.url("polling"), &headers, b"4x").await;
    assert_eq!(response.status, 400);
    assert_eq!(polling.poll().await.status, 400);

    let Some(target) = Target::ours("it replaces what is not UTF-8").await else { return };
    let polling = Polling::open(target.addr, ENGINE).await;
    assert_eq!(polling.post(b"4\xff\xfe").await.status, 400);
    polling.assert_gone().await;
}

#[tokio::test]
async fn e12_a_close_packet_releases_the_waiting_get() {
    let target = Target::start().await;
    let polling = Polling::open(target.addr, ENGINE).await;
    let mut waiting = polling.waiting().await;
    polling.say("1").await;
    let response = waiting.response().await;
    assert_eq!((response.status, response.text()), (200, "6"));
    polling.assert_gone().await;
}

#[tokio::test]
async fn e13_a_close_by_the_server_reaches_the_get() {
    let target = Target::start().await;
    // An event before CONNECT makes the server close.
    let polling = Polling::open(target.addr, SOCKET).await;
    let mut waiting = polling.waiting().await;
    polling.post("42[\"x\"]").await;
    assert_eq!(waiting.response().await.text(), "1");
    assert_eq!(polling.poll().await.status, 400);

    let polling = Polling::open(target.addr, SOCKET).await;
    polling.post("42[\"x\"]").await;
    let response = polling.poll().await;
    assert_eq!(response.status, 200);
    assert!(response.text().ends_with('1'), "{response:?}");
    assert_eq!(polling.poll().await.status, 400);
}

#[tokio::test]
async fn e14_a_broken_waiting_get_ends_the_session() {
    let target = Target::start().await;
    let opened = Instant::now();
    let polling = Polling::open(target.addr, ENGINE).await;
    drop(polling.waiting().await);
    while polling.post("4x").await.status == 200 {}
    assert!(opened.elapsed() < INTERVAL + TIMEOUT, "ended by the break and not by a missing pong");
    polling.assert_gone().await;
}

#[tokio::test]
async fn e15_no_other_origin_reads_an_answer_unless_allowed() {
    let target = Target::start().await;
    let polling = Polling::open(target.addr, ENGINE).await;
    for (method, path) in [
        ("GET", "/engine.io/?EIO=4&transport=polling".to_owned()),
        ("GET", "/engine.io/?EIO=4&transport=none".to_owned()),
        ("POST", polling.url("polling")),
    ] {
        let headers = [("Origin", "https://elsewhere.example")];
        let response = request(target.addr, method, &path, &headers, b"4x").await;
        assert_eq!(response.header("access-control-allow-origin"), None, "{method} {path}");
        assert_eq!(response.header("cache-control").unwrap_or("no-store"), "no-store");
    }
}

#[tokio::test]
async fn e16_pings_follow_the_open_and_then_each_pong() {
    let target = Target::start().await;
    let polling = Polling::open(target.addr, ENGINE).await;
    let (mut since, mut late) = (Instant::now(), Vec::new());
    for _ in 0..4 {
        assert_eq!(polling.poll().await.text(), "2");
        late.push(lateness(since, INTERVAL));
        since = Instant::now();
        polling.say("3").await;
    }
    assert_punctual(&late);

    let (mut ws, _) = session(&target).await;
    let (mut since, mut late) = (Instant::now(), Vec::new());
    for _ in 0..4 {
        assert_eq!(ws.next().await, Message::Text("2".to_owned()));
        late.push(lateness(since, INTERVAL));
        since = Instant::now();
        ws.text("3").await;
    }
    assert_punctual(&late);
}

#[tokio::test]
async fn e17_without_a_pong_the_session_ends_without_slack() {
    let target = Target::start().await;
    let mut late = Vec::new();
    for _ in 0..4 {
        let before = Instant::now();
        let (mut ws, _) = session(&target).await;
        while !matches!(ws.next().await, Message::Close(_) | Message::End) {}
        late.push(lateness(before, INTERVAL + TIMEOUT));
    }
    assert_punctual(&late);

    let polling = Polling::open(target.addr, ENGINE).await;
    sleep(INTERVAL + TIMEOUT + Duration::from_millis(5)).await;
    polling.assert_gone().await;
}

#[tokio::test]
async fn e18_pings_leave_on_time_on_a_busy_connection() {
    let target = Target::start().await;
    let (mut ws, _) = session(&target).await;
    let (mut pings, mut echoes, mut since) = (0, 0, Instant::now());
    ws.text("4busy").await;
    while pings < 4 {
        match ws.next().await {
            Message::Text(text) if text == "2" => {
                assert!(since.elapsed() < INTERVAL + TIMEOUT, "the stock client would have given up");
                (pings, since) = (pings + 1, Instant::now());
                ws.text("3").await;
            }
            Message::Text(text) => {
                assert_eq!(text, "4busy");
                echoes += 1;
                ws.text("4busy").await;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(echoes > 100, "{echoes} messages are not busy");
}

#[tokio::test]
async fn e19_pings_come_from_the_server_alone() {
    let target = Target::start().await;
    for ping in ["2", "2probe"] {
        let (mut ws, _) = session(&target).await;
        ws.text(ping).await;
        ws.assert_ends().await;

        let polling = Polling::open(target.addr, ENGINE).await;
        polling.post(ping).await;
        let response = polling.poll().await;
        assert!(response.status == 400 || response.text() == "1", "{response:?}");
        polling.assert_gone().await;
    }
}

#[tokio::test]
async fn e20_close_packets_empty_messages_and_unknown_types_close() {
    let target = Target::start().await;
    for text in ["1", "", "9", "x", "7probe"] {
        if text == "1" && target.is_other() {
            continue; // The reference waits for the client to close.
        }
        let (mut ws, _) = session(&target).await;
        ws.text(text).await;
        ws.assert_ends().await;
    }
}

#[tokio::test]
async fn e21_open_upgrade_and_noop_are_ignored_and_so_is_all_after_a_close() {
    let target = Target::start().await;
    let (mut ws, _) = session(&target).await;
    for packet in ["0", "5", "6", "4x"] {
        ws.text(packet).await;
    }
    ws.expect("4x").await;

    let Some(target) = Target::ours("it still reads what came in the same segment").await else { return };
    let (mut ws, _) = session(&target).await;
    ws.write([frame(TEXT, "1"), frame(TEXT, "4late")].concat()).await;
    loop {
        match ws.packet().await {
            Message::Close(_) | Message::End => break,
            other => assert_ne!(other, Message::Text("4late".to_owned())),
        }
    }
}

#[tokio::test]
async fn e22_a_probe_is_answered_and_releases_gets() {
    let target = Target::start().await;
    let polling = Polling::open(target.addr, ENGINE).await;
    let mut waiting = polling.waiting().await;
    let mut probe = Ws::open(target.addr, &polling.url("websocket")).await;
    probe.text("2probe").await;
    assert_eq!(probe.next().await, Message::Text("3probe".to_owned()));
    assert_eq!(waiting.response().await.text(), "6");
    for _ in 0..3 {
        // On a slow machine the first ping is pending by now, and leaves in its place.
        match polling.poll().await.text() {
            "6" => {}
            "2" => polling.say("3").await,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn e23_an_upgrade_moves_what_is_queued_and_loses_nothing() {
    let target = Target::start().await;
    let (polling, mut probe) = probing(&target).await;
    polling.say("4polled").await;
    let body = polling.poll().await;
    let packets: Vec<&str> = body.text().split(SEPARATOR).filter(|packet| *packet != "6").collect();
    assert_eq!(packets, ["4polled"], "until `5` messages leave by polling");

    polling.say(format!("4one{SEPARATOR}4two{SEPARATOR}bAAEC")).await;
    probe.text("5").await;
    probe.text("4three").await;
    probe.expect("4one").await;
    probe.expect("4two").await;
    assert_eq!(probe.packet().await, Message::Binary(vec![0, 1, 2]));
    probe.expect("4three").await;
}

#[tokio::test]
async fn e24_after_the_upgrade_polling_is_refused() {
    let target = Target::start().await;
    let (polling, mut ws) = probing(&target).await;
    ws.text("5").await;
    ws.text("4x").await;
    ws.expect("4x").await;
    polling.poll().await.assert_error(400, 3);
    polling.post("4x").await.assert_error(400, 3);

    // The GET that comes microseconds after is in the hands of whoever reads first: it is refused, or
    // it came before the upgrade and is answered as such. Both keep the session.
    for _ in 0..20 {
        let polling = Polling::open(target.addr, ENGINE).await;
        let mut ws = Ws::open(target.addr, &polling.url("websocket")).await;
        let mut late = Http::connect(target.addr).await;
        ws.write([frame(TEXT, "2probe"), frame(TEXT, "5"), frame(TEXT, "4after")].concat()).await;
        late.send("GET", &polling.url("polling"), &[], b"").await;
        ws.expect("3probe").await;
        ws.expect("4after").await;
        let response = late.response().await;
        assert!(response.status == 400 || response.text() == "6", "{response:?}");
        polling.poll().await.assert_error(400, 3);
    }
}

#[tokio::test]
async fn e25_a_second_websocket_of_a_session_disturbs_nothing() {
    let target = Target::start().await;
    let (polling, mut first) = probing(&target).await;
    if let Ok(mut second) = Ws::request(target.addr, &polling.url("websocket"), "").await {
        second.text("2probe").await;
        second.assert_ends().await;
    }
    first.text("5").await;
    first.text("4x").await;
    first.expect("4x").await;
    if let Ok(mut third) = Ws::request(target.addr, &polling.url("websocket"), "").await {
        third.assert_ends().await;
    }
    first.text("4y").await;
    first.expect("4y").await;
}

#[tokio::test]
async fn e26_a_failed_probe_leaves_the_session_on_polling() {
    let target = Target::start().await;
    for first in ["4x", "5", "2", "3probe", ""] {
        if first == "5" && target.is_other() {
            continue; // The reference takes `5` without a probe.
        }
        let polling = Polling::open(target.addr, ENGINE).await;
        let mut probe = Ws::open(target.addr, &polling.url("websocket")).await;
        probe.text(first).await;
        probe.assert_ends().await;
        polling.say("4alive").await;
        assert_eq!(polling.packets().await, ["4alive"], "after {first:?}");
    }
    for second in ["4x", "2", "1"] {
        let (polling, mut probe) = probing(&target).await;
        probe.text(second).await;
        probe.assert_ends().await;
        polling.say("4alive").await;
        assert_eq!(polling.take(1).await, ["4alive"], "after {second:?}");
    }
    let (polling, probe) = probing(&target).await;
    drop(probe);
    polling.say("4alive").await;
    loop {
        let packets = polling.packets().await;
        if packets.contains(&"4alive".to_owned()) {
            break;
        }
    }
}

#[tokio::test]
async fn e26_a_silent_probe_is_closed_after_the_upgrade_timeout() {
    let target = Target::start().await;
    // A machine that is too busy for 33 pongs in time ends the session, and the probe with it (E27).
    for _ in 0..4 {
        let polling = Polling::open(target.addr, ENGINE).await;
        let begun = Instant::now();
        let mut probe = Ws::open(target.addr, &polling.url("websocket")).await;
        let keep_alive = async { while polling.poll().await.text() == "2" && polling.post("3").await.status == 200 {} };
        tokio::select! {
            message = probe.next() => {
                assert!(matches!(message, Message::Close(_) | Message::End), "{message:?}");
                if begun.elapsed() + EARLY >= Duration::from_secs(10) {
                    return;
                }
            }
            () = keep_alive => {}
        }
    }
    panic!("the session did not live through the upgrade timeout in four tries");
}

#[tokio::test]
async fn e27_a_session_that_ends_takes_its_probe_along() {
    let target = Target::start().await;
    let (polling, mut probe) = probing(&target).await;
    polling.say("1").await;
    probe.assert_ends().await;

    let Some(target) = Target::ours("its descriptors cannot be counted").await else { return };
    let Some(base) = target.descriptors() else { return };
    for step in 0..60 {
        let polling = Polling::open(target.addr, ENGINE).await;
        let mut probe = Ws::open(target.addr, &polling.url("websocket")).await;
        if step % 3 > 0 {
            probe.text("2probe").await;
        }
        if step % 3 > 1 {
            probe.expect("3probe").await;
            probe.text("5").await;
        }
        if step % 2 == 0 {
            probe.write(frame(CLOSE, close_payload(1000, ""))).await;
        }
    }
    target.descriptors_fall_to(base).await;
}

#[tokio::test]
async fn e28_the_101_the_open_packet_and_the_first_events_are_separate_writes() {
    let Some(target) = Target::ours("it is not measured there").await else { return };
    // Only a reader that is faster than the writer sees two writes as two reads: one time is enough.
    let mut seen = false;
    for _ in 0..200 {
        let mut http = Http::connect(target.addr).await;
        http.write(upgrade_request(OPEN_WS, "").as_bytes()).await.expect("written");
        let mut buffer = [0; 4096];
        let read = guarded("the 101", http.stream.get_mut().read(&mut buffer)).await.expect("read");
        if buffer[..read].ends_with(b"\r\n\r\n") {
            seen = true;
            break;
        }
    }
    assert!(seen, "the open packet always came in the same segment as the 101");
}
