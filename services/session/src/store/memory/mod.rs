//! The store of one process: a state behind a short lock, and the clock that it is told.

mod presence;
mod sessions;
mod state;

use super::{
    Applied, Filter, ForEdge, Lease, Name, Op, Outbox, Page, Pulse, Reaped, Registration, SessionStore, StoreError,
    StoreOptions, Totals,
};
use plaza_proto::ids::RoomName;
use plaza_proto::session::{Member, Session};
use state::State;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Everything in this process: gone when it ends.
#[derive(Debug)]
pub struct MemoryStore {
    state: Mutex<State>,
    begun: Instant,
    begun_at_ms: u64,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(options: StoreOptions) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            state: Mutex::new(State::new(options)),
            begun: Instant::now(),
            begun_at_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(0),
        }
    }

    /// Runs one call at the time it is now: milliseconds since 1970, and never backwards.
    fn with<R>(&self, call: impl FnOnce(&mut State, u64) -> R) -> R {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX / 2);
        call(&mut state, self.begun_at_ms + passed)
    }
}

#[tonic::async_trait]
impl SessionStore for MemoryStore {
    async fn register(&self, registration: Registration) -> Result<Lease, StoreError> {
        self.with(|state, now| state.register(registration, now))
    }

    async fn apply(&self, incarnation: &str, ops: Vec<Op>) -> Result<Applied, StoreError> {
        self.with(|state, now| state.apply(incarnation, ops, now))
    }

    async fn heartbeat(
        &self,
        incarnation: &str,
        counter: u64,
        connections: Option<u32>,
        done: Vec<String>,
    ) -> Result<Pulse, StoreError> {
        self.with(|state, now| state.heartbeat(incarnation, counter, connections, &done, now))
    }

    async fn find_edge(&self, edge_number: u32) -> Result<String, StoreError> {
        self.with(|state, now| state.find_edge(edge_number, now))
    }

    async fn get(&self, session_id: &str) -> Result<Session, StoreError> {
        self.with(|state, now| state.get(session_id, now))
    }

    async fn list(&self, filter: Filter, after: &str, limit: usize) -> Result<Page<Session>, StoreError> {
        Ok(self.with(|state, _| state.list(&filter, after, limit)))
    }

    async fn members(&self, room: &RoomName, after: &str, limit: usize) -> Result<(Page<Member>, u32), StoreError> {
        Ok(self.with(|state, _| state.members(room.as_str(), after, limit)))
    }

    async fn count(&self, room: &RoomName) -> Result<u32, StoreError> {
        Ok(self.with(|state, _| state.count(room.as_str())))
    }

    async fn set_username(&self, session_id: &str, name: Name) -> Result<(Session, Option<ForEdge>), StoreError> {
        self.with(|state, now| state.set_username(session_id, name, now))
    }

    async fn close(&self, session_id: &str, reason: &str) -> Result<Option<ForEdge>, StoreError> {
        self.with(|state, now| state.close_from_outside(session_id, reason, now))
    }

    async fn outbox(&self, replica: &str, limit: usize, hold: Duration) -> Result<Outbox, StoreError> {
        Ok(self.with(|state, now| state.outbox(replica, limit, hold, now)))
    }

    async fn confirm(&self, ids: Vec<String>) -> Result<(), StoreError> {
        self.with(|state, _| state.confirm(&ids));
        Ok(())
    }

    async fn reap(&self) -> Result<Reaped, StoreError> {
        Ok(self.with(|state, now| state.reap(now)))
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        Ok(self.with(|state, now| state.totals(now)))
    }
}
