//! Plaza as it runs in production: services as processes of their own on real Redis and real NATS.

use crate::nats::NatsServer;
use crate::process::{Process, built, installed};
use crate::redis::RedisServer;
use std::net::SocketAddr;

/// One service process and where it listens.
#[derive(Debug)]
pub struct Service {
    /// The process.
    pub process: Process,
    /// Its main address: gRPC, or the public one of an edge.
    pub addr: SocketAddr,
    /// Its admin address.
    pub admin: SocketAddr,
}

impl Service {
    /// Starts a service binary with `--listen` and `--admin-listen` on free ports and more arguments.
    pub async fn start(program: &str, args: &[String]) -> Self {
        Self::start_with(program, args, &[]).await
    }

    /// Like [`Self::start`], with variables.
    pub async fn start_with(program: &str, args: &[String], envs: &[(&str, String)]) -> Self {
        Self::start_under(&[], program, args, envs).await
    }

    /// Like [`Self::start_with`], through another program that becomes it: `before` is its name and arguments.
    pub async fn start_under(before: &[String], program: &str, args: &[String], envs: &[(&str, String)]) -> Self {
        let mut all: Vec<String> = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json"]
            .map(str::to_owned)
            .into();
        all.extend_from_slice(args);
        let mut path = built(program);
        if let Some((other, its)) = before.split_first() {
            let inner = std::mem::replace(&mut path, installed(other));
            all = its.iter().cloned().chain([inner.display().to_string()]).chain(all).collect();
        }
        let mut process = Process::start(program, &path, &all, envs);
        let addr = process.listening("listen").await;
        let admin = process.listening("admin-listen").await;
        Self { process, addr, admin }
    }

    /// `http://host:port` of the main address.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

/// Edges, one session service, one fanout service, Redis and NATS.
#[derive(Debug)]
pub struct Cluster {
    /// The edges.
    pub edges: Vec<Service>,
    /// The session service.
    pub session: Service,
    /// The fanout service.
    pub fanout: Service,
    /// The session store.
    pub redis: RedisServer,
    /// The room log.
    pub nats: NatsServer,
    envs: Vec<(&'static str, String)>,
}

impl Cluster {
    /// Starts everything with `edges` edges and waits until each listens and is ready.
    pub async fn start(edges: usize) -> Self {
        Self::start_with(edges, &[]).await
    }

    /// Like [`Self::start`], with more arguments for each edge.
    pub async fn start_with(edges: usize, edge_args: &[&str]) -> Self {
        Self::start_in(edges, edge_args, Vec::new()).await
    }

    /// Like [`Self::start_with`], with variables for every service.
    pub async fn start_in(edges: usize, edge_args: &[&str], envs: Vec<(&'static str, String)>) -> Self {
        let (redis, nats) = tokio::join!(RedisServer::start(), NatsServer::start());
        let fanout = Service::start_with("plaza-fanout", &["--nats-url".into(), nats.url()], &envs).await;
        let args = ["--redis-url".into(), redis.url(), "--fanout-addr".into(), fanout.url()];
        let session = Service::start_with("plaza-session", &args, &envs).await;
        let mut cluster = Self { edges: Vec::new(), session, fanout, redis, nats, envs };
        for _ in 0..edges {
            cluster.add_edge(edge_args).await;
        }
        cluster
    }

    /// Starts one more edge.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn add_edge(&mut self, args: &[&str]) -> &Service {
        self.add_edge_under(&[], args).await
    }

    /// Like [`Self::add_edge`], through another program that becomes it: `before` is its name and arguments.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn add_edge_under(&mut self, before: &[&str], args: &[&str]) -> &Service {
        let mut all = vec![
            "--peer-listen".into(),
            "127.0.0.1:0".into(),
            "--session-addr".into(),
            self.session.url(),
            "--fanout-addr".into(),
            self.fanout.url(),
            "--nats-url".into(),
            self.nats.url(),
            "--threads".into(),
            "1".into(),
        ];
        all.extend(args.iter().map(|&a| a.to_owned()));
        let before: Vec<String> = before.iter().map(|&word| word.to_owned()).collect();
        let edge = Service::start_under(&before, "plaza-edge", &all, &self.envs).await;
        wait_ready(edge.admin).await;
        self.edges.push(edge);
        self.edges.last().expect("one was just added")
    }
}

/// Waits until `/readyz` of an admin address answers 200.
///
/// # Panics
/// When it does not within [`crate::process::PATIENCE`].
pub async fn wait_ready(admin: SocketAddr) {
    let begin = std::time::Instant::now();
    loop {
        let answer = http_get(admin, "/readyz").await;
        if answer.as_deref().is_some_and(|a| a.starts_with("HTTP/1.1 200")) {
            return;
        }
        assert!(begin.elapsed() < crate::process::PATIENCE, "not ready: {answer:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// One plain HTTP/1.1 GET; the whole answer as text, `None` when there is none.
pub async fn http_get(addr: SocketAddr, path: &str) -> Option<String> {
    http(addr, &format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n")).await
}

/// One plain HTTP/1.1 PUT of a text; the whole answer as text, `None` when there is none.
pub async fn http_put(addr: SocketAddr, path: &str, body: &str) -> Option<String> {
    http_send(addr, "PUT", path, body).await
}

/// One plain HTTP/1.1 POST of a text; the whole answer as text, `None` when there is none.
pub async fn http_post(addr: SocketAddr, path: &str, body: &str) -> Option<String> {
    http_send(addr, "POST", path, body).await
}

async fn http_send(addr: SocketAddr, method: &str, path: &str, body: &str) -> Option<String> {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n"
    );
    http(addr, &(head + body)).await
}

async fn http(addr: SocketAddr, request: &str) -> Option<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(addr).await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}
