//! Which Redis a `--redis-url` names, and connections to it.
//!
//! | URL | what it names | when a server dies |
//! |---|---|---|
//! | `redis://host:port/db` | one server, or a Service that leads to one | the connection is made anew |
//! | `redis+sentinel://a:26379,b:26379,c:26379/name/db` | the master that the sentinels know by this name | they are asked again |
//! | `redis://a:6379,b:6379`, or `redis+cluster://a:6379` | a cluster that has these nodes | its other nodes tell the new map |
//!
//! With `rediss` in place of `redis`: TLS to servers and sentinels. User and password of the servers stand before the
//! hosts, those of the sentinels behind a question mark. Nothing of a URL gets into a message: it may hold a password.

use super::script::{By, Script};
use futures_util::future::select_ok;
use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterConfig};
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo, RedisResult, TlsMode, Value};
use std::time::Duration;

/// Longest wait for one answer on a connection.
const RESPONSE: Duration = Duration::from_millis(500);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(1);
/// The most servers that one URL names.
const MAX_HOSTS: usize = 16;

/// Where the store is.
#[derive(Debug)]
pub(super) enum Target {
    One(Box<Client>),
    Sentinels {
        /// Each with its own user and password.
        sentinels: Vec<ConnectionInfo>,
        name: String,
        /// How to speak to the servers that the sentinels name.
        master: SentinelNodeConnectionInfo,
        /// Their database.
        database: i64,
    },
    Cluster(Box<ClusterClient>),
}

/// A connection that can be cloned: all clones are one.
#[derive(Clone)]
pub(super) enum Connection {
    /// Makes itself anew.
    One(ConnectionManager),
    /// Ends with its server.
    Master(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Target {
    /// Reads a URL.
    ///
    /// # Errors
    /// A sentence that says what is taken.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let wrong = || {
            "is no URL of Redis, such as redis://127.0.0.1:6379, redis://a:6379,b:6379 for a cluster, or \
             redis+sentinel://a:26379,b:26379,c:26379/mymaster"
                .to_owned()
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let tls = scheme.starts_with("rediss");
        match (scheme, rest.contains(',')) {
            ("redis" | "rediss", false) => {
                let client = url.into_connection_info().and_then(Client::open);
                client.map(|client| Self::One(client.into())).map_err(|_| wrong())
            }
            ("redis" | "rediss", true) | ("redis+cluster" | "rediss+cluster", _) => {
                let nodes = Hosts::parse(rest, tls).ok_or_else(wrong)?.servers(6_379)?;
                let builder = ClusterClient::builder(nodes).connection_timeout(CONNECT).response_timeout(RESPONSE);
                let client = builder.retries(1).build();
                client
                    .map(|client| Self::Cluster(client.into()))
                    .map_err(|_| "names nodes that cannot be of one cluster".to_owned())
            }
            ("redis+sentinel" | "rediss+sentinel", _) => Self::sentinels(rest, tls),
            _ => Err(wrong()),
        }
    }

    fn sentinels(rest: &str, tls: bool) -> Result<Self, String> {
        let wrong = || {
            "has a part that is not understood; sentinels are named like \
                        redis+sentinel://a:26379,b:26379,c:26379/mymaster?sentinel-password=secret"
                .to_owned()
        };
        let mut hosts = Hosts::parse(rest, tls).ok_or_else(wrong)?;
        let (name, db) = hosts.path.split_once('/').unwrap_or((hosts.path, ""));
        if name.is_empty() {
            return Err("names sentinels and no master: its name follows the hosts, as in \
                        redis+sentinel://a:26379,b:26379,c:26379/mymaster"
                .to_owned());
        }
        let name = name.to_owned();
        hosts.path = db;
        let master = hosts.servers(6_379)?.into_iter().next().ok_or_else(wrong)?;
        let sentinel_user = hosts.sentinel_user().ok_or_else(wrong)?;
        (hosts.user, hosts.path) = (sentinel_user, "");
        let database = master.redis_settings().db();
        let node = SentinelNodeConnectionInfo::default().set_redis_connection_info(master.redis_settings().clone());
        let master = if tls { node.set_tls_mode(TlsMode::Secure) } else { node };
        Ok(Self::Sentinels { sentinels: hosts.servers(26_379)?, name, master, database })
    }

    /// The number of the database; a cluster has no other than 0.
    pub(super) fn database(&self) -> i64 {
        match self {
            Self::One(client) => client.get_connection_info().redis_settings().db(),
            Self::Sentinels { database, .. } => *database,
            Self::Cluster(_) => 0,
        }
    }

    /// A connection, made with the first command where that is possible.
    pub(super) async fn connect(&self) -> RedisResult<Connection> {
        match self {
            Self::One(client) => {
                let config = ConnectionManagerConfig::new()
                    .set_response_timeout(Some(RESPONSE))
                    .set_connection_timeout(Some(CONNECT))
                    .set_min_delay(Duration::from_millis(100))
                    .set_max_delay(Duration::from_secs(1))
                    .set_number_of_retries(1);
                ConnectionManager::new_lazy_with_config(Client::clone(client), config).map(Connection::One)
            }
            Self::Sentinels { sentinels, name, master, .. } => {
                // The first that knows a living master: one that is away must not use up the time.
                let ask = |sentinel: &ConnectionInfo| {
                    let sentinel = sentinel.clone();
                    let asked = async move {
                        let kind = SentinelServerType::Master;
                        let mut client = SentinelClient::build(vec![sentinel], name, Some(master.clone()), kind)?;
                        client.async_get_client().await
                    };
                    Box::pin(asked)
                };
                let (client, _) = select_ok(sentinels.iter().map(ask)).await?;
                let config = AsyncConnectionConfig::new()
                    .set_response_timeout(Some(RESPONSE))
                    .set_connection_timeout(Some(CONNECT));
                client.get_multiplexed_async_connection_with_config(&config).await.map(Connection::Master)
            }
            Self::Cluster(client) => {
                Ok(Connection::Cluster(client.get_pending_async_connection_with_config(ClusterConfig::new())))
            }
        }
    }
}

impl Connection {
    /// Runs a script whose keys all have the hash tag of `key`.
    pub(super) async fn run(&mut self, script: &Script, key: &str, args: &[Vec<u8>], by: By) -> RedisResult<Value> {
        match self {
            Self::One(connection) => script.run(connection, key, args, by).await,
            Self::Master(connection) => script.run(connection, key, args, by).await,
            Self::Cluster(connection) => script.run(connection, key, args, by).await,
        }
    }

