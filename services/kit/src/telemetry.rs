//! Logs: one line per fact, on standard error, for people or as JSON. The level can be changed while the
//! process runs (see [`crate::admin`]); lines of a sampled call carry its trace.

use std::fmt;
use std::io::IsTerminal;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::trace;

use crate::settings::{Flag, Settings};

/// The flags that [`init`] reads.
pub const LOG_FLAGS: &[Flag] = &[
    Flag {
        name: "log-format",
        default: Some("human"),
        value: "FORMAT",
        help: "How log lines look: `human`, or `json` for machines.",
        section: "Logs",
    },
    Flag {
        name: "log-level",
        default: Some("info"),
        value: "LEVEL",
        help: "What is logged: error, warn, info, debug or trace; also by part, such as `info,plaza_edge=debug`.",
        section: "Logs",
    },
];

/// What `info` means: the NATS library logs each attempt to reconnect at that level, and the services
/// log each change of state themselves.
const INFO: &str = "info,async_nats=warn";

/// Added to every level, where they win: below them the NATS library logs whole frames, and so people's messages,
/// and servers with their passwords.
const NEVER: [&str; 2] = ["async_nats::connection=warn", "async_nats::connector=warn"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Human,
    Json,
}

/// Sets up the log of this process by [`LOG_FLAGS`], then logs the settings' warnings. Wrong values
/// are noted in the settings and replaced by the defaults. Only the first call in a process counts.
pub fn init(settings: &mut Settings) {
    let format = settings.parsed("log-format", parse_format).unwrap_or(Format::Human);
    let filter = settings.parsed("log-level", parse_filter).unwrap_or_else(|| EnvFilter::new(INFO));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let (reload, initialized): (Reload, _) = match format {
        Format::Human => {
            let ansi = std::io::stderr().is_terminal();
            // The first is for the fields of spans, the second for the line.
            let builder = builder.with_ansi(ansi).map_event_format(|format| Traced::human(format.with_ansi(ansi)));
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            (Box::new(move |filter| handle.reload(filter)), builder.finish().try_init())
        }
        Format::Json => {
            let builder = builder.json().flatten_event(true).map_event_format(Traced::json).with_filter_reloading();
            let handle = builder.reload_handle();
            (Box::new(move |filter| handle.reload(filter)), builder.finish().try_init())
        }
    };
    // A second call finds a subscriber in place: that is the documented outcome.
    if initialized.is_ok() {
        let _ = LEVEL.set(reload);
    }
    for warning in settings.warnings() {
        tracing::warn!(warning, "unknown setting");
    }
}

type Reload = Box<dyn Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error> + Send + Sync>;

/// The way to the filter of this process's log.
static LEVEL: OnceLock<Reload> = OnceLock::new();

/// Changes what is logged from now on: a level, or levels by part, as `--log-level` takes them.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn set_level(text: &str) -> Result<(), String> {
    let filter = parse_filter(text)?;
    let reload = LEVEL.get().ok_or("this process has no log of its own")?;
    reload(filter).map_err(|error| error.to_string())?;
    tracing::info!(level = text, "log level changed");
    Ok(())
}

/// Lines with the trace and span of the running call, when it is sampled. JSON begins with them; a line for people
/// ends with them, and is one line whatever it tells.
struct Traced<F> {
    format: F,
    json: bool,
}

impl<F> Traced<F> {
    fn json(format: F) -> Self {
        Self { format, json: true }
    }

    fn human(format: F) -> Self {
        Self { format, json: false }
    }
}

impl<S, N, F> FormatEvent<S, N> for Traced<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let span = trace::current();
        if self.json && span.is_none() {
            return self.format.format_event(ctx, writer, event);
        }
        let mut line = String::with_capacity(256);
        self.format.format_event(ctx, Writer::new(&mut line), event)?;
        if self.json {
            let Some(span) = span else { return writer.write_str(&line) };
            let fields = line.strip_prefix('{').unwrap_or(&line);
            return write!(writer, r#"{{"trace_id":"{}","span_id":"{}",{fields}"#, span.trace_id(), span.span_id());
        }
        let mut parts = line.trim_end_matches('\n').split(['\n', '\r']);
        writer.write_str(parts.next().unwrap_or_default())?;
        parts.try_for_each(|part| write!(writer, "\\n{part}"))?;
        if let Some(span) = span {
            write!(writer, " trace_id={} span_id={}", span.trace_id(), span.span_id())?;
        }
        writeln!(writer)
    }
}

fn parse_format(text: &str) -> Result<Format, String> {
    match text {
        "human" => Ok(Format::Human),
        "json" => Ok(Format::Json),
        _ => Err(format!("`{text}` is not a log format; write human or json")),
    }
}

fn parse_filter(text: &str) -> Result<EnvFilter, String> {
    let example = "write error, warn, info, debug or trace, or `info,plaza_edge=debug`";
    let directives = if text == "info" { INFO } else { text };
    let mut filter =
        EnvFilter::builder().parse(directives).map_err(|_| format!("`{text}` is not a log level; {example}"))?;
    for never in NEVER {
        filter = filter.add_directive(never.parse().map_err(|_| "the level that always holds is wrong")?);
    }
    Ok(filter)
}

