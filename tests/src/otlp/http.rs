//! The receiver over HTTP/1.1: protobuf posted to `/v1/traces` with the key of [`KEY_HEADER`], and nothing else.

use super::{Receiver, Span, spans_of};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// What each request must have, as `OTEL_EXPORTER_OTLP_HEADERS` writes it.
pub const KEY_HEADER: &str = "x-collector-key=planted";

impl Receiver {
    /// Receives over HTTP on a free port of loopback, with TLS if there is a configuration.
    ///
    /// # Panics
    /// When the kernel gives no port.
    pub async fn start_http(tls: Option<rustls::ServerConfig>) -> Self {
        Self::start_http_on(TcpListener::bind(("127.0.0.1", 0)).await.expect("the kernel has free ports"), tls)
    }

    /// Receives over HTTP on a listener.
    ///
    /// # Panics
    /// When the listener has no address.
    #[expect(clippy::disallowed_methods, reason = "what is received ends with the test")]
    pub fn start_http_on(listener: TcpListener, tls: Option<rustls::ServerConfig>) -> Self {
        let addr = listener.local_addr().expect("a bound listener has an address");
        let (sender, spans) = watch::channel(Vec::new());
        let sender = Arc::new(sender);
        let end = CancellationToken::new();
        let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        tokio::spawn(end.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (sender, tls) = (Arc::clone(&sender), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, sender).await,
                        // A client that does not trust us goes away: that is its answer.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, sender).await;
                            }
                        }
                    }
                });
            }
        }));
        Self { addr, spans, _end: end.drop_guard() }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, sender: Arc<watch::Sender<Vec<Span>>>) {
    let service = service_fn(move |request| receive(request, Arc::clone(&sender)));
    // A connection that breaks is the exporter's to make anew.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn receive(
    request: Request<Incoming>,
    sender: Arc<watch::Sender<Vec<Span>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (name, value) = KEY_HEADER.split_once('=').expect("it is a pair");
    let has_key = request.headers().get(name).is_some_and(|given| given == value);
    let mut answer = Response::new(Full::default());
    if request.method() != "POST" || request.uri().path() != "/v1/traces" || !has_key {
        *answer.status_mut() = StatusCode::FORBIDDEN;
        return Ok(answer);
    }
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    match ExportTraceServiceRequest::decode(body) {
        Ok(spans) => sender.send_modify(|all| all.extend(spans_of(spans))),
        Err(_) => *answer.status_mut() = StatusCode::BAD_REQUEST,
    }
    Ok(answer)
}
