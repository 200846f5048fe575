//! Renders and generated pages, compared with what is in the repository.

use crate::helm::{root, template, yaml_files};
use crate::renders::renders;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// What `k8s/plain/plaza.yaml` begins with.
const PLAIN_HEAD: &str = "\
# Plaza without Helm, from the chart's defaults; k8s/README.md says how to give the images their registry and apply it.
# Written by `just chart-bless`; do not edit. The images are plaza-edge, plaza-session and plaza-fanout.
---
apiVersion: v1
kind: Namespace
metadata:
  name: plaza
  labels:
    pod-security.kubernetes.io/enforce: restricted
";

#[test]
fn every_case_renders_as_recorded() {
    let folder = root().join("tests/chart/golden");
    let cases = yaml_files(&root().join("tests/chart/cases"));
    let mut differing = Vec::new();
    for (name, _) in &cases {
        differing.extend(difference(&folder.join(format!("{name}.yaml")), &renders().by_name[name].text));
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));

    let names = |files: Vec<(String, _)>| files.into_iter().map(|(name, _)| name).collect::<BTreeSet<_>>();
    assert_eq!(names(yaml_files(&folder)), names(cases), "golden/ and cases/ do not have the same files");
}

#[test]
fn the_plain_manifests_are_what_the_chart_renders() {
    let values = root().join("tests/chart/cases/default.yaml");
    let rendered = template("plaza", "plaza", &values, &["--skip-tests"]).unwrap_or_else(|said| panic!("{said}"));
    // Nothing here is Helm's, so nothing may say so.
    let of_helm = |line: &&str| {
        !["app.kubernetes.io/managed-by:", "helm.sh/chart:", "# Source:"]
            .iter()
            .any(|start| line.trim_start().starts_with(start))
    };
    let lines: Vec<_> = rendered.lines().filter(of_helm).collect();
    let plain = format!("{PLAIN_HEAD}{}\n", lines.join("\n"));
    let differing = difference(&root().join("k8s/plain/plaza.yaml"), &plain);
    assert!(differing.is_none(), "{}", differing.unwrap_or_default());
}

#[test]
fn the_readme_lists_the_values() {
    let script = root().join("scripts/chart-readme");
    let output = Command::new("python3").arg(script).arg("--check").output().expect("python3 starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Says where a file differs from what it should be; with `PLAZA_BLESS`, makes it what it should be.
fn difference(path: &Path, wanted: &str) -> Option<String> {
    if std::env::var_os("PLAZA_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("the folder can be made");
        std::fs::write(path, wanted).expect("the file can be written");
        return None;
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    if found == wanted {
        return None;
    }
    let (mut recorded, mut rendered) = (found.lines(), wanted.lines());
    let line = 1 + recorded.by_ref().zip(rendered.by_ref()).take_while(|(a, b)| a == b).count();
    let at = |text: &str| text.lines().nth(line - 1).unwrap_or("(nothing)").trim().to_owned();
    let (path, old, new) = (path.display(), at(&found), at(wanted));
    Some(format!("{path}:{line}: recorded `{old}`, rendered `{new}`; `just chart-bless` records it"))
}
