//! Proofs that the ways are open: beats on the way down, echoes on the way up, tail checks for what
//! was lost in between. And the commands that come down.

use super::hub::{Hub, TAIL_EVERY};
use crate::bridge::{ConnKey, Control, Delivery, Inbound, RoomId, Variant};
use crate::feed::sequencer::{Millis, ResetReason};
use plaza_proto::code::Code;
use plaza_proto::event::Event;
use plaza_proto::event::event::Kind;
use plaza_proto::fanout::command::Command as Order;
use plaza_proto::fanout::publish_item::Target;
use plaza_proto::fanout::{Command, PublishItem, TailsResponse};
use plaza_proto::ids::RoomName;
use plaza_proto::position::Epoch;
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// Without a beat for so long everything is checked.
const BEAT_MISSED: Millis = 3_000;
/// Without a beat for so long the connection is given up.
const BEAT_LOST: Millis = 10_000;
/// Between two echoes.
const ECHO_EVERY: Millis = 3_000;
/// Without an echo for so long the way up is told to be broken.
const ECHO_LOST: Millis = 10_000;
/// An event that was stored so soon after an election may stand behind one that was never distributed.
const ELECTION_DOUBT: Millis = 5_000;
/// Elections that are remembered.
const ELECTIONS: usize = 16;
/// Rooms in one tail check, and checks at once.
const TAILS: (usize, usize) = (100, 4);

/// What is known of the two ways.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The last beat, or the begin.
    beat: Millis,
    beat_seq: u64,
    epoch: Option<Epoch>,
    resynced: bool,
    renewed: Millis,
    echo_sent: Millis,
    /// The last echo that came back, or the begin.
    echo_heard: Millis,
    mute: bool,
    tails_flying: usize,
    degraded: bool,
    /// When leaders of the stream were elected, by their clocks, in milliseconds since 1970.
    elections: VecDeque<u64>,
}

impl Watch {
    pub(super) fn new(now: Millis) -> Self {
        Self { beat: now, renewed: now, ..Self::default() }
    }

    /// Somebody has heard of an election; 0: of none.
    fn elected(&mut self, at: u64) {
        if at != 0 && !self.elections.contains(&at) {
            self.elections.push_back(at);
            if self.elections.len() > ELECTIONS {
                self.elections.pop_front();
            }
        }
    }

    /// Whether an event of this time, by the clock of the leader that stored it, followed an election.
    pub(super) fn is_near_election(&self, time: u64) -> bool {
        self.elections.iter().any(|&at| (at..at + ELECTION_DOUBT).contains(&time))
    }

    pub(super) fn beat_age(&self, now: Millis) -> Millis {
        now - self.beat
    }

    pub(super) fn echo_age(&self, now: Millis) -> Millis {
        now - self.echo_heard
    }
}

impl Hub {
    pub(super) fn on_beat(&mut self, seq: u64, previous: u64, epoch: Epoch, election_time: u64) {
        self.watch.elected(election_time);
        self.offsets.hear(seq);
        let gap = previous > self.watch.beat_seq && self.watch.beat_seq != 0;
        let other = self.watch.epoch.is_some_and(|known| known != epoch);
        if self.watch.epoch.is_none() {
            // The first beat: the way down works.
            self.readiness.set_degraded("feed", None);
        }
        self.watch.beat = self.now;
        self.watch.beat_seq = if other { seq } else { self.watch.beat_seq.max(seq) };
        self.watch.epoch = Some(epoch);
        self.watch.resynced = false;
        if self.watch.degraded {
            self.watch.degraded = false;
            self.readiness.set_degraded("feed", None);
            tracing::info!("events reach this edge again");
        }
        if other && self.is_another(epoch) {
            self.doubt();
        } else if gap {
            self.resync();
        }
        let waiting: Vec<ConnKey> = self.recoveries.keys().copied().collect();
        waiting.into_iter().for_each(|key| self.finish_recovery(key));
    }

    /// Every room may have lost something: the newest event that was delivered vouches for the log, the
    /// tails tell who is behind.
    pub(super) fn resync(&mut self) {
        self.metrics.resyncs.inc();
        let rooms: Vec<RoomId> = self.rooms.iter().map(|room| room.id).collect();
        self.suspect(&rooms);
        let newest = self.rooms.iter().max_by_key(|room| room.sequencer.position().seq).map(|room| room.id);
        if let Some(id) = newest {
            self.with_sequencer(id, |sequencer, now, out| sequencer.verify(now, out));
        }
    }

    /// Whether some room delivers what it hears under another epoch than this one.
    fn is_another(&self, epoch: Epoch) -> bool {
        self.rooms.iter().any(|room| room.sequencer.is_joinable() && room.sequencer.position().epoch != epoch)
    }

    /// The log may be another one. No room delivers anything before one of them has found out.
    pub(super) fn doubt(&mut self) {
        self.metrics.resyncs.inc();
        self.offsets.forget();
        let rooms: Vec<RoomId> = self.rooms.iter().map(|room| room.id).collect();
        self.offsets.doubt(&rooms);
        for id in rooms {
            self.with_sequencer(id, |sequencer, now, out| sequencer.doubt(now, out));
        }
        self.prove();
    }

