//! The WebSocket protocol, server side (RFC 6455): handshake, frames, messages. Pure.

pub mod encode;
