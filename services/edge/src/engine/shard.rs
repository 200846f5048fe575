//! A shard's loop: sockets, inbox, timers and the sweep share one thread with the HTTP side.
//!
//! The shard's own poll holds all its sockets. The runtime's poll holds the shard's, edge-triggered: its
//! readiness is cleared only after the inner poll had nothing, and kept when the shard lets other tasks
//! run in the middle of its work.

use super::core::{Core, Passed};
use super::inbox::{INBOX_ROOM, ShardHandle};
use super::options::Settings;
use super::slot::Phase;
use super::stats::add;
use super::sweep::Swept;
use crate::bridge::requests::RequestSender;
use crate::bridge::{Control, Inbound, Reply};
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

/// The inbox's place among the poll's tokens.
const INBOX: mio::Token = mio::Token(usize::MAX);

/// Events of one look at the poll.
const EVENTS: usize = 256;

/// Messages of the inbox that are served before the sockets have their turn.
const INBOX_BATCH: usize = 256;

/// How long the shard works before other tasks of its thread run.
const TURN: Duration = Duration::from_millis(1);

/// Looks at sockets and inbox before a room's round begins, while they bring anything: what is there
/// already leaves with the same sends.
const GATHER: usize = 8;

/// Looks one after another that bring nothing, after which a round begins. The first may be too early for
/// answers of clients whose messages have just left.
const QUIET: usize = 2;

/// Time between two packets that leave in turns of their own, in microseconds.
const PACE_US: u64 = 1_000;

/// How long the shard waits for the hub's queue, when it was full.
const RETRY_MS: u64 = 5;

/// One engine thread's sockets, rooms and timers.
#[derive(Debug)]
pub struct Shard {
    poll: mio::Poll,
    events: mio::Events,
    batch: VecDeque<Inbound>,
    core: Core,
    hosts_hub: bool,
}

impl Shard {
    /// Makes a shard; `requests` leads to the hub.
    ///
    /// # Errors
    /// The system gives no poll or no event descriptor (out of descriptors).
    pub fn new(index: u16, settings: Settings, requests: RequestSender) -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), INBOX)?;
        let handle = ShardHandle::new(index, settings.inbox, waker);
        let registry = poll.registry().try_clone()?;
        let hosts_hub = settings.hosts_hub;
        let core = Core::new(index, settings, handle, registry, requests);
        let (events, batch) = (mio::Events::with_capacity(EVENTS), VecDeque::with_capacity(INBOX_ROOM));
        Ok(Self { poll, events, batch, core, hosts_hub })
    }

    /// A sender into the inbox.
    pub fn handle(&self) -> ShardHandle {
        self.core.handle.clone()
    }

    /// Runs until `stop`, on a current-thread runtime that this thread drives. Connections that are left
    /// then are closed without a word: drain first, by `Control::Drain`.
    ///
    /// # Errors
    /// The poll cannot be registered with the runtime, or fails.
    pub async fn run(self, stop: CancellationToken) -> io::Result<()> {
        let Self { poll, mut events, mut batch, mut core, hosts_hub } = self;
        let mut outer = watch(poll)?;
        let mut turn = Instant::now();
        let mut woken = turn;
        while !stop.is_cancelled() {
            core.tick();
            let mut quiet = 0;
            for _ in 0..GATHER {
                if quiet == QUIET || !core.begins_round() {
                    break;
                }
                let sockets = look(outer.get_mut(), &mut events, Some(Duration::ZERO))?;
                if sockets {
                    core.on_events(&events);
                }
                let inbox = core.serve_inbox(&mut batch);
                give_way(core.pass_requests(), hosts_hub).await;
                quiet = if sockets || inbox { 0 } else { quiet + 1 };
            }
            core.tick();
            let swept = core.sweep();
            // In the middle of a sweep the poll is asked directly, since the runtime does not look.
            let sockets = match swept {
                Swept::Cohort => look(outer.get_mut(), &mut events, Some(Duration::ZERO)),
                Swept::Nothing | Swept::Pausing => {
                    outer.try_io_mut(Interest::READABLE, |poll| match look(poll, &mut events, Some(Duration::ZERO))? {
                        false => Err(io::ErrorKind::WouldBlock.into()),
                        true => Ok(true),
                    })
                }
            };
            let sockets = match sockets {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
                other => other?,
            };
            core.tick();
            if sockets {
                core.on_events(&events);
            }
            let again = core.serve_again();
            let inbox = core.serve_inbox(&mut batch);
            core.expire();
            core.look_at_logs();
            let passed = core.pass_requests();
            give_way(passed, hosts_hub).await;
            if swept == Swept::Cohort || sockets || again || inbox {
                if turn.elapsed() >= TURN {
                    core.publish_gauges();
                    tokio::task::yield_now().await;
                    turn = Instant::now();
                }
                continue;
            }
            core.publish_gauges();
            if core.handle.sleep() {
                continue;
            }
            if swept == Swept::Pausing || !core.paced.is_empty() {
                // Shorter than the runtime's timers can wait; a socket or the inbox ends it earlier.
                let ready = look(outer.get_mut(), &mut events, Some(Duration::from_millis(1)))?;
                if ready {
                    core.tick();
                    core.on_events(&events);
                }
                if turn.elapsed() >= TURN {
                    tokio::task::yield_now().await;
                    turn = Instant::now();
                }
                continue;
            }
            add(&core.handle.stats().busy_us, woken.elapsed().as_micros() as u64);
            let retry = (passed == Passed::Some).then(|| core.now() + RETRY_MS);
            let wake = core.wheel.next().into_iter().chain(retry).chain(core.next_look()).min();
            let wake = wake.map(|at| core.instant(at).into());
            tokio::select! {
                biased;
                ready = outer.readable_mut() => ready?.retain_ready(),
                () = sleep_until(wake) => {}
                () = stop.cancelled() => {}
            }
            turn = Instant::now();
            woken = turn;
        }
        core.handle.close();
        Ok(())
    }
}

