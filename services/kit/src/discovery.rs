//! From `--session-addr` to a channel: static lists and DNS.
//!
//! A name is resolved again every few seconds, and every address behind it is an endpoint, so that
//! a headless Service spreads calls over its pods.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::uri::{Authority, Scheme};
use tokio::sync::watch;
use tonic::transport::channel::Change;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::shutdown::Shutdown;

/// Targets that one setting may name.
const MOST_TARGETS: usize = 64;

/// Endpoints that are used of those that DNS gives, in order of address.
const MOST_ENDPOINTS: usize = 256;

/// How often names are resolved again; half as long after a failure.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(5);

/// How long one look-up may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets(Vec<Target>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    host: String,
    port: u16,
}

impl Targets {
    /// Parses `http://host:port`, or several separated by commas.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what would be right, for a settings problem.
    pub fn parse(text: &str) -> Result<Self, String> {
        let targets: Vec<_> = text.split(',').map(|item| Target::parse(item.trim())).collect::<Result<_, _>>()?;
        match targets.len() {
            0..=MOST_TARGETS => Ok(Self(targets)),
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
    pub fn channel(&self, shutdown: &Shutdown) -> Channel {
        let (channel, changes) = Channel::balance_channel::<SocketAddr>(MOST_ENDPOINTS);
        let mut addresses = self.addresses(shutdown);
        let drained = shutdown.drained();
        shutdown.spawn_last("balance", async move {
            let mut used = BTreeSet::new();
            // A static list has no sender any more: its set never changes.
            let mut fixed = false;
            loop {
                let known = addresses.borrow_and_update().clone();
                let current = reachable(&known).await;
                for gone in used.difference(&current) {
                    let _ = changes.send(Change::Remove(*gone)).await;
                }
                for new in current.difference(&used) {
                    let _ = changes.send(Change::Insert(*new, endpoint(&uri(*new)))).await;
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
        channel
    }

    /// Every endpoint as it is known now, for one stream per endpoint. Empty until the first
    /// look-up has succeeded; a failed look-up keeps what was known. Connect with [`endpoint`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn endpoints(&self, shutdown: &Shutdown) -> watch::Receiver<Vec<Uri>> {
        let mut addresses = self.addresses(shutdown);
        let as_uris = |addresses: &BTreeSet<SocketAddr>| addresses.iter().copied().map(uri).collect::<Vec<_>>();
        let (sender, receiver) = watch::channel(as_uris(&addresses.borrow_and_update()));
        shutdown.spawn_last("endpoints", async move {
            while addresses.changed().await.is_ok() {
                sender.send_replace(as_uris(&addresses.borrow_and_update()));
            }
        });
        receiver
    }

    /// The addresses behind all targets, kept current until the drain has ended.
    fn addresses(&self, shutdown: &Shutdown) -> watch::Receiver<BTreeSet<SocketAddr>> {
        let (literal, named): (Vec<_>, Vec<_>) = self.0.iter().cloned().partition(|target| target.literal().is_some());
        let literal: BTreeSet<_> = literal.iter().filter_map(Target::literal).collect();
        let (sender, receiver) = watch::channel(literal.clone());
        if named.is_empty() {
            // The set never changes, and the receiver keeps the last value.
            return receiver;
        }
        let drained = shutdown.drained();
        shutdown.spawn_last("resolver", async move {
            let mut failing = false;
            loop {
                let wait = match resolve(&named).await {
                    Ok(found) => {
                        failing = false;
                        publish(&sender, literal.union(&found).copied().take(MOST_ENDPOINTS).collect(), &named);
                        RESOLVE_INTERVAL
                    }
                    Err(error) => {
                        if !failing {
                            tracing::warn!(targets = %names(&named), error, "look-up failed; keeping what is known");
                        }
                        failing = true;
                        RESOLVE_INTERVAL / 2
                    }
                };
                // Spread, so that many processes do not ask at once.
                let wait = wait.mul_f64(0.8 + 0.4 * fastrand::f64());
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = drained.cancelled() => return,
                    () = sender.closed() => return,
                }
            }
        });
        receiver
    }
}

impl Target {
    fn parse(text: &str) -> Result<Self, String> {
        let example = "write http://host:port, such as http://127.0.0.1:50051";
        if text.starts_with("kubernetes:") {
            return Err(format!(
                "`{text}` asks for the cluster's API, which this version cannot use; name a headless Service by DNS: http://service:port"
            ));
        }
        let uri: Uri = text.parse().map_err(|_| format!("`{text}` is not an address; {example}"))?;
        if uri.scheme() != Some(&Scheme::HTTP) {
            return Err(format!("`{text}` does not begin with http://; {example}"));
        }
        let authority = uri.authority().map_or("", Authority::as_str);
        if authority.contains('@') || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(format!("`{text}` has more than a host and a port; {example}"));
        }
        let (Some(host), Some(port)) = (uri.host(), uri.port_u16()) else {
            return Err(format!("`{text}` has no port; {example}"));
        };
        Ok(Self { host: host.trim_matches(['[', ']']).to_owned(), port })
    }

    /// The address, when the host is one and not a name.
    fn literal(&self) -> Option<SocketAddr> {
        let ip: IpAddr = self.host.parse().ok()?;
        Some(SocketAddr::new(ip, self.port))
    }
}

/// An endpoint with the time-outs of this module, for a connection of the caller's own.
pub fn endpoint(uri: &Uri) -> Endpoint {
    Endpoint::from(uri.clone())
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
}

fn uri(addr: SocketAddr) -> Uri {
    Uri::try_from(format!("http://{addr}")).expect("a socket address is a valid authority")
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

/// Every address of every name; an error when one of them has none, as a partial set would drop
/// endpoints that live.
async fn resolve(targets: &[Target]) -> Result<BTreeSet<SocketAddr>, String> {
    let mut found = BTreeSet::new();
    for target in targets {
        let lookup = tokio::net::lookup_host((target.host.as_str(), target.port));
        let answer = tokio::time::timeout(RESOLVE_TIMEOUT, lookup).await;
        let addresses = answer.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())?;
        found.extend(addresses);
    }
    Ok(found)
}

fn publish(sender: &watch::Sender<BTreeSet<SocketAddr>>, current: BTreeSet<SocketAddr>, targets: &[Target]) {
    sender.send_if_modified(|known| {
        if *known == current {
            return false;
        }
        let (before, now) = (known.len(), current.len());
        tracing::info!(targets = %names(targets), before, now, addresses = ?current, "endpoints changed");
        *known = current;
        true
    });
}

fn names(targets: &[Target]) -> String {
    targets.iter().map(|target| format!("{}:{}", target.host, target.port)).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tonic::service::Routes;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

    use super::*;
    use crate::grpc::{self, GrpcOptions};

    /// A server of health alone, with its own shutdown.
    fn start() -> (SocketAddr, Shutdown) {
        let listener = crate::net::bind((Ipv4Addr::LOCALHOST, 0).into(), "listen").unwrap();
        let (addr, shutdown) = (listener.local_addr().unwrap(), Shutdown::new());
        let options = GrpcOptions { reflection: true, tls: None };
        let calls = crate::metrics::Metrics::new("test", "0").served_calls();
        let serving = grpc::serve(listener, Routes::default(), &["test.Service"], options, calls, shutdown.clone());
        shutdown.spawn("server", async move { serving.await.unwrap() });
        (addr, shutdown)
    }

    async fn check(health: &mut HealthClient<Channel>) -> Result<ServingStatus, tonic::Status> {
        let mut request = tonic::Request::new(HealthCheckRequest { service: "test.Service".to_owned() });
        request.set_timeout(Duration::from_secs(10));
        Ok(health.check(request).await?.into_inner().status())
    }

    #[tokio::test]
    async fn calls_go_on_when_one_of_two_endpoints_ends() {
        let ((first, first_server), (second, second_server)) = (start(), start());
        let client = Shutdown::new();
        let targets = Targets::parse(&format!("http://{first},http://{second}")).unwrap();
        let mut health = HealthClient::new(targets.channel(&client));
        for _ in 0..20 {
            assert_eq!(check(&mut health).await.unwrap(), ServingStatus::Serving);
        }
        first_server.begin();
        assert!(first_server.wait(Duration::from_secs(5)).await);
        // The dead endpoint fails some calls until it is left out; then a long run of calls passes.
        let mut passed_in_a_row = 0;
        let settled = async {
            while passed_in_a_row < 200 {
                match check(&mut health).await {
                    Ok(_) => passed_in_a_row += 1,
                    Err(_) => passed_in_a_row = 0,
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), settled).await.unwrap();
        client.begin();
        second_server.begin();
        assert!(second_server.wait(Duration::from_secs(5)).await);
        assert!(client.wait(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_name_is_resolved_to_endpoints() {
        let shutdown = Shutdown::new();
        let mut endpoints = Targets::parse("http://localhost:50051,http://192.0.2.1:7").unwrap().endpoints(&shutdown);
        let all = endpoints.wait_for(|uris| uris.len() > 1).await.unwrap().clone();
        assert!(all.contains(&"http://127.0.0.1:50051/".parse().unwrap()), "{all:?}");
        assert!(all.contains(&"http://192.0.2.1:7/".parse().unwrap()), "{all:?}");
    }

    #[test]
    fn wrong_targets_say_what_is_right() {
        for (text, part) in [
            ("localhost:50051", "http://"),
            ("https://host:1", "does not begin with http://"),
            ("http://host", "has no port"),
            ("http://host:1/path", "more than a host and a port"),
            ("http://user@host:1", "more than a host and a port"),
            ("http://a:1,,http://b:2", "not an address"),
            ("kubernetes:///session:50051", "headless Service"),
        ] {
            let error = Targets::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let many = vec!["http://a:1"; 65].join(",");
        assert!(Targets::parse(&many).unwrap_err().contains("at most 64"));
        assert_eq!(Targets::parse("http://[::1]:5").unwrap().0[0].literal(), Some("[::1]:5".parse().unwrap()));
    }
}
