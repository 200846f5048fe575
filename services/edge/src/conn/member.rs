//! What a member of rooms can do, the same for both protocols: name, rooms, publishing, history.
//! The protocols read the wishes and write the answers.
//!
//! Order: at most one publish of a connection waits for the store in each room, so that retries
//! inside the edge cannot reorder what a client sent; others wait here: as many as a client may send at
//! once, and at least [`MIN_WAITING`]. When one is refused for the moment, or its outcome is unknown, what was
//! sent behind it is refused as `busy`, until those come again in their order: see `hold`.

use super::hold::{Hold, Key};
use super::refusal::{Refusal, position, room};
use super::settings::{Bucket, Settings};
use super::{Action, Millis};
use crate::bridge::{HistoryFrom, Identity, Joined, Op, Reply, RoomId};
use crate::trace::TraceWish;
use bytes::Bytes;
use plaza_proto::client;
use plaza_proto::code::Code;
use plaza_proto::event::event::{Content, Kind};
use plaza_proto::event::{Data, Event};
use plaza_proto::ids::{MessageId, RoomName};
use plaza_proto::position::Position;
use std::collections::VecDeque;
use std::sync::Arc;

/// Rooms of one connection.
pub(crate) const MAX_ROOMS: usize = 100;
/// Publishes of one connection that may wait for their turn, whatever the burst of its rate is.
pub(crate) const MIN_WAITING: usize = 8;
/// The same, however large the burst is.
pub(crate) const MAX_WAITING: usize = 128;
/// Requests of one connection that wait for an answer.
pub(crate) const MAX_IN_FLIGHT: usize = 128;
/// Largest data of a publish in bytes.
const MAX_DATA_BYTES: usize = 12_288;
/// Events on a page of history, at most, and when the client does not say.
const MAX_PAGE: u32 = 100;
const DEFAULT_PAGE: u32 = 50;
/// Longest client id in bytes.
const MAX_CLIENT_ID_BYTES: usize = 64;
/// Event names of the server itself: data under them would pass for what somebody said.
const OWN_NAMES: [&str; 6] = ["message", "notice", "joined", "left", "renamed", "typing"];

/// The client's number of its wish, to be named in the answer; `None`: it wants no answer.
pub(crate) type Tag = Option<u64>;

/// What a client publishes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Publishable<'a> {
    /// A line of text.
    Text(&'a str),
    /// JSON under a type.
    Data {
        /// The type.
        kind: &'a str,
        /// JSON text.
        json: &'a [u8],
    },
}

/// What a client says about a publish.
#[derive(Debug)]
pub(crate) struct Marks<'a> {
    /// Makes a retry harmless; or empty.
    pub(crate) client_id: &'a str,
    /// It may have been sent before.
    pub(crate) retry: bool,
    /// What it wants to know of the trace.
    pub(crate) trace: Option<Box<TraceWish>>,
}

/// A page of history, as a client asks for it; empty texts are absent ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page<'a> {
    /// Only events before this position.
    pub(crate) before: &'a str,
    /// Only events after this position.
    pub(crate) after: &'a str,
    /// How many; 0: the default.
    pub(crate) limit: u32,
}

/// How a wish ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The name is set.
    Renamed(Tag, Arc<str>, Option<Box<str>>),
    /// The member may come in: answer, then call [`Member::enter`].
    Joined {
        tag: Tag,
        joined: Joined,
        /// What the client gave as its last position.
        after: Option<Position>,
    },
    /// The room is left.
    Left(Tag, RoomName),
    /// The event is stored.
    Published { tag: Tag, room: RoomName, position: Position, id: MessageId, duplicate: bool, trace: Option<Box<str>> },
    /// A page of history.
    History { tag: Tag, room: RoomName, events: Vec<client::Event>, more: bool },
    /// Who is there.
    Members { tag: Tag, room: RoomName, count: u32, members: Vec<(String, String)> },
    /// It failed.
    Failed { tag: Tag, wish: Wish, refusal: Refusal },
}

/// Which kind of wish failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// A name.
    Rename,
    /// A publish.
    Publish,
    /// Anything else.
    Other,
}

/// A joined room. Joining it again is answered with the position and number of the first time.
#[derive(Debug)]
struct Room {
    name: RoomName,
    id: RoomId,
    position: Position,
    members: u32,
    /// What was refused for the moment is to come first.
    hold: Option<Box<Hold>>,
}

/// A request that waits for its reply.
#[derive(Debug)]
struct Pending {
    id: u32,
    tag: Tag,
    kind: PendingKind,
}

