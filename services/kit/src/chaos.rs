//! Ways to break a process on purpose, for the fault harness. They exist only with the feature `chaos`,
//! which nothing that is shipped has: without it both calls are empty, and the variables mean nothing.
//!
//! - `PLAZA_FAILPOINTS=step@n` or `step@n+ms`: the process ends, as by kill -9, when it comes to this
//!   step for the n-th time, or so many milliseconds later.
//! - `PLAZA_SABOTAGE=rule`: it breaks this rule as long as it lives. Whoever checks Plaza must notice.

/// Declares an enum whose values have names, so that both ends of a variable spell them the same.
macro_rules! named {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $value,)+ }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$value,)+];

            /// As the variable spells it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text,)+ }
            }

            /// Reads what [`Self::as_str`] writes.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text)
            }
        }
    };
}

named! {
    /// A moment at which a process can end.
    Step {
        /// Edge: a connection was accepted.
        Accepted = "accepted",
        /// Edge: a connection became a WebSocket, and no shard has it yet.
        Upgraded = "upgraded",
        /// Edge: somebody was let in, and no session exists yet.
        Authenticated = "authenticated",
        /// Edge: the session is stored, and its client not told.
        Leased = "leased",
        /// Edge: a publish arrived.
        Received = "received",
        /// Edge: publishes went to fanout, without a result yet.
        Published = "published",
        /// Edge: results arrived, and no client is told.
        Resolved = "resolved",
        /// Edge: a client was told, before the event came back.
        Answered = "answered",
        /// Edge: some members of a room have an event, and others not.
        HalfDelivered = "half-delivered",
        /// Edge: what a member missed is ready, and not sent.
        Replaying = "replaying",
        /// Edge: connections are being sent away.
        Draining = "draining",
        /// Session: before a write.
        Writing = "writing",
        /// Session: after a write, before its answer.
        Written = "written",
        /// Session: a lease was renewed, and its edge not told.
        Renewed = "renewed",
        /// Session: sessions were given back, and their edge not told.
        Released = "released",
        /// Fanout: a publish arrived.
        Taken = "taken",
        /// Fanout: a publish goes to the store, without an acknowledgement yet.
        Sent = "sent",
        /// Fanout: the store has acknowledged, and the edge not been told.
        Stored = "stored",
        /// Fanout: edges are about to be told that they may lack an event.
        Hinting = "hinting",
        /// Fanout: the stream was made, or found, and nothing works yet.
        Provisioned = "provisioned",
    }
}

named! {
    /// A rule that can be broken.
    Rule {
        /// Fanout: a message is stored under one id, whatever comes again.
        Dedupe = "dedupe",
        /// Fanout: ok is said only after the store's acknowledgement.
        OkAfterStored = "ok-after-stored",
        /// Fanout: a late retry is looked for before it is stored.
        LookBefore = "look-before",
        /// Edge: what a room lacks is read before anything after it is delivered.
        Repair = "repair",
        /// Edge: a resume begins right after the position that the client has.
        ResumeExactly = "resume-exactly",
        /// Edge: another epoch is another log.
        Epoch = "epoch",
        /// Edge: a sender's publishes to a room go one after the other.
        Lanes = "lanes",
    }
}

/// Whether this build has them.
pub const IS_BUILT_IN: bool = cfg!(feature = "chaos");

/// The process is at a step.
#[inline(always)]
pub fn step(step: Step) {
    #[cfg(feature = "chaos")]
    on::step(step);
    #[cfg(not(feature = "chaos"))]
    let _ = step;
}

/// Whether this process breaks a rule.
#[inline(always)]
pub fn breaks(rule: Rule) -> bool {
    #[cfg(feature = "chaos")]
    return on::breaks(rule);
    #[cfg(not(feature = "chaos"))]
    {
        let _ = rule;
        false
    }
}

#[cfg(feature = "chaos")]
mod on {
    use super::{Rule, Step};
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use std::time::Duration;

    struct Armed {
        step: Step,
        left: AtomicU64,
        later: Duration,
    }

    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
        let text = std::env::var("PLAZA_FAILPOINTS").ok()?;
        Some(armed(&text).unwrap_or_else(|| wrong("PLAZA_FAILPOINTS", &text, "step@n or step@n+ms")))
    });

    static BROKEN: LazyLock<Option<Rule>> = LazyLock::new(|| {
        let text = std::env::var("PLAZA_SABOTAGE").ok()?;
        Some(Rule::parse(&text).unwrap_or_else(|| wrong("PLAZA_SABOTAGE", &text, "a rule")))
    });

    fn armed(text: &str) -> Option<Armed> {
        let (step, when) = text.split_once('@')?;
        let (count, later) = when.split_once('+').unwrap_or((when, "0"));
        Some(Armed {
            step: Step::parse(step)?,
            left: AtomicU64::new(count.parse().ok()?),
            later: Duration::from_millis(later.parse().ok()?),
        })
    }

    fn wrong(variable: &str, text: &str, what: &str) -> ! {
        tracing::error!(variable, text, expected = what, "a variable of the fault harness is wrong");
        std::process::abort()
    }

    pub(super) fn step(step: Step) {
        let Some(armed) = &*ARMED else { return };
        if armed.step != step || armed.left.load(Relaxed) == 0 || armed.left.fetch_sub(1, Relaxed) != 1 {
            return;
        }
        let end = move || -> ! {
            tracing::error!(step = step.as_str(), "the process ends here, as the fault harness wants it");
            std::process::abort()
        };
        if armed.later.is_zero() {
            end();
        }
        let later = armed.later;
        std::thread::spawn(move || {
            std::thread::sleep(later);
            end()
        });
    }

    pub(super) fn breaks(rule: Rule) -> bool {
        *BROKEN == Some(rule)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_failpoint_is_a_step_a_count_and_a_delay() {
            let armed = armed("resolved@7+3").unwrap();
            assert_eq!(
                (armed.step, armed.left.load(Relaxed), armed.later),
                (Step::Resolved, 7, Duration::from_millis(3))
            );
            assert!(super::armed("resolved").is_none() && super::armed("nothing@1").is_none());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for step in Step::ALL {
            assert_eq!(Step::parse(step.as_str()), Some(*step));
        }
        for rule in Rule::ALL {
            assert_eq!(Rule::parse(rule.as_str()), Some(*rule));
        }
        assert_eq!(Step::parse("nothing"), None);
    }
}
