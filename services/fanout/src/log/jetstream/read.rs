//! Reading: batches of Direct Get from any replica, and the leader where a replica is not enough.

use super::recent::{Newest, Recent};
use super::wire::{self, Batch, MessageAnswer, StreamInfo, err_code, protocol};
use super::{Serving, Shared, now, provision};
use crate::log::budget::Budget;
use crate::log::{LogError, Read, ReadAnswer, Start, Stored, TailsAnswer};
use async_nats::HeaderMap;
use bytes::Bytes;
use plaza_proto::ids::RoomName;
use plaza_proto::position::Epoch;
use plaza_proto::subject::{self, STREAM};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

/// Time for one batch: cold blocks come from disk.
const READ_LIMIT: Duration = Duration::from_secs(2);
/// Messages and bytes of one batch when a whole room is looked through.
const SCAN_BATCH: u32 = 256;
const SCAN_BYTES: u32 = 1024 * 1024;
/// What the server counts beside a message's body: subject and headers.
const OVERHEAD_BYTES: u32 = 512;

impl Shared {
    pub(super) async fn read_events(&self, read: Read) -> Result<ReadAnswer, LogError> {
        let serving = self.serving()?;
        let answer = match read.from {
            Start::After(seq) => self.read_after(&read, seq, serving).await?,
            Start::Before(seq) => self.read_before(&read, seq, serving).await?,
        };
        self.still(serving)?;
        Ok(answer)
    }

    pub(super) async fn read_tails(&self, rooms: &[RoomName]) -> Result<TailsAnswer, LogError> {
        let serving = self.serving()?;
        let subjects: Vec<String> = rooms.iter().map(subject::room_in).collect();
        let ask = json!({ "multi_last": subjects, "batch": subjects.len() });
        // The leader's last sequence is at least what any edge had seen when it asked.
        let (batch, info) = tokio::join!(self.batch(&ask), self.stream_info());
        let (batch, info) = (batch?, info?);
        self.still(serving)?;
        let tails: HashMap<String, u64> = batch.events.into_iter().map(|(room, event)| (room, event.seq)).collect();
        Ok(TailsAnswer {
            epoch: serving.epoch,
            tails: subjects.iter().map(|room| tails.get(room).copied().unwrap_or_default()).collect(),
            last_seq: info.state.last_seq,
        })
    }

    pub(super) async fn stream_info(&self) -> Result<StreamInfo, LogError> {
        let info = provision::info(&self.read.requests).await?;
        let info = info.ok_or(LogError::Unavailable("the stream does not exist"))?;
        self.metrics.stream_bytes.set(i64::try_from(info.state.bytes).unwrap_or(i64::MAX));
        self.metrics.stream_messages.set(i64::try_from(info.state.messages).unwrap_or(i64::MAX));
        Ok(info)
    }

    /// An answer counts only under the epoch it was asked under.
    pub(super) fn still(&self, serving: Serving) -> Result<(), LogError> {
        if self.serving()?.epoch == serving.epoch {
            Ok(())
        } else {
            Err(LogError::Unavailable("the stream was replaced meanwhile"))
        }
    }

    async fn batch(&self, ask: &Value) -> Result<Batch, LogError> {
        let subject = format!("$JS.API.DIRECT.GET.{STREAM}");
        wire::batch(self.read.requests.many(&subject, Bytes::from(ask.to_string()), READ_LIMIT).await?)
    }

    /// Events after `after`. The read begins with the event at `after` itself: while that is kept,
    /// nothing behind it has been removed, as the oldest always goes first.
    async fn read_after(&self, read: &Read, after: u64, serving: Serving) -> Result<ReadAnswer, LogError> {
        let ask = json!({
            "seq": after.max(1),
            "next_by_subj": subject::room_in(&read.room),
            "batch": read.limit + 1,
            "max_bytes": 2 * read.max_bytes + OVERHEAD_BYTES,
        });
        let mut batch = self.batch(&ask).await?;
        let end = batch.events.last().map_or(after, |(_, event)| event.seq);
        if batch.pending == 0 && end < read.at_least_seq {
            batch = self.leader_batch(read, after).await?;
        }
        let mut events: Vec<Stored> = batch.events.into_iter().map(|(_, event)| event).collect();
        let anchored = events.first().is_some_and(|event| event.seq == after);
        if anchored {
            events.remove(0);
        }
        let total = events.len() as u64 + batch.pending;
        let mut budget = Budget::new(read);
        let fit = events.iter().take_while(|event| budget.take(event)).count();
        let complete = batch.pending == 0 && fit == events.len();
        events.truncate(fit);
        link(&mut events, if anchored { after } else { 0 });

        let last = events.last().map_or(0, |event| event.seq).max(serving.known.seq);
        let (trimmed, last_seq) = if anchored {
            (false, last.max(after))
        } else {
            let info = self.stream_info().await?;
            (after > 0 && self.may_be_trimmed(after, total, &info), last.max(info.state.last_seq))
        };
        Ok(ReadAnswer { epoch: serving.epoch, events, complete, trimmed, last_seq })
    }

