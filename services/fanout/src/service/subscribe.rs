//! Subscriptions of backends: a forward read of the room, one in flight, woken by the store's
//! distribution. What the distribution loses, the next look finds.

use super::{Fanout, history};
use crate::log::{EventLog, MAX_READ_BYTES, Read, ReadAnswer, Start};
use crate::validate;
use futures_util::stream::{BoxStream, StreamExt, iter, unfold};
use plaza_kit::shutdown::Shutdown;
use plaza_proto::fanout as api;
use plaza_proto::ids::RoomName;
use plaza_proto::position::{Epoch, Position};
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;

/// Events of one read.
const PAGE: u32 = 128;
/// The next look after a wake that showed nothing: a replica may be behind.
const SOON: Duration = Duration::from_millis(250);
/// The next look without a wake.
const LATER: Duration = Duration::from_secs(10);

/// Checks the start and gives the events.
pub(super) async fn stream(
    fanout: &Fanout,
    request: &api::SubscribeRequest,
) -> Result<BoxStream<'static, Result<api::SubscribeResponse, Status>>, Status> {
    let room = validate::room(&request.room).map_err(|refusal| refusal.status())?;
    // Woken first, read after: what happens between is found by the first read.
    let wakes = fanout.log.wakes(&room).await.map_err(|error| error.status())?;
    let mut reader = Reader {
        log: Arc::clone(&fanout.log),
        shutdown: fanout.shutdown.clone(),
        room,
        wakes,
        epoch: Epoch::default(),
        cursor: 0,
        idle: LATER,
    };
    let first = reader.start(&request.after).await?;
    let pages = unfold((reader, first, false), |(mut reader, page, ended)| async move {
        if ended {
            return None;
        }
        match page {
            Some(page) => Some((Ok(page), (reader, None, false))),
            None => match reader.next().await? {
                Ok(page) => Some((Ok(page), (reader, None, false))),
                Err(status) => Some((Err(status), (reader, None, true))),
            },
        }
    });
    Ok(pages.flat_map(|page| iter(responses(page))).boxed())
}

struct Reader {
    log: Arc<dyn EventLog>,
    shutdown: Shutdown,
    room: RoomName,
    wakes: BoxStream<'static, ()>,
    epoch: Epoch,
    /// The last sequence given.
    cursor: u64,
    /// How long to wait for a wake.
    idle: Duration,
}

impl Reader {
    async fn start(&mut self, after: &str) -> Result<Option<ReadAnswer>, Status> {
        if after.is_empty() {
            let room = std::slice::from_ref(&self.room);
            let tails = self.log.tails(room).await.map_err(|error| error.status())?;
            self.epoch = tails.epoch;
            self.cursor = tails.tails.first().copied().unwrap_or_default();
            return Ok(None);
        }
        let after: Position = history::parse("after", after)?;
        let page = history::read_after(&*self.log, &self.room, after, PAGE).await?;
        self.epoch = page.epoch;
        self.cursor = page.events.last().map_or(after.seq, |event| event.seq);
        self.idle = if page.complete { LATER } else { Duration::ZERO };
        Ok(Some(page))
    }

    /// The next page with events; `None` when the server drains or the log has ended.
    async fn next(&mut self) -> Option<Result<ReadAnswer, Status>> {
        loop {
            let woken = tokio::select! {
                () = self.shutdown.cancelled() => return None,
                woken = tokio::time::timeout(self.idle, self.wakes.next()) => woken,
            };
            if matches!(woken, Ok(None)) {
                return None;
            }
            let from = Start::After(self.cursor);
            let read = Read { room: self.room.clone(), from, at_least_seq: 0, limit: PAGE, max_bytes: MAX_READ_BYTES };
            match self.log.read(read).await {
                Ok(page) if page.epoch != self.epoch => {
                    return Some(Err(history::reset("epoch", "the log was replaced; read the history anew")));
                }
                Ok(page) if page.trimmed => {
                    return Some(Err(history::reset("trimmed", "events that were not yet sent are no longer kept")));
                }
                Ok(page) => {
                    self.idle = match (page.complete, page.events.is_empty() && woken.is_ok()) {
                        (false, _) => Duration::ZERO,
                        (true, true) => SOON,
                        (true, false) => LATER,
                    };
                    if let Some(last) = page.events.last() {
                        self.cursor = last.seq;
                        return Some(Ok(page));
                    }
                }
                // The store is away for now: the stream lives on and looks again.
                Err(_) => self.idle = SOON,
            }
        }
    }
}

fn responses(page: Result<ReadAnswer, Status>) -> Vec<Result<api::SubscribeResponse, Status>> {
    match page {
        Ok(page) => history::events(page).map(|event| Ok(api::SubscribeResponse { event: Some(event) })).collect(),
        Err(status) => vec![Err(status)],
    }
}