#[derive(Debug)]
enum PendingKind {
    Rename,
    Join { room: RoomName, after: Option<Position> },
    Leave(RoomName),
    Publish(RoomName, Key),
    History(RoomName),
    Who(RoomName),
}

/// A publish that waits for its turn.
#[derive(Debug)]
struct Waiting {
    tag: Tag,
    room: RoomName,
    event: Box<Event>,
    retry: bool,
    trace: Option<Box<TraceWish>>,
}

/// One session's place in the rooms.
#[derive(Debug)]
pub(crate) struct Member {
    settings: Arc<Settings>,
    identity: Arc<Identity>,
    username: Option<Arc<str>>,
    rooms: Vec<Room>,
    pending: Vec<Pending>,
    waiting: VecDeque<Waiting>,
    /// Publishes that were sent behind one with an unknown outcome: to be refused.
    refused: VecDeque<Tag>,
    last_id: u32,
    /// Messages, names and typing.
    messages: Bucket,
    /// Joins, leaves and questions.
    questions: Bucket,
}

impl Member {
    /// `last_id`: the last request id that this connection has used.
    pub(crate) fn new(
        settings: Arc<Settings>,
        identity: Arc<Identity>,
        username: Option<Arc<str>>,
        last_id: u32,
    ) -> Self {
        Self {
            settings,
            identity,
            username,
            rooms: Vec::new(),
            pending: Vec::new(),
            waiting: VecDeque::new(),
            refused: VecDeque::new(),
            last_id,
            messages: Bucket::default(),
            questions: Bucket::default(),
        }
    }

    pub(crate) fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The last request id that was used.
    pub(crate) fn last_request(&self) -> u32 {
        self.last_id
    }

    /// The name was changed from outside.
    pub(crate) fn rename(&mut self, username: Arc<str>) {
        self.username = Some(username).filter(|username| !username.is_empty());
    }

    /// The rooms that the member is in; it is in none afterwards.
    pub(crate) fn take_rooms(&mut self) -> Vec<RoomId> {
        std::mem::take(&mut self.rooms).into_iter().map(|room| room.id).collect()
    }

    pub(crate) fn set_username(
        &mut self,
        username: &str,
        tag: Tag,
        now: Millis,
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        self.charge(now)?;
        // What a name may be is decided in one place, where it is stored; this only bounds the request.
        if username.len() > 4 * 4 * 32 {
            return Err(Refusal::new(Code::BadUsername));
        }
        self.request(tag, PendingKind::Rename, Op::SetUsername { username: username.to_owned() }, out)
    }

    /// Joins a room. `Some`: the member is in it already, with what the first join was answered.
    pub(crate) fn join(
        &mut self,
        name: &str,
        after: &str,
        tag: Tag,
        now: Millis,
        out: &mut Vec<Action>,
    ) -> Result<Option<(Position, u32)>, Refusal> {
        self.charge_question(now)?;
        let (name, after) = (room(name)?, position(after)?);
        if let Some(room) = self.joined(name.as_str()) {
            return Ok(Some((room.position, room.members)));
        }
        if self.is_joining(&name) {
            return Err(Refusal::new(Code::Busy));
        }
        let joining = self.pending.iter().filter(|p| matches!(p.kind, PendingKind::Join { .. })).count();
        if self.rooms.len() + joining >= MAX_ROOMS {
            return Err(Refusal::new(Code::TooManyRooms));
        }
        let op = Op::Join { room: name.clone(), after, username: self.username.clone() };
        self.request(tag, PendingKind::Join { room: name, after }, op, out)?;
        Ok(None)
    }

    pub(crate) fn leave(&mut self, name: &str, tag: Tag, now: Millis, out: &mut Vec<Action>) -> Result<(), Refusal> {
        self.charge_question(now)?;
        let name = room(name)?;
        let place = self.rooms.iter().position(|r| r.name == name).ok_or_else(|| Refusal::new(Code::NotJoined))?;
        let id = self.rooms[place].id;
        self.request(tag, PendingKind::Leave(name), Op::Leave { room: id }, out)?;
        self.rooms.swap_remove(place);
        // The room's log must not write to this member while the hub still answers.
        out.insert(out.len() - 1, Action::Exit(id));
        Ok(())
    }

