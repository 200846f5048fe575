//! The registry behind `/metrics`, and what every program counts.

mod calls;
mod newest;
mod process;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub use calls::{Exemplars, GrpcCalls};
pub use process::descriptor_limit;

use crate::kubernetes;

/// The content type of [`Metrics::encode`]: OpenMetrics, which Prometheus reads with exemplars.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every metric of a process. Names are registered whole (`plaza_connections`), so that a search
/// for one finds its place; labels come from closed sets.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    newest: newest::Sources,
    served: GrpcCalls,
    made: GrpcCalls,
}

impl Metrics {
    /// A registry with `plaza_build_info{service, version} 1`, gRPC calls, and what the process takes.
    pub fn new(service: &'static str, version: &'static str) -> Self {
        let mut registry = Registry::default();
        let build = Info::new([("service", service), ("version", version)]);
        registry.register("plaza_build", "What runs here", build);
        let help = "Unary gRPC calls that were served here, by method and code";
        let served = GrpcCalls::register(&mut registry, "plaza_grpc_server", help);
        let help = "Unary gRPC calls to other services, by method and code";
        let made = GrpcCalls::register(&mut registry, "plaza_grpc_client", help);
        registry.register_collector(Box::new(process::Process::new()));
        registry.register_collector(Box::new(kubernetes::Failures));
        Self { registry: Mutex::new(registry), newest: newest::Sources::default(), served, made }
    }

    /// The gRPC calls that this process serves.
    pub fn served_calls(&self) -> GrpcCalls {
        self.served.clone()
    }

    /// The gRPC calls that this process makes.
    pub fn made_calls(&self) -> GrpcCalls {
        self.made.clone()
    }

    /// Lets the caller register metrics; done once at start, as registering twice doubles a name.
    pub fn registry<R>(&self, register: impl FnOnce(&mut Registry) -> R) -> R {
        register(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets the buckets of a histogram without labels point at traces. `newest` says for each bucket that has
    /// one, by its place, the observed value and the trace's id. `name` is that of the text, with the unit.
    pub fn point_at_traces(
        &self,
        name: &'static str,
        newest: impl Fn() -> HashMap<usize, (f64, String)> + Send + 'static,
    ) {
        self.newest.add(name, Box::new(newest));
    }

    /// The text of every metric, in the format of [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if encode(&mut text, &registry).is_err() {
            // Only a collector of ours that refuses to encode can cause this; a torn text would be
            // taken for metrics that vanished.
            text.clear();
        }
        self.newest.point(text)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn the_text_has_the_build_and_what_was_registered() {
        let metrics = Metrics::new("edge", "1.2.3");
        let closes: Counter = Counter::default();
        metrics.registry(|registry| registry.register("plaza_closes", "Connections closed", closes.clone()));
        closes.inc();
        let text = metrics.encode();
        assert!(text.contains(r#"plaza_build_info{service="edge",version="1.2.3"} 1"#), "{text}");
        assert!(text.contains("plaza_closes_total 1\n"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
