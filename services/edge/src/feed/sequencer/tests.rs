//! Single rules, one test each.

use super::*;
use bytes::Bytes;
use plaza_proto::fanout::{ReadResponse, StoredEvent};

const EPOCH: Epoch = Epoch([1; 8]);

fn id(n: u64) -> MessageId {
    MessageId(u128::from(n).to_be_bytes())
}

fn event(seq: u64, previous: u64) -> Stored {
    Stored { seq, previous, id: id(seq), time: 0, body: Bytes::new(), traceparent: None }
}

fn answer(seqs: &[u64], last_seq: u64) -> ReadResponse {
    let events =
        seqs.iter().map(|&seq| StoredEvent { seq, previous: 0, id: id(seq).to_string(), time: 0, event: Bytes::new() });
    ReadResponse { epoch: EPOCH.0.to_vec(), events: events.collect(), complete: true, trimmed: false, last_seq }
}

/// A live room whose newest event is 10.
fn live() -> Sequencer {
    let mut out = Vec::new();
    let mut room = Sequencer::start(0, &mut out);
    let Some(Action::Barrier(token)) = out.pop() else { panic!("a room begins with a barrier") };
    room.on_barrier(token, 0, &mut out);
    let Some(Action::Read(ticket, Read::Newest)) = out.pop() else { panic!("then reads the newest event") };
    room.on_read(ticket, &answer(&[10], 20), 0, &mut out);
    assert!(matches!(out[..], [Action::Live]));
    room
}

fn delivered(out: &[Action]) -> Vec<u64> {
    out.iter()
        .filter_map(|action| if let Action::Deliver(_, event) = action { Some(event.seq) } else { None })
        .collect()
}

fn asked(out: &[Action]) -> (u64, Read) {
    let read =
        out.iter().rev().find_map(|a| if let Action::Read(ticket, read) = a { Some((*ticket, *read)) } else { None });
    read.expect("a read was asked for")
}

#[test]
fn an_event_whose_previous_one_was_removed_is_delivered() {
    let (mut room, mut out) = (live(), Vec::new());
    room.on_event(event(25, 3), 0, &mut out);
    assert_eq!(delivered(&out), [0_u64; 0], "perhaps the whole log was removed");
    let (ticket, _) = asked(&out);
    room.on_read(ticket, &answer(&[25], 26), 0, &mut out);
    assert_eq!(delivered(&out), [25]);
    room.on_event(event(26, 25), 0, &mut out);
    assert_eq!(delivered(&out), [25, 26]);
    assert_eq!(room.position(), Position::of(EPOCH, 26, id(26)));
}

#[test]
fn data_i09_the_first_event_of_another_log_is_not_taken_for_the_next_one() {
    let (mut room, mut out) = (live(), Vec::new());
    room.on_event(event(57, 0), 0, &mut out);
    let (ticket, _) = asked(&out);
    room.on_read(ticket, &ReadResponse { epoch: vec![2; 8], ..answer(&[57], 57) }, 0, &mut out);
    assert_eq!(delivered(&out), [0_u64; 0]);
    assert_eq!(room.found(), Some(Err(ResetReason::Epoch)));
}

/// What an event on a new connection finds out, and what came of it.
fn doubted(verdict: impl FnOnce(&mut Sequencer, &mut Vec<Action>)) -> (Vec<u64>, Option<ResetReason>) {
    let (mut room, mut out) = (live(), Vec::new());
    room.doubt(0, &mut out);
    room.on_event(event(25, 10), 0, &mut out);
    room.on_hint(26, 0, &mut out);
    assert!(out.is_empty() && !room.is_joinable() && room.wake_at().is_none(), "{out:?}");
    verdict(&mut room, &mut out);
    (delivered(&out), room.found().and_then(Result::err))
}

#[test]
fn data_i09_in_doubt_nothing_is_delivered() {
    assert_eq!(doubted(|room, out| room.trust(EPOCH, 0, out)), (vec![25], None));
    assert_eq!(doubted(|room, out| room.trust(Epoch([2; 8]), 0, out)), (vec![], Some(ResetReason::Epoch)));
    let rolled_back = ResetReason::RolledBack;
    assert_eq!(doubted(|room, out| room.distrust(rolled_back, 0, out)), (vec![], Some(rolled_back)));
}

