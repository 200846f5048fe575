//! Socket.IO v5: rows S1 to S15.

use crate::http::Response;
use crate::polling::{Polling, SOCKET};
use crate::target::Target;
use crate::ws::{BINARY, Message, TEXT, Ws, frame};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use std::time::{Duration, Instant};

const OPEN_WS: &str = "/socket.io/?EIO=4&transport=websocket";
/// Ends that a test has caused come sooner. Pings are answered meanwhile.
const PROMPT: Duration = Duration::from_secs(4);

/// A WebSocket whose open packet is read.
async fn transport(target: &Target) -> Ws {
    let mut ws = Ws::open(target.addr, OPEN_WS).await;
    assert!(ws.packet_text().await.starts_with("0{"));
    ws
}

/// A WebSocket that has joined `/`.
async fn joined(target: &Target) -> Ws {
    let mut ws = transport(target).await;
    ws.text("40").await;
    assert!(ws.packet_text().await.starts_with("40{\"sid\":\""));
    ws.expect("42[\"auth\",{}]").await;
    ws
}

/// A WebSocket that has joined `/` and `/custom`.
async fn joined_twice(target: &Target) -> Ws {
    let mut ws = joined(target).await;
    ws.text("40/custom,").await;
    assert!(ws.packet_text().await.starts_with("40/custom,{\"sid\":\""));
    ws.expect("42/custom,[\"auth\",{}]").await;
    ws
}

/// Asserts that `/` answers.
async fn assert_answers(ws: &mut Ws) {
    ws.text("42[\"message\",\"still here\"]").await;
    ws.expect("42[\"message-back\",\"still here\"]").await;
}

/// Asserts that each of these texts, sent by a client that joined `/`, closes the connection.
async fn assert_each_closes(target: &Target, texts: &[&str]) {
    for text in texts {
        let mut ws = joined(target).await;
        ws.text(text).await;
        let next = tokio::time::timeout(PROMPT, ws.packet()).await;
        let next = next.unwrap_or_else(|_| panic!("{text:?} did not close the connection"));
        assert!(matches!(next, Message::Close(_) | Message::End), "{text:?} was answered {next:?}");
    }
}

/// The sid of a CONNECT reply.
fn sid(packet: &str) -> String {
    let payload = &packet[packet.find('{').expect("a payload")..];
    let payload: Value = serde_json::from_str(payload).expect("JSON");
    assert_eq!(payload.as_object().expect("an object").len(), 1, "only the sid when recovery is off");
    payload["sid"].as_str().expect("a sid").to_owned()
}

#[tokio::test]
async fn s01_connect_is_answered_with_a_sid() {
    let target = Target::start().await;
    let mut ws = transport(&target).await;
    ws.text("40").await;
    let reply = ws.packet_text().await;
    assert!(sid(&reply).len() >= 20);
    assert!(reply.starts_with("40{"));
    ws.expect("42[\"auth\",{}]").await;

    let polling = Polling::open(target.addr, SOCKET).await;
    polling.say("40").await;
    let packets = polling.take(2).await;
    assert!(sid(&packets[0]).len() >= 20);
    assert_eq!(packets[1], "42[\"auth\",{}]");
}

