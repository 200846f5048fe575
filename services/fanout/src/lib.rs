//! The room log of Plaza: stores each event once, orders it once, and hands it to every edge.
//!
//! ```text
//! edge, session, backends -- gRPC --> service/ --> validate --> EventLog: publish, read, tails, emit
//!                                                                 |- log/jetstream  NATS JetStream
//!                                                                 `- log/memory     this process
//! ```
//! | module | its job |
//! |---|---|
//! | [`config`] | flags and what they fill |
//! | [`log`] | the seam [`log::EventLog`] and its two implementations |
//! | [`service`] | `plaza.fanout.v1.FanoutService` over any log |
//! | [`validate`] | what may be stored |
//! | [`metrics`] | what is counted |
//! | [`run`] | the wiring |

pub mod config;
pub mod log;
pub mod metrics;
pub mod run;
pub mod service;
pub mod validate;

pub use config::{Config, FLAGS};
pub use log::EventLog;
pub use log::memory::{MemoryLog, MemoryOptions};
pub use run::{Parts, RunError, run};
pub use service::Fanout;
