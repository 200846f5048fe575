//! The harness: real servers and real Plaza processes on free ports of loopback, ended on drop, with
//! their logs shown when a test fails.
//!
//! | module | what it starts |
//! |---|---|
//! | [`process`] | any program, with its log in a file |
//! | [`proxy`] | nothing: a link between two of them that can be slow, silent or cut |
//! | [`redis`] | `redis-server` |
//! | [`redis_sets`] | several of them: sentinels with their servers, a cluster |
//! | [`nats`] | `nats-server` with JetStream |
//! | [`nats_cluster`] | three of them that keep streams together |
//! | [`otlp`] | a receiver of spans, in this process |
//! | [`observe`] | Jaeger, an OpenTelemetry collector, Prometheus |
//! | [`certificates`] | `openssl`, which makes them |
//! | [`balancer`] | a load balancer without sticky sessions |
//! | [`cluster`] | `plaza-edge`, `plaza-session` and `plaza-fanout`, as many as wanted |

use std::io::Write;

pub mod balancer;
pub mod certificates;
pub mod cluster;
pub mod nats;
pub mod nats_cluster;
pub mod observe;
pub mod otlp;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod redis_sets;

/// Says that a test cannot run on this machine, past the capture of the test harness:
/// `not run: <what> (<why>)`. The test then returns.
///
/// # Panics
/// In continuous integration (`CI=true`), where nothing may be left out.
pub fn not_run(what: &str, why: &str) {
    // What cannot be written is not worth a failure: the panic says the same.
    let _ = writeln!(std::io::stderr(), "not run: {what} ({why})");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "CI=true, and not run: {what} ({why})");
}
