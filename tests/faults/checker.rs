//! Reads a history once, from first to last line, and says what of Plaza's promises it breaks.
//!
//! | rule | it fires when |
//! |---|---|
//! | H1 | an acknowledged message is missing at a member that had to see it |
//! | H2 | something was received that nobody sent, or in a room that was not joined |
//! | H3 | something was received that the server had refused for good |
//! | H4 | a message arrived with other content |
//! | H5 | a client saw an event or a message twice, or a message is stored twice |
//! | H6 | two events have one place |
//! | H7 | a member skipped a stored event, or went back |
//! | H8 | two messages of one sender in one room are stored in the other order |
//! | H9 | a message is stored before another that was acknowledged before it was sent |
//! | H10 | `recovered` was said and the range is not complete; or a reset came without need |
//! | H12 | too many sends had no known outcome while nothing was broken |
//!
//! When a run was cut before everybody had everything, what members lack at their ends is no loss, unless they were
//! there for a minute in which it did not come: the verdict says so, and is no pass.
//!
//! A verdict without broken rules is still not a pass when too little happened: see [`Rules`].

use crate::history::{At, Event, Line, Mid, is_not_stored};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What a history must have to prove anything, and what it may have.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    /// At least so many messages acknowledged.
    pub(crate) min_acknowledged: u64,
    /// At least so many events received.
    pub(crate) min_received: u64,
    /// At least so many faults begun, healed and survived.
    pub(crate) min_faults: u64,
    /// At least so many joins that resumed.
    pub(crate) min_recovered: u64,
    /// At least so many sessions of stock clients that went on.
    pub(crate) min_by_pid: u64,
    /// The store really lost something, so resets are right.
    pub(crate) resets_allowed: bool,
}

/// Numbers of a history.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) attempted: u64,
    pub(crate) acknowledged: u64,
    pub(crate) duplicates: u64,
    pub(crate) refused: u64,
    /// Sends that were told to come later.
    pub(crate) busy: u64,
    pub(crate) unknown: u64,
    pub(crate) unknown_in_quiet: u64,
    pub(crate) sent_in_quiet: u64,
    pub(crate) received: u64,
    pub(crate) connections: u64,
    pub(crate) recovered: u64,
    /// Sessions of stock clients that went on by their pid.
    pub(crate) by_pid: u64,
    pub(crate) resets: u64,
    pub(crate) faults: u64,
    /// Longest time from a heal to the next acknowledgement, in milliseconds.
    pub(crate) first_ok_ms: u64,
    /// Longest time from a heal until everybody had everything, in milliseconds.
    pub(crate) caught_up_ms: u64,
}

/// What the checker says.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Numbers.
    pub(crate) counts: Counts,
    /// How often each rule was broken, and its first cases.
    pub(crate) broken: BTreeMap<&'static str, (u64, Vec<String>)>,
    /// Why the history proves nothing.
    pub(crate) vacuous: Vec<String>,
}

impl Verdict {
    /// Nothing is broken, and enough happened.
    pub(crate) fn is_pass(&self) -> bool {
        self.broken.is_empty() && self.vacuous.is_empty()
    }
}

/// Cases that are shown of each rule.
const SHOWN: usize = 8;

/// What was acknowledged so many nanoseconds ago is with every member that was there all the time.
const LATE: u64 = 60_000_000_000;

/// A place that orders epochs by their first appearance.
type Place = (u32, u64);

#[derive(Debug)]
struct Attempt {
    room: u32,
    hash: u64,
    /// The highest acknowledged place of the room when it was first sent.
    floor: Option<Place>,
    place: Option<Place>,
    is_acknowledged: bool,
    /// When that was.
    ok_ns: u64,
    is_refused: bool,
    /// The last attempt was told to come later: it is surely not stored.
    is_busy: bool,
    is_received: bool,
}

#[derive(Debug, Default)]
struct Room {
    /// Every place that is known to be taken, the event's id there, and whose message it is.
    stored: HashMap<Place, (u64, Option<Mid>)>,
    acknowledged: Option<Place>,
}

