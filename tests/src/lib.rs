//! The harness: real servers and real Plaza processes on free ports of loopback, ended on drop, with
//! their logs shown when a test fails.
//!
//! | module | what it starts |
//! |---|---|
//! | [`process`] | any program, with its log in a file |
//! | [`proxy`] | nothing: a link between two of them that can be slow, silent or cut |
//! | [`redis`] | `redis-server` |
//! | [`nats`] | `nats-server` with JetStream |
//! | [`otlp`] | a receiver of spans, in this process |
//! | [`balancer`] | a load balancer without sticky sessions |
//! | [`cluster`] | `plaza-edge`, `plaza-session` and `plaza-fanout`, as many as wanted |

pub mod balancer;
pub mod cluster;
pub mod nats;
pub mod otlp;
pub mod process;
pub mod proxy;
pub mod redis;
