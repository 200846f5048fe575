//! The way to the collector, from the standard's variables: gRPC or HTTP, its certificates, its patience.
//!
//! Each variable has a form for traces alone (`OTEL_EXPORTER_OTLP_TRACES_...`), which wins. What is not named here
//! (endpoint, headers) the exporter's library reads itself.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Handle;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::export::variable;

/// How long an export may take when nobody says: what the standard says.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The value of `OTEL_EXPORTER_OTLP_TRACES_<NAME>`, else of `OTEL_EXPORTER_OTLP_<NAME>`.
pub(super) fn variable_of_traces(name: &str) -> Option<String> {
    variable(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}")).or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{name}")))
}

/// The exporter that the variables describe.
///
/// # Errors
/// A sentence that names the variable and what would be right.
///
/// # Panics
/// Outside of a tokio runtime: the exporter's connections live in it.
pub(super) fn exporter() -> Result<SpanExporter, String> {
    let certificates = Certificates::read(variable_of_traces)?;
    let built = match variable_of_traces("PROTOCOL").as_deref() {
        None | Some("grpc") => {
            let builder = SpanExporter::builder().with_tonic().with_protocol(Protocol::Grpc);
            match variable_of_traces("ENDPOINT").is_some_and(|url| url.starts_with("https://")) {
                true => builder.with_tls_config(certificates.for_grpc()).build(),
                false => builder.build(),
            }
        }
        Some("http/protobuf") => {
            let client = Client::new(certificates.for_http()?, timeout(variable_of_traces("TIMEOUT").as_deref())?);
            let builder = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary);
            builder.with_http_client(client).build()
        }
        Some(other) => {
            return Err(format!("OTEL_EXPORTER_OTLP_PROTOCOL is `{other}`; grpc and http/protobuf are known"));
        }
    };
    built.map_err(|error| error.to_string())
}

fn timeout(text: Option<&str>) -> Result<Duration, String> {
    let Some(text) = text else { return Ok(TIMEOUT) };
    let millis = text.parse::<u64>().ok().filter(|millis| *millis > 0);
    let millis = millis.ok_or_else(|| format!("OTEL_EXPORTER_OTLP_TIMEOUT is `{text}`; milliseconds are right"))?;
    Ok(Duration::from_millis(millis))
}

/// The files of the certificate variables, as PEM.
#[derive(Debug, Default)]
struct Certificates {
    /// Whom to trust instead of whom the system trusts.
    authority: Option<Vec<u8>>,
    /// Certificate and key by which the collector knows us.
    own: Option<(Vec<u8>, Vec<u8>)>,
}

impl Certificates {
    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let read = |name: &str| {
            let Some(path) = variable(name) else { return Ok(None) };
            let read = std::fs::read(&path);
            read.map(Some).map_err(|error| format!("OTEL_EXPORTER_OTLP_{name}: {path}: {error}"))
        };
        let own = match (read("CLIENT_CERTIFICATE")?, read("CLIENT_KEY")?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                return Err("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and ..._CLIENT_KEY go together; one is set".into());
            }
        };
        Ok(Self { authority: read("CERTIFICATE")?, own })
    }

    fn for_grpc(self) -> ClientTlsConfig {
        let config = match self.authority {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        match self.own {
            Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
            None => config,
        }
    }

    fn for_http(self) -> Result<ClientConfig, String> {
        let wrong = |name: &str, error: &dyn std::fmt::Display| format!("OTEL_EXPORTER_OTLP_{name}: {error}");
        let provider = rustls::crypto::ring::default_provider().into();
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| error.to_string())?;
        let builder = match self.authority {
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(&pem).map_err(|error| wrong("CERTIFICATE", &error))? {
                    roots.add(certificate).map_err(|error| wrong("CERTIFICATE", &error))?;
                }
                builder.with_root_certificates(roots)
            }
            None => builder.with_native_roots().map_err(|error| error.to_string())?,
        };
        let Some((certificate, key)) = self.own else { return Ok(builder.with_no_client_auth()) };
        let chain = certificates(&certificate).map_err(|error| wrong("CLIENT_CERTIFICATE", &error))?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| wrong("CLIENT_KEY", &error))?;
        builder.with_client_auth_cert(chain, key).map_err(|error| wrong("CLIENT_CERTIFICATE", &error))
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    CertificateDer::pem_slice_iter(pem).collect()
}

/// Sends from the thread of the exporter, which has no runtime, through this one.
#[derive(Debug)]
struct Client {
    hyper: HyperClient<HttpsConnector<hyper_util::client::legacy::connect::HttpConnector>>,
    runtime: Handle,
}

impl Client {
    fn new(tls: ClientConfig, timeout: Duration) -> Self {
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        Self { hyper: HyperClient::new(connector, timeout, None), runtime: Handle::current() }
    }
}

#[tonic::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let hyper = self.hyper.clone();
        #[expect(clippy::disallowed_methods, reason = "the drain waits for spans by the exporter's own flush")]
        self.runtime.spawn(async move { hyper.send_bytes(request).await }).await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_variables_are_named_with_what_is_right() {
        assert_eq!(timeout(None), Ok(TIMEOUT));
        assert_eq!(timeout(Some("250")), Ok(Duration::from_millis(250)));
        assert!(timeout(Some("soon")).is_err_and(|said| said.contains("milliseconds")));
        let one = |name: &str| (name == "CLIENT_KEY").then(|| "Cargo.toml".to_owned());
        assert!(Certificates::read(one).is_err_and(|said| said.contains("go together")));
        let absent = |name: &str| (name == "CERTIFICATE").then(|| "/nowhere/ca.pem".to_owned());
        assert!(Certificates::read(absent).is_err_and(|said| said.contains("/nowhere/ca.pem")));
        let no_pem = Certificates { authority: Some(b"-----BEGIN CERTIFICATE-----\n!".to_vec()), own: None };
        assert!(no_pem.for_http().is_err_and(|said| said.contains("OTEL_EXPORTER_OTLP_CERTIFICATE")));
    }
}