#[derive(Debug, Default)]
struct Member {
    /// Where the membership began.
    first: Option<Place>,
    last: Option<Place>,
    /// What it received, rising.
    places: Vec<Place>,
    mids: HashSet<Mid>,
    /// Ranges it was told it does not get, and ranges it was told it gets: (after, up to].
    excused: Vec<(Place, Place)>,
    recovered: Vec<(Place, Place)>,
    /// When it last joined.
    joined_ns: u64,
    /// Where it stands by its last join, which may be beyond its last event: an empty room is at the log's end.
    joined: Option<Place>,
    /// It asked to resume, was told no, and has not been told why yet.
    reset_due: bool,
    all: bool,
}

/// Takes the lines of one history.
#[derive(Debug)]
pub(crate) struct Checker {
    rules: Rules,
    epochs: HashMap<u64, u32>,
    attempts: HashMap<Mid, Attempt>,
    rooms: HashMap<u32, Room>,
    members: HashMap<(u32, u32), Member>,
    verdict: Verdict,
    /// Faults that are open, or healed and not yet survived.
    faults: u32,
    healed_ns: Option<u64>,
    first_ok_due: bool,
    /// When and why the run ended before everybody had everything, if it did. What a member lacks at its end may have
    /// been on its way then: it is counted, and neither lost nor a gap, unless it had [`LATE`] to come.
    cut: Option<(u64, String)>,
    /// When each client last lost its connection.
    closed_ns: HashMap<u32, u64>,
    /// Such events, and the memberships that lack them.
    behind: (u64, u64),
}

