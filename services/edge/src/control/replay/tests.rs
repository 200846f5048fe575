//! Replays of one room against a room whose newest event is 10, in a log that ends at 40.

use super::*;
use crate::feed::sequencer::{Action, Read};
use plaza_proto::fanout::StoredEvent;
use plaza_proto::ids::MessageId;
use plaza_proto::position::Epoch;

const EPOCH: Epoch = Epoch([1; 8]);

fn id(n: u64) -> MessageId {
    MessageId(u128::from(n).to_be_bytes())
}

fn at(seq: u64) -> Position {
    Position { check: id(seq).check() | 1, ..Position::of(EPOCH, seq, id(seq)) }
}

fn answer(seqs: &[u64]) -> ReadResponse {
    let events =
        seqs.iter().map(|&seq| StoredEvent { seq, previous: 0, id: id(seq).to_string(), time: 0, event: Bytes::new() });
    ReadResponse { epoch: EPOCH.0.to_vec(), events: events.collect(), complete: true, trimmed: false, last_seq: 40 }
}

/// A live room with this newest event; `None`: it has none.
fn room(newest: Option<u64>) -> Sequencer {
    let mut out = Vec::new();
    let mut room = Sequencer::start(0, &mut out);
    let Some(Action::Barrier(token)) = out.pop() else { panic!("a room begins with a barrier") };
    room.on_barrier(token, 0, &mut out);
    let Some(Action::Read(ticket, Read::Newest)) = out.pop() else { panic!("then reads the newest event") };
    room.on_read(ticket, &answer(newest.as_slice()), 0, &mut out);
    room
}

fn hear(room: &mut Sequencer, seq: u64) {
    let body = Bytes::new();
    let event = Stored { seq, previous: room.position().seq, id: id(seq), time: 0, body, traceparent: None };
    room.on_event(event, 0, &mut Vec::new());
}

fn seqs(replay: &Replay) -> Vec<u64> {
    replay.events.iter().map(|event| event.seq).collect()
}

/// The position of an event as clients hold it.
fn position(seq: u64) -> Position {
    Position::of(EPOCH, seq, id(seq))
}

#[test]
fn r04_a_replay_from_a_join_needs_no_event_there() {
    let room = room(Some(10));
    let mut replay = Replay::from(at(4));
    assert_eq!(replay.advance(&room, 0), Step::Read(4));
    assert_eq!(replay.advance(&room, 0), Step::Wait, "one read at a time");
    assert!(replay.awaits(4) && !replay.take(&answer(&[7, 10]), &room, 0));
    assert_eq!(replay.advance(&room, 0), Step::Ready);
    assert_eq!((seqs(&replay), replay.reset(), replay.has_anchor()), (vec![7, 10], None, false));
}

#[test]
fn r05_what_is_gone_of_another_log_or_another_event_is_never_complete() {
    let room = room(Some(10));
    let cases = [
        (Replay::from(at(4)), ReadResponse { trimmed: true, ..answer(&[10]) }, ResetReason::Trimmed),
        (Replay::new(position(4)), answer(&[7, 10]), ResetReason::Trimmed),
        (Replay::new(Position { check: 1, ..position(4) }), answer(&[4, 10]), ResetReason::RolledBack),
        (Replay::behind(Position { check: 1, ..position(4) }), answer(&[4, 10]), ResetReason::RolledBack),
        (Replay::from(at(4)), ReadResponse { epoch: vec![2; 8], ..answer(&[10]) }, ResetReason::Epoch),
    ];
    for (mut replay, answer, reason) in cases {
        assert!(matches!(replay.advance(&room, 0), Step::Read(_)));
        replay.take(&answer, &room, 0);
        assert_eq!((replay.advance(&room, 0), replay.reset()), (Step::Ready, Some(reason)));
    }
    let mut other = Replay::from(Position { epoch: Epoch([2; 8]), ..at(4) });
    assert_eq!((other.advance(&room, 0), other.reset()), (Step::Ready, Some(ResetReason::Epoch)));
}

#[test]
fn r06_an_offset_beyond_the_log_is_not_believed() {
    let room = room(Some(10));
    let mut replay = Replay::behind(position(50));
    assert_eq!(replay.advance(&room, 0), Step::Read(10), "what the room here has not got is read, too");
    replay.take(&answer(&[]), &room, 0);
    assert_eq!(replay.reset(), Some(ResetReason::RolledBack));
}

