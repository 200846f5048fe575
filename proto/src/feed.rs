//! What the store distributes to edges, as an edge's feed hands it on: the same for NATS and for the
//! channel inside `plaza`.

use crate::ids::{MessageId, RoomName};
use bytes::Bytes;

/// One message of the feed.
#[derive(Clone, Debug)]
pub enum FeedMessage {
    /// A stored event of a room.
    Event {
        /// The room.
        room: RoomName,
        /// The stream's sequence.
        seq: u64,
        /// Sequence of the event before it in the room, 0 if none; see data rules on retention.
        previous: u64,
        /// Its message id.
        id: MessageId,
        /// Milliseconds since 1970-01-01 UTC by the store's clock.
        time: u64,
        /// The encoded `plaza.event.v1.Event`.
        body: Bytes,
        /// W3C trace context, if the message was sampled.
        traceparent: Option<String>,
    },
    /// The room has come at least this far: whoever holds less reads.
    Hint {
        /// The room.
        room: RoomName,
        /// A sequence that exists in it.
        seq: u64,
    },
    /// An event that is not stored.
    Volatile {
        /// The room.
        room: RoomName,
        /// The encoded `plaza.event.v1.Event`.
        body: Bytes,
    },
    /// A beat: events reach this edge.
    Beat {
        /// The stream's sequence.
        seq: u64,
        /// Sequence of the beat before it.
        previous: u64,
        /// The stream's epoch.
        epoch: crate::position::Epoch,
        /// When the stream's leader was elected last, as far as the sender knows, in milliseconds since
        /// 1970-01-01 UTC by the leader's clock; 0: unknown.
        election_time: u64,
    },
    /// A command for this edge: an encoded `plaza.fanout.v1.Command`.
    Command(Bytes),
    /// The feed lost messages of this room (or of all, when `None`), or its connection was renewed.
    Resync(Option<RoomName>),
}
