//! Seeded runs of a sequencer against a model of the log whose feed loses, delays, repeats and
//! reorders, whose reads fail, come late or from a replica that is behind, and whose history is
//! trimmed or replaced. Whatever happens, members see the log: each event once, in order, without gap,
//! or a reset that says where it goes on; and when the faults end they have all of it.

use super::*;
use bytes::Bytes;
use plaza_proto::fanout::{ReadResponse, StoredEvent};
use proptest::prelude::*;
use std::collections::VecDeque;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        n > 0 && self.below(n) == 0
    }
}

/// One in so many; 0 is never.
#[derive(Clone, Debug)]
struct Faults {
    lose: u64,
    repeat: u64,
    reorder: u64,
    read_fails: u64,
    stale: u64,
    replace: u64,
    keep: usize,
}

/// The room's log: events with their sequence and id; other rooms take the sequences between.
struct Log {
    epoch: u8,
    last_seq: u64,
    events: Vec<(u64, MessageId)>,
    ids: u64,
    keep: usize,
}

impl Log {
    fn append(&mut self, random: &mut Random) -> Stored {
        let previous = self.events.last().map_or(0, |event| event.0);
        self.last_seq += 1 + random.below(3);
        self.ids += 1;
        let id = MessageId(u128::from(self.ids).to_be_bytes());
        self.events.push((self.last_seq, id));
        stored(self.last_seq, previous, id)
    }

    fn kept(&self) -> &[(u64, MessageId)] {
        &self.events[self.events.len().saturating_sub(self.keep)..]
    }

    fn read(&self, read: Read, behind: usize) -> ReadResponse {
        let kept = &self.kept()[..self.kept().len().saturating_sub(behind)];
        let last_seq = if behind > 0 { kept.last().map_or(0, |event| event.0) } else { self.last_seq };
        let (events, complete, trimmed): (Vec<_>, _, _) = match read {
            Read::Newest => (kept.last().into_iter().collect(), true, false),
            Read::After { seq, limit, .. } => {
                let after: Vec<_> = kept.iter().filter(|event| event.0 > seq).collect();
                let gone = self.events.len() > self.keep;
                let first_kept = kept.first().map_or(0, |event| event.0);
                let last_gone = gone.then(|| self.events[self.events.len() - self.keep - 1].0);
                let trimmed = last_gone.is_some_and(|last| last > seq) && first_kept > seq;
                let complete = after.len() <= limit as usize;
                (after.into_iter().take(limit as usize).collect(), complete, trimmed)
            }
        };
        let events = events.into_iter().map(|(seq, id)| StoredEvent {
            seq: *seq,
            previous: 0,
            id: id.to_string(),
            time: 0,
            event: Bytes::new(),
        });
        ReadResponse { epoch: vec![self.epoch; 8], events: events.collect(), complete, trimmed, last_seq }
    }
}

fn stored(seq: u64, previous: u64, id: MessageId) -> Stored {
    Stored { seq, previous, id, time: 0, body: Bytes::new(), traceparent: None }
}

struct World {
    random: Random,
    now: Millis,
    log: Log,
    faults: Faults,
    sequencer: Sequencer,
    feed: VecDeque<Stored>,
    pending: Vec<(Millis, u64, Read)>,
    barriers: Vec<u64>,
    actions: Vec<Action>,
    /// What members saw since the last reset; `None`: they hold nothing to be continued.
    seen: Option<u64>,
    resets: usize,
}

impl World {
    fn new(seed: u64, faults: Faults) -> Self {
        let mut actions = Vec::new();
        let sequencer = Sequencer::start(0, &mut actions);
        Self {
            random: Random(seed | 1),
            now: 0,
            log: Log { epoch: 1, last_seq: 0, events: Vec::new(), ids: 0, keep: faults.keep },
            faults,
            sequencer,
            feed: VecDeque::new(),
            pending: Vec::new(),
            barriers: Vec::new(),
            actions,
            seen: None,
            resets: 0,
        }
    }

    fn publish(&mut self) {
        let event = self.log.append(&mut self.random);
        if self.random.one_in(self.faults.lose) {
            return;
        }
        if self.random.one_in(self.faults.repeat) {
            self.feed.push_back(event.clone());
        }
        if self.random.one_in(self.faults.reorder) && !self.feed.is_empty() {
            let at = self.random.below(self.feed.len() as u64) as usize;
            self.feed.insert(at, event);
        } else {
            self.feed.push_back(event);
        }
    }

    /// Another stream, as after a restored or re-created one; members must be told.
    fn replace(&mut self) {
        self.log.epoch += 1;
        self.log.events.clear();
        self.log.last_seq = self.random.below(20);
        self.feed.clear();
    }

