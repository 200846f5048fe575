//! Events that come out of the stream's order. One offset tells a Socket.IO client's place in all its
//! rooms, so an event below one that it has seen would move its offset back, and a recovery from there
//! would repeat or miss events. Its session loses its key first: the room waits until that is written.

use super::hub::Hub;
use super::requests::Asked;
use crate::bridge::{ConnKey, Control, Inbound, RoomId, SessionId};
use crate::feed::sequencer::Action;
use plaza_proto::position::Position;
use plaza_proto::session::op;

/// What a room holds at most while keys are taken away; with more the connections are closed.
const HELD: usize = 1_024;

impl Hub {
    /// Looks at what a room's sequencer is about to deliver.
    pub(super) fn note_late(&mut self, id: RoomId, actions: &[Action]) {
        let mut delivered = actions.iter().filter_map(|action| match action {
            Action::Deliver(epoch, stored) => Some(Position::of(*epoch, stored.seq, stored.id)),
            _ => None,
        });
        let (Some(first), Some(room)) = (delivered.next(), self.rooms.get(id)) else { return };
        if room.marking > 0 && room.held.len() + actions.len() > HELD {
            self.give_up_marks(id);
        }
        let last = delivered.next_back().unwrap_or(first);
        if self.furthest.epoch == first.epoch && first.seq < self.furthest.seq {
            self.lose_place(id, first, None);
        }
        if self.furthest.epoch != last.epoch || self.furthest.seq < last.seq {
            self.furthest = last;
            self.link.know(last);
        }
    }

    /// Members of the room that have seen events of other rooms behind `event` can no longer continue
    /// their session elsewhere; nothing more of this room is delivered before that is written. `shard`: only
    /// those on it.
    pub(super) fn lose_place(&mut self, id: RoomId, event: Position, shard: Option<usize>) {
        let mut lost = Vec::new();
        let rooms = &self.rooms;
        let Some(born) = rooms.get(id).map(|room| room.born) else { return };
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
                lost.push((conn.identity.session, super::requests::open_op(conn, Some(SessionId::random()))));
            }
        }
        for (session, open) in lost {
            let Some(to) = self.conns.of_session(&session.to_string()) else { continue };
            match self.ask(op::Op::Open(open), Asked::Mark { to, room: id, born }) {
                Ok(()) => {
                    if let Some(room) = self.rooms.get_mut(id) {
                        room.marking += 1;
                    }
                }
                Err(_) => self.cut(to),
            }
        }
    }

    /// A key has been taken away, or could not be: then its connection ends instead.
    pub(super) fn on_marked(&mut self, to: ConnKey, (id, born): (RoomId, u64), done: bool) {
        if !done {
            self.cut(to);
        }
        let Some(room) = self.rooms.get_mut(id).filter(|room| room.born == born && room.marking > 0) else { return };
        room.marking -= 1;
        if room.marking == 0 {
            self.show_held(id);
        }
    }

    fn show_held(&mut self, id: RoomId) {
        let Some(room) = self.rooms.get_mut(id) else { return };
        let held = std::mem::take(&mut room.held);
        let first = held.iter().find_map(|action| match action {
            Action::Deliver(epoch, stored) => Some(Position::of(*epoch, stored.seq, stored.id)),
            _ => None,
        });
        // Meanwhile others have seen more of their other rooms.
        if let Some(first) = first {
            self.lose_place(id, first, None);
        }
        match self.rooms.get_mut(id) {
            Some(room) if room.marking > 0 => room.held = held,
            _ => {
                self.show(id, held);
                self.settle(id);
            }
        }
    }

    /// Too much waits for the session service: those who would lose their place end their connections.
    fn give_up_marks(&mut self, id: RoomId) {
        let marked: Vec<ConnKey> = self
            .asked
            .values()
            .filter_map(|asked| match asked {
                Asked::Mark { to, room, .. } if *room == id => Some(*to),
                _ => None,
            })
            .collect();
        marked.into_iter().for_each(|to| self.cut(to));
        if let Some(room) = self.rooms.get_mut(id) {
            room.marking = 0;
        }
        self.show_held(id);
    }

    /// Ends a connection whose session cannot be continued. Its client comes again by itself.
    fn cut(&mut self, to: ConnKey) {
        let Some(session) = self.conns.get(to).map(|conn| conn.identity.session) else { return };
        self.close_session(to, false);
        self.outlets[usize::from(to.shard)].send(Inbound::Control(Control::Replaced { to, session }));
    }
}
