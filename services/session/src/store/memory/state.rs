//! The state: leases, keys and commands. No clock, no I/O: `now` is milliseconds and is passed in.

use super::super::{
    Applied, COMMANDS_PER_HEARTBEAT, ForEdge, Lease, MAX_COMMANDS, Op, Outcome, Pulse, Reaped, Refusal, Registration,
    ResumeKey, StoreError, StoreOptions, Totals,
};
use super::presence::{OutboxState, Room};
use super::sessions::Record;
use plaza_proto::code::Code;
use plaza_proto::fanout::Command;
use plaza_proto::fanout::command::Command as Body;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Sessions and presences that one step of the reaper clears at most.
const REAP_STEP: usize = 500;

#[derive(Debug)]
pub(super) struct State {
    pub(super) options: StoreOptions,
    pub(super) boot: String,
    pub(super) edges: HashMap<String, Edge>,
    pub(super) keys: BTreeMap<u64, [u8; 32]>,
    pub(super) keys_made_at: u64,
    pub(super) last_command: u64,
    pub(super) sessions: BTreeMap<String, Record>,
    pub(super) pids: HashMap<String, String>,
    pub(super) unique: HashMap<String, String>,
    pub(super) rooms: HashMap<String, Room>,
    pub(super) outbox: OutboxState,
    /// Until then, after a loss of the data, only edges that re-register may claim names and joins
    /// are silent.
    pub(super) grace_until: u64,
    pub(super) begun_at: Option<u64>,
}

/// An edge incarnation.
#[derive(Debug)]
pub(super) struct Edge {
    pub(super) deadline: u64,
    /// Another incarnation has taken over: only the reaper may touch what is left.
    pub(super) replaced: bool,
    /// It came after another incarnation of the same process.
    pub(super) replaces: bool,
    number: u32,
    advertise_addr: String,
    counter: u64,
    connections: Option<u32>,
    commands: BTreeMap<u64, Command>,
    pub(super) sessions: BTreeSet<String>,
    /// Users present, by room.
    pub(super) present: BTreeMap<String, BTreeSet<String>>,
}

impl State {
    pub(super) fn new(options: StoreOptions) -> Self {
        Self {
            options,
            boot: crate::random::boot(),
            edges: HashMap::new(),
            keys: BTreeMap::new(),
            keys_made_at: 0,
            last_command: 0,
            sessions: BTreeMap::new(),
            pids: HashMap::new(),
            unique: HashMap::new(),
            rooms: HashMap::new(),
            outbox: OutboxState::default(),
            grace_until: 0,
            begun_at: None,
        }
    }

    pub(super) fn register(&mut self, registration: Registration, now: u64) -> Result<Lease, StoreError> {
        if self.edges.contains_key(&registration.incarnation) && !self.lives(&registration.incarnation, now) {
            return Err(StoreError::LeaseLost(registration.incarnation));
        }
        let begun_at = *self.begun_at.get_or_insert(now);
        let grace = millis(self.options.name_grace);
        if !registration.replaces.is_empty()
            && !self.edges.contains_key(&registration.replaces)
            && now < begun_at + grace
        {
            self.grace_until = begun_at + grace;
        }
        let deadline = now + millis(self.options.lease);
        let mut number = registration.edge_number;
        if let Some(before) = self.edges.get_mut(&registration.replaces) {
            if registration.replaces != registration.incarnation {
                before.replaced = true;
                before.deadline = deadline;
            }
            number = before.number;
        }
        if let Some(same) = self.edges.get(&registration.incarnation) {
            number = same.number;
        }
        let taken = |number: u32| {
            self.edges.iter().any(|(name, edge)| {
                edge.number == number && *name != registration.incarnation && *name != registration.replaces
            })
        };
        while number == 0 || taken(number) {
            number = crate::random::edge_number();
        }
        self.assert_keys(&registration.resume_keys, now);
        let edge = self.edges.entry(registration.incarnation).or_insert_with(|| Edge {
            deadline,
            replaced: false,
            replaces: !registration.replaces.is_empty(),
            number,
            advertise_addr: String::new(),
            counter: 0,
            connections: None,
            commands: BTreeMap::new(),
            sessions: BTreeSet::new(),
            present: BTreeMap::new(),
        });
        edge.deadline = deadline;
        edge.advertise_addr = registration.advertise_addr;
        Ok(Lease { edge_number: number, resume_keys: self.newest_keys(), boot: self.boot.clone() })
    }

