//! From a script's answer to our types. A script answers with a list that begins with a word: `ok`
//! and its values, `lost`, `missing` what, or `refused` code and sentence.

use super::super::{ForEdge, OutboxEntry, Outcome, PresenceKind, Refusal, ResumeKey, StoreError};
use plaza_proto::code::Code;
use plaza_proto::fanout::command::Command as Body;
use plaza_proto::fanout::{CloseSession, Command, Renamed};
use plaza_proto::session::{Member, Session};
use redis::Value;

/// The values of a list, taken one by one.
#[derive(Debug)]
pub(super) struct Fields(std::vec::IntoIter<Value>);

pub(super) type Read<T> = Result<T, StoreError>;

fn broken(what: &str) -> StoreError {
    StoreError::Broken(format!("a script's answer has no {what} where one is needed"))
}

impl Fields {
    pub(super) fn of(value: Value) -> Read<Self> {
        match value {
            Value::Array(values) => Ok(Self(values.into_iter())),
            Value::Nil => Ok(Self(Vec::new().into_iter())),
            _ => Err(broken("list")),
        }
    }

    pub(super) fn value(&mut self) -> Read<Value> {
        self.0.next().ok_or_else(|| broken("value"))
    }

    pub(super) fn bytes(&mut self) -> Read<Vec<u8>> {
        match self.value()? {
            Value::BulkString(bytes) => Ok(bytes),
            Value::SimpleString(text) => Ok(text.into_bytes()),
            Value::Int(number) => Ok(number.to_string().into_bytes()),
            Value::Okay => Ok(b"OK".to_vec()),
            _ => Err(broken("text")),
        }
    }

    pub(super) fn text(&mut self) -> Read<String> {
        String::from_utf8(self.bytes()?).map_err(|_| broken("UTF-8 text"))
    }

    pub(super) fn number(&mut self) -> Read<u64> {
        self.text()?.parse().map_err(|_| broken("number"))
    }

    pub(super) fn list(&mut self) -> Read<Self> {
        Self::of(self.value()?)
    }

    fn texts(self) -> Read<Vec<String>> {
        let mut texts = Vec::new();
        let mut rest = self;
        while rest.0.len() > 0 {
            texts.push(rest.text()?);
        }
        Ok(texts)
    }
}

/// What follows `ok`.
pub(super) fn answer(value: Value, incarnation: &str) -> Read<Fields> {
    let mut fields = Fields::of(value)?;
    match fields.text()?.as_str() {
        "ok" => Ok(fields),
        "lost" => Err(StoreError::LeaseLost(incarnation.to_owned())),
        "missing" => Err(StoreError::NotFound(if fields.text()? == "edge" { "edge" } else { "session" })),
        "refused" => Err(StoreError::Refused(refusal(&mut fields)?)),
        _ => Err(broken("known word")),
    }
}

fn refusal(fields: &mut Fields) -> Read<Refusal> {
    let code = Code::parse(&fields.text()?).ok_or_else(|| broken("code"))?;
    Ok(Refusal::new(code, fields.text()?))
}

pub(super) fn session(mut fields: Fields) -> Read<Session> {
    let session_id = fields.text()?;
    let user_id = fields.text()?;
    let username = fields.text()?;
    let edge = fields.text()?;
    let generation = fields.number()?;
    let created_at = fields.number()?;
    let protocol = fields.text()?;
    let mut rooms = fields.list()?.texts()?;
    rooms.sort_unstable();
    Ok(Session { session_id, user_id, username, edge, generation, rooms, created_at, protocol })
}

pub(super) fn sessions(mut list: Fields) -> Read<Vec<Session>> {
    let mut sessions = Vec::with_capacity(list.0.len());
    while list.0.len() > 0 {
        sessions.push(session(list.list()?)?);
    }
    Ok(sessions)
}

pub(super) fn members(mut list: Fields) -> Read<Vec<Member>> {
    let mut members = Vec::with_capacity(list.0.len());
    while list.0.len() > 0 {
        let mut member = list.list()?;
        members.push(Member { user_id: member.text()?, username: member.text()? });
    }
    Ok(members)
}