    /// Publishes, or queues it behind another publish of this room, a join or a new name that are on
    /// their way. Call [`Self::dispatch`] after it.
    pub(crate) fn publish(
        &mut self,
        name: &RoomName,
        content: Publishable<'_>,
        marks: Marks<'_>,
        tag: Tag,
        now: Millis,
    ) -> Result<(), Refusal> {
        let Marks { client_id, retry, trace } = marks;
        let key = Key::of(client_id);
        if let Err(refusal) = self.charge(now) {
            if key.is_some() {
                self.hold(name, &[key], now);
            }
            return Err(refusal);
        }
        let event = self.event(content, client_id)?;
        if self.joined(name.as_str()).is_none() && !self.is_joining(name) {
            return Err(Refusal::new(Code::NotJoined));
        }
        if event.kind() == Kind::Text && self.username.is_none() && !self.is_renaming() {
            return Err(Refusal::new(Code::UsernameRequired));
        }
        // One more may stand here: the one that leaves at once when nothing is before it.
        let goes_at_once = self.joined(name.as_str()).is_some() && !self.is_publishing(name) && self.waiting.is_empty();
        let room_to_wait = (self.settings.message_burst as usize).clamp(MIN_WAITING, MAX_WAITING);
        let has_room = self.waiting.len() < room_to_wait || goes_at_once;
        if !has_room || !self.is_its_turn(name, key, retry, now) {
            self.hold(name, &[key], now);
            return Err(Refusal::new(Code::Busy));
        }
        self.waiting.push_back(Waiting { tag, room: name.clone(), event: Box::new(event), retry, trace });
        Ok(())
    }

    fn event(&self, content: Publishable<'_>, client_id: &str) -> Result<Event, Refusal> {
        if client_id.len() > MAX_CLIENT_ID_BYTES {
            let detail = format!("the id has {} bytes; at most {MAX_CLIENT_ID_BYTES} are allowed", client_id.len());
            return Err(Refusal::bad_request(detail));
        }
        let (kind, content) = match content {
            Publishable::Text(text) => (Kind::Text, Content::Text(plaza_proto::text::clean(text)?.into_owned())),
            Publishable::Data { kind, json } => (Kind::Data, Content::Data(self.data(kind, json)?)),
        };
        Ok(Event {
            version: 1,
            kind: kind.into(),
            client_id: client_id.to_owned(),
            content: Some(content),
            ..Event::default()
        })
    }

