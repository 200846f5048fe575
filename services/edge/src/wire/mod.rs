//! Codecs: pure functions between bytes and packets. No I/O, no clock.

pub mod websocket;
