//! Dashboards, alerts and runbooks: they ship as they are written, and name only what there is.

use crate::helm::{root, template, tool};
use crate::renders::{name, renders};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::process::Command;

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Name and text of each file of a folder.
fn files(folder: &str) -> BTreeMap<String, String> {
    let listing = std::fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let names = listing.map(|entry| entry.expect("the folder can be read").file_name().to_string_lossy().into_owned());
    names.map(|file| (file.clone(), read(&format!("{folder}/{file}")))).collect()
}

/// The alerts of the file of rules: `(name, expression, page)`.
fn alerts() -> Vec<(String, String, String)> {
    let rules = read("charts/plaza/rules/plaza.yaml");
    let field = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap_or_else(|| panic!("{block}"));
        line.trim().to_owned()
    };
    let blocks = rules.split("\n      - alert: ").skip(1);
    let alert = |block: &str| {
        let expression = serde_json::from_str(&field(block, "expr:")).expect("expressions are quoted as in JSON");
        let title = block.lines().next().unwrap_or_default().to_owned();
        (title, expression, field(block, "runbook_url: docs/runbooks/"))
    };
    blocks.map(alert).collect()
}

/// Every expression: where it stands, and what it says.
fn expressions() -> Vec<(String, String)> {
    let mut found: Vec<_> = alerts().into_iter().map(|(name, expression, _)| (name, expression)).collect();
    for (file, text) in files("charts/plaza/dashboards") {
        let dashboard: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        for panel in dashboard["panels"].as_array().expect("a dashboard has panels") {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expression = target["expr"].as_str().expect("a target has an expression");
                found.push((format!("{file}, {}", panel["title"]), expression.to_owned()));
            }
        }
    }
    found
}

/// What a page of metrics lists, under every name that a query may use, with the labels of each.
fn listed() -> BTreeMap<String, BTreeSet<String>> {
    let mut names = BTreeMap::new();
    for line in read("docs/metrics.md").lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let labels: BTreeSet<String> = cells[3].split(", ").map(|label| label.trim_matches('`').to_owned()).collect();
        let metric = cells[1].trim_matches('`');
        let endings: &[&str] = if cells[2] == "histogram" { &["_bucket", "_count", "_sum"] } else { &[""] };
        names.extend(endings.iter().map(|ending| (format!("{metric}{ending}"), labels.clone())));
    }
    names
}

/// What others export: the collector's span metrics, kube-state-metrics and the kubelet.
const OTHERS: [&str; 13] = [
    "traces_span_metrics_calls_total",
    "traces_span_metrics_duration_seconds_bucket",
    "kube_horizontalpodautoscaler_status_desired_replicas",
    "kube_horizontalpodautoscaler_status_current_replicas",
    "kube_horizontalpodautoscaler_spec_max_replicas",
    "kube_pod_annotations",
    "kube_deployment_status_replicas_available",
    "kube_pod_container_status_restarts_total",
    "kube_pod_container_resource_limits",
    "container_cpu_cfs_throttled_periods_total",
    "container_cpu_cfs_periods_total",
    "container_memory_working_set_bytes",
    "label_values",
];

/// Labels that a scrape adds, and that a histogram has.
const ADDED: [&str; 5] =
    ["namespace", "pod", "le", "container", "annotation_controller_kubernetes_io_pod_deletion_cost"];

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

