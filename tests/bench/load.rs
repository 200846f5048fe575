//! The load: all clients in one thread and one poll. A process of its own, so that it can be pinned
//! and its CPU counted apart. It tells the driver each stage by a line and goes on when told to.

use crate::client::{Client, Got};
use crate::histogram::Histogram;
use crate::speak::{Speak, Who};
use crate::stamp;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::{BufRead, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Connects that may be under way at once.
const CONNECTING: usize = 64;
/// Clients behind one source address.
const PER_SOURCE: usize = 5_000;
/// How long the set-up may stand still, and how long the last messages may be on their way.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the load does once its clients are there.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Drive {
    /// Nothing: stay until told to end.
    Idle,
    /// Messages by a fixed schedule, whatever comes back.
    Open { per_second: u64, seconds: u64 },
    /// Each sender sends its next message when its own has come back.
    Closed { seconds: u64 },
}

/// The whole of a load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) server: SocketAddr,
    pub(crate) speak: Speak,
    /// How many clients there are at the end of each stage.
    pub(crate) stages: Vec<usize>,
    /// The first clients are senders.
    pub(crate) senders: usize,
    /// Rooms of its own for each client, besides the common one.
    pub(crate) rooms: usize,
    pub(crate) drive: Drive,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) deliveries: u64,
    pub(crate) missing: u64,
    pub(crate) seconds: f64,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
    pub(crate) per_read: f64,
}

/// Runs a plan to its end.
pub(crate) fn run(plan: Plan) -> anyhow::Result<()> {
    let mut load = Load {
        poll: Poll::new()?,
        clients: Vec::new(),
        buffer: vec![0; 256 * 1024],
        begun: Instant::now(),
        due: VecDeque::new(),
        count: Count { histogram: Histogram::new(), deliveries: 0, reads: 0, from: u64::MAX, ready: 0 },
        plan,
    };
    for stage in load.plan.stages.clone() {
        load.connect(stage)?;
        tell("ready")?;
    }
    let outcome = match load.plan.drive {
        Drive::Idle => Outcome::default(),
        Drive::Open { per_second, seconds } => load.open(per_second, seconds)?,
        Drive::Closed { seconds } => load.closed(seconds)?,
    };
    tell(&serde_json::to_string(&outcome)?)
}

/// Tells the driver, and waits until it has measured. The clients are idle meanwhile.
fn tell(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    std::io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}

struct Count {
    histogram: Histogram,
    deliveries: u64,
    reads: u64,
    /// Messages meant to leave before this are not counted.
    from: u64,
    ready: usize,
}

struct Load {
    plan: Plan,
    poll: Poll,
    clients: Vec<Client>,
    buffer: Vec<u8>,
    begun: Instant,
    /// Senders whose own message has come back.
    due: VecDeque<usize>,
    count: Count,
}

