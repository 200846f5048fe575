//! The namespaces `/` and `/custom`, and the events of the wire profile on `/`.

use bytes::Bytes;
use plaza_edge::conn::{Action, Admission, Handler, Millis, Packet};
use plaza_edge::wire::socketio::{self, Arguments};
use plaza_proto::ids::session_id;

/// Its handler; a session knows nothing.
#[derive(Debug)]
pub(crate) struct Namespaces;

impl Handler for Namespaces {
    fn has_namespace(&self, namespace: &str) -> bool {
        matches!(namespace, "/" | "/custom")
    }

    fn on_connect(&mut self, namespace: &str, auth: Option<&str>, _now: Millis, out: &mut Vec<Action>) -> Admission {
        send(socketio::connect(namespace, &session_id(rand::random()), None), out);
        send(socketio::event(namespace, "auth", auth.unwrap_or("{}"), 0), out);
        Admission::Joined
    }

    fn on_event(
        &mut self,
        namespace: &str,
        id: Option<u64>,
        event: &Arguments<'_>,
        attachments: Vec<Bytes>,
        _now: Millis,
        out: &mut Vec<Action>,
    ) {
        match (namespace, &*event.name, id) {
            ("/", "message", _) => send(socketio::event("/", "message-back", event.all, attachments.len()), out),
            ("/", "message-with-ack", Some(id)) => send(socketio::ack("/", id, event.all, attachments.len()), out),
            _ => return,
        }
        out.extend(attachments.into_iter().map(|bytes| Action::Send(Packet::Binary(bytes))));
    }

    fn on_disconnect(&mut self, _namespace: &str, _out: &mut Vec<Action>) {}
}

fn send(packet: Vec<u8>, out: &mut Vec<Action>) {
    out.push(Action::Send(Packet::Text(packet.into())));
}
