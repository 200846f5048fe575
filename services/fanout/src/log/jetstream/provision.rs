//! The stream: made when it is missing, adopted when it is there, widened when settings ask for more.

use super::requests::Requests;
use super::wire::{self, Ack, ApiError, MessageAnswer, StreamInfo, err_code, protocol};
use super::{JetStreamError, Options};
use crate::log::LogError;
use async_nats::HeaderMap;
use bytes::Bytes;
use plaza_proto::position::Epoch;
use plaza_proto::subject::{EPOCH, EPOCH_KEY, IN_ALL, IN_PREFIX, REPUBLISH_DESTINATION, REPUBLISH_SOURCE, STREAM};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

/// Below it there is no batched Direct Get, no `multi_last` and no message TTL.
const NEEDED: (u64, u64, u64) = (2, 11, 0);
/// Below it known faults lose data or leak it.
const ADVISED: (u64, u64, u64) = (2, 12, 5);
/// Largest message, headers included.
const MAX_MESSAGE_BYTES: u64 = 16 * 1024;
/// Time for one request about the stream; making one with replicas takes an election.
const LIMIT: Duration = Duration::from_secs(5);

/// Refuses a server that cannot serve, and warns of one that should not.
pub(super) fn check_version(version: &str) -> Result<(), JetStreamError> {
    let found = parse_version(version);
    if found < NEEDED {
        return Err(JetStreamError::Version { found: version.to_owned() });
    }
    if found < ADVISED {
        tracing::warn!(found = version, advised = "2.12.5", "nats-server has known faults, please update it");
    }
    Ok(())
}

/// `2.11.4-beta` is 2.11.4; what is no number counts as 0.
fn parse_version(text: &str) -> (u64, u64, u64) {
    let core = text.trim_start_matches('v').split(['-', '+']).next().unwrap_or_default();
    let mut parts = core.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}

/// Asks the leader for the stream; `None` when there is none.
pub(super) async fn info(requests: &Requests) -> Result<Option<StreamInfo>, LogError> {
    let info = call(requests, "INFO", &Value::Null).await?;
    match &info.error {
        Some(error) if error.err_code == err_code::NO_STREAM => Ok(None),
        Some(error) => Err(failed(error)),
        None => Ok(Some(info)),
    }
}

/// Finds the stream or makes it, with an epoch.
pub(super) async fn ensure(requests: &Requests, options: &Options) -> Result<StreamInfo, LogError> {
    let Some(found) = info(requests).await? else {
        tracing::info!(stream = STREAM, "creating the stream");
        return changed(call(requests, "CREATE", &fresh(options)).await?);
    };
    let mut config = found.config.clone();
    for (field, kept, wanted) in widen(&mut config, &wanted(options)) {
        tracing::warn!(field, %kept, %wanted, "the stream keeps what it has: less would remove events");
    }
    if found.epoch_text().is_none() {
        set_epoch(&mut config);
    }
    if config == found.config {
        return Ok(found);
    }
    tracing::info!(stream = STREAM, "updating the stream");
    changed(call(requests, "UPDATE", &config).await?)
}

/// What a renewal says in the stream itself: the store takes one after the other, so of several services
/// that renew an epoch at once only one has its way, and when it ends half-way another one goes on.
#[derive(Debug, Deserialize, Serialize)]
struct Renewal {
    from: String,
    to: String,
}

/// Gives the stream another epoch in place of the one in `found`, none of those `used` before.
///
/// # Errors
/// [`LogError::Unavailable`]: somebody else renews it in this moment.
pub(super) async fn renew_epoch(
    requests: &Requests,
    found: &StreamInfo,
    used: &[Epoch],
) -> Result<StreamInfo, LogError> {
    let from = found.epoch_text().unwrap_or_default().to_owned();
    let last = last_renewal(requests).await?;
    let begun = last.as_ref().filter(|(_, last)| last.from == from);
    let begun = begun.filter(|(_, last)| parse_epoch(&last.to).is_ok_and(|to| !used.contains(&to)));
    let to = match begun {
        Some((_, begun)) => begun.to.clone(),
        None => {
            let renewal = Renewal { from, to: uuid() };
            announce(requests, &renewal, last.as_ref().map_or(0, |(seq, _)| *seq)).await?;
            renewal.to
        }
    };
    let mut config = found.config.clone();
    config["metadata"][EPOCH_KEY] = Value::String(to);
    changed(call(requests, "UPDATE", &config).await?)
}

/// The last renewal in the stream and where it stands.
async fn last_renewal(requests: &Requests) -> Result<Option<(u64, Renewal)>, LogError> {
    let ask = Bytes::from(json!({ "last_by_subj": renewals() }).to_string());
    let answer = requests.one(format!("$JS.API.STREAM.MSG.GET.{STREAM}"), HeaderMap::new(), ask, LIMIT).await?;
    let answer: MessageAnswer = wire::json(&answer)?;
    let Some(message) = answer.message else {
        return match answer.error {
            Some(error) if error.err_code == err_code::NO_MESSAGE => Ok(None),
            error => Err(protocol(error.map_or_else(String::new, |error| error.description))),
        };
    };
    let stored = message.stored()?;
    let renewal = serde_json::from_slice(&stored.body).map_err(|error| protocol(error.to_string()))?;
    Ok(Some((stored.seq, renewal)))
}

/// Stores a renewal, unless another one stands behind `after`.
async fn announce(requests: &Requests, renewal: &Renewal, after: u64) -> Result<(), LogError> {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Expected-Last-Subject-Sequence", after.to_string().as_str());
    let body = serde_json::to_vec(renewal).map_err(|error| protocol(error.to_string()))?;
    let ack: Ack = wire::json(&requests.one(renewals(), headers, body.into(), LIMIT).await?)?;
    match ack.error {
        Some(_) => Err(LogError::Unavailable("another service renews the stream's epoch")),
        None => Ok(()),
    }
}

