//! What every Plaza `main` needs, and nothing of chat.
//!
//! | module | what it gives |
//! |---|---|
//! | [`program`] | the frame of every `main` |
//! | [`settings`] | flags as tables, each also a `PLAZA_` variable; every wrong one is reported at once |
//! | [`telemetry`] | log set-up, and [`telemetry::LogGate`] for what bad input can trigger |
//! | [`trace`] | spans of sampled work, exported over OTLP by the `OTEL_*` variables |
//! | [`shutdown`] | one token to tell, one tracker to wait |
//! | [`net`] | bound listeners, with a remedy when the address is in use |
//! | [`platform`] | what differs between Linux and a Mac |
//! | [`metrics`] | the registry behind `/metrics` |
//! | [`admin`] | `/livez`, `/readyz`, `/metrics` |
//! | [`grpc`] | serving gRPC with health, reflection, TLS and limits |
//! | [`discovery`] | from `--session-addr` to a balanced channel |
//! | [`kubernetes`] | the API of the cluster, where it is used |
//! | [`chaos`] | ways to break the process on purpose, without the feature `chaos` empty |
//!
//! A `main` uses them in this order: program (settings, telemetry), bind, metrics, admin, run, wait.

pub mod admin;
pub mod chaos;
pub mod discovery;
pub mod grpc;
pub mod kubernetes;
pub mod metrics;
pub mod net;
pub mod platform;
pub mod program;
pub mod settings;
pub mod shutdown;
mod silent;
pub mod telemetry;
pub mod trace;
