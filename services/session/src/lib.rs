//! Sessions, usernames and presence: the one service that knows Redis.
//!
//! | module | what it does |
//! |---|---|
//! | [`config`], [`run`] | flags, and the wiring of all parts |
//! | [`service`] | `SessionService` for backends, `EdgeLeaseService` for edges |
//! | [`store`] | the trait, in memory and in Redis |
//! | [`username`] | what a name may be, and when two are the same |
//! | [`outbox`] | publishes JOINED, LEFT and RENAMED, each exactly once |
//! | [`control`] | tells edges at once what their heartbeats repeat |
//! | [`reaper`] | clears what dead edges left |
//! | [`metrics`], [`random`] | counters; names and secrets |
//!
//! What an edge holds (sessions, names, presences) lives as long as the lease of its incarnation.

pub mod config;
pub mod control;
pub mod metrics;
pub mod outbox;
pub mod random;
pub mod reaper;
mod run;
pub mod service;
pub mod store;
pub mod username;

pub use config::{Config, FLAGS};
pub use run::{Parts, RunError, run};

/// The source of this service's spans.
pub(crate) const TRACER: plaza_kit::trace::Tracer = plaza_kit::trace::Tracer::named("plaza-session");
