//! The README's commands, as they are written.

use crate::kube::{Kube, succeed};
use std::path::Path;

/// The namespace of the README.
const NAMESPACE: &str = "chat";

/// The commands that install the chart and open the chat.
pub(crate) async fn installs_as_it_is_written(kube: &Kube) {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let readme = std::fs::read_to_string(project.join("README.md")).expect("the README can be read");
    let (_, section) = readme.split_once("\n## On Kubernetes\n").expect("it has a section on Kubernetes");
    let block = section.split("```sh\n").find(|block| block.starts_with("kubectl create namespace"));
    let (commands, _) = block.and_then(|block| block.split_once("```")).expect("it says how to install");
    kube.kubectl(&["delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait", "--timeout=180s"]);
    // What a shell on a desk would go on with in the background is ended here.
    let script = format!("set -e\ntrap 'kill $(jobs -p)' EXIT\n{commands}");
    let told = succeed(kube.command("bash").args(["-c", &script]).current_dir(&project));
    let told = told.unwrap_or_else(|error| panic!("{error}"));
    for part in ["STATUS: deployed", "Succeeded", "plaza-edge-", "<!doctype html>"] {
        assert!(told.to_lowercase().contains(&part.to_lowercase()), "{part} is not in:\n{told}");
    }
    kube.helm(&["uninstall", "plaza", "--namespace", NAMESPACE, "--wait", "--timeout=3m"]);
    kube.kubectl(&["delete", "namespace", NAMESPACE, "--wait", "--timeout=180s"]);
}
