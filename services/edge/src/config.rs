//! Settings of the edge: the flag tables and the struct that they fill.

use crate::accept::address::Proxies;
use crate::accept::origin::Origins;
use plaza_kit::discovery::Targets;
use plaza_kit::discovery::tls::UpstreamTls;
use plaza_kit::settings::{Flag, Settings};
use std::net::SocketAddr;
use std::time::Duration;

/// What the edge process listens on and whom it calls. `plaza` has its own flags in their place.
pub const PROCESS_FLAGS: &[Flag] = &[
    Flag {
        name: "listen",
        default: Some("0.0.0.0:5000"),
        value: "ADDR,...",
        help: "Public HTTP and sockets: the page, /socket.io/, /ws, /healthz",
        section: "Listening",
    },
    Flag {
        name: "peer-listen",
        default: Some("0.0.0.0:5001"),
        value: "ADDR",
        help: "For other edges only; never put it behind a public load balancer",
        section: "Listening",
    },
    Flag {
        name: "admin-listen",
        default: Some("0.0.0.0:9090"),
        value: "ADDR",
        help: "/livez, /readyz and /metrics",
        section: "Listening",
    },
    Flag {
        name: "session-addr",
        default: Some("http://127.0.0.1:50051"),
        value: "TARGET",
        help: "Session service: http://host:port, a comma list of them, or kubernetes:///service:port (also service.namespace, and the port by its name), whose pods the cluster's API names",
        section: "Upstream",
    },
    Flag {
        name: "fanout-addr",
        default: Some("http://127.0.0.1:50052"),
        value: "TARGET",
        help: "Fanout service, in the same form",
        section: "Upstream",
    },
    Flag {
        name: "nats-url",
        default: Some("nats://127.0.0.1:4222"),
        value: "URL,...",
        help: "NATS servers that distribute events",
        section: "Upstream",
    },
    Flag { name: "nats-creds", default: None, value: "FILE", help: "Credentials file for NATS", section: "Upstream" },
    Flag {
        name: "advertise-addr",
        default: None,
        value: "HOST:PORT",
        help: "Where other edges reach the peer port; default: its port on POD_IP, else on the first address that is not a wildcard",
        section: "Upstream",
    },
    Flag {
        name: "edge-name",
        default: None,
        value: "NAME",
        help: "This edge's name; default: HOSTNAME, else edge",
        section: "Upstream",
    },
    Flag {
        name: "pod-deletion-cost",
        default: Some("false"),
        value: "",
        help: "Keep the annotation pod-deletion-cost of this pod (POD_NAME) by its connections, so that fewer pods \
               means the emptiest go",
        section: "Kubernetes",
    },
    Flag {
        name: "drain-events",
        default: Some("false"),
        value: "",
        help: "Write Events about this pod (POD_NAME, POD_UID) when its drain begins and ends",
        section: "Kubernetes",
    },
    Flag {
        name: "shed-excess",
        default: Some("false"),
        value: "",
        help: "With 100 connections and above 1.2 times the mean of the edges, close at most 1 % a second down to \
               1.05 times it: clients come back elsewhere",
        section: "Sockets",
    },
];

