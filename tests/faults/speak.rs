//! The two protocols, as far as the swarm speaks them: texts out, what was heard in. No I/O.

use crate::history::At;
use plaza_proto::position::Position;
use serde_json::{Value, json};

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speak {
    /// Plaza's own protocol in JSON.
    Plaza,
    /// Socket.IO on WebSocket, with events as objects.
    SocketIo,
    /// The same, as a program writes and reads it that steers a stock client.
    Stock,
}

/// A position as the server writes it, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stand {
    pub(crate) text: String,
    pub(crate) at: At,
}

/// What a server's message says. `tag` is the number of the client's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The transport is up: introduce yourself.
    Open,
    /// The session is open.
    Welcome {
        ticket: String,
        recovered: bool,
    },
    /// Are you there?
    Ping,
    Joined {
        tag: u64,
        stand: Stand,
        /// `None`: the server does not say.
        recovered: Option<bool>,
    },
    Published {
        tag: u64,
        at: At,
        id: u64,
        duplicate: bool,
    },
    Failed {
        tag: u64,
        code: String,
    },
    /// An event of a room; `text` is absent for what the server itself says.
    Event {
        room: String,
        stand: Stand,
        previous: Option<At>,
        id: u64,
        text: Option<String>,
    },
    Reset {
        room: String,
        why: String,
        to: Option<Stand>,
    },
    /// The server is about to close, and asks the client to come back after so many milliseconds.
    Reconnect {
        after_ms: u64,
    },
    /// The server does not want this client any more.
    Refused,
    Nothing,
}

impl Speak {
    /// Path and subprotocol of this client's upgrade.
    pub(crate) fn path(self, client: u32) -> (String, Option<&'static str>) {
        match self {
            Self::Plaza => ("/ws".to_owned(), Some("plaza.v1.json")),
            Self::SocketIo => ("/socket.io/?EIO=4&transport=websocket".to_owned(), None),
            Self::Stock => (format!("/{client}"), None),
        }
    }

    /// The first words.
    pub(crate) fn hello(self, guest: &str, ticket: &str) -> String {
        match self {
            Self::Plaza => json!({"hello": {"guest": guest, "resume": ticket}}).to_string(),
            Self::SocketIo | Self::Stock => {
                format!("40{}", json!({"guest": guest, "room": null, "format": "event", "locale": "en"}))
            }
        }
    }

    /// Asks for a name; the answer is of no interest.
    pub(crate) fn name(self, tag: u64, name: &str) -> String {
        match self {
            Self::Plaza => json!({"id": tag, "setUsername": {"username": name}}).to_string(),
            Self::SocketIo | Self::Stock => format!("42{tag}{}", json!(["set_username", name])),
        }
    }

    pub(crate) fn join(self, tag: u64, room: &str, after: Option<&str>) -> String {
        let mut fields = json!({"room": room});
        if let Some(after) = after {
            fields["after"] = after.into();
        }
        match self {
            Self::Plaza => json!({"id": tag, "join": fields}).to_string(),
            Self::SocketIo | Self::Stock => format!("42{tag}{}", json!(["join", fields])),
        }
    }

    /// The answer is of no interest.
    pub(crate) fn leave(self, tag: u64, room: &str) -> String {
        match self {
            Self::Plaza => json!({"id": tag, "leave": {"room": room}}).to_string(),
            Self::SocketIo | Self::Stock => format!("42{tag}{}", json!(["leave", room])),
        }
    }

    pub(crate) fn publish(self, tag: u64, room: &str, text: &str, client_id: &str, retry: bool) -> String {
        let mut fields = json!({"room": room, "text": text, "retry": retry});
        match self {
            Self::Plaza => {
                fields["clientId"] = client_id.into();
                json!({"id": tag, "publish": fields}).to_string()
            }
            Self::SocketIo | Self::Stock => {
                fields["id"] = client_id.into();
                format!("42{tag}{}", json!(["message", fields]))
            }
        }
    }

    /// Reads one text message.
    pub(crate) fn read(self, message: &str) -> Heard {
        match self {
            Self::Plaza => read_plaza(message),
            Self::SocketIo | Self::Stock => read_socketio(message),
        }
        .unwrap_or(Heard::Nothing)
    }
}

fn read_plaza(message: &str) -> Option<Heard> {
    let frame: Value = serde_json::from_str(message).ok()?;
    let tag = frame["id"].as_u64().unwrap_or(0);
    if let Some(event) = frame.get("event") {
        return Some(Heard::Event {
            room: text(event, "room")?,
            stand: stand(event)?,
            previous: event["previous"].as_str().and_then(at),
            id: id(&text(event, "id")?),
            text: text(event, "text").filter(|_| event["kind"] == "text"),
        });
    }
    if let Some(published) = frame.get("published") {
        return published_of(tag, published);
    }
    if let Some(joined) = frame.get("joined") {
        return Some(Heard::Joined { tag, stand: stand(joined)?, recovered: joined["recovered"].as_bool() });
    }
    if let Some(error) = frame.get("error") {
        return Some(Heard::Failed { tag, code: text(error, "code")? });
    }
    if let Some(reset) = frame.get("reset") {
        let to = reset["to"].as_str().and_then(|to| Some(Stand { text: to.to_owned(), at: at(to)? }));
        return Some(Heard::Reset { room: text(reset, "room")?, why: text(reset, "reason")?, to });
    }
    if let Some(reconnect) = frame.get("reconnect") {
        return Some(Heard::Reconnect { after_ms: reconnect["afterMs"].as_u64()? });
    }
    let welcome = frame.get("welcome")?;
    Some(Heard::Welcome { ticket: text(welcome, "ticket").unwrap_or_default(), recovered: false })
}