#[test]
fn data_i09_an_answer_from_before_the_doubt_is_not_believed() {
    let (mut room, mut out) = (live(), Vec::new());
    room.verify(0, &mut out);
    let (ticket, _) = asked(&out);
    room.doubt(0, &mut out);
    room.on_read(ticket, &answer(&[10], 20), 0, &mut out);
    assert!(room.is_doubting());
    let mut joining = Sequencer::start(0, &mut out);
    joining.on_barrier(1, 0, &mut out);
    let (ticket, _) = asked(&out);
    joining.doubt(0, &mut out);
    joining.on_read(ticket, &answer(&[10], 20), 0, &mut out);
    assert!(!joining.is_joinable());
}

#[test]
fn a_hole_is_read_before_what_follows_it() {
    let (mut room, mut out) = (live(), Vec::new());
    room.on_event(event(30, 25), 0, &mut out);
    assert_eq!(delivered(&out), [0_u64; 0]);
    let (ticket, read) = asked(&out);
    assert_eq!(read, Read::After { seq: 10, at_least: 25, limit: 128 });
    room.on_read(ticket, &answer(&[21, 25], 30), 0, &mut out);
    assert_eq!(delivered(&out), [21, 25, 30]);
}

#[test]
fn data_i08_a_stale_read_never_moves_the_room() {
    let (mut room, mut out) = (live(), Vec::new());
    room.on_event(event(30, 25), 0, &mut out);
    let (ticket, _) = asked(&out);
    room.on_read(ticket, &answer(&[21], 21), 0, &mut out);
    assert_eq!(delivered(&out), [0_u64; 0]);
    assert_eq!(room.wake_at(), Some(100));
    room.on_tick(100, &mut out);
    let (ticket, _) = asked(&out);
    room.on_read(ticket, &answer(&[21, 25], 30), 100, &mut out);
    assert_eq!(delivered(&out), [21, 25, 30]);
}

#[test]
fn an_answer_to_an_older_question_is_ignored() {
    let (mut room, mut out) = (live(), Vec::new());
    room.on_event(event(30, 25), 0, &mut out);
    let (old, _) = asked(&out);
    room.on_tick(2_000, &mut out);
    room.on_read(old, &answer(&[21, 25], 30), 2_000, &mut out);
    assert_eq!(delivered(&out), [0_u64; 0]);
}

#[test]
fn a_repeated_event_is_dropped_without_a_question() {
    let (mut room, mut out) = (live(), Vec::new());
    room.on_event(event(25, 10), 0, &mut out);
    out.clear();
    room.on_event(event(25, 10), 0, &mut out);
    room.on_event(event(10, 3), 0, &mut out);
    assert!(out.is_empty(), "{out:?}");
}

#[test]
fn data_i09_another_event_at_a_known_place_is_a_roll_back() {
    let (mut room, mut out) = (live(), Vec::new());
    room.on_event(Stored { id: id(99), ..event(9, 0) }, 0, &mut out);
    let (ticket, read) = asked(&out);
    assert_eq!(read, Read::After { seq: 9, at_least: 0, limit: 1 });
    let mut other = answer(&[10], 20);
    other.events[0].id = id(77).to_string();
    room.on_read(ticket, &other, 0, &mut out);
    assert!(!room.is_joinable());
    let Some(Action::Barrier(token)) = out.pop() else { panic!("the room joins anew") };
    room.on_barrier(token, 0, &mut out);
    let (ticket, _) = asked(&out);
    room.on_read(ticket, &other, 0, &mut out);
    let reset = out
        .iter()
        .find_map(|a| if let Action::Reset { reason, from, to } = a { Some((*reason, *from, *to)) } else { None });
    let (from, to) = (Position::of(EPOCH, 10, id(10)), Position::of(EPOCH, 10, id(77)));
    assert_eq!(reset, Some((ResetReason::RolledBack, Some(from), to)));
}

#[test]
fn a_last_sequence_below_a_known_one_is_a_roll_back() {
    let (mut room, mut out) = (live(), Vec::new());
    room.on_tail(EPOCH, 3, 5, 0, &mut out);
    let (ticket, _) = asked(&out);
    room.on_read(ticket, &answer(&[], 5), 0, &mut out);
    assert!(!room.is_joinable());
}

