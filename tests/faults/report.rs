//! The report, for somebody who has never seen the program.

use crate::checker::Verdict;
use crate::rows::Row;
use crate::run::{Counted, Red};
use crate::world::Hits;
use std::fmt::Write;
use std::path::Path;

/// What one run came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tally {
    /// `pass`, `FAIL`, or `UNKNOWN`: nothing is broken, and nothing proven.
    pub(crate) word: &'static str,
    pub(crate) acknowledged: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) misordered: u64,
}

impl Tally {
    /// A run that came to no verdict.
    pub(crate) const NOT_MADE: Self = Self { word: "FAIL", acknowledged: 0, lost: 0, doubled: 0, misordered: 0 };

    pub(crate) fn of(verdict: &Verdict) -> Self {
        let broken = |rules: &[&str]| -> u64 {
            let of = verdict.broken.iter().filter(|(rule, _)| rules.iter().any(|start| rule.starts_with(start)));
            of.map(|(_, (count, cases))| (*count).max(cases.len() as u64)).sum()
        };
        Self {
            word: match (verdict.broken.is_empty(), verdict.vacuous.is_empty()) {
                (true, true) => "pass",
                (true, false) => "UNKNOWN",
                (false, _) => "FAIL",
            },
            acknowledged: verdict.counts.acknowledged,
            lost: broken(&["H1 "]),
            doubled: broken(&["H5 "]),
            misordered: broken(&["H7 ", "H8 ", "H9 "]),
        }
    }
}

/// One run: a line when it passed, and what is broken when not.
pub(crate) fn line(row: &Row, seed: u64, verdict: &Verdict, counted: &Counted, folder: &Path) -> String {
    let counts = verdict.counts;
    let Tally { word, acknowledged, lost, doubled, misordered } = Tally::of(verdict);
    let Hits { ended, other, reset, refused, held } = counted.hits;
    let mut text = format!(
        "{word:<7} row {:>2} seed {seed}: {}; {:.0} s\n        \
         {} faults survived: {ended} processes ended or stopped, {reset} connections reset, {refused} refused, \
         {held} pieces held up, {other} other hits\n        \
         {acknowledged} messages acknowledged ({} by a retry, {} busy and {} unknown on the way), {} received: \
         {lost} lost, {doubled} doubled, {misordered} out of order\n        \
         {} connections, {} resumed joins, {} by pid; after a heal: first ok in {} ms, all caught up in {} ms",
        row.number,
        row.about,
        counted.seconds,
        counts.faults,
        counts.duplicates,
        counts.busy,
        counts.unknown,
        counts.received,
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

/// A run that came to no verdict.
pub(crate) fn not_made(row: &Row, seed: u64, red: &Red) -> String {
    let word = Tally::NOT_MADE.word;
    format!("{word:<7} row {:>2} seed {seed}: {}\n        it came to no verdict: {red}", row.number, row.about)
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

/// All runs in one table, a line for each row, and what they prove together.
pub(crate) fn table(runs: &[(&Row, u64, Tally)]) -> String {
    let mut text =
        "| row | what happens | acknowledged, by seed | lost | doubled | out of order | verdict, by seed |\n\
                    |---|---|---|---|---|---|---|\n"
            .to_owned();
    for of_row in runs.chunk_by(|a, b| a.0.number == b.0.number) {
        let [(row, ..), ..] = of_row else { continue };
        let each = |show: &dyn Fn(&Tally) -> String| {
            of_row.iter().map(|(_, _, tally)| show(tally)).collect::<Vec<_>>().join(" ")
        };
        let sum = |count: &dyn Fn(&Tally) -> u64| of_row.iter().map(|(_, _, tally)| count(tally)).sum::<u64>();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            row.number,
            row.about,
            each(&|tally| tally.acknowledged.to_string()),
            sum(&|tally| tally.lost),
            sum(&|tally| tally.doubled),
            sum(&|tally| tally.misordered),
            each(&|tally| tally.word.to_owned()),
        );
    }
    let passed = runs.iter().filter(|(_, _, tally)| tally.word == "pass").count();
    let acknowledged: u64 = runs.iter().map(|(_, _, tally)| tally.acknowledged).sum();
    let _ = write!(text, "\n{passed} of {} runs passed; {acknowledged} messages acknowledged in all", runs.len());
    text
}

/// The last line.
pub(crate) fn summary(runs: &[String], failed: u32) -> String {
    match failed {
        0 => format!("all {} runs passed: 0 lost, 0 doubled, 0 out of order", runs.len()),
        _ => format!("{failed} of {} runs did not pass", runs.len()),
    }
}
