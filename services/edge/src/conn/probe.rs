//! A WebSocket that wants to take over a polling session.
//!
//! ```text
//! probe (this WebSocket)      engine: session on polling
//!   open ------ Probe ------> held for this WebSocket, or refused: closed
//!   2probe ---- Release ----> GETs are answered 6
//!   <-- 3probe
//!   5 --------- Upgrade ----> what waits leaves on this WebSocket
//! ```
//! Source: wire reference, rows E22 to E27.

use super::engineio::{close, text};
use super::{Action, Cause, Connection, Incoming, Millis, Settings};
use crate::bridge::{ConnKey, Control, Reply, RoomId};
use crate::wire::engineio::Sid;
use std::sync::Arc;

/// How far the probe has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The session is not held yet.
    Open,
    /// `2probe` is due.
    Held,
    /// `5` is due.
    Probed,
    /// Nothing counts any more.
    Done,
}

/// The probe's state machine.
#[derive(Debug)]
pub struct Probe {
    settings: Arc<Settings>,
    sid: Sid,
    step: Step,
    deadline: Millis,
}

impl Probe {
    /// A probe for the session with this sid.
    pub fn new(settings: Arc<Settings>, sid: Sid) -> Self {
        Self { settings, sid, step: Step::Open, deadline: Millis::MAX }
    }

    fn give_up(&mut self, cause: Cause, out: &mut Vec<Action>) {
        self.step = Step::Done;
        out.push(close(cause));
    }
}

impl Connection for Probe {
    fn on_open(&mut self, _key: ConnKey, now: Millis, out: &mut Vec<Action>) {
        self.deadline = now + self.settings.upgrade_timeout_ms;
        let to = ConnKey { shard: self.sid.shard, slot: self.sid.slot, generation: 0 };
        out.push(Action::Probe { to, secret: self.sid.secret });
    }

    fn on_probe(&mut self, accepted: bool, _now: Millis, out: &mut Vec<Action>) {
        match self.step {
            Step::Open if accepted => self.step = Step::Held,
            Step::Open => self.give_up(Cause::Replaced, out),
            Step::Held | Step::Probed | Step::Done => {}
        }
    }

    fn on_message(&mut self, message: Incoming<'_>, _now: Millis, out: &mut Vec<Action>) {
        match (self.step, message) {
            (Step::Held, Incoming::Text("2probe")) => {
                self.step = Step::Probed;
                out.push(text("3probe"));
                out.push(Action::Release);
            }
            (Step::Probed, Incoming::Text("5")) => {
                self.step = Step::Done;
                out.push(Action::Upgrade);
            }
            (Step::Done, _) => {}
            (Step::Open | Step::Held | Step::Probed, _) => self.give_up(Cause::Protocol, out),
        }
    }

    fn on_reply(&mut self, _id: u32, _reply: Reply, _now: Millis, _out: &mut Vec<Action>) {}

    fn on_control(&mut self, _control: &Control, _now: Millis, _out: &mut Vec<Action>) {}

    fn on_reset(&mut self, _room: RoomId, _now: Millis, _out: &mut Vec<Action>) {}

    fn on_deadline(&mut self, now: Millis, out: &mut Vec<Action>) {
        if self.step != Step::Done && now >= self.deadline {
            self.give_up(Cause::ConnectTimeout, out);
        }
    }

    fn deadline(&self) -> Option<Millis> {
        (self.step != Step::Done && self.deadline != Millis::MAX).then_some(self.deadline)
    }

    fn on_close(&mut self, _cause: Cause, _rooms: Vec<RoomId>, _out: &mut Vec<Action>) {
        self.step = Step::Done;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: ConnKey = ConnKey { shard: 0, slot: 9, generation: 1 };

    fn probe() -> (Probe, Vec<Action>) {
        let sid = Sid { edge: 0, shard: 1, slot: 2, secret: [3; 16] };
        let mut probe = Probe::new(Arc::new(Settings::default()), sid);
        let mut out = Vec::new();
        probe.on_open(KEY, 1_000, &mut out);
        assert!(
            matches!(&out[..], [Action::Probe { to: ConnKey { shard: 1, slot: 2, .. }, secret }] if *secret == [3; 16])
        );
        out.clear();
        (probe, out)
    }

    #[test]
    fn e22_the_probe_is_answered_and_gets_are_released() {
        let (mut probe, mut out) = probe();
        probe.on_probe(true, 1_000, &mut out);
        probe.on_message(Incoming::Text("2probe"), 1_001, &mut out);
        probe.on_message(Incoming::Text("5"), 1_001, &mut out);
        assert!(matches!(&out[..], [Action::Send(_), Action::Release, Action::Upgrade]), "{out:?}");
        assert_eq!(probe.deadline(), None);
    }

    #[test]
    fn e25_a_second_probe_is_closed() {
        let (mut probe, mut out) = probe();
        probe.on_probe(false, 1_000, &mut out);
        assert!(matches!(&out[..], [Action::Close(_)]));
    }

    #[test]
    fn e26_anything_else_and_silence_close_only_the_probe() {
        for wrong in [Incoming::Text("2"), Incoming::Text("5"), Incoming::Text("4x"), Incoming::Binary(b"2probe")] {
            let (mut probe, mut out) = probe();
            probe.on_probe(true, 1_000, &mut out);
            probe.on_message(wrong, 1_000, &mut out);
            assert!(matches!(&out[..], [Action::Close(_)]), "{wrong:?}");
        }
        let (mut probe, mut out) = probe();
        probe.on_probe(true, 1_000, &mut out);
        assert_eq!(probe.deadline(), Some(11_000));
        probe.on_deadline(11_000, &mut out);
        assert!(matches!(&out[..], [Action::Close(_)]));
    }

    proptest! {
        #[test]
        fn any_sequence_upgrades_or_closes_at_most_once(steps in proptest::collection::vec(0u8..7, 0..20)) {
            let (mut probe, mut out) = probe();
            for (index, step) in steps.into_iter().enumerate() {
                let now = 1_000 + index as u64;
                match step {
                    0 => probe.on_probe(true, now, &mut out),
                    1 => probe.on_probe(false, now, &mut out),
                    2 => probe.on_message(Incoming::Text("2probe"), now, &mut out),
                    3 => probe.on_message(Incoming::Text("5"), now, &mut out),
                    4 => probe.on_message(Incoming::Text("x"), now, &mut out),
                    5 => probe.on_message(Incoming::Binary(b""), now, &mut out),
                    _ => probe.on_deadline(now + 20_000, &mut out),
                }
            }
            let ends = out.iter().filter(|a| matches!(a, Action::Close(_) | Action::Upgrade)).count();
            prop_assert!(ends <= 1);
            prop_assert!(ends == 0 || matches!(out.last(), Some(Action::Close(_) | Action::Upgrade)));
        }
    }
}
