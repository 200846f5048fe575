//! A TCP proxy that does to a link what networks do to it, on demand and at run time.
//!
//! One [`Proxy`] is one link: it listens on a free port of 127.0.0.1 and forwards to a target that may
//! move (a restarted service has another port). Every fault is set per direction or for the whole link,
//! and the proxy counts what it really did, so that a test can prove that its fault has hit.

use bytes::Bytes;
use plaza_kit::shutdown::Shutdown;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Pieces of one direction that may be on their way; beyond it TCP itself holds the sender back.
const PIECES: usize = 64;
/// Largest piece in bytes.
const PIECE: usize = 16 * 1024;
/// How long the target may take to accept.
const CONNECT: Duration = Duration::from_secs(2);

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Every piece comes this much later.
    pub latency: Duration,
    /// At most so many bytes a second on each connection; 0: as many as there are.
    pub bandwidth: u64,
    /// Connections with a lower number forward nothing, and stay open; 0: none, `u64::MAX`: all.
    pub frozen_below: u64,
    /// A connection is reset after so many bytes; 0: never.
    pub close_after: u64,
}

/// What happens to a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// From who connects to the target.
    pub up: Way,
    /// Back.
    pub down: Way,
    /// New connections are reset at once.
    pub refuse: bool,
}

/// What a proxy has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were accepted.
    pub accepted: u64,
    /// Connections that found the link refused, or the target gone.
    pub refused: u64,
    /// Connections that were reset on demand, or after their bytes.
    pub reset: u64,
    /// Pieces that met a frozen way.
    pub frozen: u64,
    /// Bytes that were forwarded.
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct Done {
    accepted: AtomicU64,
    refused: AtomicU64,
    reset: AtomicU64,
    frozen: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct State {
    target: Option<SocketAddr>,
    faults: Faults,
    /// Connections with a lower number are reset.
    cut_below: u64,
}

/// One link. Dropping it closes its connections.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    state: watch::Sender<State>,
    done: Arc<Done>,
    shutdown: Shutdown,
}