/// Bounds how often a place logs. One stands beside each log line that bad input can trigger.
///
/// ```
/// use plaza_kit::telemetry::LogGate;
///
/// static GATE: LogGate = LogGate::per_second(1);
/// if let Some(suppressed) = GATE.pass() {
///     tracing::warn!(suppressed, "origin refused");
/// }
/// ```
#[derive(Debug)]
pub struct LogGate {
    per_second: u32,
    state: Mutex<GateState>,
}

#[derive(Debug)]
struct GateState {
    window: Option<Instant>,
    passed: u32,
    suppressed: u64,
}

impl LogGate {
    /// A gate that lets `n` lines pass in each second.
    pub const fn per_second(n: u32) -> Self {
        Self { per_second: n, state: Mutex::new(GateState { window: None, passed: 0, suppressed: 0 }) }
    }

    /// Whether to log now: how many lines were suppressed since the last one that passed, or `None`
    /// when this one is to be suppressed too.
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = state.window.is_none_or(|window| now.saturating_duration_since(window) >= Duration::from_secs(1));
        if fresh {
            state.window = Some(now);
            state.passed = 0;
        }
        if state.passed < self.per_second {
            state.passed += 1;
            return Some(std::mem::take(&mut state.suppressed));
        }
        state.suppressed += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_counts_what_it_suppressed() {
        let gate = LogGate::per_second(2);
        let start = Instant::now();
        let passes: Vec<_> = (0..5).map(|_| gate.pass_at(start)).collect();
        assert_eq!(passes, [Some(0), Some(0), None, None, None]);
        assert_eq!(gate.pass_at(start + Duration::from_millis(999)), None);
        assert_eq!(gate.pass_at(start + Duration::from_secs(1)), Some(4));
        assert_eq!(gate.pass_at(start + Duration::from_secs(1)), Some(0));
        assert_eq!(gate.pass_at(start + Duration::from_secs(1)), None);
    }

    /// What a subscriber writes.
    #[derive(Clone, Default)]
    struct Lines(std::sync::Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// A line outside of a call, and one of a sampled call that tells something with breaks in it.
    fn two_lines<S: Subscriber + Send + Sync>(make: impl FnOnce(Lines) -> S) -> [String; 2] {
        use opentelemetry::trace::TraceContextExt as _;
        let lines = Lines::default();
        let parent = trace::context::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        tracing::subscriber::with_default(make(lines.clone()), || {
            tracing::info!("before");
            let _call = opentelemetry::Context::new().with_remote_span_context(parent).attach();
            tracing::info!(room = "a\n{\u{202e}", error = %"one\r\ntwo\n", "within");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches(['\n', '\r']).count(), 2, "{text}");
        let (before, within) = text.split_once('\n').unwrap();
        assert!(!before.contains("trace_id"), "{before}");
        [before.to_owned(), within.to_owned()]
    }

    #[test]
    fn a_json_line_of_a_sampled_call_begins_with_its_trace() {
        let [_, within] = two_lines(|lines| {
            let builder = tracing_subscriber::fmt().with_writer(move || lines.clone());
            builder.json().flatten_event(true).map_event_format(Traced::json).finish()
        });
        let start = r#"{"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7","timestamp""#;
        assert!(within.starts_with(start) && within.ends_with("}\n"), "{within}");
    }

    #[test]
    fn a_line_for_people_is_one_line_and_ends_with_its_trace() {
        let [before, within] = two_lines(|lines| {
            let builder = tracing_subscriber::fmt().with_writer(move || lines.clone());
            builder.map_event_format(|format| Traced::human(format.with_ansi(false))).finish()
        });
        assert!(before.ends_with(" INFO plaza_kit::telemetry::tests: before"), "{before}");
        let end = " trace_id=4bf92f3577b34da6a3ce929d0e0e4736 span_id=00f067aa0ba902b7\n";
        assert!(within.contains(r"error=one\n\ntwo") && within.ends_with(end), "{within}");
    }

    #[test]
    fn no_level_shows_the_frames_and_the_passwords_of_nats() {
        for text in ["trace", "info", "async_nats=trace", "async_nats::connection=trace", "async_nats::connector=debug"]
        {
            let filter = parse_filter(text).unwrap().to_string();
            assert!(NEVER.iter().all(|never| filter.contains(never)), "{text}: {filter}");
            assert!(!filter.contains("connection=trace") && !filter.contains("connector=debug"), "{text}: {filter}");
        }
    }

    #[test]
    fn wrong_log_settings_are_noted_and_name_what_is_right() {
        let mut settings = Settings::from_pairs(&[LOG_FLAGS], &[("log-format", "xml"), ("log-level", "plaza=loudest")]);
        init(&mut settings);
        let problems = settings.finish().unwrap_err();
        assert_eq!(problems.list().len(), 2);
        assert!(problems.list()[0].contains("write human or json"), "{problems}");
        assert!(problems.list()[1].contains("error, warn, info"), "{problems}");
    }
}
