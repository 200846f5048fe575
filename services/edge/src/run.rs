//! The edge as a function: bound listeners in, sockets served until the shutdown is over.
//!
//! ```text
//! shard threads (one runtime each)          control runtime (the caller's)
//!   accept loop, engine  <--- inbox ---  hub  <--- feed, upstream tasks
//!                        --- requests -->
//! ```
//! With one shard on one core there is nothing to gain by a second thread: hub and upstream tasks run on
//! the shard's runtime then, and a message passes through this process without a change of threads.

use crate::accept::{self, Ceiling, HttpLimits};
use crate::bridge::Outlet;
use crate::config::Config;
use crate::control::{self, Ends};
use crate::drain;
use crate::engine::{self, Shard, ShardHandle};
use crate::feed::memory::MemoryFeed;
use crate::feed::nats::{NatsFeed, NatsFeedError};
use crate::feed::{EventFeed, FeedSource};
use crate::metrics::{self, Handshakes, HubMetrics, ShardMetrics};
use crate::peer::{PeerMetrics, Peers};
use crate::pod::Teller;
use crate::routes::Public;
use crate::upstream::publish::stream::Route;
use crate::upstream::registration::Registration;
use futures_util::future::join_all;
use plaza_kit::admin::{self, Readiness};
use plaza_kit::metrics::Metrics;
use plaza_kit::shutdown::Shutdown;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{EnterGuard, Runtime};
use tokio_util::sync::CancellationToken;

/// After the drain, everything else ends within this time.
const END: Duration = Duration::from_millis(800);

/// What the edge does not make itself.
#[derive(Debug)]
pub struct Parts {
    /// Public listeners, bound and non-blocking. Shard n takes those whose index modulo the shards is n:
    /// a SO_REUSEPORT group of one listener a shard, or several groups one after another.
    pub listeners: Vec<TcpListener>,
    /// For other edges.
    pub peer_listener: Option<TcpListener>,
    /// For `/livez`, `/readyz` and `/metrics`; `None`: somebody else serves them.
    pub admin_listener: Option<TcpListener>,
    /// Where metrics are registered.
    pub metrics: Arc<Metrics>,
    /// What the admin routes tell.
    pub readiness: Readiness,
    /// Where events come from.
    pub feed: FeedSource,
    /// Where events go to.
    pub publish: Route,
}

