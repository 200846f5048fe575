//! Runs the three services on listeners of this process, and ends them in the order in which they need
//! each other.

use crate::banner::Banner;
use crate::settings::All;
use anyhow::Context;
use plaza_edge::config::NatsOptions;
use plaza_edge::feed::FeedSource;
use plaza_edge::upstream::publish::stream::{Local, Route};
use plaza_fanout::MemoryLog;
use plaza_kit::admin::{self, Readiness};
use plaza_kit::discovery::Targets;
use plaza_kit::metrics::Metrics;
use plaza_kit::net;
use plaza_kit::shutdown::Shutdown;
use plaza_kit::trace;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// After the edge has drained, the services end within this time.
const END: Duration = Duration::from_millis(500);

/// Serves until Ctrl-C or SIGTERM.
pub(crate) async fn serve(mut all: All) -> anyhow::Result<()> {
    let public = bind_public(&all.listen, all.edge.threads)?;
    let session_listener = net::bind(all.session_listen, "session-listen")?;
    let fanout_listener = net::bind(all.fanout_listen, "fanout-listen")?;
    // There is no other edge, but its port is part of every registration.
    let peer_listener = net::bind(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0), "peer-listen")?;
    let admin_listener = net::bind(all.admin_listen, "admin-listen")?;
    let banner = Banner {
        public: public.first().context("no address to listen on")?.local_addr()?,
        session: session_listener.local_addr()?,
        fanout: fanout_listener.local_addr()?,
        admin: admin_listener.local_addr()?,
        reflection: all.grpc.reflection,
        redis: all.session.redis_url.is_some(),
        nats: all.fanout.nats_url.is_some(),
    };
    (all.edge.session, all.edge.fanout) = (target(banner.session)?, target(banner.fanout)?);
    all.session.fanout = Some(target(banner.fanout)?);

    let metrics = Arc::new(Metrics::new("plaza", env!("CARGO_PKG_VERSION")));
    trace::start("plaza", env!("CARGO_PKG_VERSION"), &metrics);
    let readiness = Readiness::new();
    let signals = Shutdown::on_signals().context("cannot listen for signals")?;
    // The services outlive the edge: what was published is finished, and who leaves is noted.
    let services = Shutdown::new();
    admin::serve(admin_listener, metrics.clone(), readiness.clone(), &signals)?;

    let (memory, feed) = match &all.fanout.nats_url {
        Some(url) => (None, FeedSource::Nats(NatsOptions { url: url.clone(), creds: all.fanout.nats_creds.clone() })),
        None => {
            let (log, feed) = MemoryLog::new(&all.fanout.memory_options());
            (Some(log), FeedSource::Memory(feed))
        }
    };
    let (local, service) = oneshot::channel::<plaza_fanout::Fanout>();
    let publish = Box::pin(async {
        let fanout = service.await.ok()?;
        Some(Box::new(move |batches| fanout.publish_here(batches)) as Local)
    });
    let fanout = plaza_fanout::run(
        all.fanout,
        plaza_fanout::Parts {
            listener: fanout_listener,
            admin_listener: None,
            metrics: metrics.clone(),
            readiness: readiness.clone(),
            grpc: all.grpc.clone(),
            memory,
            local: Some(local),
        },
        services.clone(),
    );
    let session = plaza_session::run(
        all.session,
        plaza_session::Parts {
            listener: session_listener,
            admin_listener: None,
            metrics: metrics.clone(),
            readiness: readiness.clone(),
            grpc: all.grpc,
        },
        services.clone(),
    );
    let edge = plaza_edge::run::run(
        all.edge,
        plaza_edge::run::Parts {
            listeners: public,
            peer_listener: Some(peer_listener),
            admin_listener: None,
            metrics,
            readiness,
            feed,
            publish: Route::Local(publish),
        },
        signals.clone(),
    );
    banner.print();

    // Whatever ends first ends the edge, and the edge ends the services.
    let edge = async {
        let ended = edge.await.context("the edge has failed");
        services.begin();
        ended
    };
    let session = async {
        let ended = session.await.context("the session service has failed");
        signals.begin();
        ended
    };
    let fanout = async {
        let ended = fanout.await.context("the fanout service has failed");
        signals.begin();
        ended
    };
    let late = async {
        services.cancelled().await;
        tokio::time::sleep(END).await;
    };
    let result = tokio::select! {
        (edge, session, fanout) = async { tokio::join!(edge, session, fanout) } => edge.and(session).and(fanout),
        () = late => Ok(()),
    };
    services.wait(END).await;
    signals.wait(END).await;
    trace::end().await;
    result
}

fn target(addr: SocketAddr) -> anyhow::Result<Targets> {
    // A wildcard is reached on loopback.
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Targets::parse(&format!("http://{}", SocketAddr::new(ip, addr.port()))).map_err(anyhow::Error::msg)
}

/// Binds the public addresses. What is bound to 127.0.0.1 is bound to `[::1]` too where that exists, as
/// browsers may ask for `localhost` by either.
fn bind_public(addrs: &[SocketAddr], threads: usize) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for &addr in addrs {
        let bound = net::bind_shared(addr, "listen", threads)?;
        let port = bound.first().context("no listener was bound")?.local_addr()?.port();
        listeners.extend(bound);
        let twin = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port);
        if addr.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST)
            && !addrs.contains(&twin)
            && let Ok(more) = net::bind_shared(twin, "listen", threads)
        {
            listeners.extend(more);
        }
    }
    Ok(listeners)
}
