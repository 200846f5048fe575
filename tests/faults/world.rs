//! All of Plaza as processes, each link through a proxy of its own, so that a service may come back on
//! another port and a link may fail while both of its ends live.

use crate::stores::{Nats, Redis};
use plaza_kit::chaos::Rule;
use plaza_tests::balancer::Balancer;
use plaza_tests::cluster::{Service, http_get, wait_ready};
use plaza_tests::process::{PATIENCE, Process, installed};
use plaza_tests::proxy::Proxy;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;

/// One service that can end and come back.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    program: &'static str,
    args: Vec<String>,
    /// Variables of every start.
    envs: Vec<(&'static str, String)>,
    service: Option<Service>,
    /// The link to it.
    pub(crate) front: Proxy,
    logs: PathBuf,
    /// How often it was started.
    pub(crate) starts: u64,
    /// How often it has ended.
    ended: u64,
    /// It was started so that it ends by itself, or with less than it needs.
    is_odd: bool,
}

impl Node {
    async fn start(name: String, program: &'static str, args: Vec<String>, base: &Base<'_>) -> Self {
        let front = Proxy::start(None).await;
        let (envs, logs) = (base.envs.clone(), base.logs);
        let logs = logs.to_owned();
        let mut node =
            Self { name, program, args, envs, service: None, front, logs, starts: 0, ended: 0, is_odd: false };
        node.launch().await;
        node
    }

    /// Starts it, or starts it again, and waits until it serves.
    pub(crate) async fn launch(&mut self) {
        let admin = self.launch_with(&[]).await;
        wait_ready(admin).await;
    }

    /// Starts it with another clock: so many seconds off, but for what counts monotonically.
    pub(crate) async fn launch_with_clock(&mut self, library: &str, seconds: i64) {
        let envs = [
            ("LD_PRELOAD", library.to_owned()),
            ("FAKETIME", format!("{seconds:+}s")),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        let admin = self.launch_with(&envs).await;
        wait_ready(admin).await;
    }

    /// Starts it so that it ends by itself: `PLAZA_FAILPOINTS`.
    pub(crate) async fn launch_armed(&mut self, failpoints: &str) {
        self.launch_with(&[("PLAZA_FAILPOINTS", failpoints.to_owned())]).await;
    }

    /// Starts it with so few descriptors.
    pub(crate) async fn launch_with_descriptors(&mut self, count: u32) {
        let limited = ["prlimit".to_owned(), format!("--nofile={count}")];
        let admin = self.launch_under(&limited, &[]).await;
        wait_ready(admin).await;
    }

    async fn launch_with(&mut self, envs: &[(&str, String)]) -> SocketAddr {
        self.launch_under(&[], envs).await
    }

    async fn launch_under(&mut self, before: &[String], envs: &[(&str, String)]) -> SocketAddr {
        let envs = [&self.envs, envs].concat();
        let service = Service::start_under(before, self.program, &self.args, &envs).await;
        self.front.target(Some(service.addr));
        let admin = service.admin;
        self.service = Some(service);
        self.starts += 1;
        self.is_odd = !before.is_empty() || envs.len() > self.envs.len();
        admin
    }

    /// Starts it again as it should be, unless it runs like that.
    async fn mend(&mut self) {
        if self.is_odd || self.has_ended(|_| true) {
            self.kill();
            self.launch().await;
        }
    }

    /// Whether it has ended as a failpoint ends it.
    pub(crate) fn has_aborted(&mut self) -> bool {
        use std::os::unix::process::ExitStatusExt;
        // 6 is SIGABRT.
        self.has_ended(|status| status.signal() == Some(6))
    }

    /// Whether it has ended by itself, and well.
    pub(crate) fn has_left(&mut self) -> bool {
        self.has_ended(|status| status.success())
    }

    fn has_ended(&mut self, so: impl Fn(ExitStatus) -> bool) -> bool {
        let Some(mut service) = self.service.take() else { return true };
        if service.process.status().is_some_and(so) {
            self.ended += 1;
            self.keep_log(&service);
            self.front.target(None);
            return true;
        }
        self.service = Some(service);
        false
    }

    /// Where it listens, past the link.
    pub(crate) fn addr(&self) -> Option<SocketAddr> {
        self.service.as_ref().map(|service| service.addr)
    }

    /// Where it tells how it is.
    pub(crate) fn admin(&self) -> Option<SocketAddr> {
        self.service.as_ref().map(|service| service.admin)
    }

    /// A counter or gauge with these labels, as it tells it now.
    pub(crate) async fn counter(&self, series: &str) -> u64 {
        let Some(service) = &self.service else { return 0 };
        let text = http_get(service.admin, "/metrics").await.unwrap_or_default();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse::<f64>().ok());
        value.unwrap_or(0.0) as u64
    }

