//! A room of this edge: its order, its members by shard and variant, its users.

use super::joins::Joining;
use crate::bridge::{ConnKey, RoomId, Variant};
use crate::feed::sequencer::{Action, Millis, Sequencer};
use plaza_proto::ids::RoomName;
use plaza_proto::position::Position;
use std::collections::HashMap;
use std::sync::Arc;

/// A room's place on one shard.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OnShard {
    /// Connections there.
    pub(super) members: u32,
    /// The shard's inbox was full: it has everything up to here, and the rest is offered again.
    pub(super) behind: Option<Position>,
    /// The shard has been told of the room.
    pub(super) known: bool,
}

/// A user in the room on this edge.
#[derive(Debug, Default)]
pub(super) struct User {
    /// Named connections.
    pub(super) connections: u32,
    /// The name of the connection that came, or was renamed, last.
    pub(super) username: Arc<str>,
    /// The name under which the session service was told; `None`: absent.
    pub(super) told: Option<Arc<str>>,
}

/// One room.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) id: RoomId,
    pub(super) name: RoomName,
    /// Tells this room from an earlier one of the same number.
    pub(super) born: u64,
    pub(super) sequencer: Sequencer,
    /// The position that members were shown last: `previous` of the next event.
    pub(super) shown: Position,
    pub(super) shards: Vec<OnShard>,
    pub(super) variants: [u32; Variant::COUNT],
    pub(super) members: u32,
    pub(super) joining: Vec<Joining>,
    pub(super) users: HashMap<Arc<str>, User>,
    /// Users with a named connection here.
    pub(super) here: u32,
    /// Users present on all edges, as last told by the session service.
    pub(super) counted: u32,
    /// When the sequencer is woken.
    pub(super) wake: Option<Millis>,
    /// When the last member, or the last that waited to be one, went.
    pub(super) empty_at: Millis,
    /// Last use, for the ring budget.
    pub(super) used: Millis,
    /// Ring and early buffer as counted in the budget.
    pub(super) bytes: usize,
}

impl Room {
    pub(super) fn new(
        id: RoomId,
        name: RoomName,
        born: u64,
        shards: usize,
        now: Millis,
        out: &mut Vec<Action>,
    ) -> Self {
        Self {
            id,
            name,
            born,
            sequencer: Sequencer::start(now, out),
            shown: Position { epoch: plaza_proto::position::Epoch::default(), seq: 0, check: 0 },
            shards: vec![OnShard::default(); shards],
            variants: [0; Variant::COUNT],
            members: 0,
            joining: Vec::new(),
            users: HashMap::new(),
            here: 0,
            counted: 0,
            wake: None,
            empty_at: now,
            used: now,
            bytes: 0,
        }
    }

    /// What members were shown since this position is still known.
    pub(super) fn goes_on_from(&self, at: Position) -> bool {
        at.epoch == self.shown.epoch && (at.seq == self.shown.seq || self.sequencer.since(at.seq).is_some())
    }

    pub(super) fn enter(&mut self, key: ConnKey, variant: Variant) {
        let shard = &mut self.shards[usize::from(key.shard)];
        shard.members += 1;
        shard.known = true;
        self.variants[variant as usize] += 1;
        self.members += 1;
    }

    pub(super) fn exit(&mut self, key: ConnKey, variant: Variant) {
        let shard = &mut self.shards[usize::from(key.shard)];
        shard.members -= 1;
        if shard.members == 0 {
            shard.behind = None;
        }
        self.variants[variant as usize] -= 1;
        self.members -= 1;
    }

    /// Users present, as far as this edge knows.
    pub(super) fn present(&self) -> u32 {
        self.counted.max(self.here)
    }
}

/// All rooms of this edge, by number and by name.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    places: Vec<Option<Box<Room>>>,
    free: Vec<u32>,
    names: foldhash::HashMap<RoomName, RoomId>,
    born: u64,
}

impl Rooms {
    pub(super) fn get(&self, id: RoomId) -> Option<&Room> {
        self.places.get(id.0 as usize)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, id: RoomId) -> Option<&mut Room> {
        self.places.get_mut(id.0 as usize)?.as_deref_mut()
    }

    pub(super) fn named(&self, name: &RoomName) -> Option<RoomId> {
        self.names.get(name).copied()
    }

    /// Adds a room; what its sequencer asks for first is appended to `out`.
    pub(super) fn add(&mut self, name: &RoomName, shards: usize, now: Millis, out: &mut Vec<Action>) -> RoomId {
        let id = RoomId(self.free.pop().unwrap_or(self.places.len() as u32));
        self.born += 1;
        let room = Box::new(Room::new(id, name.clone(), self.born, shards, now, out));
        match self.places.get_mut(id.0 as usize) {
            Some(place) => *place = Some(room),
            None => self.places.push(Some(room)),
        }
        self.names.insert(name.clone(), id);
        id
    }

    /// Removes a room; its number may be used again.
    pub(super) fn remove(&mut self, id: RoomId) -> Option<Box<Room>> {
        let room = self.places.get_mut(id.0 as usize)?.take()?;
        self.names.remove(&room.name);
        self.free.push(id.0);
        Some(room)
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Numbers in use, gaps included.
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Room> {
        self.places.iter().filter_map(Option::as_deref)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Room> {
        self.places.iter_mut().filter_map(Option::as_deref_mut)
    }
}
