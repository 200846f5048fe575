//! What the session service gave this edge with its lease, for all who need it.

use crate::conn::EdgeNumber;
use std::sync::Arc;
use tokio::sync::watch;

/// A key that edges share. It signs what one of them tells another; never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedKey {
    /// Grows with each new key.
    pub generation: u64,
    /// 32 bytes.
    pub secret: Arc<[u8]>,
}

/// Without the secret.
impl std::fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedKey({})", self.generation)
    }
}

/// The edge's number and the keys that are valid now. Clones are the same registration.
#[derive(Clone, Debug)]
pub struct Registration {
    number: EdgeNumber,
    keys: Arc<watch::Sender<Arc<[SharedKey]>>>,
}

impl Default for Registration {
    fn default() -> Self {
        Self { number: EdgeNumber::default(), keys: Arc::new(watch::Sender::new([].into())) }
    }
}

impl Registration {
    /// The number, for the settings of connections.
    pub fn number(&self) -> EdgeNumber {
        self.number.clone()
    }

    /// The keys, newest first; none before the first lease.
    pub fn keys(&self) -> Arc<[SharedKey]> {
        self.keys.borrow().clone()
    }

    /// Waits for the first lease.
    pub async fn begun(&self) {
        // The sender lives as long as this: the wait does not fail.
        let mut keys = self.keys.subscribe();
        let _keys = keys.wait_for(|keys| !keys.is_empty()).await;
    }

    /// A lease begins, or its keys have changed.
    pub fn set(&self, number: u32, keys: Vec<SharedKey>) {
        self.number.set(number);
        self.keys.send_if_modified(|known| {
            let changed = **known != *keys;
            *known = keys.into();
            changed
        });
    }
}
