//! How to reach NATS, and connections that fail as we want them to.

use crate::Config;
use async_nats::{Client, ConnectOptions, Statistics};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Half-open connections are found after three of these.
const PING: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest pause between two attempts to connect.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(2);
/// Inboxes differ by service, so that rights can tell them apart.
const INBOX: &str = "_INBOX_fanout";

/// What the log needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Comma separated.
    pub(super) url: String,
    pub(super) creds: Option<String>,
    pub(super) replicas: usize,
    pub(super) max_bytes: u64,
    pub(super) history_per_room: u64,
    pub(super) history_age: Duration,
    pub(super) dedupe_window: Duration,
}

impl Options {
    /// The part of the settings that concerns NATS; `None` without a URL.
    pub fn new(config: &Config) -> Option<Self> {
        Some(Self {
            url: config.nats_url.clone()?,
            creds: config.nats_creds.clone(),
            replicas: config.nats_replicas,
            max_bytes: config.max_bytes,
            history_per_room: config.history_per_room as u64,
            history_age: config.history_age,
            dedupe_window: config.dedupe_window,
        })
    }

    /// The servers without user and password, for logs.
    pub(super) fn shown_url(&self) -> String {
        let bare = |url: &str| match url.split_once("://") {
            Some((scheme, rest)) => format!("{scheme}://{}", rest.rsplit('@').next().unwrap_or(rest)),
            None => url.rsplit('@').next().unwrap_or(url).to_owned(),
        };
        self.url.split(',').map(|url| bare(url.trim())).collect::<Vec<_>>().join(",")
    }
}

/// A connection that is renewed for ever.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) client: Client,
    statistics: Arc<Statistics>,
}

impl Connection {
    /// A connection that is made in the background and renewed for ever.
    ///
    /// # Errors
    /// The URL or the credentials are not understood; never that the server is away.
    pub(super) async fn open(options: &Options, name: &str, capacity: usize) -> Result<Self, std::io::Error> {
        let mut connect = ConnectOptions::new()
            .name(format!("plaza-fanout {name}"))
            .custom_inbox_prefix(INBOX)
            .ping_interval(PING)
            .connection_timeout(CONNECT_TIMEOUT)
            .subscription_capacity(capacity)
            .retry_on_initial_connect()
            .reconnect_delay_callback(reconnect_delay);
        if let Some(path) = &options.creds {
            connect = connect.credentials_file(path).await?;
        }
        let urls: Vec<&str> = options.url.split(',').map(str::trim).collect();
        let client = connect.connect(urls).await.map_err(std::io::Error::other)?;
        let statistics = client.statistics();
        Ok(Self { client, statistics })
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    /// How often it was made. The library counts before anything passes on the new one: whoever sees the
    /// same number before and after an exchange has spoken with one server on one connection.
    pub(super) fn connects(&self) -> u64 {
        self.statistics.connects.load(Ordering::Relaxed)
    }
}

fn reconnect_delay(attempts: usize) -> Duration {
    let step = u32::try_from(attempts).unwrap_or(u32::MAX).min(20);
    let delay = (Duration::from_millis(100) * step).min(MAX_RECONNECT_DELAY);
    delay.mul_f64(0.75 + fastrand::f64() / 4.0)
}
