//! What a request may contain. Each refusal says what was wrong and what would be right.

use crate::store::{Op, Opening, RecoverBy, Refusal, Registration, ResumeKey};
use plaza_proto::code::Code;
use plaza_proto::ids::RoomName;
use plaza_proto::session as pb;
use plaza_proto::session::op::Op as Body;

use super::Services;

/// Most bytes of a page token: it is a session or user id.
const MAX_TOKEN_BYTES: usize = 128;
/// Most bytes of a user id.
const MAX_USER_BYTES: usize = 128;
/// Most bytes of the name shown with a presence: 32 characters.
const MAX_NAME_BYTES: usize = 128;
/// Most bytes of a reason.
const MAX_REASON_BYTES: usize = 120;
/// Longest recovery window, one day in milliseconds.
const MAX_RECOVERABLE_MS: u32 = 86_400_000;
/// Most keys that an edge may know.
const MAX_KEYS: usize = 8;

fn bad(message: String) -> Refusal {
    Refusal::new(Code::BadRequest, message)
}

fn base64url(field: &str, text: &str, length: usize) -> Result<(), Refusal> {
    if text.len() == length && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
        return Ok(());
    }
    Err(bad(format!("{field} has {} bytes; {length} characters of A-Z a-z 0-9 - _ are needed", text.len())))
}

pub(super) fn session_id(id: &str) -> Result<(), Refusal> {
    base64url("session_id", id, 20)
}

fn at_most(field: &str, text: &str, most: usize) -> Result<(), Refusal> {
    if text.len() <= most {
        return Ok(());
    }
    Err(bad(format!("{field} has {} bytes; at most {most} are allowed", text.len())))
}

fn user_id(id: &str) -> Result<(), Refusal> {
    if id.is_empty() {
        return Err(bad(format!("user_id is empty; 1 to {MAX_USER_BYTES} bytes are needed")));
    }
    at_most("user_id", id, MAX_USER_BYTES)
}

pub(super) fn room(name: &str) -> Result<RoomName, Refusal> {
    RoomName::parse(name).map_err(|error| Refusal::new(Code::BadRoom, error.to_string()))
}

pub(super) fn reason(text: &str) -> Result<(), Refusal> {
    at_most("reason", text, MAX_REASON_BYTES)
}

pub(super) fn page_token(token: &str) -> Result<(), Refusal> {
    at_most("page_token", token, MAX_TOKEN_BYTES)
}

/// The size of a page: 0 is the default, and at most 500 are allowed.
pub(super) fn page_size(size: u32, default: usize) -> Result<usize, Refusal> {
    match size {
        0 => Ok(default),
        1..=500 => Ok(size as usize),
        _ => Err(bad(format!("page_size is {size}; 1 to 500 are allowed, 0 means {default}"))),
    }
}

/// `edge#random`, at most 64 + 1 + 22 characters.
pub(super) fn incarnation(text: &str) -> Result<(), Refusal> {
    let well_formed = text.rsplit_once('#').is_some_and(|(edge, random)| {
        (1..=64).contains(&edge.len())
            && edge.bytes().all(|b| b.is_ascii_graphic())
            && base64url("", random, 22).is_ok()
    });
    if well_formed {
        return Ok(());
    }
    Err(bad(format!(
        "incarnation {text:.100?} is not an edge's name of 1 to 64 ASCII characters, `#` and 22 characters base64url"
    )))
}

pub(super) fn registration(request: pb::RegisterRequest) -> Result<Registration, Refusal> {
    incarnation(&request.incarnation)?;
    if !request.replaces.is_empty() {
        incarnation(&request.replaces)?;
        if request.replaces == request.incarnation {
            return Err(bad("replaces is the incarnation itself; a new one is needed".to_owned()));
        }
    }
    let has_edge_name = request.incarnation.rsplit_once('#').is_some_and(|(edge, _)| edge == request.edge);
    if !has_edge_name {
        return Err(bad("incarnation does not begin with edge and `#`".to_owned()));
    }
    let port_is_a_number = request.advertise_addr.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if !port_is_a_number || request.advertise_addr.len() > 260 {
        return Err(bad("advertise_addr is not host:port, such as 10.0.0.7:5001".to_owned()));
    }
    if request.resume_keys.len() > MAX_KEYS {
        return Err(bad(format!("{} resume keys; at most {MAX_KEYS} are allowed", request.resume_keys.len())));
    }
    let keys: Result<Vec<_>, _> = request.resume_keys.iter().map(resume_key).collect();
    Ok(Registration {
        incarnation: request.incarnation,
        advertise_addr: request.advertise_addr,
        replaces: request.replaces,
        edge_number: request.edge_number,
        resume_keys: keys?,
    })
}

