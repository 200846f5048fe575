//! Tests of settings.

use proptest::prelude::*;

use super::scan::{Scan, scan};
use super::*;

const FLAGS: &[Flag] = &[
    Flag {
        name: "listen",
        default: Some("127.0.0.1:5000"),
        value: "ADDR",
        help: "Where to listen.",
        section: "Network",
    },
    Flag {
        name: "ping-interval",
        default: Some("20s"),
        value: "TIME",
        help: "Time between pings.",
        section: "Network",
    },
    Flag { name: "cache-bytes", default: Some("64MiB"), value: "BYTES", help: "Memory of caches.", section: "Limits" },
    Flag { name: "redis-url", default: None, value: "URL", help: "Where Redis is.", section: "Stores" },
    Flag { name: "open-publish", default: Some("false"), value: "", help: "Let clients publish.", section: "Limits" },
];

fn given(arguments: &[&str], variables: &[(&str, &str)]) -> Settings {
    let arguments = arguments.iter().map(|text| (*text).to_owned());
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    match scan("plaza-test", merge(&[FLAGS]), arguments, variables) {
        Scan::Settings(settings) => settings,
        Scan::Help(_) | Scan::Version => panic!("help or version was not asked for"),
    }
}

#[test]
fn a_flag_wins_over_its_variable_and_both_over_the_default() {
    let mut settings =
        given(&["--ping-interval", "5s"], &[("PLAZA_PING_INTERVAL", "7s"), ("PLAZA_CACHE_BYTES", "1KiB")]);
    assert_eq!(settings.seconds("ping-interval", 1000..=60_000), Duration::from_secs(5));
    assert_eq!(settings.integer("cache-bytes", 0..=u64::MAX), 1024);
    assert_eq!(settings.addr("listen"), "127.0.0.1:5000".parse().unwrap());
    assert_eq!(settings.finish(), Ok(()));
}

#[test]
fn every_wrong_setting_is_reported_at_once_by_its_name() {
    let mut settings = given(
        &["--listen=localhost", "--ping-intervall", "5", "stray", "--redis-url"],
        &[("PLAZA_CACHE_BYTES", "many"), ("PLAZA_OPEN_PUBLISH", "maybe")],
    );
    settings.addr("listen");
    settings.integer("cache-bytes", 0..=1 << 40);
    settings.switch("open-publish");
    settings.text("redis-url");
    let problems = settings.finish().unwrap_err();
    let expected = [
        "--ping-intervall: there is no such flag; did you mean --ping-interval?",
        "stray: is not a flag; flags look like --name value",
        "--redis-url: a value is missing; give --redis-url URL",
        "--listen: `localhost` is not an address; write an IP address and a port, such as 127.0.0.1:8000 or [::1]:8000",
        "PLAZA_CACHE_BYTES: `many` is not a whole number; write one from 0 to 1099511627776, such as 4096 or 64KiB",
        "PLAZA_OPEN_PUBLISH: `maybe` is neither true nor false",
        "--redis-url: is not set; give --redis-url URL",
    ];
    assert_eq!(problems.list(), expected);
    let text = problems.to_string();
    assert!(text.starts_with("7 settings are wrong:\n") && text.contains("`plaza-test --help`"), "{text}");
}

#[test]
fn an_unknown_variable_is_a_warning_unless_kubernetes_sets_it() {
    let variables = [
        ("PLAZA_PING_INTERVALL", "5"),
        ("PLAZA_EDGE_PORT_5000_TCP_ADDR", "10.0.0.1"),
        ("PLAZA_EDGE_SERVICE_HOST", "x"),
    ];
    let settings = given(&[], &variables);
    let expected = "PLAZA_PING_INTERVALL: no setting of plaza-test has this name; did you mean PLAZA_PING_INTERVAL?";
    assert_eq!(settings.warnings(), [expected]);
    assert_eq!(settings.finish(), Ok(()));
}

#[test]
fn an_empty_variable_is_not_set_and_an_empty_flag_takes_the_default_away() {
    let mut settings = given(&["--cache-bytes="], &[("PLAZA_LISTEN", "")]);
    assert_eq!(settings.addr("listen").port(), 5000);
    assert_eq!(settings.optional("cache-bytes"), None);
}

