//! Rows of the fault table, one seed each, small: what continuous integration runs of `just chaos`.

use plaza_tests::cluster::{Service, wait_ready};
use plaza_tests::nats::NatsServer;
use plaza_tests::process::built;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// A row has the machine to itself: its limits are times.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn passes(row: u32) {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = std::env::temp_dir().join(format!("plaza-faults-{}", std::process::id()));
    let output = Command::new(built("plaza-faults"))
        .args(["--small", "--row", &row.to_string(), "--out"])
        .arg(&folder)
        .output()
        .expect("it was just found");
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "row {row} (again: just chaos --small --row {row}):\n{told}");
}

#[test]
fn row_01_kill_9_of_an_edge_loses_doubles_and_reorders_nothing() {
    passes(1);
}

#[test]
fn row_03_kill_9_of_a_fanout_service_loses_doubles_and_reorders_nothing() {
    passes(3);
}

#[test]
fn row_04_a_restart_of_nats_loses_doubles_and_reorders_nothing() {
    passes(4);
}

#[test]
fn row_10_chat_goes_on_without_redis_and_after_its_loss() {
    passes(10);
}

#[test]
fn row_18_a_rolling_restart_loses_doubles_and_reorders_nothing() {
    passes(18);
}

#[test]
fn row_24_a_retry_after_the_dedupe_window_is_stored_once() {
    passes(24);
}

#[tokio::test]
async fn what_is_shipped_has_no_steps_to_end_at_and_no_rules_to_break() {
    let nats = NatsServer::start().await;
    // With the feature `chaos` each of these ends the process.
    let wrong = [("PLAZA_FAILPOINTS", "provisioned@1"), ("PLAZA_FAILPOINTS", "nothing"), ("PLAZA_SABOTAGE", "nothing")];
    for (variable, value) in wrong {
        let args = ["--nats-url".to_owned(), nats.url()];
        let mut fanout = Service::start_with("plaza-fanout", &args, &[(variable, value.to_owned())]).await;
        wait_ready(fanout.admin).await;
        assert!(fanout.process.status().is_none(), "{variable}={value}");
    }
}
