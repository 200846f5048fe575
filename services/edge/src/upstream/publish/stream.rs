//! One `PublishStream` per fanout endpoint, opened again when it breaks; or none, where the service is in
//! the same process.

use super::{LinkEvent, Shared};
use crate::upstream::{Backoff, Context, Outcome};
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, Stream, StreamExt, TryStreamExt};
use plaza_kit::discovery::Targets;
use plaza_proto::batch::ItemResult;
use plaza_proto::fanout::fanout_service_client::FanoutServiceClient;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Endpoint, Uri};

/// Batches that may wait for the transport of one stream.
const BATCHES: usize = 16;

/// A fanout service in this process: batches in, results out, as its `PublishStream` gives them.
pub type Local = Box<dyn FnOnce(BoxStream<'static, Shared>) -> Results + Send>;

/// What a fanout service answers.
pub type Results = BoxStream<'static, Result<Vec<ItemResult>, tonic::Status>>;

/// Where publishes go.
pub enum Route {
    /// To the endpoints of `--fanout-addr`.
    Endpoints,
    /// To the service of this process, as soon as it is there; `None`: it does not come.
    Local(BoxFuture<'static, Option<Local>>),
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Endpoints => "Endpoints",
            Self::Local(_) => "Local",
        })
    }
}

/// Publishes in this process, without gRPC between.
pub async fn here(service: BoxFuture<'static, Option<Local>>, context: Context) {
    let publishing = async {
        let Some(open) = service.await else { return };
        let (batches, outbound) = mpsc::channel(BATCHES);
        let results = open(counted(outbound, &context).boxed());
        if let Err(status) = pump(0, batches, results, &context).await {
            tracing::error!(error = %status, "publishing in this process has ended");
        }
    };
    tokio::select! {
        () = publishing => {}
        () = context.shutdown.cancelled() => {}
    }
}

/// Keeps a stream to each endpoint of `fanout`, as the list changes.
pub async fn keep(fanout: Targets, mut endpoints: watch::Receiver<Vec<Uri>>, context: Context) {
    let numbers = Arc::new(AtomicU64::new(1));
    let mut kept: HashMap<Uri, CancellationToken> = HashMap::new();
    loop {
        let wanted = endpoints.borrow_and_update().clone();
        kept.retain(|uri, token| {
            let keep = wanted.contains(uri);
            if !keep {
                token.cancel();
            }
            keep
        });
        for uri in wanted {
            if !kept.contains_key(&uri) {
                let token = context.shutdown.token().child_token();
                kept.insert(uri.clone(), token.clone());
                context
                    .shutdown
                    .spawn("publish stream", one(fanout.endpoint(&uri), token, numbers.clone(), context.clone()));
            }
        }
        tokio::select! {
            changed = endpoints.changed() => if changed.is_err() { return },
            () = context.shutdown.cancelled() => return,
        }
    }
}

/// Opens the stream to one endpoint again and again.
async fn one(endpoint: Endpoint, token: CancellationToken, numbers: Arc<AtomicU64>, context: Context) {
    let mut backoff = Backoff::new();
    let mut said = false;
    while !token.is_cancelled() {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        tokio::select! {
            result = session(&endpoint, number, &context) => match result {
                Ok(()) => {
                    backoff = Backoff::new();
                    said = false;
                    tracing::info!(endpoint = %endpoint.uri(), "publish stream ended");
                }
                Err(status) if !said => {
                    said = true;
                    tracing::warn!(endpoint = %endpoint.uri(), error = %status, "fanout cannot be reached; trying again");
                }
                Err(_) => {}
            },
            () = token.cancelled() => {}
        }
        // Of an endpoint that left the list, too: what it has not answered goes to another one.
        if !context.shutdown.is_begun() {
            let _gone = context.outcomes.send(Outcome::Publish(LinkEvent::Down { stream: number })).await;
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.wait()) => {}
            () = token.cancelled() => {}
        }
    }
}

/// One stream from its opening to its end. `Ok`: it was open.
async fn session(endpoint: &Endpoint, number: u64, context: &Context) -> Result<(), tonic::Status> {
    // A publish waits for its stream, so a dead one is found sooner than other connections.
    let endpoint =
        endpoint.clone().http2_keep_alive_interval(Duration::from_secs(3)).keep_alive_timeout(Duration::from_secs(4));
    let channel = endpoint.connect().await.map_err(|e| tonic::Status::unavailable(e.to_string()))?;
    let (batches, outbound) = mpsc::channel(BATCHES);
    let mut client = FanoutServiceClient::new(channel);
    let results = client.publish_stream(counted(outbound, context).map(Into::into)).await?.into_inner();
    tracing::info!(endpoint = %endpoint.uri(), "publish stream open");
    let results = results.map_ok(|answer| answer.results.into_iter().map(ItemResult::from).collect());
    let _broken = pump(number, batches, results.boxed(), context).await;
    Ok(())
}

/// Batches on their way, and how large they are.
fn counted(batches: mpsc::Receiver<Shared>, context: &Context) -> impl Stream<Item = Shared> + 'static {
    let events = context.metrics.batch_events.clone();
    ReceiverStream::new(batches).inspect(move |batch: &Shared| events.observe(batch.items.len() as f64))
}

/// Tells the hub of an open stream, and what comes back on it until it ends.
async fn pump(
    number: u64,
    batches: mpsc::Sender<Shared>,
    mut results: Results,
    context: &Context,
) -> Result<(), tonic::Status> {
    let up = LinkEvent::Up { stream: number, batches };
    let _gone = context.outcomes.send(Outcome::Publish(up)).await;
    while let Some(answer) = results.next().await.transpose()? {
        let _gone = context.outcomes.send(Outcome::Publish(LinkEvent::Results(answer))).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::UpstreamMetrics;
    use plaza_kit::metrics::Metrics;
    use plaza_kit::shutdown::Shutdown;

    #[tokio::test]
    async fn the_stream_to_an_endpoint_that_leaves_the_list_is_down() {
        // It accepts and never answers, as a pod does whose network is gone.
        let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("the kernel has free ports");
        let uri: Uri = format!("http://{}", silent.local_addr().expect("it is bound")).parse().expect("a URI");
        let metrics = Metrics::new("edge", "test");
        let made = metrics.made_calls();
        let metrics = metrics.registry(|registry| UpstreamMetrics::register(registry, made));
        let (outcomes, mut heard) = mpsc::channel(8);
        let shutdown = Shutdown::new();
        let context = Context { outcomes, shutdown: shutdown.clone(), metrics };
        let (list, endpoints) = watch::channel(vec![uri]);
        let fanout = Targets::parse("http://127.0.0.1:1").expect("a literal address is well-formed");
        shutdown.spawn("publish streams", keep(fanout, endpoints, context));
        let (pod, _) = tokio::task::spawn_blocking(move || silent.accept()).await.expect("it ends").expect("a call");
        list.send(Vec::new()).expect("somebody listens");
        let heard = tokio::time::timeout(Duration::from_secs(10), heard.recv()).await.expect("in time");
        assert!(matches!(heard, Some(Outcome::Publish(LinkEvent::Down { stream: 1 }))), "{heard:?}");
        drop(pod);
        shutdown.begin();
    }
}
