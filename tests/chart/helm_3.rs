//! Helm 3 makes of the chart what Helm 4 makes of it.

use crate::helm::{root, template_by, yaml_files};
use crate::refused::not_refused;
use crate::renders::renders;
use plaza_tests::not_run;
use std::path::Path;
use std::process::Command;

/// Whether there is a Helm 3: `scripts/tools` has it built, but for the fast tests.
fn is_there() -> bool {
    let is_there = plaza_tests::observe::is_there("helm3");
    if !is_there && std::env::var("PLAZA_TEST_TIER").as_deref() != Ok("fast") {
        not_run("Helm 3", "tests/tools/build helm3 makes it");
    }
    is_there
}

fn template(values: &Path) -> Result<String, String> {
    template_by(Command::new("helm3"), "plaza", "chat", values, &[])
}

#[test]
fn helm_3_renders_the_same() {
    if !is_there() {
        return;
    }
    for (name, path) in yaml_files(&root().join("tests/chart/cases")) {
        let text = template(&path).unwrap_or_else(|said| panic!("{name}: {said}"));
        assert!(text == renders().by_name[&name].text, "{name} is another one by Helm 3");
    }
}

#[test]
fn helm_3_refuses_in_the_same_words() {
    if !is_there() {
        return;
    }
    let wrong = not_refused(template);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
