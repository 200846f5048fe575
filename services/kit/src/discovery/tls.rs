//! TLS towards the services that a program calls.

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::Targets;
use super::target::Target;
use crate::settings::{Flag, Settings};

const SECTION: &str = "Upstream";

/// The flags of [`UpstreamTls::from_settings`].
pub const UPSTREAM_TLS_FLAGS: &[Flag] = &[
    Flag {
        name: "upstream-ca",
        default: None,
        value: "FILE",
        help: "Authorities (PEM) of the session and fanout services: with them they are called by TLS, at https://host:port \
               or kubernetes:///service:port. Their certificates carry the host, or the Service's name; \
               of kubernetes:///service.namespace:port, service.namespace.svc",
        section: SECTION,
    },
    Flag {
        name: "upstream-cert",
        default: None,
        value: "FILE",
        help: "Certificate chain (PEM) that is shown to services with --tls-client-ca; needs --upstream-key",
        section: SECTION,
    },
    Flag {
        name: "upstream-key",
        default: None,
        value: "FILE",
        help: "Private key (PEM) of --upstream-cert",
        section: SECTION,
    },
];

/// How services are called: by TLS, or in plain text. The files are read once, at start.
#[derive(Clone, Debug, Default)]
pub struct UpstreamTls(Option<ClientTlsConfig>);

impl UpstreamTls {
    /// Reads [`UPSTREAM_TLS_FLAGS`] and their files. What is wrong is noted in `settings`.
    pub fn from_settings(settings: &mut Settings) -> Self {
        let mut file = |name| {
            settings
                .parsed(name, |path| std::fs::read(path).map_err(|error| format!("`{path}` cannot be read: {error}")))
        };
        let (ca, cert, key) = (file("upstream-ca"), file("upstream-cert"), file("upstream-key"));
        let identity = match (cert, key) {
            (Some(cert), Some(key)) => Some(Identity::from_pem(cert, key)),
            (None, None) => None,
            (Some(_), None) => {
                settings.problem("upstream-key", "is needed with --upstream-cert");
                None
            }
            (None, Some(_)) => {
                settings.problem("upstream-cert", "is needed with --upstream-key");
                None
            }
        };
        let Some(ca) = ca else {
            if identity.is_some() {
                settings.problem("upstream-ca", "is needed with --upstream-cert: without it nothing is called by TLS");
            }
            return Self(None);
        };
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
        if let Some(identity) = identity {
            config = config.identity(identity);
        }
        if let Err(error) = Endpoint::from_static("https://127.0.0.1:1").tls_config(config.clone()) {
            settings.problem(
                "upstream-ca",
                format!("or its certificate cannot be used: {}", crate::kubernetes::chain(&error)),
            );
        }
        Self(Some(config))
    }

    /// The targets of a flag, called in this way.
    ///
    /// # Errors
    /// They say otherwise: a sentence for a settings problem.
    pub fn apply(&self, targets: Targets) -> Result<Targets, String> {
        let schemes = |wanted| {
            let mut all = targets.list.iter();
            all.any(|target| matches!(target, Target::Host(host) if host.tls == wanted))
        };
        match &self.0 {
            None if schemes(true) => Err("begins with https://, which needs --upstream-ca".to_owned()),
            None => Ok(targets),
            Some(_) if schemes(false) => {
                Err("begins with http://, but --upstream-ca asks for TLS; write https://".to_owned())
            }
            Some(config) => Ok(Targets { tls: Some(config.clone()), ..targets }),
        }
    }
}
