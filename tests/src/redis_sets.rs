//! Several real `redis-server` processes that stand in for each other: a master with a replica and
//! three sentinels, and a cluster.

use crate::process::{PATIENCE, Process, free_port, fresh_folder, installed, relaunch};
use redis::{FromRedisValue, RedisResult, Value};
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Password of the servers: a part of the URL that has to be escaped.
const SECRET: &str = "s/crt";
/// Password of the sentinels.
const SENTINEL_SECRET: &str = "w@tch";
/// How long one question to a server may take.
const ASK: Duration = Duration::from_millis(500);

/// One process of a set.
#[derive(Debug)]
struct Node {
    process: Option<Process>,
    port: u16,
    folder: PathBuf,
    secret: &'static str,
    args: Vec<String>,
}

impl Node {
    /// `args` may have more than flags: a configuration file stands first.
    fn new(secret: &'static str, args: &[&str]) -> Self {
        let port = free_port();
        let fixed = ["--port", &port.to_string(), "--bind", "127.0.0.1"].map(str::to_owned);
        let args = args.iter().map(|&arg| arg.to_owned()).chain(fixed).collect();
        Self { process: None, port, folder: fresh_folder("redis"), secret, args }
    }

    /// Whether it runs; not when another process has the port.
    async fn launch(&mut self) -> bool {
        std::fs::create_dir_all(&self.folder).expect("the temporary directory can be written");
        let mut process = Process::start_in("redis", &installed("redis-server"), &self.args, &[], self.folder.clone());
        let ready = |log: &str| log.matches("Ready to accept connections").count() + log.matches("Sentinel ID").count();
        // The log goes on over restarts: only what this process adds counts.
        let before = ready(&process.log());
        let up = process
            .wait_log("ready line", move |log| {
                if log.contains("Address already in use") || log.contains("Failed listening") {
                    return Some(false);
                }
                (ready(log) > before).then_some(true)
            })
            .await;
        self.process = up.then_some(process);
        up
    }