    /// Check B: may an event of a room have been removed between `after` and the `total` ones kept after it?
    fn may_be_trimmed(&self, after: u64, total: u64, info: &StreamInfo) -> bool {
        let state = *self.state();
        if total >= state.limits.per_room {
            return true;
        }
        let by_the_stream = info.state.first_seq > after + 1;
        by_the_stream && !(state.younger_than_age(after, now()) && info.state.bytes < nearly(state.limits.bytes))
    }

    /// The newest events before `before`: there is no reading backward, so the room is read forward, from
    /// where the last such read has ended.
    async fn read_before(&self, read: &Read, before: u64, serving: Serving) -> Result<ReadAnswer, LogError> {
        let limit = read.limit as usize;
        let tail = self.recent().tail(serving.epoch, &read.room);
        if tail.is_none() && limit == 1 && before == u64::MAX {
            return self.read_last(read, serving).await;
        }
        // What is kept says all, when nothing behind it is asked for.
        let kept = tail.filter(|tail| before <= tail + 1);
        let known = kept.and_then(|_| self.recent().before(serving.epoch, &read.room, before, limit));
        let newest = match known {
            Some(newest) => newest,
            None => self.newest(read, before, tail, serving.epoch).await?,
        };
        if newest.events.is_empty() && before == u64::MAX {
            return self.confirm_empty(read, serving).await;
        }
        let mut budget = Budget::new(read);
        let fit = newest.events.iter().rev().take_while(|event| budget.take(event)).count();
        let complete = newest.begins && fit == newest.events.len();
        let events: Vec<Stored> = newest.events.into_iter().rev().take(fit).rev().collect();
        let last_seq = events.last().map_or(0, |event| event.seq).max(serving.known.seq);
        Ok(ReadAnswer { epoch: serving.epoch, events, complete, trimmed: false, last_seq })
    }

    /// The newest event alone, with which a room begins on each edge: the stream has an index for it.
    async fn read_last(&self, read: &Read, serving: Serving) -> Result<ReadAnswer, LogError> {
        let ask = json!({ "multi_last": [subject::room_in(&read.room)], "batch": 1 });
        let Some((_, event)) = self.batch(&ask).await?.events.pop() else {
            return self.confirm_empty(read, serving).await;
        };
        let last_seq = event.seq.max(serving.known.seq);
        // Nobody has looked for earlier ones.
        Ok(ReadAnswer { epoch: serving.epoch, events: vec![event], complete: false, trimmed: false, last_seq })
    }

    /// A replica has no event of the room. It may be behind, and an event may come between two questions: the
    /// sequence is asked for before the leader says that the room is empty, so that no event of the room stands
    /// at or below it.
    async fn confirm_empty(&self, read: &Read, serving: Serving) -> Result<ReadAnswer, LogError> {
        let last_seq = serving.known.seq.max(self.stream_info().await?.state.last_seq);
        let ask = json!({ "last_by_subj": subject::room_in(&read.room) });
        let events: Vec<Stored> = self.leader_message(&ask).await?.into_iter().collect();
        let last_seq = events.last().map_or(last_seq, |event| event.seq.max(last_seq));
        let complete = events.is_empty();
        Ok(ReadAnswer { epoch: serving.epoch, events, complete, trimmed: false, last_seq })
    }

