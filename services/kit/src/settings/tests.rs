//! Settings as a whole: who wins, and what is reported.

use super::scan::{Scan, scan};
use super::*;
use proptest::prelude::*;

const FLAGS: &[Flag] = &[
    flag("listen", Some("127.0.0.1:5000"), "ADDR"),
    flag("ping-interval", Some("20s"), "TIME"),
    flag("threads", None, "COUNT"),
    flag("open-publish", Some("false"), ""),
    flag("nats-url", None, "URL"),
];

const fn flag(name: &'static str, default: Option<&'static str>, value: &'static str) -> Flag {
    Flag { name, default, value, help: "For tests.", section: "Tests" }
}

fn read(arguments: &[&str], variables: &[(&str, &str)]) -> Settings {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    match scan("plaza-test", FLAGS.to_vec(), arguments.iter().map(|&a| a.to_owned()), variables) {
        Scan::Settings(settings) => settings,
        Scan::Help(_) | Scan::Version => panic!("neither help nor version was asked for"),
    }
}

#[test]
fn a_flag_wins_over_its_variable_and_both_over_the_default() {
    let mut settings = read(&["--threads=2"], &[("PLAZA_THREADS", "3"), ("PLAZA_PING_INTERVAL", "300ms")]);
    assert_eq!(settings.integer("threads", 1..=64), 2);
    assert_eq!(settings.seconds("ping-interval", 100..=60_000), Duration::from_millis(300));
    assert_eq!(settings.addr("listen").port(), 5000);
    assert!(settings.finish().is_ok());
}

#[test]
fn every_wrong_setting_is_reported_by_name() {
    let mut settings =
        read(&["--listen", "nowhere", "--treads", "4", "--ping-interval=9h"], &[("PLAZA_OPEN_PUBLISH", "perhaps")]);
    settings.addr("listen");
    settings.seconds("ping-interval", 1_000..=60_000);
    settings.switch("open-publish");
    settings.text("nats-url");
    let problems = settings.finish().unwrap_err();
    let text = problems.to_string();
    for part in [
        "5 settings are wrong",
        "--treads: there is no such flag; did you mean --threads?",
        "--listen: `nowhere`",
        "--ping-interval: is 9h, but 1s to 1m is allowed",
        "PLAZA_OPEN_PUBLISH: `perhaps` is neither true nor false",
        "--nats-url: is not set; give --nats-url URL",
    ] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

#[test]
fn a_switch_needs_no_value_and_an_empty_variable_is_not_set() {
    let mut settings = read(&["--open-publish"], &[("PLAZA_NATS_URL", ""), ("PLAZA_OPEN_PUBLIHS", "1")]);
    assert!(settings.switch("open-publish"));
    assert_eq!(settings.optional("nats-url"), None);
    assert_eq!(settings.warnings().len(), 1, "an unknown variable is only a warning");
    assert!(settings.finish().is_ok());
}

#[test]
fn help_and_version_are_understood_and_the_help_names_every_flag() {
    let help = scan("plaza-test", FLAGS.to_vec(), ["--help".to_owned()].into_iter(), std::iter::empty());
    assert!(matches!(help, Scan::Help(_)));
    let version = scan("plaza-test", FLAGS.to_vec(), ["-V".to_owned()].into_iter(), std::iter::empty());
    assert!(matches!(version, Scan::Version));
    let text = command::command("plaza-test", "About.", "1.0", FLAGS).render_long_help().to_string();
    for flag in FLAGS {
        assert!(text.contains(&format!("--{}", flag.name)) && text.contains(&flag.variable()), "{}\n{text}", flag.name);
    }
}

proptest! {
    #[test]
    fn any_arguments_give_settings_or_problems(arguments in proptest::collection::vec(".{0,12}", 0..6)) {
        let _ = scan("plaza-test", FLAGS.to_vec(), arguments.into_iter(), std::iter::empty());
    }

    #[test]
    fn a_time_that_is_printed_reads_back(millis in 0u64..1_000_000_000) {
        let read = value::duration(&format!("{millis}ms"), &(0..=u64::MAX)).map(|d| d.as_millis());
        prop_assert_eq!(read, Ok(u128::from(millis)));
    }
}