#[test]
fn data_i14_trimmed_events_are_told_and_the_rest_follows() {
    let (mut room, mut out) = (live(), Vec::new());
    room.on_event(event(90, 80), 0, &mut out);
    let (ticket, _) = asked(&out);
    room.on_read(ticket, &ReadResponse { trimmed: true, ..answer(&[70, 80], 90) }, 0, &mut out);
    let reset = out.iter().position(|a| matches!(a, Action::Reset { reason: ResetReason::Trimmed, .. }));
    assert!(reset.is_some());
    assert_eq!(delivered(&out), [70, 80, 90]);
}

#[test]
fn a_repair_that_finds_no_end_is_told_after_thirty_seconds() {
    for fault in [None, Some(false)] {
        let (mut room, mut out) = (live(), Vec::new());
        room.on_event(event(30, 25), 0, &mut out);
        let mut now = 0;
        while room.is_joinable() {
            let (ticket, _) = asked(&out);
            match fault {
                // A replica that never catches up, or an answer that nobody understands.
                None => room.on_read(ticket, &answer(&[21], 21), now, &mut out),
                Some(away) => room.on_read_failed(ticket, away, now),
            }
            now = room.wake_at().expect("a repair has a next step");
            room.on_tick(now, &mut out);
        }
        assert_eq!(now, 30_000);
    }
}

#[test]
fn a_repair_waits_for_a_store_that_is_away() {
    for silent in [false, true] {
        let (mut room, mut out) = (live(), Vec::new());
        room.on_event(event(30, 25), 0, &mut out);
        let mut now = 0;
        while now < 300_000 {
            let (ticket, _) = asked(&out);
            if !silent {
                room.on_read_failed(ticket, true, now);
            }
            now = room.wake_at().expect("a repair has a next step");
            room.on_tick(now, &mut out);
            assert!(room.is_joinable(), "members were reset at {now}");
        }
        // From here on the store answers: a follower first, that is behind for a while.
        let back = now;
        while now < back + 20_000 {
            let (ticket, _) = asked(&out);
            room.on_read(ticket, &answer(&[], 20), now, &mut out);
            now = room.wake_at().expect("a repair has a next step");
            room.on_tick(now, &mut out);
        }
        let (ticket, _) = asked(&out);
        room.on_read(ticket, &answer(&[21, 25], 30), now, &mut out);
        assert_eq!(delivered(&out), [21, 25, 30]);
    }
}

#[test]
fn a_hint_alone_starts_a_repair() {
    let (mut room, mut out) = (live(), Vec::new());
    room.on_hint(10, 0, &mut out);
    assert!(out.is_empty());
    room.on_hint(21, 0, &mut out);
    let (ticket, _) = asked(&out);
    room.on_read(ticket, &answer(&[21], 30), 0, &mut out);
    assert_eq!(delivered(&out), [21]);
}

#[test]
fn the_ring_answers_only_what_it_holds_without_gap() {
    let (mut room, mut out) = (live(), Vec::new());
    room.on_event(event(25, 10), 0, &mut out);
    room.on_event(event(26, 25), 0, &mut out);
    let since = |room: &Sequencer, seq| room.since(seq).map(|events| events.map(|e| e.seq).collect::<Vec<_>>());
    assert_eq!(since(&room, 10), Some(vec![25, 26]));
    assert_eq!(since(&room, 26), Some(vec![]));
    assert_eq!(since(&room, 9), None, "what came before the first one kept is not known");
    room.evict();
    assert_eq!(since(&room, 25), None);
    assert_eq!(room.bytes(), 0);
}

#[test]
fn early_events_beyond_the_bound_are_read_again() {
    let (mut room, mut out) = (live(), Vec::new());
    for seq in 0..3_000_u64 {
        room.on_event(event(100 + seq, 99 + seq), 0, &mut out);
    }
    assert!(room.bytes() <= 2 << 20);
    let mut page = 11;
    while room.position().seq < 3_099 {
        let (ticket, _) = asked(&out);
        out.clear();
        let seqs: Vec<u64> = (page..page + 128).collect();
        page += 128;
        room.on_read(ticket, &ReadResponse { complete: false, ..answer(&seqs, 5_000) }, 0, &mut out);
        page = page.max(room.position().seq + 1);
    }
}
