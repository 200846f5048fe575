//! The WebSocket protocol, server side (RFC 6455): handshake, frames, messages. Pure.
//!
//! Client frames come in through a [`Parser`], which reads in place from a buffer that all sockets
//! share and keeps a box of its own only while a frame or message is incomplete. Server frames are not
//! masked, so one encoding serves every receiver.

mod buffer;
mod close;
mod frame;
mod handshake;
mod header;
mod parser;
mod utf8;

#[cfg(test)]
mod tests;

pub use buffer::FrameBuffer;
pub use close::{CodeLabel, Violation, codes, may_be_received};
pub use frame::{FrameHeader, MAX_HEADER, Opcode, frame, frame_header, push_close, push_frame, read_server_frame};
pub use handshake::{Refusal, check_upgrade, choose_subprotocol};
pub use parser::{Event, Limits, Parser};
