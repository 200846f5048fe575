//! A room's log of encoded frames: bytes in a chain of segments, and where each frame ends. Positions
//! are byte offsets since the log began. Pure.

use std::collections::VecDeque;

/// Segments double up to this size.
const SEGMENT_BYTES: usize = 64 * 1024;

/// Buffers of drained logs that are kept for the next log that wakes.
const POOLED: usize = 16;

/// When an event reached the edge, and how old it was then.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrival {
    /// In microseconds of the shard's clock.
    pub(super) at_us: u64,
    /// Microseconds since it was stored; 0: not known.
    pub(super) age_us: u32,
}

/// One frame, or several that belong together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// Where it ends.
    pub(super) end: u64,
    /// The stream's sequence; 0: volatile.
    pub(super) seq: u64,
    /// When it came.
    pub(super) arrival: Arrival,
    /// The slot that does not get it; `u32::MAX`: none.
    pub(super) skip: u32,
}

/// Bytes that are never moved nor overwritten while some cursor may point into them.
#[derive(Debug)]
struct Segment {
    start: u64,
    bytes: Vec<u8>,
}

impl Segment {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

/// The frames that some member has not got yet. A drained log holds no memory.
#[derive(Debug, Default)]
pub(super) struct Log {
    segments: VecDeque<Segment>,
    frames: VecDeque<Frame>,
    head: u64,
    /// Frames that were dropped from the front, since the log began.
    dropped: u64,
}

/// Memory of drained logs.
#[derive(Debug, Default)]
pub(super) struct Pool {
    segments: Vec<VecDeque<Segment>>,
    frames: Vec<VecDeque<Frame>>,
    bytes: Vec<Vec<u8>>,
}

impl Log {
    /// Where the next frame begins.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Frames so far, since the log began: the number of the next one.
    pub(super) fn count(&self) -> u64 {
        self.dropped + self.frames.len() as u64
    }

    /// The number of the first frame that ends after `cursor`.
    pub(super) fn number_at(&self, cursor: u64) -> u64 {
        if cursor >= self.head {
            return self.count();
        }
        self.dropped + self.frames.partition_point(|frame| frame.end <= cursor) as u64
    }

    /// Whether a frame begins at `cursor`, which is not before anything that was trimmed.
    pub(super) fn is_border(&self, cursor: u64) -> bool {
        let begun = self.segments.front().map_or(self.head, |first| first.start);
        cursor == begun || cursor == self.head || {
            let next = self.frames.partition_point(|frame| frame.end < cursor);
            self.frames.get(next).is_some_and(|frame| frame.end == cursor)
        }
    }

    /// The frame of a number that is still held.
    pub(super) fn frame(&self, number: u64) -> Option<&Frame> {
        self.frames.get(usize::try_from(number.checked_sub(self.dropped)?).ok()?)
    }

    /// The arrival of the oldest frame that is still held, and how many are; `None`: it is drained.
    pub(super) fn oldest(&self) -> Option<(Arrival, u64)> {
        self.frames.front().map(|frame| (frame.arrival, self.frames.len() as u64))
    }

    /// Bytes and number of the frames behind `cursor` that are not volatile.
    pub(super) fn durable_after(&self, cursor: u64) -> (u64, u64) {
        let (mut begin, mut bytes, mut count) = (cursor, 0, 0);
        let first = self.frames.partition_point(|frame| frame.end <= cursor);
        for frame in self.frames.iter().skip(first) {
            if frame.seq != 0 {
                bytes += frame.end - begin;
                count += 1;
            }
            begin = frame.end;
        }
        (bytes, count)
    }

    /// Appends a frame.
    pub(super) fn append(&mut self, bytes: &[u8], seq: u64, arrival: Arrival, skip: u32, pool: &mut Pool) {
        let full = self.segments.back().is_none_or(|last| last.bytes.capacity() - last.bytes.len() < bytes.len());
        if full {
            let double = self.segments.back().map_or(0, |last| (last.bytes.capacity() * 2).min(SEGMENT_BYTES));
            if self.segments.is_empty() {
                self.segments = pool.segments.pop().unwrap_or_default();
                self.frames = pool.frames.pop().unwrap_or_default();
            }
            let bytes = pool.bytes(bytes.len().max(double));
            self.segments.push_back(Segment { start: self.head, bytes });
        }
        if let Some(last) = self.segments.back_mut() {
            last.bytes.extend_from_slice(bytes);
        }
        self.head += bytes.len() as u64;
        self.frames.push_back(Frame { end: self.head, seq, arrival, skip });
    }

