//! Calls of HTTP long-polling, from the request handlers to the shard that holds the session.

use crate::accept::places::Place;
use crate::bridge::ConnKey;
use crate::conn::{Connection, Packet};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::oneshot;

/// One call and the way back for its answer.
pub struct Poll {
    /// What the request wants.
    pub call: PollCall,
    /// Where the answer goes. A dropped receiver means that the request is gone.
    pub answer: oneshot::Sender<PollAnswer>,
}

/// What a long-polling request can want.
pub enum PollCall {
    /// Makes a session. -> [`PollAnswer::Opened`]
    Open {
        /// What runs in it.
        connection: Box<dyn Connection>,
        /// The place of its client, where those are counted.
        place: Option<Arc<Place>>,
    },
    /// Whether the session exists, before a WebSocket may probe for it. -> [`PollAnswer::Accepted`]
    Check {
        /// The session; here and below its generation is not known to the client and is not compared.
        key: ConnKey,
        /// The random part of the sid.
        secret: [u8; 16],
    },
    /// Waits for packets. -> [`PollAnswer::Packets`]
    Get {
        /// The session.
        key: ConnKey,
        /// The random part of the sid.
        secret: [u8; 16],
    },
    /// A POST begins to arrive; a second one at the same time ends the session. -> [`PollAnswer::Accepted`]
    PostBegin {
        /// The session.
        key: ConnKey,
        /// The random part of the sid.
        secret: [u8; 16],
    },
    /// A whole POST body. -> [`PollAnswer::Accepted`]
    Post {
        /// The session.
        key: ConnKey,
        /// The random part of the sid.
        secret: [u8; 16],
        /// The body, at most the message limit.
        body: Bytes,
    },
    /// The request broke before its answer or its body was complete: the session ends.
    Abandon {
        /// The session.
        key: ConnKey,
        /// The random part of the sid.
        secret: [u8; 16],
    },
}

/// The answer to a [`Poll`].
#[derive(Debug)]
pub enum PollAnswer {
    /// The session exists; its first packets.
    Opened {
        /// Where it lives.
        key: ConnKey,
        /// What to send.
        packets: Vec<Packet>,
    },
    /// Packets for a GET, at least one.
    Packets(Vec<Packet>),
    /// The POST was taken.
    Accepted,
    /// There is no such session, or the secret is wrong: 400 code 1.
    Unknown,
    /// The session is no longer on polling: 400 code 3.
    WrongTransport,
    /// The request broke a rule and ended the session: 400.
    Refused,
}

impl std::fmt::Debug for Poll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poll").field("call", &self.call).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for PollCall {
    /// Without secrets and bodies.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open { .. } => "Open",
            Self::Check { .. } => "Check",
            Self::Get { .. } => "Get",
            Self::PostBegin { .. } => "PostBegin",
            Self::Post { .. } => "Post",
            Self::Abandon { .. } => "Abandon",
        })
    }
}
