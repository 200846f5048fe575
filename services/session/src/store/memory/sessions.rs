//! Sessions: open, recover, rename, end.

use super::super::{
    Filter, ForEdge, MAX_LEFT, MAX_ROOMS, Name, Opening, Outcome, Page, RecoverBy, Refusal, StoreError,
};
use super::state::State;
use plaza_proto::code::Code;
use plaza_proto::fanout::command::Command as Body;
use plaza_proto::fanout::{CloseSession, Renamed};
use plaza_proto::session::Session;
use std::ops::Bound;

/// A session and its recovery record.
#[derive(Debug)]
pub(super) struct Record {
    session: Session,
    canonical: String,
    unique: Option<String>,
    pid: Option<String>,
    /// Rooms and the position of each join, by name. Most have one, and a tree would take 500 bytes for it.
    rooms: Vec<(String, String)>,
    /// Rooms that were left, the newest first.
    left: Vec<String>,
    /// When the recovery window ends; `None` while an edge holds it.
    pub(super) expires_at: Option<u64>,
}

impl Record {
    /// Where the room stands among those joined, or would.
    fn find_room(&self, room: &str) -> Result<usize, usize> {
        self.rooms.binary_search_by(|(joined, _)| joined.as_str().cmp(room))
    }

    fn shown(&self) -> Session {
        Session { rooms: self.rooms.iter().map(|(room, _)| room.clone()).collect(), ..self.session.clone() }
    }
}

fn gone() -> Refusal {
    Refusal::new(Code::NotFound, "there is no such session on this edge")
}

impl State {
    pub(super) fn open(&mut self, edge: &str, opening: Opening, now: u64) -> Result<Outcome, Refusal> {
        let Opening { session_id: id, user_id, protocol, pid, name } = opening;
        if let Some(record) = self.sessions.get(&id) {
            let held = &record.session.edge;
            let expired = record.expires_at.is_some_and(|at| at <= now);
            if record.session.user_id != user_id {
                return Err(Refusal::new(Code::Forbidden, "the session belongs to another user"));
            }
            if held != edge && self.lives(held, now) {
                return Err(Refusal::new(Code::NotFound, "the session lives on another edge by now"));
            }
            if expired {
                self.forget(&id);
            }
        }
        if let Some(name) = &name {
            self.claim(edge, &id, name, true, now)?;
        }
        let record = self.sessions.entry(id.clone()).or_insert_with(|| Record {
            session: Session {
                session_id: id.clone(),
                user_id,
                generation: 1,
                created_at: now,
                protocol,
                ..Session::default()
            },
            canonical: String::new(),
            unique: None,
            pid: None,
            rooms: Vec::new(),
            left: Vec::new(),
            expires_at: None,
        });
        if let Some(pid) = pid {
            if let Some(old) = record.pid.replace(pid.clone()).filter(|old| *old != pid) {
                self.pids.remove(&old);
            }
            self.pids.insert(pid, id.clone());
        }
        self.hold(&id, edge);
        if let Some(name) = name {
            self.set_name(&id, name);
        }
        self.sessions.get(&id).map(|record| Outcome::Session(record.shown())).ok_or_else(gone)
    }

    /// The session that is meant, if its key is known.
    pub(super) fn session_of(&self, by: &RecoverBy) -> Option<String> {
        match by {
            RecoverBy::Pid(pid) => self.pids.get(pid).cloned(),
            RecoverBy::Session(id) => Some(id.clone()),
        }
    }

    pub(super) fn recover(
        &mut self,
        edge: &str,
        by: &RecoverBy,
        user_id: &str,
        now: u64,
        commands: &mut Vec<ForEdge>,
    ) -> Result<Outcome, Refusal> {
        let id = self.session_of(by);
        let not_found = || Refusal::new(Code::NotFound, "there is nothing to recover");
        let id = id.ok_or_else(not_found)?;
        let record = self.sessions.get_mut(&id).ok_or_else(not_found)?;
        let own = super::super::is_own(&record.session.user_id, &id);
        let is_user = if user_id.is_empty() { own } else { record.session.user_id == user_id };
        if !is_user || record.pid.is_none() || record.expires_at.is_some_and(|at| at <= now) {
            return Err(not_found());
        }
        let before = record.session.generation;
        record.session.generation += 1;
        let held = record.session.edge.clone();
        if held != edge {
            let close =
                CloseSession { session_id: id.clone(), generation: before, replaced: true, ..Default::default() };
            if let Ok(Some(command)) = self.command(&held, Body::Close(close), now) {
                commands.push(command);
            }
        }
        self.hold(&id, edge);
        self.reclaim(edge, &id, now);
        let record = self.sessions.get(&id).ok_or_else(not_found)?;
        let left = record.left.iter().map(|room| (room.clone(), String::new()));
        Ok(Outcome::Recovered(record.shown(), record.rooms.iter().cloned().chain(left).collect()))
    }

