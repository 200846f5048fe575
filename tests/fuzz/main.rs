//! The fuzzer: libFuzzer around the target that `PLAZA_FUZZ` names. `scripts/fuzz` builds and runs it.
//!
//! `PLAZA_FUZZ=list` prints the names. The target's seeds are written into the folder `PLAZA_FUZZ_SEEDS`, which
//! libFuzzer is then told to begin with.

#![no_main]

use plaza_fuzz::{TARGETS, Target};
use std::sync::OnceLock;

static CHOSEN: OnceLock<&Target> = OnceLock::new();

fn choose() {
    let name = std::env::var("PLAZA_FUZZ").unwrap_or_default();
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        if name == "list" {
            write_line(&mut std::io::stdout(), &names.join("\n"));
            std::process::exit(0);
        }
        write_line(&mut std::io::stderr(), &format!("PLAZA_FUZZ is {name:?}; it names one of: {}", names.join(", ")));
        std::process::exit(2);
    };
    if let Some(folder) = std::env::var_os("PLAZA_FUZZ_SEEDS") {
        for (index, seed) in (target.seeds)().iter().enumerate() {
            let path = std::path::Path::new(&folder).join(format!("seed-{index}"));
            std::fs::write(&path, seed).expect("PLAZA_FUZZ_SEEDS is a folder that can be written");
        }
    }
    CHOSEN.get_or_init(|| target);
}

fn write_line(out: &mut dyn std::io::Write, line: &str) {
    // Whoever asked has gone when this fails.
    let _ = writeln!(out, "{line}");
}

libfuzzer_sys::fuzz_target!(
    init: choose(),
    |input: &[u8]| {
        if let Some(target) = CHOSEN.get() {
            (target.check)(input);
        }
    }
);
