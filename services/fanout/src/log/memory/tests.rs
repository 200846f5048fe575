use super::*;
use crate::log::Start;
use proptest::prelude::*;

fn room(name: &str) -> RoomName {
    RoomName::parse(name).expect("a valid name")
}

fn publish(room_name: &str, n: u8) -> Publish {
    Publish { room: room(room_name), id: MessageId([n; 16]), body: vec![n; 10].into(), retry: false, traceparent: None }
}

fn seq(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Stored { position, .. } => position.seq,
        other => panic!("not stored: {other:?}"),
    }
}

fn drain(feed: &mut mpsc::Receiver<FeedMessage>) -> Vec<String> {
    let mut seen = Vec::new();
    while let Ok(message) = feed.try_recv() {
        seen.push(match message {
            FeedMessage::Event { seq, previous, .. } => format!("event {seq} after {previous}"),
            FeedMessage::Hint { seq, .. } => format!("hint {seq}"),
            FeedMessage::Resync(room) => format!("resync {room:?}"),
            FeedMessage::Beat { seq, previous, .. } => format!("beat {seq} after {previous}"),
            FeedMessage::Volatile { .. } => "volatile".into(),
            FeedMessage::Command(_) => "command".into(),
        });
    }
    seen
}

#[test]
fn a_full_feed_drops_and_tells_which_room_lost() {
    let (log, mut feed) = MemoryLog::new(&MemoryOptions { feed_capacity: 2, ..MemoryOptions::default() });
    for n in 1..=3 {
        log.publish_now(publish("a", n));
    }
    assert_eq!(drain(&mut feed), ["event 1 after 0", "event 2 after 1"]);
    log.beat();
    assert_eq!(drain(&mut feed), ["resync Some(\"a\")", "beat 4 after 0"]);
}

#[test]
fn a_duplicate_is_answered_with_the_first_position_and_a_hint() {
    let (log, mut feed) = MemoryLog::new(&MemoryOptions::default());
    let first = log.publish_now(publish("a", 1));
    let second = log.publish_now(publish("a", 1));
    assert_eq!(seq(&first), seq(&second));
    assert!(matches!(second, Outcome::Stored { duplicate: true, .. }));
    assert_eq!(drain(&mut feed), ["event 1 after 0", "hint 1"]);
}

#[test]
fn a_late_retry_is_found_or_refused() {
    let options = MemoryOptions { dedupe_ids: 1, history_per_room: 2, ..MemoryOptions::default() };
    let (log, _feed) = MemoryLog::new(&options);
    let retry = |n| log.publish_now(Publish { retry: true, ..publish("a", n) });
    for n in 1..=2 {
        log.publish_now(publish("a", n));
    }
    assert!(matches!(retry(1), Outcome::Stored { duplicate: true, .. }), "forgotten, but still in the history");
    assert!(matches!(retry(9), Outcome::Stored { duplicate: false, .. }), "nothing was trimmed: it never came");
    assert_eq!(retry(1), Outcome::Unknown(Code::Expired), "it may have been trimmed");
}

#[test]
fn faults_lose_repeat_and_reorder_the_feed_alone() {
    let (log, mut feed) = MemoryLog::new(&MemoryOptions::default());
    let go = |faults, ids: std::ops::RangeInclusive<u8>| {
        log.set_faults(faults);
        ids.for_each(|n| drop(log.publish_now(publish("a", n))));
    };
    go(Faults { drop_one_in: 1, ..Faults::default() }, 1..=2);
    assert!(drain(&mut feed).is_empty());
    go(Faults { repeat_one_in: 1, ..Faults::default() }, 3..=3);
    assert_eq!(drain(&mut feed), ["event 3 after 2", "event 3 after 2"]);
    go(Faults { reorder_one_in: 1, ..Faults::default() }, 4..=5);
    assert_eq!(drain(&mut feed), ["event 5 after 4", "event 4 after 3"]);
    assert_eq!(log.state().store.tail(&room("a")), 5);
}

/// What a room should hold, kept the plain way.
#[derive(Default)]
struct Model {
    events: Vec<(u64, String)>,
}

proptest! {
    #[test]
    fn reads_agree_with_a_plain_model(
        rooms in proptest::collection::vec(0_u8..3, 1..40),
        from in 0_u64..45,
        limit in 1_u32..6,
        max_bytes in 1_u32..60,
        per_room in 1_usize..8,
    ) {
        let (log, _feed) = MemoryLog::new(&MemoryOptions { history_per_room: per_room, ..MemoryOptions::default() });
        let mut model = Model::default();
        for (n, which) in rooms.iter().enumerate() {
            let name = format!("r{which}");
            let stored = log.publish_now(publish(&name, u8::try_from(n).expect("below 40")));
            model.events.push((seq(&stored), name));
        }
        let all: Vec<u64> = model.events.iter().filter(|(_, name)| name == "r0").map(|(seq, _)| *seq).collect();
        let kept = &all[all.len().saturating_sub(per_room)..];
        let take = usize::try_from(limit.min((max_bytes / 10).max(1))).expect("small");
        let read = |from| {
            let (events, complete, trimmed) =
                log.state().store.read(&Read { room: room("r0"), from, at_least_seq: 0, limit, max_bytes });
            (events, complete, trimmed)
        };

        let (events, complete, trimmed) = read(Start::After(from));
        let after: Vec<u64> = kept.iter().copied().filter(|seq| *seq > from).collect();
        prop_assert_eq!(events.iter().map(|e| e.seq).collect::<Vec<_>>(), &after[..take.min(after.len())]);
        prop_assert_eq!(complete, after.len() <= take);
        let lost = all.iter().any(|seq| from > 0 && *seq > from && !kept.contains(seq));
        prop_assert_eq!(trimmed, lost);
        for pair in events.windows(2) {
            prop_assert_eq!(pair[1].previous, pair[0].seq);
        }

        let (events, complete, _) = read(Start::Before(from));
        let before: Vec<u64> = kept.iter().copied().filter(|seq| *seq < from).collect();
        prop_assert_eq!(events.iter().map(|e| e.seq).collect::<Vec<_>>(), &before[before.len() - take.min(before.len())..]);
        prop_assert_eq!(complete, before.len() <= take);
    }

    #[test]
    fn bytes_stay_below_the_bound(sizes in proptest::collection::vec(1_usize..100, 1..60)) {
        let (log, _feed) = MemoryLog::new(&MemoryOptions { max_bytes: 150, ..MemoryOptions::default() });
        for (n, size) in sizes.iter().enumerate() {
            let n = u8::try_from(n).expect("below 60");
            let body = vec![0; *size].into();
            log.publish_now(Publish { body, ..publish(&format!("r{}", n % 5), n) });
            let state = log.state();
            let answers: usize = (0..5).map(|r| {
                let read = Read { room: room(&format!("r{r}")), from: Start::After(0), at_least_seq: 0, limit: 1_000, max_bytes: 48_000 };
                state.store.read(&read).0.iter().map(|e| e.body.len()).sum::<usize>()
            }).sum();
            prop_assert!(answers <= 150);
        }
    }
}
