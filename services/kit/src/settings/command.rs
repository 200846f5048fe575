//! `--help` and `--version`, laid out by clap.

use std::io::Write;

use clap::{Arg, Command};

use super::Flag;

/// Prints every flag by section, with its variable and default, and ends the process.
pub(super) fn print_help(program: &'static str, about: &'static str, version: &'static str, flags: &[Flag]) -> ! {
    let help = command(program, about, version, flags).render_long_help();
    print_and_exit(&help.to_string())
}

pub(super) fn print_version(program: &'static str, version: &'static str) -> ! {
    print_and_exit(&format!("{program} {version}\n"))
}

fn print_and_exit(text: &str) -> ! {
    // A closed pipe (`plaza --help | head`) is no fault.
    let _ = std::io::stdout().write_all(text.as_bytes());
    std::process::exit(0)
}

pub(super) fn command(program: &'static str, about: &'static str, version: &'static str, flags: &[Flag]) -> Command {
    let arguments = flags.iter().map(|flag| {
        let name = Arg::new(flag.name).long(flag.name).help_heading(flag.section).help(help_of(flag));
        if flag.value.is_empty() { name.num_args(0) } else { name.value_name(flag.value) }
    });
    Command::new(program)
        .about(about)
        .version(version)
        .args(arguments)
        .after_help("Each flag is also a variable, named below it; the flag wins. A list is separated by commas.")
}

fn help_of(flag: &Flag) -> String {
    let default = match flag.default {
        Some(default) if !default.is_empty() && !flag.value.is_empty() => format!("default {default}, "),
        _ => String::new(),
    };
    format!("{} [{default}{}]", flag.help, flag.variable())
}
