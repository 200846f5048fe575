//! Serving gRPC: health and limits always, reflection and TLS by option.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic_health::ServingStatus;

use crate::metrics::GrpcCalls;
use crate::settings::{Flag, Settings};
use crate::shutdown::Shutdown;
use crate::silent::UntilItSpeaks;
use crate::trace::Tracer;
use crate::trace::layer::CallLayer;

/// The largest message that a service takes, in bytes. Services set it on each generated server
/// with `max_decoding_message_size`.
pub const MESSAGE_BYTES: usize = 64 * 1024;

/// Streams that one connection may have open at once.
pub const STREAMS: u32 = 100;

/// After this long without a frame a connection is pinged.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Without an answer to the ping for this long, the connection is closed.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long calls may go on once the shutdown has begun. The longest, a publish with its retries, is bounded below it.
const LAST_CALLS: Duration = Duration::from_secs(12);

/// The flags of [`GrpcOptions::from_settings`]. Reflection is off; a program that wants it on by
/// default puts a flag of the same name before this table.
pub const GRPC_FLAGS: &[Flag] = &[
    Flag {
        name: "reflection",
        default: Some("false"),
        value: "",
        help: "Answer gRPC reflection, so that grpcurl needs no .proto files.",
        section: "gRPC",
    },
    Flag {
        name: "tls-cert",
        default: None,
        value: "FILE",
        help: "Certificate chain (PEM) of the gRPC listeners; with --tls-key, they speak TLS.",
        section: "gRPC",
    },
    Flag { name: "tls-key", default: None, value: "FILE", help: "Private key (PEM) of --tls-cert.", section: "gRPC" },
    Flag {
        name: "tls-client-ca",
        default: None,
        value: "FILE",
        help: "Authorities (PEM) of client certificates; callers without one are refused.",
        section: "gRPC",
    },
    Flag {
        name: "max-connection-age",
        default: Some("5m"),
        value: "TIME",
        help: "After this time callers are asked to connect anew, so that new pods get their share; calls under way \
               end in their own time. 0 (off), or at most 1d",
        section: "gRPC",
    },
];

/// How a gRPC listener serves.
#[derive(Clone, Debug, Default)]
pub struct GrpcOptions {
    /// Whether reflection v1 answers.
    pub reflection: bool,
    /// Files for TLS; plain text without.
    pub tls: Option<TlsFiles>,
    /// How long a connection takes new calls, spread by a tenth; zero: for ever.
    pub max_connection_age: Duration,
}

/// PEM files of a listener. Read once, when serving begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, the listener's own first.
    pub cert: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
    /// The authorities of client certificates; without, callers need none.
    pub client_ca: Option<PathBuf>,
}

impl GrpcOptions {
    /// Reads [`GRPC_FLAGS`]; a certificate without its key is a problem, and so on.
    pub fn from_settings(settings: &mut Settings) -> Self {
        let path = |text: Option<String>| text.map(PathBuf::from);
        let reflection = settings.switch("reflection");
        let cert = path(settings.optional("tls-cert"));
        let key = path(settings.optional("tls-key"));
        let client_ca = path(settings.optional("tls-client-ca"));
        let tls = match (cert, key) {
            (Some(cert), Some(key)) => Some(TlsFiles { cert, key, client_ca }),
            (Some(_), None) => {
                settings.problem("tls-key", "is not set, but --tls-cert is; TLS needs both");
                None
            }
            (None, Some(_)) => {
                settings.problem("tls-cert", "is not set, but --tls-key is; TLS needs both");
                None
            }
            (None, None) if client_ca.is_some() => {
                settings.problem("tls-client-ca", "needs --tls-cert and --tls-key");
                None
            }
            (None, None) => None,
        };
        let max_connection_age = settings.seconds("max-connection-age", 0..=86_400_000);
        Self { reflection, tls, max_connection_age }
    }
}

