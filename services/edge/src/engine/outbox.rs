//! What one connection alone still has to be sent: made when its socket is full, gone when it is empty.

use plaza_kit::trace::Span;
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes that wait for the socket. Whole frames, but for the first, which may be partly written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
    /// Bytes of it that are a replay, or the rest of a room's frame: not the client's own doing, and not
    /// held against it.
    excused: usize,
    /// The span of the event whose rest comes first, and how much of that is left.
    rest: Option<(usize, Arc<Span>)>,
    /// Lengths of the packets, for sockets that get one packet a turn.
    packets: VecDeque<usize>,
    /// The latest pong, which replaces the one before while both wait.
    pong: Option<Box<[u8]>>,
    /// When it was made, or last got shorter: milliseconds of the shard's clock.
    pub(super) since: u64,
}

impl Outbox {
    pub(super) fn new(since: u64) -> Self {
        Self { since, ..Self::default() }
    }

    /// Appends frames for this connection.
    pub(super) fn push(&mut self, frames: &[u8]) {
        self.bytes.extend_from_slice(frames);
    }

    /// Appends one packet that leaves in a turn of its own.
    pub(super) fn push_packet(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.packets.push_back(frame.len());
    }

    /// Appends what is not held against the client.
    pub(super) fn push_excused(&mut self, frames: &[u8]) {
        self.bytes.extend_from_slice(frames);
        self.excused += frames.len();
    }

    /// Appends the rest of a room's frame, as the first thing. The event's span, if it has one, is not over before
    /// that is written.
    pub(super) fn push_rest(&mut self, rest: &[u8], span: Option<Arc<Span>>) {
        self.push_excused(rest);
        self.rest = span.map(|span| (self.bytes.len() - self.sent, span));
    }

    /// Keeps a pong instead of the one before.
    pub(super) fn set_pong(&mut self, frame: &[u8]) {
        self.pong = Some(frame.into());
    }

    /// Bytes that are held against the client.
    pub(super) fn charged(&self) -> usize {
        (self.bytes.len() - self.sent).saturating_sub(self.excused)
    }

    /// What to write next.
    pub(super) fn front(&mut self) -> &[u8] {
        if self.bytes.len() == self.sent
            && let Some(pong) = self.pong.take()
        {
            self.bytes.extend_from_slice(&pong);
        }
        let end = self.packets.front().map_or(self.bytes.len(), |packet| self.sent + packet);
        &self.bytes[self.sent..end]
    }

    /// So many bytes of [`Self::front`] are written.
    pub(super) fn advance(&mut self, written: usize, now: u64) {
        self.sent += written;
        self.since = now;
        self.rest = self.rest.take().and_then(|(left, span)| Some((left.checked_sub(written)?, span)));
        self.rest.take_if(|(left, _)| *left == 0);
        if let Some(packet) = self.packets.front_mut() {
            *packet -= written;
            if *packet == 0 {
                self.packets.pop_front();
            }
        }
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            (self.sent, self.excused) = (0, 0);
        } else if self.sent > 64 * 1024 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.len() == self.sent && self.pong.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w07_of_many_waiting_pongs_the_latest_is_sent() {
        let mut outbox = Outbox::new(0);
        outbox.push(b"frame");
        outbox.set_pong(b"one");
        outbox.set_pong(b"two");
        outbox.advance(2, 1);
        assert_eq!(outbox.front(), b"ame");
        outbox.advance(3, 2);
        assert!(!outbox.is_empty());
        assert_eq!(outbox.front(), b"two");
        outbox.advance(3, 3);
        assert!(outbox.is_empty());
    }

    #[test]
    fn e28_packets_leave_one_by_one() {
        let mut outbox = Outbox::new(0);
        outbox.push_packet(b"ab");
        outbox.push_packet(b"cd");
        assert_eq!(outbox.front(), b"ab");
        outbox.advance(1, 0);
        assert_eq!(outbox.front(), b"b");
        outbox.advance(1, 0);
        assert_eq!(outbox.front(), b"cd");
    }
}
