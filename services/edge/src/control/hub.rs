//! The hub's task: one round after another, each takes what has arrived from shards, feed and
//! upstream, and hands on what came of it.

use super::Unfinished;
use super::conns::Conns;
use super::offsets::Offsets;
use super::recovery::Recovery;
use super::requests::Asked;
use super::room::Rooms;
use super::shed::Shed;
use super::watch::Watch;
use crate::bridge::requests::RequestReceiver;
use crate::bridge::{ConnKey, Control, Inbound, Outlet, RoomId, SessionId};
use crate::feed::sequencer::{Action, Millis, Stored};
use crate::feed::{EventFeed, FeedItem};
use crate::metrics::HubMetrics;
use crate::trace;
use crate::upstream::Outcome;
use crate::upstream::publish::{Link, LinkEvent};
use crate::upstream::read::{ReadKey, Reader};
use crate::upstream::registration::Registration;
use crate::upstream::session::{SessionEvent, SessionLink};
use plaza_kit::admin::Readiness;
use plaza_kit::chaos::{self, Step};
use plaza_kit::trace::Server;
use plaza_proto::code::Code;
use plaza_proto::fanout::Command;
use plaza_proto::feed::FeedMessage;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc;

/// Messages taken in one round from each source.
const ROUND: usize = 256;
/// Resolution of the hub's timers.
const TICK: Duration = Duration::from_millis(25);
/// Who goes is told after so long, and not at all when back by then.
pub(super) const COALESCE: Millis = 75;
/// A room that nobody is in is heard so long.
pub(super) const RELEASE: Millis = 30_000;
/// Every room's tail is checked once in this time.
pub(super) const TAIL_EVERY: Millis = 60_000;

/// What the hub is made of.
pub(super) struct HubParts {
    pub(super) requests: RequestReceiver,
    pub(super) outlets: Vec<Box<dyn Outlet>>,
    pub(super) feed: Box<dyn EventFeed>,
    pub(super) outcomes: mpsc::Receiver<Outcome>,
    pub(super) reader: Reader,
    /// Where publishes go, for their spans.
    pub(super) fanout: Server,
    pub(super) session: SessionLink,
    /// Keys of tickets.
    pub(super) registration: Registration,
    /// How long sessions can be continued; zero is off.
    pub(super) recovery_window: Duration,
    /// Connections above the mean of all edges are sent to the others.
    pub(super) shed_excess: bool,
    /// Bytes of rings and early buffers of all rooms.
    pub(super) feed_cache_bytes: usize,
    pub(super) metrics: HubMetrics,
    /// Where a silent feed is told.
    pub(super) readiness: Readiness,
    /// What is left to do, for the drain.
    pub(super) unfinished: Unfinished,
}

/// Who waits for a read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Waiter {
    Sequencer(RoomId, u64),
    Joins(RoomId),
    History(ConnKey, u32),
}

