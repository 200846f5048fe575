//! The two raw echoes: WebSocket messages, and Engine.IO messages.

use plaza_edge::bridge::{ConnKey, Control, Reply, RoomId};
use plaza_edge::conn::{Action, Application, Cause, Connection, Incoming, Millis, Packet};

/// Sends every WebSocket message back.
#[derive(Debug)]
pub(crate) struct WebSocketEcho;

impl Connection for WebSocketEcho {
    fn on_open(&mut self, _key: ConnKey, _now: Millis, _out: &mut Vec<Action>) {}

    fn on_message(&mut self, message: Incoming<'_>, _now: Millis, out: &mut Vec<Action>) {
        out.push(Action::Send(match message {
            Incoming::Text(text) => Packet::Text(text.to_owned().into()),
            Incoming::Binary(bytes) => Packet::Binary(bytes.to_vec().into()),
        }));
    }

    fn on_reply(&mut self, _id: u32, _reply: Reply, _now: Millis, _out: &mut Vec<Action>) {}

    fn on_control(&mut self, _control: &Control, _now: Millis, _out: &mut Vec<Action>) {}

    fn on_reset(&mut self, _room: RoomId, _now: Millis, _out: &mut Vec<Action>) {}

    fn on_deadline(&mut self, _now: Millis, _out: &mut Vec<Action>) {}

    fn deadline(&self) -> Option<Millis> {
        None
    }

    fn on_close(&mut self, _cause: Cause, _rooms: Vec<RoomId>, _out: &mut Vec<Action>) {}
}

/// Sends every Engine.IO message back.
#[derive(Debug)]
pub(crate) struct EngineIoEcho;

impl Application for EngineIoEcho {
    fn on_open(&mut self, _key: ConnKey, _now: Millis, _out: &mut Vec<Action>) {}

    fn on_text(&mut self, message: &str, _now: Millis, out: &mut Vec<Action>) {
        out.push(Action::Send(Packet::Text(format!("4{message}").into())));
    }

    fn on_binary(&mut self, message: &[u8], _now: Millis, out: &mut Vec<Action>) {
        out.push(Action::Send(Packet::Binary(message.to_vec().into())));
    }
}
