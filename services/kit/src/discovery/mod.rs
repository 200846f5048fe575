//! From `--session-addr` to a channel: static lists, DNS, and the EndpointSlices of a cluster.
//!
//! A name is resolved again every few seconds, and every address behind it is an endpoint, so that
//! a headless Service spreads calls over its pods. `kubernetes:///service:port` learns of new and leaving
//! pods at once; without the API it falls back on DNS, and on what it knew last.

mod channel;
mod cluster;
mod known;
mod slices;
mod target;
#[cfg(test)]
mod tests;
pub mod tls;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tonic::transport::channel::Change;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint, Uri};

use crate::kubernetes::Cluster;
use crate::shutdown::Shutdown;
use crate::trace::Server;
pub use channel::BalancedChannel;
use known::{Addresses, Known, Source};
use target::{Host, Target};

/// Targets that one setting may name.
const MOST_TARGETS: usize = 64;

/// Endpoints that are used of those that are known, in order of address.
const MOST_ENDPOINTS: usize = 256;

/// How often names are resolved again; half as long after a failure.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(5);

/// How often a channel with several endpoints asks which of them accept connections.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How long such a connection may take.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// After this long without a frame, even without calls, a connection is pinged.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Without an answer to the ping for this long, the connection is made anew.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Where a service is to be found.
#[derive(Clone, Debug)]
pub struct Targets {
    list: Vec<Target>,
    /// `None`: plain text.
    tls: Option<ClientTlsConfig>,
    /// Clones ask once, and all know the answer.
    known: Arc<Mutex<watch::Receiver<Addresses>>>,
}

impl Targets {
    /// Parses `http://host:port` or `kubernetes:///service:port`, or several separated by commas.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what would be right, for a settings problem.
    pub fn parse(text: &str) -> Result<Self, String> {
        let targets: Vec<_> = text.split(',').map(|item| Target::parse(item.trim())).collect::<Result<_, _>>()?;
        match targets.len() {
            0..=MOST_TARGETS => {
                let (_, known) = watch::channel(Addresses::new());
                Ok(Self { list: targets, tls: None, known: Arc::new(Mutex::new(known)) })
            }
            count => Err(format!("has {count} addresses, at most {MOST_TARGETS} are allowed; use a DNS name")),
        }
    }

