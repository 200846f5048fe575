//! An edge that has more than its share sends the excess to the others, slowly.
//!
//! ```text
//! Even --above 1.2 x the mean in 4 answers in a row--> Shedding --at 1.05 x, or the excess has gone--> Resting
//!   ^                                                                                      a minute    |
//!   +--------------------------------------------------------------------------------------------------+
//! ```
//! Only an answer to a heartbeat moves it: without a fresh mean nobody goes. The four answers are longer than a
//! dead edge's lease, whose last count is in the mean until then, and give a new edge time to be found by the load
//! balancer. What it closes at most is the excess that it began with: where clients come back to the same edge,
//! more would not help.

use super::hub::Hub;
use crate::bridge::{Control, Inbound};
use crate::feed::sequencer::Millis;
use crate::upstream::session::Load;

/// Below so many connections of this edge nobody has to go.
const FEWEST: u32 = 100;
/// Begins above, and ends at, so many hundredths of the mean.
const ABOVE: u64 = 120;
const DOWN_TO: u64 = 105;
/// Answers in a row above it, before it begins.
const ANSWERS: u8 = 4;
/// Connections are closed evenly over this time, which is shorter than from one heartbeat to the next.
const WINDOW: Millis = 4_000;
/// Hundredths of the connections that go in a second.
const SHARE: u64 = 1;
/// After so long without an answer the mean is stale: it begins again.
const STALE: Millis = 12_000;
/// How long it rests in the end.
const REST: Millis = 60_000;

/// The state. One for each edge.
#[derive(Debug)]
pub(super) struct Shed {
    phase: Phase,
    /// When the last answer that counted came.
    heard: Millis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// So many answers in a row were above.
    Even { above: u8 },
    /// So many may still go, and so many went.
    Shedding { left: u32, closed: u32 },
    /// Not before this time.
    Resting { until: Millis },
}

/// What an answer brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// All stay.
    Stay,
    /// So many go over [`WINDOW`]; it began with this one.
    Begin { excess: u32, close: u32 },
    /// So many more go over [`WINDOW`].
    Close(u32),
    /// It is over; so many were closed.
    End { closed: u32 },
}

impl Default for Shed {
    fn default() -> Self {
        Self { phase: Phase::Even { above: 0 }, heard: 0 }
    }
}

impl Shed {
    /// A heartbeat was answered.
    pub(super) fn hear(&mut self, load: Load, now: Millis) -> Turn {
        let since = now.saturating_sub(self.heard);
        if since < WINDOW {
            // Calls that were held up: what was decided last is still being carried out.
            return Turn::Stay;
        }
        self.heard = now;
        let (held, mean) = (u64::from(load.connections), u64::from(load.mean));
        let many = load.edges > 1 && load.connections >= FEWEST;
        match self.phase {
            Phase::Resting { until } if now < until => Turn::Stay,
            Phase::Even { .. } | Phase::Resting { .. } if !many || held * 100 <= mean * ABOVE => {
                self.phase = Phase::Even { above: 0 };
                Turn::Stay
            }
            Phase::Even { above } if since <= STALE && above + 1 == ANSWERS => {
                let excess = excess(load);
                Turn::Begin { excess, close: self.close(load, excess, 0) }
            }
            Phase::Even { above } if since <= STALE => {
                self.phase = Phase::Even { above: above + 1 };
                Turn::Stay
            }
            Phase::Even { .. } | Phase::Resting { .. } => {
                self.phase = Phase::Even { above: 1 };
                Turn::Stay
            }
            Phase::Shedding { left, closed } if !many || since > STALE || left.min(excess(load)) == 0 => {
                self.phase = Phase::Resting { until: now + REST };
                Turn::End { closed }
            }
            Phase::Shedding { left, closed } => Turn::Close(self.close(load, left, closed)),
        }
    }

    /// How many go now.
    fn close(&mut self, load: Load, left: u32, closed: u32) -> u32 {
        let most = u64::from(load.connections) * SHARE * WINDOW / 100_000;
        let close = left.min(excess(load)).min(most as u32);
        self.phase = Phase::Shedding { left: left - close, closed: closed + close };
        close
    }
}