#[test]
fn every_query_names_metrics_that_the_programs_export() {
    let listed = listed();
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for (place, expression) in expressions() {
        let of_ours =
            |word: &&str| ["plaza_", "process_", "kube_", "container_", "traces_"].iter().any(|p| word.starts_with(p));
        for word in words(&expression).filter(of_ours) {
            used.insert(word.to_owned());
            if !listed.contains_key(word) && !OTHERS.contains(&word) {
                wrong.push(format!("{place}: nobody exports {word}"));
            }
        }
        // `metric{label="value", ...}`: the labels are those of the metric.
        for (before, inside) in expression.split('{').zip(expression.split('{').skip(1)) {
            let metric = words(before).last().unwrap_or_default();
            let Some(labels) = listed.get(metric) else { continue };
            for matcher in inside.split('}').next().unwrap_or_default().split(", ") {
                let label = words(matcher).next().unwrap_or_default();
                if !labels.contains(label) && !ADDED.contains(&label) {
                    wrong.push(format!("{place}: {metric} has no label {label}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // And the other way round: what is worth exporting is worth a panel.
    let unused: Vec<_> = listed.keys().filter(|name| !name.ends_with("_count") && !name.ends_with("_sum")).collect();
    let unused: Vec<_> = unused.into_iter().filter(|name| !used.contains(*name)).collect();
    let batches = ["plaza_publish_batch_events_bucket", "plaza_session_batch_operations_bucket"];
    assert_eq!(unused, batches, "metrics that no panel and no alert shows");
}

#[test]
fn each_alert_has_its_runbook_and_each_runbook_its_alert() {
    let wanted: BTreeMap<_, _> = alerts().into_iter().map(|(name, _, page)| (page, name)).collect();
    let mut pages = files("docs/runbooks");
    let index = pages.remove("README.md").expect("the pages have an index");
    assert_eq!(pages.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    for (page, alert) in &wanted {
        let text = &pages[page];
        assert!(text.starts_with(&format!("# {alert}\n")), "{page} is headed by its alert");
        assert!(text.contains("\n## Look\n") && text.contains("\n## Do\n"), "{page}");
        assert!(index.contains(&format!("| `{alert}` |")) && index.contains(&format!("({page})")), "{page}");
    }
}

#[test]
fn the_chart_ships_rules_and_dashboards_as_they_are_written() {
    let values = root().join("tests/chart/cases/observed.yaml");
    let more = ["--set", "monitoring.dashboards.enabled=true", "--show-only", "templates/dashboards.yaml"];
    let rendered = template("plaza", "plaza", &values, &more).unwrap_or_else(|said| panic!("{said}"));
    let dashboards = files("charts/plaza/dashboards");
    assert_eq!(rendered.matches("\nkind: ConfigMap\n").count(), dashboards.len());
    assert_eq!(rendered.matches("grafana_dashboard: \"1\"").count(), dashboards.len());
    for (file, text) in &dashboards {
        let line = rendered.lines().find_map(|line| line.strip_prefix(&format!("  {file}: ")));
        let shipped: String = serde_json::from_str(line.unwrap_or_else(|| panic!("no {file}"))).expect("it is quoted");
        assert_eq!(&shipped, text, "{file}");
    }
    let rule = renders().by_name["observed"].of_kind("PrometheusRule").next().expect("there is one");
    assert_eq!(name(rule), "plaza-alerts");
    let shipped = rule["spec"]["groups"][0]["rules"].as_array().expect("it has rules");
    let shipped: Vec<_> = shipped.iter().map(|rule| (&rule["alert"], &rule["annotations"]["runbook_url"])).collect();
    let written = alerts();
    assert_eq!(shipped.len(), written.len());
    for ((alert, url), (name, _, page)) in shipped.into_iter().zip(&written) {
        assert_eq!(
            (alert.as_str(), url.as_str()),
            (Some(name.as_str()), Some(format!("https://example.com/runbooks/{page}").as_str()))
        );
    }
}

#[test]
fn the_dashboards_are_as_their_script_writes_them() {
    let output = Command::new("python3").arg(root().join("scripts/dashboards")).arg("--check").output();
    let output = output.expect("python3 starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_alerts_fire_when_they_should() {
    let mut promtool = tool("bin", "promtool");
    let output = match promtool.args(["test", "rules", "tests/chart/rules.yaml"]).current_dir(root()).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return plaza_tests::not_run("the tests of the alerts", "there is no promtool; scripts/tools installs it");
        }
        output => output.expect("promtool starts"),
    };
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let tests = read("tests/chart/rules.yaml");
    for (alert, _, _) in alerts() {
        assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} is tested");
    }
}
