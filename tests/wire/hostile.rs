//! What broke comparable servers: malformed input in bulk, connections abandoned at every point,
//! counts and lengths that promise much. After each the server is the same process, with no more
//! descriptors than before, and a neighbour goes on.

use crate::http::{Http, guarded, settle};
use crate::polling::{ENGINE, Polling, SOCKET};
use crate::target::Target;
use crate::ws::{BINARY, CONTINUATION, Message, PING, TEXT, Ws, frame, part, upgrade_request};
use fastrand::Rng;
use std::time::{Duration, Instant};

const SOCKET_WS: &str = "/socket.io/?EIO=4&transport=websocket";

/// Well-formed packets, to be spoilt.
const PACKETS: [&str; 10] = [
    "42[\"message\",\"你好\",{\"a\":[1,2.5e3,null]}]",
    "42/custom,[\"message\",1]",
    "4217[\"message-with-ack\",\"x\"]",
    "451-[\"message\",{\"_placeholder\":true,\"num\":0}]",
    "452-9[\"message-with-ack\",{\"_placeholder\":true,\"num\":1},{\"_placeholder\":true,\"num\":0}]",
    "40/custom,{\"token\":\"abc\"}",
    "40{\"room\":\"a\",\"locale\":\"zh\"}",
    "41",
    "43[]",
    "44/nope,{\"message\":\"x\"}",
];

/// Changes a few bytes: flips, inserts, removes, doubles.
fn spoil(random: &mut Rng, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.usize(1..4) {
        let at = random.usize(0..=bytes.len());
        match random.u8(0..4) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.u8(0..8),
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 => bytes.insert(at, *random.choice(b"0123456789-,/[]{}\"\\\x00\x1e\xffb").expect("there are some")),
            _ => {
                let tail = bytes[at..].to_vec();
                bytes.extend_from_slice(&tail);
            }
        }
    }
    bytes
}

#[tokio::test]
async fn thousands_of_malformed_packets_on_a_websocket_disturb_nobody() {
    let target = Target::start().await;
    let mut random = Rng::with_seed(1);
    let mut neighbour = Ws::open(target.addr, "/echo").await;
    for round in 0..4_000 {
        let mut ws = Ws::open(target.addr, SOCKET_WS).await;
        let packet = random.choice(PACKETS).expect("there are some");
        let opcode = random.choice([TEXT, TEXT, TEXT, BINARY]).expect("there are some");
        ws.write(
            [frame(TEXT, "40"), frame(opcode, spoil(&mut random, packet.as_bytes())), frame(BINARY, "x")].concat(),
        )
        .await;
        if round % 100 == 0 {
            neighbour.assert_echoes().await;
        }
    }
    neighbour.assert_echoes().await;
}

#[tokio::test]
async fn thousands_of_malformed_bodies_disturb_nobody() {
    let target = Target::start().await;
    let mut random = Rng::with_seed(2);
    let mut neighbour = Ws::open(target.addr, "/echo").await;
    for round in 0..1_500 {
        let path = if round % 2 == 0 { SOCKET } else { ENGINE };
        let polling = Polling::open(target.addr, path).await;
        let body = format!("40\u{1e}{}\u{1e}bAAEC", random.choice(PACKETS).expect("there are some"));
        let mut http = Http::connect(target.addr).await;
        http.send("POST", &polling.url("polling"), &[], &spoil(&mut random, body.as_bytes())).await;
        if let Some(response) = http.answer().await {
            assert!([200, 400, 413].contains(&response.status), "{response:?}");
        }
        if round % 100 == 0 {
            neighbour.assert_echoes().await;
        }
    }
    neighbour.assert_echoes().await;
}