    /// Takes over the keys that an edge knows, makes a new one when there is none or the newest is
    /// old, and keeps two.
    fn assert_keys(&mut self, known: &[ResumeKey], now: u64) {
        for known in known {
            self.keys.entry(known.generation).or_insert(known.key);
            self.keys_made_at = self.keys_made_at.max(1);
        }
        self.rotate_keys(now);
    }

    fn rotate_keys(&mut self, now: u64) {
        if !self.keys.is_empty() && self.keys_made_at <= 1 {
            self.keys_made_at = now;
        }
        if self.keys.is_empty() || now >= self.keys_made_at + millis(self.options.key_rotation) {
            let newest = self.keys.last_key_value().map_or(0, |(generation, _)| *generation);
            self.keys.insert(newest + 1, crate::random::key());
            self.keys_made_at = now;
        }
        while self.keys.len() > 2 {
            self.keys.pop_first();
        }
    }

    fn newest_keys(&self) -> Vec<ResumeKey> {
        self.keys.iter().rev().map(|(generation, key)| ResumeKey { generation: *generation, key: *key }).collect()
    }

    /// Whether the incarnation may act.
    pub(super) fn lives(&self, incarnation: &str, now: u64) -> bool {
        self.edges.get(incarnation).is_some_and(|edge| !edge.replaced && edge.deadline > now)
    }

    /// Whether what the incarnation holds still counts: also while its successor re-registers.
    pub(super) fn holds(&self, incarnation: &str, now: u64) -> bool {
        self.edges.get(incarnation).is_some_and(|edge| edge.deadline > now)
    }

    pub(super) fn heartbeat(
        &mut self,
        incarnation: &str,
        counter: u64,
        connections: Option<u32>,
        done: &[String],
        now: u64,
    ) -> Result<Pulse, StoreError> {
        if !self.lives(incarnation, now) {
            return Err(StoreError::LeaseLost(incarnation.to_owned()));
        }
        self.rotate_keys(now);
        let deadline = now + millis(self.options.lease);
        let edge = self.edges.get_mut(incarnation).ok_or_else(|| StoreError::LeaseLost(incarnation.to_owned()))?;
        edge.deadline = deadline;
        edge.connections = connections;
        let before = std::mem::replace(&mut edge.counter, counter);
        edge.commands.retain(|_, command| !done.contains(&command.id));
        let commands = edge.commands.values().take(COMMANDS_PER_HEARTBEAT).cloned().collect();
        let living = self.edges.values().filter(|edge| !edge.replaced && edge.deadline > now);
        let counted: Vec<u64> = living.filter_map(|edge| edge.connections).map(u64::from).collect();
        let mean = counted.iter().sum::<u64>() / counted.len().max(1) as u64;
        Ok(Pulse {
            commands,
            mean_connections: u32::try_from(mean).unwrap_or(u32::MAX),
            counted_edges: u32::try_from(counted.len()).unwrap_or(u32::MAX),
            counter: before,
            boot: self.boot.clone(),
            resume_keys: self.newest_keys(),
        })
    }

    pub(super) fn find_edge(&self, number: u32, now: u64) -> Result<String, StoreError> {
        self.edges
            .values()
            .find(|edge| edge.number == number && !edge.replaced && edge.deadline > now)
            .map(|edge| edge.advertise_addr.clone())
            .ok_or(StoreError::NotFound("edge"))
    }

    pub(super) fn apply(&mut self, incarnation: &str, ops: Vec<Op>, now: u64) -> Result<Applied, StoreError> {
        if !self.lives(incarnation, now) {
            return Err(StoreError::LeaseLost(incarnation.to_owned()));
        }
        let mut applied = Applied::default();
        for op in ops {
            let outcome = self.apply_one(incarnation, op, now, &mut applied.commands);
            applied.outcomes.push(outcome.unwrap_or_else(Outcome::Refused));
        }
        Ok(applied)
    }

