//! How much one answer may hold.

use super::{Read, Stored};

/// Counts events and bytes down; the first event always fits, so that a read makes progress.
#[derive(Debug)]
pub(super) struct Budget {
    events: u32,
    bytes: usize,
    first: bool,
}

impl Budget {
    pub(super) fn new(read: &Read) -> Self {
        Self { events: read.limit, bytes: read.max_bytes as usize, first: true }
    }

    /// Takes an event in, or says that it does not fit.
    pub(super) fn take(&mut self, event: &Stored) -> bool {
        let fits = self.events > 0 && (self.first || event.body.len() <= self.bytes);
        if fits {
            self.first = false;
            self.events -= 1;
            self.bytes = self.bytes.saturating_sub(event.body.len());
        }
        fits
    }
}