    /// Sends it a signal by name.
    pub(crate) fn signal(&self, signal: &str) {
        if let Some(service) = &self.service {
            service.process.signal(signal);
        }
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        if let Some(mut service) = self.service.take() {
            service.process.kill();
            self.ended += 1;
            self.keep_log(&service);
        }
        self.front.target(None);
    }

    /// Asks it to end and waits until it has.
    pub(crate) async fn terminate(&mut self) {
        if let Some(mut service) = self.service.take() {
            service.process.signal("TERM");
            service.process.wait().await;
            self.ended += 1;
            self.keep_log(&service);
        }
        self.front.target(None);
    }

    fn keep_log(&self, service: &Service) {
        let path = self.logs.join(format!("{}-{}.log", self.name, self.starts));
        let _ = std::fs::write(path, service.process.log());
    }
}

/// Everything.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) edges: Vec<Node>,
    pub(crate) sessions: Vec<Node>,
    pub(crate) fanouts: Vec<Node>,
    pub(crate) redis: Redis,
    pub(crate) nats: Nats,
    /// From session to Redis, when it is one server.
    pub(crate) to_redis: Proxy,
    /// From edges to each NATS server.
    pub(crate) edges_to_nats: Arc<[Proxy]>,
    /// From fanout services to each NATS server.
    pub(crate) fanouts_to_nats: Arc<[Proxy]>,
    /// Stock clients, and the balancer without sticky sessions that they use.
    stock: Option<(Process, Balancer, SocketAddr)>,
    /// Processes that were ended or stopped.
    struck: u64,
    /// Faults that no proxy and no process shows.
    other: u64,
}

