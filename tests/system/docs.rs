//! Pages of `docs/` that are made from tables of the code. `PLAZA_BLESS=1` writes them anew; without
//! it, a page that differs from its table fails.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use plaza_edge::engine::Shard;
use plaza_edge::metrics::{self, Handshakes, HubMetrics, ShardMetrics};
use plaza_edge::peer::PeerMetrics;
use plaza_fanout::metrics::FanoutMetrics;
use plaza_kit::admin::Readiness;
use plaza_kit::metrics::Metrics;
use plaza_kit::settings::Flag;
use plaza_proto::code::Code;
use plaza_session::metrics::SessionMetrics;

/// Compares a page with the file, or writes it when asked to.
fn check(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("PLAZA_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, page).unwrap();
    }
    let file = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(file == page, "docs/{name} is not what its table says; `just docs` writes it anew");
}

#[test]
fn the_page_of_error_codes_is_its_table() {
    let mut page = String::from(
        "# Error codes\n\n\
         One table serves gRPC, Socket.IO acknowledgements (`{ok: false, code, message}`) and Plaza's own protocol \
         (`error {code, message}`). A gRPC status begins its message with the code: `bad_room: ...`. Codes never \
         change once they are released. This page is made from the code by `just docs`.\n\n\
         | code | gRPC status | means | for people |\n|---|---|---|---|\n",
    );
    for code in Code::ALL {
        let (meaning, status) = (code.meaning().trim(), code.grpc());
        writeln!(page, "| `{code}` | {status:?} | {meaning} | {}<br>{} |", code.english(), code.chinese()).unwrap();
    }
    check("errors.md", &page);
}

/// Every table of flags, with who reads it.
const TABLES: &[(&str, &[Flag])] = &[
    ("The edge as a process: `plaza-edge`", plaza_edge::config::PROCESS_FLAGS),
    ("The edge: `plaza-edge` and `plaza`", plaza_edge::config::FLAGS),
    ("Trying out a running Plaza: `plaza-edge check`", plaza_edge::check::FLAGS),
    ("The session service as a process: `plaza-session`", plaza_session::config::LISTEN_FLAGS),
    ("The session service: `plaza-session` and `plaza`", plaza_session::config::FLAGS),
    ("The fanout service as a process: `plaza-fanout`", plaza_fanout::config::LISTEN_FLAGS),
    ("The fanout service: `plaza-fanout` and `plaza`", plaza_fanout::config::FLAGS),
    ("gRPC listeners: `plaza-session`, `plaza-fanout` and `plaza`", plaza_kit::grpc::GRPC_FLAGS),
    (
        "Calling the services: `plaza-edge`, `plaza-edge check` and `plaza-session`",
        plaza_kit::discovery::tls::UPSTREAM_TLS_FLAGS,
    ),
    ("Every program", plaza_kit::telemetry::LOG_FLAGS),
];

#[test]
fn the_page_of_settings_is_its_tables() {
    let mut page = String::from(
        "# Settings\n\n\
         Every flag is also a variable: `--log-level` is `PLAZA_LOG_LEVEL`, and the flag wins. All wrong settings are \
         reported at once, with exit code 2. This page is made from the code by `just docs`.\n",
    );
    for (title, flags) in TABLES {
        write!(page, "\n## {title}\n\n| flag | variable | default | what it does |\n|---|---|---|---|\n").unwrap();
        for flag in *flags {
            let value = if flag.value.is_empty() { String::new() } else { format!(" {}", flag.value) };
            let default =
                flag.default.filter(|text| !text.is_empty()).map(|text| format!("`{text}`")).unwrap_or_default();
            let help = flag.help.replace('|', "\\|");
            writeln!(page, "| `--{}{value}` | `{}` | {default} | {help} |", flag.name, flag.variable()).unwrap();
        }
    }
    check("settings.md", &page);
}

/// What one program exports before anything has happened.
fn exported(register: impl FnOnce(&Metrics)) -> String {
    let metrics = Metrics::new("docs", "0");
    register(&metrics);
    metrics.encode()
}

/// The rows of a page: each metric of an OpenMetrics text under the name that a query uses.
fn rows(text: &str, seen: &mut BTreeSet<String>) -> String {
    let mut page = String::from("| metric | type | labels | what it tells |\n|---|---|---|---|\n");
    for line in text.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let (name, help) = line.split_once(' ').unwrap();
        let kind = text.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} "))).unwrap();
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        if !seen.insert(name.to_owned()) {
            continue;
        }
        let labels: BTreeSet<&str> = text
            .lines()
            .filter(|line| line.starts_with(name) && line.contains('{') && !line.starts_with('#'))
            .filter(|line| !line[name.len()..].starts_with(|c: char| c.is_ascii_lowercase()))
            .flat_map(|line| line.split_once('{').unwrap().1.split_once('}').unwrap().0.split(','))
            .filter_map(|pair| Some(pair.split_once('=')?.0))
            .filter(|label| *label != "le" && *label != "trace_id")
            .collect();
        let labels = labels.into_iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        writeln!(page, "| `{name}{suffix}` | {kind} | {labels} | {} |", help.trim_end_matches('.')).unwrap();
    }
    page
}

#[tokio::test]
async fn the_page_of_metrics_is_what_the_programs_export() {
    let mut page = String::from(
        "# Metrics\n\n\
         Each admin port serves them at `/metrics` as OpenMetrics text; `plaza` serves those of all parts together. No \
         label holds a room, a user or an address: a single room is found by its traces, to which the buckets of \
         `plaza_publish_to_socket_seconds` point as exemplars. This page is made from the code by `just docs`.\n",
    );
    let mut seen = BTreeSet::new();
    let common = exported(|metrics| {
        for calls in [metrics.served_calls(), metrics.made_calls()] {
            calls.ended("package.Service/Method", tonic::Code::Ok, Default::default(), None);
        }
        metrics.registry(|registry| {
            registry.register_collector(Box::new(Readiness::new()));
            plaza_kit::trace::register(registry);
        });
    });
    let edge = exported(|metrics| {
        let shard = Shard::new(0, Default::default(), plaza_edge::bridge::requests::channel(1).0).unwrap();
        metrics.registry(|registry| {
            HubMetrics::register(registry, metrics.made_calls());
            Handshakes::register(registry);
            metrics::register_drain_window(registry, Default::default());
            PeerMetrics::register(registry);
        });
        ShardMetrics::register(metrics, &[shard.handle()]);
    });
    let session =
        exported(|metrics| drop(metrics.registry(|registry| SessionMetrics::register(registry, metrics.made_calls()))));
    let fanout = exported(|metrics| drop(metrics.registry(FanoutMetrics::new)));
    for (title, text) in [
        ("Every program", common),
        ("The edge", edge),
        ("The session service", session),
        ("The fanout service", fanout),
    ] {
        write!(page, "\n## {title}\n\n{}", rows(&text, &mut seen)).unwrap();
    }
    check("metrics.md", &page);
}

/// Every field of the protocols says what it is, with unit, range and default where there is one.
#[test]
fn every_field_of_the_protocols_has_a_sentence() {
    for name in ["client", "event", "fanout", "session"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../proto/plaza/{name}/v1/{name}.proto"));
        let text = std::fs::read_to_string(&path).unwrap();
        let mut previous = "";
        for line in text.lines().map(str::trim) {
            let is_field = line
                .split_once(" = ")
                .is_some_and(|(left, right)| left.contains(' ') && right.trim_end_matches(';').parse::<u32>().is_ok());
            assert!(!is_field || previous.starts_with("//"), "{}: `{line}` has no sentence", path.display());
            previous = line;
        }
    }
}
