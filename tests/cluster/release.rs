//! Plaza installed by the chart in a namespace that enforces restricted pod security.

use crate::kube::Kube;
use plaza_tests::process::{Process, free_port, installed};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;

/// The release's name, which its objects begin with.
pub(crate) const NAME: &str = "plaza";
/// Where it is.
pub(crate) const NAMESPACE: &str = "plaza-test";

/// The chart's folder.
pub(crate) fn chart() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/plaza").display().to_string()
}

/// A file of values in this folder.
pub(crate) fn values(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster").join(name).display().to_string()
}

/// An empty namespace for it; what an earlier run left there is gone.
pub(crate) fn fresh_namespace(kube: &Kube) {
    kube.kubectl(&["delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait", "--timeout=180s"]);
    kube.kubectl(&["create", "namespace", NAMESPACE]);
    kube.kubectl(&["label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted"]);
}

/// Installs or upgrades it with these files of values, and waits until every pod is ready.
pub(crate) fn apply(kube: &Kube, files: &[&str], more: &[&str]) {
    if kube.try_kubectl(&["get", "namespace", NAMESPACE]).is_err() {
        fresh_namespace(kube);
    }
    let chart = chart();
    let mut arguments = vec!["upgrade", NAME, &chart, "--install", "--namespace", NAMESPACE, "--wait", "--timeout=4m"];
    let files: Vec<String> = files.iter().map(|file| format!("--values={}", values(file))).collect();
    arguments.extend(files.iter().map(String::as_str));
    // Somebody may have scaled by kubectl since, and owns `replicas` now. Helm 3 does not ask who does.
    if kube.helm(&["upgrade", "--help"]).contains("--force-conflicts") {
        arguments.push("--force-conflicts");
    }
    arguments.extend(more);
    kube.helm(&arguments);
}

/// Runs kubectl in its namespace; what it prints.
pub(crate) fn kubectl(kube: &Kube, arguments: &[&str]) -> String {
    kube.kubectl(&[&["--namespace", NAMESPACE], arguments].concat())
}

/// Waits until an object that keeps pods has all of them ready, and no others.
pub(crate) fn settled(kube: &Kube, object: &str) {
    kubectl(kube, &["rollout", "status", object, "--timeout=180s"]);
}

/// Its pods, of one component or all, that are not about to end.
pub(crate) fn pods(kube: &Kube, component: Option<&str>) -> Vec<Value> {
    pods_in(kube, NAMESPACE, component)
}

/// Like [`pods`], of the release of this name in another namespace.
pub(crate) fn pods_in(kube: &Kube, namespace: &str, component: Option<&str>) -> Vec<Value> {
    let mut selector = format!("app.kubernetes.io/instance={NAME}");
    if let Some(component) = component {
        selector += &format!(",app.kubernetes.io/component={component}");
    }
    let list = kube.get(&["pods", "--namespace", namespace, "--selector", &selector]);
    let items = list["items"].as_array().cloned().unwrap_or_default();
    items.into_iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect()
}

/// The name of an object.
pub(crate) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().expect("every object has a name")
}

/// What it costs to delete a pod, as it says.
pub(crate) fn cost(pod: &Value) -> Option<i64> {
    pod["metadata"]["annotations"]["controller.kubernetes.io/pod-deletion-cost"].as_str()?.parse().ok()
}

/// The sum of a metric over its labels, as a pod tells it.
///
/// # Errors
/// The pod does not answer: the words of kubectl.
pub(crate) fn metric(kube: &Kube, pod: &str, metric: &str) -> Result<f64, String> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:9090/proxy/metrics");
    let metrics = kube.try_kubectl(&["get", "--raw", &path])?;
    let is_of_it = |line: &&str| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' ']));
    Ok(metrics.lines().filter(is_of_it).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

/// Waits until no pod of it is ending any more.
pub(crate) async fn wait_until_still(kube: &Kube) {
    let look = || {
        let list = kube.get(&["pods", "--namespace", NAMESPACE]);
        let pods = list["items"].as_array().cloned().unwrap_or_default();
        let ending = pods.iter().filter(|pod| !pod["metadata"]["deletionTimestamp"].is_null());
        let ending: Vec<_> = ending.map(name).collect();
        if ending.is_empty() { Ok(()) } else { Err(format!("ending: {ending:?}")) }
    };
    kube.wait("every pod that ends has ended", look).await;
}

/// A port of loopback that leads to one pod, or to a pod behind a Service, while this is kept.
pub(crate) async fn forward(kube: &Kube, target: &str, port: u16) -> (Process, SocketAddr) {
    forward_in(kube, NAMESPACE, target, port).await
}

/// Like [`forward`], into another namespace.
pub(crate) async fn forward_in(kube: &Kube, namespace: &str, target: &str, port: u16) -> (Process, SocketAddr) {
    let local = free_port();
    let ports = format!("{local}:{port}");
    let command = kube.command("kubectl");
    let envs: Vec<(String, String)> = command
        .get_envs()
        .filter_map(|(key, value)| Some((key.to_str()?.to_owned(), value?.to_str()?.to_owned())))
        .collect();
    let envs: Vec<(&str, String)> = envs.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    let arguments = ["kubectl", "--namespace", namespace, "port-forward", target, &ports].map(str::to_owned);
    let mut process = Process::start("forward", Path::new("env"), &arguments, &envs);
    process.wait_log("its port", |log| log.contains("Forwarding from").then_some(())).await;
    (process, SocketAddr::from(([127, 0, 0, 1], local)))
}

/// Where the edges' Service is reached: a port of a node.
pub(crate) fn front(kube: &Kube) -> SocketAddr {
    let service = kube.get(&["service", &format!("{NAME}-edge"), "--namespace", NAMESPACE]);
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().expect("the Service has the type NodePort");
    let nodes = kube.get(&["nodes"]);
    let addresses = nodes["items"][0]["status"]["addresses"].as_array().cloned().unwrap_or_default();
    let address = addresses.iter().find(|address| address["type"] == "InternalIP").expect("a node has an address");
    let address = address["address"].as_str().expect("an address is text");
    format!("{address}:{port}").parse().expect("an address and a port")
}

/// Runs a client program of `tests/clients` to its end, which must be a success; what it printed.
pub(crate) async fn client(program: &str, script: &str, arguments: &[String]) -> String {
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/venv/bin").join(program);
    let program = if venv.exists() { venv } else { installed(program) };
    let all = [&[clients.join(script).display().to_string()], arguments].concat();
    let mut process = Process::start(script, &program, &all, &[]);
    let status = process.wait_within(std::time::Duration::from_secs(240)).await;
    let log = process.log();
    assert!(status.success() && log.contains(" passed, 0 failed"), "{script} ended with {status}:\n{log}");
    log
}
