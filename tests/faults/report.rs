//! The report, for somebody who has never seen the program.

use crate::checker::Verdict;
use crate::rows::Row;
use crate::run::Counted;
use std::fmt::Write;
use std::path::Path;

/// One run: a line when it passed, and what is broken when not.
pub(crate) fn line(row: &Row, seed: u64, verdict: &Verdict, counted: Counted, folder: &Path) -> String {
    let counts = verdict.counts;
    let word = match (verdict.broken.is_empty(), verdict.vacuous.is_empty()) {
        (true, true) => "pass",
        (true, false) => "UNKNOWN",
        (false, _) => "FAIL",
    };
    let mut text = format!(
        "{word:<7} row {:>2} seed {seed}: {}; {} faults survived, {} services restarted, {:.0} s\n        \
         {} messages acknowledged ({} by a retry), {} received, {} unknown on the way; \
         {} connections, {} resumed joins; after a heal: first ok in {} ms, all caught up in {} ms",
        row.number,
        row.about,
        counts.faults,
        counted.restarts,
        counted.seconds,
        counts.acknowledged,
        counts.duplicates,
        counts.received,
        counts.unknown,
        counts.connections,
        counts.recovered,
        counts.first_ok_ms,
        counts.caught_up_ms,
    );
    if !verdict.is_pass() {
        let _ = write!(text, "\n{}\n        kept: {}", self::verdict(verdict), folder.display());
    }
    text
}

/// What is broken, rule by rule, with the first cases.
pub(crate) fn verdict(verdict: &Verdict) -> String {
    let mut text = String::new();
    for (rule, (count, cases)) in &verdict.broken {
        let _ = writeln!(text, "        {rule}: {} times", (*count).max(cases.len() as u64));
        for case in cases {
            let _ = writeln!(text, "          {case}");
        }
    }
    for reason in &verdict.vacuous {
        let _ = writeln!(text, "        proves nothing: {reason}");
    }
    if text.is_empty() {
        let _ = writeln!(text, "        nothing is broken: {:?}", verdict.counts);
    }
    text.truncate(text.trim_end().len());
    text
}

/// The last line.
pub(crate) fn summary(runs: &[String], failed: u32) -> String {
    match failed {
        0 => format!("all {} runs passed: 0 lost, 0 doubled, 0 out of order", runs.len()),
        _ => format!("{failed} of {} runs did not pass", runs.len()),
    }
}
