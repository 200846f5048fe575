//! Bodies and queries of long-polling, and the packets in them.

use super::{Target, text, texts};
use plaza_edge::wire::engineio::{
    Packet, PollingPacket, Query, Sid, append_binary, append_text, packets, parse as parse_packet,
};

pub(super) const PAYLOAD: Target = Target { name: "engineio-payload", check: payload, seeds: payload_seeds };
pub(super) const QUERY: Target = Target { name: "engineio-query", check: query, seeds: query_seeds };

/// What was read from a body makes the same body again.
fn payload(input: &[u8]) {
    let Some(body) = text(input) else { return };
    let mut again = Vec::new();
    for packet in packets(body) {
        match packet {
            Ok(PollingPacket::Text(text)) => {
                append_text(&mut again, text.as_bytes());
                match parse_packet(text) {
                    Ok(Packet::Message(rest)) => assert_eq!(text.strip_prefix('4'), Some(rest)),
                    Ok(Packet::Ping(rest)) => assert_eq!(text.strip_prefix('2'), Some(rest)),
                    Ok(Packet::Pong(rest)) => assert_eq!(text.strip_prefix('3'), Some(rest)),
                    Ok(Packet::Open | Packet::Close | Packet::Upgrade | Packet::Noop) | Err(_) => {}
                }
            }
            Ok(PollingPacket::Binary(data)) => append_binary(&mut again, &data),
            Err(_) => return,
        }
    }
    assert_eq!(again, body.as_bytes());
}

fn payload_seeds() -> Vec<Vec<u8>> {
    texts(&["40", "42[\"message\",\"hi\"]\u{1e}3\u{1e}bAQID\u{1e}1", "b\u{1e}bAA==", "2probe\u{1e}5\u{1e}6"])
}

/// A sid that is taken is one that is given out.
fn query(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let query = Query::parse(text);
    let _ = (query.transport(), query.version());
    if let Ok(Some(sid)) = query.sid() {
        let written = sid.to_string();
        assert!(text.contains(&written), "{text} has {written}");
        assert_eq!(Sid::parse(&written), Some(sid));
    }
}

fn query_seeds() -> Vec<Vec<u8>> {
    let sid = Sid { edge: 7, shard: 1, slot: 9, secret: [5; 16] };
    let with_sid = format!("EIO=4&transport=websocket&sid={sid}");
    texts(&["EIO=4&transport=polling&t=abc", &with_sid, "sid[]=a&EIO%5B0%5D=4&transport=polling&transport=polling"])
}
