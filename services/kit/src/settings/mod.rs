//! Settings: flags as tables beside the struct that they fill.
//!
//! Every flag `--some-flag` is also the variable `PLAZA_SOME_FLAG`; the flag wins. A reader such as
//! [`Settings::integer`] notes a bad value and gives a harmless stand-in, so that a program reads
//! all its settings first and then reports every wrong one at once with [`Settings::finish`].
//!
//! ```
//! use plaza_kit::settings::{Flag, Settings};
//!
//! const FLAGS: &[Flag] = &[Flag {
//!     name: "ping-interval",
//!     default: Some("20s"),
//!     value: "TIME",
//!     help: "How often the server pings a connection.",
//!     section: "Connections",
//! }];
//!
//! let mut settings = Settings::from_pairs(&[FLAGS], &[("ping-interval", "300ms")]);
//! assert_eq!(settings.seconds("ping-interval", 300..=60_000).as_millis(), 300);
//! assert!(settings.finish().is_ok());
//! ```

mod command;
mod scan;
#[cfg(test)]
mod tests;
pub mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::Duration;

/// One setting of a program: a row of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag {
    /// The name without dashes in front, in lower case with dashes: `ping-interval`.
    pub name: &'static str,
    /// The text that stands when nobody sets it; `None` means that it may stay unset.
    pub default: Option<&'static str>,
    /// The placeholder in the help, such as `ADDR`; empty for a switch, which takes no value.
    pub value: &'static str,
    /// What it does, in full sentences, with unit and range.
    pub help: &'static str,
    /// The heading of the help under which it stands.
    pub section: &'static str,
}

impl Flag {
    /// The variable that sets it too: `PLAZA_PING_INTERVAL` for `ping-interval`.
    pub fn variable(&self) -> String {
        format!("PLAZA_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }
}

/// Who set a value, so that a problem can name what to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Flag,
    Variable,
}

/// What a program was told, and what was wrong with it.
#[derive(Debug)]
pub struct Settings {
    program: &'static str,
    flags: Vec<Flag>,
    given: BTreeMap<&'static str, (Source, String)>,
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl Settings {
    /// Reads the arguments and variables of this process.
    ///
    /// A program of two words, such as `plaza-edge check`, begins to read behind the second. Tables are
    /// read in order; of two flags with one name the first stands. `--help` and
    /// `--version` print to standard output and end the process with code 0. An argument that no
    /// table knows is a problem, to be reported by [`finish`](Self::finish) with all others; an
    /// unknown `PLAZA_` variable is only a [warning](Self::warnings). An empty variable counts as
    /// not set; an empty flag (`--allowed-origins=`) sets nothing in place of the default.
    pub fn from_args(program: &'static str, about: &'static str, version: &'static str, flags: &[&[Flag]]) -> Self {
        let flags = merge(flags);
        let arguments = std::env::args_os()
            .skip(program.split(' ').count())
            .map(|argument| argument.to_string_lossy().into_owned());
        let variables = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
        match scan::scan(program, flags, arguments, variables) {
            scan::Scan::Settings(settings) => settings,
            scan::Scan::Help(flags) => command::print_help(program, about, version, &flags),
            scan::Scan::Version => command::print_version(program, version),
        }
    }

    /// Settings from pairs of flag name and value, as if each were given as a flag. For tests, and
    /// for a program that runs others inside itself.
    pub fn from_pairs(flags: &[&[Flag]], pairs: &[(&str, &str)]) -> Self {
        let arguments = pairs.iter().map(|(name, value)| format!("--{name}={value}"));
        match scan::scan("plaza", merge(flags), arguments, std::iter::empty()) {
            scan::Scan::Settings(settings) => settings,
            scan::Scan::Help(flags) => Self::new("plaza", flags),
            scan::Scan::Version => Self::new("plaza", Vec::new()),
        }
    }

    fn new(program: &'static str, flags: Vec<Flag>) -> Self {
        Self { program, flags, given: BTreeMap::new(), problems: Vec::new(), warnings: Vec::new() }
    }

    /// An address such as `0.0.0.0:5000` or `[::1]:5000`. Required.
    pub fn addr(&mut self, name: &'static str) -> SocketAddr {
        self.required(name, value::addr).unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into())
    }

    /// Addresses, separated by commas; empty when unset.
    pub fn addrs(&mut self, name: &'static str) -> Vec<SocketAddr> {
        let items = self.list(name);
        let parsed: Result<Vec<_>, _> = items.iter().map(|item| value::addr(item)).collect();
        parsed.unwrap_or_else(|message| {
            self.problem(name, message);
            Vec::new()
        })
    }

