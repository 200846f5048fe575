//! `plaza.fanout.v1.FanoutService` over any log: requests checked, calls counted, answers put together.

mod history;
mod publish;
mod subscribe;
mod trace;

use crate::log::{Emit, EventLog, MAX_READ_BYTES, MAX_READ_EVENTS, MAX_TAIL_ROOMS, Read, Start};
use crate::metrics::FanoutMetrics;
use crate::validate;
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt};
use plaza_kit::shutdown::Shutdown;
use plaza_kit::trace::Server;
use plaza_proto::batch::{Batch, ItemResult};
use plaza_proto::code::Code;
use plaza_proto::fanout as api;
use plaza_proto::fanout::fanout_service_server::{FanoutService, FanoutServiceServer};
use prost::Message;
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};
use trace::Servers;

/// The service's full name, for health.
pub const SERVICE_NAME: &str = "plaza.fanout.v1.FanoutService";
/// Events of a [`Read`] that sets no limit.
const DEFAULT_READ_EVENTS: u32 = 128;

/// The service.
#[derive(Clone, Debug)]
pub struct Fanout {
    log: Arc<dyn EventLog>,
    metrics: Arc<FanoutMetrics>,
    shutdown: Shutdown,
    servers: Servers,
}

impl Fanout {
    /// A service over a log, which is in `nats`, if anywhere; long streams end when the shutdown begins.
    pub fn new(log: Arc<dyn EventLog>, nats: Option<Server>, metrics: Arc<FanoutMetrics>, shutdown: Shutdown) -> Self {
        Self { log, metrics, shutdown, servers: Servers { own: None, nats } }
    }

    /// The tonic service.
    pub fn into_server(self) -> FanoutServiceServer<Self> {
        FanoutServiceServer::new(self)
            .max_decoding_message_size(plaza_kit::grpc::MESSAGE_BYTES)
            .max_encoding_message_size(plaza_kit::grpc::MESSAGE_BYTES)
    }

    /// What `PublishStream` does, for an edge in the same process.
    pub fn publish_here(
        &self,
        batches: BoxStream<'static, Batch<Arc<api::PublishItem>>>,
    ) -> BoxStream<'static, Result<Vec<ItemResult>, Status>> {
        publish::stream(self.clone(), batches.map(Ok).boxed())
    }

    fn counted<T>(&self, method: &'static str, result: Result<T, Status>) -> Result<Response<T>, Status> {
        self.metrics.call(method, &result);
        result.map(Response::new)
    }

    async fn read_events(&self, request: api::ReadRequest) -> Result<api::ReadResponse, Status> {
        self.metrics.reads.inc();
        let answer = self.log.read(read_of(&request)?).await.map_err(|error| error.status())?;
        Ok(api::ReadResponse {
            epoch: answer.epoch.0.to_vec(),
            events: answer.events.into_iter().map(Into::into).collect(),
            complete: answer.complete,
            trimmed: answer.trimmed,
            last_seq: answer.last_seq,
        })
    }

    async fn read_tails(&self, request: api::TailsRequest) -> Result<api::TailsResponse, Status> {
        if request.rooms.is_empty() || request.rooms.len() > MAX_TAIL_ROOMS {
            let message = format!("rooms has {} names; 1 to {MAX_TAIL_ROOMS} are allowed", request.rooms.len());
            return Err(Code::BadRequest.status(message));
        }
        let rooms: Result<Vec<_>, _> = request.rooms.iter().map(|name| validate::room(name)).collect();
        let rooms = rooms.map_err(|refusal| refusal.status())?;
        let answer = self.log.tails(&rooms).await.map_err(|error| error.status())?;
        let tail = |(room, last_seq)| api::RoomTail { room, last_seq };
        Ok(api::TailsResponse {
            epoch: answer.epoch.0.to_vec(),
            tails: request.rooms.into_iter().zip(answer.tails).map(tail).collect(),
            last_seq: answer.last_seq,
        })
    }

    async fn send_command(&self, request: api::ControlRequest) -> Result<api::ControlResponse, Status> {
        let command = request.command.filter(|command| command.command.is_some());
        let command = command.ok_or_else(|| Code::BadRequest.status("command is missing"))?;
        let edge = (!request.edge.is_empty()).then_some(request.edge);
        let emit = Emit::Control { edge, command: Bytes::from(command.encode_to_vec()) };
        self.log.emit(emit).get().await.map_err(|error| error.status())?;
        Ok(api::ControlResponse {})
    }
}

