//! What a log has and what it never has, whatever its level.

use crate::trace::Client;
use plaza_tests::cluster::{Cluster, Service, http_get, http_put};
use plaza_tests::otlp::{Receiver, Span};
use plaza_tests::process::{Process, built};
use serde_json::json;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Passwords of the stores, as URLs hold them.
const SECRETS: [&str; 2] = ["PlantedRedisPassword", "PlantedNatsPassword"];

/// Says something that is not HTTP; the answer has come when this returns.
async fn babble(edge: SocketAddr) {
    let mut socket = TcpStream::connect(edge).await.expect("the edge listens");
    socket.write_all(b"\0 no request\r\n\r\n").await.expect("it is taken");
    // It may be cut off before all of it is read.
    let _ = socket.read_to_end(&mut Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_level_of_a_log_changes_while_the_process_runs() {
    let mut cluster = Cluster::start(1).await;
    let (addr, admin) = (cluster.edges[0].addr, cluster.edges[0].admin);
    let edge = &mut cluster.edges[0].process;
    let count = |log: &str| log.matches("an HTTP connection ended early").count();
    let mut seen = 0;
    for (level, lines) in [("info", 0), ("info,plaza_edge=trace", 1), ("warn", 0), ("trace", 1)] {
        let answer = http_put(admin, "/log-level", level).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        babble(addr).await;
        seen += lines;
        edge.wait_log(&format!("the lines at {level}"), |log| (count(log) >= seen).then_some(())).await;
    }
    assert_eq!(count(&edge.log()), seen, "{}", edge.log());
}

/// Whether a line is `TIME LEVEL where: what happened`.
fn is_for_people(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let [time, level] = [(); 2].map(|()| words.next().unwrap_or_default());
    let is_time = time.len() == 27 && time.starts_with("20") && time.ends_with('Z');
    is_time && ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level) && line.contains(": ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_for_people_has_one_plain_line_a_fact_and_the_trace_of_a_sampled_call() {
    let mut receiver = Receiver::start().await;
    let cluster = Cluster::start(0).await;
    let (redis, fanout) = (cluster.redis.url(), cluster.fanout.url());
    let args = [
        ["--listen", "127.0.0.1:0"],
        ["--admin-listen", "127.0.0.1:0"],
        ["--log-format", "human"],
        ["--log-level", "trace"],
        ["--redis-url", &redis],
        ["--fanout-addr", &fanout],
    ];
    let args: Vec<String> = args.concat().into_iter().map(str::to_owned).collect();
    let mut session = Process::start("plaza-session", &built("plaza-session"), &args, &receiver.envs());
    let listening = |log: &str| {
        let line = log.lines().find(|line| line.contains("listening flag=\"listen\""))?;
        line.split_once(" addr=")?.1.parse::<SocketAddr>().ok()
    };
    let addr = session.wait_log("where it listens", listening).await;
    let nats = cluster.nats.url();
    let url = format!("http://{addr}");
    let of_edge =
        ["--peer-listen", "127.0.0.1:0", "--session-addr", &url, "--fanout-addr", &fanout, "--nats-url", &nats];
    let _edge = Service::start("plaza-edge", &of_edge.map(str::to_owned)).await;
    // What is logged in a call names the call's trace.
    let registered = |log: &str| log.lines().find(|line| line.contains(": edge registered ")).map(str::to_owned);
    let line = session.wait_log("the lease", registered).await;
    let span = |spans: &[Span]| spans.iter().find(|span| span.name.ends_with("/Register")).cloned();
    let span = receiver.wait("the call's span", span).await;
    let end = format!(" trace_id={} span_id={}", span.trace_id, span.span_id);
    assert!(line.contains(" incarnation=") && line.ends_with(&end), "{line}");

    let log = session.log();
    assert!(!log.contains('\u{1b}'), "it is no terminal: {log}");
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    assert!(whole.lines().count() > 20, "{log}");
    for line in whole.lines() {
        assert!(is_for_people(line), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_passwords_of_stores_appear_nowhere() {
    let mut receiver = Receiver::start().await;
    let mut cluster = Cluster::start(1).await;
    let [of_redis, of_nats] = SECRETS;
    // Redis knows nobody of this name; NATS asks nobody for one.
    let redis = cluster.redis.url().replace("redis://", &format!("redis://planted:{of_redis}@"));
    let nats = cluster.nats.url().replace("nats://", &format!("nats://planted:{of_nats}@"));
    let start = async |program: &str, pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().chain(&[("--log-level", "trace")]);
        let args: Vec<String> = pairs.flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]).collect();
        Service::start_with(program, &args, &receiver.envs()).await
    };
    let fanout = start("plaza-fanout", &[("--nats-url", &nats)]).await;
    let session = start("plaza-session", &[("--redis-url", &redis), ("--fanout-addr", &fanout.url())]).await;
    let (session_url, fanout_url) = (session.url(), fanout.url());
    let of_edge = [
        ("--session-addr", session_url.as_str()),
        ("--fanout-addr", &fanout_url),
        ("--nats-url", &nats),
        ("--peer-listen", "127.0.0.1:0"),
    ];
    let edge = start("plaza-edge", &of_edge).await;
    let mut services = [fanout, session, edge];
    services[0].process.wait_log("NATS", |log| log.contains("the room log is ready").then_some(())).await;
    services[1].process.wait_log("Redis' refusal", |log| log.contains("redis does not answer").then_some(())).await;
    // What they say when a store goes away, too.
    cluster.nats.kill();
    for (service, line) in [(0, "connection to nats lost"), (2, "the connection to NATS is lost")] {
        let lost = |log: &str| log.contains(line).then_some(());
        services[service].process.wait_log("the loss of NATS", lost).await;
    }
    for service in &services {
        let mut told = service.process.log();
        for path in ["/readyz", "/metrics"] {
            told += &http_get(service.admin, path).await.expect("an answer");
        }
        for secret in SECRETS {
            assert!(!told.contains(secret), "{secret} in\n{told}");
        }
    }
    let spans = receiver.wait("any span", |spans| (!spans.is_empty()).then(|| spans.to_vec())).await;
    assert!(SECRETS.iter().all(|secret| !format!("{spans:?}").contains(secret)), "{spans:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_is_refused_is_not_repeated_with_its_password() {
    let [of_redis, of_nats] = SECRETS;
    let nats = format!("nats://planted:{of_nats}@nowhere:port");
    let redis = format!("redis://planted:{of_redis}@nowhere:port");
    for (program, flag, url) in [
        ("plaza-edge", "--nats-url", &nats),
        ("plaza-fanout", "--nats-url", &nats),
        ("plaza-session", "--redis-url", &redis),
    ] {
        let mut args = vec!["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", flag, url];
        if program == "plaza-edge" {
            args.extend(["--peer-listen", "127.0.0.1:0"]);
        }
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        let mut process = Process::start(program, &built(program), &args, &[]);
        let status = process.wait().await;
        let log = process.log();
        assert!(!status.success() && log.contains(flag), "{program}: {status}\n{log}");
        assert!(SECRETS.iter().all(|secret| !log.contains(secret)), "{program}:\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_secrets_never_appear_in_a_log() {
    const TOKEN: &str = "PlantedToken0123456789abcdefghijk";
    const GUEST: &str = "PlantedGuestKey012345A";
    const TICKET: &str = "PlantedTicket0123456789";
    const TEXT: &str = "PlantedMessageText";
    const NAME: &str = "PlantedName";
    const HEADER: &str = "PlantedHeader0123456789";
    let cluster = Cluster::start(2).await;
    let everyone = || cluster.edges.iter().chain([&cluster.session, &cluster.fanout]);
    for service in everyone() {
        let answer = http_put(service.admin, "/log-level", "trace").await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let answer = http_put(service.admin, "/log-level", "plaza=loudest").await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("error, warn, info"), "{answer}");
    }
    let hello = json!({"token": TOKEN, "guest": GUEST, "resume": TICKET});
    let mut alice = Client::enter(cluster.edges[0].addr, hello, NAME, "quiet").await;
    let mut bob = Client::enter(cluster.edges[1].addr, json!({}), "bob", "quiet").await;
    alice.ask(json!({"id": 4, "publish": {"room": "quiet", "text": TEXT}}), "published").await;
    bob.reads(TEXT).await;
    // What breaks rules is logged most: secrets in places where nothing expects them.
    let _ = http_get(cluster.edges[0].addr, &format!("/socket.io/?EIO=3&transport=polling&token={TOKEN}")).await;
    let _ = http_get(cluster.edges[0].addr, &format!("/socket.io/?EIO=4&transport=polling&sid={TICKET}")).await;
    // In headers that people use for secrets, and in places of URLs where they should not be.
    for (path, headers) in [
        ("/ws".to_owned(), format!("Authorization: Bearer {HEADER}\r\nCookie: session={HEADER}\r\nUpgrade: websocket")),
        (format!("/{HEADER}?password={HEADER}"), format!("X-Api-Key: {HEADER}")),
        (format!("//alice:{HEADER}@127.0.0.1/socket.io/?EIO=4&transport=polling"), format!("Origin: https://{HEADER}")),
    ] {
        let mut socket = TcpStream::connect(cluster.edges[0].addr).await.expect("the edge listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("it is taken");
        socket.read_to_end(&mut Vec::new()).await.expect("it is answered");
    }
    drop((alice, bob));
    for service in everyone() {
        let log = service.process.log();
        assert!(log.contains("log level changed"), "{log}");
        for secret in [TOKEN, GUEST, TICKET, TEXT, NAME, HEADER] {
            assert!(!log.contains(secret), "{secret} in\n{log}");
        }
        let is_raw = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(log.lines().all(|line| !line.contains(is_raw)), "{log}");
    }
}
