//! What a client can say, whatever the form; and an event as both forms show it.

use crate::wire::RoomEvent;
use plaza_proto::client;
use plaza_proto::event::event::Kind;
use plaza_proto::ids::RoomName;
use plaza_proto::position::Position;
use plaza_proto::view::ContentView;
use std::borrow::Cow;

/// A frame of a client. Empty texts stand for absent ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFrame<'a> {
    /// Comes back with the answer; 0: none.
    pub id: u64,
    /// What it wants.
    pub body: Body<'a>,
}

/// The eight wishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// Introduces the connection.
    Hello(Hello<'a>),
    /// Sets the name.
    SetUsername {
        /// As typed.
        username: Cow<'a, str>,
    },
    /// Joins a room.
    Join {
        /// Not checked yet.
        room: Cow<'a, str>,
        /// A position, or empty.
        after: Cow<'a, str>,
    },
    /// Leaves a room.
    Leave {
        /// Not checked yet.
        room: Cow<'a, str>,
    },
    /// Publishes.
    Publish(Publish<'a>),
    /// Tells that the user types.
    Typing {
        /// Not checked yet.
        room: Cow<'a, str>,
    },
    /// Asks for a page of history.
    History {
        /// Not checked yet.
        room: Cow<'a, str>,
        /// A position, or empty.
        before: Cow<'a, str>,
        /// A position, or empty.
        after: Cow<'a, str>,
        /// 0: the default.
        limit: u32,
    },
    /// Asks who is there.
    Who {
        /// Not checked yet.
        room: Cow<'a, str>,
    },
}

/// The first frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Bearer token; a secret.
    pub token: Cow<'a, str>,
    /// Guest key; a secret.
    pub guest: Cow<'a, str>,
    /// `zh`, `en`, or empty.
    pub locale: Cow<'a, str>,
    /// Ticket of an earlier session; a secret.
    pub resume: Cow<'a, str>,
}

/// A message for a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Not checked yet.
    pub room: Cow<'a, str>,
    /// What is published.
    pub content: Content<'a>,
    /// Makes a retry harmless; or empty.
    pub client_id: Cow<'a, str>,
    /// It may have been sent before.
    pub retry: bool,
    /// Asks for the id of the message's trace in the answer.
    pub trace: bool,
    /// W3C trace context, not checked; or empty.
    pub traceparent: Cow<'a, str>,
}

/// A line of text, or JSON of the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// Not checked yet.
    Text(Cow<'a, str>),
    /// JSON under a type.
    Data {
        /// Not checked yet.
        kind: Cow<'a, str>,
        /// Perhaps no JSON.
        json: Cow<'a, [u8]>,
    },
}

/// A message that is no frame. The connection goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadFrame {
    /// The frame's id, as far as it could be read; else 0.
    pub id: u64,
    /// What was wrong and what would be right.
    pub message: String,
}

impl BadFrame {
    pub(super) fn new(id: u64, message: impl Into<String>) -> Self {
        Self { id, message: message.into() }
    }

    pub(super) fn no_body(id: u64) -> Self {
        Self::new(id, "a frame has exactly one of hello, setUsername, join, leave, publish, typing, history, who")
    }

    pub(super) fn no_content(id: u64) -> Self {
        Self::new(id, "a publish has either text, or type and data")
    }
}

/// What clients call a kind.
pub(super) const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "text",
        Kind::Data => "data",
        Kind::Joined => "joined",
        Kind::Left => "left",
        Kind::Renamed => "renamed",
        Kind::Notice => "notice",
        Kind::Typing => "typing",
        Kind::Unspecified => "unknown",
    }
}

/// A stored event as clients see it; `previous` is left out of history pages.
pub fn client_event(room: &RoomName, event: &RoomEvent<'_>, previous: Option<Position>) -> client::Event {
    let stored = event.event;
    client::Event {
        room: room.to_string(),
        position: event.position.to_string(),
        previous: previous.map(|p| p.to_string()).unwrap_or_default(),
        kind: kind_name(stored.kind).to_owned(),
        username: stored.username.to_owned(),
        content: stored.content.map(|content| match content {
            ContentView::Text(text) => client::event::Content::Text(text.to_owned()),
            ContentView::Data { kind, json } => {
                client::event::Content::Data(client::Data { r#type: kind.to_owned(), data: json.to_vec().into() })
            }
        }),
        at: event.time,
        id: event.id.to_string(),
        user_id: stored.user_id.to_owned(),
        client_id: stored.client_id.to_owned(),
        previous_username: stored.previous_username.to_owned(),
    }
}