    /// Whether it finds by itself to a server that answers.
    pub(super) const fn renews_itself(&self) -> bool {
        // A cluster's map may be so old that no node of it lives: the URL's nodes are asked again.
        matches!(self, Self::One(_))
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::One(_) => "One",
            Self::Master(_) => "Master",
            Self::Cluster(_) => "Cluster",
        })
    }
}

/// The parts of a URL that names several servers.
struct Hosts<'a> {
    tls: bool,
    /// `user:password`, or nothing.
    user: String,
    /// `host:port` or `host`.
    hosts: Vec<&'a str>,
    /// What follows the first slash, without it.
    path: &'a str,
    query: &'a str,
}

impl<'a> Hosts<'a> {
    fn parse(rest: &'a str, tls: bool) -> Option<Self> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        // Of a list of whole URLs the first one tells how to speak to all of them.
        let mut parts = rest.split(',').map(str::trim);
        let (first, path) = split_path(parts.next()?);
        let (user, first) = first.rsplit_once('@').unwrap_or(("", first));
        let (mut hosts, mut path) = (vec![first], path);
        for part in parts {
            let (scheme, part) = part.split_once("://").unwrap_or((if tls { "rediss" } else { "redis" }, part));
            let (host, own_path) = split_path(part);
            let (own_user, host) = host.rsplit_once('@').unwrap_or((user, host));
            if scheme.starts_with("rediss") != tls || own_user != user {
                return None;
            }
            path = if own_path.is_empty() { path } else { own_path };
            hosts.push(host);
        }
        let whole = hosts.len() <= MAX_HOSTS && hosts.iter().all(|host| !host.is_empty());
        whole.then(|| Self { tls, user: user.to_owned(), hosts, path, query })
    }

