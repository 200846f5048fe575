//! Clients that stay at one pod and do nothing there: connections that it has more than others.

use crate::kube::Kube;
use crate::release;
use futures_util::{SinkExt, StreamExt};
use plaza_tests::process::Process;
use tokio::task::JoinSet;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

/// They leave when this is dropped, or with their pod.
#[derive(Debug)]
pub(crate) struct Crowd {
    _forward: Process,
    _clients: JoinSet<()>,
}

impl Crowd {
    /// So many at this pod.
    pub(crate) async fn at(kube: &Kube, pod: &str, count: usize) -> Self {
        let (forward, addr) = release::forward(kube, &format!("pod/{pod}"), 5000).await;
        let mut clients = JoinSet::new();
        for _ in 0..count {
            let url = format!("ws://{addr}/socket.io/?EIO=4&transport=websocket");
            let (mut socket, _) = connect_async(url).await.expect("an edge takes clients");
            socket.send(Message::text("40")).await.expect("it was just opened");
            clients.spawn(async move {
                while let Some(Ok(message)) = socket.next().await {
                    if message == Message::text("2") && socket.send(Message::text("3")).await.is_err() {
                        return;
                    }
                }
            });
        }
        Self { _forward: forward, _clients: clients }
    }
}
