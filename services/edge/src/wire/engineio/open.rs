//! The open packet and the ping.

use super::Sid;

/// The server's ping as a packet; as a WebSocket frame it is `81 01 32`.
pub const PING: &str = "2";

/// What the open packet tells the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenPacket {
    /// Names the session.
    pub sid: Sid,
    /// The session polls and may move to a WebSocket.
    pub upgradable: bool,
    /// Time between a pong and the next ping, in milliseconds.
    pub ping_interval_ms: u64,
    /// Time that the client has for its pong, in milliseconds.
    pub ping_timeout_ms: u64,
    /// Largest message or body, in bytes.
    pub max_payload_bytes: usize,
}

impl OpenPacket {
    /// The packet's text: exactly five keys, in the order of the reference.
    pub fn encode(&self) -> String {
        format!(
            r#"0{{"sid":"{}","upgrades":[{}],"pingInterval":{},"pingTimeout":{},"maxPayload":{}}}"#,
            self.sid,
            if self.upgradable { r#""websocket""# } else { "" },
            self.ping_interval_ms,
            self.ping_timeout_ms,
            self.max_payload_bytes,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e01_the_open_packet_has_five_keys_in_order() {
        let sid = Sid { edge: 1, shard: 2, slot: 3, secret: [4; 16] };
        let mut open =
            OpenPacket { sid, upgradable: true, ping_interval_ms: 300, ping_timeout_ms: 200, max_payload_bytes: 1000 };
        assert_eq!(
            open.encode(),
            format!(
                r#"0{{"sid":"{sid}","upgrades":["websocket"],"pingInterval":300,"pingTimeout":200,"maxPayload":1000}}"#
            )
        );
        open.upgradable = false;
        assert!(open.encode().contains(r#""upgrades":[],"#));
    }
}
