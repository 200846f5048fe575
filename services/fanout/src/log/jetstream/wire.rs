//! What JetStream says: answers of its API, acknowledgements, and the headers of stored messages. Pure.

use crate::log::{LogError, Stored};
use async_nats::{HeaderMap, Message};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as B64;
use bytes::Bytes;
use plaza_proto::ids::MessageId;
use plaza_proto::{subject, time};
use serde::Deserialize;
use serde_json::Value;

/// Error codes of the JetStream API that are told apart (nats-server `errors.json`).
pub(super) mod err_code {
    /// Maximum message size exceeded.
    pub(crate) const TOO_LARGE: u64 = 10_054;
    /// Insufficient storage.
    pub(crate) const STORAGE_FULL: u64 = 10_047;
    /// No message found.
    pub(crate) const NO_MESSAGE: u64 = 10_037;
    /// Stream not found.
    pub(crate) const NO_STREAM: u64 = 10_059;
    /// Wrong last message id: the refusal that a probe provokes from a single server.
    pub(crate) const WRONG_LAST_ID: u64 = 10_070;
    /// Wrong last sequence: the one that it provokes from several.
    pub(crate) const WRONG_LAST_SEQ: u64 = 10_071;
    /// The same, while the stream does not say which would be right.
    pub(crate) const WRONG_LAST_SEQ_NOW: u64 = 10_164;
}

/// An error of the JetStream API.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ApiError {
    #[serde(default)]
    pub(super) err_code: u64,
    #[serde(default)]
    pub(super) description: String,
}

/// The answer to a publish.
#[derive(Debug, Deserialize)]
pub(super) struct Ack {
    #[serde(default)]
    pub(super) seq: u64,
    #[serde(default)]
    pub(super) duplicate: bool,
    pub(super) error: Option<ApiError>,
}

/// The answer of STREAM.INFO, STREAM.CREATE and STREAM.UPDATE.
#[derive(Debug, Deserialize)]
pub(super) struct StreamInfo {
    /// Kept whole, so that an update changes only what it means to.
    #[serde(default)]
    pub(super) config: Value,
    #[serde(default)]
    pub(super) state: StreamState,
    #[serde(default)]
    pub(super) cluster: ClusterInfo,
    pub(super) error: Option<ApiError>,
}

/// Who keeps the stream; empty on a server without others.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ClusterInfo {
    #[serde(default)]
    pub(super) leader: String,
}

/// The state in a [`StreamInfo`].
#[derive(Debug, Default, Deserialize)]
pub(super) struct StreamState {
    #[serde(default)]
    pub(super) bytes: u64,
    #[serde(default)]
    pub(super) messages: u64,
    #[serde(default)]
    pub(super) first_seq: u64,
    #[serde(default)]
    pub(super) first_ts: String,
    #[serde(default)]
    pub(super) last_seq: u64,
}

impl StreamInfo {
    /// A limit of the stream; `None` when it has none (0 or -1).
    pub(super) fn limit(&self, field: &str) -> Option<u64> {
        self.config.get(field).and_then(Value::as_u64).filter(|&n| n > 0)
    }

    /// The text of the epoch in the metadata.
    pub(super) fn epoch_text(&self) -> Option<&str> {
        self.config["metadata"][subject::EPOCH_KEY].as_str()
    }
}

/// The answer of STREAM.MSG.GET.
#[derive(Debug, Deserialize)]
pub(super) struct MessageAnswer {
    pub(super) message: Option<RawMessage>,
    pub(super) error: Option<ApiError>,
}

/// The message in a [`MessageAnswer`].
#[derive(Debug, Deserialize)]
pub(super) struct RawMessage {
    seq: u64,
    /// Base64.
    #[serde(default)]
    data: String,
    /// Base64 of the header block.
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    time: String,
}

impl RawMessage {
    /// The event; its predecessor is not in the answer.
    pub(super) fn stored(&self) -> Result<Stored, LogError> {
        let body = B64.decode(&self.data).map_err(|_| protocol("message data is not base64"))?;
        let headers = B64.decode(&self.hdrs).map_err(|_| protocol("message headers are not base64"))?;
        Ok(Stored {
            seq: self.seq,
            previous: 0,
            id: last_header(&String::from_utf8_lossy(&headers), subject::MSG_ID),
            time: time::parse_utc(&self.time).unwrap_or_default(),
            body: body.into(),
        })
    }
}

/// The last value of a header in a header block, spelt exactly so: the server's stand behind a publisher's.
fn last_header(block: &str, name: &str) -> MessageId {
    let value = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned());
    message_id(block.split("\r\n").filter_map(value).last().as_deref())
}

/// What an answer of the API says.
///
/// # Errors
/// [`LogError::Unavailable`] for a status (503: nobody answers for the stream), [`LogError::Protocol`]
/// for anything else that is not the JSON expected.
pub(super) fn json<'a, T: Deserialize<'a>>(message: &'a Message) -> Result<T, LogError> {
    if message.status.is_some() {
        return Err(LogError::Unavailable("no JetStream, or the stream has no leader now"));
    }
    serde_json::from_slice(&message.payload).map_err(|error| protocol(error.to_string()))
}

/// What a batch of Direct Get brought.
#[derive(Debug)]
pub(super) struct Batch {
    /// Subject and event, ascending by sequence.
    pub(super) events: Vec<(String, Stored)>,
    /// Messages that match and come after the last one.
    pub(super) pending: u64,
}

/// Reads the answers to a batched Direct Get: messages, then one with a status.
pub(super) fn batch(answers: Vec<Message>) -> Result<Batch, LogError> {
    let mut batch = Batch { events: Vec::with_capacity(answers.len()), pending: 0 };
    for message in answers {
        match message.status.map(|status| status.as_u16()) {
            None => {
                let headers = message.headers.as_ref().ok_or_else(|| protocol("a stored message without headers"))?;
                batch.pending = number(headers, "Nats-Num-Pending").unwrap_or_default();
                batch.events.push(stored(headers, message.payload)?);
            }
            Some(204 | 404) => {}
            Some(503) => return Err(LogError::Unavailable("no server answers for the stream")),
            Some(status) => {
                let text = message.description.unwrap_or_default();
                return Err(protocol(format!("direct get: status {status} {text}")));
            }
        }
    }
    Ok(batch)
}

fn stored(headers: &HeaderMap, body: Bytes) -> Result<(String, Stored), LogError> {
    let subject = last(headers, "Nats-Subject").ok_or_else(|| protocol("a stored message without subject"))?;
    let seq = number(headers, "Nats-Sequence").ok_or_else(|| protocol("a stored message without sequence"))?;
    let time = last(headers, "Nats-Time-Stamp").and_then(time::parse_utc).unwrap_or_default();
    let id = message_id(last(headers, subject::MSG_ID));
    Ok((subject.to_owned(), Stored { seq, previous: 0, id, time, body }))
}

/// The server's value stands last: a publisher's own `Nats-*` headers come before it.
fn last<'a>(headers: &'a HeaderMap, name: &'static str) -> Option<&'a str> {
    headers.get_last(name).map(async_nats::HeaderValue::as_str)
}

fn number(headers: &HeaderMap, name: &'static str) -> Option<u64> {
    last(headers, name)?.parse().ok()
}

/// An id of ours, or zeros for a message that something else has published.
fn message_id(text: Option<&str>) -> MessageId {
    text.and_then(MessageId::parse).unwrap_or(MessageId([0; 16]))
}

pub(super) fn protocol(message: impl Into<String>) -> LogError {
    LogError::Protocol(message.into())
}
