//! The way to the collector, from the standard's variables: gRPC or HTTP, its certificates, its patience.
//!
//! Each variable has a form for traces alone (`OTEL_EXPORTER_OTLP_TRACES_...`), which wins. What is not named here
//! (endpoint, headers) the exporter's library reads itself.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
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
use crate::kubernetes::chain;

/// How long an export may take when nobody says: what the standard says.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The value of `OTEL_EXPORTER_OTLP_TRACES_<NAME>`, else of `OTEL_EXPORTER_OTLP_<NAME>`.
pub(super) fn variable_of_traces(name: &str) -> Option<String> {
    variable(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}")).or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{name}")))
}

/// Why the last request over HTTP got no answer: the exporter's library keeps that to itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Cause(Arc<Mutex<Option<String>>>);

impl Cause {
    fn set(&self, cause: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = cause;
    }

    /// It, if there is one.
    pub(super) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The exporter that the variables describe, with what it does not say of its failures.
///
/// # Errors
/// A sentence that names the variable and what would be right.
///
/// # Panics
/// Outside of a tokio runtime: the exporter's connections live in it.
pub(super) fn exporter() -> Result<(SpanExporter, Cause), String> {
    let (certificates, cause) = (Certificates::read(variable_of_traces)?, Cause::default());
    let built = match variable_of_traces("PROTOCOL").as_deref() {
        None | Some("grpc") => {
            let builder = SpanExporter::builder().with_tonic().with_protocol(Protocol::Grpc);
            match variable_of_traces("ENDPOINT").is_some_and(|url| url.starts_with("https://")) {
                true => builder.with_tls_config(certificates.for_grpc()).build(),
                false => builder.build(),
            }
        }
        Some("http/protobuf") => {
            let timeout = timeout(variable_of_traces("TIMEOUT").as_deref())?;
            let client = Client::new(certificates.for_http()?, timeout, cause.clone());
            let builder = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary);
            builder.with_http_client(client).build()
        }
        Some(other) => {
            return Err(format!("OTEL_EXPORTER_OTLP_PROTOCOL is `{other}`; grpc and http/protobuf are known"));
        }
    };
    built.map(|exporter| (exporter, cause)).map_err(|error| error.to_string())
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
        let read = Self { authority: read("CERTIFICATE")?, own };
        read.check()?;
        Ok(read)
    }

    /// Looks into the files: gRPC takes one without certificates, and then trusts nobody.
    fn check(&self) -> Result<(), String> {
        let own = self.own.as_ref();
        let lists = [("CERTIFICATE", self.authority.as_ref()), ("CLIENT_CERTIFICATE", own.map(|own| &own.0))];
        for (name, pem) in lists {
            let list = pem.map(|pem| certificates(pem)).transpose().map_err(|error| wrong(name, &error))?;
            if list.is_some_and(|list| list.is_empty()) {
                return Err(wrong(name, &"no certificate in PEM is in its file"));
            }
        }
        let key = own.map(|own| PrivateKeyDer::from_pem_slice(&own.1)).transpose();
        key.map(|_| ()).map_err(|error| wrong("CLIENT_KEY", &error))
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

fn wrong(name: &str, error: &dyn Display) -> String {
    format!("OTEL_EXPORTER_OTLP_{name}: {error}")
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    CertificateDer::pem_slice_iter(pem).collect()
}

/// Sends from the thread of the exporter, which has no runtime, through this one.
#[derive(Debug)]
struct Client {
    hyper: HyperClient<HttpsConnector<hyper_util::client::legacy::connect::HttpConnector>>,
    runtime: Handle,
    cause: Cause,
}

impl Client {
    fn new(tls: ClientConfig, timeout: Duration, cause: Cause) -> Self {
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        Self { hyper: HyperClient::new(connector, timeout, None), runtime: Handle::current(), cause }
    }
}

#[tonic::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let hyper = self.hyper.clone();
        #[expect(clippy::disallowed_methods, reason = "the drain waits for spans by the exporter's own flush")]
        let result = self.runtime.spawn(async move { hyper.send_bytes(request).await }).await?;
        self.cause.set(result.as_ref().err().map(|error| chain(&**error)));
        result
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
        for text in ["-----BEGIN CERTIFICATE-----\n!", "nothing of the kind"] {
            let no_pem = Certificates { authority: Some(text.into()), own: None };
            assert!(no_pem.check().is_err_and(|said| said.contains("OTEL_EXPORTER_OTLP_CERTIFICATE")), "{text}");
        }
    }
}