    /// After a recovery the name is the session's again, unless somebody has claimed it meanwhile.
    fn reclaim(&mut self, edge: &str, id: &str, now: u64) {
        let Some(record) = self.sessions.get(id) else { return };
        if record.unique.is_none() {
            return;
        }
        let name = Name {
            display: record.session.username.clone(),
            canonical: record.canonical.clone(),
            unique: record.unique.clone(),
        };
        if self.claim(edge, id, &name, true, now).is_err()
            && let Some(record) = self.sessions.get_mut(id)
        {
            record.session.username.clear();
            record.canonical.clear();
            record.unique = None;
        }
    }

    pub(super) fn join(&mut self, edge: &str, id: &str, room: &str, position: String) -> Result<Outcome, Refusal> {
        let record = self.held(edge, id)?;
        match record.find_room(room) {
            Ok(place) => record.rooms[place].1 = position,
            Err(_) if record.rooms.len() >= MAX_ROOMS => {
                return Err(Refusal::new(Code::TooManyRooms, "the session is in 100 rooms; at most 100 are allowed"));
            }
            Err(place) => {
                record.rooms.reserve_exact(1);
                record.rooms.insert(place, (room.to_owned(), position));
            }
        }
        record.left.retain(|left| left != room);
        Ok(Outcome::Done)
    }

    pub(super) fn leave(&mut self, edge: &str, id: &str, room: &str) -> Result<Outcome, Refusal> {
        let record = self.held(edge, id)?;
        if let Ok(place) = record.find_room(room) {
            record.rooms.remove(place);
            record.left.insert(0, room.to_owned());
            record.left.truncate(MAX_LEFT);
        }
        Ok(Outcome::Done)
    }

    pub(super) fn rename(&mut self, edge: &str, id: &str, name: Name, now: u64) -> Result<Outcome, Refusal> {
        self.held(edge, id)?;
        self.claim(edge, id, &name, false, now)?;
        self.set_name(id, name);
        Ok(Outcome::Session(self.held(edge, id)?.shown()))
    }

    /// Ends the session on this edge: it is forgotten, or recoverable for a while.
    pub(super) fn end(&mut self, edge: &str, id: &str, generation: u64, recoverable_ms: u32, now: u64) -> Outcome {
        let Ok(record) = self.held(edge, id) else {
            if let Some(edge) = self.edges.get_mut(edge) {
                edge.sessions.remove(id);
            }
            return Outcome::Done;
        };
        if generation != 0 && generation != record.session.generation {
            return Outcome::Done;
        }
        if recoverable_ms == 0 || record.pid.is_none() {
            self.forget(id);
            return Outcome::Done;
        }
        record.session.edge.clear();
        record.expires_at = Some(now + u64::from(recoverable_ms));
        let unique = record.unique.clone();
        if let Some(edge) = self.edges.get_mut(edge) {
            edge.sessions.remove(id);
        }
        self.release(id, unique.as_deref());
        Outcome::Done
    }

    /// Removes every trace of a session but its presence, which its edge counts.
    pub(super) fn forget(&mut self, id: &str) {
        let Some(record) = self.sessions.remove(id) else { return };
        if let Some(edge) = self.edges.get_mut(&record.session.edge) {
            edge.sessions.remove(id);
        }
        if let Some(pid) = &record.pid {
            self.pids.remove(pid);
        }
        self.release(id, record.unique.as_deref());
    }

