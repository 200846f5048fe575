//! Who is present in which room, and the events that tell it.

use super::super::{MAX_OUTBOX, Outbox, OutboxEntry, Page, PresenceKind};
use super::state::{State, millis};
use plaza_proto::session::Member;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

/// Users present in a room.
#[derive(Debug, Default)]
pub(super) struct Room(BTreeMap<String, Presence>);

#[derive(Debug)]
struct Presence {
    username: String,
    /// Edge incarnations on which the user is in the room.
    edges: usize,
}

/// Events that wait to be published.
#[derive(Debug, Default)]
pub(super) struct OutboxState {
    pub(super) entries: VecDeque<(u64, OutboxEntry)>,
    last: u64,
    cut: u64,
    reader: Option<(String, u64)>,
}

impl State {
    pub(super) fn set_presence(
        &mut self,
        incarnation: &str,
        room_name: &str,
        user_id: String,
        username: Option<String>,
        now: u64,
    ) {
        let silent = now < self.grace_until && self.edges.get(incarnation).is_some_and(|edge| edge.replaces);
        let Some(edge) = self.edges.get_mut(incarnation) else { return };
        let Some(username) = username else {
            let Some(users) = edge.present.get_mut(room_name) else { return };
            let was_here = users.remove(&user_id);
            if users.is_empty() {
                edge.present.remove(room_name);
            }
            if was_here {
                self.leave_room(room_name, user_id, now);
            }
            return;
        };
        let new_here = edge.present.entry(room_name.to_owned()).or_default().insert(user_id.clone());
        let room = self.rooms.entry(room_name.to_owned()).or_default();
        let (kind, previous) = match room.0.get_mut(&user_id) {
            None => {
                room.0.insert(user_id.clone(), Presence { username: username.clone(), edges: 1 });
                (PresenceKind::Joined, String::new())
            }
            Some(presence) => {
                presence.edges += usize::from(new_here);
                let previous = std::mem::replace(&mut presence.username, username.clone());
                if previous == username {
                    return;
                }
                (PresenceKind::Renamed, previous)
            }
        };
        if !silent {
            self.outbox.push(kind, room_name, user_id, username, previous, now);
        }
    }

    fn leave_room(&mut self, room_name: &str, user_id: String, now: u64) {
        let Some(room) = self.rooms.get_mut(room_name) else { return };
        let Some(presence) = room.0.get_mut(&user_id) else { return };
        presence.edges -= 1;
        if presence.edges > 0 {
            return;
        }
        let username = std::mem::take(&mut presence.username);
        room.0.remove(&user_id);
        if room.0.is_empty() {
            self.rooms.remove(room_name);
        }
        self.outbox.push(PresenceKind::Left, room_name, user_id, username, String::new(), now);
    }

    pub(super) fn members(&self, room: &str, after: &str, limit: usize) -> (Page<Member>, u32) {
        let Some(room) = self.rooms.get(room) else { return (Page { items: Vec::new(), next: None }, 0) };
        let mut found = room.0.range::<str, _>((Bound::Excluded(after), Bound::Unbounded));
        let items: Vec<Member> = found
            .by_ref()
            .take(limit)
            .map(|(user_id, presence)| Member { user_id: user_id.clone(), username: presence.username.clone() })
            .collect();
        let next = found.next().and(items.last()).map(|last| last.user_id.clone());
        (Page { items, next }, u32::try_from(room.0.len()).unwrap_or(u32::MAX))
    }

    pub(super) fn count(&self, room: &str) -> u32 {
        self.rooms.get(room).map_or(0, |room| u32::try_from(room.0.len()).unwrap_or(u32::MAX))
    }

    pub(super) fn outbox(&mut self, replica: &str, limit: usize, hold: Duration, now: u64) -> Outbox {
        let mut answer = Outbox { boot: self.boot.clone(), entries: Vec::new(), cut: self.outbox.cut };
        if self.outbox.reader.as_ref().is_some_and(|(reader, until)| reader != replica && *until > now) {
            return answer;
        }
        self.outbox.reader = Some((replica.to_owned(), now + millis(hold)));
        answer.entries = self
            .outbox
            .entries
            .iter()
            .take(limit)
            .map(|(at, entry)| OutboxEntry { age_ms: now.saturating_sub(*at), ..entry.clone() })
            .collect();
        answer
    }

    pub(super) fn confirm(&mut self, ids: &[String]) {
        self.outbox.entries.retain(|(_, entry)| !ids.contains(&entry.id));
    }
}

impl OutboxState {
    fn push(
        &mut self,
        kind: PresenceKind,
        room: &str,
        user_id: String,
        username: String,
        previous_username: String,
        now: u64,
    ) {
        self.last += 1;
        let id = self.last.to_string();
        let room = room.to_owned();
        self.entries.push_back((now, OutboxEntry { id, kind, room, user_id, username, previous_username, age_ms: 0 }));
        if self.entries.len() > MAX_OUTBOX {
            self.entries.pop_front();
            self.cut += 1;
        }
    }
}
