//! A load balancer without sticky sessions: each HTTP request goes to an edge drawn at random, each
//! upgrade stays where it went.

use plaza_kit::shutdown::Shutdown;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Largest head of a request or an answer.
const HEAD_BYTES: usize = 16 * 1024;

/// A running balancer; it ends on drop.
#[derive(Debug)]
pub struct Balancer {
    /// Where it listens.
    pub addr: SocketAddr,
    shutdown: Shutdown,
}

impl Balancer {
    /// Starts one in front of these edges.
    ///
    /// # Panics
    /// When the kernel gives no port.
    pub async fn start(edges: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("the kernel has free ports");
        let addr = listener.local_addr().expect("a bound listener has an address");
        let (shutdown, edges): (_, Arc<[SocketAddr]>) = (Shutdown::new(), edges.into());
        let all = shutdown.clone();
        shutdown.spawn("balancer", async move {
            let end = all.token();
            while let Some(Ok((client, _))) = end.run_until_cancelled(listener.accept()).await {
                let (edges, end) = (edges.clone(), end.clone());
                all.spawn("balanced", async move {
                    let _done = end.run_until_cancelled(serve(client, &edges)).await;
                });
            }
        });
        Self { addr, shutdown }
    }

    /// `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

/// One client connection: request after request. `None`: it has ended, or spoke no HTTP that is known here.
async fn serve(mut client: TcpStream, edges: &[SocketAddr]) -> Option<()> {
    client.set_nodelay(true).ok()?;
    let mut waiting = Vec::new();
    loop {
        let head = head(&mut client, &mut waiting).await?;
        let edge = edges[fastrand::usize(..edges.len())];
        let mut edge = TcpStream::connect(edge).await.ok()?;
        edge.set_nodelay(true).ok()?;
        edge.write_all(&head).await.ok()?;
        body(&head, &mut client, &mut waiting, &mut edge).await?;
        let mut answered = Vec::new();
        let answer = {
            let mut seen = [0; 1];
            tokio::select! {
                answer = self::head(&mut edge, &mut answered) => answer?,
                // A client that goes away takes its request along; one that sends more has to wait.
                Ok(0) | Err(_) = client.peek(&mut seen) => return None,
            }
        };
        client.write_all(&answer).await.ok()?;
        if answer.starts_with(b"HTTP/1.1 101") {
            client.write_all(&answered).await.ok()?;
            edge.write_all(&waiting).await.ok()?;
            tokio::io::copy_bidirectional(&mut client, &mut edge).await.ok()?;
            return None;
        }
        body(&answer, &mut edge, &mut answered, &mut client).await?;
        if field(&answer, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            return None;
        }
    }
}

/// Reads up to the empty line; what came behind it stays in `waiting`.
async fn head(from: &mut TcpStream, waiting: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(end) = waiting.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = waiting.split_off(end + 4);
            return Some(std::mem::replace(waiting, rest));
        }
        let mut buffer = [0; 4096];
        let read = from.read(&mut buffer).await.ok()?;
        if read == 0 || waiting.len() > HEAD_BYTES {
            return None;
        }
        waiting.extend_from_slice(&buffer[..read]);
    }
}

/// Passes on the body of the length that `head` names.
async fn body(head: &[u8], from: &mut TcpStream, waiting: &mut Vec<u8>, to: &mut TcpStream) -> Option<()> {
    let mut left = field(head, "content-length").map_or(Some(0), |value| value.parse::<usize>().ok())?;
    let mut buffer = [0; 16 * 1024];
    while left > 0 {
        if waiting.is_empty() {
            let read = from.read(&mut buffer).await.ok()?;
            if read == 0 {
                return None;
            }
            waiting.extend_from_slice(&buffer[..read]);
        }
        let rest = waiting.split_off(waiting.len().min(left));
        to.write_all(waiting).await.ok()?;
        left -= waiting.len();
        *waiting = rest;
    }
    Some(())
}

/// A header's value.
fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let lines = std::str::from_utf8(head).ok()?.lines().filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}