    /// Reads what follows the newest event that is kept of the room, or the whole room.
    async fn newest(&self, read: &Read, before: u64, tail: Option<u64>, epoch: Epoch) -> Result<Newest, LogError> {
        let limit = read.limit as usize;
        let mut tail = tail;
        if let Some(kept) = tail {
            let mut more = Vec::new();
            // While the newest one that is kept here is kept there, nothing behind it has been removed.
            self.scan(&read.room, kept, |event| {
                more.push(event);
                more.first().is_some_and(|first| first.seq == kept)
            })
            .await?;
            let mut recent = self.recent();
            if more.first().is_some_and(|first| first.seq == kept) {
                recent.add(epoch, &read.room, tail, more.split_off(1));
                if let Some(newest) = recent.before(epoch, &read.room, before, limit) {
                    return Ok(newest);
                }
            } else {
                recent.forget(&read.room);
                tail = None;
            }
        }
        let _turn = self.scans.acquire().await;
        let (mut newest, mut all) = (VecDeque::new(), Vec::new());
        let (mut previous, mut begins) = (0, true);
        self.scan(&read.room, 1, |mut event| {
            event.previous = std::mem::replace(&mut previous, event.seq);
            if tail.is_none() {
                all.push(event.clone());
            }
            if event.seq < before {
                newest.push_back(event);
            }
            if newest.len() > limit {
                newest.pop_front();
                begins = false;
            }
            true
        })
        .await?;
        if tail.is_none() {
            self.recent().add(epoch, &read.room, None, all);
        }
        Ok(Newest { events: newest.into(), begins })
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a room's events from this sequence on, until `each` says enough.
    pub(super) async fn scan(
        &self,
        room: &RoomName,
        mut from: u64,
        mut each: impl FnMut(Stored) -> bool,
    ) -> Result<(), LogError> {
        let subject = subject::room_in(room);
        // The stream keeps at most so many a room; a room that grows while it is read ends the scan all the same.
        let mut left = self.state().limits.per_room.saturating_mul(2);
        while left > 0 {
            let ask = json!({ "seq": from, "next_by_subj": subject, "batch": SCAN_BATCH, "max_bytes": SCAN_BYTES });
            let batch = self.batch(&ask).await?;
            left = left.saturating_sub(batch.events.len() as u64);
            for (_, event) in batch.events {
                from = event.seq + 1;
                if !each(event) {
                    return Ok(());
                }
            }
            if batch.pending == 0 {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The same from the leader, message by message, until what is known to exist has been reached.
    /// What the leader does not have is not there.
    async fn leader_batch(&self, read: &Read, after: u64) -> Result<Batch, LogError> {
        self.metrics.leader_reads.inc();
        let room = subject::room_in(&read.room);
        let mut batch = Batch { events: Vec::new(), pending: 0 };
        let mut from = after.max(1);
        for _ in 0..=read.limit {
            let Some(event) = self.leader_message(&json!({ "seq": from, "next_by_subj": room })).await? else {
                return Ok(batch);
            };
            from = event.seq + 1;
            let end = event.seq;
            batch.events.push((room.clone(), event));
            if end >= read.at_least_seq {
                break;
            }
        }
        // There may be more; the next read tells.
        batch.pending = 1;
        Ok(batch)
    }

    /// One message from the leader; `None` when there is none.
    pub(super) async fn leader_message(&self, ask: &Value) -> Result<Option<Stored>, LogError> {
        let subject = format!("$JS.API.STREAM.MSG.GET.{STREAM}");
        let body = Bytes::from(ask.to_string());
        let answer = self.read.requests.one(subject, HeaderMap::new(), body, READ_LIMIT).await?;
        match wire::json::<MessageAnswer>(&answer)? {
            MessageAnswer { message: Some(message), .. } => message.stored().map(Some),
            MessageAnswer { error: Some(error), .. } if error.err_code == err_code::NO_MESSAGE => Ok(None),
            MessageAnswer { error, .. } => Err(protocol(error.map_or_else(String::new, |error| error.description))),
        }
    }
}

/// Each event's predecessor, from the order in which they were read.
fn link(events: &mut [Stored], mut previous: u64) {
    for event in events {
        event.previous = std::mem::replace(&mut previous, event.seq);
    }
}

/// A stream this full may be removing events to stay below its limit.
pub(super) fn nearly(limit: u64) -> u64 {
    limit / 10 * 9
}