#[test]
fn r03_an_offset_of_another_room_is_a_place_in_this_one() {
    let mut room = room(Some(10));
    let mut replay = Replay::behind(position(30));
    assert_eq!(replay.advance(&room, 0), Step::Read(10));
    replay.take(&answer(&[35]), &room, 0);
    assert_eq!(replay.advance(&room, 0), Step::Ready);
    assert!(replay.has_anchor() && replay.found().is_none() && seqs(&replay).is_empty(), "35 comes as a delivery");
    hear(&mut room, 35);
    assert_eq!((replay.advance(&room, 0), seqs(&replay)), (Step::Ready, vec![35]));
}

#[test]
fn r11_a_room_that_is_behind_the_offset_catches_up_before_its_member_comes_in() {
    let mut room = room(Some(10));
    let mut replay = Replay::behind(position(30));
    assert_eq!(replay.advance(&room, 0), Step::Read(10));
    // The client has seen 20 and 30: as deliveries they would be repeats.
    replay.take(&answer(&[20, 30, 35]), &room, 0);
    assert!(replay.found().is_some());
    assert_eq!(replay.advance(&room, 0), Step::Hint(30));
    assert_eq!(replay.advance(&room, 0), Step::Wait);
    hear(&mut room, 20);
    assert_eq!(replay.advance(&room, 0), Step::Wait);
    hear(&mut room, 30);
    assert_eq!((replay.advance(&room, 0), seqs(&replay)), (Step::Ready, vec![]));
    hear(&mut room, 35);
    assert_eq!((replay.advance(&room, 0), seqs(&replay)), (Step::Ready, vec![35]));
}

#[test]
fn the_ring_answers_without_a_read() {
    let mut room = room(Some(10));
    for seq in [20, 30] {
        hear(&mut room, seq);
    }
    let mut found = Replay::new(position(20));
    assert_eq!((found.advance(&room, 0), seqs(&found), found.found().is_some()), (Step::Ready, vec![30], true));
    let mut elsewhere = Replay::behind(position(25));
    assert_eq!((elsewhere.advance(&room, 0), seqs(&elsewhere), elsewhere.found()), (Step::Ready, vec![30], None));
}

#[test]
fn an_empty_rooms_tail_is_no_missing_event() {
    let room = room(None);
    let mut replay = Replay::from(Position { check: 0, ..position(5) });
    assert_eq!(room.position(), Position { epoch: EPOCH, seq: 40, check: 0 });
    assert_eq!(replay.advance(&room, 0), Step::Read(5));
    assert!(!replay.take(&answer(&[]), &room, 0));
    assert_eq!((replay.advance(&room, 0), replay.reset()), (Step::Ready, None));
}

#[test]
fn a_short_answer_is_asked_for_again_and_gives_up_after_many() {
    let room = room(Some(10));
    let mut replay = Replay::from(at(4));
    for now in (0..u64::from(SHORT_ANSWERS)).map(|n| n * AGAIN) {
        assert_eq!(replay.advance(&room, now), Step::Read(4));
        assert!(replay.take(&answer(&[]), &room, now));
        assert_eq!(replay.advance(&room, now), Step::Wait);
    }
    let end = u64::from(SHORT_ANSWERS) * AGAIN;
    assert_eq!(replay.advance(&room, end), Step::Read(4));
    replay.take(&answer(&[]), &room, end);
    assert_eq!(replay.reset(), Some(ResetReason::Unavailable));
}

#[test]
fn r11_what_the_ring_told_while_a_read_was_on_its_way_is_not_told_twice() {
    let mut room = room(Some(10));
    let mut replay = Replay::behind(position(30));
    assert_eq!(replay.advance(&room, 0), Step::Read(10));
    // The room comes past the offset by itself, and other rooms are not ready yet.
    hear(&mut room, 35);
    assert_eq!((replay.advance(&room, 0), seqs(&replay)), (Step::Ready, vec![35]));
    replay.take(&answer(&[10, 35]), &room, 0);
    hear(&mut room, 36);
    assert_eq!((replay.advance(&room, 0), seqs(&replay)), (Step::Ready, vec![35, 36]));
}