impl World {
    /// Starts Redis, NATS, two session services, two fanout services and `edges` edges.
    pub(crate) async fn start(edges: usize, setup: &Setup, logs: &Path) -> Self {
        let (redis, nats) = tokio::join!(Redis::start(setup.sentinels), Nats::start(setup.servers));
        let to_redis = Proxy::start(None).await;
        let redis_url = match &redis {
            Redis::One(server) => {
                to_redis.target(Some(address(&server.url())));
                format!("redis://{}/", to_redis.addr())
            }
            // Sentinels name the servers themselves: no link stands between.
            Redis::Watched(servers) => servers.url(),
        };
        let (mut edges_to_nats, mut fanouts_to_nats) = (Vec::new(), Vec::new());
        for url in nats.urls() {
            edges_to_nats.push(Proxy::start(Some(address(&url))).await);
            fanouts_to_nats.push(Proxy::start(Some(address(&url))).await);
        }
        let nats_url = |proxies: &[Proxy]| {
            proxies.iter().map(|proxy| format!("nats://{}", proxy.addr())).collect::<Vec<_>>().join(",")
        };
        let base = Base {
            envs: setup.sabotage.iter().map(|rule| ("PLAZA_SABOTAGE", rule.as_str().to_owned())).collect(),
            logs,
        };
        let mut args = vec!["--nats-url".to_owned(), nats_url(&fanouts_to_nats)];
        args.extend(["--nats-replicas".to_owned(), setup.servers.to_string()]);
        args.extend(setup.fanout.iter().map(|&arg| arg.to_owned()));
        let mut fanouts = Vec::new();
        for n in 0..2 {
            fanouts.push(Node::start(format!("fanout{n}"), "plaza-fanout", args.clone(), &base).await);
        }
        let all =
            |nodes: &[Node]| nodes.iter().map(|n| format!("http://{}", n.front.addr())).collect::<Vec<_>>().join(",");
        let fanout_addr = all(&fanouts);
        let args = ["--redis-url", &redis_url, "--fanout-addr", &fanout_addr];
        let args: Vec<String> = args.iter().chain(setup.session).map(|&arg| arg.to_owned()).collect();
        let mut sessions = Vec::new();
        for n in 0..2 {
            sessions.push(Node::start(format!("session{n}"), "plaza-session", args.clone(), &base).await);
        }
        let mut args: Vec<String> = [
            "--peer-listen",
            "127.0.0.1:0",
            "--session-addr",
            &all(&sessions),
            "--fanout-addr",
            &fanout_addr,
            "--nats-url",
            &nats_url(&edges_to_nats),
            "--threads",
            "1",
            "--message-rate",
            "0",
            "--ping-interval",
            // Who does not read does not answer a ping either: here the lag is to be found first.
            if setup.slow { "30s" } else { "4s" },
            "--ping-timeout",
            if setup.slow { "30s" } else { "4s" },
            "--drain-window",
            "2s",
        ]
        .map(str::to_owned)
        .into();
        args.extend(setup.edge.iter().map(|&arg| arg.to_owned()));
        let mut world = Self {
            edges: Vec::new(),
            sessions,
            fanouts,
            redis,
            nats,
            to_redis,
            edges_to_nats: edges_to_nats.into(),
            fanouts_to_nats: fanouts_to_nats.into(),
            stock: None,
            struck: 0,
            other: 0,
        };
        for n in 0..edges {
            world.edges.push(Node::start(format!("edge{n}"), "plaza-edge", args.clone(), &base).await);
        }
        if setup.stock {
            let balancer = Balancer::start(world.fronts()).await;
            let (process, steering) = stock_clients(&[balancer.url()]).await;
            world.stock = Some((process, balancer, steering));
        }
        world
    }

    /// The services of a kind.
    pub(crate) fn nodes(&self, kind: Kind) -> &[Node] {
        match kind {
            Kind::Edge => &self.edges,
            Kind::Session => &self.sessions,
            Kind::Fanout => &self.fanouts,
        }
    }

    /// The services of a kind.
    pub(crate) fn nodes_mut(&mut self, kind: Kind) -> &mut [Node] {
        match kind {
            Kind::Edge => &mut self.edges,
            Kind::Session => &mut self.sessions,
            Kind::Fanout => &mut self.fanouts,
        }
    }

    /// Where stock clients are steered.
    pub(crate) fn steering(&self) -> Option<SocketAddr> {
        self.stock.as_ref().map(|(_, _, steering)| *steering)
    }

    /// How often a fault has really hit: connections that proxies reset, refused or held up, and
    /// processes that were ended or stopped.
    pub(crate) fn hits(&self) -> Hits {
        let nodes = [&self.edges, &self.sessions, &self.fanouts].into_iter().flatten();
        let ended = nodes.clone().map(|node| node.ended).sum::<u64>() + self.struck;
        let links = self.edges_to_nats.iter().chain(&*self.fanouts_to_nats).chain([&self.to_redis]);
        let counts = nodes.map(|node| &node.front).chain(links).map(Proxy::counts);
        let other = self.other;
        counts.fold(Hits { ended, other, ..Hits::default() }, |hits, link| Hits {
            ended,
            other,
            reset: hits.reset + link.reset,
            refused: hits.refused + link.refused,
            held: hits.held + link.frozen,
        })
    }

    /// A fault has hit that no proxy and no process shows.
    pub(crate) fn hit(&mut self) {
        self.other += 1;
    }

    /// Ends a NATS server at once.
    pub(crate) fn kill_nats(&mut self, server: usize) {
        self.nats.kill(server);
        self.struck += 1;
    }

    /// Ends Redis at once; what it knew is lost.
    pub(crate) fn kill_redis(&mut self) {
        self.redis.kill();
        self.struck += 1;
    }

