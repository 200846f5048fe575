//! Socket.IO inside an Engine.IO session: namespaces, attachments, and the rules that close.
//!
//! Source: wire reference, rows S1 to S15.

use super::engineio::{Application, close, text};
use super::{Action, Cause, Millis, Settings};
use crate::bridge::{ConnKey, Control, Reply, RoomId};
use crate::wire::socketio::{self, Arguments, Kind};
use bytes::Bytes;
use std::sync::Arc;

/// Milliseconds that the attachments of a packet may take.
const ATTACHMENTS_MS: u64 = 10_000;

/// What a handler says to a CONNECT. It sends the reply itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Joined; the reply is sent.
    Joined,
    /// The hub is asked; [`Handler::on_reply`] will say.
    Pending,
    /// Refused; the reason is sent. The client may try again.
    Refused,
}

/// What happens in the namespaces of one connection.
pub trait Handler: Send {
    /// Whether the namespace exists.
    fn has_namespace(&self, namespace: &str) -> bool;
    /// The connection has its place.
    fn on_open(&mut self, _key: ConnKey) {}
    /// A client wants to join; `auth` is a JSON object.
    fn on_connect(&mut self, namespace: &str, auth: Option<&str>, now: Millis, out: &mut Vec<Action>) -> Admission;
    /// An event of a joined namespace. `id`: it wants an ACK, at most one.
    fn on_event(
        &mut self,
        namespace: &str,
        id: Option<u64>,
        event: &Arguments<'_>,
        attachments: Vec<Bytes>,
        now: Millis,
        out: &mut Vec<Action>,
    );
    /// The client left the namespace.
    fn on_disconnect(&mut self, namespace: &str, out: &mut Vec<Action>);
    /// The hub's reply. `Some`: what became of the pending CONNECT.
    fn on_reply(&mut self, _id: u32, _reply: Reply, _now: Millis, _out: &mut Vec<Action>) -> Option<Admission> {
        None
    }
    /// See [`super::Connection::on_control`].
    fn on_control(&mut self, _control: &Control, _now: Millis, _out: &mut Vec<Action>) {}
    /// See [`super::Connection::on_deadline`].
    fn on_deadline(&mut self, _now: Millis, _out: &mut Vec<Action>) {}
    /// See [`super::Connection::deadline`].
    fn deadline(&self) -> Option<Millis> {
        None
    }
    /// See [`super::Connection::on_close`].
    fn on_close(&mut self, _cause: Cause, _rooms: Vec<RoomId>, _out: &mut Vec<Action>) {}
}

/// A namespace that the client has asked for.
#[derive(Debug)]
struct Namespace {
    name: Box<str>,
    pending: bool,
}

/// A packet whose attachments are not complete.
#[derive(Debug)]
struct Partial {
    text: Box<str>,
    attachments: Vec<Bytes>,
    missing: usize,
    bytes: usize,
    deadline: Millis,
}

/// The protocol's state machine.
#[derive(Debug)]
pub struct SocketIo<H> {
    settings: Arc<Settings>,
    handler: H,
    namespaces: Vec<Namespace>,
    partial: Option<Box<Partial>>,
    /// Something must be joined before.
    connect_deadline: Option<Millis>,
}

impl<H: Handler> SocketIo<H> {
    /// Before its open packet.
    pub fn new(settings: Arc<Settings>, handler: H) -> Self {
        Self { settings, handler, namespaces: Vec::new(), partial: None, connect_deadline: None }
    }

    fn on_connect(&mut self, namespace: &str, auth: Option<&str>, now: Millis, out: &mut Vec<Action>) {
        if self.namespaces.iter().any(|n| &*n.name == namespace) {
            out.push(close(Cause::Protocol));
            return;
        }
        if !self.handler.has_namespace(namespace) {
            out.push(text(socketio::connect_error(namespace, "Invalid namespace", None)));
            return;
        }
        let admission = self.handler.on_connect(namespace, auth, now, out);
        if admission != Admission::Refused {
            self.namespaces.reserve_exact(1);
            self.namespaces.push(Namespace { name: namespace.into(), pending: admission == Admission::Pending });
        }
        match admission {
            Admission::Joined => self.connect_deadline = None,
            // From now on it is the services that may be late.
            Admission::Pending if self.connect_deadline.is_some() => {
                self.connect_deadline = Some(now + self.settings.open_timeout_ms);
            }
            Admission::Pending | Admission::Refused => {}
        }
    }

