//! Helm 3 makes of the chart what Helm 4 makes of it.

use crate::helm::{root, template_by, yaml_files};
use crate::refused::not_refused;
use crate::renders::renders;
use plaza_tests::not_run;
use std::path::Path;
use std::process::Command;

/// Helm 3, where `tests/tools/build --cluster` has put it on PATH.
fn helm_3() -> Option<Command> {
    if Command::new("helm3").arg("version").output().is_ok() {
        return Some(Command::new("helm3"));
    }
    if std::env::var("PLAZA_TEST_TIER").as_deref() != Ok("fast") {
        not_run("Helm 3", "tests/tools/build --cluster makes it");
    }
    None
}

fn template(values: &Path) -> Result<String, String> {
    template_by(helm_3().expect("it was there"), "plaza", "chat", values, &[])
}

#[test]
fn helm_3_renders_the_same() {
    if helm_3().is_none() {
        return;
    }
    for (name, path) in yaml_files(&root().join("tests/chart/cases")) {
        let text = template(&path).unwrap_or_else(|said| panic!("{name}: {said}"));
        assert!(text == renders().by_name[&name].text, "{name} is another one by Helm 3");
    }
}

#[test]
fn helm_3_refuses_in_the_same_words() {
    if helm_3().is_none() {
        return;
    }
    let wrong = not_refused(template);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
