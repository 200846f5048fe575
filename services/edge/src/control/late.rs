//! Events that come out of the stream's order. One offset tells a Socket.IO client's place in all its
//! rooms, so an event below one that it has seen would move its offset back, and a recovery from there
//! would repeat or miss events. Its session is marked as not recoverable first.

use super::hub::Hub;
use crate::bridge::{RoomId, SessionId};
use crate::feed::sequencer::Action;
use plaza_proto::position::Position;
use plaza_proto::session::{Op, op};

impl Hub {
    /// Looks at what a room's sequencer is about to deliver.
    pub(super) fn note_late(&mut self, id: RoomId, actions: &[Action]) {
        let mut delivered = actions.iter().filter_map(|action| match action {
            Action::Deliver(stored) => Some(stored),
            _ => None,
        });
        let (Some(first), Some(room)) = (delivered.next(), self.rooms.get(id)) else { return };
        let epoch = room.sequencer.position().epoch;
        let last = delivered.next_back().unwrap_or(first);
        let (first, last) = (Position::of(epoch, first.seq, first.id), Position::of(epoch, last.seq, last.id));
        if self.furthest.epoch == epoch && first.seq < self.furthest.seq {
            self.lose_place(id, first, None);
        }
        if self.furthest.epoch != epoch || self.furthest.seq < last.seq {
            self.furthest = last;
        }
    }

    /// Members of the room that have seen events of other rooms behind `event` can no longer continue
    /// their session elsewhere. `shard`: only those on it.
    pub(super) fn lose_place(&mut self, id: RoomId, event: Position, shard: Option<usize>) {
        let mut lost = Vec::new();
        let rooms = &self.rooms;
        for conn in self.conns.iter_mut_on(shard) {
            if conn.rooms.len() < 2 || conn.pid.is_none() || !conn.is_socket_io() || !conn.is_in(id) {
                continue;
            }
            let ahead = conn.rooms.iter().filter(|(other, _)| *other != id).any(|(other, _)| {
                rooms.get(*other).is_some_and(|room| room.shown.epoch == event.epoch && room.shown.seq > event.seq)
            });
            if ahead {
                conn.pid = None;
                // Under a key that nobody knows.
                lost.push(super::requests::open_op(conn, Some(SessionId::random())));
            }
        }
        for open in lost {
            self.session.owe(Op { op: Some(op::Op::Open(open)) });
        }
    }
}