fn read_socketio(message: &str) -> Option<Heard> {
    match message.as_bytes() {
        [b'0', ..] => return Some(Heard::Open),
        [b'2'] => return Some(Heard::Ping),
        [b'4', b'0', fields @ ..] => {
            let fields: Value = serde_json::from_slice(fields).ok()?;
            return Some(Heard::Welcome { ticket: String::new(), recovered: fields["recovered"] == true });
        }
        [b'4', b'1' | b'4', ..] => return Some(Heard::Refused),
        _ => {}
    }
    if let Some(ack) = message.strip_prefix("43") {
        let (tag, arguments) = ack.split_at(ack.find('[')?);
        let tag = tag.parse().ok()?;
        let arguments: Value = serde_json::from_str(arguments).ok()?;
        let answer = arguments.get(0)?;
        if answer["ok"] != true {
            return Some(Heard::Failed { tag, code: text(answer, "code")? });
        }
        if answer.get("duplicate").is_some() {
            return published_of(tag, answer);
        }
        return Some(Heard::Joined { tag, stand: stand(answer)?, recovered: answer["recovered"].as_bool() });
    }
    let event: Value = serde_json::from_str(message.strip_prefix("42")?).ok()?;
    let fields = event.get(1).filter(|_| event[0] == "message")?;
    Some(Heard::Event {
        room: text(fields, "room")?,
        stand: stand(fields)?,
        previous: None,
        id: id(&text(fields, "id")?),
        text: text(fields, "text"),
    })
}

fn published_of(tag: u64, fields: &Value) -> Option<Heard> {
    let (at, id) = (at(&text(fields, "position")?)?, id(&text(fields, "id")?));
    Some(Heard::Published { tag, at, id, duplicate: fields["duplicate"] == true })
}

fn text(fields: &Value, name: &str) -> Option<String> {
    fields[name].as_str().map(str::to_owned)
}

fn stand(fields: &Value) -> Option<Stand> {
    let text = text(fields, "position")?;
    Some(Stand { at: at(&text)?, text })
}

fn at(position: &str) -> Option<At> {
    let position = Position::parse(position).ok()?;
    Some(At { epoch: u64::from_be_bytes(position.epoch.0), seq: position.seq })
}

/// A message id as a number.
fn id(text: &str) -> u64 {
    hash(text)
}

/// FNV-1a, 64 bits: the same in every process, so that histories can be compared.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use plaza_proto::ids::MessageId;
    use plaza_proto::position::Epoch;

    #[test]
    fn both_protocols_tell_the_same() {
        let position = Position::of(Epoch([1; 8]), 5, MessageId([7; 16]));
        let at = At { epoch: 0x0101_0101_0101_0101, seq: 5 };
        let stand = Stand { text: position.to_string(), at };
        let plaza = format!(
            r#"{{"event":{{"room":"r","position":"{position}","kind":"text","username":"a","text":"hi","at":1,"id":"x","userId":"g"}}}}"#
        );
        let socketio = format!(
            r#"42["message",{{"room":"r","id":"x","position":"{position}","username":"a","text":"hi","at":1}}]"#
        );
        let event = Heard::Event {
            room: "r".into(),
            stand: stand.clone(),
            previous: None,
            id: hash("x"),
            text: Some("hi".into()),
        };
        assert_eq!(Speak::Plaza.read(&plaza), event);
        assert_eq!(Speak::SocketIo.read(&socketio), event);
        let plaza =
            format!(r#"{{"id":9,"joined":{{"room":"r","position":"{position}","members":1,"recovered":true}}}}"#);
        let socketio = format!(r#"439[{{"ok":true,"room":"r","position":"{position}","members":1,"recovered":true}}]"#);
        let joined = Heard::Joined { tag: 9, stand, recovered: Some(true) };
        assert_eq!(Speak::Plaza.read(&plaza), joined);
        assert_eq!(Speak::SocketIo.read(&socketio), joined);
        let plaza =
            format!(r#"{{"id":9,"published":{{"room":"r","position":"{position}","id":"x","duplicate":false}}}}"#);
        let socketio = format!(r#"439[{{"ok":true,"id":"x","position":"{position}","duplicate":false}}]"#);
        let reconnect = Heard::Reconnect { after_ms: 700 };
        assert_eq!(Speak::Plaza.read(r#"{"reconnect":{"afterMs":700}}"#), reconnect);
        let published = Heard::Published { tag: 9, at, id: hash("x"), duplicate: false };
        assert_eq!(Speak::Plaza.read(&plaza), published);
        assert_eq!(Speak::SocketIo.read(&socketio), published);
    }
}
