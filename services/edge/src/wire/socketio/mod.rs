//! Socket.IO v5: packets inside Engine.IO messages. JSON stays text: nothing is written again. Pure.
//!
//! Source: the Socket.IO protocol, revision 5.

mod decode;
mod encode;
pub mod lines;

pub use decode::{Arguments, DecodeError, Kind, MAX_ATTACHMENTS, Packet, decode};
pub use encode::{ack, begin_ack, begin_event, connect, connect_error, disconnect, event, private_line};

/// Event names that mean something to the client library itself.
const RESERVED: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// Whether an event may not have this name.
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}
