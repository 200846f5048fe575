//! Who is called, for `server.address` and `server.port`. Pure.

use std::sync::Arc;

use http::uri::Authority;
use opentelemetry::{KeyValue, Value};

/// The server of a call as the settings name it: behind a balancer that is known, the peer may not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    address: Arc<str>,
    /// `None` for several addresses, and for a port that has a name only.
    port: Option<u16>,
}

impl Server {
    /// One host or Service.
    pub fn new(address: &str, port: Option<u16>) -> Self {
        Self { address: address.into(), port }
    }

    /// Several addresses that serve as one: together they are the address, and there is no port.
    pub fn of_list(addresses: &[String]) -> Self {
        Self { address: addresses.join(",").into(), port: None }
    }

    /// Who a caller named in its request.
    pub fn of_authority(authority: &Authority) -> Self {
        Self::new(authority.host().trim_matches(['[', ']']), authority.port_u16())
    }

    /// The hosts of a URL, or of several separated by commas; never its user, password, path or query.
    /// `None`: it has none.
    pub fn of_urls(urls: &str, default_port: u16) -> Option<Self> {
        let hosts: Vec<Authority> = urls.split(',').map(authority).collect::<Option<_>>()?;
        let port = |host: &Authority| host.port_u16().unwrap_or(default_port);
        match &hosts[..] {
            [host] => Some(Self { port: Some(port(host)), ..Self::of_authority(host) }),
            hosts => {
                let hosts: Vec<_> = hosts.iter().map(|host| format!("{}:{}", host.host(), port(host))).collect();
                Some(Self::of_list(&hosts))
            }
        }
    }

    /// Its attributes.
    pub(super) fn attributes(&self) -> impl Iterator<Item = KeyValue> {
        let port = self.port.map(|port| KeyValue::new("server.port", i64::from(port)));
        let address = KeyValue::new("server.address", Value::from(Arc::clone(&self.address)));
        [Some(address), port].into_iter().flatten()
    }
}

/// `host:port` or `host` of a URL.
fn authority(url: &str) -> Option<Authority> {
    let url = url.trim();
    // The last `@`: what stands before it, whatever it is, may be a secret.
    let rest =
        url.rsplit_once('@').map_or_else(|| url.split_once("://").map_or(url, |(_, rest)| rest), |(_, rest)| rest);
    rest.split(['/', '?', '#']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_what_the_url_names_without_its_secrets() {
        for (urls, address, port) in [
            ("nats://127.0.0.1:4222", "127.0.0.1", Some(4_222)),
            ("rediss://app:s%40crt@redis.example:6380/3", "redis.example", Some(6_380)),
            ("nats://to/ken?@nats", "nats", Some(7)),
            ("redis://[::1]/0", "::1", Some(7)),
            ("nats://u:p@a:1, nats://u:p@b", "a:1,b:7", None),
            ("redis+sentinel://:p@[::1]:1,b:2/main?sentinel-password=s", "[::1]:1,b:2", None),
        ] {
            assert_eq!(Server::of_urls(urls, 7), Some(Server::new(address, port)), "{urls}");
        }
        assert_eq!(Server::of_urls("nats://", 7), None);
    }

    #[test]
    fn a_named_port_is_left_out() {
        let names = |server: Server| server.attributes().map(|pair| pair.key.to_string()).collect::<Vec<_>>();
        assert_eq!(names(Server::new("rooms-session", None)), ["server.address"]);
        assert_eq!(names(Server::new("rooms-session", Some(1))), ["server.address", "server.port"]);
    }
}
