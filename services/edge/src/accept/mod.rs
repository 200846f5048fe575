//! The HTTP side of a shard: accept loop, handshake, and the hand-over of upgraded sockets to the engine.

pub mod address;
pub(crate) mod answers;
mod ceiling;
mod head;
mod host;
mod limits;
mod listener;
pub mod origin;
pub mod places;
pub mod polling;
mod upgrade;

pub use ceiling::Ceiling;
pub(crate) use ceiling::Full;
pub use host::serve;
pub(crate) use limits::HEADER_TIMEOUT;
pub use limits::HttpLimits;
pub use listener::tune;
pub use upgrade::upgrade;