    fn apply_one(&mut self, edge: &str, op: Op, now: u64, commands: &mut Vec<ForEdge>) -> Result<Outcome, Refusal> {
        match op {
            Op::Open(opening) => self.open(edge, opening, now),
            Op::Recover { by, user_id } => self.recover(edge, &by, &user_id, now, commands),
            Op::Join { session_id, room, position } => self.join(edge, &session_id, room.as_str(), position),
            Op::Leave { session_id, room } => self.leave(edge, &session_id, room.as_str()),
            Op::Rename { session_id, name } => self.rename(edge, &session_id, name, now),
            Op::Close { by, generation, recoverable_ms } => {
                let Some(session_id) = self.session_of(&by) else { return Ok(Outcome::Done) };
                Ok(self.end(edge, &session_id, generation, recoverable_ms, now))
            }
            Op::SetPresence { room, user_id, username } => {
                self.set_presence(edge, room.as_str(), user_id, username, now);
                Ok(Outcome::Done)
            }
        }
    }

    /// Keeps a command until the edge confirms it; `None` when the edge does not live.
    pub(super) fn command(&mut self, incarnation: &str, body: Body, now: u64) -> Result<Option<ForEdge>, StoreError> {
        if !self.lives(incarnation, now) {
            return Ok(None);
        }
        let Some(edge) = self.edges.get_mut(incarnation) else { return Ok(None) };
        if edge.commands.len() >= MAX_COMMANDS {
            return Err(StoreError::Refused(Refusal::new(Code::Busy, "1000 commands wait for this edge already")));
        }
        self.last_command += 1;
        let command = Command { id: format!("{}-{}", self.boot, self.last_command), command: Some(body) };
        edge.commands.insert(self.last_command, command.clone());
        Ok(Some(ForEdge { edge: incarnation.to_owned(), command }))
    }

    pub(super) fn reap(&mut self, now: u64) -> Reaped {
        let mut reaped = Reaped::default();
        let due: Vec<String> = self
            .sessions
            .iter()
            .filter(|(_, record)| record.expires_at.is_some_and(|at| at <= now))
            .map(|(id, _)| id.clone())
            .take(REAP_STEP)
            .collect();
        reaped.more = due.len() == REAP_STEP;
        for id in due {
            self.forget(&id);
        }
        let dead = self.edges.iter().find(|(_, edge)| edge.deadline <= now).map(|(name, _)| name.clone());
        let Some(dead) = dead else { return reaped };
        let sessions: Vec<String> =
            self.edges.get(&dead).map(|e| e.sessions.iter().take(REAP_STEP).cloned().collect()).unwrap_or_default();
        let window = u32::try_from(millis(self.options.recovery_window)).unwrap_or(u32::MAX);
        for id in &sessions {
            self.end(&dead, id, 0, window, now);
        }
        let present: Vec<(String, String)> = self
            .edges
            .get(&dead)
            .map(|edge| {
                let pairs = edge.present.iter().flat_map(|(room, users)| users.iter().map(move |user| (room, user)));
                pairs.take(REAP_STEP).map(|(room, user)| (room.clone(), user.clone())).collect()
            })
            .unwrap_or_default();
        for (room, user) in &present {
            self.set_presence(&dead, room, user.clone(), None, now);
        }
        reaped.sessions = sessions.len() as u64;
        reaped.presences = present.len() as u64;
        reaped.more = true;
        if self.edges.get(&dead).is_some_and(|edge| edge.sessions.is_empty() && edge.present.is_empty()) {
            self.edges.remove(&dead);
            reaped.edges = 1;
        }
        reaped
    }

    pub(super) fn totals(&self, now: u64) -> Totals {
        Totals {
            sessions: self.sessions.len() as u64,
            leases: self.edges.values().filter(|edge| !edge.replaced && edge.deadline > now).count() as u64,
            outbox: self.outbox.entries.len() as u64,
        }
    }
}

pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4)
}
