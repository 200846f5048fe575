//! Codecs: pure functions between bytes and packets. No I/O, no clock.

pub mod engineio;
mod event;
pub mod json;
pub mod plaza;
pub mod socketio;
pub mod websocket;

pub use event::{Mark, RoomEvent, encode_event, encode_typing};
