//! The services understand what the chart tells them.

use crate::renders::{items, renders};
use plaza_edge::config as edge;
use plaza_fanout::config as fanout;
use plaza_kit::discovery::tls::UPSTREAM_TLS_FLAGS;
use plaza_kit::grpc::{GRPC_FLAGS, GrpcOptions};
use plaza_kit::settings::{Flag, Settings};
use plaza_kit::telemetry::LOG_FLAGS;
use plaza_session::config as session;
use plaza_tests::certificates;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Where the chart mounts certificates.
const TLS: &str = "/etc/plaza/tls/";

/// Such certificates, as services read them.
static CERTIFICATES: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("certificates");
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    certificates::alone(&folder, "tls").expect("openssl is installed, as scripts/tools sees to");
    for (from, to) in
        [("tls.pem", "tls.crt"), ("tls.pem", "ca.crt"), ("tls.pem", "client.crt"), ("tls.key", "client.key")]
    {
        std::fs::copy(folder.join(from), folder.join(to)).expect("the file can be copied");
    }
    folder
});

/// A value as the service finds it: a certificate that is named is there.
fn found(value: &str, pod: &Value) -> String {
    let Some(file) = value.strip_prefix(TLS) else { return value.to_owned() };
    let sources = items(&pod["spec"]["volumes"]).flat_map(|volume| items(&volume["projected"]["sources"]));
    let mut files = sources.flat_map(|source| items(&source["secret"]["items"]));
    assert!(files.any(|item| item["path"] == file), "{value} is not mounted");
    CERTIFICATES.join(file).display().to_string()
}

/// What the chart sets in a service of every render goes through the service's own settings.
fn accepted(component: &str, tables: &[&'static [Flag]], read: impl Fn(&mut Settings)) {
    for (case, render) in &renders().by_name {
        let (_, pod) = render
            .pods()
            .find(|(_, t)| t["metadata"]["labels"]["app.kubernetes.io/component"] == component)
            .unwrap_or_else(|| panic!("{case} has no {component}"));
        let mut pairs = Vec::new();
        for variable in items(&pod["spec"]["containers"][0]["env"]) {
            let name = variable["name"].as_str().expect("variables have names");
            let Some(flag) = tables.iter().copied().flatten().find(|flag| flag.variable() == name) else {
                assert!(!name.starts_with("PLAZA_"), "{case}: {component} has no flag for {name}");
                continue;
            };
            if let Some(value) = variable["value"].as_str() {
                pairs.push((flag.name, found(value, pod)));
            }
        }
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut settings = Settings::from_pairs(tables, &pairs);
        read(&mut settings);
        assert!(!pairs.is_empty(), "{case}: {component} is told nothing");
        settings.finish().unwrap_or_else(|problems| panic!("{case}: {component}: {problems}"));
    }
}

#[test]
fn the_edge_accepts_its_settings() {
    accepted("edge", &[edge::PROCESS_FLAGS, edge::FLAGS, UPSTREAM_TLS_FLAGS, LOG_FLAGS], |settings| {
        edge::Process::from_settings(settings);
        edge::Config::from_settings(settings);
    });
}

#[test]
fn the_session_service_accepts_its_settings() {
    accepted(
        "session",
        &[session::LISTEN_FLAGS, session::FLAGS, session::SHARED_FLAGS, UPSTREAM_TLS_FLAGS, GRPC_FLAGS, LOG_FLAGS],
        |settings| {
            session::Config::from_settings(settings);
            GrpcOptions::from_settings(settings);
        },
    );
}

#[test]
fn the_fanout_service_accepts_its_settings() {
    accepted("fanout", &[fanout::LISTEN_FLAGS, fanout::FLAGS, GRPC_FLAGS, LOG_FLAGS], |settings| {
        fanout::Config::from_settings(settings);
        GrpcOptions::from_settings(settings);
    });
}

#[test]
fn the_edge_pings_as_fast_as_the_load_balancer_needs() {
    for (case, ping) in
        [("default", "20s"), ("alb-aliyun", "20s"), ("alb-aliyun-unowned", "10s"), ("everything", "25s")]
    {
        let pod = renders().by_name[case].pods().find(|(name, _)| name.ends_with("-edge")).expect("it is rendered").1;
        let variables = &pod["spec"]["containers"][0]["env"];
        let value = items(variables).find(|v| v["name"] == "PLAZA_PING_INTERVAL").map(|v| &v["value"]);
        assert_eq!(value, Some(&Value::from(ping)), "{case}");
    }
}