    fn on_packet(
        &mut self,
        packet: &socketio::Packet<'_>,
        attachments: Vec<Bytes>,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        let namespace = packet.namespace;
        if let Kind::Connect { auth } = packet.kind {
            self.on_connect(namespace, auth, now, out);
            return;
        }
        let joined = self.namespaces.iter().position(|n| !n.pending && &*n.name == namespace);
        match (joined, &packet.kind) {
            (Some(_), Kind::Event(event)) => self.handler.on_event(namespace, packet.id, event, attachments, now, out),
            (Some(place), Kind::Disconnect) => {
                self.namespaces.swap_remove(place);
                self.handler.on_disconnect(namespace, out);
            }
            // No event of ours asks for an ACK, so every ACK has an unknown id.
            (Some(_), Kind::Ack { .. }) => {}
            (_, Kind::Connect { .. } | Kind::ConnectError) | (None, _) => out.push(close(Cause::Protocol)),
        }
    }

    /// Keeps a packet until its attachments are here.
    fn hold(&mut self, text: &str, missing: usize, now: Millis) {
        let deadline = now + ATTACHMENTS_MS;
        let partial = Partial { text: text.into(), attachments: Vec::new(), missing, bytes: 0, deadline };
        self.partial = Some(Box::new(partial));
    }
}

impl<H: Handler> Application for SocketIo<H> {
    fn on_open(&mut self, key: ConnKey, now: Millis, _out: &mut Vec<Action>) {
        self.connect_deadline = Some(now + self.settings.connect_timeout_ms);
        self.handler.on_open(key);
    }

    fn on_text(&mut self, message: &str, now: Millis, out: &mut Vec<Action>) {
        if self.partial.is_some() {
            out.push(close(Cause::Protocol));
            return;
        }
        match socketio::decode(message) {
            Ok(packet) => match packet.kind {
                Kind::Event(Arguments { attachments: missing @ 1.., .. })
                | Kind::Ack { attachments: missing @ 1.., .. } => {
                    self.hold(message, missing, now);
                }
                _ => self.on_packet(&packet, Vec::new(), now, out),
            },
            Err(_) => out.push(close(Cause::Protocol)),
        }
    }

    fn on_binary(&mut self, message: &[u8], now: Millis, out: &mut Vec<Action>) {
        let Some(partial) = &mut self.partial else {
            out.push(close(Cause::Protocol));
            return;
        };
        partial.bytes += message.len();
        if partial.bytes > self.settings.max_message_bytes {
            self.partial = None;
            out.push(close(Cause::Limit));
            return;
        }
        partial.attachments.push(Bytes::copy_from_slice(message));
        partial.missing -= 1;
        if partial.missing == 0
            && let Some(partial) = self.partial.take()
        {
            match socketio::decode(&partial.text) {
                Ok(packet) => self.on_packet(&packet, partial.attachments, now, out),
                Err(_) => unreachable!("the text was a packet when it arrived"),
            }
        }
    }

    fn on_reply(&mut self, id: u32, reply: Reply, now: Millis, out: &mut Vec<Action>) {
        let Some(admission) = self.handler.on_reply(id, reply, now, out) else { return };
        match admission {
            Admission::Joined => {
                self.connect_deadline = None;
                self.namespaces.iter_mut().for_each(|namespace| namespace.pending = false);
            }
            Admission::Refused => {
                self.namespaces.retain(|namespace| !namespace.pending);
                // It may try again, and has as long for it as at first.
                self.connect_deadline = self.connect_deadline.map(|_| now + self.settings.connect_timeout_ms);
            }
            Admission::Pending => {}
        }
    }

    fn on_control(&mut self, control: &Control, now: Millis, out: &mut Vec<Action>) {
        self.handler.on_control(control, now, out);
    }

    fn on_deadline(&mut self, now: Millis, out: &mut Vec<Action>) {
        if self.connect_deadline.is_some_and(|deadline| now >= deadline) {
            self.connect_deadline = None;
            let is_pending = self.namespaces.iter().any(|namespace| namespace.pending);
            out.push(close(if is_pending { Cause::Unavailable } else { Cause::ConnectTimeout }));
        } else if self.partial.as_ref().is_some_and(|partial| now >= partial.deadline) {
            self.partial = None;
            out.push(close(Cause::Protocol));
        } else if self.handler.deadline().is_some_and(|deadline| now >= deadline) {
            self.handler.on_deadline(now, out);
        }
    }

    fn deadline(&self) -> Option<Millis> {
        let partial = self.partial.as_ref().map(|partial| partial.deadline);
        [self.connect_deadline, partial, self.handler.deadline()].into_iter().flatten().min()
    }

    fn on_close(&mut self, cause: Cause, rooms: Vec<RoomId>, out: &mut Vec<Action>) {
        self.handler.on_close(cause, rooms, out);
    }
}
