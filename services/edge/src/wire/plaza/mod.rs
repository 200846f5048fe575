//! Plaza's own protocol: one frame of `plaza.client.v1` in each WebSocket message. Pure.
//!
//! Both forms decode to one [`ClientFrame`] and encode from one generated `ServerFrame`, so that they
//! cannot drift apart; a test ties the JSON names to the `.proto` file.

mod frame;
pub mod json;
mod plain;
pub mod proto;
#[cfg(test)]
mod tests;

pub use frame::{BadFrame, Body, ClientFrame, Content, Hello, Publish, client_event};

/// Subprotocol of the JSON form.
pub const JSON_SUBPROTOCOL: &str = "plaza.v1.json";
/// Subprotocol of the protobuf form.
pub const PROTO_SUBPROTOCOL: &str = "plaza.v1.proto";