    /// The bytes from `cursor` to the end of its segment; empty at the head.
    pub(super) fn slice(&self, cursor: u64) -> &[u8] {
        // Nearly every cursor is in the last segment.
        let found = self.segments.iter().rev().find(|segment| segment.start <= cursor);
        found.map_or(&[], |segment| segment.bytes.get((cursor - segment.start) as usize..).unwrap_or_default())
    }

    /// Bytes that it holds.
    fn held(&self) -> u64 {
        self.segments.front().map_or(0, |first| self.head - first.start)
    }

    /// Forgets what lies before `cursor`, which no member needs any more; how many bytes that frees.
    pub(super) fn trim(&mut self, cursor: u64, pool: &mut Pool) -> u64 {
        let held = self.held();
        if cursor >= self.head {
            self.dropped += self.frames.len() as u64;
            self.frames.clear();
            while let Some(segment) = self.segments.pop_front() {
                pool.keep(segment.bytes);
            }
            pool.keep_deques(std::mem::take(&mut self.segments), std::mem::take(&mut self.frames));
            return held;
        }
        while self.segments.front().is_some_and(|first| first.end() <= cursor) {
            if let Some(segment) = self.segments.pop_front() {
                pool.keep(segment.bytes);
            }
        }
        while self.frames.front().is_some_and(|first| first.end <= cursor) {
            self.frames.pop_front();
            self.dropped += 1;
        }
        held - self.held()
    }
}

impl Pool {
    /// Empty bytes with at least this capacity.
    fn bytes(&mut self, capacity: usize) -> Vec<u8> {
        match self.bytes.iter().rposition(|bytes| bytes.capacity() >= capacity) {
            Some(place) => self.bytes.swap_remove(place),
            None => Vec::with_capacity(capacity),
        }
    }

    fn keep(&mut self, mut bytes: Vec<u8>) {
        if bytes.capacity() > SEGMENT_BYTES {
            return;
        }
        bytes.clear();
        if self.bytes.len() < POOLED {
            self.bytes.push(bytes);
        } else if let Some(small) = self.bytes.iter_mut().min_by_key(|kept| kept.capacity())
            && small.capacity() < bytes.capacity()
        {
            *small = bytes;
        }
    }

    fn keep_deques(&mut self, segments: VecDeque<Segment>, frames: VecDeque<Frame>) {
        if self.segments.len() < POOLED && segments.capacity() > 0 {
            self.segments.push(segments);
        }
        if self.frames.len() < POOLED && frames.capacity() > 0 {
            self.frames.push(frames);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_drained_log_holds_nothing_and_begins_at_the_size_of_its_frame() {
        let (mut log, mut pool) = (Log::default(), Pool::default());
        log.append(b"hello", 1, Arrival::default(), u32::MAX, &mut pool);
        assert_eq!(log.segments[0].bytes.capacity(), 5);
        log.append(b"x", 2, Arrival::default(), u32::MAX, &mut pool);
        assert_eq!((log.slice(0), log.slice(5), log.count()), (&b"hello"[..], &b"x"[..], 2));
        log.trim(log.head(), &mut pool);
        assert_eq!((log.segments.capacity(), log.frames.capacity()), (0, 0));
        assert_eq!(log.count(), 2);
        assert!(log.slice(6).is_empty());
    }

    proptest! {
        #[test]
        fn every_cursor_reads_the_bytes_behind_it(
            frames in proptest::collection::vec((1usize..40_000, 0u8..4), 1..40),
        ) {
            let (mut log, mut pool) = (Log::default(), Pool::default());
            let (mut model, mut begun) = (Vec::new(), 0usize);
            for (seq, (len, trims)) in frames.into_iter().enumerate() {
                let bytes = vec![seq as u8; len];
                log.append(&bytes, seq as u64 + 1, Arrival::default(), u32::MAX, &mut pool);
                model.extend_from_slice(&bytes);
                if trims > 0 {
                    begun += (model.len() - begun) / usize::from(trims);
                    log.trim(begun as u64, &mut pool);
                }
                let mut cursor = begun;
                while cursor < model.len() {
                    let slice = log.slice(cursor as u64);
                    prop_assert!(!slice.is_empty());
                    prop_assert_eq!(slice, &model[cursor..cursor + slice.len()]);
                    cursor += slice.len();
                }
                let number = log.number_at(begun as u64);
                prop_assert_eq!(number == log.count(), begun == model.len());
                prop_assert!(log.frame(number).is_none_or(|frame| frame.end > begun as u64));
            }
        }
    }
}