/// A gRPC listener could not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener cannot be registered with the runtime.
    #[error("cannot use the gRPC listener")]
    Listener(#[source] io::Error),
    /// A file of [`TlsFiles`] cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The descriptors are not what reflection can serve.
    #[error("cannot serve gRPC reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The certificates do not fit together, or the transport failed.
    #[error("cannot serve gRPC")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves `routes` until the shutdown begins and every open call has ended, for which they have 12 s; `calls`
/// counts them.
///
/// Health reports each name of `service_names` (such as `plaza.session.v1.SessionService`) and the
/// empty name as serving, and as not serving once the shutdown begins. Streams that last must end
/// by themselves then.
///
/// # Errors
/// [`ServeError`]; only at the start, and when the transport fails.
pub async fn serve(
    listener: std::net::TcpListener,
    routes: Routes,
    service_names: &[&'static str],
    options: GrpcOptions,
    calls: GrpcCalls,
    shutdown: Shutdown,
) -> Result<(), ServeError> {
    let listener = tokio::net::TcpListener::from_std(listener).map_err(ServeError::Listener)?;
    let ended = shutdown.token();
    let incoming = TcpIncoming::from(listener)
        .with_nodelay(Some(true))
        .map(move |accepted| accepted.map(|connection| UntilItSpeaks::new(connection, ended.clone())));
    let (health, health_service) = tonic_health::server::health_reporter();
    set_health(&health, service_names, ServingStatus::Serving).await;
    let mut routes = routes.add_service(health_service);
    if options.reflection {
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(plaza_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        routes = routes.add_service(reflection);
    }
    // What is traced here comes from the part that owns the first service.
    let tracer = Tracer::named(service_names.first().copied().unwrap_or("grpc"));
    let mut server = Server::builder()
        .layer(CallLayer { tracer, calls })
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT));
    if !options.max_connection_age.is_zero() {
        // Spread over the servers. Without a grace time: streams that last would be cut by it.
        server = server.max_connection_age(options.max_connection_age.mul_f64(0.9 + 0.2 * fastrand::f64()));
    }
    if let Some(files) = options.tls {
        server = server.tls_config(files.load()?)?;
    }
    let drain = async {
        shutdown.cancelled().await;
        set_health(&health, service_names, ServingStatus::NotServing).await;
    };
    let serving = server.add_routes(routes).serve_with_incoming_shutdown(incoming, drain);
    let too_long = async {
        shutdown.cancelled().await;
        tokio::time::sleep(LAST_CALLS).await;
    };
    tokio::select! {
        served = serving => Ok(served?),
        // A caller that stops in the middle of what it says has nothing that could be answered.
        () = too_long => {
            tracing::warn!(limit = ?LAST_CALLS, "callers are still connected; they are left behind");
            Ok(())
        }
    }
}

/// A request whose deadline goes with it: the callee gives up when the caller does (`grpc-timeout`).
pub fn within<T>(limit: Duration, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(limit);
    request
}

async fn set_health(health: &tonic_health::server::HealthReporter, names: &[&'static str], status: ServingStatus) {
    health.set_service_status("", status).await;
    for name in names {
        health.set_service_status(*name, status).await;
    }
}

impl TlsFiles {
    fn load(&self) -> Result<ServerTlsConfig, ServeError> {
        let identity = Identity::from_pem(read(&self.cert)?, read(&self.key)?);
        let config = ServerTlsConfig::new().identity(identity);
        Ok(match &self.client_ca {
            Some(client_ca) => config.client_ca_root(Certificate::from_pem(read(client_ca)?)),
            None => config,
        })
    }
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, ServeError> {
    std::fs::read(path).map_err(|source| ServeError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::Instant;

    /// How long a server goes on, by its clock, when the shutdown finds a caller that has said just this much.
    async fn held_up(said: &[u8]) -> Duration {
        let listener = crate::net::bind(([127, 0, 0, 1], 0).into(), "listen").expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let (shutdown, calls) = (Shutdown::new(), Metrics::new("test", "0").served_calls());
        let options = GrpcOptions::default();
        let serving = serve(listener, Routes::default(), &["test"], options, calls, shutdown.clone());
        let calling = async {
            let mut caller = TcpStream::connect(address).await.expect("it listens");
            caller.write_all(said).await.expect("it is open");
            // The server's settings: it has the connection now.
            caller.read_exact(&mut [0; 9]).await.expect("HTTP/2 servers speak at once");
            shutdown.begin();
            (caller, Instant::now())
        };
        let (served, (_caller, begin)) = tokio::join!(serving, calling);
        served.expect("it ends well");
        begin.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_has_said_nothing_does_not_hold_up_the_end() {
        assert_eq!(held_up(b"").await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_stops_in_the_middle_holds_up_the_end_for_a_bounded_time() {
        let held = held_up(b"PRI * HTTP/2.0").await;
        assert!((LAST_CALLS..LAST_CALLS + Duration::from_secs(1)).contains(&held), "{held:?}");
    }
}
