//! How many descriptors clients may have. An edge without any could not accept its own probes, reach its services or
//! hear its peers: it would be ended, with all the clients that it has.

use std::os::fd::RawFd;

/// Descriptors that clients do not get, at most; a quarter of few.
const RESERVE: u64 = 256;

/// Whether one more client has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// It has.
    Enough,
    /// It is told to come again: half of the reserve is for these answers.
    Refuse,
    /// Not even that.
    None,
}

/// Marks a request of a client for which there is no room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Full;

/// Where the descriptors of new clients end. The kernel gives the lowest free number, so a new one tells how many are
/// in use.
#[derive(Clone, Copy, Debug)]
pub struct Ceiling {
    refuse: u64,
    drop: u64,
}

impl Ceiling {
    /// Of this process, by its limit now; `None` where it cannot be told.
    pub fn of_process() -> Option<Self> {
        plaza_kit::metrics::descriptor_limit().map(Self::of)
    }

    fn of(limit: u64) -> Self {
        let reserve = (limit / 4).min(RESERVE);
        Self { refuse: limit - reserve, drop: limit - reserve / 2 }
    }

    /// What a client gets whose socket has this number.
    pub(super) fn space(self, descriptor: RawFd) -> Space {
        match u64::try_from(descriptor).unwrap_or(0) {
            number if number < self.refuse => Space::Enough,
            number if number < self.drop => Space::Refuse,
            _ => Space::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_descriptors_are_not_for_clients() {
        let few = Ceiling::of(256);
        let spaces = [0, 191, 192, 223, 224, 255].map(|number| few.space(number));
        let [enough, refuse, none] = [Space::Enough, Space::Refuse, Space::None];
        assert_eq!(spaces, [enough, enough, refuse, refuse, none, none]);
        let many = Ceiling::of(1_000_000);
        assert_eq!((many.space(999_743), many.space(999_744)), (Space::Enough, Space::Refuse));
        assert_eq!(Ceiling::of(0).space(0), Space::None);
    }
}
