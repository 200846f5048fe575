//! The room log in NATS JetStream.

use super::{Answer, Emit, EventLog, LogError, LogInfo, Outcome, Publish, Read, ReadAnswer, TailsAnswer};
use crate::Config;
use crate::metrics::FanoutMetrics;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use plaza_kit::admin::Readiness;
use plaza_kit::shutdown::Shutdown;
use plaza_proto::ids::RoomName;
use std::sync::Arc;

#[derive(Debug)]
pub struct Options;
impl Options {
    pub fn new(_config: &Config) -> Option<Self> {
        None
    }
}
#[derive(Debug, thiserror::Error)]
#[error("unsupported")]
pub struct JetStreamError;

#[derive(Debug)]
pub struct JetStreamLog;

impl JetStreamLog {
    pub async fn start(_: Options, _: Arc<FanoutMetrics>, _: Readiness, _: Shutdown) -> Result<Arc<Self>, JetStreamError> {
        Err(JetStreamError)
    }
    pub async fn failed(&self) -> JetStreamError {
        std::future::pending().await
    }
}

impl EventLog for JetStreamLog {
    fn publish(&self, _: Publish) -> Answer<Outcome> {
        Answer::Now(Outcome::Unknown(plaza_proto::code::Code::Unavailable))
    }
    fn read(&self, _: Read) -> BoxFuture<'_, Result<ReadAnswer, LogError>> {
        unavailable()
    }
    fn tails<'a>(&'a self, _: &'a [RoomName]) -> BoxFuture<'a, Result<TailsAnswer, LogError>> {
        unavailable()
    }
    fn info(&self) -> BoxFuture<'_, Result<LogInfo, LogError>> {
        unavailable()
    }
    fn emit(&self, _: Emit) -> Answer<Result<(), LogError>> {
        Answer::Now(Err(LogError::Unavailable("not connected")))
    }
    fn wakes(&self, _: &RoomName) -> BoxFuture<'_, Result<BoxStream<'static, ()>, LogError>> {
        unavailable()
    }
}

fn unavailable<'a, T: Send + 'a>() -> BoxFuture<'a, Result<T, LogError>> {
    Box::pin(std::future::ready(Err(LogError::Unavailable("not connected"))))
}
