//! The edge: terminates the sockets of browsers and programs, holds the rooms, and delivers their events.
//!
//! ```text
//! accept/   HTTP, the handshake; hands sockets to a shard        bridge   what shards and hub say to each other
//! wire/     codecs, pure: bytes to packets and back              conn/    state machines of the protocols, pure
//! engine/   shards: sockets, timers, room logs, delivery         web/     the page
//! control/  the hub: rooms, memberships, sessions of this edge   feed/    NATS in, one exact sequence a room out
//! upstream/ clients of the session and fanout services           peer/    relays to and from other edges
//! trace     spans of a message                                   run      wires it all; drain, metrics, config
//! pod       what Kubernetes is told of this pod
//! check/    `plaza-edge check`: a running Plaza seen from outside
//! ```

pub mod accept;
pub mod bridge;
pub mod check;
pub mod config;
pub mod conn;
pub mod control;
pub mod drain;
pub mod engine;
pub mod feed;
pub mod metrics;
pub mod peer;
pub mod pod;
pub mod routes;
pub mod run;
pub mod trace;
pub mod upstream;
pub mod web;
pub mod wire;
