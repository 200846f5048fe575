//! An Engine.IO session on long-polling, as raw as the tests want it.

use crate::http::{Http, Response, get, request};
use serde_json::Value;
use std::net::SocketAddr;

/// Between packets of one body.
pub(crate) const SEPARATOR: char = '\u{1e}';

/// Path of the raw echo.
pub(crate) const ENGINE: &str = "/engine.io/";
/// Path of Socket.IO.
pub(crate) const SOCKET: &str = "/socket.io/";

/// A session.
#[derive(Debug)]
pub(crate) struct Polling {
    addr: SocketAddr,
    path: &'static str,
    pub(crate) sid: String,
}

impl Polling {
    /// Makes a session.
    pub(crate) async fn open(addr: SocketAddr, path: &'static str) -> Self {
        let response = get(addr, &format!("{path}?EIO=4&transport=polling")).await;
        assert_eq!(response.status, 200, "{response:?}");
        let open: Value =
            serde_json::from_str(response.text().strip_prefix('0').expect("an open packet")).expect("JSON");
        let sid = open["sid"].as_str().expect("a sid").to_owned();
        Self { addr, path, sid }
    }

    /// Path and query of this session on a transport.
    pub(crate) fn url(&self, transport: &str) -> String {
        format!("{}?EIO=4&transport={transport}&sid={}", self.path, self.sid)
    }

    /// A GET, to its end.
    pub(crate) async fn poll(&self) -> Response {
        get(self.addr, &self.url("polling")).await
    }

    /// A GET that is sent and not answered yet.
    pub(crate) async fn waiting(&self) -> Http {
        let mut http = Http::connect(self.addr).await;
        http.send("GET", &self.url("polling"), &[], b"").await;
        crate::http::settle(self.addr).await;
        http
    }

    /// A POST.
    pub(crate) async fn post(&self, body: impl AsRef<[u8]>) -> Response {
        let headers = [("Content-Type", "text/plain;charset=UTF-8")];
        request(self.addr, "POST", &self.url("polling"), &headers, body.as_ref()).await
    }

    /// A POST that the server takes.
    pub(crate) async fn say(&self, body: impl AsRef<[u8]>) {
        let response = self.post(body).await;
        assert_eq!((response.status, response.text()), (200, "ok"));
    }

    /// Packets of the next GET that has anything but pings, which are answered.
    pub(crate) async fn packets(&self) -> Vec<String> {
        loop {
            let response = self.poll().await;
            assert_eq!(response.status, 200, "{response:?}");
            let mut packets: Vec<String> = response.text().split(SEPARATOR).map(str::to_owned).collect();
            let all = packets.len();
            packets.retain(|packet| packet != "2");
            if packets.len() < all {
                self.say("3").await;
            }
            if !packets.is_empty() {
                return packets;
            }
        }
    }

    /// The next `count` packets, over as many GETs as it takes.
    pub(crate) async fn take(&self, count: usize) -> Vec<String> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(self.packets().await);
        }
        assert_eq!(all.len(), count, "{all:?}");
        all
    }

    /// Asserts that the session exists no more.
    pub(crate) async fn assert_gone(&self) {
        self.poll().await.assert_error(400, 1);
    }
}
