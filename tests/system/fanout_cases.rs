//! What every room log must do: the same cases for the one in memory and the one in JetStream. Each
//! case has rooms of its own, so that all run against one log.

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, join_all};
use plaza_fanout::log::{Answer, Emit, EventLog, MAX_READ_BYTES, Outcome, Publish, Read, ReadAnswer, Start};
use plaza_proto::code::Code;
use plaza_proto::ids::{MessageId, RoomName};
use plaza_proto::position::Position;

/// The log under test keeps so many events of a room.
pub(crate) const HISTORY_PER_ROOM: u64 = 20;

type Case = for<'a> fn(&'a dyn EventLog) -> BoxFuture<'a, ()>;

/// Every case by its name.
pub(crate) const CASES: &[(&str, Case)] = &[
    ("a room is read in the order of its sequences, each event with the one before", |log| Box::pin(order(log))),
    ("one id sent many times is stored once, at one position", |log| Box::pin(dedupe(log))),
    ("a read keeps its limits and says whether the end was reached", |log| Box::pin(bounds(log))),
    ("a read from a removed event says that something may be missing", |log| Box::pin(trimmed(log))),
    ("a read from another room's sequence misses nothing", |log| Box::pin(foreign(log))),
    ("tails come in the order asked, 0 for a room without events", |log| Box::pin(tails(log))),
    ("history is read backward page by page to its begin", |log| Box::pin(backward(log))),
    ("history has no hole where more came and went than is kept", |log| Box::pin(backward_again(log))),
    ("an answer without events names a sequence at which the room was empty", |log| Box::pin(begins(log))),
    ("a volatile event is not stored", |log| Box::pin(volatile(log))),
    ("an oversize event is rejected", |log| Box::pin(oversize(log))),
    ("a marked retry finds its first attempt, or is stored", |log| Box::pin(retry(log))),
    ("positions carry the epoch, the sequence and the id", |log| Box::pin(positions(log))),
    ("what is not there is not there, also at the leader", |log| Box::pin(not_there(log))),
    ("a waiting reader is woken by a new event", |log| Box::pin(wakes(log))),
];

/// Runs every case; the name of the one that fails stands last in the output.
pub(crate) async fn run_all(log: &dyn EventLog) {
    for (name, case) in CASES {
        eprintln!("case: {name}");
        case(log).await;
    }
}

/// A room's name from a literal.
pub(crate) fn room(name: &str) -> RoomName {
    RoomName::parse(name).expect("a valid name")
}

/// An event with a random id.
pub(crate) fn event(room_name: &str, body: impl Into<Bytes>) -> Publish {
    let id = MessageId(fastrand::u128(..).to_be_bytes());
    Publish { room: room(room_name), id, body: body.into(), retry: false, traceparent: None }
}

/// Publishes, and expects it to be stored.
pub(crate) async fn stored(log: &dyn EventLog, publish: Publish) -> (Position, bool) {
    match log.publish(publish).get().await {
        Outcome::Stored { position, duplicate } => (position, duplicate),
        other => panic!("not stored: {other:?}"),
    }
}

/// Publishes `count` events and returns their sequences.
pub(crate) async fn fill(log: &dyn EventLog, name: &str, count: u64) -> Vec<u64> {
    let mut seqs = Vec::new();
    for n in 0..count {
        seqs.push(stored(log, event(name, format!("{name} {n}"))).await.0.seq);
    }
    seqs
}

/// Reads with the largest limits.
pub(crate) async fn read(log: &dyn EventLog, name: &str, from: Start) -> ReadAnswer {
    read_some(log, name, from, 1_000, MAX_READ_BYTES).await
}

async fn read_some(log: &dyn EventLog, name: &str, from: Start, limit: u32, max_bytes: u32) -> ReadAnswer {
    let read = Read { room: room(name), from, at_least_seq: 0, limit, max_bytes };
    log.read(read).await.expect("the store answers")
}

/// The sequences of an answer.
pub(crate) fn seqs(answer: &ReadAnswer) -> Vec<u64> {
    answer.events.iter().map(|event| event.seq).collect()
}

async fn order(log: &dyn EventLog) {
    let mut expected = Vec::new();
    for n in 0..5 {
        expected.push(fill(log, "order", 1).await[0]);
        fill(log, &format!("order-{n}"), 2).await;
    }
    let answer = read(log, "order", Start::After(0)).await;
    assert_eq!(seqs(&answer), expected);
    assert!(expected.is_sorted());
    let previous: Vec<u64> = answer.events.iter().map(|event| event.previous).collect();
    assert_eq!(previous, [&[0], &expected[..4]].concat());
    assert!(answer.events.iter().all(|event| event.time > 1_700_000_000_000 && event.body.starts_with(b"order 0")));
    assert!(answer.last_seq >= expected[4]);

    let later = read(log, "order", Start::After(expected[1])).await;
    assert_eq!(seqs(&later), expected[2..]);
    assert_eq!(later.events[0].previous, expected[1]);
}

