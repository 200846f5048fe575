//! Pages of history, and what a position is worth.

use crate::log::{EventLog, MAX_READ_BYTES, Read, ReadAnswer, Start, Stored};
use crate::validate;
use plaza_proto::code::Code;
use plaza_proto::event::Event;
use plaza_proto::fanout as api;
use plaza_proto::ids::RoomName;
use plaza_proto::position::{Epoch, Position};
use prost::Message;
use tonic::Status;

const DEFAULT_EVENTS: u32 = 50;
const MAX_EVENTS: u32 = 100;

/// A page of a room's history.
pub(super) async fn page(
    log: &dyn EventLog,
    request: &api::ReadHistoryRequest,
) -> Result<api::ReadHistoryResponse, Status> {
    let room = validate::room(&request.room).map_err(|refusal| refusal.status())?;
    let limit = super::in_range("limit", request.limit, DEFAULT_EVENTS, MAX_EVENTS)?;
    let answer = match &request.from {
        Some(api::read_history_request::From::After(after)) => {
            read_after(log, &room, parse("after", after)?, limit).await?
        }
        Some(api::read_history_request::From::Before(before)) => {
            let before = parse("before", before)?;
            let answer = read(log, &room, Start::Before(before.seq), limit).await?;
            same_epoch(before, answer.epoch)?;
            answer
        }
        None => read(log, &room, Start::Before(u64::MAX), limit).await?,
    };
    Ok(api::ReadHistoryResponse { more: !answer.complete, events: events(answer).collect() })
}

/// The events after a position, if nothing between is missing: the event of the position itself is
/// still there under the same id, or else the store vouches that nothing after it was trimmed.
///
/// # Errors
/// OUT_OF_RANGE `trimmed`: another epoch, rolled back, or trimmed; the message says which.
pub(super) async fn read_after(
    log: &dyn EventLog,
    room: &RoomName,
    after: Position,
    limit: u32,
) -> Result<ReadAnswer, Status> {
    let mut answer = read(log, room, Start::After(after.seq.saturating_sub(1)), limit + 1).await?;
    same_epoch(after, answer.epoch)?;
    if answer.last_seq < after.seq {
        return Err(reset("rolled back", "the store ends before the position"));
    }
    match answer.events.first() {
        Some(first) if first.seq == after.seq && first.id.check() == after.check => {
            answer.events.remove(0);
            Ok(answer)
        }
        Some(first) if first.seq == after.seq && after.check != 0 => {
            Err(reset("rolled back", "another event stands at the position"))
        }
        _ => {
            let answer = read(log, room, Start::After(after.seq), limit).await?;
            same_epoch(after, answer.epoch)?;
            if answer.trimmed {
                return Err(reset("trimmed", "events after the position are no longer kept"));
            }
            Ok(answer)
        }
    }
}

/// Reads a position that a caller gave.
///
/// # Errors
/// INVALID_ARGUMENT `bad_position`.
pub(super) fn parse(field: &str, text: &str) -> Result<Position, Status> {
    Position::parse(text).map_err(|error| Code::BadPosition.status(format_args!("{field}: {error}")))
}

/// The events of an answer as backends see them; one that cannot be decoded is left out.
pub(super) fn events(answer: ReadAnswer) -> impl Iterator<Item = api::HistoryEvent> {
    let epoch = answer.epoch;
    answer.events.into_iter().filter_map(move |stored| history_event(epoch, stored))
}

fn history_event(epoch: Epoch, stored: Stored) -> Option<api::HistoryEvent> {
    let event = Event::decode(stored.body).ok()?;
    Some(api::HistoryEvent {
        position: Position::of(epoch, stored.seq, stored.id).to_string(),
        id: stored.id.to_string(),
        time: stored.time,
        event: Some(event),
    })
}

async fn read(log: &dyn EventLog, room: &RoomName, from: Start, limit: u32) -> Result<ReadAnswer, Status> {
    let read = Read { room: room.clone(), from, at_least_seq: 0, limit, max_bytes: MAX_READ_BYTES };
    log.read(read).await.map_err(|error| error.status())
}

pub(super) fn same_epoch(position: Position, epoch: Epoch) -> Result<(), Status> {
    if position.epoch == epoch {
        Ok(())
    } else {
        Err(reset("epoch", "the position is of another log; read the history anew"))
    }
}

pub(super) fn reset(reason: &str, detail: &str) -> Status {
    Code::Trimmed.status(format_args!("{reason}: {detail}"))
}
