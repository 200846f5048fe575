//! Raw clients that mean no good, against one edge, at a bounded rate: what is measured is the edge, not the machine.

use crate::run::Red;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A head that is not complete is given up within this (5 s, and what a busy machine adds).
const HEAD: Duration = Duration::from_secs(6);
/// Whatever else breaks a rule ends within this.
const PROMPT: Duration = Duration::from_secs(5);
/// Attackers of each kind but the slow ones.
const TASKS: usize = 4;
/// Between two attacks of one of them.
const PAUSE: Duration = Duration::from_millis(40);
/// Frames of one attack, sent at once.
const FRAMES: usize = 2_000;

/// What an attacker does.
#[derive(Clone, Copy, Debug)]
enum Kind {
    SlowHead,
    HugeHead,
    Pings,
    Fragments,
}

/// How often attackers of each kind were turned away, and the first that was not.
#[derive(Debug, Default)]
struct Outcome {
    turned_away: [AtomicU64; 4],
    wrong: Mutex<Option<String>>,
}

/// An attack in progress. Ends with it.
#[derive(Debug)]
pub(crate) struct Attack {
    tasks: JoinSet<()>,
    outcome: Arc<Outcome>,
}

impl Attack {
    /// Begins: `slow` clients that send one byte of a head each second, and some of every other kind.
    pub(crate) fn start(edge: SocketAddr, slow: usize) -> Self {
        let (mut tasks, outcome) = (JoinSet::new(), Arc::new(Outcome::default()));
        for (kind, count) in
            [(Kind::SlowHead, slow), (Kind::HugeHead, TASKS), (Kind::Pings, TASKS), (Kind::Fragments, TASKS)]
        {
            for _ in 0..count {
                let outcome = outcome.clone();
                tasks.spawn(async move {
                    // Not all in one instant.
                    tokio::time::sleep(Duration::from_millis(fastrand::u64(..1_000))).await;
                    loop {
                        match kind.attack(edge).await {
                            Ok(()) => drop(outcome.turned_away[kind as usize].fetch_add(1, Relaxed)),
                            Err(wrong) => {
                                let mut first = outcome.wrong.lock().unwrap_or_else(PoisonError::into_inner);
                                first.get_or_insert(format!("{kind:?}: {wrong}"));
                            }
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                });
            }
        }
        Self { tasks, outcome }
    }

    /// Ends it: what became of the attackers.
    ///
    /// # Errors
    /// One of them was not turned away as it should have been, or none was.
    pub(crate) async fn end(mut self) -> Result<String, Red> {
        self.tasks.shutdown().await;
        if let Some(wrong) = self.outcome.wrong.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(wrong);
        }
        let [slow, huge, pings, fragments] = &self.outcome.turned_away;
        let counts = [slow, huge, pings, fragments].map(|count| count.load(Relaxed));
        if counts.contains(&0) {
            return Err(format!("not every attacker was turned away: {counts:?}"));
        }
        let [slow, huge, pings, fragments] = counts;
        Ok(format!(
            "turned away: {slow} slow heads, {huge} huge heads, {pings} floods of pings, {fragments} floods of fragments"
        ))
    }
}

impl Kind {
    /// One attack, until the edge ends it in the right way.
    async fn attack(self, edge: SocketAddr) -> Result<(), String> {
        let mut stream = TcpStream::connect(edge).await.map_err(|e| e.to_string())?;
        match self {
            Self::SlowHead => slow_head(&mut stream).await,
            Self::HugeHead => {
                let headers: String = (0..2_000).map(|n| format!("X-{n}: a header\r\n")).collect();
                // The edge may end it before it has read everything.
                let _early = stream.write_all(format!("GET /ws HTTP/1.1\r\nHost: a\r\n{headers}\r\n").as_bytes()).await;
                let answer = rest(&mut stream).await?;
                let is_refused = answer.is_empty() || answer.starts_with(b"HTTP/1.1 4");
                if is_refused { Ok(()) } else { Err(String::from_utf8_lossy(&answer).into_owned()) }
            }
            Self::Pings => flood(&mut stream, &[], &[0x89, 0x80, 0, 0, 0, 0]).await,
            // A message begins, and nothing is added to it, again and again.
            Self::Fragments => flood(&mut stream, &[0x01, 0x81, 0, 0, 0, 0, b'a'], &[0x00, 0x80, 0, 0, 0, 0]).await,
        }
    }
}

async fn slow_head(stream: &mut TcpStream) -> Result<(), String> {
    let begin = Instant::now();
    let _gone = stream.write_all(b"GET /ws HTTP/1.1\r\nHost: a\r\nX: ").await;
    while begin.elapsed() < HEAD {
        match timeout(Duration::from_secs(1), stream.read(&mut [0; 512])).await {
            Ok(Ok(0) | Err(_)) => return Ok(()),
            Ok(Ok(_)) => {}
            Err(_) => drop(stream.write_all(b"a").await),
        }
    }
    Err(format!("it is there after {HEAD:?}"))
}

/// Upgrades, sends frames without end, and is closed for it.
async fn flood(stream: &mut TcpStream, first: &[u8], frame: &[u8]) -> Result<(), String> {
    let request = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.map_err(|e| e.to_string())?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let read = timeout(PROMPT, stream.read_buf(&mut answer)).await.map_err(|_| "no answer to the upgrade")?;
        if read.map_err(|e| e.to_string())? == 0 {
            return Err("no upgrade".to_owned());
        }
    }
    let _early = stream.write_all(&[first, &frame.repeat(FRAMES)].concat()).await;
    let answer = rest(stream).await?;
    // A close frame for a policy (1008) or a size (1009), perhaps behind a pong; or the end of the connection, when
    // bytes that nobody read were on their way.
    let closes = |code: u16| answer.windows(2).any(|bytes| bytes == code.to_be_bytes());
    if answer.is_empty() || closes(1008) || closes(1009) { Ok(()) } else { Err(format!("it is told {answer:?}")) }
}

/// What comes until the connection ends.
async fn rest(stream: &mut TcpStream) -> Result<Vec<u8>, String> {
    let mut answer = Vec::new();
    // A reset is an end, too.
    let ended = timeout(PROMPT, stream.read_to_end(&mut answer)).await;
    ended.map(|_| answer).map_err(|_| format!("it is there after {PROMPT:?}"))
}
