//! Values that cannot work are refused with a sentence that says which, and what would.

use crate::helm::{helm, root, template, yaml_files};
use crate::renders::{items, validate};
use serde_json::{Value, json};
use std::path::Path;

/// The sets of values that are not refused with their sentences, when this makes the renders.
pub(crate) fn not_refused(render: impl Fn(&Path) -> Result<String, String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, path) in yaml_files(&root().join("tests/chart/refused")) {
        let text = std::fs::read_to_string(&path).expect("it was listed");
        let first = text.lines().next().and_then(|line| line.strip_prefix("# says: "));
        let sentence = first.unwrap_or_else(|| panic!("{name} does not begin with `# says: `"));
        match render(&path) {
            Ok(_) => wrong.push(format!("{name}: rendered")),
            Err(said) if said.contains(sentence) => {}
            Err(said) => wrong.push(format!("{name}: {said}")),
        }
    }
    wrong
}

#[test]
fn every_wrong_set_of_values_is_refused_with_its_sentence() {
    let wrong = not_refused(|values| template("plaza", "chat", values, &[]));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Sets each text that `formats.yaml` knows, by what `text` makes of its format; the paths, and what Helm says.
fn formatted(documents: &Value, text: impl Fn(&Value) -> Value) -> (Vec<String>, String) {
    let (mut values, mut paths) = (json!({}), Vec::new());
    for format in items(&documents["formats"][0]) {
        for at in items(&format["at"]).filter_map(Value::as_str) {
            let default = at.split('.').fold(&documents["values"][0], |value, key| &value[key]);
            let place = at.split('.').fold(&mut values, |value, key| &mut value[key]);
            *place = if default.is_array() { json!([text(format)]) } else { text(format) };
            assert!(default.is_array() || default.is_string(), "there is no {at} with a text");
            paths.push(at.to_owned());
        }
    }
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("formatted.yaml");
    std::fs::write(&file, values.to_string()).expect("the file can be written");
    (paths, template("plaza", "chat", &file, &[]).err().unwrap_or_default())
}

#[test]
fn every_format_has_an_example_that_it_takes_and_refuses_other_texts_in_words() {
    let read = |file: &str| std::fs::read_to_string(root().join("charts/plaza").join(file)).expect("the chart has it");
    let texts = json!({ "formats": read("formats.yaml"), "values": read("values.yaml") });
    let documents = &validate(&serde_json::to_vec(&texts).expect("strings are JSON"))["documents"];
    let (paths, said) = formatted(documents, |_| json!(" "));
    for at in paths {
        assert!(said.contains(&format!("{at} has \" \", which is not ")), "{at} is not refused:\n{said}");
    }
    let (_, said) = formatted(documents, |format| format["example"].clone());
    assert!(!said.contains("which is not"), "{said}");
}

#[test]
fn the_inequalities_hold_without_the_schema_too() {
    let values = root().join("tests/chart/refused/grace.yaml");
    let said = template("plaza", "chat", &values, &["--skip-schema-validation"]);
    assert!(said.is_err_and(|said| said.contains("edge.terminationGracePeriodSeconds is 60")));
}

#[test]
fn a_kubernetes_without_the_sleep_hook_is_refused() {
    let values = root().join("tests/chart/cases/default.yaml");
    let said = template("plaza", "chat", &values, &["--kube-version", "1.29.9"]);
    assert!(said.is_err_and(|said| said.contains("requires kubeVersion: >=1.30.0-0")));
}

#[test]
fn lint_finds_nothing() {
    let output = helm(&["lint", "--strict", "--quiet", "charts/plaza"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_chart_works_as_a_part_of_another() {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR")).join("parent");
    std::fs::create_dir_all(parent.join("charts")).expect("the folder can be made");
    let chart = "apiVersion: v2\nname: parent\nversion: 1.0.0\n";
    std::fs::write(parent.join("Chart.yaml"), chart).expect("the file can be written");
    let values = "global: { region: eu }\nplaza: { edge: { replicas: 3 } }\n";
    std::fs::write(parent.join("values.yaml"), values).expect("the file can be written");
    copy(&root().join("charts/plaza"), &parent.join("charts/plaza"));
    let output = helm(&["template", "shop", parent.to_str().expect("the path is UTF-8")]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("name: shop-edge") && text.contains("replicas: 3"), "{text}");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the folder can be made");
    for entry in std::fs::read_dir(from).expect("the folder can be read") {
        let entry = entry.expect("the folder can be read");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("the file can be copied");
        }
    }
}
