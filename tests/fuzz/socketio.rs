//! Packets of Socket.IO.

use super::{Target, is_object, text, texts};
use plaza_edge::wire::json::Array;
use plaza_edge::wire::socketio::{self, Kind, MAX_ATTACHMENTS, decode};

pub(super) const PACKET: Target = Target { name: "socketio-packet", check: packet, seeds };

/// What a packet carries is JSON, and an event that is written again reads the same.
fn packet(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let Ok(packet) = decode(text) else { return };
    assert!(packet.namespace.starts_with('/'));
    assert!(packet.id.is_none_or(|id| id < 1 << 53));
    match packet.kind {
        Kind::Connect { auth } => {
            assert!(auth.is_none_or(is_object), "{auth:?}");
        }
        Kind::Event(event) => {
            assert!(event.attachments <= MAX_ATTACHMENTS);
            let list = format!("[{}]", event.all);
            let all = Array::parse(&list).expect("the arguments are a list");
            assert_eq!(all.first, event.first);
            // A numeric name and one that is no Unicode text stand as JSON text.
            if packet.id.is_none() && text.contains(&format!("\"{}\"", event.name)) {
                let written = socketio::event(packet.namespace, &event.name, event.all, event.attachments);
                let written = String::from_utf8(written).expect("text");
                let again = decode(&written[1..]).expect("an event as we write it");
                assert_eq!((again.namespace, again.id), (packet.namespace, None));
                assert_eq!(again.kind, Kind::Event(event));
            }
        }
        Kind::Ack { arguments, attachments } => {
            assert!(attachments <= MAX_ATTACHMENTS);
            assert!(Array::parse(&format!("[{arguments}]")).is_some() || Array::parse(arguments).is_some());
        }
        Kind::Disconnect | Kind::ConnectError => {}
    }
}

fn seeds() -> Vec<Vec<u8>> {
    texts(&[
        "0",
        "0/admin,{\"token\":\"abc\"}",
        "0{\"n\":\"\\ude00\",\"m\":1e999}",
        "1/admin,",
        "2[\"message\",\"hi\"]",
        "2/admin,12[\"join\",{\"room\":\"a\",\"after\":\"\"}, [1,2.5e3,null]]",
        "3[{\"ok\":true}]",
        "51-[\"file\",{\"_placeholder\":true,\"num\":0}]",
        "62-/a,7[{\"_placeholder\":true,\"num\":1},{\"_placeholder\":true,\"num\":0}]",
        "2[\"\\ud83d\\ude00 \\u0041\"]",
    ])
}
