//! Sessions that continue while the session service, or its store, is away. A ticket of Plaza's own protocol
//! says who its client is, and each room is joined again by its position: nothing else is needed. The
//! session service is told when it is back.

use super::hub::Hub;
use super::requests::{Asked, session_ops};
use super::ticket::Ticket;
use crate::bridge::{ConnKey, Control, Inbound, SessionId};
use crate::upstream::session::Applied;
use bytes::Bytes;
use plaza_proto::code::Code;
use plaza_proto::session::{LeaveRoom, Op, Recover, op};
use std::sync::Arc;

/// Sessions that the service is told of in a second, at most: it has just come back.
const TOLD: usize = 500;

impl Hub {
    /// Continues a session by its ticket alone.
    pub(super) fn continue_alone(&mut self, key: ConnKey, id: u32, pid: SessionId, ticket: Ticket) {
        let Ticket { session, user_id, username } = ticket;
        let Some(conn) = self.take_over(key, session, user_id, username, pid) else { return };
        conn.untold = true;
        self.untold.push_back((key, session));
        self.recovered(key, id, "alone");
        self.opened(key, id, true, Vec::new(), Bytes::new());
    }

    /// Tells the session service of some of them. Called once a second.
    pub(super) fn tell_late(&mut self) {
        for _ in 0..self.untold.len().min(TOLD) {
            let Some((key, session)) = self.untold.pop_front() else { return };
            let Some(conn) = self.conns.get(key).filter(|conn| conn.identity.session == session) else { continue };
            let (user_id, session_id) = (conn.user_id.to_string(), session.to_string());
            let recover = Recover { pid: String::new(), user_id, session_id };
            if self.ask(op::Op::Recover(recover), Asked::Late(key, session)).is_err() {
                return self.untold.push_back((key, session));
            }
        }
    }

    /// The session service has heard of one, or is still away.
    pub(super) fn on_told(&mut self, key: ConnKey, session: SessionId, result: Result<Applied, (Code, String)>) {
        let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.identity.session == session) else { return };
        match result {
            Ok(Applied { session: Some(known), positions }) => {
                conn.untold = false;
                conn.generation = known.generation;
                let renamed =
                    conn.username.as_deref().is_some_and(|name| !known.username.is_empty() && name != known.username);
                let rooms: Vec<_> = conn.rooms.iter().filter_map(|(id, _)| self.rooms.get(*id)).collect();
                // Rooms of before that were not joined again.
                let joined = positions.iter().filter(|at| !at.position.is_empty());
                for left in joined.filter(|at| rooms.iter().all(|room| room.name.as_str() != at.room)) {
                    let leave = LeaveRoom { session_id: session.to_string(), room: left.room.clone() };
                    self.session.owe(Op { op: Some(op::Op::Leave(leave)) });
                }
                session_ops(conn, &self.rooms).drain(1..).for_each(|join| self.session.owe(join));
                if conn.username.is_some() && known.username.is_empty() {
                    // Somebody has claimed it meanwhile.
                    self.lose_name(key);
                } else if renamed {
                    let username: Arc<str> = known.username.into();
                    self.rename(key, &username);
                    let control = Control::Renamed { to: key, username };
                    self.outlets[usize::from(key.shard)].send(Inbound::Control(control));
                }
            }
            // Its window has ended, or the data is lost: it is told as a living one.
            Ok(Applied { session: None, .. }) | Err((Code::NotFound | Code::Forbidden | Code::BadRequest, _)) => {
                conn.untold = false;
                session_ops(conn, &self.rooms).into_iter().for_each(|op| self.session.owe(op));
            }
            Err(_) => self.untold.push_back((key, session)),
        }
    }
}
