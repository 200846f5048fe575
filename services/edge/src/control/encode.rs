//! Room events as frames of each variant.

use crate::bridge::Variant;
use crate::feed::sequencer::Stored;
use crate::wire::plaza::{json, proto};
use crate::wire::websocket::{FrameBuffer, Opcode};
use crate::wire::{self, Mark, RoomEvent};
use bytes::Bytes;
use plaza_proto::client::{Reset, ServerFrame, server_frame};
use plaza_proto::event::event::Kind;
use plaza_proto::ids::RoomName;
use plaza_proto::position::{Epoch, Position};
use plaza_proto::view::EventView;

/// Reads a stored event; `None` for a version or kind that this edge does not know, which is counted
/// and passed over.
pub(super) fn decode(stored: &Stored, epoch: Epoch) -> Option<RoomEvent<'_>> {
    let event = EventView::parse(&stored.body)?;
    if event.version != 1 || matches!(event.kind, Kind::Unspecified | Kind::Typing) {
        return None;
    }
    let position = Position::of(epoch, stored.seq, stored.id);
    Some(RoomEvent { position, id: stored.id, time: stored.time, event })
}

/// One frame of every variant that has members.
pub(super) fn frames(
    used: &[u32; Variant::COUNT],
    mut encode: impl FnMut(Variant) -> Bytes,
) -> [Option<Bytes>; Variant::COUNT] {
    Variant::ALL.map(|variant| (used[variant as usize] > 0).then(|| encode(variant)))
}

/// A room event as one complete frame; empty when the variant shows nothing of it.
pub(super) fn event(room: &RoomName, event: &RoomEvent<'_>, previous: Position, variant: Variant, mark: Mark) -> Bytes {
    wire::encode_event(variant, room, event, Some(previous), mark)
}

/// Events behind a position as frames, with their sequences, without those that the variant does not show. `mark`
/// is asked with each event's sequence.
pub(super) fn replay<'a>(
    room: &RoomName,
    after: Position,
    events: impl Iterator<Item = &'a Stored>,
    variant: Variant,
    mark: impl Fn(u64) -> Mark,
) -> Vec<(u64, Bytes)> {
    let (mut previous, mut frames) = (after, Vec::with_capacity(events.size_hint().0));
    for shown in events.filter_map(|stored| decode(stored, after.epoch)) {
        let seq = shown.position.seq;
        let frame = event(room, &shown, previous, variant, mark(seq));
        previous = shown.position;
        if !frame.is_empty() {
            frames.push((seq, frame));
        }
    }
    frames
}

/// What members of Plaza's own protocol are told when events are lost; `None` for Socket.IO, which has
/// no such frame.
pub(super) fn reset(
    room: &RoomName,
    reason: &str,
    from: Option<Position>,
    to: Position,
    variant: Variant,
) -> Option<Bytes> {
    let reset = Reset {
        room: room.as_str().to_owned(),
        reason: reason.to_owned(),
        from: from.map(|position| position.to_string()).unwrap_or_default(),
        to: to.to_string(),
    };
    let frame = ServerFrame { id: 0, body: Some(server_frame::Body::Reset(reset)) };
    let (payload, opcode) = match variant {
        Variant::TextZh | Variant::TextEn | Variant::Event => return None,
        Variant::PlazaJson => (json::encode(&frame), Opcode::Text),
        Variant::PlazaProto => (proto::encode(&frame), Opcode::Binary),
    };
    let mut buffer = FrameBuffer::with_capacity(payload.len());
    buffer.payload().extend_from_slice(&payload);
    Some(buffer.finish(opcode))
}
