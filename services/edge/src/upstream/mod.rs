//! The way up: the edge's clients of the session and fanout services. Tasks make the calls; what comes
//! of them reaches the hub as an [`Outcome`].

use crate::bridge::ConnKey;
use crate::metrics::UpstreamMetrics;
use plaza_kit::shutdown::Shutdown;
use plaza_proto::code::Code;
use plaza_proto::fanout::{ReadResponse, TailsResponse};
use plaza_proto::session::ListMembersResponse;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

pub mod admission;
pub mod publish;
pub mod read;
pub mod registration;
mod replicas;
pub mod session;

/// Outcomes that wait for the hub.
pub const OUTCOMES: usize = 4_096;

/// Deadline of a unary call.
pub const CALL: Duration = Duration::from_millis(500);

/// What came of a call upstream.
#[derive(Debug)]
pub enum Outcome {
    /// The publish link has news.
    Publish(publish::LinkEvent),
    /// The session link has news.
    Session(session::SessionEvent),
    /// A read ended.
    Read(read::ReadKey, Result<Arc<ReadResponse>, Code>),
    /// A tail check ended.
    Tails(u64, Result<TailsResponse, Code>),
    /// A roster was asked for.
    Members {
        /// Who asked.
        to: ConnKey,
        /// The request's id.
        id: u32,
        /// The room asked about.
        room: plaza_proto::ids::RoomName,
        /// The first page.
        result: Result<ListMembersResponse, Code>,
    },
}

/// Where outcomes go. The hub always empties it, so waiting for room in it is short.
pub type Outcomes = mpsc::Sender<Outcome>;

/// What every upstream client needs.
#[derive(Clone, Debug)]
pub struct Context {
    /// To the hub.
    pub outcomes: Outcomes,
    /// Ends the tasks.
    pub shutdown: Shutdown,
    /// What they count.
    pub metrics: UpstreamMetrics,
}

/// A wait before the next attempt: doubled each time up to 2 s, with jitter of half.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Begins at 100 ms.
    pub const fn new() -> Self {
        Self { next: Duration::from_millis(100) }
    }

    /// The wait before the next attempt.
    pub fn wait(&mut self) -> Duration {
        let wait = self.next.mul_f64(0.5 + fastrand::f64() * 0.5);
        self.next = (self.next * 2).min(Duration::from_secs(2));
        wait
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}
