//! A server for protocol test suites, built on the edge's own library and never part of a release:
//! `/echo` is a raw WebSocket echo, `/engine.io/` a raw Engine.IO echo, `/socket.io/` Socket.IO with the
//! namespaces `/` and `/custom`. Short heartbeats, large messages.
//!
//! `cargo run -p plaza-edge --example wire_profile -- --listen 127.0.0.1:3000`

mod echo;
mod namespaces;

use anyhow::{Context, bail};
use axum::Router;
use axum::extract::Request;
use axum::routing::any;
use echo::{EngineIoEcho, WebSocketEcho};
use namespaces::Namespaces;
use plaza_edge::accept::origin::Origins;
use plaza_edge::accept::polling::{EngineIoEndpoint, MakeConnection, routes};
use plaza_edge::accept::{HttpLimits, serve, upgrade};
use plaza_edge::conn::{EngineIo, Settings, SocketIo};
use plaza_edge::engine::{Settings as EngineSettings, Shard, ShardHandle, SocketOptions};
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Largest message of the raw WebSocket echo.
const ECHO_BYTES: usize = 16 * 1024 * 1024;

/// The settings of the wire reference's test profile.
fn settings() -> Settings {
    Settings {
        ping_interval_ms: 300,
        ping_timeout_ms: 200,
        connect_timeout_ms: 1_000,
        max_message_bytes: 1_000_000,
        message_rate: 0,
        ..Settings::default()
    }
}

/// Exact deadlines, and room for the largest echoes.
fn engine_settings() -> EngineSettings {
    EngineSettings { tick_ms: 1, max_private_bytes: 4 * ECHO_BYTES, ..EngineSettings::default() }
}

fn main() -> anyhow::Result<()> {
    let addr = listen_argument()?;
    let listener = bind(addr)?;
    let port = listener.local_addr()?.port();
    let mut listeners = vec![listener];
    if addr.ip().is_loopback() && addr.is_ipv4() {
        // Clients take `localhost` for either. A machine without IPv6 has only the one.
        listeners.extend(bind((Ipv6Addr::LOCALHOST, port).into()).ok());
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(listeners))
}

async fn run(listeners: Vec<TcpListener>) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let (requests, _hub) = plaza_edge::bridge::requests::channel(1);
    let shard = Shard::new(0, engine_settings(), requests)?;
    let router = router(&shard.handle());
    // Whoever reads this may count the descriptors: all that stay open are.
    for listener in &listeners {
        eprintln!("listening on {}", listener.local_addr()?);
    }
    let serving = listeners.into_iter().map(|l| serve(l, router.clone(), HttpLimits::default(), stop.clone()));
    let serving = futures_util::future::try_join_all(serving);
    tokio::try_join!(shard.run(stop.clone()), serving)?;
    Ok(())
}

fn router(shard: &ShardHandle) -> Router {
    let echo = SocketOptions {
        max_message_bytes: ECHO_BYTES,
        max_fragments: 0,
        message_ms: 600_000,
        control_frames_per_second: 0,
        ..SocketOptions::default()
    };
    let handle = shard.clone();
    let raw =
        any(move |request: Request| async move { upgrade(request, None, &handle, echo, Box::new(WebSocketEcho)) });
    let engine: MakeConnection =
        |settings, polling| Box::new(EngineIo::new(Arc::clone(settings), polling, EngineIoEcho));
    let socket: MakeConnection = |settings, polling| {
        let application = SocketIo::new(Arc::clone(settings), Namespaces);
        Box::new(EngineIo::new(Arc::clone(settings), polling, application))
    };
    Router::new()
        .route("/echo", raw)
        .merge(routes("/engine.io/", endpoint(shard, engine)))
        .merge(routes("/socket.io/", endpoint(shard, socket)))
}

fn endpoint(shard: &ShardHandle, connect: MakeConnection) -> EngineIoEndpoint {
    let settings = settings();
    let options = SocketOptions {
        max_message_bytes: settings.max_message_bytes,
        control_frames_per_second: 0,
        separate_writes: true,
        ..SocketOptions::default()
    };
    EngineIoEndpoint {
        shards: Arc::new([shard.clone()]),
        own: 0,
        settings: Arc::new(settings),
        origins: Arc::new(Origins::default()),
        options,
        connect,
        relay: None,
    }
}

fn listen_argument() -> anyhow::Result<SocketAddr> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Ok(SocketAddr::from(([127, 0, 0, 1], 3_000))),
        ["--listen", addr] => addr.parse().with_context(|| format!("--listen {addr} is no address and port")),
        _ => bail!("the only flag is --listen, for example --listen 127.0.0.1:3000"),
    }
}

fn bind(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(addr).with_context(|| format!("cannot listen on {addr}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
