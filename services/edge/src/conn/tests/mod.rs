//! Connections driven by hand: time and the hub's replies are given, the actions are looked at.

mod chat;
mod engineio;
mod plaza;
mod recovery;
mod socketio;

use super::{Action, Close, Connection, EngineIo, Handler, Incoming, Millis, Packet, Settings, SocketIo};
use crate::bridge::{ConnKey, Identity, Joined, Op, Reply, RoomId};
use bytes::Bytes;
use plaza_proto::ids::{MessageId, RoomName};
use plaza_proto::position::{Epoch, Position};
use std::sync::Arc;

const KEY: ConnKey = ConnKey { shard: 1, slot: 2, generation: 3 };

/// A connection and what it has asked for since the last look.
struct Driver {
    connection: Box<dyn Connection>,
    now: Millis,
    out: Vec<Action>,
}

/// A request as the hub sees it.
#[derive(Debug)]
struct Asked {
    id: u32,
    identity: Arc<Identity>,
    op: Op,
}

impl Driver {
    fn open(connection: impl Connection + 'static) -> Self {
        let mut driver = Self { connection: Box::new(connection), now: 1_000, out: Vec::new() };
        driver.connection.on_open(KEY, driver.now, &mut driver.out);
        driver
    }

    /// Engine.IO with Socket.IO and this handler in it; its open packet is read.
    fn socket_io(settings: Settings, handler: impl Handler + 'static) -> Self {
        let settings = Arc::new(settings);
        let application = SocketIo::new(Arc::clone(&settings), handler);
        let mut driver = Self::open(EngineIo::new(settings, false, application));
        assert!(driver.texts().pop().is_some_and(|open| open.starts_with('0')));
        driver
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.connection.on_message(Incoming::Text(text), self.now, &mut self.out);
        self
    }

    fn binary(&mut self, bytes: &[u8]) -> &mut Self {
        self.connection.on_message(Incoming::Binary(bytes), self.now, &mut self.out);
        self
    }

    fn reply(&mut self, id: u32, reply: Reply) -> &mut Self {
        self.connection.on_reply(id, reply, self.now, &mut self.out);
        self
    }

    /// Lets time pass to `now`, with every deadline on the way.
    fn until(&mut self, now: Millis) -> &mut Self {
        while let Some(deadline) = self.connection.deadline().filter(|deadline| *deadline <= now) {
            assert!(deadline > self.now || self.out.is_empty(), "a deadline that stays");
            self.now = self.now.max(deadline);
            self.connection.on_deadline(self.now, &mut self.out);
            if self.is_closed() {
                break;
            }
        }
        self.now = self.now.max(now);
        self
    }

    /// Text messages that were sent; other actions stay.
    fn texts(&mut self) -> Vec<String> {
        let mut texts = Vec::new();
        self.out.retain(|action| match action {
            Action::Send(Packet::Text(text)) => {
                texts.push(String::from_utf8(text.to_vec()).expect("text is UTF-8"));
                false
            }
            _ => true,
        });
        texts
    }

    /// The request that was made; there must be one.
    fn asked(&mut self) -> Asked {
        let place = self.out.iter().position(|action| matches!(action, Action::Request { .. })).expect("a request");
        let Action::Request { id, identity, op } = self.out.remove(place) else { unreachable!() };
        Asked { id, identity, op }
    }

    fn has_asked(&self) -> bool {
        self.out.iter().any(|action| matches!(action, Action::Request { .. }))
    }

    fn closed(&self) -> Option<&Close> {
        self.out.iter().find_map(|action| match action {
            Action::Close(close) => Some(close),
            _ => None,
        })
    }

    fn is_closed(&self) -> bool {
        self.closed().is_some()
    }
}

fn room(name: &str) -> RoomName {
    RoomName::parse(name).expect("a valid name")
}

fn position(seq: u64) -> Position {
    Position { epoch: Epoch([7; 8]), seq, check: 9 }
}

fn joined(name: &str, id: u32) -> Joined {
    Joined {
        room: room(name),
        id: RoomId(id),
        position: position(10),
        members: 3,
        recovered: false,
        replay: Vec::new(),
        reset: None,
    }
}

fn published(seq: u64) -> Reply {
    Reply::Published { position: position(seq), id: MessageId([seq as u8; 16]), duplicate: false, trace: None }
}