    /// Of the rooms in doubt the one with the newest event looks: it vouches for all before it.
    fn prove(&mut self) {
        let rooms = self.rooms.iter().filter(|room| room.sequencer.is_doubting());
        let newest = rooms.max_by_key(|room| {
            let at = room.sequencer.position();
            (at.check != 0, at.seq)
        });
        self.prover = newest.map(|room| (room.id, room.born));
        if let Some((id, _)) = self.prover {
            self.with_sequencer(id, |sequencer, now, out| sequencer.verify(now, out));
        }
    }

    /// The room that looks may have found out: then all others know it, too.
    pub(super) fn hear_prover(&mut self, id: RoomId) {
        let Some((_, born)) = self.prover.filter(|(prover, _)| *prover == id) else { return };
        let found = match self.rooms.get(id).filter(|room| room.born == born) {
            Some(room) => room.sequencer.found(),
            None => return self.prove(),
        };
        let Some(found) = found else { return };
        self.prover = None;
        if matches!(found, Err(ResetReason::Unavailable | ResetReason::Trimmed)) {
            // Of this room alone.
            return self.prove();
        }
        let rooms: Vec<RoomId> = self.rooms.iter().map(|room| room.id).collect();
        for id in &rooms {
            self.with_sequencer(*id, |sequencer, now, out| match found {
                Ok(epoch) => sequencer.trust(epoch, now, out),
                Err(reason) => sequencer.distrust(reason, now, out),
            });
        }
        // What was distributed between two connections is lost.
        self.tails_due.extend(rooms);
    }

    /// A room's log is not what it was: the others look, too.
    pub(super) fn doubt_all(&mut self, found: RoomId, epoch: Epoch) {
        if self.is_another(epoch) {
            return self.doubt();
        }
        let rooms: Vec<RoomId> = self.rooms.iter().map(|room| room.id).filter(|id| *id != found).collect();
        self.tails_due.extend(rooms);
    }

    /// Tails of a room that was just joined are checked twice, soon.
    pub(super) fn check_tail_soon(&mut self, id: RoomId) {
        let Some(room) = self.rooms.get(id) else { return };
        for wait in [250, 2_000] {
            self.tail_checks.push(Reverse((self.now + wait, id, room.born)));
        }
    }

    /// What time brings: called about every 25 ms.
    pub(super) fn watch_tick(&mut self) {
        let now = self.now;
        let age = self.watch.beat_age(now);
        if age >= BEAT_MISSED && !self.watch.resynced {
            self.watch.resynced = true;
            self.resync();
        }
        if age >= BEAT_LOST {
            if !self.watch.degraded {
                self.watch.degraded = true;
                self.readiness.set_degraded("feed", Some("no beat of the store has come for 10 s".to_owned()));
                tracing::warn!(age_ms = age, "no beats reach this edge");
            }
            if now >= self.watch.renewed + BEAT_LOST {
                self.watch.renewed = now;
                self.feed.renew();
            }
        }
        if now >= self.watch.echo_sent + ECHO_EVERY && !self.incarnation.is_empty() {
            self.watch.echo_sent = now;
            let event = Event { version: 1, kind: Kind::Notice.into(), client_id: now.to_string(), ..Event::default() };
            let target = Some(Target::Echo(self.incarnation.to_string()));
            self.link.offer(PublishItem { target, event: Some(event), volatile: true, ..PublishItem::default() }, now);
        }
        if self.watch.echo_age(now) >= ECHO_LOST && !self.watch.mute {
            self.watch.mute = true;
            self.readiness.set_degraded("publish", Some("no echo has come back for 10 s".to_owned()));
            tracing::warn!("what this edge publishes does not come back");
        }
        self.sweep_tails();
        while let Some(&Reverse((at, id, born))) = self.tail_checks.peek()
            && at <= now
        {
            self.tail_checks.pop();
            if self.rooms.get(id).is_some_and(|room| room.born == born) {
                self.tails_due.insert(id);
            }
        }
        while self.watch.tails_flying < TAILS.1 && !self.tails_due.is_empty() {
            let batch: Vec<RoomId> = self.tails_due.iter().take(TAILS.0).copied().collect();
            let mut names = Vec::with_capacity(batch.len());
            for id in batch {
                self.tails_due.remove(&id);
                names.extend(self.rooms.get(id).map(|room| room.name.as_str().to_owned()));
            }
            if !names.is_empty() {
                self.watch.tails_flying += 1;
                self.reader.tails(names, self.offsets.doubts());
            }
        }
    }

    /// Once a minute every room is checked, spread evenly: a share of them at each tick.
    fn sweep_tails(&mut self) {
        let count = self.rooms.places();
        if count == 0 {
            return;
        }
        let due = ((self.now - self.swept_at) * count as Millis / TAIL_EVERY) as usize;
        if due == 0 {
            return;
        }
        self.swept_at = self.now;
        for _ in 0..due.min(count) {
            self.sweep_next = (self.sweep_next + 1) % count;
            let id = RoomId(self.sweep_next as u32);
            if self.rooms.get(id).is_some() {
                self.tails_due.insert(id);
            }
        }
    }

