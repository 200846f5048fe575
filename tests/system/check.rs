//! `plaza-edge check` against a Plaza that works, and against several that do not.

use plaza_tests::cluster::Cluster;
use plaza_tests::process::{Process, built, free_port};

/// Runs the check to its end: its exit code, and what it printed.
async fn check(args: &[&str]) -> (Option<i32>, String) {
    let mut all = vec!["check".to_owned()];
    all.extend(args.iter().map(|&argument| argument.to_owned()));
    let mut process = Process::start("check", &built("plaza-edge"), &all, &[]);
    let status = process.wait().await;
    (status.code(), process.log())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_passes_where_plaza_works_and_names_the_step_that_fails() {
    let mut cluster = Cluster::start(1).await;
    let (edge, session) = (cluster.edges[0].url(), cluster.session.url());
    let (code, log) = check(&["--url", &edge, "--session-addr", &session]).await;
    assert_eq!(code, Some(0), "{log}");
    for step in ["connect", "name", "join", "socket.io", "send", "receive", "deliver", "session"] {
        assert!(
            log.lines().any(|line| line.starts_with("ok ") && line.contains(&format!(" {step} "))),
            "{step}:\n{log}"
        );
    }

    let nobody = format!("http://127.0.0.1:{}", free_port());
    let (code, log) = check(&["--url", &edge, "--session-addr", &nobody]).await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("FAILED") && log.contains(&format!("{nobody} answers Unavailable")), "{log}");

    // What publishes is gone: the clients are there, the message is not.
    cluster.fanout.process.kill();
    let (code, log) = check(&["--url", &edge, "--session-addr", &session, "--timeout", "3s"]).await;
    assert_eq!(code, Some(1), "{log}");
    let failed = log.lines().find(|line| line.starts_with("FAILED")).unwrap_or_default();
    assert!(failed.contains(" join ") || failed.contains(" send "), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_of_a_dead_or_foreign_server_fails_and_says_why() {
    let (code, log) = check(&["--url", &format!("ws://127.0.0.1:{}/ws", free_port())]).await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("cannot be reached"), "{log}");

    // It accepts and never answers.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let begin = std::time::Instant::now();
    let (code, log) = check(&["--url", &url, "--timeout", "1s"]).await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("no answer in time") || log.contains("did not answer in time"), "{log}");
    assert!(begin.elapsed().as_secs() < 30, "it is bounded: {:?}", begin.elapsed());

    let (code, log) = check(&["--url", "edge:5000", "--room", "no/room"]).await;
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains("2 settings are wrong"), "{log}");
}
