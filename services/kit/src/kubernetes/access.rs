//! Whether the cluster's API answers: one log line at each change, and a count of failures.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;

/// What the API is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Endpoints of `kubernetes:///service:port`; DNS and what was known last stand in.
    Endpoints,
    /// Who of several does what all could; all do it.
    Lease,
    /// The annotation of the own pod; it stays as it is.
    DeletionCost,
    /// Events about the own pod; they are missing.
    Events,
}

/// All uses, with the label of each.
const USES: [(Use, &str); 4] = [
    (Use::Endpoints, "endpoints"),
    (Use::Lease, "lease"),
    (Use::DeletionCost, "deletion_cost"),
    (Use::Events, "events"),
];

/// A process has one cluster, so there is one count.
static FAILURES: [AtomicU64; USES.len()] = [const { AtomicU64::new(0) }; USES.len()];

/// How one use fares.
#[derive(Debug)]
pub struct Access {
    place: usize,
    failing: bool,
}

impl Access {
    /// Nothing has failed yet.
    pub fn new(purpose: Use) -> Self {
        let place = USES.iter().position(|(each, _)| *each == purpose).unwrap_or_default();
        Self { place, failing: false }
    }

    /// A call has failed: counted, and logged when the one before had not.
    pub fn failed(&mut self, why: &dyn fmt::Display) {
        FAILURES[self.place].fetch_add(1, Relaxed);
        if !std::mem::replace(&mut self.failing, true) {
            let purpose = USES[self.place].1;
            tracing::warn!(purpose, error = %why, "no use of the Kubernetes API; going on without, and trying again");
        }
    }

    /// A call has worked: logged when the one before had not.
    pub fn works(&mut self) {
        if std::mem::take(&mut self.failing) {
            tracing::info!(purpose = USES[self.place].1, "the Kubernetes API answers again");
        }
    }
}

/// The counts as a metric.
#[derive(Clone, Copy, Debug)]
pub struct Failures;

impl Collector for Failures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Failed calls of the Kubernetes API, by what they were for";
        let counter = ConstCounter::new(0_u64);
        let mut family = encoder.encode_descriptor("plaza_kubernetes_failures", help, None, counter.metric_type())?;
        for ((_, label), count) in USES.iter().zip(&FAILURES) {
            let labels = [("use", *label)];
            ConstCounter::new(count.load(Relaxed)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
