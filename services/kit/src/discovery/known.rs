//! What is known of the endpoints, by each source, and all together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::MOST_ENDPOINTS;
use super::target::{Host, Target};

/// How long one look-up may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Addresses, each with the name that a certificate there must be for.
pub(super) type Addresses = BTreeMap<SocketAddr, Arc<str>>;

/// The union of what all sources know. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Known {
    sources: Arc<Mutex<Vec<Addresses>>>,
    sender: watch::Sender<Addresses>,
}

/// What one target leads to.
#[derive(Debug)]
pub(super) struct Source {
    known: Known,
    index: usize,
    /// For logs.
    target: String,
    tls_name: Arc<str>,
}

impl Known {
    /// What is known from the start and stays, and the union as it changes.
    pub(super) fn new(fixed: Addresses) -> (Self, watch::Receiver<Addresses>) {
        let (sender, receiver) = watch::channel(fixed.clone());
        (Self { sources: Arc::new(Mutex::new(vec![fixed])), sender }, receiver)
    }

    pub(super) fn source(&self, target: &Target) -> Source {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.push(Addresses::new());
        let (target, tls_name) = (target.to_string(), target.tls_name().into());
        Source { known: self.clone(), index: sources.len() - 1, target, tls_name }
    }
}

impl Source {
    /// What this source knows from now on, in place of what it knew.
    pub(super) fn set(&self, addresses: BTreeSet<SocketAddr>) {
        let mut sources = self.known.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources[self.index] = addresses.into_iter().map(|address| (address, self.tls_name.clone())).collect();
        // Whoever is behind two names has a certificate for both, or for none that can be told.
        let all: Addresses = sources.iter().flatten().map(|(address, name)| (*address, name.clone())).collect();
        let all: Addresses = all.into_iter().take(MOST_ENDPOINTS).collect();
        self.known.sender.send_if_modified(|known| {
            if *known == all {
                return false;
            }
            let (before, now) = (known.len(), all.len());
            tracing::info!(source = self.target, before, now, addresses = ?all.keys(), "endpoints changed");
            *known = all;
            true
        });
    }

    /// Whether it knows nothing yet.
    pub(super) fn is_empty(&self) -> bool {
        self.known.sources.lock().unwrap_or_else(PoisonError::into_inner)[self.index].is_empty()
    }
}

/// Every address of a name.
pub(super) async fn resolve(host: &Host) -> Result<BTreeSet<SocketAddr>, String> {
    let lookup = tokio::net::lookup_host((host.host.as_str(), host.port));
    let answer = tokio::time::timeout(RESOLVE_TIMEOUT, lookup).await;
    let addresses = answer.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())?;
    Ok(addresses.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_the_union_of_the_sources_and_bounded() {
        let at = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let target = |text| Target::parse(text).unwrap();
        let (known, mut receiver) = Known::new([(at(9), "192.0.2.1".into())].into());
        let first = known.source(&target("https://first:1"));
        let second = known.source(&target("kubernetes:///second.chat:1"));
        let mut seen = || {
            let known = receiver.borrow_and_update();
            known.iter().map(|(address, name)| (address.port(), name.to_string())).collect::<Vec<_>>()
        };
        let named =
            |all: &[(u16, &str)]| all.iter().map(|(port, name)| (*port, (*name).to_owned())).collect::<Vec<_>>();
        first.set([at(1), at(2)].into());
        second.set([at(3)].into());
        let second_name = "second.chat.svc";
        assert_eq!(seen(), named(&[(1, "first"), (2, "first"), (3, second_name), (9, "192.0.2.1")]));
        first.set([at(2)].into());
        assert_eq!(seen(), named(&[(2, "first"), (3, second_name), (9, "192.0.2.1")]));
        first.set(BTreeSet::new());
        second.set([at(2)].into());
        assert_eq!(seen(), named(&[(2, second_name), (9, "192.0.2.1")]));
        second.set([at(2)].into());
        assert!(!receiver.has_changed().unwrap(), "it was known");
        assert!(first.is_empty() && !second.is_empty());
        second.set((1..=1000).map(at).collect());
        assert_eq!(receiver.borrow().len(), MOST_ENDPOINTS);
    }
}
