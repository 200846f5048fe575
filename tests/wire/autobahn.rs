//! The Autobahn test suite against the raw echo: all 517 cases. Compression is declined, so its families say
//! UNIMPLEMENTED, each case of them; everything else is OK, or informational where RFC 6455 leaves a choice.

use crate::target::Target;
use plaza_tests::not_run;
use plaza_tests::process::{Process, fresh_folder, installed};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

/// Cases of each family: first number of their name.
const FAMILIES: [(&str, usize); 11] = [
    ("1", 16),
    ("2", 11),
    ("3", 7),
    ("4", 10),
    ("5", 20),
    ("6", 145),
    ("7", 37),
    ("9", 54),
    ("10", 1),
    ("12", 90),
    ("13", 126),
];
/// permessage-deflate.
const COMPRESSION: [&str; 2] = ["12", "13"];
/// What happens to a connection after a close code above 4999, or after 1 s without an answer to our close,
/// is the implementation's choice.
const CHOICES: [&str; 3] = ["7.1.6", "7.13.1", "7.13.2"];

/// Half a minute alone.
const LIMIT: Duration = Duration::from_secs(300);

#[tokio::test]
async fn autobahn_finds_nothing() {
    let suite = installed("wstest");
    if Command::new(&suite).arg("--autobahnversion").output().is_err() {
        return not_run("Autobahn", "its test program needs Python 2.7; scripts/test installs it where that is");
    }
    let target = Target::start().await;
    let folder = fresh_folder("autobahn");
    let spec = json!({
        "outdir": folder.join("reports"),
        "servers": [{ "agent": "plaza", "url": format!("ws://{}/echo", target.addr) }],
        "cases": ["*"],
        "exclude-cases": [],
        "exclude-agent-cases": {},
    });
    let file = folder.join("spec.json");
    std::fs::write(&file, spec.to_string()).expect("a new file");
    let args = ["-m", "fuzzingclient", "-s", &file.display().to_string()].map(str::to_owned);
    let mut process = Process::start_in("wstest", &suite, &args, &[], folder.clone());
    let status = process.wait_within(LIMIT).await;
    assert!(status.success(), "wstest: {status}\n{}", process.log());

    let report = std::fs::read(folder.join("reports/index.json")).expect("a report");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    let cases = report["plaza"].as_object().expect("the cases of the one agent");
    let wrong: Vec<String> = cases
        .iter()
        .filter(|(name, case)| {
            let expected = match name.split('.').next().unwrap_or_default() {
                family if COMPRESSION.contains(&family) => ("UNIMPLEMENTED", "OK"),
                _ if CHOICES.contains(&name.as_str()) => ("INFORMATIONAL", "INFORMATIONAL"),
                _ => ("OK", "OK"),
            };
            (case["behavior"].as_str(), case["behaviorClose"].as_str()) != (Some(expected.0), Some(expected.1))
        })
        .map(|(name, case)| format!("{name}: {}, close {}", case["behavior"], case["behaviorClose"]))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    for (family, count) in FAMILIES {
        let ran = cases.keys().filter(|name| name.split('.').next() == Some(family)).count();
        assert_eq!(ran, count, "cases of family {family}");
    }
}