    fn data(&self, kind: &str, json: &[u8]) -> Result<Data, Refusal> {
        if !self.settings.open_publish {
            return Err(Refusal::new(Code::Forbidden));
        }
        if RoomName::parse(kind).is_err() {
            return Err(Refusal::bad_request("type has 1 to 64 letters, digits or _ . : -"));
        }
        if OWN_NAMES.contains(&kind) || crate::wire::socketio::is_reserved(kind) {
            return Err(Refusal::bad_request(format!("type {kind} is reserved")));
        }
        if json.len() > MAX_DATA_BYTES {
            let detail = format!("data has {} bytes; at most {MAX_DATA_BYTES} are allowed", json.len());
            return Err(Refusal { code: Code::TooLarge, detail });
        }
        if crate::wire::json::valid(json).is_none() {
            return Err(Refusal::bad_request("data is not JSON"));
        }
        Ok(Data { r#type: kind.to_owned(), json: Bytes::copy_from_slice(json) })
    }

    pub(crate) fn typing(&mut self, name: &RoomName, now: Millis, out: &mut Vec<Action>) -> Result<(), Refusal> {
        self.charge(now)?;
        let room = self.room_id(name)?;
        let username = self.username.clone().ok_or_else(|| Refusal::new(Code::UsernameRequired))?;
        out.push(Action::Request { id: 0, identity: Arc::clone(&self.identity), op: Op::Typing { room, username } });
        Ok(())
    }

    pub(crate) fn history(
        &mut self,
        name: &RoomName,
        page: Page<'_>,
        tag: Tag,
        now: Millis,
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        self.charge_question(now)?;
        let room = self.room_id(name)?;
        let from = match (position(page.before)?, position(page.after)?) {
            (None, None) => HistoryFrom::Newest,
            (Some(before), None) => HistoryFrom::Before(before),
            (None, Some(after)) => HistoryFrom::After(after),
            (Some(_), Some(_)) => return Err(Refusal::bad_request("history has before or after, not both")),
        };
        let limit = match page.limit {
            0 => DEFAULT_PAGE,
            limit @ 1..=MAX_PAGE => limit,
            limit => return Err(Refusal::bad_request(format!("limit is {limit}; 1 to {MAX_PAGE} are allowed"))),
        };
        self.request(tag, PendingKind::History(name.clone()), Op::History { room, from, limit }, out)
    }

    pub(crate) fn who(&mut self, name: &RoomName, tag: Tag, now: Millis, out: &mut Vec<Action>) -> Result<(), Refusal> {
        self.charge_question(now)?;
        let room = self.room_id(name)?;
        self.request(tag, PendingKind::Who(name.clone()), Op::Who { room }, out)
    }

    /// Takes the hub's reply. Call [`Self::dispatch`] after it.
    pub(crate) fn on_reply(&mut self, id: u32, reply: Reply, now: Millis, out: &mut Vec<Action>) -> Option<Outcome> {
        let Some(place) = self.pending.iter().position(|p| p.id == id) else {
            // A join of a session that has ended on this connection.
            if let Reply::Joined(joined) = reply {
                let op = Op::Leave { room: joined.id };
                out.push(Action::Request { id: 0, identity: Arc::clone(&self.identity), op });
            }
            return None;
        };
        let Pending { tag, kind, .. } = self.pending.swap_remove(place);
        if let PendingKind::Publish(room, key) = &kind
            && matches!(&reply, Reply::Failed { code, .. } if is_sent_again(*code))
        {
            self.refuse_behind(room, *key, now);
        }
        let wish = match kind {
            PendingKind::Rename => Wish::Rename,
            PendingKind::Publish(..) => Wish::Publish,
            PendingKind::Join { .. } | PendingKind::Leave(_) | PendingKind::History(_) | PendingKind::Who(_) => {
                Wish::Other
            }
        };
        Some(match (kind, reply) {
            (PendingKind::Rename, Reply::Renamed { username, ticket }) => {
                self.username = Some(Arc::clone(&username));
                Outcome::Renamed(tag, username, ticket)
            }
            (PendingKind::Join { after, .. }, Reply::Joined(joined)) => Outcome::Joined { tag, joined, after },
            (PendingKind::Leave(room), Reply::Left) => Outcome::Left(tag, room),
            (PendingKind::Publish(room, _), Reply::Published { position, id, duplicate, trace }) => {
                Outcome::Published { tag, room, position, id, duplicate, trace }
            }
            (PendingKind::History(room), Reply::History { events, more }) => {
                Outcome::History { tag, room, events, more }
            }
            (PendingKind::Who(room), Reply::Members { count, members }) => {
                Outcome::Members { tag, room, count, members }
            }
            (_, Reply::Failed { code, message }) => {
                Outcome::Failed { tag, wish, refusal: Refusal { code, detail: message } }
            }
            (_, _) => Outcome::Failed { tag, wish, refusal: Refusal::new(Code::Internal) },
        })
    }

    /// Comes into a room, behind the missed events. The client has its answer already.
    pub(crate) fn enter(&mut self, joined: Joined, out: &mut Vec<Action>) {
        out.extend(joined.replay.into_iter().map(Action::SendFrames));
        out.push(Action::Enter { room: joined.id, variant: self.identity.variant });
        if self.rooms.capacity() == 0 {
            // Most are in one room for their whole life.
            self.rooms.reserve_exact(1);
        }
        self.rooms.push(Room {
            name: joined.room,
            id: joined.id,
            position: joined.position,
            members: joined.members,
            hold: None,
        });
    }

    /// Sends the waiting publishes whose turn has come. Returns one that can no longer be sent; call
    /// again until there is none.
    pub(crate) fn dispatch(&mut self, out: &mut Vec<Action>) -> Option<Outcome> {
        if let Some(tag) = self.refused.pop_front() {
            return Some(Outcome::Failed { tag, wish: Wish::Publish, refusal: Refusal::new(Code::Busy) });
        }
        let mut place = 0;
        while let Some(waiting) = self.waiting.get(place) {
            let is_behind = self.waiting.range(..place).any(|earlier| earlier.room == waiting.room);
            let needs_name = waiting.event.kind() == Kind::Text;
            let ready = match self.joined(waiting.room.as_str()) {
                _ if is_behind => false,
                Some(_) => !(self.is_publishing(&waiting.room) || needs_name && self.is_renaming()),
                None if self.is_joining(&waiting.room) => false,
                None => return self.fail(place, Code::NotJoined),
            };
            if !ready {
                place += 1;
                continue;
            }
            if needs_name && self.username.is_none() {
                return self.fail(place, Code::UsernameRequired);
            }
            if self.pending.len() >= MAX_IN_FLIGHT {
                // The next reply makes room.
                return None;
            }
            self.send(place, out);
        }
        None
    }

    fn send(&mut self, place: usize, out: &mut Vec<Action>) {
        let Some(Waiting { tag, room: name, mut event, retry, trace }) = self.waiting.remove(place) else { return };
        let Some(room) = self.joined(name.as_str()).map(|room| room.id) else { return };
        let key = Key::of(&event.client_id);
        event.username = self.username.as_deref().unwrap_or_default().to_owned();
        let op = Op::Publish { room, event, retry, trace };
        self.push_request(tag, PendingKind::Publish(name, key), op, out);
    }

    /// Whether a publish does not overtake one that was refused, as far as that can be known.
    fn is_its_turn(&mut self, name: &RoomName, key: Key, retry: bool, now: Millis) -> bool {
        let Some(room) = self.rooms.iter_mut().find(|room| room.name == *name) else { return true };
        let turn = room.hold.as_mut().is_none_or(|hold| hold.is_turn_of(key, retry, now));
        room.hold.take_if(|hold| hold.is_over(now));
        turn
    }

    /// These were refused, in this order: what is sent behind them waits for them.
    fn hold(&mut self, name: &RoomName, keys: &[Key], now: Millis) {
        if let Some(room) = self.rooms.iter_mut().find(|room| room.name == *name) {
            room.hold.get_or_insert_with(|| Box::new(Hold::new(now))).refused(keys, now);
        }
    }

    /// A publish came back, and may come again: what waits behind it is refused, too.
    fn refuse_behind(&mut self, name: &RoomName, key: Key, now: Millis) {
        let (behind, rest): (VecDeque<Waiting>, _) = self.waiting.drain(..).partition(|waiting| waiting.room == *name);
        self.waiting = rest;
        let keys: Vec<Key> =
            [key].into_iter().chain(behind.iter().map(|waiting| Key::of(&waiting.event.client_id))).collect();
        self.refused.extend(behind.into_iter().map(|waiting| waiting.tag));
        if let Some(room) = self.rooms.iter_mut().find(|room| room.name == *name) {
            room.hold.get_or_insert_with(|| Box::new(Hold::new(now))).returned(&keys, now);
        }
    }

    fn fail(&mut self, place: usize, code: Code) -> Option<Outcome> {
        let waiting = self.waiting.remove(place)?;
        Some(Outcome::Failed { tag: waiting.tag, wish: Wish::Publish, refusal: Refusal::new(code) })
    }

    fn request(&mut self, tag: Tag, kind: PendingKind, op: Op, out: &mut Vec<Action>) -> Result<(), Refusal> {
        if self.pending.len() >= MAX_IN_FLIGHT {
            return Err(Refusal::new(Code::Busy));
        }
        self.push_request(tag, kind, op, out);
        Ok(())
    }

    fn push_request(&mut self, tag: Tag, kind: PendingKind, op: Op, out: &mut Vec<Action>) {
        // 0 means "no reply wanted".
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        let id = self.last_id;
        self.pending.push(Pending { id, tag, kind });
        out.push(Action::Request { id, identity: Arc::clone(&self.identity), op });
    }

    fn charge(&mut self, now: Millis) -> Result<(), Refusal> {
        let passes = self.messages.take(now, self.settings.message_rate, self.settings.message_burst);
        if passes { Ok(()) } else { Err(Refusal::new(Code::RateLimited)) }
    }

    /// Joins, leaves and questions may come twice as often as messages, and all rooms at once.
    fn charge_question(&mut self, now: Millis) -> Result<(), Refusal> {
        let passes = self.questions.take(now, self.settings.message_rate.saturating_mul(2), 2 * MAX_ROOMS as u32);
        if passes { Ok(()) } else { Err(Refusal::new(Code::RateLimited)) }
    }

    fn joined(&self, name: &str) -> Option<&Room> {
        self.rooms.iter().find(|room| room.name.as_str() == name)
    }

    /// Checks a room's name. One that is joined is known, and costs no new text.
    pub(crate) fn room(&self, name: &str) -> Result<RoomName, Refusal> {
        self.joined(name).map_or_else(|| room(name), |room| Ok(room.name.clone()))
    }

    fn room_id(&self, name: &RoomName) -> Result<RoomId, Refusal> {
        self.joined(name.as_str()).map(|room| room.id).ok_or_else(|| Refusal::new(Code::NotJoined))
    }

    /// A publish waits for the store.
    fn is_publishing(&self, name: &RoomName) -> bool {
        self.pending.iter().any(|p| matches!(&p.kind, PendingKind::Publish(room, _) if room == name))
    }

    fn is_joining(&self, name: &RoomName) -> bool {
        self.pending.iter().any(|p| matches!(&p.kind, PendingKind::Join { room, .. } if room == name))
    }

    fn is_renaming(&self) -> bool {
        self.pending.iter().any(|p| matches!(p.kind, PendingKind::Rename))
    }
}

/// Whether a client may send a publish again that ended with this code.
fn is_sent_again(code: Code) -> bool {
    matches!(code, Code::Busy | Code::Timeout | Code::Unavailable | Code::LeaseLost | Code::Internal)
}