/// How many this edge has above the end of a shedding.
fn excess(load: Load) -> u32 {
    let stay = (u64::from(load.mean) * DOWN_TO).div_ceil(100);
    u64::from(load.connections).saturating_sub(stay) as u32
}

impl Hub {
    /// The session service has told how full the edges are.
    pub(super) fn on_load(&mut self, load: Load) {
        self.metrics.mean_connections.set(load.mean.into());
        let Some(shed) = self.shed.as_mut().filter(|_| !self.readiness.is_draining()) else { return };
        let Load { connections, mean, edges } = load;
        match shed.hear(load, self.now) {
            Turn::Stay => {}
            Turn::Begin { excess, close } => {
                tracing::info!(connections, mean, edges, excess, "connections above this edge's share are sent away");
                self.send_away(close);
            }
            Turn::Close(close) => self.send_away(close),
            Turn::End { closed } => {
                tracing::info!(connections, mean, edges, closed, "no more connections are sent away")
            }
        }
    }

    /// Each shard closes its share.
    fn send_away(&self, count: u32) {
        let shards = share(count, self.conns.by_shard());
        for (count, outlet) in shards.into_iter().zip(&self.outlets).filter(|(count, _)| *count > 0) {
            outlet.send(Inbound::Control(Control::Shed { count, window_ms: WINDOW as u32 }));
        }
    }
}

