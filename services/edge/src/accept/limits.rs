//! Bounds of the HTTP phase.

use super::ceiling::Ceiling;
use std::time::Duration;

/// Default of [`HttpLimits::header_timeout`].
pub(crate) const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Bounds of the HTTP phase.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// Time for the head of a request, from its connection's accept or from the head's first byte.
    pub header_timeout: Duration,
    /// Time between an answer and the next request of its connection. Longer than load balancers keep a
    /// connection for reuse (60 s), or they would reuse one that is just being closed.
    pub idle_timeout: Duration,
    /// HTTP connections (not upgraded ones) at once; more wait in the listen backlog.
    pub max_connections: usize,
    /// Clients beyond it are turned away. `None`: those that knock here may take the last descriptor.
    pub ceiling: Option<Ceiling>,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            header_timeout: HEADER_TIMEOUT,
            idle_timeout: Duration::from_secs(75),
            max_connections: 16_384,
            ceiling: None,
        }
    }
}