    fn hold(&mut self, id: &str, edge: &str) {
        let Some(record) = self.sessions.get_mut(id) else { return };
        record.expires_at = None;
        let before = std::mem::replace(&mut record.session.edge, edge.to_owned());
        if let Some(before) = self.edges.get_mut(&before) {
            before.sessions.remove(id);
        }
        if let Some(edge) = self.edges.get_mut(edge) {
            edge.sessions.insert(id.to_owned());
        }
    }

    fn held(&mut self, edge: &str, id: &str) -> Result<&mut Record, Refusal> {
        self.sessions.get_mut(id).filter(|record| record.session.edge == edge).ok_or_else(gone)
    }

    /// Makes the session the holder of a unique name; `re_assert` is allowed during the grace.
    fn claim(&mut self, edge: &str, id: &str, name: &Name, re_assert: bool, now: u64) -> Result<(), Refusal> {
        let Some(unique) = &name.unique else { return Ok(()) };
        let holder = self.unique.get(unique).filter(|holder| *holder != id);
        let held = holder
            .and_then(|holder| self.sessions.get(holder))
            .is_some_and(|record| record.unique.as_ref() == Some(unique) && self.holds(&record.session.edge, now));
        if held {
            return Err(Refusal::new(Code::UsernameTaken, "somebody has this name, or one that looks like it"));
        }
        let own = self.unique.get(unique).is_some_and(|holder| holder == id);
        let returning = re_assert && self.edges.get(edge).is_some_and(|edge| edge.replaces);
        if now < self.grace_until && !own && !returning {
            return Err(Refusal::new(Code::Busy, "names are being restored; try again in a few seconds"));
        }
        self.unique.insert(unique.clone(), id.to_owned());
        Ok(())
    }

    fn release(&mut self, id: &str, unique: Option<&str>) {
        if let Some(unique) = unique
            && self.unique.get(unique).is_some_and(|holder| holder == id)
        {
            self.unique.remove(unique);
        }
    }

    fn set_name(&mut self, id: &str, name: Name) {
        let Some(record) = self.sessions.get_mut(id) else { return };
        let before = std::mem::replace(&mut record.unique, name.unique.clone());
        record.session.username = name.display;
        record.canonical = name.canonical;
        if before != name.unique {
            self.release(id, before.as_deref());
        }
    }

    pub(super) fn get(&self, id: &str, now: u64) -> Result<Session, StoreError> {
        let record = self.sessions.get(id).filter(|record| record.expires_at.is_none_or(|at| at > now));
        record.map(Record::shown).ok_or(StoreError::NotFound("session"))
    }

    pub(super) fn list(&self, filter: &Filter, after: &str, limit: usize) -> Page<Session> {
        let from = (Bound::Excluded(after), Bound::Unbounded);
        let mut found = self.sessions.range::<str, _>(from).filter(|(_, record)| {
            (filter.canonical.is_empty() || record.canonical == filter.canonical)
                && (filter.edge.is_empty() || record.session.edge == filter.edge)
        });
        let items: Vec<Session> = found.by_ref().take(limit).map(|(_, record)| record.shown()).collect();
        let next = found.next().and(items.last()).map(|last| last.session_id.clone());
        Page { items, next }
    }

    pub(super) fn set_username(
        &mut self,
        id: &str,
        name: Name,
        now: u64,
    ) -> Result<(Session, Option<ForEdge>), StoreError> {
        let edge = self.get(id, now)?.edge;
        self.claim(&edge, id, &name, false, now).map_err(StoreError::Refused)?;
        let renamed = Renamed { session_id: id.to_owned(), username: name.display.clone() };
        let command = self.command(&edge, Body::Renamed(renamed), now)?;
        self.set_name(id, name);
        Ok((self.get(id, now)?, command))
    }

    pub(super) fn close_from_outside(
        &mut self,
        id: &str,
        reason: &str,
        now: u64,
    ) -> Result<Option<ForEdge>, StoreError> {
        let session = self.get(id, now)?;
        let close = CloseSession {
            session_id: id.to_owned(),
            generation: session.generation,
            reason: reason.to_owned(),
            replaced: false,
        };
        let command = self.command(&session.edge, Body::Close(close), now)?;
        if command.is_none() {
            self.forget(id);
        } else if let Some(pid) = self.sessions.get_mut(id).and_then(|record| record.pid.take()) {
            self.pids.remove(&pid);
        }
        Ok(command)
    }
}
