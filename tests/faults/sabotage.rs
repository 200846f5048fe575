//! The checker is checked with Plaza itself: each rule that services can break is broken once, and some
//! seed must turn red for it.

use crate::Options;
use crate::rows::Row;
use crate::run::{Red, Run};
use plaza_kit::chaos::{IS_BUILT_IN, Rule};
use std::sync::atomic::Ordering::Relaxed;

/// Rules, the rows that show when they are broken, and whether everybody sends as fast as it can in it: only who
/// has several messages on their way at once can see them change places.
const CASES: &[(Rule, u32, bool)] = &[
    (Rule::Dedupe, 3, false),
    (Rule::OkAfterStored, 4, false),
    (Rule::LookBefore, 24, false),
    (Rule::Repair, 14, false),
    (Rule::ResumeExactly, 18, false),
    (Rule::Epoch, 8, false),
    (Rule::Lanes, 4, true),
];
/// Seeds that may be needed.
const SEEDS: u64 = 3;

/// Breaks every rule; how many were not noticed.
///
/// # Errors
/// A run could not be made.
pub(crate) async fn run(options: &Options) -> Result<u32, Red> {
    if !IS_BUILT_IN {
        return Err("the services have no rules to break: use scripts/chaos, which builds them with the feature".into());
    }
    let mut missed = 0;
    for (rule, number, storm) in CASES {
        if options.rule.as_deref().is_some_and(|only| only != rule.as_str()) {
            continue;
        }
        let row = Row::find(*number).ok_or_else(|| format!("row {number} is not known"))?;
        let mut noticed = None;
        for seed in options.seed..options.seed + SEEDS {
            noticed = one(row, (*rule, *storm), seed, options).await?;
            if noticed.is_some() {
                break;
            }
        }
        match &noticed {
            Some(what) => println!("red     {} broken, row {number}: {what}", rule.as_str()),
            None => println!("MISSED  {} broken, row {number}: {SEEDS} seeds passed all the same", rule.as_str()),
        }
        missed += u32::from(noticed.is_none());
    }
    Ok(missed)
}

/// One run with a broken rule: what the checker says of it, if anything.
async fn one(row: &Row, (rule, storm): (Rule, bool), seed: u64, options: &Options) -> Result<Option<String>, Red> {
    let folder = options.out.join(format!("sabotage-{}-seed{seed}", rule.as_str()));
    let _ = std::fs::remove_dir_all(&folder);
    let setup = row.setup(seed, options.scale.stock > 0, Some(rule));
    let mut run = Run::start(row.number, seed, options.scale, setup, &folder).await?;
    run.swarm.board.is_storm.store(storm, Relaxed);
    let result = row.faults(&mut run).await;
    let rules = row.rules(&run);
    let (verdict, _) = run.finish(result, rules).await?;
    // That a row does not end in time, or that too little happened, is no proof.
    let proofs = verdict.broken.iter().filter(|(rule, _)| rule.starts_with('H') && !rule.starts_with("H12"));
    let proofs: Vec<String> = proofs.map(|(rule, (count, _))| format!("{rule} ({count})")).collect();
    Ok((!proofs.is_empty()).then(|| format!("seed {seed}: {}", proofs.join(", "))))
}