/// How the edge treats its sockets.
pub const FLAGS: &[Flag] = &[
    Flag {
        name: "threads",
        default: Some("0"),
        value: "N",
        help: "Engine threads; 0: one per core",
        section: "Sockets",
    },
    Flag {
        name: "ping-interval",
        default: Some("20s"),
        value: "TIME",
        help: "Time between pings, 1s to 5m",
        section: "Sockets",
    },
    Flag {
        name: "ping-timeout",
        default: Some("10s"),
        value: "TIME",
        help: "A client that stays silent so long after a ping is gone, 1s to 5m",
        section: "Sockets",
    },
    Flag {
        name: "recovery-window",
        default: Some("120s"),
        value: "TIME",
        help: "A lost connection may be continued so long; 0 is off, at most 1h",
        section: "Sockets",
    },
    Flag {
        name: "drain-window",
        default: Some("25s"),
        value: "TIME",
        help: "At the end connections are closed evenly over this time, at most 1h",
        section: "Sockets",
    },
    Flag {
        name: "allowed-origins",
        default: Some(""),
        value: "ORIGIN,...",
        help: "Pages that may connect, as https://host[:port] or *; empty: only the page's own host",
        section: "Sockets",
    },
    Flag {
        name: "trusted-proxies",
        default: Some(""),
        value: "CIDR,...",
        help: "Proxies whose X-Forwarded-For is believed",
        section: "Sockets",
    },
    Flag {
        name: "forwarded-hops",
        default: Some("1"),
        value: "N",
        help: "Which entry of X-Forwarded-For is the client, counted from its end, 1 to 16",
        section: "Sockets",
    },
    Flag {
        name: "feed-cache-bytes",
        default: Some("67108864"),
        value: "BYTES",
        help: "Memory for the newest events of all rooms, 1 MiB to 16 GiB",
        section: "Sockets",
    },
    Flag {
        name: "open-publish",
        default: None,
        value: "",
        help: "Clients may publish data of the application",
        section: "Sockets",
    },
    Flag {
        name: "message-rate",
        default: Some("10"),
        value: "N",
        help: "Messages a second of one session; 0 is off",
        section: "Limits",
    },
    Flag {
        name: "message-burst",
        default: Some("20"),
        value: "N",
        help: "Messages of one session at once",
        section: "Limits",
    },
    Flag {
        name: "connections-per-address",
        default: Some("0"),
        value: "N",
        help: "Connections from one address; 0 is off",
        section: "Limits",
    },
    Flag {
        name: "max-message-bytes",
        default: Some("65536"),
        value: "BYTES",
        help: "Largest message of a client, 1 KiB to 1 MiB",
        section: "Limits",
    },
];

/// What the edge process listens on and whom it calls.
#[derive(Clone, Debug)]
pub struct Process {
    /// Public listeners; at least one.
    pub listen: Vec<SocketAddr>,
    /// The listener for other edges.
    pub peer_listen: SocketAddr,
    /// `/livez`, `/readyz` and `/metrics`.
    pub admin_listen: SocketAddr,
    /// NATS servers.
    pub nats: NatsOptions,
}

/// How NATS is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsOptions {
    /// Servers, comma-separated.
    pub url: String,
    /// A credentials file.
    pub creds: Option<String>,
}

impl Process {
    /// Reads [`PROCESS_FLAGS`] but for the upstream targets, which [`Config::from_settings`] reads.
    pub fn from_settings(settings: &mut Settings) -> Self {
        Self {
            listen: settings.addrs("listen"),
            peer_listen: settings.addr("peer-listen"),
            admin_listen: settings.addr("admin-listen"),
            nats: NatsOptions { url: settings.text("nats-url"), creds: settings.optional("nats-creds") },
        }
    }
}

/// Settings of [`crate::run::run`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the session service is.
    pub session: Targets,
    /// Where the fanout service is.
    pub fanout: Targets,
    /// This edge's name, 1 to 63 characters, as long as a pod's name gets.
    pub name: String,
    /// `host:port` of the peer listener as other edges reach it; `None`: derived from the listener.
    pub advertise_addr: Option<String>,
    /// Engine threads, 1 to 256.
    pub threads: usize,
    /// Between two pings.
    pub ping_interval: Duration,
    /// Silence after a ping that ends a connection.
    pub ping_timeout: Duration,
    /// How long a lost connection may be continued; zero is off.
    pub recovery_window: Duration,
    /// Connections are closed evenly over this time at the end.
    pub drain_window: Duration,
    /// Connections above the mean of all edges are sent to the others.
    pub shed_excess: bool,
    /// Pages that may connect besides those of the own host.
    pub allowed_origins: Origins,
    /// Proxies whose X-Forwarded-For is believed.
    pub proxies: Proxies,
    /// Bytes for rings and early buffers of all rooms.
    pub feed_cache_bytes: usize,
    /// Clients may publish data.
    pub open_publish: bool,
    /// What is told to Kubernetes.
    pub kubernetes: Kubernetes,
    /// What one client may do.
    pub limits: Limits,
}