async fn dedupe(log: &dyn EventLog) {
    let id = MessageId::derive(&room("dedupe"), "user", "client-1");
    let send = || stored(log, Publish { id, ..event("dedupe", "once") });
    let all = join_all((0..20).map(|_| send())).await;
    assert_eq!(all.iter().filter(|(_, duplicate)| !duplicate).count(), 1);
    assert!(all.iter().all(|(position, _)| *position == all[0].0));
    assert_eq!(seqs(&read(log, "dedupe", Start::After(0)).await), [all[0].0.seq]);
}

async fn bounds(log: &dyn EventLog) {
    let all = fill(log, "bounds", 6).await;
    let some = read_some(log, "bounds", Start::After(all[0]), 3, MAX_READ_BYTES).await;
    assert_eq!((seqs(&some), some.complete), (all[1..4].to_vec(), false));
    let rest = read_some(log, "bounds", Start::After(all[3]), 3, MAX_READ_BYTES).await;
    assert_eq!((seqs(&rest), rest.complete), (all[4..].to_vec(), true));
    let exact = read_some(log, "bounds", Start::After(0), 6, MAX_READ_BYTES).await;
    assert_eq!((seqs(&exact), exact.complete), (all.clone(), true));
    let bytes = read_some(log, "bounds", Start::After(0), 100, 16).await;
    assert_eq!((seqs(&bytes), bytes.complete), (all[..2].to_vec(), false), "two bodies of 8 bytes");
    let tiny = read_some(log, "bounds", Start::After(0), 100, 1).await;
    assert_eq!(seqs(&tiny), all[..1], "one event always comes");
    let end = read(log, "bounds", Start::After(all[5])).await;
    assert_eq!((seqs(&end), end.complete, end.trimmed), (vec![], true, false));
    assert!(end.last_seq >= all[5]);
}

async fn trimmed(log: &dyn EventLog) {
    let all = fill(log, "trimmed", HISTORY_PER_ROOM + 5).await;
    let kept = &all[5..];
    let lost = read(log, "trimmed", Start::After(all[0])).await;
    assert_eq!((seqs(&lost), lost.trimmed), (kept.to_vec(), true));
    assert_eq!(lost.events[0].previous, 0, "what stood before the oldest is gone");
    let whole = read(log, "trimmed", Start::After(all[5])).await;
    assert_eq!((seqs(&whole), whole.trimmed), (kept[1..].to_vec(), false));
    let oldest = read(log, "trimmed", Start::After(0)).await;
    assert_eq!((seqs(&oldest), oldest.trimmed), (kept.to_vec(), false), "from the oldest kept is no claim");
}

async fn foreign(log: &dyn EventLog) {
    let before = fill(log, "foreign-other", 1).await[0];
    let all = fill(log, "foreign", 2).await;
    let answer = read(log, "foreign", Start::After(before)).await;
    assert_eq!((seqs(&answer), answer.trimmed, answer.complete), (all, false, true));
    let empty = read(log, "foreign-empty", Start::After(before)).await;
    assert_eq!((seqs(&empty), empty.trimmed, empty.complete), (vec![], false, true));
    assert!(empty.last_seq > before);
}

async fn tails(log: &dyn EventLog) {
    let a = fill(log, "tails-a", 3).await;
    let b = fill(log, "tails-b", 1).await;
    let rooms = ["tails-b", "tails-none", "tails-a"].map(room);
    let answer = log.tails(&rooms).await.expect("the store answers");
    assert_eq!(answer.tails, [b[0], 0, a[2]]);
    assert!(answer.last_seq >= b[0]);
    let none = log.tails(&[room("tails-none")]).await.expect("the store answers");
    assert_eq!(none.tails, [0]);
}

async fn backward(log: &dyn EventLog) {
    let all = fill(log, "backward", 7).await;
    let mut pages = Vec::new();
    let mut before = u64::MAX;
    loop {
        let page = read_some(log, "backward", Start::Before(before), 3, MAX_READ_BYTES).await;
        pages.push(seqs(&page));
        before = page.events[0].seq;
        if page.complete {
            break;
        }
    }
    assert_eq!(pages, [&all[4..], &all[1..4], &all[..1]]);
    let page = read_some(log, "backward", Start::Before(all[3]), 2, MAX_READ_BYTES).await;
    assert_eq!((page.events[0].previous, page.events[1].previous), (all[0], all[1]));
    let bytes = read_some(log, "backward", Start::Before(u64::MAX), 100, 20).await;
    assert_eq!((seqs(&bytes), bytes.complete), (all[5..].to_vec(), false), "two bodies of 10 bytes");
    let none = read(log, "backward-none", Start::Before(u64::MAX)).await;
    assert_eq!((seqs(&none), none.complete), (vec![], true));
}

