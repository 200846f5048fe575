//! The API of the cluster that a process runs in, for those who were told to use it.
//!
//! Nothing here is needed to chat. Without access every use has its fallback: it warns once, counts, and
//! goes on trying.

pub(crate) mod access;
#[cfg(test)]
pub(crate) mod fake;
pub mod lease;
pub mod pod;

use std::error::Error;
use std::time::Duration;

pub use access::{Access, Failures, Use};

/// How long a connection to the API server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An API server, and the namespace of this process.
#[derive(Clone)]
pub struct Cluster {
    /// Makes the calls.
    pub client: kube::Client,
    /// Where this process runs.
    pub namespace: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Cluster {
    /// The cluster of the pod's service account; outside of one, of the kubeconfig. Makes no call.
    ///
    /// # Errors
    /// There is neither, or its files cannot be used: the reason, for a log.
    pub async fn find() -> Result<Self, String> {
        let config = match kube::Config::incluster() {
            Ok(config) => config,
            Err(_) => kube::Config::infer().await.map_err(|error| chain(&error))?,
        };
        Self::new(config)
    }

    /// The cluster of a configuration.
    ///
    /// # Errors
    /// Its files cannot be used: the reason, for a log.
    pub fn new(mut config: kube::Config) -> Result<Self, String> {
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // Whoever calls has a pace and a fallback of its own.
        config.default_retry = false;
        let namespace = config.default_namespace.clone();
        let client = kube::Client::try_from(config).map_err(|error| chain(&error))?;
        Ok(Self { client, namespace })
    }
}

/// An error with all its causes, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Many tell their cause themselves.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
