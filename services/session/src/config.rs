//! Flags of the session service, and what they fill.

use crate::store::redis::check_url;
use plaza_kit::discovery::Targets;
use plaza_kit::discovery::tls::UpstreamTls;
use plaza_kit::settings::{Flag, Settings};
use std::net::SocketAddr;
use std::time::Duration;

/// Where to listen. `plaza` has flags of its own for it.
pub const LISTEN_FLAGS: &[Flag] = &[
    Flag {
        name: "listen",
        default: Some("0.0.0.0:50051"),
        value: "ADDR",
        help: "Address of the gRPC API",
        section: "Listeners",
    },
    Flag {
        name: "admin-listen",
        default: Some("0.0.0.0:9090"),
        value: "ADDR",
        help: "Address of /livez, /readyz and /metrics",
        section: "Listeners",
    },
];

/// Flags of the service itself.
pub const FLAGS: &[Flag] = &[
    Flag {
        name: "redis-url",
        default: None,
        value: "URL",
        help: "Redis of the sessions, 6.2 or newer: redis://host:6379, rediss:// with TLS; a cluster by several \
               nodes, redis://a:6379,b:6379; a master by its sentinels, redis+sentinel://a:26379,b:26379/name",
        section: "Sessions",
    },
    Flag {
        name: "unique-usernames",
        default: Some("false"),
        value: "",
        help: "Refuse a username that a living session has, or one that looks like it",
        section: "Sessions",
    },
    Flag {
        name: "session-lease",
        default: Some("15s"),
        value: "TIME",
        help: "Time after its last heartbeat at which an edge counts as dead, 6s to 60s",
        section: "Sessions",
    },
];

/// Flags that `plaza` takes from the edge, or has no use for: it brings its own fanout service, and is alone.
pub const SHARED_FLAGS: &[Flag] = &[
    Flag {
        name: "reaper-lease",
        default: None,
        value: "NAME",
        help: "Lease in the namespace of this pod: of several session services its holder clears what dead edges left. \
               Without it, and without the cluster's API, each of them does",
        section: "Sessions",
    },
    Flag {
        name: "fanout-addr",
        default: None,
        value: "ADDR",
        help: "The fanout service: http://host:port, a comma list of them, or kubernetes:///service:port; \
               presence events and commands go through it",
        section: "Sessions",
    },
    Flag {
        name: "recovery-window",
        default: Some("120s"),
        value: "TIME",
        help: "How long a lost session can be recovered, 0 (off) to 1h",
        section: "Sessions",
    },
];

/// Addresses to listen on.
#[derive(Clone, Copy, Debug)]
pub struct Listen {
    /// Of the gRPC API.
    pub grpc: SocketAddr,
    /// Of the admin endpoints.
    pub admin: SocketAddr,
}

impl Listen {
    /// Reads [`LISTEN_FLAGS`].
    pub fn from_settings(settings: &mut Settings) -> Self {
        Self { grpc: settings.addr("listen"), admin: settings.addr("admin-listen") }
    }
}

/// Settings of the service.
#[derive(Clone, Debug)]
pub struct Config {
    /// The store; `None` keeps everything in this process.
    pub redis_url: Option<String>,
    /// Where presence events are published; `None` keeps them in the outbox.
    pub fanout: Option<Targets>,
    /// Name of the Lease that says who reaps; `None`: this process does, whoever else does.
    pub reaper_lease: Option<String>,
    /// Whether a name has at most one living holder.
    pub unique_usernames: bool,
    /// Life of an edge's lease after its last heartbeat.
    pub lease: Duration,
    /// How long a lost session can be recovered.
    pub recovery_window: Duration,
}

impl Config {
    /// Reads [`FLAGS`] and [`SHARED_FLAGS`].
    pub fn from_settings(settings: &mut Settings) -> Self {
        let tls = UpstreamTls::from_settings(settings);
        let fanout = settings.parsed("fanout-addr", |text| tls.apply(Targets::parse(text)?));
        Self { reaper_lease: settings.optional("reaper-lease"), ..Self::of_flags(settings, fanout) }
    }

    /// Reads [`FLAGS`] and the recovery window; the caller knows where fanout is.
    pub fn of_flags(settings: &mut Settings, fanout: Option<Targets>) -> Self {
        Self {
            redis_url: settings.optional("redis-url").and_then(|url| match check_url(&url) {
                Ok(()) => Some(url),
                Err(message) => {
                    settings.problem("redis-url", message);
                    None
                }
            }),
            fanout,
            reaper_lease: None,
            unique_usernames: settings.switch("unique-usernames"),
            lease: settings.seconds("session-lease", 6_000..=60_000),
            recovery_window: settings.seconds("recovery-window", 0..=3_600_000),
        }
    }
}