/// Where the hub shares this core, it has the core for new wishes now: it answers them together then,
/// instead of being interrupted by every socket that is readable.
async fn give_way(passed: Passed, hosts_hub: bool) {
    match (passed, hosts_hub) {
        (Passed::Nothing, _) => {}
        (Passed::All | Passed::Some, true) => tokio::task::yield_now().await,
        (Passed::All | Passed::Some, false) => std::thread::yield_now(),
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Looks for events; `true`: there are some.
fn look(poll: &mut mio::Poll, events: &mut mio::Events, timeout: Option<Duration>) -> io::Result<bool> {
    match poll.poll(events, timeout) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(!events.is_empty()),
    }
}

/// Puts the shard's poll under the runtime's.
#[allow(deprecated, reason = "the successor is unsafe for descriptors that may be closed; a poll keeps its own")]
fn watch(poll: mio::Poll) -> io::Result<AsyncFd<mio::Poll>> {
    AsyncFd::with_interest(poll, Interest::READABLE)
}

impl Core {
    fn on_events(&mut self, events: &mio::Events) {
        for event in events {
            let Some(index) = self.find_token(event.token()) else { continue };
            if event.is_writable() {
                self.on_writable(index);
            }
            // It may have ended by the write.
            if self.find_token(event.token()).is_some() && (event.is_readable() || event.is_error()) {
                self.on_readable(index, event.is_read_closed() || event.is_error());
            }
        }
    }

    /// Connections that were not finished in their last turn; `true`: there were some.
    fn serve_again(&mut self) -> bool {
        let count = self.again.len();
        for _ in 0..count {
            let Some(index) = self.again.pop_front() else { break };
            if self.slab.get(index).phase != Phase::Free {
                self.on_readable(index, true);
            }
        }
        if self.now_us() >= self.paced_at_us {
            for _ in 0..self.paced.len() {
                let Some(index) = self.paced.pop_front() else { break };
                self.serve_own(index, false);
                self.settle(index);
            }
            self.paced_at_us = self.now_us() + PACE_US;
        }
        count > 0
    }

    /// Serves what others sent; `true`: there was something.
    fn serve_inbox(&mut self, batch: &mut VecDeque<Inbound>) -> bool {
        if batch.is_empty() {
            self.handle.take(batch);
        }
        let count = batch.len().min(INBOX_BATCH);
        for message in batch.drain(..count) {
            self.on_inbound(message);
        }
        count > 0
    }

    fn on_inbound(&mut self, message: Inbound) {
        match message {
            Inbound::Deliver(delivery) => self.deliver(&delivery),
            Inbound::Reply { to, id, reply } => match self.slab.find(to).filter(|&i| self.is_open(i)) {
                Some(index) => {
                    self.enter(index, |connection, now, out| connection.on_reply(id, reply, now, out));
                    self.settle(index);
                }
                None => {
                    let rooms = match reply {
                        Reply::Joined(joined) => vec![joined],
                        Reply::Opened { rooms, .. } => rooms,
                        _ => Vec::new(),
                    };
                    for joined in rooms {
                        self.disown(to, joined.id);
                    }
                }
            },
            Inbound::Control(control) => self.on_control(&control),
            Inbound::Adopt(adopt) => self.adopt(*adopt),
            Inbound::Poll(poll) => self.on_poll(*poll),
        }
    }

    fn is_open(&self, index: u32) -> bool {
        self.slab.get(index).phase == Phase::Open
    }

    fn on_control(&mut self, control: &Control) {
        match control {
            Control::Close { to, .. } | Control::Replaced { to, .. } | Control::Renamed { to, .. } => {
                if let Some(index) = self.slab.find(*to) {
                    self.enter(index, |connection, now, out| connection.on_control(control, now, out));
                    self.settle(index);
                }
            }
            Control::Reset { room, frames } => self.reset(*room, frames),
            Control::Forget(room) => self.forget(*room),
            Control::Drain { window_ms } => self.drain(*window_ms),
            Control::Shed { count, window_ms } => self.shed(*count, *window_ms),
        }
    }
}
