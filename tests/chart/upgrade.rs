//! What an upgrade finds in the cluster: the chart looks at the release that runs.

use crate::helm::{root, template};
use crate::renders::{name, renders};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

/// Where the chart looks.
const SESSION: &str = "/apis/apps/v1/namespaces/chat/deployments/plaza-session";

/// An API server that has one Deployment, as far as `helm template --dry-run=server` asks.
#[derive(Debug)]
struct Api {
    addr: SocketAddr,
    serving: JoinHandle<Vec<String>>,
}

impl Api {
    fn start(deployment: Value) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the kernel has free ports");
        let addr = listener.local_addr().expect("it is bound");
        let serving = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for stream in listener.incoming() {
                let Some(path) = stream.ok().and_then(|stream| answer(&stream, &deployment)) else { continue };
                if path == "/end" {
                    break;
                }
                asked.push(path);
            }
            asked
        });
        Self { addr, serving }
    }

    /// Ends it; the paths that it was asked for.
    fn end(self) -> Vec<String> {
        let mut last = TcpStream::connect(self.addr).expect("it listens");
        last.write_all(b"GET /end HTTP/1.1\r\n\r\n").expect("it reads");
        self.serving.join().expect("it does not panic")
    }
}

/// Answers the one request of a connection; its path. `None`: nobody asked for anything.
fn answer(mut stream: &TcpStream, deployment: &Value) -> Option<String> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let path = lines.next()?.split([' ', '?']).nth(1)?.to_owned();
    lines.by_ref().take_while(|line| !line.is_empty()).for_each(drop);
    let version = json!({ "groupVersion": "apps/v1", "version": "v1" });
    let groups = json!([{ "name": "apps", "versions": [version], "preferredVersion": version }]);
    let kind = json!({ "name": "deployments", "namespaced": true, "kind": "Deployment", "verbs": ["get"] });
    let body = match path.as_str() {
        "/version" => json!({ "major": "1", "minor": "33", "gitVersion": "v1.33.0" }),
        "/api" => json!({ "kind": "APIVersions", "versions": ["v1"] }),
        "/api/v1" => json!({ "kind": "APIResourceList", "groupVersion": "v1", "resources": [] }),
        "/apis" => json!({ "kind": "APIGroupList", "groups": groups }),
        "/apis/apps/v1" => json!({ "kind": "APIResourceList", "groupVersion": "apps/v1", "resources": [kind] }),
        SESSION => deployment.clone(),
        _ => json!({ "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404 }),
    };
    let (code, body) = (body["code"].as_u64().unwrap_or(200), body.to_string());
    let head = format!("HTTP/1.1 {code} .\r\ncontent-type: application/json\r\nconnection: close\r\n");
    stream.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).ok()?;
    Some(path)
}

/// What Helm says when the release that `running` renders is upgraded to other values, and what it looked at.
fn upgrade(running: &str, case: &str, more: &[&str]) -> (String, Vec<String>) {
    let mut deployments = renders().by_name[running].of_kind("Deployment");
    let api = Api::start(deployments.find(|object| name(object) == "plaza-session").expect("it is rendered").clone());
    let values = root().join(format!("tests/chart/cases/{case}.yaml"));
    let server = format!("http://{}", api.addr);
    let args = ["--is-upgrade", "--dry-run=server", "--kubeconfig=/dev/null", "--kube-apiserver", &server];
    let said = template("plaza", "chat", &values, &[&args, more].concat());
    // Rendered, the manifests meet a server that knows nothing of them.
    (said.expect_err("it has no schemas"), api.end())
}

#[test]
fn a_running_release_changes_its_tls_only_when_that_is_accepted() {
    for (running, case, change) in [
        ("default", "grpc-tls-by-dns", "from plain text to TLS:"),
        ("grpc-tls-by-dns", "grpc-tls", "from TLS to TLS of both sides:"),
        ("grpc-tls", "default", "from TLS of both sides to plain text:"),
    ] {
        let (said, _) = upgrade(running, case, &[]);
        assert!(said.contains(&format!("grpc.tls would take a running release {change}")), "{running}, {case}: {said}");
        assert!(said.contains("set grpc.tls.acceptInterruption to true"), "{said}");
        let (said, _) = upgrade(running, case, &["--set", "grpc.tls.acceptInterruption=true"]);
        assert!(!said.contains("grpc.tls"), "{running}, {case}: {said}");
    }
    for case in ["default", "grpc-tls-by-dns", "grpc-tls"] {
        let (said, asked) = upgrade(case, case, &[]);
        assert!(!said.contains("grpc.tls"), "{case}: {said}");
        assert!(asked.iter().any(|path| path == SESSION), "{case}: the chart looked at {asked:?}");
    }
}
