//! Where the swarm stands, for those who wait for it: atomics that clients set and the nemesis reads.

use crate::absence::Absence;
use crate::history::At;
use crate::latency::Latency;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// The shared board of one swarm.
#[derive(Debug)]
pub(crate) struct Board {
    /// Clients that are in all their rooms.
    online: Vec<AtomicBool>,
    /// The edge that each client uses.
    edge: Vec<AtomicU64>,
    /// How many connections of each client have ended.
    ended: Vec<AtomicU64>,
    /// The highest sequence that each client has, by client and place of the room among its rooms.
    seen: Vec<Vec<(u32, AtomicU64)>>,
    /// The highest acknowledged sequence of each room.
    acknowledged_seq: Vec<AtomicU64>,
    /// Messages without an outcome yet.
    pub(crate) pending: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) unknown: AtomicU64,
    /// No new messages from now on.
    pub(crate) is_quiet: AtomicBool,
    /// Messages as fast as they are taken, whatever the plan says.
    pub(crate) is_storm: AtomicBool,
    /// How often all clients were told to connect anew.
    pub(crate) scattered: AtomicU64,
    /// Every fifth client of the swarm's own reads nothing, or nearly nothing.
    pub(crate) is_deaf: AtomicBool,
    /// How long clients are away.
    pub(crate) absence: Absence,
    /// How long messages take between clients that always read.
    pub(crate) latency: Latency,
    /// The same of messages between two such clients of the edge that nobody who may be deaf uses: what the machine
    /// itself does to messages, in the same moments.
    pub(crate) apart: Latency,
    /// Epochs in the order in which they appeared.
    epochs: Mutex<Vec<u64>>,
}

/// Whether a client is among those who read nothing, or only now and then, when the board says so.
pub(crate) fn may_be_deaf(client: u32) -> bool {
    client.is_multiple_of(5)
}

impl Board {
    /// A board for clients with these rooms.
    pub(crate) fn new(rooms: usize, of_clients: &[Vec<u32>]) -> Self {
        Self {
            online: of_clients.iter().map(|_| AtomicBool::new(false)).collect(),
            edge: of_clients.iter().map(|_| AtomicU64::new(0)).collect(),
            ended: of_clients.iter().map(|_| AtomicU64::new(0)).collect(),
            seen: of_clients
                .iter()
                .map(|rooms| rooms.iter().map(|room| (*room, AtomicU64::new(0))).collect())
                .collect(),
            acknowledged_seq: (0..rooms).map(|_| AtomicU64::new(0)).collect(),
            pending: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            received: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            is_quiet: AtomicBool::new(false),
            is_storm: AtomicBool::new(false),
            scattered: AtomicU64::new(0),
            is_deaf: AtomicBool::new(false),
            absence: Absence::default(),
            latency: Latency::new(),
            apart: Latency::new(),
            epochs: Mutex::default(),
        }
    }

    pub(crate) fn set_online(&self, client: u32, online: bool, edge: u32) {
        self.online[client as usize].store(online, Relaxed);
        self.edge[client as usize].store(u64::from(edge), Relaxed);
        self.ended[client as usize].fetch_add(u64::from(!online), Relaxed);
    }

    /// Whether a client is on this edge now.
    pub(crate) fn is_on(&self, client: u32, edge: u32) -> bool {
        self.edge.get(client as usize).is_some_and(|on| on.load(Relaxed) == u64::from(edge))
    }

    /// Clients that are connected through this edge now, and how often each had been before.
    pub(crate) fn on_edge(&self, edge: usize) -> Vec<(usize, u64)> {
        let here =
            |client: &usize| self.online[*client].load(Relaxed) && self.edge[*client].load(Relaxed) == edge as u64;
        (0..self.online.len()).filter(here).map(|client| (client, self.ended[client].load(Relaxed))).collect()
    }

    /// Whether all these connections have ended, wherever their clients are by now.
    pub(crate) fn have_ended(&self, connections: &[(usize, u64)]) -> bool {
        connections.iter().all(|(client, before)| self.ended[*client].load(Relaxed) > *before)
    }

    pub(crate) fn see(&self, client: u32, index: usize, at: At) {
        self.seen[client as usize][index].1.fetch_max(self.place(at), Relaxed);
    }

    pub(crate) fn acknowledge(&self, room: u32, at: At) {
        self.acknowledged.fetch_add(1, Relaxed);
        self.acknowledged_seq[room as usize].fetch_max(self.place(at), Relaxed);
    }

    /// A number that orders places, later epochs behind earlier ones.
    fn place(&self, at: At) -> u64 {
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        let number = epochs.iter().position(|epoch| *epoch == at.epoch).unwrap_or_else(|| {
            epochs.push(at.epoch);
            epochs.len() - 1
        });
        (number as u64) << 48 | at.seq
    }

    /// How many logs there have been.
    pub(crate) fn epochs(&self) -> usize {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Clients that are in all their rooms.
    pub(crate) fn online(&self) -> usize {
        self.online.iter().filter(|online| online.load(Relaxed)).count()
    }

    /// Clients in all.
    pub(crate) fn clients(&self) -> usize {
        self.online.len()
    }

    /// Whether nobody is connected through this edge.
    pub(crate) fn has_left(&self, edge: usize) -> bool {
        let here = |client: usize| self.online[client].load(Relaxed) && self.edge[client].load(Relaxed) == edge as u64;
        !(0..self.online.len()).any(here)
    }

    /// The highest acknowledged sequence of each room.
    pub(crate) fn acknowledged_seqs(&self) -> Vec<u64> {
        self.acknowledged_seq.iter().map(|seq| seq.load(Relaxed)).collect()
    }

    /// Members that do not have these sequences of their rooms yet.
    pub(crate) fn behind(&self, seqs: &[u64]) -> usize {
        self.behind_of(seqs, |_| true)
    }

    /// The same of some clients.
    pub(crate) fn behind_of(&self, seqs: &[u64], whom: impl Fn(u32) -> bool) -> usize {
        let clients = (0..).zip(&self.seen).filter(|(client, _)| whom(*client));
        let rooms = clients.flat_map(|(_, rooms)| rooms);
        rooms.filter(|(room, seen)| seen.load(Relaxed) < seqs[*room as usize]).count()
    }
}