fn renewals() -> String {
    format!("{IN_PREFIX}{EPOCH}")
}

/// The epoch of a uuid: its first 8 bytes.
pub(super) fn epoch(info: &StreamInfo) -> Result<Epoch, LogError> {
    parse_epoch(info.epoch_text().ok_or_else(|| protocol("the stream has no epoch"))?)
}

fn parse_epoch(text: &str) -> Result<Epoch, LogError> {
    let digits: Vec<u8> = text.bytes().filter(|&b| b != b'-').collect();
    let mut bytes = [0; 8];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| protocol("the stream's epoch is no uuid"))?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| protocol("the stream's epoch is no uuid"))?;
    }
    if digits.len() == 32 { Ok(Epoch(bytes)) } else { Err(protocol("the stream's epoch is no uuid")) }
}

async fn call(requests: &Requests, verb: &str, body: &Value) -> Result<StreamInfo, LogError> {
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let subject = format!("$JS.API.STREAM.{verb}.{STREAM}");
    wire::json(&requests.one(subject, HeaderMap::new(), body, LIMIT).await?)
}

fn changed(info: StreamInfo) -> Result<StreamInfo, LogError> {
    match &info.error {
        Some(error) => Err(failed(error)),
        None => Ok(info),
    }
}

fn failed(error: &ApiError) -> LogError {
    protocol(format!("stream {STREAM}: {} (error {})", error.description, error.err_code))
}

fn set_epoch(config: &mut Value) {
    config["metadata"][EPOCH_KEY] = Value::String(uuid());
}

/// A random uuid, version 4.
fn uuid() -> String {
    let n = (rand::random::<u128>() & !(0xf << 76 | 0x3 << 62)) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{n:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Settings that an existing stream may get, too.
fn wanted(options: &Options) -> Value {
    json!({
        "max_msgs_per_subject": options.history_per_room,
        "max_age": nanos(options.history_age),
        "max_bytes": options.max_bytes,
        "max_msg_size": MAX_MESSAGE_BYTES,
        "duplicate_window": nanos(options.dedupe_window),
        "num_replicas": options.replicas,
        "allow_direct": true,
        "allow_msg_ttl": true,
        "republish": { "src": REPUBLISH_SOURCE, "dest": REPUBLISH_DESTINATION },
    })
}

fn fresh(options: &Options) -> Value {
    let mut config = wanted(options);
    config["name"] = json!(STREAM);
    config["subjects"] = json!([IN_ALL]);
    config["storage"] = json!("file");
    config["retention"] = json!("limits");
    config["discard"] = json!("old");
    set_epoch(&mut config);
    config
}

/// Puts what is wanted into `config` where that removes nothing; returns what it left as it is.
fn widen(config: &mut Value, wanted: &Value) -> Vec<(String, Value, Value)> {
    let mut left = Vec::new();
    for (field, value) in wanted.as_object().into_iter().flatten() {
        let kept = config.get(field).cloned().unwrap_or(Value::Null);
        let narrower = match (kept.as_i64(), value.as_i64(), field.as_str()) {
            (Some(kept), Some(value), "max_msgs_per_subject" | "max_age") => kept <= 0 || value < kept,
            // No limit at all must not stay: a full disk stops the server.
            (Some(kept), Some(value), "max_bytes") => kept > 0 && value < kept,
            _ => false,
        };
        if narrower {
            left.push((field.clone(), kept, value.clone()));
        } else if !same(&kept, value) {
            config[field] = value.clone();
        }
    }
    left
}

/// The server adds defaults of its own to nested objects.
fn same(kept: &Value, wanted: &Value) -> bool {
    match wanted.as_object() {
        Some(fields) => fields.iter().all(|(field, value)| kept.get(field) == Some(value)),
        None => kept == wanted,
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_are_refused_with_what_and_why() {
        let error = check_version("2.9.10").expect_err("too old").to_string();
        assert!(error.contains("2.9.10") && error.contains("2.11") && error.contains("Direct Get"), "{error}");
        assert!(check_version("2.11.0").is_ok());
        assert!(check_version("2.15.1-beta.1").is_ok());
        assert!(check_version("").is_err());
    }

    #[test]
    fn a_stream_is_widened_and_never_narrowed() {
        let mut config = json!({ "max_msgs_per_subject": 50, "max_age": 900, "max_bytes": -1, "sealed": false });
        let left = widen(&mut config, &json!({ "max_msgs_per_subject": 100, "max_age": 800, "max_bytes": 10 }));
        assert_eq!(config, json!({ "max_msgs_per_subject": 100, "max_age": 900, "max_bytes": 10, "sealed": false }));
        assert_eq!(left, [("max_age".to_owned(), json!(900), json!(800))]);
    }

    #[test]
    fn an_epoch_is_the_begin_of_its_uuid() {
        let uuid = uuid();
        assert_eq!(uuid.len(), 36);
        assert_eq!(&uuid[14..15], "4");
        let info = |text: &str| StreamInfo {
            config: json!({ "metadata": { EPOCH_KEY: text } }),
            state: wire::StreamState::default(),
            cluster: wire::ClusterInfo::default(),
            error: None,
        };
        let text = "01020304-0506-4708-8000-000000000000";
        assert_eq!(epoch(&info(text)), Ok(Epoch([1, 2, 3, 4, 5, 6, 0x47, 8])));
        assert!(epoch(&info(&uuid)).is_ok());
        assert!(epoch(&info("x")).is_err() && epoch(&info("")).is_err());
    }
}