#[test]
fn a_switch_takes_no_value_and_the_next_argument_is_its_own() {
    let mut settings = given(&["--open-publish", "--listen", "[::1]:80"], &[]);
    assert!(settings.switch("open-publish"));
    assert_eq!(settings.addr("listen").port(), 80);
    assert!(!given(&["--open-publish=false"], &[("PLAZA_OPEN_PUBLISH", "1")]).switch("open-publish"));
    assert!(!given(&[], &[]).switch("open-publish"));
}

#[test]
fn a_list_is_split_at_commas() {
    let mut settings = given(&["--redis-url", " a, b,,c ", "--listen=127.0.0.1:1,127.0.0.1:2"], &[]);
    assert_eq!(settings.list("redis-url"), ["a", "b", "c"]);
    assert_eq!(settings.addrs("listen").len(), 2);
}

#[test]
fn a_problem_does_not_repeat_what_may_be_secret() {
    let mut settings = given(&["--redis-url", "redis://:hunter2@x"], &[]);
    let parsed: Option<()> = settings.parsed("redis-url", |_| Err("has no port".to_owned()));
    assert_eq!(parsed, None);
    assert_eq!(settings.finish().unwrap_err().list(), ["--redis-url: has no port"]);
}

#[test]
fn of_two_flags_with_one_name_the_first_stands() {
    const OWN: &[Flag] = &[Flag { default: Some("127.0.0.1:1"), ..FLAGS[0] }];
    let mut settings = Settings::from_pairs(&[OWN, FLAGS], &[]);
    assert_eq!(settings.addr("listen").port(), 1);
}

#[test]
fn help_shows_every_flag_with_default_and_variable() {
    let help = command::command("plaza-test", "A test.", "1.0", FLAGS).render_long_help().to_string();
    for flag in FLAGS {
        assert!(help.contains(&format!("--{}", flag.name)), "{help}");
        assert!(help.contains(&flag.variable()), "{help}");
        assert!(help.contains(&format!("{}:", flag.section)), "{help}");
    }
    assert!(help.contains("default 64MiB"), "{help}");
    assert!(matches!(
        scan("x", merge(&[FLAGS]), ["--bad", "--help"].map(str::to_owned).into_iter(), std::iter::empty()),
        Scan::Help(_)
    ));
}

#[test]
fn numbers_and_times_say_their_range() {
    assert_eq!(value::integer("5", &(1..=4)), Err("is 5, but 1 to 4 is allowed".to_owned()));
    assert_eq!(value::integer("1_000", &(0..=u64::MAX)), Ok(1000));
    assert_eq!(value::duration("90s", &(0..=60_000)), Err("is 90s, but 0ms to 1m is allowed".to_owned()));
    assert_eq!(value::duration("7d", &(0..=u64::MAX)), Ok(Duration::from_secs(7 * 86_400)));
    for wrong in ["", "s", "-1", "1.5s", "5 s", "5w", "99999999999999999999", "18446744073709551615d"] {
        assert!(value::duration(wrong, &(0..=u64::MAX)).is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn a_time_that_is_written_is_read_again(count in 0u64..1_000_000, unit in 0usize..5) {
        let (name, factor) = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)][unit];
        let read = value::duration(&format!("{count}{name}"), &(0..=u64::MAX));
        prop_assert_eq!(read, Ok(Duration::from_millis(count * factor)));
    }

    #[test]
    fn no_text_breaks_the_parsers(text in "\\PC{0,24}") {
        let _ = value::duration(&text, &(0..=1000));
        let _ = value::integer(&text, &(0..=1000));
        let _ = value::addr(&text);
        let _ = value::switch(&text);
    }

    #[test]
    fn every_argument_is_taken_or_named_in_a_problem(arguments in prop::collection::vec("(--)?[a-z]{1,6}(=[a-z]{0,3})?", 0..6)) {
        let listed: Vec<&str> = arguments.iter().map(String::as_str).collect();
        prop_assume!(!listed.iter().any(|text| ["--help", "--version"].iter().any(|own| text.starts_with(own))));
        let settings = given(&listed, &[]);
        // None of these names a flag of the table: each is a problem, or the value of an unknown flag before it.
        let values = listed.windows(2).filter(|pair| pair[0].starts_with("--") && !pair[0].contains('=') && !pair[1].starts_with('-')).count();
        prop_assert_eq!(settings.problems.len(), listed.len() - values);
    }
}
