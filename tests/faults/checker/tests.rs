//! The checker is checked: a good history passes, and each way to spoil one makes its rule fire.

use super::*;
use crate::history::mid;
use proptest::prelude::*;

const CLIENTS: u32 = 4;
const ROOM: u32 = 1;

fn at(seq: u64) -> At {
    At { epoch: 7, seq }
}

fn lines(events: Vec<Event>) -> Vec<Line> {
    events.into_iter().enumerate().map(|(n, event)| Line { ns: n as u64 * 1_000, wall: 0, event }).collect()
}

fn check(events: Vec<Event>) -> Verdict {
    let rules = Rules {
        min_acknowledged: 1,
        min_received: 1,
        min_faults: 1,
        min_recovered: 1,
        min_by_pid: 0,
        resets_allowed: false,
    };
    let mut checker = Checker::new(rules);
    lines(events).iter().for_each(|line| checker.take(line));
    checker.finish()
}

/// Clients take turns to send; everybody gets everything; one reconnects in the middle and resumes.
fn good(senders: &[u32]) -> Vec<Event> {
    let mut events = Vec::new();
    for client in 0..CLIENTS {
        events.push(Event::Conn { client, edge: 0, recovered: false });
        events.push(Event::Join { client, room: ROOM, after: None, at: at(10), recovered: false, all: true });
    }
    let away = 0;
    let (leaves, returns) = (senders.len() / 3, senders.len() * 2 / 3);
    let mut missed: Vec<Event> = Vec::new();
    let mut last = 10;
    for (n, sender) in senders.iter().enumerate() {
        let (seq, id, hash) = (12 + 2 * n as u64, 100 + n as u64, 1_000 + n as u64);
        let mid = mid(*sender, n as u32);
        if n == leaves {
            events.push(Event::Fault { what: "kill".into() });
            events.push(Event::Close { client: away, why: "gone".into() });
        }
        if n == returns {
            let resume = Event::Join {
                client: away,
                room: ROOM,
                after: Some(at(12 + 2 * leaves as u64 - 2)),
                at: at(last),
                recovered: true,
                all: true,
            };
            events.push(Event::Heal { what: "kill".into() });
            events.push(resume);
            events.append(&mut missed);
            events.push(Event::CaughtUp { what: "kill".into() });
        }
        events.push(Event::SendInvoke { client: *sender, room: ROOM, mid, hash, retry: false });
        for client in 0..CLIENTS {
            let previous = Some(at(last));
            let event = Event::Recv { client, room: ROOM, at: at(seq), previous, id, mid: Some(mid), hash };
            if client == away && (leaves..returns).contains(&n) { missed.push(event) } else { events.push(event) }
        }
        events.push(Event::SendOk { client: *sender, room: ROOM, mid, at: at(seq), id, duplicate: false });
        last = seq;
    }
    events
}

fn senders() -> impl Strategy<Value = Vec<u32>> {
    proptest::collection::vec(1..CLIENTS, 12..60)
}

fn received(events: &[Event]) -> Vec<usize> {
    (0..events.len()).filter(|n| matches!(events[*n], Event::Recv { .. })).collect()
}

fn fires(verdict: &Verdict, rules: &[&str]) -> bool {
    rules.iter().any(|rule| verdict.broken.keys().any(|broken| broken.starts_with(rule)))
}