    /// `user:password` for the sentinels; `None` when the query has something else.
    fn sentinel_user(&self) -> Option<String> {
        let (mut user, mut password) = ("", "");
        for pair in self.query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=')? {
                ("sentinel-user", value) => user = value,
                ("sentinel-password", value) => password = value,
                _ => return None,
            }
        }
        Some(if password.is_empty() { String::new() } else { format!("{user}:{password}") })
    }

    /// Each as an address with user, password and database.
    fn servers(&self, default_port: u16) -> Result<Vec<ConnectionInfo>, String> {
        let server = |host: &&str| {
            let scheme = if self.tls { "rediss" } else { "redis" };
            let at = if self.user.is_empty() { "" } else { "@" };
            let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            let port = if has_port { String::new() } else { format!(":{default_port}") };
            let url = format!("{scheme}://{}{at}{host}{port}/{}", self.user, self.path);
            url.into_connection_info().map_err(|_| "has a host, user or database that is not understood".to_owned())
        };
        self.hosts.iter().map(server).collect()
    }
}

fn split_path(text: &str) -> (&str, &str) {
    text.split_once('/').unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(infos: &[ConnectionInfo]) -> Vec<String> {
        infos.iter().map(|info| info.addr().to_string()).collect()
    }

    #[test]
    fn one_server_sentinels_and_clusters_are_told_apart() {
        assert!(matches!(Target::parse("redis://127.0.0.1:6379"), Ok(Target::One(_))));
        assert!(matches!(Target::parse("rediss://:secret@redis.example:6380/0"), Ok(Target::One(_))));
        for url in ["redis://a:1,b:2", "redis://a:1,redis://b:2", "redis+cluster://a", "rediss://u:p@a,rediss://u:p@b"]
        {
            assert!(matches!(Target::parse(url), Ok(Target::Cluster(_))), "{url}");
        }
        let url = "redis+sentinel://app:s%40crt@a,b:7000,[::1]:7001/chat/3?sentinel-user=w&sentinel-password=p%2Fw";
        let Ok(Target::Sentinels { sentinels, name, .. }) = Target::parse(url) else { panic!("sentinels") };
        assert_eq!(addresses(&sentinels), ["a:26379", "b:7000", "::1:7001"]);
        assert_eq!(name, "chat");
        let of_sentinel = sentinels[0].redis_settings();
        assert_eq!((of_sentinel.username(), of_sentinel.password(), of_sentinel.db()), (Some("w"), Some("p/w"), 0));
    }

    #[test]
    fn users_and_databases_go_to_the_servers_and_not_to_the_sentinels() {
        let hosts = Hosts::parse("app:s%40crt@a,b/3", false).expect("two hosts");
        let servers = hosts.servers(6_379).expect("addresses");
        for server in &servers {
            let settings = server.redis_settings();
            assert_eq!((settings.username(), settings.password(), settings.db()), (Some("app"), Some("s@crt"), 3));
        }
    }

    #[test]
    fn what_is_no_url_is_refused_without_repeating_it() {
        let many = format!("redis://{}", vec!["a"; 17].join(","));
        let wrong = [
            "127.0.0.1:6379",
            "http://hunter2",
            "redis://",
            "redis://a,,b",
            "redis://:hunter2@a,:other@b",
            "redis://a,rediss://b",
            "redis://a/x,b",
            "redis+sentinel://a:1,b:2",
            "redis+sentinel://:hunter2@a:1/m?password=hunter2",
            "redis+sentinel://a:1/m/x",
            &many,
        ];
        for url in wrong {
            let message = Target::parse(url).expect_err(url);
            assert!(!message.contains("hunter2"), "{message}");
        }
        assert!(Target::parse("redis+sentinel://a:1,b:2").is_err_and(|m| m.contains("/mymaster")));
    }
}