    /// Stops a store's process where it stands, until it gets `CONT`.
    pub(crate) async fn pause(&mut self, which: Store) {
        let process = match which {
            Store::Nats(server) => self.nats.process(server),
            Store::Redis(server) => self.redis.process(server),
        };
        process.pause().await;
        self.struck += 1;
    }

    /// Where clients connect.
    pub(crate) fn fronts(&self) -> Vec<SocketAddr> {
        self.edges.iter().map(|edge| edge.front.addr()).collect()
    }

    /// Asks a NATS server to end, and waits until it has.
    pub(crate) async fn terminate_nats(&mut self, server: usize) {
        self.nats.process(server).signal("TERM");
        let begin = std::time::Instant::now();
        while !self.nats.process(server).log().contains("Server Exiting") && begin.elapsed() < PATIENCE {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        self.kill_nats(server);
    }

    /// Ends every fault that a row has left open: links forward, stores and services run.
    pub(crate) async fn mend(&mut self) {
        self.redis.mend().await;
        self.nats.mend().await;
        self.edges_to_nats.iter().chain(&*self.fanouts_to_nats).chain([&self.to_redis]).for_each(Proxy::heal);
        for node in self.fanouts.iter_mut().chain(&mut self.sessions).chain(&mut self.edges) {
            node.front.heal();
            node.mend().await;
        }
    }

    /// Keeps the logs of all services.
    pub(crate) fn keep_logs(&self) {
        for node in self.edges.iter().chain(&self.sessions).chain(&self.fanouts) {
            if let Some(service) = &node.service {
                node.keep_log(service);
            }
        }
    }
}

/// How a world is made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Setup {
    /// More arguments of fanout services.
    pub(crate) fanout: &'static [&'static str],
    /// More arguments of edges.
    pub(crate) edge: &'static [&'static str],
    /// More arguments of session services.
    pub(crate) session: &'static [&'static str],
    /// Redis is a master with a replica and three sentinels.
    pub(crate) sentinels: bool,
    /// NATS servers: 1 or 3.
    pub(crate) servers: usize,
    /// With stock clients.
    pub(crate) stock: bool,
    /// Some clients will not read: nothing stands between them and the edge that could keep it for them.
    pub(crate) slow: bool,
    /// A rule that every service breaks.
    pub(crate) sabotage: Option<Rule>,
}

/// What all nodes share.
struct Base<'a> {
    envs: Vec<(&'static str, String)>,
    logs: &'a Path,
}

/// A service of Plaza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Edge,
    Session,
    Fanout,
}

/// A store that can be paused.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Store {
    Nats(usize),
    Redis(usize),
}

/// What faults have done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hits {
    /// Processes ended or stopped.
    pub(crate) ended: u64,
    /// What was done to a store past every proxy: streams deleted, poison stored, disks filled.
    pub(crate) other: u64,
    /// Connections reset.
    pub(crate) reset: u64,
    /// Connections refused.
    pub(crate) refused: u64,
    /// Pieces of a connection that were held up.
    pub(crate) held: u64,
}

/// The program that holds the stock clients, and where it is steered; `arguments`: the servers that they
/// use, and perhaps a transport.
pub(crate) async fn stock_clients(arguments: &[String]) -> (Process, SocketAddr) {
    node("swarm.mjs", arguments).await
}

/// A program of `tests/clients`, and the address that it listens on.
pub(crate) async fn node(script: &str, arguments: &[String]) -> (Process, SocketAddr) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    assert!(
        folder.join("node_modules").exists(),
        "the stock clients are not installed: run `npm ci` in {} (scripts/test does)",
        folder.display()
    );
    let args = [&[folder.join(script).display().to_string()], arguments].concat();
    let mut process = Process::start(script, &installed("node"), &args, &[]);
    let found = |log: &str| log.lines().find_map(|line| line.strip_prefix("listening on ")?.parse().ok());
    let addr = process.wait_log("its port", found).await;
    (process, addr)
}

/// The address in a URL such as `nats://127.0.0.1:4222`.
fn address(url: &str) -> SocketAddr {
    let (_, address) = url.split_once("//").expect("a URL has a scheme");
    address.trim_end_matches('/').parse().expect("the harness names servers by address")
}
