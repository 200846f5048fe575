//! What waits for the session service, in classes: a storm of one class does not hold up those before it.
//!
//! | class | what | when its line is full |
//! |---|---|---|
//! | established | what living connections want, and what is owed for those that were | the wish is refused; what is owed waits, bounded by the sessions and memberships that were |
//! | resume | sessions that continue | refused; one with a ticket continues alone |
//! | new | sessions that begin | refused |
//!
//! Calls are made one at a time, so that the service has one batch of this edge at most. Pure.

use plaza_proto::code::Code;
use std::collections::VecDeque;

/// Who wants something, from the most to the least urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A connection that is in.
    Established,
    /// A session that continues.
    Resume,
    /// A session that begins.
    New,
}

impl Class {
    /// All of them, in the order of their turn.
    pub const ALL: [Self; 3] = [Self::Established, Self::Resume, Self::New];

    /// The label's text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Resume => "resume",
            Self::New => "new",
        }
    }

    /// Wishes that may wait. New sessions have a short line: who stands at its end would be gone before its turn.
    const fn places(self) -> usize {
        match self {
            Self::Established | Self::Resume => 4_096,
            Self::New => 1_024,
        }
    }
}

/// What may stand in a line.
pub(super) trait Wish {
    /// Somebody waits for its result; else it is owed.
    fn is_awaited(&self) -> bool;
}

/// A line for each class, and how many in it are awaited.
#[derive(Debug)]
pub(super) struct Lines<T>([(VecDeque<T>, usize); Class::ALL.len()]);

impl<T> Default for Lines<T> {
    fn default() -> Self {
        Self([const { (VecDeque::new(), 0) }; Class::ALL.len()])
    }
}

impl<T: Wish> Lines<T> {
    /// Adds what somebody waits for.
    ///
    /// # Errors
    /// [`Code::Busy`]: too many of the class are awaited already.
    pub(super) fn ask(&mut self, class: Class, wish: T) -> Result<(), Code> {
        let (line, awaited) = &mut self.0[class as usize];
        if *awaited >= class.places() {
            return Err(Code::Busy);
        }
        *awaited += 1;
        line.push_back(wish);
        Ok(())
    }

    /// Adds what must be done some day.
    pub(super) fn owe(&mut self, debt: T) {
        self.0[Class::Established as usize].0.push_back(debt);
    }

    /// Whose turn it is.
    pub(super) fn pop(&mut self) -> Option<(Class, T)> {
        let class = Class::ALL.into_iter().find(|class| !self.0[*class as usize].0.is_empty())?;
        Some((class, self.take(class, 0)?))
    }

    /// It could not be handed on: it is the first of its class again.
    pub(super) fn put_back(&mut self, class: Class, wish: T) {
        let (line, awaited) = &mut self.0[class as usize];
        *awaited += usize::from(wish.is_awaited());
        line.push_front(wish);
    }

    /// Takes one back that need not be done any more.
    pub(super) fn withdraw(&mut self, class: Class, is_it: impl FnMut(&T) -> bool) -> Option<T> {
        let place = self.0[class as usize].0.iter().position(is_it)?;
        self.take(class, place)
    }

    /// Forgets what is owed.
    pub(super) fn forget_owed(&mut self) {
        self.0[Class::Established as usize].0.retain(Wish::is_awaited);
    }

    /// How many wait in each class.
    pub(super) fn waiting(&self) -> [usize; Class::ALL.len()] {
        self.0.each_ref().map(|(line, _)| line.len())
    }

    fn take(&mut self, class: Class, place: usize) -> Option<T> {
        let (line, awaited) = &mut self.0[class as usize];
        let wish = line.remove(place)?;
        *awaited -= usize::from(wish.is_awaited());
        Some(wish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Debts are negative.
    impl Wish for i32 {
        fn is_awaited(&self) -> bool {
            *self >= 0
        }
    }

    #[test]
    fn sessions_that_continue_go_before_new_ones_and_behind_those_that_are_in() {
        let mut lines = Lines::default();
        for (wish, class) in [(1, Class::New), (2, Class::Resume), (3, Class::New), (4, Class::Established)] {
            lines.ask(class, wish).unwrap();
        }
        lines.owe(-5);
        let (class, first) = lines.pop().unwrap();
        assert_eq!((class, first), (Class::Established, 4));
        lines.put_back(class, first);
        let order: Vec<i32> = std::iter::from_fn(|| lines.pop()).map(|(_, wish)| wish).collect();
        assert_eq!(order, [4, -5, 2, 1, 3]);
    }

    #[test]
    fn a_full_line_refuses_its_own_class_alone() {
        let mut lines = Lines::default();
        let fill = |lines: &mut Lines<i32>, class| (0..9_000).take_while(|n| lines.ask(class, *n).is_ok()).count();
        assert_eq!(fill(&mut lines, Class::New), 1_024);
        assert_eq!(fill(&mut lines, Class::Resume), 4_096);
        (1..=9_000).for_each(|n| lines.owe(-n));
        assert_eq!(fill(&mut lines, Class::Established), 4_096, "debts take nobody's place");
        assert_eq!(lines.waiting(), [13_096, 4_096, 1_024]);
        lines.forget_owed();
        assert_eq!(lines.waiting(), [4_096, 4_096, 1_024]);
        // Each one that leaves makes room for one.
        assert_eq!(lines.withdraw(Class::New, |n| *n == 7), Some(7));
        assert_eq!(lines.withdraw(Class::New, |n| *n == 7), None);
        assert_eq!(fill(&mut lines, Class::New), 1);
        assert_eq!(lines.pop(), Some((Class::Established, 0)));
        assert_eq!(fill(&mut lines, Class::Established), 1);
    }
}