    /// A channel that balances calls over every endpoint. It connects when it is first used, and
    /// waits for an endpoint while there is none: give each call a deadline.
    ///
    /// Of several endpoints, those that refuse connections are left out: a dead one would fail its
    /// calls at once, and so look like the least busy. Until the next probe, at most a second or
    /// two, calls to it end as `Unavailable`.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn channel(&self, shutdown: &Shutdown) -> BalancedChannel {
        let (channel, changes) = Channel::balance_channel::<SocketAddr>(MOST_ENDPOINTS);
        let mut addresses = self.addresses(shutdown);
        let (drained, targets) = (shutdown.drained(), self.clone());
        shutdown.spawn_last("balance", async move {
            let mut used = BTreeSet::new();
            // A static list has no sender any more: its set never changes.
            let mut fixed = false;
            loop {
                let known: BTreeSet<_> = addresses.borrow_and_update().keys().copied().collect();
                let current = reachable(&known).await;
                for gone in used.difference(&current) {
                    let _ = changes.send(Change::Remove(*gone)).await;
                }
                for new in current.difference(&used) {
                    let _ = changes.send(Change::Insert(*new, targets.endpoint(&targets.uri(*new)))).await;
                }
                if !used.is_empty() && used != current {
                    tracing::info!(used = ?current, known = known.len(), "endpoints in use changed");
                }
                used = current;
                tokio::select! {
                    changed = addresses.changed(), if !fixed => fixed = changed.is_err(),
                    () = tokio::time::sleep(PROBE_INTERVAL), if known.len() > 1 => {}
                    () = drained.cancelled() => return,
                    () = changes.closed() => return,
                }
            }
        });
        BalancedChannel::new(channel)
    }

    /// These targets as the server of a span, whichever endpoint gets the call.
    pub fn server(&self) -> Server {
        match &self.list[..] {
            [target] => target.server(),
            list => Server::of_list(&list.iter().map(Target::to_string).collect::<Vec<_>>()),
        }
    }

    /// Every endpoint as it is known now, for one stream per endpoint. Empty until the first
    /// look-up has succeeded; a failed look-up keeps what was known. Connect with
    /// [`endpoint`](Self::endpoint).
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn endpoints(&self, shutdown: &Shutdown) -> watch::Receiver<Vec<Uri>> {
        let mut addresses = self.addresses(shutdown);
        let targets = self.clone();
        let as_uris = move |addresses: &Addresses| addresses.keys().map(|addr| targets.uri(*addr)).collect::<Vec<_>>();
        let (sender, receiver) = watch::channel(as_uris(&addresses.borrow_and_update()));
        shutdown.spawn_last("endpoints", async move {
            while addresses.changed().await.is_ok() {
                sender.send_replace(as_uris(&addresses.borrow_and_update()));
            }
        });
        receiver
    }

    /// An endpoint with the time-outs of this module and these targets' TLS, for a connection of the caller's own.
    pub fn endpoint(&self, uri: &Uri) -> Endpoint {
        let endpoint = Endpoint::from(uri.clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        let Some(tls) = self.tls.clone() else { return endpoint };
        let address = uri.authority().and_then(|authority| authority.as_str().parse().ok());
        let name = address.and_then(|address: SocketAddr| self.known().borrow().get(&address).cloned());
        let tls = match name {
            Some(name) => tls.domain_name(name.as_ref()),
            None => tls,
        };
        // The settings have tried the same files; without TLS every call to https:// would fail.
        endpoint.clone().tls_config(tls).unwrap_or(endpoint)
    }

    fn known(&self) -> MutexGuard<'_, watch::Receiver<Addresses>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn uri(&self, addr: SocketAddr) -> Uri {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        Uri::try_from(format!("{scheme}://{addr}")).expect("a socket address is a valid authority")
    }

    /// The addresses behind all targets, kept current until the drain has ended. They are followed once, whoever
    /// asks for them, and again when those who followed them have ended.
    fn addresses(&self, shutdown: &Shutdown) -> watch::Receiver<Addresses> {
        let mut known = self.known();
        if known.has_changed().is_err() {
            *known = self.follow(shutdown);
        }
        known.clone()
    }

    fn follow(&self, shutdown: &Shutdown) -> watch::Receiver<Addresses> {
        let literal = |target: &Target| match target {
            Target::Host(host) => Some((host.literal()?, target.tls_name().into())),
            Target::Service(_) => None,
        };
        // What never changes needs no task, and the receiver keeps the last value.
        let (known, receiver) = Known::new(self.list.iter().filter_map(literal).collect());
        for target in self.list.iter().filter(|target| literal(target).is_none()) {
            let (target, source, drained) = (target.clone(), known.source(target), shutdown.drained());
            shutdown.spawn_last("endpoints of a target", async move {
                let followed = async {
                    match &target {
                        Target::Host(host) => keep_resolving(host, &source).await,
                        Target::Service(service) => cluster::follow(service, Cluster::find, &source).await,
                    }
                };
                tokio::select! {
                    () = followed => {}
                    () = drained.cancelled() => {}
                }
            });
        }
        receiver
    }
}

/// Asks DNS again and again. A failed look-up keeps what is known.
async fn keep_resolving(host: &Host, source: &Source) {
    let mut failing = false;
    loop {
        let wait = match known::resolve(host).await {
            Ok(found) => {
                failing = false;
                source.set(found);
                RESOLVE_INTERVAL
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(target = %host, error, "look-up failed; keeping what is known");
                }
                RESOLVE_INTERVAL / 2
            }
        };
        // Spread, so that many processes do not ask at once.
        tokio::time::sleep(wait.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
    }
}

/// Those of the addresses that accept connections; all of them when none does, so that calls end
/// with the reason and do not wait.
async fn reachable(known: &BTreeSet<SocketAddr>) -> BTreeSet<SocketAddr> {
    if known.len() < 2 {
        return known.clone();
    }
    let probes = known.iter().map(async |addr| {
        let connection = tokio::time::timeout(PROBE_TIMEOUT, tokio::net::TcpStream::connect(*addr)).await;
        matches!(connection, Ok(Ok(_))).then_some(*addr)
    });
    let found: BTreeSet<_> = futures_util::future::join_all(probes).await.into_iter().flatten().collect();
    if found.is_empty() { known.clone() } else { found }
}
