//! What a shard owns, and the one way into a connection's state machine and out of it again.

use super::board::Board;
use super::inbox::ShardHandle;
use super::log::Pool;
use super::options::{Settings, SocketOptions};
use super::slot::{Phase, Slab};
use super::stats::add;
use super::sweep::Apart;
use super::wheel::Wheel;
use super::write::Step;
use super::written::Unwritten;
use crate::accept::places::Place;
use crate::bridge::requests::RequestSender;
use crate::bridge::{ConnKey, Identity, Op, Reply, Request, RoomId, Variant};
use crate::conn::{Action, Cause, Close, Connection, Millis, Packet};
use crate::trace;
use crate::wire::websocket::{Opcode, frame_header, push_frame};
use plaza_kit::trace::{Span, SpanContext};
use plaza_proto::code::{Code, Locale};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The shared read buffer: most messages are parsed where the kernel put them.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// What became of a turn's wishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// There were none.
    Nothing,
    /// The hub has them.
    All,
    /// The hub's queue was full, and some wait.
    Some,
}

/// A shard without its poll and its loop.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) settings: Settings,
    pub(super) handle: ShardHandle,
    pub(super) registry: mio::Registry,
    pub(super) slab: Slab,
    pub(super) wheel: Wheel,
    pub(super) boards: Vec<Option<Board>>,
    pub(super) free_boards: Vec<u32>,
    pub(super) rooms: foldhash::HashMap<RoomId, [u32; Variant::COUNT]>,
    /// Boards with cohorts behind the head, in turn.
    pub(super) dirty: VecDeque<u32>,
    pub(super) pool: Pool,
    /// The logs are not looked at before.
    pub(super) looks_at: Millis,
    /// Bytes that all logs hold.
    pub(super) log_bytes: u64,
    pub(super) options: Vec<SocketOptions>,
    /// Connections whose socket may still have something to read, or whose end has begun.
    pub(super) again: VecDeque<u32>,
    /// Connections that get their next packet in a turn of its own.
    pub(super) paced: VecDeque<u32>,
    /// Not before this time, in microseconds.
    pub(super) paced_at_us: u64,
    pub(super) buffer: Vec<u8>,
    /// Frames for one connection, made in this event and not yet written.
    pub(super) fresh: Vec<u8>,
    /// Whose they are.
    pub(super) fresh_for: u32,
    /// Frames of several rooms of one connection, merged.
    pub(super) merged: Vec<u8>,
    /// Where each of those frames lies.
    pub(super) steps: Vec<Step>,
    /// A session that took over the socket whose bytes are being read.
    pub(super) moved_to: Option<u32>,
    pub(super) due: Vec<u32>,
    /// Places of a cohort that need more than the common send.
    pub(super) apart: Vec<(u32, Apart)>,
    pub(super) drain_until: Millis,
    /// Places of clients, where those are counted, by slot.
    places: HashMap<u32, Arc<Place>>,
    /// The handshakes of open connections, where they were sampled: by slot.
    pub(super) upgrades: HashMap<u32, SpanContext>,
    /// Sampled events that are not written to all members yet.
    pub(super) unwritten: Unwritten,
    actions: Vec<Action>,
    hub: RequestSender,
    /// Requests of this turn, behind those that the hub's queue had no room for and that must not be lost.
    requests: VecDeque<Request>,
    began: Instant,
    now_us: u64,
}

impl Core {
    pub(super) fn new(
        index: u16,
        settings: Settings,
        handle: ShardHandle,
        registry: mio::Registry,
        hub: RequestSender,
    ) -> Self {
        Self {
            slab: Slab::new(index, settings.max_connections),
            wheel: Wheel::new(settings.tick_ms, 0),
            settings,
            handle,
            registry,
            boards: Vec::new(),
            free_boards: Vec::new(),
            rooms: foldhash::HashMap::default(),
            dirty: VecDeque::new(),
            pool: Pool::default(),
            looks_at: 0,
            log_bytes: 0,
            options: Vec::new(),
            again: VecDeque::new(),
            paced: VecDeque::new(),
            paced_at_us: 0,
            buffer: vec![0; READ_BUFFER_BYTES],
            fresh: Vec::new(),
            fresh_for: super::slot::NONE,
            merged: Vec::new(),
            steps: Vec::new(),
            moved_to: None,
            due: Vec::new(),
            apart: Vec::new(),
            drain_until: 0,
            places: HashMap::new(),
            upgrades: HashMap::new(),
            unwritten: Unwritten::default(),
            actions: Vec::new(),
            hub,
            requests: VecDeque::new(),
            began: Instant::now(),
            now_us: 0,
        }
    }

