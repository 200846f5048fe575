//! All of Plaza as processes, each link through a proxy of its own, so that a service may come back on
//! another port and a link may fail while both of its ends live.

use plaza_tests::cluster::{Service, wait_ready};
use plaza_tests::nats::NatsServer;
use plaza_tests::process::PATIENCE;
use plaza_tests::proxy::Proxy;
use plaza_tests::redis::RedisServer;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// One service that can end and come back.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    program: &'static str,
    args: Vec<String>,
    service: Option<Service>,
    /// The link to it.
    pub(crate) front: Proxy,
    logs: PathBuf,
    /// How often it was started.
    pub(crate) starts: u64,
}

impl Node {
    async fn start(name: String, program: &'static str, args: Vec<String>, logs: &Path) -> Self {
        let front = Proxy::start(None).await;
        let mut node = Self { name, program, args, service: None, front, logs: logs.to_owned(), starts: 0 };
        node.launch().await;
        node
    }

    /// Starts it, or starts it again, and waits until it serves.
    pub(crate) async fn launch(&mut self) {
        let service = Service::start(self.program, &self.args).await;
        self.front.target(Some(service.addr));
        let admin = service.admin;
        self.service = Some(service);
        self.starts += 1;
        wait_ready(admin).await;
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        if let Some(mut service) = self.service.take() {
            service.process.kill();
            self.keep_log(&service);
        }
        self.front.target(None);
    }

    /// Asks it to end and waits until it has.
    pub(crate) async fn terminate(&mut self) {
        if let Some(mut service) = self.service.take() {
            service.process.signal("TERM");
            service.process.wait().await;
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
    pub(crate) redis: RedisServer,
    pub(crate) nats: NatsServer,
    /// From session to Redis.
    pub(crate) to_redis: Proxy,
    /// From each edge to NATS.
    pub(crate) edges_to_nats: Proxy,
    /// From each fanout to NATS.
    pub(crate) fanouts_to_nats: Proxy,
}

impl World {
    /// Starts Redis, NATS, two session services, two fanout services and `edges` edges. `fanout`: more
    /// arguments of the fanout services.
    pub(crate) async fn start(edges: usize, fanout: &[&str], logs: &Path) -> Self {
        let (redis, nats) = tokio::join!(RedisServer::start(), NatsServer::start());
        let to_redis = Proxy::start(Some(address(&redis.url()))).await;
        let edges_to_nats = Proxy::start(Some(address(&nats.url()))).await;
        let fanouts_to_nats = Proxy::start(Some(address(&nats.url()))).await;
        let nats_url = |proxy: &Proxy| format!("nats://{}", proxy.addr());
        let mut args = vec!["--nats-url".to_owned(), nats_url(&fanouts_to_nats)];
        args.extend(fanout.iter().map(|&arg| arg.to_owned()));
        let mut fanouts = Vec::new();
        for n in 0..2 {
            fanouts.push(Node::start(format!("fanout{n}"), "plaza-fanout", args.clone(), logs).await);
        }
        let all =
            |nodes: &[Node]| nodes.iter().map(|n| format!("http://{}", n.front.addr())).collect::<Vec<_>>().join(",");
        let fanout_addr = all(&fanouts);
        let args: Vec<String> =
            ["--redis-url", &format!("redis://{}/", to_redis.addr()), "--fanout-addr", &fanout_addr]
                .map(str::to_owned)
                .into();
        let mut sessions = Vec::new();
        for n in 0..2 {
            sessions.push(Node::start(format!("session{n}"), "plaza-session", args.clone(), logs).await);
        }
        let args: Vec<String> = [
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
            "4s",
            "--ping-timeout",
            "4s",
            "--drain-window",
            "2s",
        ]
        .map(str::to_owned)
        .into();
        let mut world =
            Self { edges: Vec::new(), sessions, fanouts, redis, nats, to_redis, edges_to_nats, fanouts_to_nats };
        for n in 0..edges {
            world.edges.push(Node::start(format!("edge{n}"), "plaza-edge", args.clone(), logs).await);
        }
        world
    }

    /// Where clients connect.
    pub(crate) fn fronts(&self) -> Vec<SocketAddr> {
        self.edges.iter().map(|edge| edge.front.addr()).collect()
    }

    /// Starts NATS again with what it has stored.
    pub(crate) async fn restart_nats(&mut self) {
        self.nats.restart().await;
    }

    /// Asks NATS to end, waits until it has, and starts it again with what it has stored.
    pub(crate) async fn terminate_nats(&mut self) {
        self.nats.process().signal("TERM");
        let begin = std::time::Instant::now();
        while !self.nats.process().log().contains("Server Exiting") && begin.elapsed() < PATIENCE {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        self.nats.kill();
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

/// The address in a URL such as `nats://127.0.0.1:4222`.
fn address(url: &str) -> SocketAddr {
    let (_, address) = url.split_once("//").expect("a URL has a scheme");
    address.trim_end_matches('/').parse().expect("the harness names servers by address")
}
