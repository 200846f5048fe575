//! Commands of READMEs, as they are written.

use crate::install::assert_all_ready;
use crate::kube::{Kube, succeed};
use crate::release::NAMESPACE as RELEASE;
use std::path::{Path, PathBuf};

/// The namespace of the README.
const NAMESPACE: &str = "chat";
/// The namespace of the manifests without Helm.
const PLAIN: &str = "plaza";

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The commands behind a heading that begin like this.
fn commands(file: &str, heading: &str, begin: &str) -> String {
    let readme = std::fs::read_to_string(project().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let (_, section) = readme.split_once(&format!("\n## {heading}\n")).expect("it has this section");
    let block = section.split("```sh\n").find(|block| block.starts_with(begin));
    let (commands, _) = block.and_then(|block| block.split_once("```")).expect("the section has these commands");
    commands.to_owned()
}

/// Runs commands in the project's root; what they print.
fn run(kube: &Kube, commands: &str) -> String {
    // What a shell on a desk would go on with in the background is ended here.
    let script = format!("set -eo pipefail\ntrap 'jobs -p | xargs --no-run-if-empty kill' EXIT\n{commands}");
    let told = succeed(kube.command("bash").args(["-c", &script]).current_dir(project()));
    told.unwrap_or_else(|error| panic!("{error}"))
}

/// The commands that install the chart and open the chat.
pub(crate) async fn installs_as_it_is_written(kube: &Kube) {
    let commands = commands("README.md", "On Kubernetes", "kubectl create namespace");
    kube.kubectl(&["delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait", "--timeout=180s"]);
    let told = run(kube, &commands);
    for part in ["STATUS: deployed", "Succeeded", "plaza-edge-", "<!doctype html>"] {
        assert!(told.to_lowercase().contains(&part.to_lowercase()), "{part} is not in:\n{told}");
    }
    kube.helm(&["uninstall", "plaza", "--namespace", NAMESPACE, "--wait", "--timeout=3m"]);
    kube.kubectl(&["delete", "namespace", NAMESPACE, "--wait", "--timeout=180s"]);
}

/// The commands that apply `k8s/plain` and try it.
pub(crate) async fn plain_manifests_work_as_it_is_written(kube: &Kube) {
    let commands = commands("k8s/README.md", "Without Helm", "sed ");
    // A small node has no room for the release of the checks before it, too.
    kube.kubectl(&["delete", "namespace", PLAIN, RELEASE, "--ignore-not-found", "--wait", "--timeout=180s"]);
    let told = run(kube, &commands);
    assert!(told.contains("Plaza works"), "{told}");
    assert_all_ready(kube, PLAIN);
    // Its edges drain, while nobody waits for it.
    kube.kubectl(&["delete", "namespace", PLAIN, "--wait=false"]);
}
