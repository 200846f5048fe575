//! How many connections each client has, and how many it may have.

use super::address::Client;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

/// The places of all clients. A client without connections has no entry, so the table has never more
/// entries than the edge has connections.
#[derive(Debug)]
pub struct Places {
    limit: u32,
    taken: Mutex<HashMap<Client, u32>>,
}

/// One connection's place, free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    client: Client,
}

impl Places {
    /// `limit` connections for each client; `None` for 0, which is no limit.
    pub fn new(limit: u32) -> Option<Arc<Self>> {
        (limit > 0).then(|| Arc::new(Self { limit, taken: Mutex::default() }))
    }

    /// Takes a place; `None`: the client has its limit of connections.
    pub fn take(self: &Arc<Self>, client: Client) -> Option<Arc<Place>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(client).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Arc::new(Place { places: self.clone(), client }))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = taken.entry(self.client) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_its_limit_and_leaves_nothing_behind() {
        assert!(Places::new(0).is_none());
        let places = Places::new(2).expect("a limit");
        let (client, other) = (Client::default(), Client::of([192, 0, 2, 1].into()));
        let mut held = vec![places.take(client).expect("a place"), places.take(client).expect("a place")];
        assert!(places.take(client).is_none());
        assert!(places.take(other).is_some(), "another client has its own");
        held.pop();
        assert!(places.take(client).is_some());
        held.clear();
        assert!(places.taken.lock().expect("whole").is_empty());
    }
}