pub(super) fn resume_keys(mut list: Fields) -> Read<Vec<ResumeKey>> {
    let mut keys = Vec::with_capacity(2);
    while list.0.len() > 0 {
        let generation = list.number()?;
        let key = list.bytes()?.try_into().map_err(|_| broken("key of 32 bytes"))?;
        keys.push(ResumeKey { generation, key });
    }
    Ok(keys)
}

pub(super) fn outcomes(mut list: Fields) -> Read<Vec<Outcome>> {
    let mut outcomes = Vec::with_capacity(list.0.len());
    while list.0.len() > 0 {
        outcomes.push(outcome(list.list()?)?);
    }
    Ok(outcomes)
}

fn outcome(mut fields: Fields) -> Read<Outcome> {
    match fields.text()?.as_str() {
        "done" => Ok(Outcome::Done),
        "session" => Ok(Outcome::Session(session(fields.list()?)?)),
        "recovered" => {
            let session = session(fields.list()?)?;
            let mut flat = fields.list()?.texts()?.into_iter();
            let mut positions = Vec::with_capacity(session.rooms.len());
            while let (Some(room), Some(position)) = (flat.next(), flat.next()) {
                positions.push((room, position));
            }
            positions.sort_unstable();
            Ok(Outcome::Recovered(session, positions))
        }
        "refused" => Ok(Outcome::Refused(refusal(&mut fields)?)),
        _ => Err(broken("known outcome")),
    }
}

/// A command as `common.lua` keeps it: number, kind, session, generation, detail.
pub(super) fn command(boot: &str, kept: &str) -> Read<Command> {
    let [number, kind, session_id, generation, detail]: [String; 5] =
        serde_json::from_str(kept).map_err(|_| broken("command"))?;
    let body = match kind.as_str() {
        "close" | "replace" => {
            let generation = generation.parse().map_err(|_| broken("generation"))?;
            Body::Close(CloseSession { session_id, generation, reason: detail, replaced: kind == "replace" })
        }
        "renamed" => Body::Renamed(Renamed { session_id, username: detail }),
        _ => return Err(broken("known command")),
    };
    Ok(Command { id: format!("{boot}-{number}"), command: Some(body) })
}

pub(super) fn commands(boot: &str, list: Fields) -> Read<Vec<Command>> {
    list.texts()?.iter().map(|kept| command(boot, kept)).collect()
}

/// A command and its edge, or nothing when the edge does not live.
pub(super) fn for_edge(value: Value) -> Read<Option<ForEdge>> {
    if matches!(value, Value::Nil) {
        return Ok(None);
    }
    let mut fields = Fields::of(value)?;
    let (edge, boot, kept) = (fields.text()?, fields.text()?, fields.text()?);
    Ok(Some(ForEdge { edge, command: command(&boot, &kept)? }))
}

pub(super) fn for_edges(mut list: Fields) -> Read<Vec<ForEdge>> {
    let mut commands = Vec::new();
    while list.0.len() > 0 {
        commands.extend(for_edge(list.value()?)?);
    }
    Ok(commands)
}

pub(super) fn outbox_entries(mut list: Fields) -> Read<Vec<OutboxEntry>> {
    let mut entries = Vec::with_capacity(list.0.len());
    while list.0.len() > 0 {
        let mut entry = list.list()?;
        let id = entry.text()?;
        let age_ms = entry.number()?;
        let kind = match entry.text()?.as_str() {
            "joined" => PresenceKind::Joined,
            "left" => PresenceKind::Left,
            "renamed" => PresenceKind::Renamed,
            _ => return Err(broken("known kind")),
        };
        let room = entry.text()?;
        let user_id = entry.text()?;
        let username = entry.text()?;
        let previous_username = entry.text()?;
        entries.push(OutboxEntry { id, kind, room, user_id, username, previous_username, age_ms });
    }
    Ok(entries)
}
