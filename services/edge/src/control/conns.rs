//! Connections as the hub knows them: who they are and where they are members.

use crate::bridge::{ConnKey, Identity, RoomId, SessionId, Variant};
use plaza_proto::ids::RoomName;
use plaza_proto::position::Position;
use std::collections::HashMap;
use std::sync::Arc;

/// Rooms a session can be in.
pub(super) const MAX_ROOMS: usize = 100;

/// One connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) identity: Arc<Identity>,
    /// The user id as events carry it.
    pub(super) user_id: Arc<str>,
    pub(super) username: Option<Arc<str>>,
    /// Rooms it is a member of, and where its replay of each would begin.
    pub(super) rooms: Vec<(RoomId, Position)>,
    /// Rooms it waits to enter.
    pub(super) joining: Vec<RoomName>,
    /// The session service knows the session.
    pub(super) open: bool,
    /// Grows with each recovery; 0: whichever the session service has.
    pub(super) generation: u64,
    /// Key of the recovery record; `None`: the session cannot be continued.
    pub(super) pid: Option<SessionId>,
    /// It continues by its ticket alone: the session service is told when it is back.
    pub(super) untold: bool,
}

impl Conn {
    /// It speaks Socket.IO.
    pub(super) fn is_socket_io(&self) -> bool {
        self.identity.variant.is_socket_io()
    }

    /// It is a member of the room.
    pub(super) fn is_in(&self, id: RoomId) -> bool {
        self.rooms.iter().any(|(room, _)| *room == id)
    }
}

#[derive(Debug)]
struct Place {
    generation: u32,
    conn: Option<Box<Conn>>,
}

/// All connections, by shard and slot.
#[derive(Debug, Default)]
pub(super) struct Conns {
    shards: Vec<Vec<Place>>,
    sessions: HashMap<SessionId, ConnKey>,
    /// How many there are of each variant.
    variants: [u32; Variant::COUNT],
    /// How many there are on each shard.
    counts: Vec<u32>,
}

impl Conns {
    /// Room for `shards` shards.
    pub(super) fn new(shards: usize) -> Self {
        Self {
            shards: std::iter::repeat_with(Vec::new).take(shards).collect(),
            sessions: HashMap::new(),
            variants: [0; Variant::COUNT],
            counts: vec![0; shards],
        }
    }

    /// Adds a connection; `false` when it is known already, or older than the one in its slot.
    pub(super) fn insert(&mut self, key: ConnKey, identity: Arc<Identity>) -> bool {
        let Some(slots) = self.shards.get_mut(usize::from(key.shard)) else { return false };
        let slot = key.slot as usize;
        if slots.len() <= slot {
            slots.resize_with(slot + 1, || Place { generation: 0, conn: None });
        }
        let place = &mut slots[slot];
        if place.conn.is_some() {
            return false;
        }
        let user_id = identity.user_id().into();
        self.sessions.insert(identity.session, key);
        self.variants[identity.variant as usize] += 1;
        self.counts[usize::from(key.shard)] += 1;
        let conn = Conn {
            identity,
            user_id,
            username: None,
            rooms: Vec::new(),
            joining: Vec::new(),
            open: false,
            generation: 0,
            pid: None,
            untold: false,
        };
        *place = Place { generation: key.generation, conn: Some(Box::new(conn)) };
        true
    }

    /// How many there are of each variant.
    pub(super) fn by_variant(&self) -> [u32; Variant::COUNT] {
        self.variants
    }

    /// How many there are on each shard.
    pub(super) fn by_shard(&self) -> &[u32] {
        &self.counts
    }

    pub(super) fn get(&self, key: ConnKey) -> Option<&Conn> {
        let place = self.shards.get(usize::from(key.shard))?.get(key.slot as usize)?;
        if place.generation == key.generation { place.conn.as_deref() } else { None }
    }

    pub(super) fn get_mut(&mut self, key: ConnKey) -> Option<&mut Conn> {
        let place = self.shards.get_mut(usize::from(key.shard))?.get_mut(key.slot as usize)?;
        if place.generation == key.generation { place.conn.as_deref_mut() } else { None }
    }

    pub(super) fn remove(&mut self, key: ConnKey) -> Option<Box<Conn>> {
        let place = self.shards.get_mut(usize::from(key.shard))?.get_mut(key.slot as usize)?;
        if place.generation != key.generation {
            return None;
        }
        let conn = place.conn.take()?;
        self.variants[conn.identity.variant as usize] -= 1;
        self.counts[usize::from(key.shard)] -= 1;
        if self.sessions.get(&conn.identity.session) == Some(&key) {
            self.sessions.remove(&conn.identity.session);
        }
        Some(conn)
    }

    /// Gives a connection another session.
    pub(super) fn assume(&mut self, key: ConnKey, identity: Arc<Identity>) -> Option<&mut Conn> {
        let before = self.get(key)?.identity.session;
        if self.sessions.get(&before) == Some(&key) {
            self.sessions.remove(&before);
        }
        self.sessions.insert(identity.session, key);
        let conn = self.get_mut(key)?;
        conn.user_id = identity.user_id().into();
        conn.identity = identity;
        Some(conn)
    }

    /// The connection that holds a session, by the session's text.
    pub(super) fn of_session(&self, session_id: &str) -> Option<ConnKey> {
        self.sessions.get(&SessionId::parse(session_id)?).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Conn> {
        self.shards.iter_mut().flatten().filter_map(|place| place.conn.as_deref_mut())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Conn> {
        self.shards.iter().flatten().filter_map(|place| place.conn.as_deref())
    }
}
