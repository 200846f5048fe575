//! Three real `nats-server` processes that keep streams together.

use crate::process::{PATIENCE, Process, free_port, fresh_folder, installed, relaunch};
use serde_json::Value;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long one question about the stream may take.
const ASK: Duration = Duration::from_millis(500);

/// A leader that is asked to hand over is asked again after this.
const HANDED_OVER: Duration = Duration::from_secs(2);

/// Three servers with routes to each other. A store survives [`Self::kill`] and [`Self::restart`]
/// of its server.
///
/// The servers tell clients nothing of each other, so that a link through a proxy stays one: a client
/// knows the addresses that it was given.
#[derive(Debug)]
pub struct NatsCluster {
    nodes: Vec<Node>,
}

/// One server of the three.
#[derive(Debug)]
struct Node {
    process: Option<Process>,
    port: u16,
    route: u16,
    folder: PathBuf,
    store: PathBuf,
}

impl NatsCluster {
    /// Starts three and waits until they have elected a leader for what they keep.
    ///
    /// # Panics
    /// When they do not within [`PATIENCE`], or find no free ports in five tries.
    pub async fn start() -> Self {
        // Another process may take a port between the choice and the start: choose again.
        for _ in 0..5 {
            let node = |_| Node {
                process: None,
                port: 0,
                route: free_port(),
                folder: fresh_folder("nats"),
                store: fresh_folder("nats-store"),
            };
            let mut cluster = Self { nodes: (0..3).map(node).collect() };
            let mut up = true;
            for index in 0..3 {
                up = up && cluster.launch(index).await;
            }
            if up {
                cluster.elected().await;
                return cluster;
            }
        }
        panic!("three nats-servers found no free ports in five tries");
    }

    /// What `--nats-url` takes: all three.
    pub fn urls(&self) -> String {
        (0..3).map(|index| self.url(index)).collect::<Vec<_>>().join(",")
    }

    /// The URL of one server, 0 to 2.
    pub fn url(&self, index: usize) -> String {
        format!("nats://127.0.0.1:{}", self.nodes[index].port)
    }

    /// Kills one server at once; what it has stored stays.
    pub fn kill(&mut self, index: usize) {
        drop(self.nodes[index].process.take());
    }

    /// Starts one again on the same ports with the same store.
    ///
    /// # Panics
    /// When another process holds a port for [`PATIENCE`].
    pub async fn restart(&mut self, index: usize) {
        self.kill(index);
        relaunch(&format!("server {index}"), async || self.launch(index).await).await;
    }

    /// Stops one where it stands, until it gets `CONT`.
    ///
    /// # Panics
    /// When it goes on for [`PATIENCE`].
    pub async fn pause(&self, index: usize) {
        self.process(index).pause().await;
    }

    /// The process of one server, for signals.
    ///
    /// # Panics
    /// When it was killed and not restarted.
    pub fn process(&self, index: usize) -> &Process {
        self.nodes[index].process.as_ref().expect("the server runs")
    }

    /// Whether this server runs.
    pub fn runs(&self, index: usize) -> bool {
        self.nodes[index].process.is_some()
    }

    /// The server that leads a stream, once there is one.
    ///
    /// # Panics
    /// When nobody leads it within [`PATIENCE`].
    pub async fn leader(&self, stream: &str) -> usize {
        self.wait(stream, "no leader", |info| server(info["cluster"]["leader"].as_str()?)).await
    }

    /// Waits until a leader and all replicas of a stream have everything that is stored.
    ///
    /// # Panics
    /// When they do not within [`PATIENCE`].
    pub async fn settled(&self, stream: &str) {
        self.wait(stream, "replicas lag", |info| {
            server(info["cluster"]["leader"].as_str()?)?;
            let replicas = info["cluster"]["replicas"].as_array()?;
            let current = |r: &Value| r["current"] == true && r["offline"] != true && r["lag"].as_u64().is_none();
            (replicas.len() == 2 && replicas.iter().all(current)).then_some(())
        })
        .await;
    }

