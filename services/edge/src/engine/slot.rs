//! The slab: one small slot a connection, addressed by number and generation.

use super::board::Standing;
use super::outbox::Outbox;
use super::polling::Polling;
use crate::bridge::ConnKey;
use crate::conn::{Connection, Millis};
use crate::wire::websocket::Parser;
use std::net::TcpStream;

/// No slot, no board.
pub(super) const NONE: u32 = u32::MAX;

/// How far a connection's end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nobody is here.
    Free,
    /// It lives.
    Open,
    /// Its close frame is on its way or sent; the client's is due.
    Closing,
    /// Nothing more is read as frames; the rest leaves, and then our half of the socket closes.
    Finishing,
    /// Our half is closed; the client's is due.
    HalfClosed,
}

/// A member's place in one board.
#[derive(Clone, Copy, Debug)]
pub(super) struct Membership {
    /// Which board.
    pub(super) board: u32,
    /// Where on it.
    pub(super) standing: Standing,
    /// Its own cursor, when it has one: always at a frame's border.
    pub(super) cursor: u64,
}

/// What the engine keeps of a connection.
pub(super) struct Slot {
    pub(super) connection: Option<Box<dyn Connection>>,
    pub(super) parser: Parser,
    /// What could not be sent at once.
    pub(super) outbox: Option<Box<Outbox>>,
    /// The transport is long-polling.
    pub(super) polling: Option<Box<Polling>>,
    /// The first room; most connections have no other.
    pub(super) room: Option<Membership>,
    /// Further rooms.
    #[allow(clippy::box_collection, reason = "8 bytes in a slot that nearly never has any, instead of 24")]
    pub(super) rooms: Option<Box<Vec<Membership>>>,
    /// When the shard's drain, its shedding, or the end of the close handshake, closes it. 0: never.
    pub(super) closes_at: Millis,
    pub(super) generation: u32,
    /// The polling session that this WebSocket probes for.
    pub(super) probes: u32,
    /// The second in which control frames were last counted, and how many came in it.
    pub(super) control_second: u32,
    pub(super) control_frames: u16,
    /// Which set of options.
    pub(super) options: u8,
    pub(super) phase: Phase,
    /// The socket took less than it was given; it reports when it has room.
    pub(super) blocked: bool,
    /// It is no Engine.IO session.
    plaza: bool,
}

impl Slot {
    const EMPTY: Self = Self {
        connection: None,
        parser: Parser::NEW,
        outbox: None,
        polling: None,
        room: None,
        rooms: None,
        closes_at: 0,
        generation: 0,
        probes: NONE,
        control_second: 0,
        control_frames: 0,
        options: 0,
        phase: Phase::Free,
        blocked: false,
        plaza: false,
    };

    /// All its rooms.
    pub(super) fn memberships(&self) -> impl Iterator<Item = &Membership> {
        self.room.iter().chain(self.rooms.iter().flat_map(|rooms| rooms.iter()))
    }

    /// All its rooms, to move their cursors.
    pub(super) fn memberships_mut(&mut self) -> impl Iterator<Item = &mut Membership> {
        self.room.iter_mut().chain(self.rooms.iter_mut().flat_map(|rooms| rooms.iter_mut()))
    }

    /// It is in more than one room.
    pub(super) fn is_in_many(&self) -> bool {
        self.rooms.as_ref().is_some_and(|rooms| !rooms.is_empty())
    }

    /// Adds a room.
    pub(super) fn join(&mut self, membership: Membership) {
        match &mut self.room {
            None => self.room = Some(membership),
            Some(_) => self.rooms.get_or_insert_default().push(membership),
        }
    }

    /// Removes a room.
    pub(super) fn part(&mut self, board: u32) -> Option<Membership> {
        if let Some(room) = self.room.filter(|room| room.board == board) {
            self.room = self.rooms.as_mut().and_then(|rooms| rooms.pop());
            return Some(room);
        }
        let rooms = self.rooms.as_mut()?;
        let place = rooms.iter().position(|room| room.board == board)?;
        Some(rooms.swap_remove(place))
    }
}

