//! Which ids a room has: for retries so late that the store has forgotten them. The store finds a room's
//! events by going through all that lies between them, so a room is gone through once, and from then on
//! only what came since. Without that a thousand retries after an outage would keep the store from
//! everything else.

use super::Shared;
use crate::log::LogError;
use plaza_proto::ids::{MessageId, RoomName};
use plaza_proto::position::Epoch;
use plaza_proto::time::parse_utc;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Rooms that are gone through at a time.
const SCANS: usize = 4;
/// Ids that are remembered in all rooms together, about 16 MB; beyond, the rooms asked for longest ago go.
const IDS: usize = 256 * 1024;

/// What a search for an id in a room brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Where it stands.
    pub(super) seq: Option<u64>,
    /// Nothing of the room can have been removed.
    whole: bool,
    /// Time of the oldest event that was looked at.
    oldest: Option<u64>,
}

impl Found {
    /// Whether every event of the room of the last `horizon` was looked at.
    pub(super) fn reaches_back(&self, now: u64, horizon: Duration) -> bool {
        let horizon = u64::try_from(horizon.as_millis()).unwrap_or(u64::MAX);
        self.whole || self.oldest.is_some_and(|time| time.saturating_add(horizon) <= now)
    }
}

/// Rooms that were looked through.
#[derive(Debug)]
pub(super) struct LookBack {
    rooms: Mutex<HashMap<RoomName, Arc<Room>>>,
    scans: Semaphore,
}

#[derive(Debug)]
struct Room {
    /// Who goes through the room now.
    turn: Semaphore,
    seen: Mutex<Seen>,
}

/// What is known of a room: every event from the oldest one to `to`.
#[derive(Debug, Default)]
struct Seen {
    epoch: Epoch,
    to: u64,
    ids: HashMap<MessageId, u64>,
    /// Ids and times, the oldest first.
    order: VecDeque<(MessageId, u64)>,
    /// When the last look began.
    begun: Option<Instant>,
    /// When somebody asked last.
    used: Option<Instant>,
}

impl Seen {
    /// Adds what stands behind `to`: sequence, id and time. `per_room`: what the store keeps of a room.
    fn add(&mut self, events: Vec<(u64, MessageId, u64)>, per_room: usize) {
        if events.len() >= per_room {
            // Others may have come and gone since the last look.
            self.ids.clear();
            self.order.clear();
        }
        for (seq, id, time) in events {
            self.ids.insert(id, seq);
            self.order.push_back((id, time));
            self.to = seq;
        }
        // The store has no more of them itself.
        while self.order.len() > per_room.saturating_mul(2) {
            if let Some((id, _)) = self.order.pop_front() {
                self.ids.remove(&id);
            }
        }
    }

    /// What it counts for: its ids, and one for itself.
    fn size(&self) -> usize {
        self.ids.len() + 1
    }

    fn oldest(&self) -> Option<u64> {
        self.order.front().map(|(_, time)| *time)
    }
}

impl LookBack {
    pub(super) fn new() -> Self {
        Self { rooms: Mutex::default(), scans: Semaphore::new(SCANS) }
    }

    fn room(&self, name: &RoomName) -> Arc<Room> {
        let mut rooms = lock(&self.rooms);
        let room = rooms
            .entry(name.clone())
            .or_insert_with(|| Arc::new(Room { turn: Semaphore::new(1), seen: Mutex::default() }));
        Arc::clone(room)
    }

    /// Forgets the rooms asked for longest ago, while too much is remembered.
    fn evict(&self) {
        let mut rooms = lock(&self.rooms);
        let mut total: usize = rooms.values().map(|room| lock(&room.seen).size()).sum();
        if total <= IDS {
            return;
        }
        let mut ages: Vec<_> = rooms
            .iter()
            .map(|(name, room)| {
                let seen = lock(&room.seen);
                (seen.used, name.clone(), seen.size())
            })
            .collect();
        ages.sort_unstable_by_key(|(used, ..)| *used);
        for (_, name, size) in ages {
            if total <= IDS / 10 * 9 {
                return;
            }
            rooms.remove(&name);
            total -= size;
        }
    }
}

impl Shared {
    /// Looks for an id among a room's events.
    pub(super) async fn find(&self, name: &RoomName, id: MessageId) -> Result<Found, LogError> {
        let asked = Instant::now();
        let room = self.lookback.room(name);
        let ended = |_| LogError::Unavailable("the search has ended");
        let _turn = room.turn.acquire().await.map_err(ended)?;
        let serving = self.serving()?;
        let is_fresh = {
            let mut seen = lock(&room.seen);
            if seen.epoch != serving.epoch {
                *seen = Seen { epoch: serving.epoch, ..Seen::default() };
            }
            seen.used = Some(asked);
            // Somebody else has looked since this was asked.
            seen.begun.is_some_and(|begun| begun >= asked) || seen.ids.contains_key(&id)
        };
        if !is_fresh {
            let _scan = self.lookback.scans.acquire().await.map_err(ended)?;
            let (begun, from) = (Instant::now(), lock(&room.seen).to + 1);
            let mut events = Vec::new();
            self.scan(name, from, |event| {
                events.push((event.seq, event.id, event.time));
                true
            })
            .await?;
            self.still(serving)?;
            let per_room = usize::try_from(self.state().limits.per_room).unwrap_or(usize::MAX);
            let mut seen = lock(&room.seen);
            seen.add(events, per_room);
            seen.begun = Some(begun);
            drop(seen);
            self.lookback.evict();
        }
        let (seq, count, oldest) = {
            let seen = lock(&room.seen);
            (seen.ids.get(&id).copied(), seen.order.len() as u64, seen.oldest())
        };
        if seq.is_some() {
            return Ok(Found { seq, whole: false, oldest });
        }
        let info = self.stream_info().await?;
        let limits = self.state().limits;
        let never_full = info.state.bytes < super::read::nearly(limits.bytes);
        // An event that age has removed is older than any horizon of a retry.
        let whole = count < limits.per_room && never_full;
        Ok(Found { seq: None, whole, oldest: oldest.or_else(|| parse_utc(&info.state.first_ts)) })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(from: u64, count: u64) -> Vec<(u64, MessageId, u64)> {
        (from..from + count).map(|seq| (seq, MessageId(u128::from(seq).to_be_bytes()), 1_000 * seq)).collect()
    }

    #[test]
    fn what_comes_later_is_added_to_what_was_seen() {
        let mut seen = Seen::default();
        seen.add(events(1, 5), 10);
        seen.add(events(6, 2), 10);
        assert_eq!((seen.to, seen.ids.len(), seen.oldest()), (7, 7, Some(1_000)));
    }

    #[test]
    fn a_hole_between_two_looks_begins_anew() {
        let mut seen = Seen::default();
        seen.add(events(1, 5), 10);
        // As many as the store keeps: others may have come and gone before them.
        seen.add(events(30, 10), 10);
        assert_eq!((seen.to, seen.ids.len(), seen.oldest()), (39, 10, Some(30_000)));
        let found = Found { seq: None, whole: false, oldest: seen.oldest() };
        assert!(!found.reaches_back(39_000, Duration::from_secs(10)));
        assert!(found.reaches_back(40_000, Duration::from_secs(10)));
    }

    #[test]
    fn a_busy_room_keeps_what_the_store_may_have_and_no_more_than_twice_that() {
        let mut seen = Seen::default();
        for n in 0..100 {
            seen.add(events(1 + 9 * n, 9), 10);
            assert!(seen.ids.len() <= 20 && seen.ids.len() == seen.order.len());
            assert!(n == 0 || seen.ids.len() >= 10);
        }
    }
}
