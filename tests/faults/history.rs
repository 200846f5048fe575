//! What the swarm and the nemesis did and saw, one JSON line per event, in the order it happened.

use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A place in the log of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct At {
    /// The stream's epoch.
    pub(crate) epoch: u64,
    /// The stream's sequence.
    pub(crate) seq: u64,
}

/// The message of a sender: the sender's number above its own count.
pub(crate) type Mid = u64;

/// The mid of a sender's `n`-th message.
pub(crate) fn mid(sender: u32, n: u32) -> Mid {
    u64::from(sender) << 32 | u64::from(n)
}

/// Whether a code promises that this attempt, if not an earlier one, is not stored.
pub(crate) fn is_not_stored(code: &str) -> bool {
    matches!(code, "busy" | "username_required")
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Event {
    /// A client has a session on an edge.
    Conn {
        client: u32,
        edge: u32,
        /// It goes on with an earlier one: a stock client's `recovered`.
        #[serde(default)]
        recovered: bool,
    },
    /// Its connection is gone.
    Close { client: u32, why: String },
    /// It is a member; `after` is what it asked to resume from.
    Join {
        client: u32,
        room: u32,
        after: Option<At>,
        at: At,
        recovered: bool,
        /// It sees joins, leaves and renames, too.
        all: bool,
    },
    /// It was told that a range cannot be delivered.
    Reset { client: u32, room: u32, from: Option<At>, to: At, why: String },
    /// It is about to send a message, or to send it again.
    SendInvoke { client: u32, room: u32, mid: Mid, hash: u64, retry: bool },
    /// The server says that it is stored.
    SendOk { client: u32, room: u32, mid: Mid, at: At, id: u64, duplicate: bool },
    /// The server says that it is not stored and never will be.
    SendFail { client: u32, mid: Mid, code: String },
    /// Nobody knows; it will be sent again.
    SendInfo { client: u32, mid: Mid, code: String },
    /// An event of a room arrived; `mid` is absent for what the server itself says.
    Recv { client: u32, room: u32, at: At, previous: Option<At>, id: u64, mid: Option<Mid>, hash: u64 },
    /// A fault begins.
    Fault { what: String },
    /// It has ended: everything works again below Plaza.
    Heal { what: String },
    /// Every client is back and has seen everything that was acknowledged.
    CaughtUp { what: String },
    /// The run ends here, and not every client is back with everything.
    Cut { why: String },
}

/// An event and when it happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Nanoseconds since the run began, on the one monotonic clock.
    pub(crate) ns: u64,
    /// Milliseconds since 1970.
    pub(crate) wall: u64,
    /// What happened.
    #[serde(flatten)]
    pub(crate) event: Event,
}

/// The one writer. An event is stamped and written under one lock, so the file's order is the order
/// of the stamps.
#[derive(Debug)]
pub(crate) struct History {
    begin: Instant,
    file: Mutex<BufWriter<File>>,
}

impl History {
    /// Writes to a new file.
    pub(crate) fn create(path: &Path) -> std::io::Result<Self> {
        Ok(Self { begin: Instant::now(), file: Mutex::new(BufWriter::with_capacity(1 << 20, File::create(path)?)) })
    }

    /// Records one event.
    pub(crate) fn record(&self, event: Event) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let line = Line { ns: self.begin.elapsed().as_nanos() as u64, wall, event };
        // A full disk shows at `finish`: the checker finds too little.
        if serde_json::to_writer(&mut *file, &line).is_ok() {
            let _ = file.write_all(b"\n");
        }
    }

    /// Writes what is buffered.
    pub(crate) fn finish(&self) -> std::io::Result<()> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}