impl Load {
    fn now(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    fn who(plan: &Plan, index: usize) -> Who {
        Who { index, named: index < plan.senders, rooms: plan.rooms }
    }

    /// Connects and sets up clients until there are `total`.
    fn connect(&mut self, total: usize) -> anyhow::Result<()> {
        let (mut events, mut progress) = (Events::with_capacity(1_024), (0, Instant::now()));
        while self.count.ready < total {
            while self.clients.len() < total && self.clients.len() - self.count.ready < CONNECTING {
                let index = self.clients.len();
                let mut client = Client::new(stream(self.plan.server, index)?);
                let interest = Interest::READABLE | Interest::WRITABLE;
                self.poll.registry().register(&mut client.stream, Token(index), interest)?;
                self.clients.push(client);
                self.clients[index].write(self.plan.speak.upgrade().as_bytes())?;
            }
            self.turn(&mut events, Some(Duration::from_millis(200)))?;
            if self.count.ready > progress.0 {
                progress = (self.count.ready, Instant::now());
            }
            anyhow::ensure!(
                progress.1.elapsed() < PATIENCE,
                "{} of {total} clients are ready, and no more come",
                progress.0
            );
        }
        Ok(())
    }

    /// Waits for events and handles them.
    fn turn(&mut self, events: &mut Events, timeout: Option<Duration>) -> anyhow::Result<()> {
        if let Err(error) = self.poll.poll(events, timeout) {
            anyhow::ensure!(error.kind() == std::io::ErrorKind::Interrupted, error);
        }
        let closed = matches!(self.plan.drive, Drive::Closed { .. });
        for event in events.iter() {
            let index = event.token().0;
            let (count, due, begun) = (&mut self.count, &mut self.due, self.begun);
            let client = &mut self.clients[index];
            if event.is_writable() {
                client.flush()?;
            }
            let who = Self::who(&self.plan, index);
            // One time for all that came together: asked for each message, the clock costs a tenth of the load's core.
            let mut came = None;
            let reads = client.read(self.plan.speak, who, &mut self.buffer, |_, got| match got {
                Got::Ready => count.ready += 1,
                Got::Message(payload) => {
                    let Some((meant, sender)) = stamp::read(payload) else { return };
                    if meant >= count.from {
                        count.deliveries += 1;
                        let now = *came.get_or_insert_with(|| begun.elapsed().as_micros() as u64);
                        count.histogram.record(now.saturating_sub(meant));
                    }
                    if closed && sender == index {
                        due.push_back(index);
                    }
                }
            });
            self.count.reads += reads.map_err(|error| anyhow::anyhow!("client {index}: {error}"))?;
        }
        Ok(())
    }

    fn send(&mut self, sender: usize, meant: u64) -> anyhow::Result<()> {
        let text = self.plan.speak.publish(&stamp::write(meant, sender));
        Ok(self.clients[sender].text(&text)?)
    }

    fn open(&mut self, per_second: u64, seconds: u64) -> anyhow::Result<Outcome> {
        let mut events = Events::with_capacity(4_096);
        let (step, warm) = (1_000_000 / per_second, per_second);
        let start = self.now() + 10_000;
        let messages = warm + per_second * seconds;
        self.count.from = start + warm * step;
        let members = self.clients.len() as u64;
        let expected = per_second * seconds * members;
        let mut sent = 0;
        while sent < messages {
            let meant = start + sent * step;
            let now = self.now();
            if now >= meant {
                self.send(sent as usize % self.plan.senders, meant)?;
                sent += 1;
                if sent == warm {
                    self.begin();
                }
                continue;
            }
            // The poll counts in milliseconds: the last one is spent without sleeping.
            let wait = if meant - now > 2_000 { (meant - now) / 1_000 - 1 } else { 0 };
            self.turn(&mut events, Some(Duration::from_millis(wait)))?;
        }
        let last = Instant::now();
        while self.count.deliveries < expected && last.elapsed() < PATIENCE {
            self.turn(&mut events, Some(Duration::from_millis(20)))?;
        }
        let seconds = (self.now() - self.count.from) as f64 / 1e6;
        Ok(self.outcome(seconds, expected.saturating_sub(self.count.deliveries)))
    }

    fn closed(&mut self, seconds: u64) -> anyhow::Result<Outcome> {
        let mut events = Events::with_capacity(4_096);
        self.due = (0..self.plan.senders).collect();
        let start = self.now() + 1_000_000;
        let end = start + seconds * 1_000_000;
        self.count.from = start;
        let mut measuring = false;
        while self.now() < end {
            if !measuring && self.now() >= start {
                measuring = true;
                self.begin();
            }
            while let Some(sender) = self.due.pop_front() {
                let now = self.now();
                self.send(sender, now)?;
            }
            self.turn(&mut events, Some(Duration::from_millis(20)))?;
        }
        let seconds = (self.now() - start) as f64 / 1e6;
        anyhow::ensure!(self.count.deliveries > 0, "nothing came back");
        Ok(self.outcome(seconds, 0))
    }

    /// The measurement begins: the driver reads the CPU times at this line, and is not waited for.
    fn begin(&mut self) {
        self.count.reads = 0;
        let mut out = std::io::stdout().lock();
        writeln!(out, "begin").and_then(|()| out.flush()).ok();
    }

    fn outcome(&self, seconds: f64, missing: u64) -> Outcome {
        let Count { histogram, deliveries, reads, .. } = &self.count;
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| histogram.quantile(share));
        let per_read = *deliveries as f64 / (*reads).max(1) as f64;
        Outcome { deliveries: *deliveries, missing, seconds, p50, p99, p999, max: histogram.max(), per_read }
    }
}

/// A socket on its way to the server, from one of several addresses of loopback.
fn stream(server: SocketAddr, index: usize) -> anyhow::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    // Other systems than Linux have only 127.0.0.1 on loopback.
    if cfg!(target_os = "linux") && index >= PER_SOURCE {
        let source = Ipv4Addr::new(127, 0, 0, 1 + u8::try_from(index / PER_SOURCE)?);
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    socket.set_tcp_nodelay(true)?;
    // Reset at the end: else its port stays taken for a minute, and a few runs take all.
    socket.set_linger(Some(Duration::ZERO))?;
    // On loopback a connect is done at once, or the server's backlog is full: then this waits.
    socket.connect(&server.into())?;
    socket.set_nonblocking(true)?;
    Ok(TcpStream::from_std(socket.into()))
}