    /// Asks a leader to hand over, and waits until another server leads.
    ///
    /// # Panics
    /// When nobody else does within [`PATIENCE`].
    pub async fn step_down(&self, stream: &str) -> usize {
        let before = self.leader(stream).await;
        let begin = Instant::now();
        loop {
            let _answer = self.ask(before, format!("$JS.API.STREAM.LEADER.STEPDOWN.{stream}")).await;
            let asked = Instant::now();
            while asked.elapsed() < HANDED_OVER {
                let leader = self.leader(stream).await;
                if leader != before {
                    return leader;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // The question was lost, or refused by a busy server.
            assert!(begin.elapsed() < PATIENCE, "{stream}: no other leader in {PATIENCE:?}");
        }
    }

    /// The stream's info as the cluster's API tells it.
    async fn wait<T>(&self, stream: &str, what: &str, found: impl Fn(&Value) -> Option<T>) -> T {
        let begin = Instant::now();
        let mut last = Value::Null;
        while begin.elapsed() < PATIENCE {
            for index in (0..3).filter(|&index| self.runs(index)) {
                if let Some(info) = self.info(index, stream).await {
                    if let Some(value) = found(&info) {
                        return value;
                    }
                    last = info;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{stream}: {what} in {PATIENCE:?}; the cluster says {}", last["cluster"]);
    }

    async fn info(&self, index: usize, stream: &str) -> Option<Value> {
        self.ask(index, format!("$JS.API.STREAM.INFO.{stream}")).await
    }

    /// What one server answers.
    async fn ask(&self, index: usize, subject: String) -> Option<Value> {
        let client = tokio::time::timeout(ASK, async_nats::connect(self.url(index))).await.ok()?.ok()?;
        let answer = tokio::time::timeout(ASK, client.request(subject, "".into())).await.ok()?.ok()?;
        serde_json::from_slice(&answer.payload).ok()
    }

    async fn elected(&mut self) {
        let begin = Instant::now();
        while !self.nodes.iter().any(|node| node.log().contains("new metadata leader")) {
            assert!(begin.elapsed() < PATIENCE, "no metadata leader; a log: {}", self.nodes[0].log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn launch(&mut self, index: usize) -> bool {
        let routes: Vec<String> =
            self.nodes.iter().map(|node| format!("nats-route://127.0.0.1:{}", node.route)).collect();
        let node = &mut self.nodes[index];
        for folder in [&node.folder, &node.store] {
            std::fs::create_dir_all(folder).expect("the temporary directory can be written");
        }
        let args = [
            ("-a", "127.0.0.1".to_owned()),
            ("-p", if node.port == 0 { "-1".to_owned() } else { node.port.to_string() }),
            ("-sd", node.store.to_string_lossy().into_owned()),
            ("--server_name", format!("n{index}")),
            ("--cluster_name", "plaza".to_owned()),
            ("--cluster", format!("nats://127.0.0.1:{}", node.route)),
            ("--routes", routes.join(",")),
        ];
        let mut all = vec!["-js".to_owned(), "--no_advertise".to_owned()];
        all.extend(args.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
        let mut process = Process::start_in("nats", &installed("nats-server"), &all, &[], node.folder.clone());
        // The log goes on over restarts: only what this process adds counts.
        let before = process.log().matches("Server is ready").count();
        let port = process
            .wait_log("ready line", move |log| {
                if log.contains("address already in use") {
                    return Some(None);
                }
                (log.matches("Server is ready").count() > before).then_some(())?;
                let (_, rest) = log.rsplit_once("client connections on 127.0.0.1:")?;
                Some(rest.split_whitespace().next()?.parse::<u16>().ok())
            })
            .await;
        node.process = port.is_some().then_some(process);
        node.port = port.unwrap_or(node.port);
        port.is_some()
    }
}

impl Node {
    fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }
}

/// `n2` is 2.
fn server(name: &str) -> Option<usize> {
    name.strip_prefix('n')?.parse().ok()
}

impl Drop for NatsCluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            drop(node.process.take());
            let _ = std::fs::remove_dir_all(&node.folder);
            let _ = std::fs::remove_dir_all(&node.store);
        }
    }
}
