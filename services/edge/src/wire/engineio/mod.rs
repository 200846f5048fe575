//! Engine.IO v4: packets, polling bodies, the open packet, sids and the HTTP error table. Pure.
//!
//! Source: the Engine.IO protocol, revision 4.

mod error;
mod open;
mod packet;
mod payload;
mod query;
mod sid;

pub use error::HandshakeError;
pub use open::{OpenPacket, PING};
pub use packet::{BadPacket, Packet, parse};
pub use payload::{BadPayload, PollingPacket, append_binary, append_text, packets};
pub use query::{Parameter, Query, Transport};
pub use sid::Sid;
