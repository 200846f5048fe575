//! A tiny HTTP/1.1 client: what goes over the wire is what the test says.

use serde_json::Value;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// No answer may take longer. A guard against hanging, not a part of any row.
const GUARD: Duration = Duration::from_secs(12);

/// Waits for something that must happen.
pub(crate) async fn guarded<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(GUARD, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing happened in {GUARD:?}"),
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// A header's value, by its lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body, which must be UTF-8.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// Asserts an Engine.IO error with this status and code.
    pub(crate) fn assert_error(&self, status: u16, code: u64) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        let body: Value = serde_json::from_slice(&self.body).expect("the body is JSON");
        assert_eq!(body["code"], code);
        assert_eq!(
            self.text(),
            format!("{{\"code\":{code},\"message\":{}}}", body["message"]),
            "compact, in this order"
        );
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) stream: BufReader<TcpStream>,
}

impl Http {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.expect("the server accepts");
        stream.set_nodelay(true).expect("a fresh socket takes options");
        Self { stream: BufReader::new(stream) }
    }

    /// Writes bytes as they are. A server may have closed already; its answer tells.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes).await
    }

    /// Sends a request with a body of known length (none for GET).
    pub(crate) async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if method != "GET" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        self.write(&[head.as_bytes(), body].concat()).await.expect("the request is sent");
    }

    /// The next answer; `None` when the connection ended without one.
    pub(crate) async fn answer(&mut self) -> Option<Response> {
        guarded("an answer", self.read_answer()).await
    }

    /// The next answer.
    pub(crate) async fn response(&mut self) -> Response {
        self.answer().await.expect("an answer and no broken connection")
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line).await {
            Ok(n) if n > 0 => Some(line.trim_end().to_owned()),
            _ => None,
        }
    }

    /// Status and headers.
    pub(crate) async fn head(&mut self) -> Option<Response> {
        let status = self.line().await?;
        let status = status
            .strip_prefix("HTTP/1.1 ")
            .or(status.strip_prefix("HTTP/1.0 "))
            .expect("a status line")
            .get(..3)?
            .parse()
            .ok()?;
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Some(Response { status, headers, body: Vec::new() });
            }
            let (name, value) = line.split_once(':').expect("a header line");
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    async fn read_answer(&mut self) -> Option<Response> {
        let mut response = self.head().await?;
        if response.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = usize::from_str_radix(&self.line().await?, 16).expect("a chunk's size");
                let mut chunk = vec![0; size + 2];
                self.stream.read_exact(&mut chunk).await.ok()?;
                if size == 0 {
                    return Some(response);
                }
                response.body.extend_from_slice(&chunk[..size]);
            }
        }
        match response.header("content-length") {
            Some(length) => {
                response.body = vec![0; length.parse().expect("a length")];
                self.stream.read_exact(&mut response.body).await.ok()?;
            }
            None if response.status == 204 || response.status == 101 => {}
            None => {
                self.stream.read_to_end(&mut response.body).await.ok()?;
            }
        }
        Some(response)
    }
}

/// One request on a connection of its own.
pub(crate) async fn request(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    let mut http = Http::connect(addr).await;
    http.send(method, path, headers, body).await;
    http.response().await
}

/// A GET on a connection of its own.
pub(crate) async fn get(addr: SocketAddr, path: &str) -> Response {
    request(addr, "GET", path, &[], b"").await
}

/// Round trips on fresh connections: by then the server has also read what was sent before them on
/// another. There is no event that tells it.
pub(crate) async fn settle(addr: SocketAddr) {
    for _ in 0..4 {
        get(addr, "/engine.io/?EIO=4&transport=none").await;
    }
}
