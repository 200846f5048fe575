//! `plaza`, all in one process, as a person starts it: what it prints, that it chats, how it ends, and what it
//! says when it cannot start.

use crate::relay::{Ws, next};
use crate::sockets::upgrade;
use futures_util::SinkExt;
use plaza_tests::cluster::{http_get, wait_ready};
use plaza_tests::nats::NatsServer;
use plaza_tests::process::{Process, built};
use plaza_tests::redis::RedisServer;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

const LISTENERS: [&str; 4] = ["--listen", "--session-listen", "--fanout-listen", "--admin-listen"];

/// Starts `plaza` on free ports.
fn plaza(more: &[&str]) -> Process {
    let mut args: Vec<String> =
        LISTENERS.iter().flat_map(|&flag| [flag.to_owned(), "127.0.0.1:0".to_owned()]).collect();
    args.extend(more.iter().map(|&arg| arg.to_owned()));
    Process::start("plaza", &built("plaza"), &args, &[])
}

/// What it prints for a person, once it is all there.
async fn banner(plaza: &mut Process) -> String {
    let whole = |log: &str| Some(log.get(log.find("  Plaza is open at")?..log.find("  Ctrl-C ends it.")?)?.to_owned());
    plaza.wait_log("its banner", whole).await
}

/// The address behind `before` in the banner.
fn addr(banner: &str, before: &str) -> SocketAddr {
    let (_, rest) = banner.split_once(before).unwrap_or_else(|| panic!("no {before} in {banner}"));
    let end = rest.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | ':'))).unwrap_or(rest.len());
    rest[..end].parse().unwrap_or_else(|error| panic!("{error} behind {before} in {banner}"))
}

