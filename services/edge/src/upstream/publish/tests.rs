//! The publish link without a network.

use super::*;
use plaza_proto::ids::MessageId;
use plaza_proto::position::Epoch;
use proptest::prelude::*;

fn key(slot: u32) -> ConnKey {
    ConnKey { shard: 0, slot, generation: 1 }
}

fn item() -> PublishItem {
    PublishItem::default()
}

/// A link with one stream, and the stream's other end.
fn linked() -> (Link, mpsc::Receiver<Shared>) {
    let mut link = Link::default();
    let (batches, sent) = mpsc::channel(16);
    link.up(1, batches, 0);
    (link, sent)
}

fn sent(stream: &mut mpsc::Receiver<Shared>) -> Vec<u64> {
    let mut tags = Vec::new();
    while let Ok(batch) = stream.try_recv() {
        assert!(batch.items.len() <= 64);
        tags.extend(batch.items.iter().map(|item| item.tag));
    }
    tags
}

fn ok(tag: u64) -> ItemResult {
    let id = MessageId([1; 16]);
    let stored = Stored { position: Position::of(Epoch([1; 8]), 1, id), id, duplicate: false };
    ItemResult { tag, outcome: Outcome::Stored(stored) }
}

fn unknown(tag: u64, code: Code) -> ItemResult {
    ItemResult { tag, outcome: Outcome::Unknown(code) }
}

fn ids(done: &[Resolved]) -> Vec<u32> {
    done.iter().filter_map(|r| if let Origin::Conn { id, .. } = r.origin { Some(id) } else { None }).collect()
}

#[test]
fn one_round_is_one_batch() {
    let (mut link, mut stream) = linked();
    for slot in 0..5 {
        link.submit(item(), key(slot), 1, RoomId(1), 0).expect("there is room");
    }
    assert_eq!(sent(&mut stream), [0_u64; 0]);
    link.flush(0);
    assert_eq!(stream.try_recv().expect("a batch").items.len(), 5);
    assert!(stream.try_recv().is_err());
}

#[test]
fn a_sender_has_one_event_of_a_room_on_its_way() {
    let (mut link, mut stream) = linked();
    for id in 1..=33 {
        link.submit(item(), key(1), id, RoomId(1), 0).expect("32 may wait");
    }
    assert_eq!(link.submit(item(), key(1), 34, RoomId(1), 0), Err(Code::Busy));
    let mut done = Vec::new();
    for id in 1..=33 {
        link.flush(0);
        let tags = sent(&mut stream);
        assert_eq!(tags.len(), 1, "one at a time");
        link.results(vec![ok(tags[0])], 0, &mut done);
        assert_eq!(ids(&done).last(), Some(&id));
    }
    assert_eq!(link.unresolved(), 0);
}

#[test]
fn sec8_beyond_the_bound_the_edge_says_busy() {
    let (mut link, _stream) = linked();
    for slot in 0..512 {
        link.submit(item(), key(slot), 1, RoomId(1), 0).expect("256 fly, 256 wait");
    }
    assert_eq!(link.submit(item(), key(600), 1, RoomId(1), 0), Err(Code::Busy));
}

#[test]
fn what_a_broken_stream_carried_goes_to_another_in_order() {
    let (mut link, mut first) = linked();
    let (batches, mut second) = mpsc::channel(16);
    for slot in 0..3 {
        link.submit(item(), key(slot), 1, RoomId(1), 0).expect("there is room");
    }
    link.flush(0);
    let tags = sent(&mut first);
    link.up(2, batches, 5);
    link.down(1, 10);
    link.flush(10);
    assert_eq!(sent(&mut second), tags, "the same events under the same tags");
    let mut done = Vec::new();
    link.results(tags.iter().map(|tag| ok(*tag)).collect(), 20, &mut done);
    link.results(tags.iter().map(|tag| ok(*tag)).collect(), 20, &mut done);
    assert_eq!(done.len(), 3, "a second result of the same tag is nobody's");
}