    async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let secret = self.secret.replace('/', "%2F").replace('@', "%40");
        let client = redis::Client::open(format!("redis://:{secret}@127.0.0.1:{}/", self.port))?;
        let asked = async {
            let mut connection = client.get_multiplexed_async_connection().await?;
            let (verb, rest) = words.split_first().expect("a command has a first word");
            redis::cmd(verb).arg(rest).query_async(&mut connection).await
        };
        tokio::time::timeout(ASK, asked).await.unwrap_or_else(|late| Err(std::io::Error::from(late).into()))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.process.take());
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn until<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = found().await {
            return value;
        }
        assert!(begin.elapsed() < PATIENCE, "redis: no {what} in {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A master, a replica and three sentinels that promote it; servers and sentinels want passwords.
#[derive(Debug)]
pub struct RedisFailover {
    servers: [Node; 2],
    sentinels: Vec<Node>,
}

impl RedisFailover {
    /// Starts all five and waits until each sentinel knows the others and the replica.
    ///
    /// # Panics
    /// When they do not within [`PATIENCE`], or find no free ports in five tries.
    pub async fn start() -> Self {
        for _ in 0..5 {
            if let Some(set) = Self::try_start().await {
                return set;
            }
        }
        panic!("redis-server found no free ports in five tries");
    }

    async fn try_start() -> Option<Self> {
        let args = ["--save", "", "--requirepass", SECRET, "--masterauth", SECRET, "--repl-diskless-sync-delay", "0"];
        let mut master = Node::new(SECRET, &args);
        let port = master.port.to_string();
        let mut replica = Node::new(SECRET, &[&args[..], &["--replicaof", "127.0.0.1", &port]].concat());
        let mut sentinels: Vec<Node> = (0..3).map(|_| Node::new(SENTINEL_SECRET, &["s.conf", "--sentinel"])).collect();
        let mut up = master.launch().await && replica.launch().await;
        for sentinel in &mut sentinels {
            let settings = format!(
                "sentinel monitor mymaster 127.0.0.1 {port} 2\nsentinel auth-pass mymaster {SECRET}\n\
                 sentinel down-after-milliseconds mymaster 1000\nsentinel failover-timeout mymaster 4000\n\
                 requirepass {SENTINEL_SECRET}\nsentinel sentinel-pass {SENTINEL_SECRET}\n"
            );
            std::fs::write(sentinel.folder.join("s.conf"), settings).expect("the temporary directory can be written");
            up = up && sentinel.launch().await;
        }
        let set = Self { servers: [master, replica], sentinels };
        if up {
            set.known().await;
        }
        up.then_some(set)
    }

    async fn known(&self) {
        until("sentinels that know each other", async || {
            for sentinel in &self.sentinels {
                let all: HashMap<String, String> = sentinel.ask(&["SENTINEL", "MASTER", "mymaster"]).await.ok()?;
                (all["num-other-sentinels"] == "2" && all["num-slaves"] == "1").then_some(())?;
            }
            Some(())
        })
        .await;
    }

    /// What `--redis-url` takes.
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.sentinels.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("redis+sentinel://:s%2Fcrt@{}/mymaster?sentinel-password=w%40tch", hosts.join(","))
    }

    /// Which of the two servers, 0 or 1, is the master as most sentinels see it.
    ///
    /// # Panics
    /// When they do not agree within [`PATIENCE`].
    pub async fn master(&self) -> usize {
        until("master", async || {
            let mut votes = [0; 2];
            for sentinel in &self.sentinels {
                let ask = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"];
                let Ok((_, port)) = sentinel.ask::<(String, u16)>(&ask).await else { continue };
                if let Some(at) = self.servers.iter().position(|node| node.port == port) {
                    votes[at] += 1;
                }
            }
            votes.iter().position(|count| *count >= 2)
        })
        .await
    }

    /// Waits until the replica has everything that the master has.
    ///
    /// # Panics
    /// When it does not within [`PATIENCE`].
    pub async fn replicated(&self, master: usize) {
        until("replica that has caught up", async || {
            let wanted: u64 = self.field(master, "master_repl_offset").await?.parse().ok()?;
            let there: u64 = self.field(1 - master, "slave_repl_offset").await?.parse().ok()?;
            (self.is_linked(1 - master).await && there >= wanted).then_some(())
        })
        .await;
    }

    /// What a server says of its part in the replication.
    async fn field(&self, server: usize, name: &str) -> Option<String> {
        let info: String = self.servers[server].ask(&["INFO", "replication"]).await.ok()?;
        info.lines().find_map(|line| Some(line.trim().strip_prefix(name)?.strip_prefix(':')?.to_owned()))
    }

    /// Whether a replica hears its master.
    pub async fn is_linked(&self, replica: usize) -> bool {
        self.field(replica, "master_link_status").await.is_some_and(|status| status == "up")
    }

    /// Both live, and the replica hears no more of its master, until [`Self::mend`]: what is written from now on is
    /// the master's alone.
    ///
    /// # Panics
    /// When the replica does not answer.
    pub async fn part(&self, master: usize) {
        let replica = &self.servers[1 - master];
        let () = replica.ask(&["CONFIG", "SET", "masterauth", "wrong"]).await.expect("the replica runs");
        let _cut: u64 = replica.ask(&["CLIENT", "KILL", "TYPE", "master"]).await.expect("the replica runs");
        until("replica without its master", async || (!self.is_linked(1 - master).await).then_some(())).await;
    }

    /// Each server can follow the other one again.
    ///
    /// # Panics
    /// When one of them does not answer.
    pub async fn mend(&self) {
        for server in &self.servers {
            let () = server.ask(&["CONFIG", "SET", "masterauth", SECRET]).await.expect("the server runs");
        }
    }

    /// Whether a server takes orders from the other one, as it says itself.
    pub async fn is_replica(&self, server: usize) -> bool {
        let role = self.servers[server].ask::<Vec<Value>>(&["ROLE"]).await;
        role.is_ok_and(|role| role.first() == Some(&Value::BulkString(b"slave".to_vec())))
    }

    /// Kills a server at once.
    pub fn kill(&mut self, server: usize) {
        drop(self.servers[server].process.take());
    }

    /// Starts a server again, empty and with the role that it began with.
    ///
    /// # Panics
    /// When another process holds the port for a minute.
    pub async fn restart(&mut self, server: usize) {
        self.kill(server);
        relaunch(&format!("server {server}"), async || self.servers[server].launch().await).await;
    }

    /// The process of a server, for signals.
    ///
    /// # Panics
    /// When it was killed and not restarted.
    pub fn process(&self, server: usize) -> &Process {
        self.servers[server].process.as_ref().expect("the server runs")
    }
}