/// All that the hub owns. One task, no locks.
pub(super) struct Hub {
    /// Milliseconds since the hub began; the same for a whole round.
    pub(super) now: Millis,
    /// The same moment by both clocks: when what this round takes has reached this edge.
    pub(super) round: (Instant, SystemTime),
    pub(super) outlets: Vec<Box<dyn Outlet>>,
    pub(super) feed: Box<dyn EventFeed>,
    pub(super) reader: Reader,
    pub(super) session: SessionLink,
    pub(super) link: Link,
    pub(super) conns: Conns,
    pub(super) rooms: Rooms,
    pub(super) actions: Vec<Action>,
    pub(super) metrics: HubMetrics,
    pub(super) readiness: Readiness,
    pub(super) watch: Watch,
    /// `None`: whoever is here stays.
    pub(super) shed: Option<Shed>,
    /// The room that finds out for all others whether the log is still the same.
    pub(super) prover: Option<(RoomId, u64)>,
    /// Sampled requests without an answer yet.
    pub(super) traces: trace::Requests,
    /// This incarnation; empty before the first lease.
    pub(super) incarnation: Arc<str>,
    /// Tells this edge's volatile events from those of others.
    pub(super) nonce: u64,
    pub(super) ring_budget: usize,
    pub(super) ring_bytes: usize,
    /// When sequencers are woken.
    pub(super) wakes: BinaryHeap<Reverse<(Millis, RoomId, u64)>>,
    /// When tails are checked once more.
    pub(super) tail_checks: BinaryHeap<Reverse<(Millis, RoomId, u64)>>,
    pub(super) tails_due: HashSet<RoomId>,
    pub(super) swept_at: Millis,
    pub(super) sweep_next: usize,
    /// Rooms on shards that had no room for an event.
    pub(super) behind: Vec<(RoomId, u64, usize)>,
    /// Rooms that nobody is in, by the time when they are given up.
    pub(super) releases: VecDeque<(Millis, RoomId, u64)>,
    /// Rooms with joins whose reads are made again, and when: one entry for each pause.
    pub(super) replays: VecDeque<(Millis, RoomId)>,
    /// Users whose presence has changed, and when it is told.
    pub(super) changed: HashMap<(RoomId, Arc<str>), Millis>,
    pub(super) registration: Registration,
    /// How long a session can be continued, in milliseconds; 0: not at all.
    pub(super) recovery_ms: u32,
    /// Connections whose sessions continue, and wait for what they missed.
    pub(super) recoveries: HashMap<ConnKey, Recovery>,
    /// Sessions that continue by their tickets alone.
    pub(super) untold: VecDeque<(ConnKey, SessionId)>,
    pub(super) offsets: Offsets,
    pub(super) asked: HashMap<u64, Asked>,
    pub(super) next_ask: u64,
    waiters: HashMap<ReadKey, Vec<Waiter>>,
    /// Rounds of the second, for the things that are looked at once in it.
    second: Millis,
}

/// Runs the hub until a source of it ends.
pub(super) async fn run(parts: HubParts) {
    let HubParts { mut requests, outlets, feed, mut outcomes, reader, session, .. } = parts;
    let unfinished = parts.unfinished;
    let begin = Instant::now();
    let mut hub = Hub {
        now: 0,
        round: (begin, SystemTime::now()),
        conns: Conns::new(outlets.len()),
        outlets,
        feed,
        reader,
        session,
        link: Link::default(),
        rooms: Rooms::default(),
        actions: Vec::new(),
        metrics: parts.metrics,
        readiness: parts.readiness,
        watch: Watch::new(0),
        shed: parts.shed_excess.then(Shed::default),
        prover: None,
        traces: trace::Requests::new(parts.fanout),
        incarnation: "".into(),
        nonce: rand::random(),
        ring_budget: parts.feed_cache_bytes,
        ring_bytes: 0,
        wakes: BinaryHeap::new(),
        tail_checks: BinaryHeap::new(),
        tails_due: HashSet::new(),
        swept_at: 0,
        sweep_next: 0,
        behind: Vec::new(),
        releases: VecDeque::new(),
        replays: VecDeque::new(),
        changed: HashMap::new(),
        asked: HashMap::new(),
        registration: parts.registration,
        recovery_ms: u32::try_from(parts.recovery_window.as_millis()).unwrap_or(u32::MAX),
        recoveries: HashMap::new(),
        untold: VecDeque::new(),
        offsets: Offsets::new(),
        next_ask: 0,
        waiters: HashMap::new(),
        second: 0,
    };
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut wishes, mut items, mut news, mut done) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    loop {
        tokio::select! {
            n = requests.recv_many(&mut wishes, ROUND) => if n == 0 { return },
            () = hub.feed.recv(&mut items, ROUND) => if items.is_empty() {
                // The log of this process is gone; nothing but the end of the process follows.
                return;
            },
            n = outcomes.recv_many(&mut news, ROUND) => if n == 0 { return },
            _ = tick.tick() => {
                hub.now = begin.elapsed().as_millis() as Millis;
                hub.link.tick(hub.now, &mut done);
                hub.on_tick();
            }
        }
        hub.round = (Instant::now(), SystemTime::now());
        hub.now = hub.round.0.duration_since(begin).as_millis() as Millis;
        for item in items.drain(..) {
            hub.on_feed(item);
        }
        for outcome in news.drain(..) {
            hub.on_outcome(outcome, &mut done);
        }
        hub.on_resolved(&mut done);
        for wish in wishes.drain(..) {
            hub.on_request(wish);
        }
        hub.link.flush(hub.now);
        unfinished.set(requests.len() + hub.link.unresolved());
        hub.session.pump();
        hub.outlets.iter().for_each(|outlet| outlet.wake());
    }
}

