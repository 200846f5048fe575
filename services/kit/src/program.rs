//! The frame of every `main`: settings, log, work, exit code.

use crate::settings::{Flag, Settings};
use crate::telemetry;
use std::fmt::Display;
use std::process::ExitCode;

/// A program, as its `--help` and `--version` tell of it.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// As it is called.
    pub name: &'static str,
    /// What it does, in a sentence or two.
    pub about: &'static str,
    /// The version of its package.
    pub version: &'static str,
    /// What it can be told. Of two flags with one name the first counts.
    pub flags: &'a [&'a [Flag]],
}

impl Program<'_> {
    /// Takes what `read` makes of the settings through `serve`; the code with which the process ends. Wrong
    /// settings are all reported at once and end it with 2 before anything begins, an error of `serve` is
    /// logged and ends it with 1.
    pub fn run<T, E: Display>(
        &self,
        read: impl FnOnce(&mut Settings) -> T,
        serve: impl FnOnce(T) -> Result<(), E>,
    ) -> ExitCode {
        let mut settings = Settings::from_args(self.name, self.about, self.version, self.flags);
        telemetry::init(&mut settings);
        let told = read(&mut settings);
        if let Err(problems) = settings.finish() {
            return problems.report();
        }
        match serve(told) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "stopped");
                ExitCode::FAILURE
            }
        }
    }
}