    pub(super) fn on_tails(&mut self, doubts: u64, result: Result<TailsResponse, Code>) {
        self.watch.tails_flying = self.watch.tails_flying.saturating_sub(1);
        let Ok(answer) = result else { return };
        let Ok(epoch) = answer.epoch.as_slice().try_into().map(Epoch) else { return };
        for tail in &answer.tails {
            let Some(id) = RoomName::parse(&tail.room).ok().and_then(|name| self.rooms.named(&name)) else { continue };
            let (last, stream) = (tail.last_seq, answer.last_seq);
            self.offsets.prove(id, doubts, stream);
            self.with_sequencer(id, |sequencer, now, out| sequencer.on_tail(epoch, last, stream, now, out));
        }
    }

    pub(super) fn on_command(&mut self, command: Command) {
        match command.command {
            Some(Order::Close(close)) => {
                let held = self.conns.of_session(&close.session_id).and_then(|to| Some((to, self.conns.get(to)?)));
                match held {
                    // Of an earlier generation: the session has come back here meanwhile.
                    Some((_, conn)) if close.generation != 0 && conn.generation > close.generation => {}
                    Some((to, _)) if close.replaced => self.replace(to),
                    Some((to, conn)) => {
                        let (session, reason) = (conn.identity.session, close.reason.into());
                        let control = Control::Close { to, session, reason };
                        self.outlets[usize::from(to.shard)].send(Inbound::Control(control));
                    }
                    // Its result may be behind this command: it comes again with the next heartbeat.
                    None if self.is_resuming() => return,
                    None => {}
                }
                self.session.confirm(command.id);
            }
            Some(Order::Renamed(renamed)) => {
                if let Some(to) = self.conns.of_session(&renamed.session_id) {
                    let username: Arc<str> = renamed.username.into();
                    self.rename(to, &username);
                    self.outlets[usize::from(to.shard)].send(Inbound::Control(Control::Renamed { to, username }));
                }
                self.session.confirm(command.id);
            }
            Some(Order::Resync(resync)) => {
                self.watch.elected(resync.election_time);
                self.resync();
            }
            Some(Order::Echo(_)) => {
                self.watch.echo_heard = self.now;
                if std::mem::take(&mut self.watch.mute) {
                    self.readiness.set_degraded("publish", None);
                    tracing::info!("what this edge publishes comes back again");
                }
            }
            None => {}
        }
    }

    /// An event that is not stored: somebody types.
    pub(super) fn on_volatile(&mut self, name: &RoomName, body: &bytes::Bytes) {
        let Ok(event) = <Event as prost::Message>::decode(body.clone()) else { return };
        let Some(room) = self.rooms.named(name).and_then(|id| self.rooms.get(id)) else { return };
        if event.kind() != Kind::Typing || room.members == 0 {
            return;
        }
        let skip = self.sender_of(&event.client_id);
        let frames = super::encode::frames(&room.variants, |variant: Variant| {
            crate::wire::encode_typing(variant, &room.name, &event.username)
        });
        let delivery = Arc::new(Delivery {
            room: room.id,
            seq: 0,
            skip,
            frames,
            received: Instant::now(),
            age_us: 0,
            trace: None,
        });
        for (shard, outlet) in room.shards.iter().zip(&self.outlets) {
            if shard.members > 0 && shard.behind.is_none() {
                // Volatile: a shard without room skips it.
                let _full = outlet.try_deliver(delivery.clone());
            }
        }
    }

    /// Names a connection of this edge to itself, inside a volatile event.
    pub(super) fn sender_text(&self, key: ConnKey) -> String {
        format!("{:016x}.{}.{}.{}", self.nonce, key.shard, key.slot, key.generation)
    }

    fn sender_of(&self, text: &str) -> Option<ConnKey> {
        let mut parts = text.split('.');
        if u64::from_str_radix(parts.next()?, 16).ok()? != self.nonce {
            return None;
        }
        let (shard, slot, generation) = (parts.next()?, parts.next()?, parts.next()?);
        Some(ConnKey { shard: shard.parse().ok()?, slot: slot.parse().ok()?, generation: generation.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_seconds_after_an_election_are_doubtful() {
        let mut watch = Watch::new(0);
        watch.elected(0);
        assert!(!watch.is_near_election(0) && !watch.is_near_election(4_000), "none was heard of");
        watch.elected(100_000);
        watch.elected(100_000);
        let doubtful = [99_999, 100_000, 104_999, 105_000].map(|time| watch.is_near_election(time));
        assert_eq!(doubtful, [false, true, true, false]);
        (1..=20).for_each(|n| watch.elected(n * 1_000_000));
        assert_eq!(watch.elections.len(), ELECTIONS);
        assert!(watch.is_near_election(20_000_000) && !watch.is_near_election(100_000));
    }
}