fn resume_key(key: &pb::ResumeKey) -> Result<ResumeKey, Refusal> {
    // Beyond 2^53 a generation would not survive the store's numbers.
    if key.generation == 0 || key.generation >= 1 << 53 {
        return Err(bad("the generation of a resume key is 0 or not below 2^53; 1 and up are allowed".to_owned()));
    }
    let bytes = <[u8; 32]>::try_from(key.key.as_slice())
        .map_err(|_| bad(format!("a resume key has {} bytes; 32 are needed", key.key.len())))?;
    Ok(ResumeKey { generation: key.generation, key: bytes })
}

impl Services {
    /// One operation, checked and normalised.
    pub(super) fn op(&self, op: pb::Op) -> Result<Op, Refusal> {
        match op.op.ok_or_else(|| bad("op is empty; open, recover, join and so on are known".to_owned()))? {
            Body::Open(open) => self.open(open),
            Body::Recover(recover) => recover_op(recover),
            Body::Join(join) => {
                session_id(&join.session_id)?;
                at_most("position", &join.position, 64)?;
                Ok(Op::Join { room: room(&join.room)?, session_id: join.session_id, position: join.position })
            }
            Body::Leave(leave) => {
                session_id(&leave.session_id)?;
                Ok(Op::Leave { room: room(&leave.room)?, session_id: leave.session_id })
            }
            Body::Rename(rename) => {
                session_id(&rename.session_id)?;
                Ok(Op::Rename { name: self.name(&rename.username)?, session_id: rename.session_id })
            }
            Body::Close(close) => {
                let by = session_or_pid("close", close.session_id, close.pid)?;
                if close.recoverable_ms > MAX_RECOVERABLE_MS {
                    let most = MAX_RECOVERABLE_MS;
                    return Err(bad(format!("recoverable_ms is {}; at most {most} are allowed", close.recoverable_ms)));
                }
                Ok(Op::Close { by, generation: close.generation, recoverable_ms: close.recoverable_ms })
            }
            Body::Presence(presence) => presence_op(presence),
        }
    }

    fn open(&self, open: pb::Open) -> Result<Op, Refusal> {
        session_id(&open.session_id)?;
        user_id(&open.user_id)?;
        if !matches!(open.protocol.as_str(), "socketio" | "plaza-json" | "plaza-proto") {
            return Err(bad("protocol is none of socketio, plaza-json, plaza-proto".to_owned()));
        }
        if !open.pid.is_empty() {
            base64url("pid", &open.pid, 20)?;
        }
        let name = if open.username.is_empty() { None } else { Some(self.name(&open.username)?) };
        Ok(Op::Open(Opening {
            session_id: open.session_id,
            user_id: open.user_id,
            protocol: open.protocol,
            pid: Some(open.pid).filter(|pid| !pid.is_empty()),
            name,
        }))
    }
}

fn recover_op(recover: pb::Recover) -> Result<Op, Refusal> {
    at_most("user_id", &recover.user_id, MAX_USER_BYTES)?;
    let by = session_or_pid("recover", recover.session_id, recover.pid)?;
    Ok(Op::Recover { by, user_id: recover.user_id })
}

fn session_or_pid(op: &str, session: String, pid: String) -> Result<RecoverBy, Refusal> {
    match (pid.is_empty(), session.is_empty()) {
        (false, true) => {
            base64url("pid", &pid, 20)?;
            Ok(RecoverBy::Pid(pid))
        }
        (true, false) => {
            session_id(&session)?;
            Ok(RecoverBy::Session(session))
        }
        _ => Err(bad(format!("{op} needs one of pid and session_id"))),
    }
}

fn presence_op(presence: pb::SetPresence) -> Result<Op, Refusal> {
    user_id(&presence.user_id)?;
    let username = if presence.present {
        at_most("username", &presence.username, MAX_NAME_BYTES)?;
        if presence.username.is_empty() {
            return Err(Refusal::new(Code::UsernameRequired, "a user without a name is not present"));
        }
        Some(presence.username)
    } else {
        None
    };
    Ok(Op::SetPresence { room: room(&presence.room)?, user_id: presence.user_id, username })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incarnation_is_a_name_and_22_characters() {
        assert!(incarnation("edge-7f9c#AAAAAAAAAAAAAAAAAAAAAA").is_ok());
        for wrong in ["", "edge", "edge#short", "#AAAAAAAAAAAAAAAAAAAAAA", "e e#AAAAAAAAAAAAAAAAAAAAAA"] {
            assert!(incarnation(wrong).is_err(), "{wrong}");
        }
        assert!(incarnation(&format!("{}#{}", "e".repeat(65), "A".repeat(22))).is_err());
    }

    #[test]
    fn refusals_name_the_number() {
        assert_eq!(
            page_size(501, 100).map_err(|r| r.message),
            Err("page_size is 501; 1 to 500 are allowed, 0 means 100".into())
        );
        assert_eq!(page_size(0, 100), Ok(100));
        assert_eq!(session_id("x").map_err(|r| r.code), Err(Code::BadRequest));
        assert_eq!(reason(&"x".repeat(121)).map_err(|r| r.code), Err(Code::BadRequest));
    }
}
