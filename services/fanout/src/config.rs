//! Flags of `plaza-fanout` and what they fill.

use plaza_kit::settings::{Flag, Settings};
use std::net::SocketAddr;
use std::time::Duration;

const STORE: &str = "Store";

/// Where to listen: only the process of its own reads these, `plaza` has flags of its own for it.
pub const LISTEN_FLAGS: &[Flag] = &[
    Flag {
        name: "listen",
        default: Some("0.0.0.0:50052"),
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

/// The flags of the room log.
pub const FLAGS: &[Flag] = &[
    Flag {
        name: "nats-url",
        default: None,
        value: "URL",
        help: "NATS servers, comma separated, such as nats://127.0.0.1:4222; 2.11 or newer, with JetStream",
        section: STORE,
    },
    Flag {
        name: "nats-creds",
        default: None,
        value: "FILE",
        help: "NATS credentials file; read once, at start",
        section: STORE,
    },
    Flag {
        name: "nats-replicas",
        default: Some("1"),
        value: "N",
        help: "Copies of the stream: 1, 3 or 5; 3 or more survive a lost server",
        section: STORE,
    },
    Flag {
        name: "nats-max-bytes",
        default: Some("1073741824"),
        value: "BYTES",
        help: "Size of the stream, at most 80 % of the volume; beyond, the oldest events go",
        section: STORE,
    },
    Flag {
        name: "history-per-room",
        default: Some("1000"),
        value: "N",
        help: "The newest events kept of each room",
        section: STORE,
    },
    Flag {
        name: "history-age",
        default: Some("604800"),
        value: "SECONDS",
        help: "How long an event is kept",
        section: STORE,
    },
    Flag {
        name: "dedupe-window",
        default: Some("120"),
        value: "SECONDS",
        help: "How long a message id is remembered, so that a retry is stored once",
        section: STORE,
    },
];

/// Settings of the room log.
#[derive(Clone, Debug)]
pub struct Config {
    /// NATS servers, comma separated. `None`: only a log handed in by [`crate::Parts`] works.
    pub nats_url: Option<String>,
    /// Path of the credentials file.
    pub nats_creds: Option<String>,
    /// Copies of the stream.
    pub nats_replicas: usize,
    /// Bound of the stream, in bytes.
    pub max_bytes: u64,
    /// The newest events kept of each room.
    pub history_per_room: usize,
    /// How long an event is kept.
    pub history_age: Duration,
    /// How long a message id is remembered.
    pub dedupe_window: Duration,
}

impl Config {
    /// Reads its flags; a bad value is noted in `settings`, which reports all of them together.
    pub fn from_settings(settings: &mut Settings) -> Self {
        let config = Self {
            nats_url: settings.optional("nats-url"),
            nats_creds: settings.optional("nats-creds"),
            nats_replicas: to_usize(settings.integer("nats-replicas", 1..=5)),
            max_bytes: settings.integer("nats-max-bytes", 1 << 20..=1 << 50),
            history_per_room: to_usize(settings.integer("history-per-room", 1..=1_000)),
            history_age: settings.seconds("history-age", 60_000..=10 * 365 * DAY_MS),
            dedupe_window: settings.seconds("dedupe-window", 100..=DAY_MS),
        };
        if !matches!(config.nats_replicas, 1 | 3 | 5) {
            settings.problem("nats-replicas", format!("is {}; 1, 3 or 5 are allowed", config.nats_replicas));
        }
        if config.dedupe_window > config.history_age {
            settings.problem("dedupe-window", "is longer than history-age; at most as long is allowed".to_owned());
        }
        config
    }

    /// The bounds of a log in memory under the same settings.
    pub fn memory_options(&self) -> crate::MemoryOptions {
        crate::MemoryOptions {
            history_per_room: self.history_per_room,
            history_age: self.history_age,
            dedupe_window: self.dedupe_window,
            ..crate::MemoryOptions::default()
        }
    }
}

/// Where a process of its own listens.
#[derive(Clone, Copy, Debug)]
pub struct Listen {
    /// The gRPC API.
    pub grpc: SocketAddr,
    /// Admin routes.
    pub admin: SocketAddr,
}

impl Listen {
    /// Reads [`LISTEN_FLAGS`].
    pub fn from_settings(settings: &mut Settings) -> Self {
        Self { grpc: settings.addr("listen"), admin: settings.addr("admin-listen") }
    }
}

const DAY_MS: u64 = 24 * 3600 * 1000;

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