impl Hub {
    fn on_feed(&mut self, item: FeedItem) {
        self.metrics.heard.count(&item);
        match item {
            FeedItem::Message(FeedMessage::Event { room, seq, previous, id, time, body, traceparent }) => {
                self.offsets.hear(seq);
                if let Some(room) = self.rooms.named(&room) {
                    let stored = Stored { seq, previous, id, time, body, traceparent };
                    self.with_sequencer(room, |sequencer, now, out| sequencer.on_event(stored, now, out));
                }
            }
            FeedItem::Message(FeedMessage::Hint { room, seq }) => {
                if let Some(room) = self.rooms.named(&room) {
                    self.with_sequencer(room, |sequencer, now, out| sequencer.on_hint(seq, now, out));
                }
            }
            FeedItem::Message(FeedMessage::Volatile { room, body }) => self.on_volatile(&room, &body),
            FeedItem::Message(FeedMessage::Beat { seq, previous, epoch, election_time }) => {
                self.on_beat(seq, previous, epoch, election_time);
            }
            FeedItem::Message(FeedMessage::Command(body)) => {
                if let Ok(command) = <Command as prost::Message>::decode(body) {
                    self.on_command(command);
                }
            }
            FeedItem::Message(FeedMessage::Resync(None)) => self.resync(),
            FeedItem::Renewed => self.doubt(),
            FeedItem::Message(FeedMessage::Resync(Some(room))) => {
                self.suspect(self.rooms.named(&room).as_slice());
            }
            FeedItem::Barrier(token) => {
                let room = RoomId((token >> 32) as u32);
                let token = token & 0xffff_ffff;
                self.with_sequencer(room, |sequencer, now, out| sequencer.on_barrier(token, now, out));
            }
        }
    }

    fn on_outcome(&mut self, outcome: Outcome, done: &mut Vec<crate::upstream::publish::Resolved>) {
        match outcome {
            Outcome::Publish(LinkEvent::Up { stream, batches }) => self.link.up(stream, batches, self.now),
            Outcome::Publish(LinkEvent::Down { stream }) => self.link.down(stream, self.now),
            Outcome::Publish(LinkEvent::Results(results)) => {
                chaos::step(Step::Resolved);
                self.link.results(results, self.now, done);
            }
            Outcome::Session(SessionEvent::Registered { incarnation, anew }) => {
                self.feed.listen(&incarnation);
                self.incarnation = incarnation;
                self.readiness.set_degraded("session", None);
                if let Some(anew) = anew {
                    self.metrics.leases_lost.inc();
                    let _gone = anew.send(self.assert_all());
                }
            }
            Outcome::Session(SessionEvent::Applied(tag, result)) => self.on_applied(tag, result),
            Outcome::Session(SessionEvent::Moved(session)) => {
                // This edge was dead to the others for a while, and the client has gone on without it.
                if let Some(key) = self.conns.of_session(&session) {
                    self.replace(key);
                }
            }
            Outcome::Session(SessionEvent::NameLost(session)) => {
                if let Some(key) = self.conns.of_session(&session) {
                    self.lose_name(key);
                }
            }
            Outcome::Session(SessionEvent::Commands(commands)) => {
                for command in commands {
                    self.on_command(command);
                }
            }
            Outcome::Session(SessionEvent::Load(load)) => self.on_load(load),
            Outcome::Session(SessionEvent::Reachable(yes)) => {
                let why = (!yes).then(|| "the session service cannot be reached".to_owned());
                self.readiness.set_degraded("session", why);
            }
            Outcome::Read(key, result) => self.on_read(&key, &result),
            Outcome::Tails(doubts, result) => self.on_tails(doubts, result),
            Outcome::Members { to, id, room, result } => self.on_members(to, id, &room, result),
        }
    }