    /// A time such as `20s`, `300ms`, `2m`, `7d` or `20` (seconds), within a range in milliseconds.
    /// Required.
    pub fn seconds(&mut self, name: &'static str, range_ms: RangeInclusive<u64>) -> Duration {
        let fallback = Duration::from_millis(*range_ms.start());
        self.required(name, |text| value::duration(text, &range_ms)).unwrap_or(fallback)
    }

    /// A whole number within a range; `64KiB`, `64MiB` and `1GiB` are numbers too. Required.
    pub fn integer(&mut self, name: &'static str, range: RangeInclusive<u64>) -> u64 {
        let fallback = *range.start();
        self.required(name, |text| value::integer(text, &range)).unwrap_or(fallback)
    }

    /// A text. Required.
    pub fn text(&mut self, name: &'static str) -> String {
        self.required(name, |text| Ok(text.to_owned())).unwrap_or_default()
    }

    /// A text that may be missing.
    pub fn optional(&mut self, name: &'static str) -> Option<String> {
        self.value(name).map(str::to_owned)
    }

    /// Texts separated by commas, without the blanks around them; empty when unset.
    pub fn list(&mut self, name: &'static str) -> Vec<String> {
        let text = self.value(name).unwrap_or_default();
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
    }

    /// Whether a switch is on: `--name`, or `true`, `yes`, `on`, `1` as its variable.
    pub fn switch(&mut self, name: &'static str) -> bool {
        self.parsed(name, value::switch).unwrap_or(false)
    }

    /// A value by a parser of the caller, whose error says what would be right; `None` when unset
    /// or wrong.
    pub fn parsed<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        match parse(self.value(name)?) {
            Ok(value) => Some(value),
            Err(message) => {
                self.problem(name, message);
                None
            }
        }
    }

    /// Notes that a setting is wrong: what is wrong with it, and what would be right. The message
    /// must not repeat a value that can hold a secret.
    pub fn problem(&mut self, name: &'static str, message: impl fmt::Display) {
        let label = match self.given.get(name) {
            Some((Source::Variable, _)) => self.flag(name).variable(),
            Some((Source::Flag, _)) | None => format!("--{name}"),
        };
        self.problems.push(format!("{label}: {message}"));
    }

    /// What was odd but did no harm, such as a `PLAZA_` variable that no flag reads. Logged by
    /// [`telemetry::init`](crate::telemetry::init).
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// Every problem that was noted.
    pub fn finish(self) -> Result<(), Problems> {
        if self.problems.is_empty() {
            return Ok(());
        }
        Err(Problems { program: self.program, list: self.problems })
    }

    fn required<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        if self.value(name).is_none() {
            let message = format!("is not set; give --{name} {}", self.flag(name).value);
            self.problem(name, message);
            return None;
        }
        self.parsed(name, parse)
    }

    /// The text that stands for a flag: given, or its default; `None` when unset or empty.
    fn value(&self, name: &'static str) -> Option<&str> {
        let default = self.flag(name).default;
        let text = self.given.get(name).map(|(_, text)| text.as_str()).or(default)?;
        (!text.is_empty()).then_some(text)
    }

    fn flag(&self, name: &str) -> &Flag {
        let found = self.flags.iter().find(|flag| flag.name == name);
        found.expect("a setting is read only by a name of the program's own flag tables")
    }
}

/// One table out of several; of two flags with one name the first stands.
fn merge(tables: &[&[Flag]]) -> Vec<Flag> {
    let mut flags: Vec<Flag> = Vec::new();
    for flag in tables.iter().copied().flatten() {
        if !flags.iter().any(|known| known.name == flag.name) {
            flags.push(*flag);
        }
    }
    flags
}

/// Every wrong setting of a program, each with what was wrong and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    program: &'static str,
    list: Vec<String>,
}

impl Problems {
    /// One line for each problem, beginning with the name of the flag or variable.
    pub fn list(&self) -> &[String] {
        &self.list
    }

    /// Prints them all to standard error and gives the exit code of wrong settings, 2.
    pub fn report(&self) -> ExitCode {
        eprintln!("{self}");
        ExitCode::from(2)
    }
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.list.len() {
            1 => writeln!(f, "one setting is wrong:")?,
            count => writeln!(f, "{count} settings are wrong:")?,
        }
        for problem in &self.list {
            writeln!(f, "  {problem}")?;
        }
        write!(f, "`{} --help` explains every setting", self.program)
    }
}
