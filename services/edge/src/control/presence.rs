//! Who is in which room on this edge. The session service is told what changed, as absolute facts:
//! who comes at once, who goes after a pause, so that somebody who reloads a page within it neither
//! leaves nor joins.

use super::hub::{COALESCE, Hub};
use crate::bridge::{ConnKey, Control, Inbound, RoomId};
use plaza_proto::session::{Op, SetPresence, op};
use std::sync::Arc;

impl Hub {
    /// A connection is in a room now: its user is present if it has a name.
    pub(super) fn appear(&mut self, key: ConnKey, id: RoomId) {
        let (Some(conn), Some(room)) = (self.conns.get(key), self.rooms.get_mut(id)) else { return };
        let Some(username) = &conn.username else { return };
        let user = room.users.entry(conn.user_id.clone()).or_default();
        user.connections += 1;
        if user.connections == 1 {
            room.here += 1;
        }
        user.username = username.clone();
        if user.told.as_ref() != Some(username) {
            user.told = Some(username.clone());
            let op = set_presence(room.name.as_str(), &conn.user_id, Some(username));
            self.session.owe(op);
        }
    }

    /// A named connection is no longer in a room.
    pub(super) fn vanish(&mut self, user_id: &Arc<str>, named: bool, id: RoomId) {
        let Some(room) = self.rooms.get_mut(id).filter(|_| named) else { return };
        let Some(user) = room.users.get_mut(user_id) else { return };
        user.connections = user.connections.saturating_sub(1);
        if user.connections == 0 {
            room.here -= 1;
        }
        self.changed.entry((id, user_id.clone())).or_insert(self.now + COALESCE);
    }

    /// A connection has a name, or another one.
    pub(super) fn rename(&mut self, key: ConnKey, username: &Arc<str>) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let first = conn.username.replace(username.clone()).is_none();
        let (rooms, user_id) = (conn.rooms.clone(), conn.user_id.clone());
        for (id, _) in rooms {
            if first {
                self.appear(key, id);
            } else if let Some(user) = self.rooms.get_mut(id).and_then(|room| room.users.get_mut(&user_id)) {
                user.username = username.clone();
                self.changed.entry((id, user_id.clone())).or_insert(self.now + COALESCE);
            }
        }
    }

    /// Somebody else has a connection's name by now: it goes on without one.
    pub(super) fn lose_name(&mut self, key: ConnKey) {
        let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.username.is_some()) else { return };
        conn.username = None;
        let (rooms, user_id) = (conn.rooms.clone(), conn.user_id.clone());
        for op in super::requests::session_ops(conn, &self.rooms) {
            self.session.owe(op);
        }
        for (id, _) in rooms {
            self.vanish(&user_id, true, id);
        }
        let control = Control::Renamed { to: key, username: "".into() };
        self.outlets[usize::from(key.shard)].send(Inbound::Control(control));
    }

    /// Tells the session service who has gone, or goes by another name, since the last time.
    pub(super) fn flush_presence(&mut self) {
        let now = self.now;
        let due: Vec<_> = self.changed.extract_if(|_, due| *due <= now).map(|(changed, _)| changed).collect();
        for (id, user_id) in due {
            let Some(room) = self.rooms.get_mut(id) else { continue };
            let Some(user) = room.users.get_mut(&user_id) else { continue };
            let present = (user.connections > 0).then(|| user.username.clone());
            let changed = user.told != present;
            user.told.clone_from(&present);
            if present.is_none() {
                room.users.remove(&user_id);
            }
            if changed {
                let op = set_presence(room.name.as_str(), &user_id, present.as_deref());
                self.session.owe(op);
            }
        }
    }

    /// All that a new lease must be told: sessions with their names and rooms, then who is present.
    pub(super) fn assert_all(&mut self) -> Vec<Op> {
        self.session.forget_owed();
        // The session service may have begun to count anew.
        self.conns.iter_mut().for_each(|conn| conn.generation = 0);
        let told = self.conns.iter().filter(|conn| conn.open && !conn.untold);
        let mut all: Vec<Op> = told.flat_map(|conn| super::requests::session_ops(conn, &self.rooms)).collect();
        for room in self.rooms.iter_mut() {
            for (user_id, user) in room.users.iter_mut().filter(|(_, user)| user.connections > 0) {
                user.told = Some(user.username.clone());
                all.push(set_presence(room.name.as_str(), user_id, Some(&user.username)));
            }
        }
        all
    }
}

fn set_presence(room: &str, user_id: &str, username: Option<&str>) -> Op {
    let presence = SetPresence {
        room: room.to_owned(),
        user_id: user_id.to_owned(),
        username: username.unwrap_or_default().to_owned(),
        present: username.is_some(),
    };
    Op { op: Some(op::Op::Presence(presence)) }
}