/// Why the edge could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is nothing to listen on.
    #[error("no public listener was given")]
    NoListener,
    /// A system call failed: out of descriptors or threads.
    #[error("the edge could not start: {0}")]
    Io(#[from] std::io::Error),
    /// The settings of NATS can never work.
    #[error(transparent)]
    Feed(#[from] NatsFeedError),
    /// The admin endpoints could not start.
    #[error(transparent)]
    Admin(#[from] admin::AdminError),
}

/// Serves sockets until `shutdown` begins and the drain is over.
///
/// # Errors
/// [`RunError`]: the edge could not start.
///
/// # Panics
/// Outside of a tokio runtime.
pub async fn run(config: Config, parts: Parts, shutdown: Shutdown) -> Result<(), RunError> {
    if parts.listeners.is_empty() {
        return Err(RunError::NoListener);
    }
    let Parts { metrics, readiness, .. } = parts;
    let started = readiness.latch("edge");
    // Until both have been there once, a socket would only wait.
    readiness.expect("session");
    readiness.expect("feed");
    let hub_metrics = metrics.registry(|registry| HubMetrics::register(registry, metrics.made_calls()));
    let handshakes = metrics.registry(Handshakes::register);
    metrics.registry(|registry| metrics::register_drain_window(registry, config.drain_window));
    let advertise_addr = advertise_addr(&config, parts.peer_listener.as_ref())?;

    let hosts_hub = config.threads == 1 && std::thread::available_parallelism().is_ok_and(|cores| cores.get() == 1);
    let (requests, inbox) = control::channel();
    let shards = (0..config.threads)
        .map(|index| {
            Shard::new(index as u16, engine::Settings { hosts_hub, ..engine::Settings::default() }, requests.clone())
        })
        .collect::<Result<Vec<_>, _>>()?;
    let runtimes = (0..config.threads).map(|_| ShardRuntime::new()).collect::<Result<Vec<_>, _>>()?;
    drop(requests);
    let handles: Vec<ShardHandle> = shards.iter().map(Shard::handle).collect();
    ShardMetrics::register(&metrics, &handles);

    // Everything behind the sockets outlives them: it ends when the drain is over.
    let upstream = Shutdown::new();
    let feed: Box<dyn EventFeed> = match parts.feed {
        FeedSource::Nats(options) => Box::new(NatsFeed::start(&options, &upstream).await?),
        FeedSource::Memory(source) => Box::new(MemoryFeed::new(source)),
    };
    let registration = Registration::default();
    let outlets = handles.iter().map(|handle| Box::new(handle.clone()) as Box<dyn Outlet>).collect();
    let unfinished = {
        let _on_shard = runtimes.first().filter(|_| hosts_hub).map(ShardRuntime::enter);
        control::start(
            &config,
            advertise_addr,
            registration.clone(),
            Ends { requests: inbox, outlets, feed, publish: parts.publish },
            hub_metrics,
            &readiness,
            &upstream,
        )
    };

    let session = config.session.channel(&upstream);
    let peers = Peers::new(registration, session, metrics.made_calls(), metrics.registry(PeerMetrics::register));
    if let Some(listener) = parts.admin_listener {
        admin::serve(listener, metrics, readiness.clone(), &shutdown)?;
    }
    let stop = CancellationToken::new();
    let public = Public::new(&config, &handles, &readiness, handshakes, peers.clone());
    let ends = ShardEnds { stop: stop.clone(), upstream: upstream.drained() };
    let mut threads = start_shards(shards, runtimes, parts.listeners, &public, &ends)?;
    if let Some(listener) = parts.peer_listener {
        let serve = accept::serve(listener, public.peer_routes(), HttpLimits::default(), stop.clone());
        upstream.spawn("peer listener", serve);
    }
    let mut teller = Teller::start(config.kubernetes, &handles, &shutdown);
    started.release();

    shutdown.cancelled().await;
    readiness.drain();
    teller.draining(&handles, config.drain_window, &upstream);
    drain::drain(&handles, &peers.sockets, config.drain_window).await;
    drain::finish(&unfinished).await;
    let told = teller.drained(&handles);
    stop.cancel();
    upstream.begin();
    tokio::join!(upstream.wait(END), told);
    let joined = tokio::task::spawn_blocking(move || threads.drain(..).for_each(|thread| drop(thread.join())));
    let _late = tokio::time::timeout(END, joined).await;
    Ok(())
}

/// The runtime of a shard's thread. It may be given up anywhere, while a tokio runtime may not be dropped
/// by a task of another one.
struct ShardRuntime(Option<Runtime>);

impl ShardRuntime {
    fn new() -> std::io::Result<Self> {
        tokio::runtime::Builder::new_current_thread().enable_all().build().map(|runtime| Self(Some(runtime)))
    }

    /// While the guard lives, tasks of this thread are spawned here.
    fn enter(&self) -> Option<EnterGuard<'_>> {
        self.0.as_ref().map(Runtime::enter)
    }

    fn block_on<F: Future>(&self, future: F) -> Option<F::Output> {
        self.0.as_ref().map(|runtime| runtime.block_on(future))
    }
}

impl Drop for ShardRuntime {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

/// What ends a shard's thread.
struct ShardEnds {
    /// Sockets and accept loops end.
    stop: CancellationToken,
    /// Tasks that may run on a shard's runtime have ended.
    upstream: CancellationToken,
}

/// Starts a thread for each shard: its engine and its accept loops on one runtime.
fn start_shards(
    shards: Vec<Shard>,
    runtimes: Vec<ShardRuntime>,
    listeners: Vec<TcpListener>,
    public: &Public,
    ends: &ShardEnds,
) -> Result<Vec<std::thread::JoinHandle<()>>, std::io::Error> {
    let count = shards.len();
    let mut groups: Vec<Vec<TcpListener>> = std::iter::repeat_with(Vec::new).take(count).collect();
    for (index, listener) in listeners.into_iter().enumerate() {
        groups[index % count].push(listener);
    }
    let mut threads = Vec::with_capacity(count);
    for (index, ((shard, runtime), listeners)) in shards.into_iter().zip(runtimes).zip(groups).enumerate() {
        let router = public.routes(&shard.handle());
        let (stop, upstream) = (ends.stop.clone(), ends.upstream.clone());
        let thread = std::thread::Builder::new().name(format!("shard {index}")).spawn(move || {
            let limits = HttpLimits { ceiling: Ceiling::of_process(), ..HttpLimits::default() };
            let accept =
                listeners.into_iter().map(|listener| accept::serve(listener, router.clone(), limits, stop.clone()));
            runtime.block_on(async {
                let (accepted, ran) = futures_util::future::join(join_all(accept), shard.run(stop.clone())).await;
                for error in accepted.into_iter().chain([ran]).filter_map(Result::err) {
                    tracing::error!(%error, "a shard has failed");
                }
                upstream.cancelled().await;
            });
        })?;
        threads.push(thread);
    }
    Ok(threads)
}

/// Where other edges reach the peer port: as configured; else its port on `POD_IP`, or on the address
/// it is bound to.
fn advertise_addr(config: &Config, peer: Option<&TcpListener>) -> Result<String, std::io::Error> {
    if let Some(addr) = &config.advertise_addr {
        return Ok(addr.clone());
    }
    let Some(peer) = peer else { return Ok(String::new()) };
    let bound = peer.local_addr()?;
    let pod = std::env::var("POD_IP").ok().and_then(|ip| ip.parse().ok());
    let ip = pod.unwrap_or(if bound.ip().is_unspecified() { own_address(bound)? } else { bound.ip() });
    Ok(SocketAddr::new(ip, bound.port()).to_string())
}

/// The address of this machine that others see: the one that a packet to the outside would carry. No
/// packet is sent.
fn own_address(like: SocketAddr) -> Result<std::net::IpAddr, std::io::Error> {
    let socket = std::net::UdpSocket::bind(SocketAddr::new(like.ip(), 0))?;
    let outside = if like.is_ipv4() { "192.0.2.1:9" } else { "[2001:db8::1]:9" };
    let seen = socket.connect(outside).and_then(|()| socket.local_addr());
    Ok(seen.map_or(std::net::Ipv4Addr::LOCALHOST.into(), |addr| addr.ip()))
}