impl Proxy {
    /// Listens on a free port and forwards to `target`; without one every connection is reset.
    ///
    /// # Panics
    /// When the kernel has no free port.
    pub async fn start(target: Option<SocketAddr>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("the kernel has free ports");
        let addr = listener.local_addr().expect("a bound listener has an address");
        let (state, watched) = watch::channel(State { target, faults: Faults::default(), cut_below: 0 });
        let (done, shutdown) = (Arc::<Done>::default(), Shutdown::new());
        shutdown.spawn("proxy", accept(listener, watched, done.clone(), shutdown.clone()));
        Self { addr, state, done, shutdown }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where new connections go from now on.
    pub fn target(&self, target: Option<SocketAddr>) {
        self.state.send_modify(|state| state.target = target);
    }

    /// What happens from now on, also to open connections.
    pub fn set(&self, faults: Faults) {
        self.state.send_modify(|state| state.faults = faults);
    }

    /// Freezes the ways of the connections that are open now; later ones are not touched.
    pub fn freeze_open(&self, up: bool, down: bool) {
        let next = self.done.accepted.load(Relaxed) + 1;
        let way = |frozen: bool| Way { frozen_below: if frozen { next } else { 0 }, ..Way::default() };
        self.set(Faults { up: way(up), down: way(down), refuse: false });
    }

    /// Forwards everything again. What was held back goes on.
    pub fn heal(&self) {
        self.set(Faults::default());
    }

    /// Resets every open connection.
    pub fn reset_all(&self) {
        let next = self.done.accepted.load(Relaxed) + 1;
        self.state.send_modify(|state| state.cut_below = next);
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        Counts {
            accepted: self.done.accepted.load(Relaxed),
            refused: self.done.refused.load(Relaxed),
            reset: self.done.reset.load(Relaxed),
            frozen: self.done.frozen.load(Relaxed),
            bytes: self.done.bytes.load(Relaxed),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

async fn accept(listener: TcpListener, state: watch::Receiver<State>, done: Arc<Done>, shutdown: Shutdown) {
    loop {
        let client = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        let Ok((client, _)) = client else { continue };
        let number = done.accepted.fetch_add(1, Relaxed) + 1;
        let link = Link { number, state: state.clone(), done: done.clone() };
        let end = shutdown.clone();
        shutdown.spawn("link", async move {
            tokio::select! {
                () = link.run(client) => {}
                () = end.cancelled() => {}
            }
        });
    }
}

/// One connection through the proxy.
#[derive(Clone, Debug)]
struct Link {
    number: u64,
    state: watch::Receiver<State>,
    done: Arc<Done>,
}

/// A direction.
#[derive(Clone, Copy, Debug)]
enum Direction {
    Up,
    Down,
}

impl Link {
    async fn run(self, client: TcpStream) {
        let State { target, faults, .. } = *self.state.borrow();
        let server = match target.filter(|_| !faults.refuse) {
            Some(target) => tokio::time::timeout(CONNECT, TcpStream::connect(target)).await.ok().and_then(Result::ok),
            None => None,
        };
        let Some(server) = server else {
            self.done.refused.fetch_add(1, Relaxed);
            abort_on_drop(&client);
            return;
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let mut state = self.state.clone();
        let number = self.number;
        let cut = async move { state.wait_for(|state| number < state.cut_below).await.map(|_| ()) };
        let up = self.clone().pump(&from_client, &to_server, Direction::Up);
        let down = self.clone().pump(&from_server, &to_client, Direction::Down);
        let broken = tokio::select! {
            ended = async { tokio::try_join!(up, down) } => ended.is_err(),
            _ = cut => true,
        };
        if broken {
            self.done.reset.fetch_add(1, Relaxed);
            abort_on_drop(from_client.as_ref());
            abort_on_drop(from_server.as_ref());
            // Dropped as usual, a write half says goodbye first.
            to_client.forget();
            to_server.forget();
        }
    }

    async fn pump(self, from: &OwnedReadHalf, to: &OwnedWriteHalf, direction: Direction) -> Result<(), Broken> {
        let (pieces, mut waiting) = mpsc::channel::<(Instant, Bytes)>(PIECES);
        let latency = self.state.clone();
        let read = async move {
            let mut buffer = vec![0; PIECE];
            loop {
                from.readable().await.map_err(|_| Broken)?;
                match from.try_read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(n) => {
                        let due = Instant::now() + direction.of(&latency.borrow().faults).latency;
                        let piece = Bytes::copy_from_slice(&buffer[..n]);
                        pieces.send((due, piece)).await.map_err(|_| Broken)?;
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return Err(Broken),
                }
            }
        };
        let write = async move {
            let mut sent = 0;
            while let Some((due, piece)) = waiting.recv().await {
                tokio::time::sleep_until(due).await;
                self.forward(to, &piece, direction, &mut sent).await?;
            }
            let _ = socket2::SockRef::from(to.as_ref()).shutdown(std::net::Shutdown::Write);
            Ok(())
        };
        tokio::try_join!(read, write).map(|_| ())
    }

    async fn forward(
        &self,
        to: &OwnedWriteHalf,
        mut piece: &[u8],
        direction: Direction,
        sent: &mut u64,
    ) -> Result<(), Broken> {
        let mut state = self.state.clone();
        let frozen = |state: &State| self.number < direction.of(&state.faults).frozen_below;
        if frozen(&state.borrow()) {
            self.done.frozen.fetch_add(1, Relaxed);
        }
        state.wait_for(|state| !frozen(state)).await.map_err(|_| Broken)?;
        let way = *direction.of(&state.borrow().faults);
        while !piece.is_empty() {
            to.writable().await.map_err(|_| Broken)?;
            let left = if way.close_after > 0 { way.close_after.saturating_sub(*sent) } else { u64::MAX };
            let part = &piece[..piece.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
            match to.try_write(part) {
                Ok(n) => {
                    piece = &piece[n..];
                    *sent += n as u64;
                    self.done.bytes.fetch_add(n as u64, Relaxed);
                    if way.bandwidth > 0 {
                        tokio::time::sleep(Duration::from_secs_f64(n as f64 / way.bandwidth as f64)).await;
                    }
                    if way.close_after > 0 && *sent >= way.close_after {
                        return Err(Broken);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(Broken),
            }
        }
        Ok(())
    }
}

/// The connection ends by a reset.
#[derive(Debug)]
struct Broken;

impl Direction {
    fn of(self, faults: &Faults) -> &Way {
        match self {
            Self::Up => &faults.up,
            Self::Down => &faults.down,
        }
    }
}

/// The next close of this socket is a reset.
fn abort_on_drop(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A server that echoes, a proxy before it, and a client.
    async fn echoed() -> (Proxy, TcpStream, Shutdown) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let target = listener.local_addr().expect("bound");
        let shutdown = Shutdown::new();
        shutdown.spawn("echo", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = [0; 1024];
                while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                    let _ = stream.write_all(&buffer[..n]).await;
                }
            }
        });
        let proxy = Proxy::start(Some(target)).await;
        let client = TcpStream::connect(proxy.addr()).await.expect("it listens");
        (proxy, client, shutdown)
    }

    async fn echo(client: &mut TcpStream, text: &[u8]) -> std::io::Result<()> {
        client.write_all(text).await?;
        let mut back = vec![0; text.len()];
        client.read_exact(&mut back).await?;
        assert_eq!(back, text);
        Ok(())
    }

    #[tokio::test]
    async fn bytes_pass_late_when_the_link_is_slow() {
        let (proxy, mut client, _echo) = echoed().await;
        echo(&mut client, b"one").await.expect("a healthy link");
        let way = Way { latency: Duration::from_millis(60), ..Way::default() };
        proxy.set(Faults { up: way, down: way, refuse: false });
        let begin = Instant::now();
        echo(&mut client, b"two").await.expect("slow, not broken");
        assert!(begin.elapsed() >= Duration::from_millis(120), "{:?}", begin.elapsed());
        assert_eq!(proxy.counts().bytes, 12);
    }

    #[tokio::test]
    async fn a_frozen_connection_stays_open_and_goes_on_when_healed() {
        let (proxy, mut client, _echo) = echoed().await;
        echo(&mut client, b"one").await.expect("a healthy link");
        proxy.freeze_open(true, false);
        client.write_all(b"two").await.expect("the socket is open");
        while proxy.counts().frozen == 0 {
            tokio::task::yield_now().await;
        }
        proxy.heal();
        let mut back = [0; 3];
        client.read_exact(&mut back).await.expect("healed");
        assert_eq!(&back, b"two");
    }

    #[tokio::test]
    async fn connections_are_reset_on_demand_and_refused() {
        let (proxy, mut client, _echo) = echoed().await;
        echo(&mut client, b"one").await.expect("a healthy link");
        proxy.reset_all();
        assert!(client.read(&mut [0; 1]).await.is_err());
        proxy.set(Faults { refuse: true, ..Faults::default() });
        let mut client = TcpStream::connect(proxy.addr()).await.expect("the kernel accepts");
        assert!(client.read(&mut [0; 1]).await.is_err());
        let counts = proxy.counts();
        assert_eq!((counts.reset, counts.refused), (1, 1));
    }

    #[tokio::test]
    async fn a_connection_ends_after_its_bytes() {
        let (proxy, mut client, _echo) = echoed().await;
        proxy.set(Faults { up: Way { close_after: 4, ..Way::default() }, ..Faults::default() });
        assert!(echo(&mut client, b"12345678").await.is_err());
        assert_eq!(proxy.counts().reset, 1);
    }
}