    /// Notes the place of a slot's client.
    pub(super) fn seat(&mut self, index: u32, place: Option<Arc<Place>>) {
        if let Some(place) = place {
            self.places.insert(index, place);
        }
    }

    /// The connection in a slot is gone, and its client's place is free.
    pub(super) fn unseat(&mut self, index: u32) {
        if !self.places.is_empty() {
            self.places.remove(&index);
        }
    }

    /// Reads the clock, once for all that follows.
    pub(super) fn tick(&mut self) -> u64 {
        self.now_us = self.began.elapsed().as_micros() as u64;
        self.now_us
    }

    /// Milliseconds since the shard began, as of the last [`Self::tick`].
    pub(super) fn now(&self) -> Millis {
        self.now_us / 1_000
    }

    /// Microseconds since the shard began, as of the last [`Self::tick`].
    pub(super) fn now_us(&self) -> u64 {
        self.now_us
    }

    /// A moment of the shard's clock.
    pub(super) fn instant(&self, at: Millis) -> Instant {
        self.began + Duration::from_millis(at)
    }

    /// Microseconds of the shard's clock at a moment.
    pub(super) fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.began).as_micros() as u64
    }

    /// Calls into a connection and carries out what it asks for.
    pub(super) fn enter(&mut self, index: u32, call: impl FnOnce(&mut dyn Connection, Millis, &mut Vec<Action>)) {
        let now = self.now();
        let slot = self.slab.at(index);
        if slot.phase != Phase::Open {
            return;
        }
        let Some(mut connection) = slot.connection.take() else { return };
        let mut actions = std::mem::take(&mut self.actions);
        call(&mut *connection, now, &mut actions);
        self.slab.at(index).connection = Some(connection);
        let generation = self.slab.get(index).generation;
        for action in actions.drain(..) {
            let slot = self.slab.get(index);
            if slot.phase != Phase::Open || slot.generation != generation {
                break;
            }
            self.perform(index, action);
        }
        self.actions = actions;
        self.set_timer(index);
    }

    fn perform(&mut self, index: u32, action: Action) {
        match action {
            Action::Send(packet) => self.send(index, packet),
            Action::SendFrames(frames) => self.send_frames(index, &frames),
            Action::Recovered { reply, missed } => self.recovered(index, reply, &missed),
            Action::Ping => self.push_private(index, &frame_header(Opcode::Ping, 0)),
            Action::Request { id, identity, op } => {
                let from = self.slab.key(index);
                let trace = if id == 0 { None } else { self.trace(index, &op) };
                self.request(Request { from, id, identity, op, trace });
            }
            Action::Enter { room, variant } => self.join(index, room, variant),
            Action::Exit(room) => self.leave(index, room),
            Action::Probe { to, secret } => self.probe(index, to, secret),
            Action::Release => self.release(index),
            Action::Upgrade => self.upgrade(index),
            Action::Close(close) => self.close(index, &close),
        }
    }

    /// The span of a request, if it is sampled.
    #[inline]
    fn trace(&self, index: u32, op: &Op) -> Option<Span> {
        let polling = self.slab.get(index).polling.is_some();
        trace::receive(op, polling, || self.upgrades.get(&index).cloned())
    }

    pub(super) fn send(&mut self, index: u32, packet: Packet) {
        if let Some(polling) = &mut self.slab.at(index).polling {
            if let Err(cause) = polling.send(packet) {
                self.close(index, &Close { code: None, reason: "too slow", cause });
            }
            return;
        }
        let (opcode, payload) = match &packet {
            Packet::Text(payload) => (Opcode::Text, payload),
            Packet::Binary(payload) => (Opcode::Binary, payload),
        };
        if self.options_of(index).separate_writes {
            let mut frame = Vec::with_capacity(payload.len() + 10);
            push_frame(&mut frame, opcode, payload);
            self.push_packet(index, &frame);
        } else {
            self.push_private(index, &frame_header(opcode, payload.len()));
            self.push_private(index, payload);
        }
    }

    pub(super) fn options_of(&self, index: u32) -> SocketOptions {
        self.options.get(usize::from(self.slab.get(index).options)).copied().unwrap_or_default()
    }

    /// Notes a wish for the hub. It leaves at the end of the turn.
    pub(super) fn request(&mut self, request: Request) {
        self.requests.push_back(request);
    }

    /// Tells the hub that a connection which is gone is in no room.
    pub(super) fn disown(&mut self, from: ConnKey, room: RoomId) {
        let identity = Identity {
            session: crate::bridge::SessionId([0; 15]),
            user_id: None,
            variant: Variant::Event,
            locale: Locale::default(),
        };
        self.request(Request { from, id: 0, identity: identity.into(), op: Op::Leave { room }, trace: None });
    }

    /// Passes the wishes of this turn to the hub. When its queue is full, what wants an answer is refused,
    /// what must not be lost waits, and the rest is volatile.
    pub(super) fn pass_requests(&mut self) -> Passed {
        if self.requests.is_empty() {
            return Passed::Nothing;
        }
        self.hub.pass(&mut self.requests);
        for _ in 0..self.requests.len() {
            let Some(request) = self.requests.pop_front() else { break };
            if matches!(request.op, Op::Close { .. } | Op::Leave { .. }) {
                self.requests.push_back(request);
            } else if let Some(index) = self.slab.find(request.from).filter(|_| request.id != 0) {
                let reply = Reply::Failed { code: Code::Busy, message: Code::Busy.english().to_owned() };
                self.enter(index, |connection, now, out| connection.on_reply(request.id, reply, now, out));
                self.settle(index);
            }
        }
        if self.requests.is_empty() { Passed::All } else { Passed::Some }
    }

    /// The number of this set of options.
    pub(super) fn intern(&mut self, options: SocketOptions) -> u8 {
        let known = self.options.iter().position(|known| *known == options);
        let place = known.unwrap_or_else(|| {
            self.options.push(options);
            self.options.len() - 1
        });
        u8::try_from(place).unwrap_or(0)
    }

    /// Sets a connection's timer to the first of all that it waits for.
    pub(super) fn set_timer(&mut self, index: u32) {
        let slot = self.slab.get(index);
        let mut first = Millis::MAX;
        if slot.closes_at != 0 {
            first = slot.closes_at;
        }
        if slot.phase == Phase::Open {
            first = first.min(slot.connection.as_ref().and_then(|c| c.deadline()).unwrap_or(Millis::MAX));
            if let Some(since) = slot.parser.incomplete_since() {
                first = first.min(since + Millis::from(self.options_of(index).message_ms));
            }
            if slot.blocked {
                first = first.min(self.stalled_since(index) + self.settings.max_lag_ms);
            }
        }
        if let Some(until) = slot.polling.as_ref().and_then(|polling| polling.deadline()) {
            first = until;
        }
        // What has begun within a millisecond is counted from its start: one more, or it would end early.
        self.wheel.set(index, (first != Millis::MAX).then(|| first + 1));
    }

    /// Serves the timers that are due.
    pub(super) fn expire(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.expire(self.now(), &mut due);
        for index in due.drain(..) {
            self.on_timer(index);
            self.settle(index);
        }
        self.due = due;
    }

    fn on_timer(&mut self, index: u32) {
        let now = self.now();
        let slot = self.slab.get(index);
        match slot.phase {
            Phase::Free => return,
            Phase::Closing | Phase::Finishing | Phase::HalfClosed => return self.free(index),
            Phase::Open => {}
        }
        if slot.closes_at != 0 && slot.closes_at <= now {
            let cause = if self.drain_until == 0 { Cause::Shed } else { Cause::Drain };
            return self.close_unasked(index, cause);
        }
        if slot
            .parser
            .incomplete_since()
            .is_some_and(|since| since + u64::from(self.options_of(index).message_ms) <= now)
        {
            let close = Close { code: Some(1008), reason: "message not complete in time", cause: Cause::Limit };
            return self.close(index, &close);
        }
        if slot.blocked && self.stalled_since(index) + self.settings.max_lag_ms <= now {
            return self.close_unasked(index, Cause::Slow);
        }
        if slot.connection.as_ref().and_then(|c| c.deadline()).is_some_and(|deadline| deadline <= now) {
            self.enter(index, |connection, now, out| connection.on_deadline(now, out));
        } else {
            self.set_timer(index);
        }
    }

    /// Publishes the gauges.
    pub(super) fn publish_gauges(&self) {
        use std::sync::atomic::Ordering::Relaxed;
        let stats = self.handle.stats();
        stats.connections.store(self.slab.len() as u64, Relaxed);
        let (polling, plaza) = self.slab.kinds();
        stats.polling.store(polling as u64, Relaxed);
        stats.plaza.store(plaza as u64, Relaxed);
        stats.rooms.store(self.rooms.len() as u64, Relaxed);
        stats.log_bytes.store(self.log_bytes, Relaxed);
    }

    /// Counts.
    pub(super) fn count_sends(&self, sends: u64, deliveries: u64, bytes: u64) {
        let stats = self.handle.stats();
        add(&stats.sends, sends);
        add(&stats.sent_bytes, bytes);
        add(&stats.deliveries, deliveries);
    }
}