    /// Reads, for this waiter and for all others that want the same.
    pub(super) fn read(&mut self, key: ReadKey, waiter: Waiter) {
        let wanted_by = match waiter {
            Waiter::History(from, id) => self.traces.context(from, id),
            // Below the first of those who wait.
            Waiter::Joins(room) => self
                .rooms
                .get(room)
                .and_then(|room| room.joining.iter().find_map(|joining| self.traces.context(joining.to, joining.id))),
            Waiter::Sequencer(..) => None,
        };
        let repair = matches!(waiter, Waiter::Sequencer(..));
        self.reader.read(&key, || trace::read(wanted_by, repair, &key.room));
        self.waiters.entry(key).or_default().push(waiter);
    }

    fn on_read(&mut self, key: &ReadKey, result: &Result<Arc<plaza_proto::fanout::ReadResponse>, Code>) {
        self.reader.landed(key);
        for waiter in self.waiters.remove(key).unwrap_or_default() {
            match waiter {
                Waiter::Sequencer(id, ticket) => {
                    self.metrics.repairs.inc();
                    self.with_sequencer(id, |sequencer, now, out| match result {
                        Ok(answer) => sequencer.on_read(ticket, answer, now, out),
                        Err(code) => {
                            let away = matches!(code, Code::Unavailable | Code::Timeout | Code::Busy);
                            sequencer.on_read_failed(ticket, away, now);
                        }
                    });
                }
                Waiter::Joins(id) => self.on_replay(id, key, result),
                Waiter::History(to, id) => self.on_history(to, id, &key.room, result),
            }
        }
    }

    fn on_tick(&mut self) {
        let now = self.now;
        while let Some(&Reverse((at, id, born))) = self.wakes.peek()
            && at <= now
        {
            self.wakes.pop();
            let Some(room) = self.rooms.get_mut(id).filter(|room| room.born == born && room.wake == Some(at)) else {
                continue;
            };
            room.wake = None;
            self.with_sequencer(id, |sequencer, now, out| sequencer.on_tick(now, out));
        }
        if !self.behind.is_empty() {
            self.catch_up();
        }
        if !self.changed.is_empty() {
            self.flush_presence();
        }
        self.read_again();
        self.watch_tick();
        if now >= self.second {
            self.second = now + 1_000;
            self.expire_joins();
            self.release_rooms();
            self.tell_late();
            self.tails_due.extend(self.offsets.unproven());
            self.session.set_connections(self.conns.len(), self.readiness.is_draining());
            self.metrics.tick(self.conns.by_variant(), self.rooms.len(), self.link.unresolved(), self.ring_bytes);
            self.metrics.wait(self.session.waiting());
            self.metrics.ages(self.watch.beat_age(now), self.watch.echo_age(now));
        }
    }

    /// Nobody is in the room, or waits to be, any more: it is heard a little longer.
    pub(super) fn release_later(&mut self, id: RoomId) {
        let now = self.now;
        if let Some(room) = self.rooms.get_mut(id)
            && room.members == 0
            && room.joining.is_empty()
        {
            room.empty_at = now;
            self.releases.push_back((now + RELEASE, id, room.born));
        }
    }

    /// Gives up rooms that nobody has been in for a while.
    fn release_rooms(&mut self) {
        while let Some(&(at, id, born)) = self.releases.front()
            && at <= self.now
        {
            self.releases.pop_front();
            let Some(room) = self.rooms.get(id) else { continue };
            let empty = room.members == 0 && room.joining.is_empty() && room.users.is_empty();
            if room.born != born || !empty || room.empty_at + RELEASE > self.now {
                continue;
            }
            let Some(room) = self.rooms.remove(id) else { continue };
            self.ring_bytes -= room.bytes;
            self.offsets.remove(id);
            self.feed.unsubscribe(&room.name);
            self.hear_prover(id);
            for (shard, outlet) in room.shards.iter().zip(&self.outlets) {
                if shard.known {
                    outlet.send(Inbound::Control(Control::Forget(id)));
                }
            }
        }
    }
}
