//! WebSocket framing on the raw echo: rows W1 to W15.

use crate::http::{Http, guarded, settle};
use crate::target::Target;
use crate::ws::{
    BINARY, CLOSE, CONTINUATION, KEY, Message, PING, PONG, TEXT, Ws, close_payload, frame, frame_bytes, part,
    upgrade_request,
};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

const ECHO: &str = "/echo";

async fn echo(target: &Target) -> Ws {
    Ws::open(target.addr, ECHO).await
}

/// Asserts that these bytes are closed with this code at once, on a fresh connection.
async fn assert_code(target: &Target, what: &str, bytes: impl AsRef<[u8]>, code: u16) {
    let mut ws = echo(target).await;
    ws.write(bytes).await;
    assert_eq!(ws.next().await, Message::Close(Some(code)), "{what}");
    ws.write(frame(CLOSE, code.to_be_bytes())).await;
    assert_eq!(ws.next().await, Message::End, "{what}");
}

fn text(message: &str) -> Message {
    Message::Text(message.to_owned())
}

#[tokio::test]
async fn w01_only_a_complete_upgrade_is_accepted() {
    let Some(target) = Target::ours("it is more lenient").await else { return };
    let good = upgrade_request(ECHO, "");
    for (what, request, status) in [
        ("POST", good.replace("GET", "POST"), 400),
        ("HTTP/1.0", good.replace("HTTP/1.1", "HTTP/1.0"), 400),
        ("no key", good.replace(&format!("Sec-WebSocket-Key: {KEY}\r\n"), ""), 400),
        ("a key of 15 bytes", good.replace(KEY, "AAAAAAAAAAAAAAAAAAAA"), 400),
        ("a key that is no base64", good.replace(KEY, "!!!!!!!!!!!!!!!!!!!!!!=="), 400),
        ("another upgrade", good.replace("Upgrade: websocket", "Upgrade: h2c"), 400),
        ("no Connection: upgrade", good.replace("Connection: Upgrade", "Connection: keep-alive"), 400),
        ("version 8", good.replace("Version: 13", "Version: 8"), 426),
        ("no version", good.replace("Sec-WebSocket-Version: 13\r\n", ""), 426),
        ("a body", upgrade_request(ECHO, "Content-Length: 2\r\n") + "hi", 400),
    ] {
        let mut http = Http::connect(target.addr).await;
        http.write(request.as_bytes()).await.expect("written");
        let response = http.response().await;
        assert_eq!(response.status, status, "{what}: {response:?}");
        if status == 426 {
            assert_eq!(response.header("sec-websocket-version"), Some("13"), "{what}");
        } else {
            assert_eq!(response.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("close"), "{what}");
        }
    }
    for lists in [
        good.replace("Connection: Upgrade", "Connection: keep-alive, uPgRaDe"),
        good.replace("Upgrade: websocket", "Upgrade: foo, WebSocket"),
        good.replace("Connection: Upgrade", "connection: keep-alive\r\nCONNECTION: upgrade"),
    ] {
        let mut http = Http::connect(target.addr).await;
        http.write(lists.as_bytes()).await.expect("written");
        assert_eq!(http.response().await.status, 101, "{lists}");
    }
}

#[tokio::test]
async fn w02_a_handshake_may_come_in_single_bytes_and_frames_right_behind_it() {
    let target = Target::start().await;
    let mut http = Http::connect(target.addr).await;
    for byte in upgrade_request(ECHO, "").bytes() {
        http.write(&[byte]).await.expect("written");
    }
    assert_eq!(http.response().await.status, 101);
    let mut ws = Ws { http };
    ws.assert_echoes().await;

    let mut http = Http::connect(target.addr).await;
    let request = upgrade_request(ECHO, "");
    let together =
        [request.as_bytes(), &frame(TEXT, "first"), &frame(BINARY, b"second"), &frame(TEXT, "third")[..3]].concat();
    http.write(&together).await.expect("written");
    assert_eq!(http.response().await.status, 101);
    let mut ws = Ws { http };
    assert_eq!(ws.next().await, text("first"));
    assert_eq!(ws.next().await, Message::Binary(b"second".to_vec()));
    ws.write(&frame(TEXT, "third")[3..]).await;
    assert_eq!(ws.next().await, text("third"));
}

