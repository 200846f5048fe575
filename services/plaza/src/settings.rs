//! The settings of all parts, read together so that every wrong one is reported at once.

use plaza_kit::discovery::Targets;
use plaza_kit::grpc::{GRPC_FLAGS, GrpcOptions};
use plaza_kit::settings::{Flag, Settings};
use plaza_kit::telemetry;
use std::net::SocketAddr;

const LISTENING: &str = "Listening";

/// Flags of this program. They stand before those of the parts: of two with one name the first counts.
const FLAGS: &[Flag] = &[
    Flag {
        name: "listen",
        default: Some("127.0.0.1:5000"),
        value: "ADDR,...",
        help: "Public HTTP and sockets; for 127.0.0.1 also on [::1]. 0.0.0.0:5000 lets others in",
        section: LISTENING,
    },
    Flag {
        name: "session-listen",
        default: Some("127.0.0.1:50051"),
        value: "ADDR",
        help: "gRPC of the session service",
        section: LISTENING,
    },
    Flag {
        name: "fanout-listen",
        default: Some("127.0.0.1:50052"),
        value: "ADDR",
        help: "gRPC of the fanout service",
        section: LISTENING,
    },
    Flag {
        name: "admin-listen",
        default: Some("127.0.0.1:9090"),
        value: "ADDR",
        help: "/livez, /readyz and /metrics of all parts",
        section: LISTENING,
    },
    Flag {
        name: "reflection",
        default: Some("true"),
        value: "",
        help: "Answer gRPC reflection, so that grpcurl needs no .proto files",
        section: "gRPC",
    },
    Flag {
        name: "message-rate",
        default: Some("0"),
        value: "N",
        help: "Messages a second of one session; 0 is off",
        section: "Limits",
    },
    Flag {
        name: "drain-window",
        default: Some("1s"),
        value: "TIME",
        help: "At the end connections are closed evenly over this time, at most 1h",
        section: "Sockets",
    },
];

/// Everything that the parts are told.
#[derive(Debug)]
pub(crate) struct All {
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) session_listen: SocketAddr,
    pub(crate) fanout_listen: SocketAddr,
    pub(crate) admin_listen: SocketAddr,
    pub(crate) grpc: GrpcOptions,
    pub(crate) edge: plaza_edge::config::Config,
    pub(crate) session: plaza_session::Config,
    pub(crate) fanout: plaza_fanout::Config,
}

/// The tables of all parts; of two flags with one name the first counts.
pub(crate) fn tables() -> [&'static [Flag]; 6] {
    [FLAGS, plaza_edge::config::FLAGS, plaza_session::FLAGS, plaza_fanout::FLAGS, GRPC_FLAGS, telemetry::LOG_FLAGS]
}

impl All {
    pub(crate) fn from_settings(settings: &mut Settings) -> Self {
        for name in ["tls-cert", "tls-key", "tls-client-ca"] {
            if settings.optional(name).is_some() {
                let why = "has no use here: the parts of this program speak plain gRPC to each other on its own \
                           listeners; run plaza-session and plaza-fanout for TLS";
                settings.problem(name, why.to_owned());
            }
        }
        // The parts find each other on the listeners of this process, whose ports may be the kernel's.
        let later = Targets::parse("http://127.0.0.1:1").expect("a literal address is well-formed");
        Self {
            listen: settings.addrs("listen"),
            session_listen: settings.addr("session-listen"),
            fanout_listen: settings.addr("fanout-listen"),
            admin_listen: settings.addr("admin-listen"),
            grpc: GrpcOptions {
                reflection: settings.switch("reflection"),
                max_connection_age: settings.seconds("max-connection-age", 0..=86_400_000),
                tls: None,
            },
            edge: plaza_edge::config::Config::of_flags(settings, later.clone(), later, None, None),
            session: plaza_session::Config::of_flags(settings, None),
            fanout: plaza_fanout::Config::from_settings(settings),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        Settings::from_pairs(&tables(), pairs)
    }

    #[test]
    fn it_starts_without_any_setting() {
        let mut settings = settings(&[]);
        let all = All::from_settings(&mut settings);
        assert_eq!(settings.finish().map_err(|problems| problems.to_string()), Ok(()));
        assert_eq!(all.edge.limits.message_rate, 0, "limits are for strangers");
        assert!(all.grpc.reflection);
        assert!(all.session.redis_url.is_none() && all.fanout.nats_url.is_none());
    }

    #[test]
    fn tls_is_refused_as_the_parts_would_not_reach_each_other() {
        let names = ["tls-cert", "tls-key", "tls-client-ca"];
        let mut settings = settings(&names.map(|name| (name, "file.pem")));
        All::from_settings(&mut settings);
        let problems = settings.finish().expect_err("none has a use").to_string();
        for name in names {
            assert!(problems.contains(&format!("--{name}: has no use here")), "{name} in {problems}");
        }
    }

    #[test]
    fn wrong_settings_of_all_parts_are_reported_at_once() {
        let mut settings = settings(&[("listen", "nowhere"), ("ping-interval", "1h"), ("nats-replicas", "2")]);
        All::from_settings(&mut settings);
        let problems = settings.finish().expect_err("three are wrong").to_string();
        for name in ["listen", "ping-interval", "nats-replicas"] {
            assert!(problems.contains(name), "{name} in {problems}");
        }
    }
}