/// A client of Plaza's own protocol that is welcomed.
async fn own(public: SocketAddr) -> Ws {
    let (mut ws, _) = connect_async(upgrade(public, true)).await.expect("upgraded");
    ask(&mut ws, r#"{"id":1,"hello":{}}"#, "\"welcome\"").await;
    ws
}

/// Sends a frame, and gives the next one that has `wanted` in it.
async fn ask(ws: &mut Ws, frame: &str, wanted: &str) -> String {
    ws.send(Message::text(frame)).await.expect("sent");
    hear(ws, wanted).await
}

async fn hear(ws: &mut Ws, wanted: &str) -> String {
    loop {
        let frame = next(ws).await.unwrap_or_else(|| panic!("the end instead of {wanted}"));
        if frame.contains(wanted) {
            return frame;
        }
        assert!(!frame.contains("\"error\""), "{frame} instead of {wanted}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plaza_chats_over_both_protocols_and_ctrl_c_ends_it_within_two_seconds() {
    let mut times = Vec::new();
    // Of several tries the best one: the others tell how busy the machine is.
    for _ in 0..3 {
        let mut plaza = plaza(&[]);
        let banner = banner(&mut plaza).await;
        let public = addr(&banner, "open at  http://");
        assert!(addr(&banner, "session ").port() > 0 && addr(&banner, "fanout ").port() > 0);
        assert!(banner.contains("In memory only    messages, sessions and names;"), "{banner}");
        wait_ready(addr(&banner, "metrics   http://")).await;
        let page = http_get(public, "/").await.expect("an answer");
        assert!(page.starts_with("HTTP/1.1 200") && page.contains("<title>Plaza</title>"), "{page}");
        if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            let twin = SocketAddr::from((Ipv6Addr::LOCALHOST, public.port()));
            assert!(http_get(twin, "/healthz").await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200")));
        }

        let (mut stock, _) = connect_async(upgrade(public, false)).await.expect("upgraded");
        ask(&mut stock, "40", "您已进入聊天室!").await;
        let mut ada = own(public).await;
        ask(&mut ada, r#"{"id":2,"setUsername":{"username":"ada"}}"#, "\"ok\"").await;
        ask(&mut ada, r#"{"id":3,"join":{"room":"lobby"}}"#, "\"joined\"").await;
        ask(&mut ada, r#"{"id":4,"publish":{"room":"lobby","text":"hello"}}"#, "\"published\"").await;
        hear(&mut stock, "ada:hello").await;

        let begin = Instant::now();
        plaza.signal("INT");
        let status = plaza.wait().await;
        times.push(begin.elapsed());
        assert_eq!(status.code(), Some(0), "{}", plaza.log());
        if times.iter().any(|time| *time < Duration::from_secs(2)) {
            return;
        }
    }
    panic!("it took {times:?} to end");
}

#[tokio::test(flavor = "multi_thread")]
async fn plaza_waits_for_its_stores_and_keeps_what_they_hold() {
    let (mut redis, mut nats) = tokio::join!(RedisServer::start(), NatsServer::start());
    let (redis_url, nats_url) = (redis.url(), nats.url());
    redis.kill();
    nats.kill();
    let urls = ["--redis-url", &redis_url, "--nats-url", &nats_url];
    let mut first = plaza(&urls);
    let text = banner(&mut first).await;
    assert!(!text.contains("In memory"), "{text}");
    let (public, admin) = (addr(&text, "open at  http://"), addr(&text, "metrics   http://"));
    let alive = http_get(admin, "/livez").await.expect("an answer");
    let ready = http_get(admin, "/readyz").await.expect("an answer");
    assert!(alive.starts_with("HTTP/1.1 200") && ready.starts_with("HTTP/1.1 503"), "{alive}\n{ready}");
    let waits = ["waiting for NATS", "waiting for nats ", "redis does not answer: waiting for it"];
    first.wait_log("what it waits for", |log| waits.iter().all(|wait| log.contains(wait)).then_some(())).await;
    tokio::join!(redis.restart(), nats.restart());
    wait_ready(admin).await;
    let log = first.log();
    for wait in waits {
        assert_eq!(log.matches(wait).count(), 1, "{wait}: once for each change of state:\n{log}");
    }

    let mut ada = own(public).await;
    ask(&mut ada, r#"{"id":2,"setUsername":{"username":"ada"}}"#, "\"ok\"").await;
    ask(&mut ada, r#"{"id":3,"join":{"room":"kept"}}"#, "\"joined\"").await;
    ask(&mut ada, r#"{"id":4,"publish":{"room":"kept","text":"hello"}}"#, "\"published\"").await;
    first.signal("INT");
    assert_eq!(first.wait().await.code(), Some(0), "{}", first.log());

    let mut second = plaza(&urls);
    let text = banner(&mut second).await;
    wait_ready(addr(&text, "metrics   http://")).await;
    let mut bob = own(addr(&text, "open at  http://")).await;
    ask(&mut bob, r#"{"id":2,"join":{"room":"kept"}}"#, "\"joined\"").await;
    let page = ask(&mut bob, r#"{"id":3,"history":{"room":"kept"}}"#, "\"history\"").await;
    assert!(page.contains("\"text\":\"hello\""), "{page}");
}

#[tokio::test]
async fn wrong_settings_are_all_named_and_end_with_2() {
    for program in ["plaza", "plaza-edge", "plaza-session", "plaza-fanout"] {
        let args = ["--listen", "nowhere", "--admin-listen", "127.0.0.1:65536", "--no-such-flag"].map(str::to_owned);
        let mut process =
            Process::start(program, &built(program), &args, &[("PLAZA_MAX_CONNECTION_AGE", "soon".into())]);
        let code = process.wait().await.code();
        let log = process.log();
        assert_eq!(code, Some(2), "{program}: {log}");
        for wrong in ["--listen: ", "--admin-listen: ", "--no-such-flag: ", "PLAZA_MAX_CONNECTION_AGE: "] {
            assert!(log.contains(wrong), "{program} says nothing of {wrong}: {log}");
        }
        assert!(log.contains(&format!("`{program} --help` explains every setting")), "{log}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_told_with_its_remedy_also_when_the_other_one_shares_it() {
    let mut first = plaza(&["--threads", "2"]);
    let public = addr(&banner(&mut first).await, "open at  http://").to_string();
    let mut second = plaza(&["--threads", "2", "--listen", &public]);
    let code = second.wait().await.code();
    let log = second.log();
    assert_eq!(code, Some(1), "{log}");
    assert!(
        log.contains(&format!("cannot listen on {public}: another process listens there; stop it, or choose")),
        "{log}"
    );
    assert!(log.contains("with --listen 127.0.0.1:8000"), "{log}");
}
