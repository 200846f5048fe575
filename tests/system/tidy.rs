//! The architecture as a test: who may name what, and how a log line reads. It checks no sizes.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A source file by its path from the root.
struct Source {
    path: String,
    text: String,
}

/// Every Rust file of the workspace's own.
fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for top in ["proto", "services", "tests"] {
        collect(&root().join(top), &mut found);
    }
    assert!(found.len() > 20, "the sources are not where this test looks");
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") && !path.ends_with("node_modules") {
                collect(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
            found.push(Source { path, text });
        }
    }
}

/// The code lines of a text with their numbers, without comments that fill a line.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Whether a line names a crate by path, `name::`, and not as a part of a longer word.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let bounded = before.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        bounded && line[at + word.len()..].starts_with("::")
    })
}

/// Every place where a file that `applies` names one of the words.
fn places(sources: &[Source], applies: impl Fn(&str) -> bool, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| applies(&source.path)) {
        for (number, line) in code_lines(&source.text) {
            if let Some(word) = words.iter().find(|word| names(line, word)) {
                found.push(format!("{}:{number} names {word}", source.path));
            }
        }
    }
    found
}

fn assert_none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn services_never_import_each_other() {
    let sources = sources();
    for own in ["edge", "session", "fanout", "kit"] {
        let others: Vec<String> = ["edge", "session", "fanout"]
            .iter()
            .filter(|name| **name != own)
            .map(|name| format!("plaza_{name}"))
            .collect();
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        let folder = format!("services/{own}/");
        assert_none(
            &places(&sources, |path| path.starts_with(&folder), &others),
            "services speak gRPC and NATS with each other",
        );
        let manifest = fs::read_to_string(root().join(&folder).join("Cargo.toml")).unwrap();
        for other in ["edge", "session", "fanout"].iter().filter(|name| **name != own) {
            assert!(!manifest.contains(&format!("plaza-{other}")), "{folder}Cargo.toml depends on plaza-{other}");
        }
    }
}

#[test]
fn what_decides_on_the_edge_does_no_io() {
    let pure = |path: &str| path.starts_with("services/edge/src/wire/") || path.starts_with("services/edge/src/conn/");
    let io = ["tokio", "axum", "hyper", "tonic", "async_nats", "redis", "mio", "std::net", "std::time::Instant"];
    assert_none(&places(&sources(), pure, &io), "codecs and state machines are driven by tests, without a runtime");
}

#[test]
fn each_store_is_named_in_one_place() {
    let sources = sources();
    let redis = |path: &str| !path.starts_with("services/session/") && !path.starts_with("tests/");
    assert_none(&places(&sources, redis, &["redis"]), "only the session service knows Redis");
    let nats = |path: &str| {
        !["services/fanout/", "services/edge/src/feed/", "tests/"].iter().any(|own| path.starts_with(own))
            // Which of its log lines are shown.
            && path != "services/kit/src/telemetry.rs"
    };
    assert_none(&places(&sources, nats, &["async_nats"]), "only fanout and the edge's feed know NATS");
}

#[test]
fn nats_headers_are_read_by_their_last_value() {
    // A publisher's own `Nats-*` header stands before the server's, and `get` gives the first.
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| source.path.starts_with("services/")) {
        for (number, line) in code_lines(&source.text) {
            let reads = [".get(\"Nats-", ".get(subject::", ".get(header::NATS", ".get(async_nats::header"];
            if reads.iter().any(|read| line.contains(read)) {
                found.push(format!("{}:{number}", source.path));
            }
        }
    }
    assert_none(&found, "read a header with `get_last`");
}

#[test]
fn every_crate_inherits_the_lints() {
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = workspace.lines().find(|line| line.starts_with("members")).unwrap();
    for member in members.split('"').skip(1).step_by(2) {
        let manifest = fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{member}/Cargo.toml must say `[lints] workspace = true`"
        );
    }
}

#[test]
fn a_log_message_begins_in_lower_case_and_has_no_full_stop() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| source.path.starts_with("services/")) {
        for message in log_messages(&source.text) {
            if message.chars().next().is_none_or(char::is_uppercase) || message.ends_with('.') {
                found.push(format!("{}: {message:?}", source.path));
            }
        }
    }
    assert_none(&found, "a log message is a phrase in lower case; values are fields");
}

#[test]
fn log_messages_are_found_between_fields() {
    let text = r#"tracing::warn!(name = %f("x, y", 1), "queue full", ); info!("a \" b"); tracing::error!(%error);"#;
    assert_eq!(log_messages(text), ["a \\\" b", "queue full"]);
}

/// The messages of every tracing macro in a text, as they are written.
fn log_messages(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for level in ["trace!(", "debug!(", "info!(", "warn!(", "error!("] {
        for (at, _) in text.match_indices(level) {
            if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let arguments = arguments(&text[at + level.len()..]);
            let message = arguments.iter().find_map(|argument| argument.trim().strip_prefix('"')?.strip_suffix('"'));
            found.extend(message);
        }
    }
    found
}

/// The arguments of a call, from behind its parenthesis: split at the commas that stand neither in
/// a string nor in brackets.
fn arguments(text: &str) -> Vec<&str> {
    let (mut found, mut start, mut depth, mut quoted, mut escaped) = (Vec::new(), 0, 0u32, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' if depth > 0 => depth -= 1,
            b')' => {
                found.push(&text[start..at]);
                return found;
            }
            b',' if depth == 0 => {
                found.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found
}
