//! What a person sees first: where to go, and what will be gone afterwards.

use std::fmt;
use std::io::Write;
use std::net::SocketAddr;

/// Where everything is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Banner {
    pub(crate) public: SocketAddr,
    pub(crate) session: SocketAddr,
    pub(crate) fanout: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) reflection: bool,
    pub(crate) redis: bool,
    pub(crate) nats: bool,
}

impl Banner {
    /// Writes it to standard output; a closed output is no reason to stop.
    pub(crate) fn print(&self) {
        let mut out = std::io::stdout().lock();
        let _closed = writeln!(out, "{self}").and_then(|()| out.flush());
    }
}

impl fmt::Display for Banner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { public, session, fanout, admin, .. } = self;
        let reflection = if self.reflection { "  (reflection is on: grpcurl -plaintext ... list)" } else { "" };
        writeln!(f)?;
        writeln!(f, "  Plaza is open at  http://{public}")?;
        writeln!(f)?;
        writeln!(f, "  Socket.IO         http://{public}/socket.io/")?;
        writeln!(f, "  Plaza's protocol  ws://{public}/ws")?;
        writeln!(f, "  gRPC              session {session}, fanout {fanout}{reflection}")?;
        writeln!(f, "  Health, metrics   http://{admin}/readyz  http://{admin}/metrics")?;
        match (self.redis, self.nats) {
            (true, true) => {}
            (true, false) => writeln!(f, "  In memory only    messages; --nats-url keeps them")?,
            (false, true) => writeln!(f, "  In memory only    sessions and names; --redis-url keeps them")?,
            (false, false) => {
                writeln!(f, "  In memory only    messages, sessions and names; --nats-url and --redis-url keep them")?;
            }
        }
        writeln!(f)?;
        writeln!(f, "  Ctrl-C ends it.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_where_to_go_and_what_will_be_gone() {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let mut banner = Banner {
            public: at(5000),
            session: at(50051),
            fanout: at(50052),
            admin: at(9090),
            reflection: true,
            redis: false,
            nats: true,
        };
        let text = banner.to_string();
        assert!(text.contains("http://127.0.0.1:5000\n"), "{text}");
        assert!(text.contains("In memory only    sessions and names; --redis-url"), "{text}");
        banner.redis = true;
        assert!(!banner.to_string().contains("In memory"));
    }
}