/// Three masters that share the slots, and a replica of one of them.
#[derive(Debug)]
pub struct RedisCluster {
    /// The masters, then the replica.
    nodes: Vec<Node>,
    /// Which master the replica follows.
    followed: usize,
}

impl RedisCluster {
    /// Starts one whose replica follows the owner of `key`'s slot, and waits until it serves.
    ///
    /// # Panics
    /// When it does not within [`PATIENCE`], or finds no free ports in five tries.
    pub async fn start(key: &str) -> Self {
        for _ in 0..5 {
            if let Some(set) = Self::try_start(key).await {
                return set;
            }
        }
        panic!("redis-server found no free ports in five tries");
    }

    async fn try_start(key: &str) -> Option<Self> {
        let buses: Vec<String> = (0..4).map(|_| free_port().to_string()).collect();
        let mut nodes = Vec::new();
        for bus in &buses {
            let settings = ["--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "1000"];
            let memory = ["--save", "", "--requirepass", SECRET, "--masterauth", SECRET];
            let mut node = Node::new(SECRET, &[&settings[..], &memory].concat());
            if !node.launch().await {
                return None;
            }
            nodes.push(node);
        }
        let slot: usize = nodes[0].ask(&["CLUSTER", "KEYSLOT", key]).await.ok()?;
        for (node, range) in nodes.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")]) {
            let () = node.ask(&["CLUSTER", "ADDSLOTSRANGE", range.0, range.1]).await.expect("its slots");
        }
        for (node, bus) in nodes.iter().zip(&buses).skip(1) {
            let port = node.port.to_string();
            let () = nodes[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]).await.expect("a meeting");
        }
        let set = Self { nodes, followed: slot / 5_461 };
        let id: String = set.nodes[set.followed].ask(&["CLUSTER", "MYID"]).await.expect("its id");
        until("replica", async || set.nodes[3].ask::<()>(&["CLUSTER", "REPLICATE", &id]).await.ok()).await;
        until("serving cluster", async || {
            for node in &set.nodes {
                let info: String = node.ask(&["CLUSTER", "INFO"]).await.ok()?;
                let all = info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:4");
                all.then_some(())?;
            }
            let info: String = set.nodes[3].ask(&["INFO", "replication"]).await.ok()?;
            info.contains("master_link_status:up").then_some(())
        })
        .await;
        Some(set)
    }

    /// What `--redis-url` takes: the three masters.
    pub fn url(&self) -> String {
        let hosts: Vec<String> =
            self.nodes[..3].iter().map(|node| format!("redis://:s%2Fcrt@127.0.0.1:{}", node.port)).collect();
        hosts.join(",")
    }

    /// Removes all data.
    ///
    /// # Panics
    /// When a master does not answer.
    pub async fn flush(&self) {
        for node in &self.nodes[..3] {
            let () = node.ask(&["FLUSHALL"]).await.expect("a master runs");
        }
    }

    /// Waits until the replica has what its master has.
    ///
    /// # Panics
    /// When it does not within [`PATIENCE`].
    pub async fn replicated(&self) {
        until("replica that has caught up", async || {
            let sizes = (
                self.nodes[self.followed].ask::<u64>(&["DBSIZE"]).await.ok()?,
                self.nodes[3].ask::<u64>(&["DBSIZE"]).await.ok()?,
            );
            (sizes.0 == sizes.1).then_some(())
        })
        .await;
    }

    /// Kills the master that has a replica.
    pub fn kill_followed(&mut self) {
        drop(self.nodes[self.followed].process.take());
    }
}