/// Defaults and ranges of a read.
fn read_of(request: &api::ReadRequest) -> Result<Read, Status> {
    let room = validate::room(&request.room).map_err(|refusal| refusal.status())?;
    let limit = in_range("limit", request.limit, DEFAULT_READ_EVENTS, MAX_READ_EVENTS)?;
    let max_bytes = in_range("max_bytes", request.max_bytes, MAX_READ_BYTES, MAX_READ_BYTES)?;
    let from = match request.from {
        Some(api::read_request::From::AfterSeq(seq)) => Start::After(seq),
        Some(api::read_request::From::BeforeSeq(seq)) => Start::Before(seq),
        None => return Err(Code::BadRequest.status("from is missing; after_seq or before_seq is needed")),
    };
    Ok(Read { room, from, at_least_seq: request.at_least_seq, limit, max_bytes })
}

/// A number with a default for 0 and a largest value.
fn in_range(field: &str, value: u32, default: u32, max: u32) -> Result<u32, Status> {
    match value {
        0 => Ok(default),
        n if n <= max => Ok(n),
        n => Err(Code::BadRequest.status(format!("{field} is {n}; 1 to {max} are allowed, 0 is {default}"))),
    }
}

#[tonic::async_trait]
impl FanoutService for Fanout {
    type PublishStreamStream = BoxStream<'static, Result<api::PublishResults, Status>>;
    type SubscribeStream = BoxStream<'static, Result<api::SubscribeResponse, Status>>;

    async fn publish(&self, request: Request<api::PublishRequest>) -> Result<Response<api::PublishResponse>, Status> {
        let result = publish::unary(self, request.into_inner()).await;
        self.counted("Publish", result)
    }

    async fn publish_stream(
        &self,
        request: Request<Streaming<api::PublishBatch>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let mut fanout = self.clone();
        fanout.servers.own = request.extensions().get::<Server>().cloned();
        let results = publish::stream(fanout, request.into_inner().map(|batch| batch.map(Batch::from)).boxed());
        let answer =
            |results: Vec<ItemResult>| api::PublishResults { results: results.into_iter().map(Into::into).collect() };
        self.counted("PublishStream", Ok(results.map(move |results| results.map(answer)).boxed()))
    }

    async fn read(&self, request: Request<api::ReadRequest>) -> Result<Response<api::ReadResponse>, Status> {
        let result = self.read_events(request.into_inner()).await;
        self.counted("Read", result)
    }

    async fn tails(&self, request: Request<api::TailsRequest>) -> Result<Response<api::TailsResponse>, Status> {
        let result = self.read_tails(request.into_inner()).await;
        self.counted("Tails", result)
    }

    async fn control(&self, request: Request<api::ControlRequest>) -> Result<Response<api::ControlResponse>, Status> {
        let result = self.send_command(request.into_inner()).await;
        self.counted("Control", result)
    }

    async fn read_history(
        &self,
        request: Request<api::ReadHistoryRequest>,
    ) -> Result<Response<api::ReadHistoryResponse>, Status> {
        let result = history::page(&*self.log, &request.into_inner()).await;
        self.counted("ReadHistory", result)
    }

    async fn subscribe(
        &self,
        request: Request<api::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let result = subscribe::stream(self, &request.into_inner()).await;
        self.counted("Subscribe", result)
    }
}