async fn backward_again(log: &dyn EventLog) {
    let newest = |limit| read_some(log, "again", Start::Before(u64::MAX), limit, MAX_READ_BYTES);
    let mut all = fill(log, "again", 5).await;
    assert_eq!(seqs(&newest(3).await), all[2..]);
    // A few more follow what was read before; each has the one before it.
    all.extend(fill(log, "again", 3).await);
    let page = newest(100).await;
    assert_eq!((seqs(&page), page.complete), (all.clone(), true));
    let links: Vec<u64> = page.events.iter().map(|event| event.previous).collect();
    assert_eq!(links[1..], all[..7]);
    assert_eq!(seqs(&newest(1).await), all[7..]);
    let before = read_some(log, "again", Start::Before(all[4]), 2, MAX_READ_BYTES).await;
    assert_eq!(seqs(&before), all[2..4]);
    // So many that some between were removed before anybody read them.
    let more = fill(log, "again", HISTORY_PER_ROOM + 2).await;
    let page = newest(100).await;
    assert_eq!((seqs(&page), page.complete), (more[2..].to_vec(), true));
}

async fn begins(log: &dyn EventLog) {
    let newest = async |name: &str| {
        let mut empty = 0;
        loop {
            let answer = read_some(log, name, Start::Before(u64::MAX), 1, MAX_READ_BYTES).await;
            match answer.events.last() {
                Some(event) => return (empty, event.seq),
                None => empty = answer.last_seq,
            }
            tokio::task::yield_now().await;
        }
    };
    for n in 0..300 {
        let name = format!("begins-{n}");
        let ((empty, first), _) = tokio::join!(newest(&name), fill(log, &name, 1));
        assert!(empty < first, "the room's first event stands at {first}, and it was called empty at {empty}");
    }
}

async fn volatile(log: &dyn EventLog) {
    let emit = Emit::Volatile { room: room("volatile"), body: "typing".into(), traceparent: None };
    log.emit(emit).get().await.expect("passed on");
    fill(log, "volatile", 1).await;
    assert_eq!(read(log, "volatile", Start::After(0)).await.events.len(), 1);
}

async fn oversize(log: &dyn EventLog) {
    let outcome = match log.publish(event("oversize", vec![b'x'; 15 * 1024 + 1])) {
        Answer::Now(outcome) => outcome,
        Answer::Later(_) => panic!("the size is checked before anything is sent"),
    };
    assert!(matches!(outcome, Outcome::Rejected { code: Code::TooLarge, .. }), "{outcome:?}");
    stored(log, event("oversize", vec![b'x'; 15 * 1024])).await;
}

async fn retry(log: &dyn EventLog) {
    let first = event("retry", "first");
    let marked = |publish: &Publish| Publish { retry: true, ..publish.clone() };
    let (position, duplicate) = stored(log, marked(&first)).await;
    assert!(!duplicate, "it had never been stored");
    assert_eq!(stored(log, marked(&first)).await, (position, true));
    fill(log, "retry", HISTORY_PER_ROOM + 1).await;
    assert_eq!(stored(log, marked(&first)).await, (position, true), "removed, but still within the window");
    let outcome = log.publish(marked(&event("retry", "too late"))).get().await;
    assert_eq!(outcome, Outcome::Unknown(Code::Expired), "the room does not reach back far enough to tell");
}

async fn positions(log: &dyn EventLog) {
    let publish = event("positions", "x");
    let (position, _) = stored(log, publish.clone()).await;
    let answer = read(log, "positions", Start::After(0)).await;
    let info = log.info().await.expect("the store answers");
    assert_eq!(answer.epoch, info.epoch);
    assert_eq!(position, Position::of(info.epoch, answer.events[0].seq, publish.id));
    assert_eq!(answer.events[0].id, publish.id);
    assert!(info.first_seq <= position.seq && position.seq <= info.last_seq);
}

async fn not_there(log: &dyn EventLog) {
    let all = fill(log, "not-there", 2).await;
    let beyond = log.info().await.expect("the store answers").last_seq + 1_000;
    let read = |after| Read {
        room: room("not-there"),
        from: Start::After(after),
        at_least_seq: beyond,
        limit: 10,
        max_bytes: MAX_READ_BYTES,
    };
    let answer = log.read(read(all[0])).await.expect("the leader answers");
    assert_eq!((seqs(&answer), answer.complete), (vec![all[1]], true));
    assert!(answer.last_seq < beyond);
    let answer = log.read(read(beyond)).await.expect("the leader answers");
    assert!(answer.events.is_empty() && answer.last_seq < beyond, "beyond the end: rolled back, says last_seq");
}

async fn wakes(log: &dyn EventLog) {
    let mut wakes = log.wakes(&room("wakes")).await.expect("subscribed");
    // A subscription and a publish on two connections race: what a wake may miss, the next one brings.
    let mut woken = wakes.next();
    for _ in 0..100 {
        fill(log, "wakes", 1).await;
        if let Some(Some(())) = futures_util::FutureExt::now_or_never(&mut woken) {
            return;
        }
    }
    assert_eq!(woken.await, Some(()));
}