/// What the edge tells Kubernetes about its pod.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kubernetes {
    /// What it costs to delete the pod.
    pub deletion_cost: bool,
    /// That it drains.
    pub drain_events: bool,
}

/// Bounds on clients. 0 switches a limit off.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Messages a second of one session.
    pub message_rate: u32,
    /// Messages of one session at once.
    pub message_burst: u32,
    /// Connections from one address.
    pub connections_per_address: u32,
    /// Largest message of a client, in bytes; never off.
    pub max_message_bytes: usize,
}

impl Config {
    /// Reads [`FLAGS`] and the upstream targets of [`PROCESS_FLAGS`]. Problems are noted in `settings`.
    pub fn from_settings(settings: &mut Settings) -> Self {
        let tls = UpstreamTls::from_settings(settings);
        let session = targets(settings, "session-addr", &tls);
        let fanout = targets(settings, "fanout-addr", &tls);
        let name = settings.optional("edge-name");
        let advertise_addr = settings.optional("advertise-addr");
        let kubernetes = Kubernetes {
            deletion_cost: settings.switch("pod-deletion-cost"),
            drain_events: settings.switch("drain-events"),
        };
        let shed_excess = settings.switch("shed-excess");
        Self { kubernetes, shed_excess, ..Self::of_flags(settings, session, fanout, name, advertise_addr) }
    }

    /// Reads [`FLAGS`] alone; the caller knows where the services are.
    pub fn of_flags(
        settings: &mut Settings,
        session: Targets,
        fanout: Targets,
        name: Option<String>,
        advertise_addr: Option<String>,
    ) -> Self {
        let name =
            name.or_else(|| std::env::var("HOSTNAME").ok()).filter(|n| !n.is_empty()).unwrap_or_else(|| "edge".into());
        if name.chars().count() > 63 {
            settings
                .problem("edge-name", format!("it has {} characters; at most 63 are allowed", name.chars().count()));
        }
        let threads = match settings.integer("threads", 0..=256) {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n as usize,
        };
        let origins = settings.list("allowed-origins");
        let allowed_origins = Origins::parse(&origins).unwrap_or_else(|problem| {
            settings.problem("allowed-origins", problem);
            Origins::default()
        });
        let hops = settings.integer("forwarded-hops", 1..=16) as usize;
        let trusted = settings.list("trusted-proxies");
        let proxies = Proxies::parse(&trusted, hops).unwrap_or_else(|problem| {
            settings.problem("trusted-proxies", problem);
            Proxies::default()
        });
        Self {
            session,
            fanout,
            name,
            advertise_addr,
            threads,
            ping_interval: settings.seconds("ping-interval", 1_000..=300_000),
            ping_timeout: settings.seconds("ping-timeout", 1_000..=300_000),
            recovery_window: settings.seconds("recovery-window", 0..=3_600_000),
            drain_window: settings.seconds("drain-window", 0..=3_600_000),
            shed_excess: false,
            allowed_origins,
            proxies,
            feed_cache_bytes: settings.integer("feed-cache-bytes", 1 << 20..=16 << 30) as usize,
            open_publish: settings.switch("open-publish"),
            kubernetes: Kubernetes::default(),
            limits: Limits {
                message_rate: settings.integer("message-rate", 0..=100_000) as u32,
                message_burst: settings.integer("message-burst", 1..=100_000) as u32,
                connections_per_address: settings.integer("connections-per-address", 0..=1_000_000) as u32,
                max_message_bytes: settings.integer("max-message-bytes", 1 << 10..=1 << 20) as usize,
            },
        }
    }
}

/// The targets of a flag. A bad value is noted, and the process ends before anybody is called.
fn targets(settings: &mut Settings, name: &'static str, tls: &UpstreamTls) -> Targets {
    let parsed = settings.parsed(name, |text| tls.apply(Targets::parse(text)?));
    parsed.unwrap_or_else(|| Targets::parse("http://127.0.0.1:1").expect("a literal address is well-formed"))
}