    fn step(&mut self) {
        self.now += 1 + self.random.below(40);
        if self.random.one_in(self.faults.replace) {
            self.replace();
        }
        for _ in 0..self.random.below(3) {
            let Some(event) = self.feed.pop_front() else { break };
            self.sequencer.on_event(event, self.now, &mut self.actions);
            self.carry_out();
        }
        for token in std::mem::take(&mut self.barriers) {
            if !self.random.one_in(self.faults.read_fails) {
                self.sequencer.on_barrier(token, self.now, &mut self.actions);
                self.carry_out();
            }
        }
        let (due, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pending).into_iter().partition(|(at, _, _)| *at <= self.now);
        self.pending = rest;
        for (_, ticket, read) in due {
            if self.random.one_in(self.faults.read_fails) {
                self.sequencer.on_read_failed(ticket, true, self.now);
            } else {
                let behind = if self.random.one_in(self.faults.stale) { self.random.below(4) as usize } else { 0 };
                let answer = self.log.read(read, behind);
                self.sequencer.on_read(ticket, &answer, self.now, &mut self.actions);
            }
            self.carry_out();
        }
        if self.random.one_in(10) {
            self.check_tail();
        }
        self.sequencer.on_tick(self.now, &mut self.actions);
        self.carry_out();
    }

    fn check_tail(&mut self) {
        let last = self.log.kept().last().map_or(0, |event| event.0);
        let epoch = Epoch([self.log.epoch; 8]);
        self.sequencer.on_tail(epoch, last, self.log.last_seq, self.now, &mut self.actions);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Deliver(_, event) => self.see(&event),
                Action::Barrier(token) => self.barriers.push(token),
                Action::Read(ticket, read) => {
                    let at = self.now + self.random.below(60);
                    self.pending.push((at, ticket, read));
                }
                Action::Reset { to, .. } => {
                    self.resets += 1;
                    self.seen = Some(to.seq);
                }
                Action::Live => {
                    self.seen.get_or_insert(self.sequencer.position().seq);
                }
            }
        }
    }

    /// Between two resets each event must be the one behind the last in the log.
    fn see(&mut self, event: &Stored) {
        let after = *self.seen.get_or_insert(event.seq - 1);
        assert!(event.seq > after, "{} came after {after}", event.seq);
        // After a replacement events of the old log may still be on their way.
        if self.log.epoch == 1 {
            let next = self.log.events.iter().find(|(seq, _)| *seq > after);
            assert_eq!(next, Some(&(event.seq, event.id)), "a gap after {after}");
        }
        self.seen = Some(event.seq);
    }

    /// Without further faults members must arrive at the end of the log.
    fn heal(&mut self) {
        self.faults =
            Faults { lose: 0, repeat: 0, reorder: 0, read_fails: 0, stale: 0, replace: 0, keep: self.log.keep };
        for _ in 0..2_000 {
            self.step();
        }
        let end = self.log.events.last().map_or(0, |event| event.0);
        assert!(self.sequencer.is_joinable());
        assert!(self.sequencer.position().seq >= end, "{:?} of {end}", self.sequencer);
        assert_eq!(self.sequencer.position().epoch, Epoch([self.log.epoch; 8]));
        assert!(self.sequencer.bytes() <= (64 << 10) + (1 << 20));
    }
}

fn faults(replace: u64) -> impl Strategy<Value = Faults> {
    (0..8_u64, 0..8_u64, 0..8_u64, 0..6_u64, 0..6_u64, 3..60_usize).prop_map(
        move |(lose, repeat, reorder, read_fails, stale, keep)| {
            // One in one would be nothing but faults.
            let rare = |n: u64| if n == 1 { 2 } else { n };
            Faults {
                lose: rare(lose),
                repeat: rare(repeat),
                reorder: rare(reorder),
                read_fails: rare(read_fails),
                stale: rare(stale),
                replace,
                keep,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn data_i01_members_see_every_event_once_in_order_or_a_reset(seed: u64, faults in faults(0)) {
        let mut world = World::new(seed, faults);
        for _ in 0..400 {
            if world.random.one_in(2) {
                world.publish();
            }
            world.step();
        }
        world.heal();
    }

    #[test]
    fn data_i09_a_replaced_log_ends_in_its_own_order(seed: u64, faults in faults(150)) {
        let mut world = World::new(seed, faults);
        for _ in 0..400 {
            if world.random.one_in(2) {
                world.publish();
            }
            world.step();
        }
        let member_since = world.seen.map(|_| world.sequencer.position().epoch);
        world.heal();
        let replaced = member_since.is_some_and(|epoch| epoch != world.sequencer.position().epoch);
        prop_assert!(!replaced || world.resets > 0);
    }
}
