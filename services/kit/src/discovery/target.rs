//! What `--session-addr` may say, and what it means.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use http::uri::{Authority, Scheme};
use tonic::transport::Uri;

use crate::trace::Server;

/// The prefix of a target that the cluster's API resolves.
const CLUSTER: &str = "kubernetes:///";

/// Longest name of a Service or a namespace (RFC 1123 label).
const LABEL: usize = 63;

/// One item of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `http://host:port`.
    Host(Host),
    /// `kubernetes:///service:port`.
    Service(Service),
}

/// A name that DNS resolves, or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
}

/// A Service whose pods are called one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) name: String,
    /// `None`: the namespace of this process.
    pub(super) namespace: Option<String>,
    pub(super) port: Port,
}

/// Which port of a pod is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Port {
    /// This one, whatever the Service maps.
    Number(u16),
    /// The one that the Service gives this name.
    Name(String),
}

impl Target {
    /// The name that a certificate must be for.
    pub(super) fn tls_name(&self) -> String {
        match self {
            Self::Host(host) => host.host.clone(),
            Self::Service(service) => service.tls_name(),
        }
    }

    /// What spans of calls tell of it.
    pub(super) fn server(&self) -> Server {
        match self {
            Self::Host(host) => Server::new(&host.host, Some(host.port)),
            Self::Service(service) => {
                let port = if let Port::Number(port) = service.port { Some(port) } else { None };
                Server::new(&service.dns_name(), port)
            }
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with("kubernetes:") {
            return Service::parse(text).map(Self::Service);
        }
        Host::parse(text).map(Self::Host)
    }
}

impl Host {
    fn parse(text: &str) -> Result<Self, String> {
        let example = "write http://host:port, such as http://127.0.0.1:50051";
        let uri: Uri = text.parse().map_err(|_| format!("`{text}` is not an address; {example}"))?;
        let tls = uri.scheme() == Some(&Scheme::HTTPS);
        if !tls && uri.scheme() != Some(&Scheme::HTTP) {
            return Err(format!("`{text}` does not begin with http:// or https://; {example}"));
        }
        let authority = uri.authority().map_or("", Authority::as_str);
        if authority.contains('@') || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(format!("`{text}` has more than a host and a port; {example}"));
        }
        let (Some(host), Some(port)) = (uri.host(), uri.port_u16()) else {
            return Err(format!("`{text}` has no port; {example}"));
        };
        Ok(Self { host: host.trim_matches(['[', ']']).to_owned(), port, tls })
    }

    /// The address, when the host is one and not a name.
    pub(super) fn literal(&self) -> Option<SocketAddr> {
        let ip: IpAddr = self.host.parse().ok()?;
        Some(SocketAddr::new(ip, self.port))
    }
}

impl Service {
    fn parse(text: &str) -> Result<Self, String> {
        let example = "write kubernetes:///service:port or kubernetes:///service.namespace:port";
        let Some((name, port)) = text.strip_prefix(CLUSTER).and_then(|rest| rest.split_once(':')) else {
            return Err(format!("`{text}` does not name a Service and its port; {example}"));
        };
        let (name, namespace) = match name.split_once('.') {
            Some((name, namespace)) => (name, Some(namespace)),
            None => (name, None),
        };
        if !is_label(name) || !namespace.is_none_or(is_label) {
            return Err(format!("`{text}` is not the name of a Service; {example}"));
        }
        let port = match port.parse() {
            Ok(number) if number > 0 => Port::Number(number),
            Err(_) if is_label(port) && port.bytes().any(|byte| byte.is_ascii_lowercase()) => {
                Port::Name(port.to_owned())
            }
            Ok(_) | Err(_) => {
                return Err(format!("`{text}` has no port; {example}, the port by its number or its name"));
            }
        };
        Ok(Self { name: name.to_owned(), namespace: namespace.map(str::to_owned), port })
    }

    /// The name in the certificate of its pods: as far as it was written, and `.svc` behind a namespace.
    fn tls_name(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{}.{namespace}.svc", self.name),
            None => self.name.clone(),
        }
    }

    /// What DNS knows of the pods; nothing by a port's name.
    pub(super) fn by_dns(&self) -> Option<Host> {
        let Port::Number(port) = self.port else { return None };
        Some(Host { host: self.dns_name(), port, tls: false })
    }

    fn dns_name(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{}.{namespace}", self.name),
            None => self.name.clone(),
        }
    }
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=LABEL).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{CLUSTER}{}", self.name)?;
        if let Some(namespace) = &self.namespace {
            write!(f, ".{namespace}")?;
        }
        match &self.port {
            Port::Number(port) => write!(f, ":{port}"),
            Port::Name(port) => write!(f, ":{port}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => host.fmt(f),
            Self::Service(service) => service.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_reads_as_it_was_written() {
        for text in ["kubernetes:///rooms-session:50051", "kubernetes:///fanout.chat:grpc"] {
            match Target::parse(text).unwrap() {
                Target::Service(service) => assert_eq!(service.to_string(), text),
                Target::Host(host) => panic!("{host} is a Service"),
            }
        }
        let Ok(Target::Host(host)) = Target::parse("http://[::1]:5") else { panic!("it is a host") };
        assert_eq!(host.literal(), Some("[::1]:5".parse().unwrap()));
    }

    #[test]
    fn spans_tell_what_was_written() {
        for (text, address, port) in [
            ("http://127.0.0.1:5", "127.0.0.1", Some(5)),
            ("kubernetes:///rooms-session:50051", "rooms-session", Some(50_051)),
            ("kubernetes:///fanout.chat:grpc", "fanout.chat", None),
        ] {
            assert_eq!(Target::parse(text).unwrap().server(), Server::new(address, port));
        }
    }

    #[test]
    fn wrong_targets_say_what_is_right() {
        for (text, part) in [
            ("localhost:50051", "http://"),
            ("ftp://host:1", "does not begin with http:// or https://"),
            ("http://host", "has no port"),
            ("http://host:1/path", "more than a host and a port"),
            ("http://user@host:1", "more than a host and a port"),
            ("kubernetes://session:50051", "write kubernetes:///service:port"),
            ("kubernetes:///session", "does not name a Service and its port"),
            ("kubernetes:///session:", "has no port"),
            ("kubernetes:///session:0", "has no port"),
            ("kubernetes:///session:70000", "has no port"),
            ("kubernetes:///Session:1", "not the name of a Service"),
            ("kubernetes:///session.a.b:1", "not the name of a Service"),
            ("kubernetes:///:1", "not the name of a Service"),
        ] {
            let error = Target::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn dns_knows_the_pods_of_a_numbered_port() {
        let host = |text: &str| match Target::parse(text).unwrap() {
            Target::Service(service) => service.by_dns().map(|host| host.to_string()),
            Target::Host(host) => panic!("{host} is a Service"),
        };
        assert_eq!(host("kubernetes:///session:50051").as_deref(), Some("session:50051"));
        assert_eq!(host("kubernetes:///session.chat:50051").as_deref(), Some("session.chat:50051"));
        assert_eq!(host("kubernetes:///session:grpc"), None);
    }
}