/// The connections of a shard. Sockets stand apart and dense, since a room's sweep needs nothing else.
pub(super) struct Slab {
    shard: u16,
    pub(super) slots: Vec<Slot>,
    pub(super) sockets: Vec<Option<TcpStream>>,
    free: Vec<u32>,
    max: usize,
    /// Sessions that poll, and connections that are no Engine.IO sessions.
    kinds: (usize, usize),
}

impl Slab {
    pub(super) fn new(shard: u16, max: usize) -> Self {
        Self { shard, slots: Vec::new(), sockets: Vec::new(), free: Vec::new(), max, kinds: (0, 0) }
    }

    /// Takes a slot for a connection, which polls when it has no socket; `None`: the shard is full.
    pub(super) fn insert(&mut self, connection: Box<dyn Connection>, socket: Option<TcpStream>) -> Option<u32> {
        if self.len() >= self.max {
            return None;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::EMPTY);
            self.sockets.push(None);
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.plaza = connection.sid_secret().is_none();
        if socket.is_none() {
            slot.polling = Some(Box::default());
        }
        self.kinds.0 += usize::from(socket.is_none());
        self.kinds.1 += usize::from(slot.plaza);
        slot.connection = Some(connection);
        slot.phase = Phase::Open;
        self.sockets[index as usize] = socket;
        Some(index)
    }

    /// Frees a slot: its socket closes, and its old keys name nobody any more.
    pub(super) fn remove(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        self.kinds.0 -= usize::from(slot.polling.is_some());
        self.kinds.1 -= usize::from(slot.plaza);
        let generation = slot.generation.wrapping_add(1);
        *slot = Slot { generation, ..Slot::EMPTY };
        self.sockets[index as usize] = None;
        self.free.push(index);
    }

    /// A session goes on without polling: what it had for that.
    pub(super) fn end_polling(&mut self, index: u32) -> Option<Box<Polling>> {
        let polling = self.slots[index as usize].polling.take();
        self.kinds.0 -= usize::from(polling.is_some());
        polling
    }

    /// Sessions that poll, and connections that are no Engine.IO sessions.
    pub(super) fn kinds(&self) -> (usize, usize) {
        self.kinds
    }

    /// Connections now.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The name of the connection in this slot.
    pub(super) fn key(&self, index: u32) -> ConnKey {
        ConnKey { shard: self.shard, slot: index, generation: self.slots[index as usize].generation }
    }

    /// The slot that a key names, if its connection is still there.
    pub(super) fn find(&self, key: ConnKey) -> Option<u32> {
        let slot = self.slots.get(key.slot as usize)?;
        let there = key.shard == self.shard && slot.generation == key.generation && slot.phase != Phase::Free;
        there.then_some(key.slot)
    }

    /// The Engine.IO session in this slot, if the secret is its own.
    pub(super) fn find_session(&self, key: ConnKey, secret: [u8; 16]) -> Option<u32> {
        let connection = self.slots.get(key.slot as usize)?.connection.as_ref()?;
        (key.shard == self.shard && connection.sid_secret() == Some(secret)).then_some(key.slot)
    }

    pub(super) fn at(&mut self, index: u32) -> &mut Slot {
        &mut self.slots[index as usize]
    }

    pub(super) fn get(&self, index: u32) -> &Slot {
        &self.slots[index as usize]
    }
}

impl std::fmt::Debug for Slab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slab").field("shard", &self.shard).field("connections", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_takes_at_most_128_bytes() {
        assert!(std::mem::size_of::<Slot>() <= 128, "{}", std::mem::size_of::<Slot>());
        assert_eq!(std::mem::size_of::<Option<TcpStream>>(), 4);
    }
}