impl Checker {
    /// A checker of a history that has not begun.
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            epochs: HashMap::new(),
            attempts: HashMap::new(),
            rooms: HashMap::new(),
            members: HashMap::new(),
            verdict: Verdict::default(),
            faults: 0,
            healed_ns: None,
            first_ok_due: false,
            cut: None,
            closed_ns: HashMap::new(),
            behind: (0, 0),
        }
    }

    /// Takes the next line.
    pub(crate) fn take(&mut self, line: &Line) {
        match line.event {
            Event::Conn { recovered, .. } => {
                self.verdict.counts.connections += 1;
                self.verdict.counts.by_pid += u64::from(recovered);
            }
            Event::Close { client, .. } => {
                self.closed_ns.insert(client, line.ns);
            }
            Event::Join { client, room, after, at, recovered, all } => {
                let after = after.map(|at| self.place(at));
                let at = self.place(at);
                self.join(client, room, after, at, recovered, all);
                if let Some(member) = self.members.get_mut(&(client, room)) {
                    member.joined_ns = line.ns;
                }
            }
            Event::Reset { client, room, from, to, ref why } => {
                let from = from.map(|at| self.place(at));
                let to = self.place(to);
                self.reset(client, room, from, to, why);
            }
            Event::SendInvoke { client, room, mid, hash, retry } => self.invoke(client, room, mid, hash, retry),
            Event::SendOk { client, room, mid, at, id, duplicate } => {
                let place = self.place(at);
                self.verdict.counts.duplicates += u64::from(duplicate);
                self.acknowledged(client, room, mid, place, id);
                if let Some(attempt) = self.attempts.get_mut(&mid) {
                    attempt.ok_ns = line.ns;
                }
                if std::mem::take(&mut self.first_ok_due) {
                    let ms = line.ns.saturating_sub(self.healed_ns.unwrap_or(line.ns)) / 1_000_000;
                    self.verdict.counts.first_ok_ms = self.verdict.counts.first_ok_ms.max(ms);
                }
            }
            Event::SendFail { mid, .. } => {
                self.verdict.counts.refused += 1;
                if let Some(attempt) = self.attempts.get_mut(&mid) {
                    attempt.is_refused = true;
                }
            }
            Event::SendInfo { mid, ref code, .. } if is_not_stored(code) => {
                self.verdict.counts.busy += 1;
                if let Some(attempt) = self.attempts.get_mut(&mid) {
                    attempt.is_busy = true;
                }
            }
            Event::SendInfo { .. } => {
                self.verdict.counts.unknown += 1;
                self.verdict.counts.unknown_in_quiet += u64::from(self.faults == 0);
            }
            Event::Recv { client, room, at, previous, id, mid, hash } => {
                let place = self.place(at);
                let previous = previous.map(|at| self.place(at));
                self.receive(client, room, place, previous, id, mid, hash);
            }
            Event::Fault { .. } => self.faults += 1,
            Event::Heal { .. } => {
                self.healed_ns = Some(line.ns);
                self.first_ok_due = true;
            }
            Event::CaughtUp { .. } => {
                self.faults = self.faults.saturating_sub(1);
                self.verdict.counts.faults += 1;
                let ms = line.ns.saturating_sub(self.healed_ns.unwrap_or(line.ns)) / 1_000_000;
                self.verdict.counts.caught_up_ms = self.verdict.counts.caught_up_ms.max(ms);
            }
            Event::Cut { ref why } => self.cut = Some((line.ns, why.clone())),
        }
    }

    fn place(&mut self, at: At) -> Place {
        let next = self.epochs.len() as u32;
        (*self.epochs.entry(at.epoch).or_insert(next), at.seq)
    }

    fn breaks(&mut self, rule: &'static str, case: impl FnOnce() -> String) {
        let (count, cases) = self.verdict.broken.entry(rule).or_default();
        *count += 1;
        if cases.len() < SHOWN {
            cases.push(case());
        }
    }

    fn join(&mut self, client: u32, room: u32, after: Option<Place>, at: Place, recovered: bool, all: bool) {
        let member = self.members.entry((client, room)).or_default();
        member.all = all;
        let Some(after) = after else {
            member.first.get_or_insert(at);
            member.last = Some(at);
            return;
        };
        if recovered {
            self.verdict.counts.recovered += 1;
            member.recovered.push((after, at));
            member.joined = Some(at);
        } else {
            member.reset_due = true;
        }
    }

    fn reset(&mut self, client: u32, room: u32, from: Option<Place>, to: Place, why: &str) {
        self.verdict.counts.resets += 1;
        let Some(member) = self.members.get_mut(&(client, room)) else { return };
        member.reset_due = false;
        let from = from.or(member.last).unwrap_or(to);
        member.excused.push((from, to));
        if from.0 != to.0 {
            // Another log may bring again what the one before had lost.
            member.mids.clear();
        }
        member.last = Some(to);
        if !self.rules.resets_allowed {
            self.breaks("H10 reset without need", || {
                format!("client {client}, room {room}: {why}, from {from:?} to {to:?}")
            });
        }
    }

    fn invoke(&mut self, client: u32, room: u32, mid: Mid, hash: u64, retry: bool) {
        let floor = self.rooms.entry(room).or_default().acknowledged;
        let is_new = !self.attempts.contains_key(&mid);
        if is_new {
            self.verdict.counts.attempted += 1;
            let attempt = Attempt {
                room,
                hash,
                floor,
                place: None,
                is_acknowledged: false,
                ok_ns: 0,
                is_refused: false,
                is_busy: false,
                is_received: false,
            };
            self.attempts.insert(mid, attempt);
        } else if !retry && !self.attempts.get_mut(&mid).is_some_and(|attempt| std::mem::take(&mut attempt.is_busy)) {
            self.breaks("H2 unexpected", || format!("client {client} uses mid {mid:x} twice"));
        }
        self.verdict.counts.sent_in_quiet += u64::from(self.faults == 0);
    }

    fn acknowledged(&mut self, client: u32, room: u32, mid: Mid, place: Place, id: u64) {
        let Some(attempt) = self.attempts.get_mut(&mid) else {
            self.breaks("H2 unexpected", || format!("client {client}: ok of {mid:x}, which nobody sent"));
            return;
        };
        self.verdict.counts.acknowledged += u64::from(!attempt.is_acknowledged);
        attempt.is_acknowledged = true;
        self.stored(room, place, id, Some(mid));
        let acknowledged = &mut self.rooms.entry(room).or_default().acknowledged;
        *acknowledged = (*acknowledged).max(Some(place));
    }

    /// Somebody says what stands at a place.
    fn stored(&mut self, room: u32, place: Place, id: u64, mid: Option<Mid>) {
        let entry = self.rooms.entry(room).or_default().stored.entry(place).or_insert((id, mid));
        let known = *entry;
        if known != (id, mid) {
            self.breaks("H6 two events at one place", || {
                format!("room {room}, {place:?}: {known:x?} and {:x?}", (id, mid))
            });
        }
        let Some((mid, attempt)) = mid.and_then(|mid| Some((mid, self.attempts.get_mut(&mid)?))) else { return };
        match attempt.place {
            None => {
                attempt.place = Some(place);
                if let Some(floor) = attempt.floor.filter(|floor| floor.0 == place.0 && place <= *floor) {
                    self.breaks("H9 real time", || {
                        format!("room {room}: {mid:x} is at {place:?}, sent after {floor:?} was acknowledged")
                    });
                }
            }
            // A log that was rolled back names what it still has anew, and may get again what it lost.
            Some(other) if other.0 != place.0 => attempt.place = Some(place),
            Some(other) if other != place => {
                self.breaks("H5 stored twice", || format!("room {room}: {mid:x} is at {other:?} and at {place:?}"));
            }
            Some(_) => {}
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one line")]
    fn receive(
        &mut self,
        client: u32,
        room: u32,
        place: Place,
        previous: Option<Place>,
        id: u64,
        mid: Option<Mid>,
        hash: u64,
    ) {
        self.verdict.counts.received += 1;
        if let Some(mid) = mid {
            match self.attempts.get_mut(&mid) {
                Some(attempt) if attempt.room == room => {
                    attempt.is_received = true;
                    if attempt.hash != hash {
                        self.breaks("H4 corrupt", || {
                            format!("client {client}, room {room}: {mid:x} has other content")
                        });
                    }
                }
                _ => {
                    self.breaks("H2 unexpected", || format!("client {client}, room {room}: nobody sent {mid:x} there"))
                }
            }
        }
        self.stored(room, place, id, mid);
        let member = self.members.entry((client, room)).or_default();
        let last = member.last;
        let is_second = mid.is_some_and(|mid| !member.mids.insert(mid));
        let reset_due = std::mem::take(&mut member.reset_due);
        let joined = member.joined.take();
        let Some(last) = last else {
            self.breaks("H2 unexpected", || format!("client {client} gets events of room {room} without joining"));
            return;
        };
        if place <= last {
            if member.places.binary_search(&place).is_ok() || is_second {
                self.breaks("H5 seen twice", || {
                    format!("client {client}, room {room}: {place:?} again after {last:?}")
                });
            } else {
                // It is not lost as well.
                let at = member.places.partition_point(|have| *have < place);
                member.places.insert(at, place);
                self.breaks("H7 step back", || format!("client {client}, room {room}: {place:?} after {last:?}"));
            }
            return;
        }
        member.last = Some(place);
        member.places.push(place);
        if is_second {
            self.breaks("H5 seen twice", || format!("client {client}, room {room}: {mid:x?} again at {place:?}"));
        }
        if place.0 != last.0 {
            self.breaks("H10 another log without a reset", || {
                format!("client {client}, room {room}: {place:?} after {last:?}")
            });
        }
        if reset_due {
            self.breaks("H10 no recovery and no reset", || format!("client {client}, room {room}, at {place:?}"));
        }
        // When it was told that it had resumed up to there, what may be missing before shows at the end.
        if let Some(previous) = previous.filter(|previous| *previous != last && Some(*previous) != joined) {
            self.breaks("H7 gap", || {
                format!("client {client}, room {room}: {place:?} follows {previous:?}, the client has {last:?}")
            });
        }
    }

    /// Ends the history and gives the verdict.
    pub(crate) fn finish(mut self) -> Verdict {
        self.check_members();
        self.check_senders();
        let counts = self.verdict.counts;
        if counts.unknown_in_quiet * 20 > counts.sent_in_quiet {
            self.breaks("H12 unknown outcomes in quiet times", || {
                format!("{} of {} sends", counts.unknown_in_quiet, counts.sent_in_quiet)
            });
        }
        if let Some((_, why)) = &self.cut {
            let (events, members) = self.behind;
            self.verdict.vacuous.push(format!(
                "the run was cut ({why}): {members} memberships had not caught up, and the {events} events that they \
                 lack at their ends are not judged"
            ));
        }
        let rules = self.rules;
        for (name, have, need) in [
            ("acknowledged messages", counts.acknowledged, rules.min_acknowledged),
            ("received events", counts.received, rules.min_received),
            ("faults that were healed and survived", counts.faults, rules.min_faults),
            ("resumed joins", counts.recovered, rules.min_recovered),
            ("sessions that stock clients continued by pid", counts.by_pid, rules.min_by_pid),
        ] {
            if have < need {
                self.verdict.vacuous.push(format!("{have} {name}; at least {need} are needed"));
            }
        }
        self.verdict
    }

    /// Each member has every event of its room from its join to the end, but what it was told it does
    /// not get.
    fn check_members(&mut self) {
        let mut rooms: HashMap<u32, Vec<(Place, Option<Mid>)>> = HashMap::new();
        for (number, room) in &self.rooms {
            let mut stored: Vec<_> = room.stored.iter().map(|(place, (_, mid))| (*place, *mid)).collect();
            stored.sort_unstable();
            rooms.insert(*number, stored);
        }
        let mut members: Vec<_> = std::mem::take(&mut self.members).into_iter().collect();
        members.sort_unstable_by_key(|(key, _)| *key);
        for ((client, room), member) in members {
            let Some(first) = member.first else { continue };
            let mut behind = 0;
            let mut received = member.places.iter().peekable();
            for (place, mid) in rooms.get(&room).map_or(&[][..], Vec::as_slice) {
                while received.next_if(|have| *have < place).is_some() {}
                if received.next_if(|have| *have == place).is_some() || *place <= first {
                    continue;
                }
                let within = |ranges: &[(Place, Place)]| ranges.iter().any(|(from, to)| from < place && place <= to);
                if mid.is_none() && !member.all || within(&member.excused) {
                    continue;
                }
                let is_tail = member.last.is_some_and(|last| *place > last);
                let acknowledged = self.rooms.get(&room).and_then(|room| room.acknowledged);
                if mid.is_none() && is_tail && Some(*place) > acknowledged {
                    // What the server says after the last message: the run ended before all had it.
                    continue;
                }
                let attempt = mid.and_then(|mid| self.attempts.get(&mid)).filter(|attempt| attempt.is_acknowledged);
                if let Some((end, _)) = self.cut.as_ref().filter(|_| is_tail) {
                    let joined = Some(member.joined_ns).filter(|joined| Some(joined) >= self.closed_ns.get(&client));
                    let since = joined.zip(attempt).map(|(joined, attempt)| joined.max(attempt.ok_ns));
                    if since.is_none_or(|since| since + LATE > *end) {
                        behind += 1;
                        continue;
                    }
                }
                let where_ = if is_tail { "tail" } else { "middle" };
                let case = || format!("client {client}, room {room}: {place:?} ({mid:x?}) is missing ({where_})");
                self.breaks(if attempt.is_some() { "H1 lost" } else { "H7 gap" }, case);
                if within(&member.recovered) {
                    self.breaks("H10 false recovered", case);
                }
            }
            self.behind = (self.behind.0 + behind, self.behind.1 + u64::from(behind > 0));
        }
    }

    fn check_senders(&mut self) {
        let mut senders: HashMap<(u32, u32), Vec<(Mid, Place)>> = HashMap::new();
        for (mid, attempt) in &self.attempts {
            if let Some(place) = attempt.place {
                senders.entry(((mid >> 32) as u32, attempt.room)).or_default().push((*mid, place));
            }
        }
        for ((sender, room), mut sent) in senders {
            sent.sort_unstable();
            for pair in sent.windows(2) {
                if pair[0].1.0 == pair[1].1.0 && pair[0].1 >= pair[1].1 {
                    self.breaks("H8 order of a sender", || {
                        format!("sender {sender}, room {room}: {:x?} and {:x?}", pair[0], pair[1])
                    });
                }
            }
        }
        let aborted: Vec<Mid> =
            self.attempts.iter().filter(|(_, a)| a.is_refused && a.is_received).map(|(m, _)| *m).collect();
        for mid in aborted {
            self.breaks("H3 aborted read", || format!("{mid:x} was refused, and received"));
        }
    }
}

#[cfg(test)]
mod tests;