/// Divides a count by what the shards have; no shard's share is off by one or more.
fn share(count: u32, shards: &[u32]) -> Vec<u32> {
    let all = shards.iter().map(|held| u64::from(*held)).sum::<u64>().max(1);
    let mut before = 0;
    let parts = shards.iter().map(|held| {
        let from = u64::from(count) * before / all;
        before += u64::from(*held);
        (u64::from(count) * before / all - from) as u32
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BEAT: Millis = 5_000;

    fn load(connections: u32, mean: u32) -> Load {
        Load { connections, mean, edges: 2 }
    }

    /// Answers one after another from this time on.
    fn turns(shed: &mut Shed, from: Millis, loads: &[Load]) -> Vec<Turn> {
        (0..).zip(loads).map(|(n, load)| shed.hear(*load, from + n * BEAT)).collect()
    }

    #[test]
    fn the_excess_goes_in_steps_and_then_nobody_for_a_while() {
        let (mut shed, over) = (Shed::default(), load(1_000, 500));
        let begin = Turn::Begin { excess: 475, close: 40 };
        assert_eq!(turns(&mut shed, BEAT, &[over; 4]), [Turn::Stay, Turn::Stay, Turn::Stay, begin]);
        let rest = [load(960, 500), load(530, 500), load(525, 500), over];
        let expected = [Turn::Close(38), Turn::Close(5), Turn::End { closed: 83 }, Turn::Stay];
        assert_eq!(turns(&mut shed, 5 * BEAT, &rest), expected);
        // After the rest four answers in a row are needed again.
        let again = turns(&mut shed, 7 * BEAT + REST, &[over; 4]);
        assert_eq!(again, [Turn::Stay, Turn::Stay, Turn::Stay, begin]);
    }

    #[test]
    fn nobody_goes_without_need() {
        for stays in [
            load(600, 500),
            load(0, 0),
            load(FEWEST - 1, 1),
            Load { edges: 1, ..load(1_000, 500) },
            Load { edges: 0, ..load(1_000, 0) },
        ] {
            assert_eq!(turns(&mut Shed::default(), BEAT, &[stays; 20]), [Turn::Stay; 20], "{stays:?}");
        }
        let mut shed = Shed::default();
        let (over, even) = (load(1_000, 500), load(1_000, 900));
        let waves = [over, over, over, even].repeat(5);
        assert_eq!(turns(&mut shed, BEAT, &waves), [Turn::Stay; 20], "it was even in between");
    }

    #[test]
    fn a_mean_that_is_stale_begins_nothing_and_ends_what_has_begun() {
        let (mut shed, over) = (Shed::default(), load(1_000, 500));
        turns(&mut shed, BEAT, &[over; 3]);
        let late = 3 * BEAT + STALE + 1;
        assert_eq!(turns(&mut shed, late, &[over; 3]), [Turn::Stay; 3], "the answers before say nothing any more");
        assert!(matches!(shed.hear(over, late + 3 * BEAT), Turn::Begin { .. }));
        assert_eq!(shed.hear(over, late + 3 * BEAT + WINDOW - 1), Turn::Stay, "those of before are still going");
        assert_eq!(shed.hear(over, late + 3 * BEAT + STALE + 1), Turn::End { closed: 40 });
    }

    #[test]
    fn what_comes_back_to_the_same_edge_does_not_go_round_for_ever() {
        let mut shed = Shed::default();
        let turns = turns(&mut shed, BEAT, &[load(1_000, 500); 17]);
        let closed: u32 = turns.iter().map(|turn| closes(*turn)).sum();
        assert_eq!((closed, turns[16]), (475, Turn::Stay));
        assert!(turns.contains(&Turn::End { closed: 475 }));
    }

    fn closes(turn: Turn) -> u32 {
        match turn {
            Turn::Begin { close, .. } | Turn::Close(close) => close,
            Turn::Stay | Turn::End { .. } => 0,
        }
    }

    proptest! {
        #[test]
        fn whatever_is_told_the_bounds_hold(
            told in proptest::collection::vec((any::<u32>(), any::<u32>(), 0_u32..4, 0_u64..20_000), 1..200),
            near in any::<bool>(),
        ) {
            let (mut shed, mut now, mut ordered, mut left) = (Shed::default(), 0, None, 0);
            for (connections, mean, edges, wait) in told {
                let (connections, mean) = if near { (connections % 3_000, mean % 1_000) } else { (connections, mean) };
                now += wait;
                let load = Load { connections, mean, edges };
                let turn = shed.hear(load, now);
                let close = closes(turn);
                if let Turn::Begin { excess, .. } = turn {
                    prop_assert!(u64::from(connections) * 100 > u64::from(mean) * 120);
                    left = excess;
                }
                if close > 0 {
                    prop_assert!(edges > 1 && connections >= FEWEST);
                    prop_assert!(u64::from(close) * 1_000 * 100 <= u64::from(connections) * WINDOW, "1 % a second");
                    prop_assert!(u64::from(connections - close) * 100 >= u64::from(mean) * 105);
                    prop_assert!(ordered.is_none_or(|at| now >= at + WINDOW), "two orders at once");
                    prop_assert!(close <= left, "more than the excess");
                    left -= close;
                    ordered = Some(now);
                }
            }
        }

        #[test]
        fn edges_that_shed_become_even(held in proptest::collection::vec(0_u32..5_000, 2..8), random in any::<bool>()) {
            let mut held = held;
            let mut edges: Vec<Shed> = held.iter().map(|_| Shed::default()).collect();
            let mean = |held: &[u32]| held.iter().sum::<u32>() / held.len() as u32;
            let begin = mean(&held);
            for beat in 1..2_000 {
                for edge in 0..edges.len() {
                    let load = Load { connections: held[edge], mean: mean(&held), edges: edges.len() as u32 };
                    for _ in 0..closes(edges[edge].hear(load, beat * BEAT)) {
                        let emptiest = (0..held.len()).min_by_key(|other| held[*other]).expect("some edge");
                        let to = if random { fastrand::usize(..held.len()) } else { emptiest };
                        held[edge] -= 1;
                        held[to] += 1;
                    }
                }
            }
            prop_assert_eq!(mean(&held), begin);
            let most = *held.iter().max().expect("some edge");
            prop_assert!(most < FEWEST || u64::from(most) * 100 <= u64::from(begin) * ABOVE, "{:?}", held);
        }

        #[test]
        fn shards_share_by_what_they_have(held in proptest::collection::vec(0_u32..100_000, 1..9), part in 0.0_f64..=1.0) {
            let all: u32 = held.iter().sum();
            let count = (f64::from(all) * part) as u32;
            let shares = share(count, &held);
            prop_assert_eq!(shares.iter().sum::<u32>(), if all == 0 { 0 } else { count });
            prop_assert!(shares.iter().zip(&held).all(|(share, held)| share <= held));
        }
    }
}