#[tokio::test]
async fn s02_a_namespace_is_joined_with_and_without_comma_and_with_its_own_auth() {
    let target = Target::start().await;
    for (connect, auth) in
        [("40/custom,", "{}"), ("40/custom", "{}"), ("40/custom,{\"token\":\"abc\"}", "{\"token\":\"abc\"}")]
    {
        let mut ws = transport(&target).await;
        ws.text(connect).await;
        assert!(ws.packet_text().await.starts_with("40/custom,{\"sid\":\""), "{connect}");
        ws.expect(&format!("42/custom,[\"auth\",{auth}]")).await;
    }
    let mut ws = transport(&target).await;
    ws.text("40{\"b\":1,\"a\":[2.50,\"x\"]}").await;
    ws.packet_text().await;
    match ws.packet_text().await.as_str() {
        "42[\"auth\",{\"b\":1,\"a\":[2.50,\"x\"]}]" | "42[\"auth\",{\"b\":1,\"a\":[2.5,\"x\"]}]" => {}
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn s03_an_unknown_namespace_is_refused_and_the_transport_stays() {
    let target = Target::start().await;
    let mut ws = transport(&target).await;
    ws.text("40/nope").await;
    ws.expect("44/nope,{\"message\":\"Invalid namespace\"}").await;
    ws.text("40/nope,{\"token\":1}").await;
    ws.expect("44/nope,{\"message\":\"Invalid namespace\"}").await;
    ws.text("40").await;
    assert!(ws.packet_text().await.starts_with("40{"));
}

#[tokio::test]
async fn s05_a_transport_that_joins_nothing_is_closed() {
    let target = Target::start().await;
    for refused in [false, true] {
        let begun = Instant::now();
        let mut ws = transport(&target).await;
        if refused {
            ws.text("40/nope").await;
            ws.expect("44/nope,{\"message\":\"Invalid namespace\"}").await;
        }
        ws.assert_ends().await;
        assert!(begun.elapsed() >= Duration::from_millis(980), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn s06_packets_out_of_turn_close() {
    let target = Target::start().await;
    for first in ["42[\"x\"]", "41", "43[]", "42/custom,[\"x\"]"] {
        let mut ws = transport(&target).await;
        ws.text(first).await;
        ws.assert_ends().await;
    }
    assert_each_closes(&target, &["42/custom,[\"x\"]", "42/nope,[\"x\"]", "44{\"message\":\"x\"}"]).await;
    let Some(target) = Target::ours("it takes a second CONNECT of a namespace").await else { return };
    assert_each_closes(&target, &["40", "40{}"]).await;
}

#[tokio::test]
async fn s07_malformed_packets_close() {
    let target = Target::start().await;
    let always = [
        "4",
        "4abc",
        "49[\"x\"]",
        "42{",
        "42[\"a\"",
        "42{\"a\":1}",
        "42\"x\"",
        "42[]",
        "42abc[\"x\"]",
        "43{}",
        "43\"x\"",
        "40[]",
        "41[\"x\"]",
        "42[null]",
        "42[{}]",
    ];
    assert_each_closes(&target, &always).await;
    let Some(target) = Target::ours("it is more lenient with these").await else { return };
    assert_each_closes(&target, &["42", "42-1[\"x\"]", "421.5[\"x\"]", "42[\"x\"] ,", "42[\"x\",]", "41{}", "40\"x\""])
        .await;
}

#[tokio::test]
async fn s08_reserved_event_names_close() {
    let target = Target::start().await;
    let names = ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];
    let texts: Vec<String> = names.iter().map(|name| format!("42[\"{name}\"]")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert_each_closes(&target, &texts).await;
}

#[tokio::test]
async fn s09_a_disconnect_leaves_one_namespace() {
    let target = Target::start().await;
    let mut ws = joined(&target).await;
    ws.text("41").await;
    assert_eq!(ws.next().await, Message::Text("2".to_owned()), "no reply, no close: the next frame is the ping");

    for leave in ["41/custom", "41/custom,"] {
        let mut ws = joined_twice(&target).await;
        ws.text(leave).await;
        assert_answers(&mut ws).await;
        ws.text("40/custom").await;
        assert!(ws.packet_text().await.starts_with("40/custom,{"), "it can be joined again");
    }
}

#[tokio::test]
async fn s10_an_event_with_an_id_is_acknowledged_with_the_same_arguments() {
    let target = Target::start().await;
    let mut ws = joined(&target).await;
    ws.text("4217[\"message-with-ack\",1,\"x\",{\"k\":[false],\"a\":null}]").await;
    ws.expect("4317[1,\"x\",{\"k\":[false],\"a\":null}]").await;
    ws.text("420[\"message-with-ack\"]").await;
    ws.expect("430[]").await;
    ws.text("42[\"message\",1,\"2\",{\"3\":[true,null]},\"你好 \\u00e9\"]").await;
    match ws.packet_text().await.as_str() {
        "42[\"message-back\",1,\"2\",{\"3\":[true,null]},\"你好 \\u00e9\"]"
        | "42[\"message-back\",1,\"2\",{\"3\":[true,null]},\"你好 é\"]" => {}
        other => panic!("{other}"),
    }
    let Some(target) = Target::ours("it writes numbers anew").await else { return };
    let mut ws = joined(&target).await;
    ws.text("4218[\"message-with-ack\",1.50,12345678901234567890,1e3]").await;
    ws.expect("4318[1.50,12345678901234567890,1e3]").await;
}

#[tokio::test]
async fn s11_unknown_acknowledgements_are_ignored_and_ids_have_a_limit() {
    let target = Target::start().await;
    let mut ws = joined(&target).await;
    for ack in ["43999[]", "4317[1]", "4317[1]", "430[\"x\"]"] {
        ws.text(ack).await;
    }
    assert_answers(&mut ws).await;
    ws.text("429007199254740991[\"message-with-ack\",1]").await;
    ws.expect("439007199254740991[1]").await;
    let Some(target) = Target::ours("it rounds larger ids").await else { return };
    assert_each_closes(
        &target,
        &["429007199254740992[\"message-with-ack\",1]", "4299999999999999999999999[\"message\",1]"],
    )
    .await;
}

#[tokio::test]
async fn s12_binary_events_and_acknowledgements() {
    let target = Target::start().await;
    let holders = "{\"_placeholder\":true,\"num\":0},{\"_placeholder\":true,\"num\":1}";
    let mut ws = joined(&target).await;
    ws.text(&format!("452-[\"message\",{holders}]")).await;
    ws.binary(&[1, 2, 3]).await;
    ws.binary(&[]).await;
    ws.expect(&format!("452-[\"message-back\",{holders}]")).await;
    assert_eq!(ws.packet().await, Message::Binary(vec![1, 2, 3]));
    assert_eq!(ws.packet().await, Message::Binary(vec![]));

    ws.text(&format!("452-17[\"message-with-ack\",{holders},\"end\"]")).await;
    ws.binary(b"a").await;
    ws.binary(b"b").await;
    ws.expect(&format!("462-17[{holders},\"end\"]")).await;
    assert_eq!(ws.packet().await, Message::Binary(b"a".to_vec()));
    assert_eq!(ws.packet().await, Message::Binary(b"b".to_vec()));

    let polling = Polling::open(target.addr, SOCKET).await;
    polling.say("40").await;
    polling.take(2).await;
    let attachment = |bytes: &[u8]| format!("b{}", BASE64_STANDARD.encode(bytes));
    polling.say(format!("452-[\"message\",{holders}]\u{1e}{}\u{1e}{}", attachment(&[9, 8]), attachment(b"z"))).await;
    let expected = [format!("452-[\"message-back\",{holders}]"), attachment(&[9, 8]), attachment(b"z")];
    assert_eq!(polling.take(3).await, expected);
}

#[tokio::test]
async fn s13_attachments_follow_their_header() {
    let target = Target::start().await;
    let mut ws = joined(&target).await;
    let mut bytes = Vec::new();
    for n in 0..40_u8 {
        bytes.extend(frame(TEXT, format!("451-[\"message\",{n},{{\"_placeholder\":true,\"num\":0}}]")));
        bytes.extend(frame(BINARY, [n; 64]));
        bytes.extend(frame(TEXT, format!("42[\"message\",{n}]")));
    }
    ws.write(bytes).await;
    for n in 0..40_u8 {
        ws.expect(&format!("451-[\"message-back\",{n},{{\"_placeholder\":true,\"num\":0}}]")).await;
        assert_eq!(ws.packet().await, Message::Binary(vec![n; 64]));
        ws.expect(&format!("42[\"message-back\",{n}]")).await;
    }
}

/// Attachments too large for one write of a socket, so that connections wait in the middle of packets.
#[tokio::test]
async fn s13_attachments_follow_their_header_with_eight_concurrent_senders() {
    const HOLDERS: &str = "{\"_placeholder\":true,\"num\":0},{\"_placeholder\":true,\"num\":1}";
    let target = Target::start().await;
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..8_u8 {
        let mut ws = joined(&target).await;
        senders.spawn(async move {
            for n in 0..5_u8 {
                let mut bytes = frame(TEXT, format!("452-{n}[\"message-with-ack\",{n},{HOLDERS}]"));
                bytes.extend(frame(BINARY, vec![sender; 90_000]));
                bytes.extend(frame(BINARY, vec![n; 50]));
                bytes.extend(frame(TEXT, format!("42[\"message\",{sender}]")));
                ws.write(bytes).await;
            }
            for n in 0..5_u8 {
                ws.expect(&format!("462-{n}[{n},{HOLDERS}]")).await;
                assert_eq!(ws.packet().await, Message::Binary(vec![sender; 90_000]));
                assert_eq!(ws.packet().await, Message::Binary(vec![n; 50]));
                ws.expect(&format!("42[\"message-back\",{sender}]")).await;
            }
        });
    }
    while let Some(ended) = senders.join_next().await {
        ended.expect("a sender gets its packets whole");
    }
}

#[tokio::test]
async fn s14_wrong_attachments_close() {
    let target = Target::start().await;
    let one = "{\"_placeholder\":true,\"num\":0}";
    let mut ws = joined(&target).await;
    ws.binary(b"nobody asked").await;
    ws.assert_ends().await;

    let mut ws = joined(&target).await;
    ws.text(&format!("451-[\"message\",{one}]")).await;
    ws.text("42[\"message\",1]").await;
    ws.assert_ends().await;

    assert_each_closes(
        &target,
        &[
            "45[\"message\"]",
            "45-[\"message\"]",
            "45-1-[\"message\"]",
            "451.5-[\"message\"]",
            "4511-[\"message\"]",
            "45100000000-[\"message\"]",
        ],
    )
    .await;

    for num in ["-1", "1", "0.5", "\"0\"", "99"] {
        if num == "0.5" && target.is_other() {
            continue; // The reference takes it for no attachment.
        }
        let mut ws = joined(&target).await;
        ws.text(&format!("451-[\"message\",{{\"_placeholder\":true,\"num\":{num}}}]")).await;
        ws.binary(b"x").await;
        let end = tokio::time::timeout(PROMPT, ws.packet()).await;
        assert!(matches!(end, Ok(Message::Close(_) | Message::End)), "num {num}: {end:?}");
    }
    let Some(target) = Target::ours("it closes at a count of 0").await else { return };
    let mut ws = joined(&target).await;
    ws.text("450-[\"message\",7]").await;
    ws.expect("42[\"message-back\",7]").await;
}

#[tokio::test]
async fn s14_attachments_that_never_come_close_after_ten_seconds() {
    let Some(target) = Target::ours("it waits for ever").await else { return };
    let mut ws = joined(&target).await;
    let begun = Instant::now();
    ws.text("451-[\"message\",{\"_placeholder\":true,\"num\":0}]").await;
    while !matches!(ws.packet().await, Message::Close(_) | Message::End) {}
    assert!(begun.elapsed() >= Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn s15_namespaces_on_one_connection_are_independent() {
    let target = Target::start().await;
    let mut ws = transport(&target).await;
    ws.text("40{\"who\":\"root\"}").await;
    let root = sid(&ws.packet_text().await);
    ws.expect("42[\"auth\",{\"who\":\"root\"}]").await;
    ws.text("40/custom,{\"who\":\"custom\"}").await;
    let custom = sid(&ws.packet_text().await);
    ws.expect("42/custom,[\"auth\",{\"who\":\"custom\"}]").await;
    assert_ne!(root, custom);

    let mut neighbour = joined(&target).await;
    ws.text("42[]").await;
    ws.assert_ends().await;
    assert_answers(&mut neighbour).await;
}

/// Both refusals that S6 and S7 allow on polling look alike.
#[tokio::test]
async fn s07_a_malformed_packet_on_polling_ends_the_session() {
    let target = Target::start().await;
    let polling = Polling::open(target.addr, SOCKET).await;
    polling.say("40").await;
    polling.take(2).await;
    polling.post("42{}").await;
    let ended = |response: &Response| response.status == 400 || response.text().ends_with('1');
    assert!(ended(&polling.poll().await));
    assert_eq!(polling.poll().await.status, 400);
}