#[test]
fn i03_an_unknown_outcome_is_sent_again_until_the_budget_ends() {
    let (mut link, mut stream) = linked();
    link.submit(item(), key(1), 7, RoomId(1), 0).expect("there is room");
    let (mut done, mut sends) = (Vec::new(), 0);
    for now in (0..16_000).step_by(25) {
        link.tick(now, &mut done);
        link.flush(now);
        for tag in sent(&mut stream) {
            sends += 1;
            link.results(vec![unknown(tag, Code::Timeout)], now, &mut done);
        }
        if !done.is_empty() {
            assert_eq!(now, 15_000);
            break;
        }
    }
    assert!(matches!(&done[..], [Resolved { result: Err((Code::Timeout, _)), .. }]));
    assert!((100..=200).contains(&sends), "{sends} sends");
    assert_eq!(link.unresolved(), 0);
}

#[test]
fn a_refusal_and_an_expired_retry_are_final() {
    let (mut link, mut stream) = linked();
    let mut done = Vec::new();
    link.submit(item(), key(1), 1, RoomId(1), 0).expect("there is room");
    link.submit(item(), key(2), 2, RoomId(1), 0).expect("there is room");
    link.flush(0);
    let tags = sent(&mut stream);
    let rejected = Outcome::Rejected { code: Code::TooLarge, message: "too long".into() };
    let first = ItemResult { tag: tags[0], outcome: rejected };
    link.results(vec![first, unknown(tags[1], Code::Expired)], 0, &mut done);
    let codes: Vec<_> = done.iter().map(|r| r.result.as_ref().map_err(|(code, _)| *code).err()).collect();
    assert_eq!(codes, [Some(Code::TooLarge), Some(Code::Expired)]);
}

#[test]
fn without_a_stream_events_wait_and_volatile_ones_are_dropped() {
    let mut link = Link::default();
    link.offer(item(), 0);
    assert_eq!(link.unresolved(), 0);
    link.submit(item(), key(1), 1, RoomId(1), 0).expect("there is room");
    let (batches, mut stream) = mpsc::channel(16);
    link.up(1, batches, 100);
    link.flush(100);
    assert_eq!(sent(&mut stream).len(), 1);
}

proptest! {
    /// Whatever happens to streams and results, each submit has exactly one end, and a lane keeps its order.
    #[test]
    fn every_submit_has_exactly_one_end(steps in proptest::collection::vec((0..6_u8, 0..4_u32), 1..300)) {
        let mut link = Link::default();
        let mut streams: Vec<(u64, mpsc::Receiver<Shared>)> = Vec::new();
        let (mut open, mut next_stream, mut next_id, mut now) = (Vec::new(), 1, 1, 0);
        let mut done: Vec<Resolved> = Vec::new();
        let mut accepted = 0;
        for (what, pick) in steps {
            now += 10;
            match what {
                0 | 1 => {
                    if link.submit(item(), key(pick), next_id, RoomId(1), now).is_ok() {
                        accepted += 1;
                    }
                    next_id += 1;
                }
                2 if streams.len() < 3 => {
                    let (batches, sent) = mpsc::channel(2);
                    link.up(next_stream, batches, now);
                    streams.push((next_stream, sent));
                    next_stream += 1;
                }
                3 if !streams.is_empty() => {
                    let (id, _) = streams.remove(pick as usize % streams.len());
                    link.down(id, now);
                }
                4 => link.tick(now, &mut done),
                _ => {
                    for (_, stream) in &mut streams {
                        open.extend(sent(stream));
                    }
                    if let Some(tag) = open.pop() {
                        let result = if pick == 0 { unknown(tag, Code::Timeout) } else { ok(tag) };
                        link.results(vec![result], now, &mut done);
                    }
                }
            }
            link.flush(now);
        }
        for _ in 0..40 {
            now += 15_000;
            link.tick(now, &mut done);
        }
        prop_assert_eq!(done.len(), accepted);
        prop_assert_eq!(link.unresolved(), 0);
        for slot in 0..4 {
            let of_lane: Vec<u32> = done.iter().filter_map(|r| match r.origin {
                Origin::Conn { to, id, .. } if to == key(slot) => Some(id),
                _ => None,
            }).collect();
            prop_assert!(of_lane.is_sorted(), "{of_lane:?}");
        }
    }
}