#[tokio::test]
async fn w02_a_handshake_has_limits() {
    let Some(target) = Target::ours("its limits are others").await else { return };
    let fields =
        |count: usize, size: usize| (0..count).map(|n| format!("X-{n}: {}\r\n", "x".repeat(size))).collect::<String>();
    assert!(Ws::request(target.addr, ECHO, &fields(40, 10)).await.is_ok());
    for (what, extra) in
        [("65 headers", fields(65, 1)), ("17 KiB", fields(1, 17 * 1024)), ("2,000 headers", fields(2_000, 20))]
    {
        let mut http = Http::connect(target.addr).await;
        http.write(upgrade_request(ECHO, &extra).as_bytes()).await.ok();
        if let Some(response) = http.answer().await {
            assert!((400..500).contains(&response.status), "{what}: {response:?}");
        }
    }
    let begun = Instant::now();
    let mut http = Http::connect(target.addr).await;
    http.write(b"GET /echo HTTP/1.1\r\nHost: ").await.expect("written");
    if let Some(response) = http.answer().await {
        assert!((400..500).contains(&response.status));
    }
    assert!(
        begun.elapsed() >= Duration::from_secs(4) && begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn w03_client_frames_are_masked_with_any_mask() {
    let target = Target::start().await;
    assert_code(&target, "unmasked", [0x81, 2, b'h', b'i'], 1002).await;
    let mut ws = echo(&target).await;
    for mask in [[0; 4], [0xff; 4], [1, 2, 3, 4], [0, 0, 0, 0x80]] {
        ws.write(frame_bytes(0x80 | TEXT, mask, b"masked with anything")).await;
        assert_eq!(ws.next().await, text("masked with anything"));
    }
    let long: String = ('a'..='z').cycle().take(300).collect();
    let bytes = frame(TEXT, &long);
    for cut in 0..=20.min(bytes.len()) {
        ws.write(&bytes[..cut]).await;
        settle(target.addr).await;
        ws.write(&bytes[cut..]).await;
        assert_eq!(ws.next().await, text(&long), "cut at {cut}");
    }
}

#[tokio::test]
async fn w04_reserved_bits_and_opcodes_close() {
    let target = Target::start().await;
    for bit in [0x40, 0x20, 0x10, 0x70] {
        assert_code(&target, "reserved bit", frame_bytes(0x80 | bit | TEXT, [1; 4], b"x"), 1002).await;
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert_code(&target, "reserved opcode", frame(opcode, b"x"), 1002).await;
    }
    let within = [part(TEXT, "begun"), frame_bytes(0x80 | 0x40, [1; 4], b"x")].concat();
    assert_code(&target, "reserved bit within a message", within, 1002).await;
    let within = [part(TEXT, "begun"), frame(3, b"x")].concat();
    assert_code(&target, "reserved opcode within a message", within, 1002).await;

    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-webkit-deflate-frame\r\n";
    Ws::request(target.addr, ECHO, offer).await.expect("accepted, without the extension").assert_echoes().await;
}

#[tokio::test]
async fn w05_lengths_are_in_their_shortest_form() {
    let target = Target::start().await;
    let top_bit = [&[0x82, 0xff][..], &(1_u64 << 63).to_be_bytes(), &[0; 4]].concat();
    if let Some(target) = Target::ours("it does not look").await {
        assert_code(&target, "top bit", &top_bit, 1002).await;
        assert_code(&target, "5 in 16 bits", [0x82, 0xfe, 0, 5, 0, 0, 0, 0, 1, 2, 3, 4, 5], 1002).await;
        let in_64 = [&[0x82, 0xff][..], &300_u64.to_be_bytes(), &[0; 4]].concat();
        assert_code(&target, "300 in 64 bits", in_64, 1002).await;
    }
    let huge = [&[0x82, 0xff][..], &((1_u64 << 62) | 7).to_be_bytes(), &[0; 4]].concat();
    let mut ws = echo(&target).await;
    ws.write(huge).await;
    assert!(matches!(ws.next().await, Message::Close(Some(1009 | 1002))), "refused at the header");
    echo(&target).await.assert_echoes().await;
}

#[tokio::test]
async fn w06_control_frames_are_short_whole_and_handled_at_once() {
    let target = Target::start().await;
    let bytes = [&[0x80 | PING, 0xfe, 0, 126, 0, 0, 0, 0][..], &[0; 126]].concat();
    assert_code(&target, "ping of 126 bytes", bytes, 1002).await;
    assert_code(&target, "fragmented ping", part(PING, "x"), 1002).await;
    assert_code(&target, "fragmented close", part(CLOSE, close_payload(1000, "")), 1002).await;

    let mut ws = echo(&target).await;
    ws.write([part(TEXT, "one "), frame(PING, "between")].concat()).await;
    assert_eq!(ws.next().await, Message::Pong(b"between".to_vec()), "before the message is complete");
    ws.write(frame(CONTINUATION, "message")).await;
    assert_eq!(ws.next().await, text("one message"));
}

#[tokio::test]
async fn w07_pings_are_answered_and_pongs_are_not() {
    let target = Target::start().await;
    let mut ws = echo(&target).await;
    for payload in [&b""[..], b"hello", &[0xfe; 125]] {
        ws.write(frame(PING, payload)).await;
        assert_eq!(ws.next().await, Message::Pong(payload.to_vec()));
    }
    ws.write([frame(PONG, "unasked"), frame(PONG, "")].concat()).await;
    ws.assert_echoes().await;

    let mut many: Vec<u8> = (0..10).flat_map(|n| frame(PING, format!("{n}"))).collect();
    many.extend(frame(TEXT, "end"));
    ws.write(many).await;
    let (mut last, mut done) = (None, false);
    while !(done && last == Some(b"9".to_vec())) {
        match ws.next().await {
            Message::Pong(payload) => last = Some(payload),
            other => {
                assert_eq!(other, text("end"));
                done = true;
            }
        }
    }
}

#[tokio::test]
async fn w08_fragments_follow_each_other() {
    let target = Target::start().await;
    assert_code(&target, "nothing begun", frame(CONTINUATION, "x"), 1002).await;
    assert_code(&target, "nothing begun, not final", part(CONTINUATION, "x"), 1002).await;
    assert_code(&target, "a new message within one", [part(TEXT, "a"), frame(TEXT, "b")].concat(), 1002).await;
    assert_code(&target, "a new fragment within one", [part(BINARY, "a"), part(BINARY, "b")].concat(), 1002).await;

    let mut ws = echo(&target).await;
    ws.write([part(TEXT, ""), part(CONTINUATION, ""), frame(CONTINUATION, "")].concat()).await;
    assert_eq!(ws.next().await, text(""));
    ws.write([part(BINARY, [1]), part(CONTINUATION, ""), frame(CONTINUATION, [2])].concat()).await;
    assert_eq!(ws.next().await, Message::Binary(vec![1, 2]));
    ws.write([frame(TEXT, ""), frame(BINARY, "")].concat()).await;
    assert_eq!(ws.next().await, text(""));
    assert_eq!(ws.next().await, Message::Binary(vec![]));
}

#[tokio::test]
async fn w09_text_is_utf8_over_fragments() {
    let target = Target::start().await;
    let mut ws = echo(&target).await;
    let message = "κόσμε, 你好, 𝄞 \u{10ffff} \u{0} \u{fffe}";
    for cut in 0..=message.len() {
        let bytes = message.as_bytes();
        ws.write([part(TEXT, &bytes[..cut]), frame(CONTINUATION, &bytes[cut..])].concat()).await;
        assert_eq!(ws.next().await, text(message), "cut at {cut}");
    }
    for (what, bytes) in [
        ("a surrogate", &b"\xed\xa0\x80"[..]),
        ("overlong", b"\xc0\xaf"),
        ("overlong, three bytes", b"\xe0\x80\x80"),
        ("above U+10FFFF", b"\xf4\x90\x80\x80"),
        ("five bytes", b"\xf8\x88\x80\x80\x80"),
        ("a lone continuation", b"\x80"),
        ("cut off at the end", b"good \xe4\xbd"),
    ] {
        assert_code(&target, what, frame(TEXT, bytes), 1007).await;
    }
    assert_code(&target, "over fragments", [part(TEXT, b"\xe4\xbd"), frame(CONTINUATION, b"\x41")].concat(), 1007)
        .await;
    ws.binary(b"\xff\xfe\xc0").await;
    assert_eq!(ws.next().await, Message::Binary(b"\xff\xfe\xc0".to_vec()), "binary may be anything");

    let Some(target) = Target::ours("it looks when the message is complete").await else { return };
    assert_code(&target, "in the first fragment", part(TEXT, b"\xf4\x90\x80"), 1007).await;
    assert_code(
        &target,
        "in an incomplete frame",
        &frame(TEXT, b"bad \xf4\x90 and a rest that never comes")[..13],
        1007,
    )
    .await;
}

#[tokio::test]
async fn w10_a_message_above_the_limit_is_refused_at_its_header() {
    let target = Target::start().await;
    const LIMIT: usize = 16 * 1024 * 1024;
    let header = [&[0x80 | BINARY, 0xff][..], &(LIMIT as u64 + 1).to_be_bytes(), &[0; 4]].concat();
    assert_code(&target, "one frame", header, 1009).await;
    let sum = [
        part(BINARY, "first"),
        [&[BINARY & CONTINUATION, 0xff][..], &(LIMIT as u64 - 4).to_be_bytes(), &[0; 4]].concat(),
    ]
    .concat();
    assert_code(&target, "the sum of fragments", sum, 1009).await;

    let mut ws = echo(&target).await;
    let message = vec![7; 1024 * 1024];
    ws.binary(&message).await;
    assert_eq!(ws.next().await, Message::Binary(message));
}

#[tokio::test]
async fn w11_a_close_payload_is_a_code_and_utf8() {
    let target = Target::start().await;
    assert_code(&target, "one byte", frame(CLOSE, [3]), 1002).await;
    assert_code(&target, "bad UTF-8", frame(CLOSE, close_payload(1000, b"\xce\xba\xff")), 1007).await;
    let long = [&[0x80 | CLOSE, 0xfe, 0, 126, 0, 0, 0, 0][..], &close_payload(1000, [b'x'; 124])].concat();
    assert_code(&target, "126 bytes", long, 1002).await;

    let mut ws = echo(&target).await;
    ws.write(frame(CLOSE, close_payload(1000, [b'x'; 123]))).await;
    assert_eq!(ws.next().await, Message::Close(Some(1000)));
    let mut ws = echo(&target).await;
    ws.write(frame(CLOSE, "")).await;
    assert!(matches!(ws.next().await, Message::Close(None | Some(1000))));
}

#[tokio::test]
async fn w12_codes_that_may_not_be_sent_are_refused() {
    let target = Target::start().await;
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
        let mut ws = echo(&target).await;
        ws.write(frame(CLOSE, close_payload(code, "bye"))).await;
        assert_eq!(ws.next().await, Message::Close(Some(code)));
        assert_eq!(ws.next().await, Message::End);
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        assert_code(&target, &format!("code {code}"), frame(CLOSE, close_payload(code, "")), 1002).await;
    }
}

#[tokio::test]
async fn w13_a_close_is_answered_once_and_ends_everything() {
    let target = Target::start().await;
    let mut ws = echo(&target).await;
    let close = frame(CLOSE, close_payload(1000, ""));
    ws.write([&close[..], &frame(TEXT, "late"), &frame(PING, "late"), &close].concat()).await;
    assert_eq!(ws.next().await, Message::Close(Some(1000)));
    assert_eq!(ws.next().await, Message::End);

    let mut ws = echo(&target).await;
    ws.write([part(TEXT, "unfinished"), frame(CLOSE, close_payload(4000, ""))].concat()).await;
    assert_eq!(ws.next().await, Message::Close(Some(4000)), "a clean close");
    assert_eq!(ws.next().await, Message::End);
}

#[tokio::test]
async fn w14_the_server_ends_tcp_and_waits_for_nobody() {
    let target = Target::start().await;
    let mut ws = echo(&target).await;
    ws.write(frame(CLOSE, close_payload(1000, ""))).await;
    assert_eq!(ws.next().await, Message::Close(Some(1000)));
    let begun = Instant::now();
    assert_eq!(ws.next().await, Message::End, "the client has not closed");
    assert!(begun.elapsed() < Duration::from_secs(2));

    let Some(target) = Target::ours("it waits 30 s for the peer").await else { return };
    let mut ws = echo(&target).await;
    ws.write(frame(3, "x")).await;
    assert_eq!(ws.next().await, Message::Close(Some(1002)));
    let begun = Instant::now();
    assert_eq!(ws.next().await, Message::End, "the client does not answer");
    assert!(begun.elapsed() < Duration::from_millis(2_500), "{:?}", begun.elapsed());

    let Some(base) = target.descriptors() else { return };
    for _ in 0..50 {
        let mut ws = echo(&target).await;
        ws.assert_echoes().await;
        ws.http.stream.get_mut().set_zero_linger().expect("a reset instead of an end");
    }
    target.descriptors_fall_to(base).await;
}

#[tokio::test]
async fn w15_any_cut_gives_the_same_events() {
    let target = Target::start().await;
    let mut random = fastrand::Rng::with_seed(15);
    let messages: Vec<String> = (0..30).map(|n| format!("{n} ").repeat(random.usize(0..60))).collect();
    let stream: Vec<u8> = messages
        .iter()
        .flat_map(|message| match message.char_indices().nth(message.len() / 2) {
            Some((cut, _)) => [part(TEXT, &message[..cut]), frame(CONTINUATION, &message[cut..])].concat(),
            None => frame(TEXT, message),
        })
        .collect();
    for _ in 0..20 {
        let mut ws = echo(&target).await;
        let mut rest = &stream[..];
        let mut cuts = fastrand::Rng::with_seed(random.u64(..));
        let (mut received, mut sent) = (Vec::new(), 0);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(cuts.usize(1..=rest.len().min(200)));
            ws.http.stream.get_mut().write_all(now).await.expect("written");
            (rest, sent) = (later, sent + 1);
            tokio::task::yield_now().await;
        }
        while received.len() < messages.len() {
            match ws.next().await {
                Message::Text(message) => received.push(message),
                other => panic!("{other:?} after {} messages in {sent} pieces", received.len()),
            }
        }
        assert_eq!(received, messages);
    }
}

#[tokio::test]
async fn w15_any_bytes_end_in_a_documented_code_and_disturb_nobody() {
    let target = Target::start().await;
    let mut neighbour = echo(&target).await;
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..300 {
        let mut ws = echo(&target).await;
        let bytes: Vec<u8> = (0..random.usize(1..200)).map(|_| random.u8(..)).collect();
        ws.write(&bytes).await;
        ws.shutdown().await;
        let end = async {
            loop {
                match ws.next().await {
                    Message::Close(Some(code)) => {
                        assert!([1000, 1002, 1007, 1009].contains(&code) || code >= 3000, "code {code} for {bytes:?}")
                    }
                    Message::End => break,
                    _ => {}
                }
            }
        };
        guarded(&format!("the end of round {round}"), end).await;
    }
    neighbour.assert_echoes().await;
}
