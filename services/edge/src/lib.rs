//! The edge: terminates the sockets of browsers and programs, holds the rooms, and delivers their events.
//!
//! ```text
//! accept/   HTTP, the handshake; hands sockets to a shard        bridge   what shards and hub say to each other
//! wire/     codecs, pure: bytes to packets and back              conn/    state machines of the protocols, pure
//! engine/   shards: sockets, timers, room logs, delivery         web/     the page
//! ```

pub mod accept;
pub mod bridge;
pub mod conn;
pub mod engine;
pub mod web;
pub mod wire;
