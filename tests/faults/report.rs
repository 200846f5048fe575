//! The report, for somebody who has never seen the program.

use crate::checker::Verdict;
use crate::rows::Row;
use crate::run::Counted;
use crate::world::Hits;
use std::fmt::Write;
use std::path::Path;

/// One run: a line when it passed, and what is broken when not.
pub(crate) fn line(row: &Row, seed: u64, verdict: &Verdict, counted: &Counted, folder: &Path) -> String {
    let counts = verdict.counts;
    let word = match (verdict.broken.is_empty(), verdict.vacuous.is_empty()) {
        (true, true) => "pass",
        (true, false) => "UNKNOWN",
        (false, _) => "FAIL",
    };
    let Hits { ended, other, reset, refused, held } = counted.hits;
    let broken = |rules: &[&str]| -> u64 {
        let of = verdict.broken.iter().filter(|(rule, _)| rules.iter().any(|start| rule.starts_with(start)));
        of.map(|(_, (count, cases))| (*count).max(cases.len() as u64)).sum()
    };
    let mut text = format!(
        "{word:<7} row {:>2} seed {seed}: {}; {:.0} s\n        \
         {} faults survived: {ended} processes ended or stopped, {reset} connections reset, {refused} refused, \
         {held} pieces held up, {other} other hits\n        \
         {} messages acknowledged ({} by a retry, {} busy and {} unknown on the way), {} received: \
         {} lost, {} doubled, {} out of order\n        \
         {} connections, {} resumed joins, {} by pid; after a heal: first ok in {} ms, all caught up in {} ms",
        row.number,
        row.about,
        counted.seconds,
        counts.faults,
        counts.acknowledged,
        counts.duplicates,
        counts.busy,
        counts.unknown,
        counts.received,
        broken(&["H1 "]),
        broken(&["H5 "]),
        broken(&["H7 ", "H8 ", "H9 "]),
        counts.connections,
        counts.recovered,
        counts.by_pid,
        counts.first_ok_ms,
        counts.caught_up_ms,
    );
    for note in &counted.notes {
        let _ = write!(text, "\n        {note}");
    }
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
