//! The HTTP side of a shard: accept loop, handshake, and the hand-over of upgraded sockets to the engine.

mod head;
mod host;
mod listener;
pub mod origin;
pub mod polling;
mod upgrade;

pub use host::{HttpLimits, serve};
pub use listener::tune;
pub use upgrade::upgrade;