proptest! {
    #[test]
    fn a_good_history_passes(senders in senders()) {
        let verdict = check(good(&senders));
        prop_assert!(verdict.is_pass(), "{verdict:?}");
        prop_assert_eq!(verdict.counts.acknowledged, senders.len() as u64);
        prop_assert_eq!(verdict.counts.recovered, 1);
    }

    #[test]
    fn h1_a_dropped_message_is_lost(senders in senders(), pick: prop::sample::Index) {
        let mut events = good(&senders);
        let all = received(&events);
        events.remove(all[pick.index(all.len())]);
        let verdict = check(events);
        prop_assert!(fires(&verdict, &["H1"]), "{verdict:?}");
    }

    #[test]
    fn what_is_missing_at_the_end_of_a_cut_run_is_no_loss_and_no_pass(senders in senders(), lacks in 1_usize..5) {
        let mut events = good(&senders);
        let all: Vec<usize> = received(&events).into_iter()
            .filter(|n| matches!(events[*n], Event::Recv { client: 0, .. })).collect();
        all.iter().rev().take(lacks).for_each(|n| { events.remove(*n); });
        prop_assert!(fires(&check(events.clone()), &["H1"]));
        events.push(Event::Cut { why: "no time".into() });
        let verdict = check(events.clone());
        prop_assert!(verdict.broken.is_empty() && !verdict.is_pass(), "{verdict:?}");
        let told = format!("1 memberships had not caught up, and the {lacks} events");
        prop_assert!(verdict.vacuous.iter().any(|why| why.contains(&told)), "{verdict:?}");
        // They were there, and it did not come within a minute.
        let mut checker = Checker::new(Rules::default());
        let mut late = lines(events.clone());
        late.last_mut().expect("the cut").ns += LATE;
        late.iter().for_each(|line| checker.take(line));
        prop_assert!(fires(&checker.finish(), &["H1"]));
        // What is missing in the middle was skipped: that is a loss all the same.
        let first = received(&events)[0];
        events.remove(first);
        prop_assert!(fires(&check(events), &["H1"]));
    }

    #[test]
    fn h5_a_repeated_event_is_seen_twice(senders in senders(), pick: prop::sample::Index) {
        let mut events = good(&senders);
        let all = received(&events);
        let n = all[pick.index(all.len())];
        events.insert(n + 1, events[n].clone());
        prop_assert!(fires(&check(events), &["H5"]));
    }

    #[test]
    fn h7_swapped_events_of_one_client_step_back(senders in senders(), pick: prop::sample::Index) {
        let mut events = good(&senders);
        let all: Vec<usize> = received(&events).into_iter()
            .filter(|n| matches!(events[*n], Event::Recv { client: 2, .. })).collect();
        let n = pick.index(all.len() - 1);
        events.swap(all[n], all[n + 1]);
        // A message that arrives before it was sent is unexpected, too.
        prop_assert!(fires(&check(events), &["H7"]));
    }

    #[test]
    fn h2_a_forged_message_is_unexpected(senders in senders(), pick: prop::sample::Index) {
        let mut events = good(&senders);
        let all = received(&events);
        if let Event::Recv { mid, .. } = &mut events[all[pick.index(all.len())]] {
            *mid = Some(super::Mid::MAX);
        }
        prop_assert!(fires(&check(events), &["H2"]));
    }

    #[test]
    fn h4_changed_content_is_corrupt(senders in senders(), pick: prop::sample::Index) {
        let mut events = good(&senders);
        let all = received(&events);
        if let Event::Recv { hash, .. } = &mut events[all[pick.index(all.len())]] {
            *hash += 1;
        }
        prop_assert!(fires(&check(events), &["H4"]));
    }

    #[test]
    fn h6_a_renumbered_event_takes_the_place_of_another(senders in senders(), pick: prop::sample::Index) {
        let mut events = good(&senders);
        let all: Vec<usize> = received(&events).into_iter()
            .filter(|n| matches!(events[*n], Event::Recv { client: 3, .. })).collect();
        let n = all[pick.index(all.len() - 1)];
        if let Event::Recv { at, .. } = &mut events[n] {
            at.seq += 2;
        }
        prop_assert!(fires(&check(events), &["H6"]));
    }

    #[test]
    fn h1_an_ok_of_something_that_is_not_stored_is_a_loss(senders in senders()) {
        let mut events = good(&senders);
        let mid = mid(1, 5_000);
        events.push(Event::SendInvoke { client: 1, room: ROOM, mid, hash: 1, retry: false });
        events.push(Event::SendOk { client: 1, room: ROOM, mid, at: at(5_000), id: 5, duplicate: false });
        prop_assert!(fires(&check(events), &["H1"]));
    }

    #[test]
    fn h10_recovered_without_the_range_is_false(senders in senders()) {
        let mut events = good(&senders);
        let join = events.iter().position(|event| matches!(event, Event::Join { recovered: true, .. })).expect("one resumes");
        events.remove(join + 1);
        let verdict = check(events);
        prop_assert!(fires(&verdict, &["H10 false"]), "{verdict:?}");
    }

    #[test]
    fn h10_neither_recovered_nor_reset_is_a_fault(senders in senders()) {
        let mut events = good(&senders);
        for event in &mut events {
            if let Event::Join { recovered, .. } = event {
                *recovered = false;
            }
        }
        prop_assert!(fires(&check(events), &["H10 no recovery"]));
    }

    #[test]
    fn h8_h9_a_message_stored_before_an_earlier_one_is_out_of_order(senders in senders()) {
        let mut events = good(&senders);
        let sender = *senders.last().expect("there are some");
        let late = mid(sender, 9_000);
        events.push(Event::SendInvoke { client: sender, room: ROOM, mid: late, hash: 1, retry: false });
        events.push(Event::SendOk { client: sender, room: ROOM, mid: late, at: at(11), id: 5, duplicate: false });
        let verdict = check(events);
        prop_assert!(fires(&verdict, &["H8"]) && fires(&verdict, &["H9"]), "{verdict:?}");
    }

    #[test]
    fn h3_what_was_refused_must_not_arrive(senders in senders(), pick: prop::sample::Index) {
        let mut events = good(&senders);
        let all = received(&events);
        let Event::Recv { mid: Some(mid), .. } = events[all[pick.index(all.len())]] else { unreachable!() };
        events.push(Event::SendFail { client: 1, mid, code: "busy".into() });
        prop_assert!(fires(&check(events), &["H3"]));
    }

    #[test]
    fn h5_a_retry_that_is_stored_again_is_found(senders in senders()) {
        let mut events = good(&senders);
        let Some(Event::SendOk { client, mid, .. }) = events.last().cloned() else { unreachable!() };
        events.push(Event::SendInvoke { client, room: ROOM, mid, hash: 1, retry: true });
        events.push(Event::SendOk { client, room: ROOM, mid, at: at(9_000), id: 99, duplicate: false });
        prop_assert!(fires(&check(events), &["H5 stored"]));
    }
}

