//! gRPC calls by method and code, with their durations.

use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};
use tonic::{Code, Response, Status};

use crate::trace;
use crate::trace::layer::{ClientSpan, OTHER, code_name};

/// A histogram whose buckets point at the newest trace in them.
pub type Exemplars = HistogramWithExemplars<[(&'static str, String); 1]>;

/// Upper bounds in seconds: from a neighbour on the same host to the longest deadline.
const BOUNDS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    method: String,
    code: &'static str,
}

/// Unary calls of one side. Clones are the same histogram.
#[derive(Clone, Debug)]
pub struct GrpcCalls(Family<Labels, Exemplars, fn() -> Exemplars>);

impl GrpcCalls {
    /// Registers a histogram of this name, without the unit.
    pub(super) fn register(registry: &mut Registry, name: &str, help: &str) -> Self {
        let calls: Family<Labels, Exemplars, fn() -> Exemplars> =
            Family::new_with_constructor(|| Exemplars::new(BOUNDS.into_iter()));
        registry.register_with_unit(name, help, Unit::Seconds, calls.clone());
        Self(calls)
    }

    /// A call has ended. `method` is `package.Service/Method`; one that nobody serves, which anybody can make
    /// up, is counted as `_OTHER`.
    pub fn ended(&self, method: &str, code: Code, took: Duration, trace_id: Option<String>) {
        let method = if code == Code::Unimplemented { OTHER } else { method };
        let labels = Labels { method: method.to_owned(), code: code_name(code) };
        let exemplar = trace_id.map(|id| [("trace_id", id)]);
        self.0.get_or_create(&labels).observe(took.as_secs_f64(), exemplar, None);
    }

    /// Makes a call, which may take as long as `limit`.
    ///
    /// # Errors
    /// The callee's status, or `DEADLINE_EXCEEDED`.
    pub async fn make<T>(
        &self,
        method: &'static str,
        limit: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Status> {
        self.timed(trace::current().map(|context| context.trace_id().to_string()), method, limit, call).await
    }

    /// The same for a call that may have a span of its own, which ends with it.
    ///
    /// # Errors
    /// The callee's status, or `DEADLINE_EXCEEDED`.
    pub async fn make_traced<T>(
        &self,
        span: Option<ClientSpan>,
        method: &'static str,
        limit: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Status> {
        let result = self.timed(span.as_ref().map(ClientSpan::trace_id), method, limit, call).await;
        if let Some(span) = span {
            span.done(result.as_ref().err().map(|status| plaza_proto::code::Code::of_status(status).as_str()));
        }
        result
    }

    async fn timed<T>(
        &self,
        trace_id: Option<String>,
        method: &'static str,
        limit: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Status> {
        let begin = Instant::now();
        let result = match tokio::time::timeout(limit, call).await {
            // The deadline that the request carries may be noticed first, on either side.
            Ok(Err(status)) if status.code() == Code::Cancelled && begin.elapsed() >= limit => {
                Err(Status::deadline_exceeded(format!("no answer within {limit:?}")))
            }
            Ok(result) => result.map(Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded(format!("no answer within {limit:?}"))),
        };
        let code = result.as_ref().map_or_else(Status::code, |_| Code::Ok);
        self.ended(method, code, begin.elapsed(), trace_id);
        result
    }
}
