//! What differs between sockets and what is the same for a whole shard.

/// Rules of one socket, fixed when it is adopted. A shard keeps each distinct set once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Largest message in bytes, over all its fragments; more closes with 1009.
    pub max_message_bytes: usize,
    /// Most fragments of one message; more closes with 1008. 0: no bound.
    pub max_fragments: u32,
    /// Milliseconds a message may take from its first byte to its last; longer closes with 1008.
    pub message_ms: u32,
    /// Control frames a client may send in a second; more closes with 1008. 0: no bound.
    pub control_frames_per_second: u16,
    /// Text messages are allowed; else they close with 1003.
    pub text: bool,
    /// Binary messages are allowed; else they close with 1003.
    pub binary: bool,
    /// At most one private packet leaves in a turn of the loop (wire.md E28): for clients that attach
    /// their listeners late. Costs a send each.
    pub separate_writes: bool,
}

impl Default for SocketOptions {
    /// The public limits: 64 KiB, 128 fragments, 10 s, 10 control frames a second, both kinds.
    fn default() -> Self {
        Self {
            max_message_bytes: 65_536,
            max_fragments: 128,
            message_ms: 10_000,
            control_frames_per_second: 10,
            text: true,
            binary: true,
            separate_writes: false,
        }
    }
}

/// Bounds of a shard. Every one has a default; see [`Settings::default`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// Messages that the inbox takes before it refuses a delivery.
    pub inbox: usize,
    /// Connections that the shard holds; one more is closed at once.
    pub max_connections: usize,
    /// Resolution of the timers in milliseconds: a deadline is met at most this much late.
    pub tick_ms: u64,
    /// Bytes a member may be behind its room before it is closed as slow.
    pub max_lag_bytes: u64,
    /// Messages a member may be behind its room before it is closed as slow.
    pub max_lag_messages: u64,
    /// Milliseconds a member may be behind its room before it is closed as slow.
    pub max_lag_ms: u64,
    /// Bytes of packets for one connection alone that may wait; more closes it as slow.
    pub max_private_bytes: usize,
    /// Milliseconds a client has for its half of the close handshake.
    pub close_ms: u64,
    /// The hub is a task of this shard's runtime: it runs when the shard gives way to other tasks, not when
    /// it gives way to other threads.
    pub hosts_hub: bool,
}

impl Default for Settings {
    /// 8,192 messages, 1,000,000 connections, 250 ms, the lag of 256 KiB, 512 messages or 10 s, and a hub
    /// elsewhere.
    fn default() -> Self {
        Self {
            inbox: 8_192,
            max_connections: 1_000_000,
            tick_ms: 250,
            max_lag_bytes: 256 * 1024,
            max_lag_messages: 512,
            max_lag_ms: 10_000,
            max_private_bytes: 256 * 1024,
            close_ms: 2_000,
            hosts_hub: false,
        }
    }
}