#[tokio::test]
async fn thousands_of_malformed_handshakes_and_frames_disturb_nobody() {
    let target = Target::start().await;
    let mut random = Rng::with_seed(3);
    let mut neighbour = Ws::open(target.addr, "/echo").await;
    let request = upgrade_request("/echo", "Sec-WebSocket-Protocol: plaza.v1.json\r\n");
    let frames = [part(TEXT, "κόσμε"), frame(PING, "p"), frame(CONTINUATION, "x"), frame(BINARY, [0; 300])].concat();
    for round in 0..4_000 {
        let mut http = Http::connect(target.addr).await;
        let bytes = if round % 2 == 0 {
            spoil(&mut random, request.as_bytes())
        } else {
            [request.as_bytes(), &spoil(&mut random, &frames)].concat()
        };
        http.write(&bytes).await.ok();
        if round % 100 == 0 {
            neighbour.assert_echoes().await;
        }
    }
    neighbour.assert_echoes().await;
}

#[tokio::test]
async fn a_handshake_cut_at_every_byte_leaves_nothing() {
    let Some(target) = Target::ours("its descriptors cannot be counted").await else { return };
    let mut neighbour = Ws::open(target.addr, "/echo").await;
    let base = target.descriptors();
    let request = upgrade_request(SOCKET_WS, "");
    for cut in 0..request.len() {
        let mut http = Http::connect(target.addr).await;
        http.write(&request.as_bytes()[..cut]).await.expect("written");
        if cut % 2 == 0 {
            http.stream.get_mut().set_zero_linger().expect("a reset instead of an end");
        }
    }
    neighbour.assert_echoes().await;
    if let Some(base) = base {
        target.descriptors_fall_to(base).await;
    }
}

#[tokio::test]
async fn sessions_abandoned_in_any_state_leave_nothing() {
    let Some(target) = Target::ours("its descriptors cannot be counted").await else { return };
    let Some(base) = target.descriptors() else { return };
    for state in 0..400 {
        match state % 5 {
            0 => drop(Polling::open(target.addr, SOCKET).await),
            1 => {
                let polling = Polling::open(target.addr, SOCKET).await;
                let mut http = Http::connect(target.addr).await;
                http.send("GET", &polling.url("polling"), &[], b"").await;
            }
            2 => {
                let polling = Polling::open(target.addr, ENGINE).await;
                let mut http = Http::connect(target.addr).await;
                let head =
                    format!("POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n4", polling.url("polling"));
                http.write(head.as_bytes()).await.expect("written");
            }
            3 => {
                let mut ws = Ws::open(target.addr, SOCKET_WS).await;
                ws.text("40").await;
                ws.text("453-[\"message\",{\"_placeholder\":true,\"num\":0}]").await;
            }
            _ => {
                let mut ws = Ws::open(target.addr, SOCKET_WS).await;
                ws.write(&frame(TEXT, "42[\"message\",\"cut\"]")[..7]).await;
            }
        }
    }
    target.descriptors_fall_to(base).await;
    Ws::open(target.addr, "/echo").await.assert_echoes().await;
}

#[tokio::test]
async fn counts_and_lengths_that_promise_much_are_refused_at_once() {
    let target = Target::start().await;
    let mut ws = Ws::open(target.addr, SOCKET_WS).await;
    ws.text("40").await;
    ws.text("451000000-[\"message\"]").await;
    ws.assert_ends().await;

    let mut ws = Ws::open(target.addr, "/echo").await;
    ws.write([&[0x82, 0xff][..], &(u64::MAX >> 1).to_be_bytes(), &[0; 4]].concat()).await;
    assert!(matches!(ws.next().await, Message::Close(Some(1002 | 1009)) | Message::End));
    settle(target.addr).await;
}

#[tokio::test]
async fn blanks_in_headers_cost_no_time() {
    let target = Target::start().await;
    for name in ["Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Sec-WebSocket-Version", "Connection", "Origin"]
    {
        let begun = Instant::now();
        for _ in 0..10 {
            let mut http = Http::connect(target.addr).await;
            let extra = format!("{name}: a{}b\r\n", " ".repeat(12 * 1024));
            http.write(upgrade_request("/echo", &extra).as_bytes()).await.ok();
            guarded("an answer or an end", http.answer()).await;
        }
        assert!(begun.elapsed() < Duration::from_secs(1), "{name}: {:?} for ten", begun.elapsed());
    }
}
