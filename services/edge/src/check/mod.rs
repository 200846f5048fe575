//! `plaza-edge check`: a running Plaza seen from outside. It comes as a client on both protocols, joins a
//! room, sends, receives, and asks the session service about itself. `helm test` runs it.
//!
//! ```text
//! ok      3 ms  connect    http://edge:5000 speaks plaza.v1.json; session 4xGk0QnHb2w9ZyR1TuVa
//! ok      9 ms  join       plaza-check, 1 present
//! FAILED  5 s   receive    the message is stored but does not come back; do the edges reach NATS?
//! ```

mod sockets;
mod steps;

use plaza_kit::discovery::Targets;
use plaza_kit::discovery::tls::{UPSTREAM_TLS_FLAGS, UpstreamTls};
use plaza_kit::settings::{Flag, Settings};
use plaza_proto::ids::RoomName;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const ABOUT: &str = "Checks a running Plaza as a client does: connects on both protocols, joins a room, sends, \
                     receives its own message, and calls the session service. One line a step; ends with 0 when \
                     all of them work, else with 1";

/// What is checked.
pub const FLAGS: &[Flag] = &[
    Flag {
        name: "url",
        default: Some("http://127.0.0.1:5000"),
        value: "URL",
        help: "The edge as clients reach it: http://host:port, or ws://host:port/ws",
        section: "Check",
    },
    Flag {
        name: "session-addr",
        default: Some("http://127.0.0.1:50051"),
        value: "TARGET",
        help: "Session service, as the edge is told it",
        section: "Check",
    },
    Flag {
        name: "room",
        default: Some("plaza-check"),
        value: "NAME",
        help: "The room of the check; its members see the message",
        section: "Check",
    },
    Flag {
        name: "timeout",
        default: Some("20s"),
        value: "TIME",
        help: "For everything together, 1s to 5m",
        section: "Check",
    },
];

/// What to check.
#[derive(Debug)]
struct Config {
    /// `host:port` of the edge.
    edge: String,
    session: Targets,
    /// As the session service was named, for messages.
    session_name: String,
    room: String,
    timeout: Duration,
}

impl Config {
    fn from_settings(settings: &mut Settings) -> Self {
        let tls = UpstreamTls::from_settings(settings);
        let session = settings.parsed("session-addr", |text| tls.apply(Targets::parse(text)?));
        Self {
            edge: settings.parsed("url", host_and_port).unwrap_or_default(),
            session: session
                .unwrap_or_else(|| Targets::parse("http://127.0.0.1:1").expect("a literal address is well-formed")),
            session_name: settings.text("session-addr"),
            room: settings.text("room"),
            timeout: settings.seconds("timeout", 1_000..=300_000),
        }
    }
}

/// Reads the arguments behind `check`, runs the steps and prints them.
///
/// # Panics
/// Inside of a tokio runtime.
pub fn main(version: &'static str) -> ExitCode {
    let mut settings = Settings::from_args("plaza-edge check", ABOUT, version, &[FLAGS, UPSTREAM_TLS_FLAGS]);
    let config = Config::from_settings(&mut settings);
    if let Err(error) = RoomName::parse(&config.room) {
        settings.problem("room", error);
    }
    if let Err(problems) = settings.finish() {
        return problems.report();
    }
    let (begin, mut count) = (Instant::now(), 0);
    let outcome = steps::run(&config, |step| {
        count += 1;
        step.print();
    });
    let all = begin.elapsed().as_millis();
    match outcome {
        Ok(()) => {
            print(&format!("Plaza works: {count} steps in {all} ms"));
            ExitCode::SUCCESS
        }
        Err(()) => {
            print(&format!("Plaza does not work: step {count} failed after {all} ms in all"));
            ExitCode::FAILURE
        }
    }
}

/// One step and how it went.
#[derive(Debug)]
struct Step {
    name: &'static str,
    took: Duration,
    /// What was seen; or what was not, and where to look.
    outcome: Result<String, String>,
}

impl Step {
    fn print(&self) {
        let (word, text) = match &self.outcome {
            Ok(text) => ("ok", text),
            Err(text) => ("FAILED", text),
        };
        let (name, millis) = (self.name, self.took.as_millis());
        print(&format!("{word:<6} {millis:>6} ms  {name:<10} {text}"));
    }
}

/// A closed output is no reason to stop: the exit code tells the same.
fn print(line: &str) {
    let _closed = writeln!(std::io::stdout(), "{line}");
}

/// The `host:port` of an edge's address.
fn host_and_port(text: &str) -> Result<String, String> {
    let example = "write http://host:port, such as http://127.0.0.1:5000";
    let uri: http::Uri = text.parse().map_err(|_| format!("`{text}` is not an address; {example}"))?;
    match uri.scheme_str() {
        Some("ws" | "http") => {}
        Some("wss" | "https") => {
            return Err(format!(
                "`{text}` speaks TLS, which ends at the load balancer; name an edge behind it: {example}"
            ));
        }
        _ => return Err(format!("`{text}` does not begin with http:// or ws://; {example}")),
    }
    if !matches!(uri.path(), "" | "/" | "/ws") || uri.query().is_some() {
        return Err(format!("`{text}` has a path, but the check knows its own; {example}"));
    }
    match (uri.host(), uri.port_u16()) {
        (Some(host), port) => Ok(format!("{host}:{}", port.unwrap_or(80))),
        (None, _) => Err(format!("`{text}` names no host; {example}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_edges_are_read_in_every_form() {
        for text in ["http://edge:5000", "ws://edge:5000", "ws://edge:5000/ws", "http://edge:5000/"] {
            assert_eq!(host_and_port(text).as_deref(), Ok("edge:5000"), "{text}");
        }
        assert_eq!(host_and_port("http://[::1]").as_deref(), Ok("[::1]:80"));
        for (text, part) in [
            ("wss://edge", "load balancer"),
            ("edge:5000", "http://"),
            ("http://edge/chat", "path"),
            ("nats://x", "ws://"),
        ] {
            let error = host_and_port(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
