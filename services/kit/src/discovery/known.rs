//! What is known of the endpoints, by each source, and all together.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::MOST_ENDPOINTS;
use super::target::Host;

/// How long one look-up may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);

/// The union of what all sources know. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Known {
    sources: Arc<Mutex<Vec<BTreeSet<SocketAddr>>>>,
    sender: watch::Sender<BTreeSet<SocketAddr>>,
}

/// One source's share of it.
#[derive(Debug)]
pub(super) struct Source {
    known: Known,
    index: usize,
    /// For logs.
    name: String,
}

impl Known {
    /// What is known from the start and stays, and the union as it changes.
    pub(super) fn new(fixed: BTreeSet<SocketAddr>) -> (Self, watch::Receiver<BTreeSet<SocketAddr>>) {
        let (sender, receiver) = watch::channel(fixed.clone());
        (Self { sources: Arc::new(Mutex::new(vec![fixed])), sender }, receiver)
    }

    pub(super) fn source(&self, name: String) -> Source {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.push(BTreeSet::new());
        Source { known: self.clone(), index: sources.len() - 1, name }
    }
}

impl Source {
    /// What this source knows from now on, in place of what it knew.
    pub(super) fn set(&self, addresses: BTreeSet<SocketAddr>) {
        let mut sources = self.known.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources[self.index] = addresses;
        let all: BTreeSet<_> = sources.iter().flatten().copied().collect();
        let all: BTreeSet<_> = all.into_iter().take(MOST_ENDPOINTS).collect();
        self.known.sender.send_if_modified(|known| {
            if *known == all {
                return false;
            }
            let (before, now) = (known.len(), all.len());
            tracing::info!(source = self.name, before, now, addresses = ?all, "endpoints changed");
            *known = all;
            true
        });
    }

    /// Whether it knows nothing yet.
    pub(super) fn is_empty(&self) -> bool {
        self.known.sources.lock().unwrap_or_else(PoisonError::into_inner)[self.index].is_empty()
    }

    /// Waits until nobody listens any more.
    pub(super) async fn unused(&self) {
        self.known.sender.closed().await;
    }
}

/// Every address of every name; an error when one of them has none, as a partial set would drop
/// endpoints that live.
pub(super) async fn resolve(hosts: &[Host]) -> Result<BTreeSet<SocketAddr>, String> {
    let mut found = BTreeSet::new();
    for host in hosts {
        let lookup = tokio::net::lookup_host((host.host.as_str(), host.port));
        let answer = tokio::time::timeout(RESOLVE_TIMEOUT, lookup).await;
        let addresses = answer.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())?;
        found.extend(addresses);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_the_union_of_the_sources_and_bounded() {
        let at = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let (known, mut receiver) = Known::new([at(9)].into());
        let (first, second) = (known.source("first".to_owned()), known.source("second".to_owned()));
        first.set([at(1), at(2)].into());
        second.set([at(2), at(3)].into());
        assert_eq!(*receiver.borrow_and_update(), [at(1), at(2), at(3), at(9)].into());
        first.set([at(2)].into());
        assert_eq!(*receiver.borrow_and_update(), [at(2), at(3), at(9)].into());
        second.set([at(2)].into());
        assert!(receiver.has_changed().unwrap());
        receiver.borrow_and_update();
        first.set(BTreeSet::new());
        assert!(!receiver.has_changed().unwrap(), "the other source knows it too");
        assert!(first.is_empty() && !second.is_empty());
        second.set((1..=1000).map(at).collect());
        assert_eq!(receiver.borrow().len(), MOST_ENDPOINTS);
    }
}
