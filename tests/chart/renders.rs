//! All renders, made and parsed once for the whole binary.

use crate::helm::{root, template, tool, yaml_files};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::process::Stdio;
use std::sync::OnceLock;

/// The oldest Kubernetes that the chart supports, and the newest with a schema to check against.
pub(crate) const VERSIONS: [&str; 2] = ["1.30", "1.37"];

/// The kinds that the chart renders and Kubernetes itself does not have: `extensions.rs` checks them.
pub(crate) const EXTENSIONS: [&str; 5] = ["GRPCRoute", "HTTPRoute", "PodMonitor", "PrometheusRule", "ScaledObject"];

/// What one set of values renders.
#[derive(Debug)]
pub(crate) struct Render {
    /// The file of values, as text.
    pub(crate) values: String,
    /// As Helm writes it.
    pub(crate) text: String,
    /// The same, parsed.
    pub(crate) documents: Vec<Value>,
}

impl Render {
    /// The documents of a kind.
    pub(crate) fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.documents.iter().filter(move |document| document["kind"] == kind)
    }

    /// Name and template of each workload, and each pod of its own.
    pub(crate) fn pods(&self) -> impl Iterator<Item = (&str, &Value)> {
        let pods = self.documents.iter().map(|document| {
            let is_pod = document["kind"] == "Pod";
            (name(document), if is_pod { document } else { &document["spec"]["template"] })
        });
        pods.filter(|(_, template)| template["spec"]["containers"].is_array())
    }
}

/// All renders, and what the schemas of Kubernetes say about them.
#[derive(Debug)]
pub(crate) struct Renders {
    /// By the name of the file of values; those of `k8s/` by their folder.
    pub(crate) by_name: BTreeMap<String, Render>,
    /// Violations of a schema.
    pub(crate) problems: Vec<String>,
    /// Kinds without a schema.
    pub(crate) unknown: Vec<String>,
}

/// The name of an object.
pub(crate) fn name(document: &Value) -> &str {
    document["metadata"]["name"].as_str().unwrap_or_else(|| panic!("an object without a name: {document}"))
}

/// The strings of a list, or the keys of an object; empty when it is neither.
pub(crate) fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

/// Every render: of `cases/`, and of the sets of values that `k8s/` offers.
pub(crate) fn renders() -> &'static Renders {
    static RENDERS: OnceLock<Renders> = OnceLock::new();
    RENDERS.get_or_init(|| {
        let mut sources = yaml_files(&root().join("tests/chart/cases"));
        for cluster in ["alb-aliyun", "alb-aws", "kind"] {
            sources.push((format!("k8s/{cluster}"), root().join("k8s").join(cluster).join("values.yaml")));
        }
        let mut rendered = BTreeMap::new();
        for (name, path) in sources {
            let text = template("plaza", "chat", &path, &[]).unwrap_or_else(|said| panic!("{name}: {said}"));
            let values = std::fs::read_to_string(&path).expect("helm has just read it");
            rendered.insert(name, (values, text));
        }
        parsed(rendered)
    })
}

fn parsed(rendered: BTreeMap<String, (String, String)>) -> Renders {
    let texts: BTreeMap<_, _> = rendered.iter().map(|(name, (_, text))| (name, text)).collect();
    let mut answer = validate(&serde_json::to_vec(&texts).expect("strings are JSON"));
    let by_name = rendered.into_iter().map(|(name, (values, text))| {
        let Value::Array(documents) = answer["documents"][&name].take() else { panic!("{name}: no documents") };
        (name, Render { values, text, documents })
    });
    let by_name = by_name.collect();
    let strings = |list: &Value| items(list).filter_map(Value::as_str).map(str::to_owned).collect();
    Renders { by_name, problems: strings(&answer["problems"]), unknown: strings(&answer["unknown"]) }
}

/// Passes texts, by name as JSON, through `validate.py`.
pub(crate) fn validate(input: &[u8]) -> Value {
    let mut python = tool("venv/bin", "python3");
    python.arg("tests/chart/validate.py").args(VERSIONS).current_dir(root());
    let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 starts");
    child.stdin.take().expect("it is piped").write_all(input).expect("validate.py reads all");
    let output = child.wait_with_output().expect("validate.py ends");
    assert!(output.status.success(), "validate.py failed; scripts/tools installs what it needs");
    serde_json::from_slice(&output.stdout).expect("validate.py writes JSON")
}