#[test]
fn a_history_without_faults_or_messages_proves_nothing() {
    let verdict = check(Vec::new());
    assert!(!verdict.is_pass() && verdict.broken.is_empty());
    assert_eq!(verdict.vacuous.len(), 4);
}

#[test]
fn an_empty_room_is_resumed_at_the_end_of_the_log() {
    let join = |client: u32, after: Option<u64>, seq: u64| Event::Join {
        client,
        room: ROOM,
        after: after.map(at),
        at: at(seq),
        recovered: after.is_some(),
        all: true,
    };
    let recv = |client: u32, seq: u64, previous: u64| Event::Recv {
        client,
        room: ROOM,
        at: at(seq),
        previous: Some(at(previous)),
        id: seq,
        mid: None,
        hash: 0,
    };
    let mut events =
        vec![join(0, None, 10), join(1, None, 10), join(0, Some(10), 15), recv(0, 20, 15), recv(0, 30, 20)];
    assert!(check(events.clone()).broken.is_empty());
    // Another member knows of an event that was not delivered.
    let unknown = events.clone().into_iter().chain([recv(1, 12, 10), recv(1, 20, 12), recv(1, 30, 20)]).collect();
    assert!(fires(&check(unknown), &["H7 gap"]));
    events[4] = recv(0, 30, 25);
    assert!(fires(&check(events), &["H7 gap"]));
}

#[test]
fn a_reset_is_a_fault_unless_the_store_lost_something() {
    let mut events = good(&[1; 12]);
    events.push(Event::Reset { client: 1, room: ROOM, from: None, to: at(500), why: "trimmed".into() });
    assert!(fires(&check(events), &["H10 reset"]));
}

#[test]
fn unknown_outcomes_count_only_while_nothing_is_broken() {
    let mut events = good(&[1; 12]);
    for _ in 0..12 {
        events.push(Event::SendInfo { client: 1, mid: mid(1, 0), code: "timeout".into() });
    }
    assert!(fires(&check(events.clone()), &["H12"]));
    let fault = events.iter().position(|event| matches!(event, Event::Fault { .. })).expect("there is one");
    events.rotate_right(12);
    let infos: Vec<Event> = events.drain(..12).collect();
    events.splice(fault + 1..fault + 1, infos);
    assert!(!fires(&check(events), &["H12"]));
}
