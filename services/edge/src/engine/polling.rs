//! The long-polling transport of one Engine.IO session: what waits for the client, and which requests
//! wait for it. Pure but for the answers, which go through their channels.
//!
//! The engine keeps one [`Polling`] in a slot that has no descriptor:
//!
//! | [`PollCall`], its secret compared | the slot polls | else |
//! |---|---|---|
//! | `Open` | new slot, `on_open`, then [`Polling::opened`] | |
//! | `Check` | `Accepted`, also for a session that has upgraded (its probe is refused, E25) | `Unknown` |
//! | `Get` | [`Polling::on_get`] | upgraded: `WrongTransport` |
//! | `PostBegin` | [`Polling::on_post_begin`]: `Accepted`, or `Refused` and [`Polling::end`] | the same |
//! | `Post` | [`Polling::on_post`], [`read_post`]: `Accepted`, or `Refused` and [`Polling::end`] | the same |
//! | `Abandon` | [`Polling::end`], cause `Transport` | ignored |
//!
//! After each turn that may have queued something: [`Polling::flush`]. When the connection itself asks
//! for a close, and when its heartbeat does: [`Polling::close`].
//!
//! Source: wire reference, rows E5 to E14 and E22 to E27.

use super::{PollAnswer, PollCall};
use crate::bridge::ConnKey;
use crate::conn::{Cause, Incoming, Millis, Packet};
use crate::wire::engineio::{self, PollingPacket};
use crate::wire::websocket::{Opcode, read_server_frame};
use bytes::Bytes;
use std::collections::VecDeque;
use tokio::sync::oneshot::Sender;

/// Milliseconds that a session which the server has closed waits for the GET that hears of it.
const LINGER_MS: u64 = 30_000;
/// Most packets and bytes that wait for a GET.
const MAX_PACKETS: usize = 512;
const MAX_BYTES: usize = 256 * 1024;

const CLOSE: Packet = Packet::Text(Bytes::from_static(b"1"));
const NOOP: Packet = Packet::Text(Bytes::from_static(b"6"));

/// What a request means for its session.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The session goes on.
    Continue,
    /// The connection has ended for this cause: tell it, and free the slot. Nothing more is to be said
    /// to the client.
    End(Cause),
    /// The closed session has said its last; the slot is free.
    Free,
}

/// A WebSocket that wants to take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Candidate {
    None,
    /// It has not probed yet.
    Held(ConnKey),
    /// It has probed: GETs do not wait.
    Probed(ConnKey),
}

/// The transport's state.
#[derive(Debug)]
pub struct Polling {
    packets: VecDeque<Packet>,
    bytes: usize,
    /// Packets and bytes among them that a recovered session is owed at once: not held against it.
    excused: (usize, usize),
    get: Option<Sender<PollAnswer>>,
    /// A POST is arriving.
    posting: bool,
    candidate: Candidate,
    /// A request has ended the session: nobody is to hear of it any more.
    ended: bool,
    /// The session has ended here; until then a GET may fetch what is left.
    linger_until: Option<Millis>,
}

impl Default for Polling {
    fn default() -> Self {
        Self {
            packets: VecDeque::new(),
            bytes: 0,
            excused: (0, 0),
            get: None,
            posting: false,
            candidate: Candidate::None,
            ended: false,
            linger_until: None,
        }
    }
}

impl Polling {
    /// Queues a packet; [`Self::flush`] lets it leave.
    ///
    /// # Errors
    /// [`Cause::Slow`]: the client does not fetch what waits; the session must end.
    pub fn send(&mut self, packet: Packet) -> Result<(), Cause> {
        let (Packet::Text(bytes) | Packet::Binary(bytes)) = &packet;
        self.bytes += bytes.len();
        self.packets.push_back(packet);
        // One packet may be of any size that the message limit allows.
        let (packets, bytes) = (self.packets.len() - self.excused.0, self.bytes - self.excused.1);
        let too_much = packets > MAX_PACKETS || (packets > 1 && bytes > MAX_BYTES);
        if too_much { Err(Cause::Slow) } else { Ok(()) }
    }

    /// Queues complete server frames as packets: those of a room's log, or of a replay.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_frames(&mut self, frames: Bytes) -> Result<(), Cause> {
        packets(frames).try_for_each(|packet| self.send(packet))
    }

    /// Queues what a recovered session missed, then the reply to its CONNECT: they leave in one body,
    /// however many they are.
    pub fn recovered(&mut self, missed: Bytes, reply: Packet) {
        for packet in packets(missed).chain([reply]) {
            let (Packet::Text(bytes) | Packet::Binary(bytes)) = &packet;
            self.bytes += bytes.len();
            self.excused = (self.excused.0 + 1, self.excused.1 + bytes.len());
            self.packets.push_back(packet);
        }
    }

    /// Lets what waits leave by the waiting GET: after every turn that may have queued something.
    pub fn flush(&mut self) -> Verdict {
        if self.packets.is_empty() {
            return Verdict::Continue;
        }
        match self.get.take() {
            Some(get) => self.answer(get),
            None => Verdict::Continue,
        }
    }

    /// The first answer: what the connection has queued while it opened.
    pub fn opened(&mut self, key: ConnKey, answer: Sender<PollAnswer>) -> Verdict {
        let packets = self.take_packets();
        sent(answer.send(PollAnswer::Opened { key, packets }).is_ok())
    }

    /// A GET has come.
    pub fn on_get(&mut self, answer: Sender<PollAnswer>) -> Verdict {
        if self.linger_until.is_some() {
            // What was queued before the end still counts; the close is the last of it.
            let _gone = answer.send(PollAnswer::Packets(self.take_packets()));
            return Verdict::Free;
        }
        if self.get.is_some() {
            self.end();
            let _gone = answer.send(PollAnswer::Refused);
            return Verdict::End(Cause::Protocol);
        }
        if !self.packets.is_empty() {
            return self.answer(answer);
        }
        if matches!(self.candidate, Candidate::Probed(_)) {
            return sent(answer.send(PollAnswer::Packets(vec![NOOP])).is_ok());
        }
        self.get = Some(answer);
        Verdict::Continue
    }

    /// A POST begins to arrive. `true`: read it; else the session ends.
    pub fn on_post_begin(&mut self) -> bool {
        self.linger_until.is_none() && !std::mem::replace(&mut self.posting, true)
    }

    /// The POST's body is here.
    pub fn on_post(&mut self) {
        self.posting = false;
    }

    /// A request has broken a rule of polling, or broke: the waiting GET hears of it, and nothing is left.
    /// Then [`Self::close`] it.
    pub fn end(&mut self) {
        self.ended = true;
        if let Some(get) = self.get.take() {
            let _gone = get.send(PollAnswer::Packets(vec![CLOSE]));
        }
    }

    /// The connection ends. With a GET waiting, or when the client has closed or is gone, nothing is
    /// left and the slot is [`Verdict::Free`]; else a GET in the next 30 s hears of it.
    pub fn close(&mut self, cause: Cause, now: Millis) -> Verdict {
        let last = if cause == Cause::Client { NOOP } else { CLOSE };
        if matches!(cause, Cause::Slow | Cause::Drain | Cause::Shed | Cause::Reset | Cause::Unavailable) {
            self.leave_events_to_the_next_session();
        }
        if let Some(get) = self.get.take() {
            self.packets.push_back(last);
            let _gone = get.send(PollAnswer::Packets(self.take_packets()));
            return Verdict::Free;
        }
        if self.ended || matches!(cause, Cause::Client | Cause::Transport | Cause::PingTimeout | Cause::Replaced) {
            return Verdict::Free;
        }
        self.packets.push_back(last);
        self.linger_until = Some(now + LINGER_MS);
        Verdict::Continue
    }

    /// The stock client handles a close before the events of the same body: it keeps those for its next
    /// connection and does not count them in its offset, so a session that continues from there would bring
    /// them twice. Acknowledgements it takes at any time.
    fn leave_events_to_the_next_session(&mut self) {
        self.packets.retain(|packet| match packet {
            Packet::Text(text) => !text.starts_with(b"42") && !text.starts_with(b"45"),
            Packet::Binary(_) => false,
        });
    }

    /// The closed session is forgotten at this time.
    pub fn deadline(&self) -> Option<Millis> {
        self.linger_until
    }

    /// The session has ended here and only waits to say so.
    pub fn is_closed(&self) -> bool {
        self.linger_until.is_some()
    }

    /// The WebSocket that wants to take over, if there is one: it ends with the session.
    pub fn candidate(&self) -> Option<ConnKey> {
        match self.candidate {
            Candidate::None => None,
            Candidate::Held(key) | Candidate::Probed(key) => Some(key),
        }
    }

    /// Holds the session for a WebSocket; false when another holds it or it has ended.
    pub fn hold(&mut self, by: ConnKey) -> bool {
        let free = self.candidate == Candidate::None && self.linger_until.is_none();
        if free {
            self.candidate = Candidate::Held(by);
        }
        free
    }

    /// The WebSocket has probed: the waiting GET and those that come are answered at once.
    pub fn release(&mut self, by: ConnKey) {
        if self.candidate == Candidate::Held(by) {
            self.candidate = Candidate::Probed(by);
            if let Some(get) = self.get.take() {
                let packets = if self.packets.is_empty() { vec![NOOP] } else { self.take_packets() };
                let _gone = get.send(PollAnswer::Packets(packets));
            }
        }
    }

    /// The WebSocket is gone without an upgrade; the session lives on here.
    pub fn let_go(&mut self, by: ConnKey) {
        if self.candidate() == Some(by) {
            self.candidate = Candidate::None;
        }
    }

    /// The WebSocket takes over: what is to leave on it first, in order.
    pub fn upgrade(mut self) -> VecDeque<Packet> {
        if let Some(get) = self.get.take() {
            let _gone = get.send(PollAnswer::Packets(vec![NOOP]));
        }
        std::mem::take(&mut self.packets)
    }

    fn answer(&mut self, get: Sender<PollAnswer>) -> Verdict {
        let packets = self.take_packets();
        sent(get.send(PollAnswer::Packets(packets)).is_ok())
    }

    fn take_packets(&mut self) -> Vec<Packet> {
        (self.bytes, self.excused) = (0, (0, 0));
        std::mem::take(&mut self.packets).into()
    }
}

/// Complete server frames as packets; ends at the first that is none.
fn packets(mut frames: Bytes) -> impl Iterator<Item = Packet> {
    std::iter::from_fn(move || {
        let (opcode, payload) = read_server_frame(&frames)?;
        let next = payload.end;
        let payload = frames.slice(payload);
        frames = frames.slice(next..);
        Some(if opcode == Opcode::Binary { Packet::Binary(payload) } else { Packet::Text(payload) })
    })
}

/// Reads a POST's body, packet by packet. `take` hands one to the connection and says whether it goes on.
///
/// # Errors
/// [`Cause::Protocol`]: a packet is wrong. Those before it have been taken, those behind it are not.
pub fn read_post(body: &[u8], mut take: impl FnMut(Incoming<'_>) -> bool) -> Result<(), Cause> {
    let body = std::str::from_utf8(body).map_err(|_| Cause::Protocol)?;
    for packet in engineio::packets(body) {
        let goes_on = match packet.map_err(|_| Cause::Protocol)? {
            PollingPacket::Binary(bytes) => take(Incoming::Binary(&bytes)),
            PollingPacket::Text(text) => match engineio::parse(text) {
                Ok(engineio::Packet::Ping(_)) | Err(_) => return Err(Cause::Protocol),
                Ok(_) => take(Incoming::Text(text)),
            },
        };
        if !goes_on {
            break;
        }
    }
    Ok(())
}

/// A request that went away while packets were on their way to it: they are lost, so the session ends
/// as a broken transport.
fn sent(sent: bool) -> Verdict {
    if sent { Verdict::Continue } else { Verdict::End(Cause::Transport) }
}

impl PollCall {
    /// The session that the call is for and the secret that it brings; `None` for a new one.
    pub fn session(&self) -> Option<(ConnKey, [u8; 16])> {
        match self {
            Self::Open { .. } => None,
            Self::Check { key, secret }
            | Self::Get { key, secret }
            | Self::PostBegin { key, secret }
            | Self::Post { key, secret, .. }
            | Self::Abandon { key, secret } => Some((*key, *secret)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::websocket::FrameBuffer;
    use proptest::prelude::*;
    use tokio::sync::oneshot::{self, Receiver};

    fn get(polling: &mut Polling) -> (Verdict, Receiver<PollAnswer>) {
        let (sender, receiver) = oneshot::channel();
        (polling.on_get(sender), receiver)
    }

    fn text(text: &'static str) -> Packet {
        Packet::Text(Bytes::from_static(text.as_bytes()))
    }

    fn packets(receiver: &mut Receiver<PollAnswer>) -> Option<Vec<Packet>> {
        match receiver.try_recv() {
            Ok(PollAnswer::Packets(packets)) => Some(packets),
            _ => None,
        }
    }

    #[test]
    fn e05_a_get_waits_and_gets_all_in_order() {
        let mut polling = Polling::default();
        let (_, mut first) = get(&mut polling);
        assert_eq!(polling.flush(), Verdict::Continue);
        assert!(packets(&mut first).is_none());
        for packet in ["4a", "4b"] {
            polling.send(text(packet)).expect("room");
        }
        assert_eq!(polling.flush(), Verdict::Continue);
        assert_eq!(packets(&mut first), Some(vec![text("4a"), text("4b")]));
        polling.send(text("4c")).expect("room");
        assert_eq!(packets(&mut get(&mut polling).1), Some(vec![text("4c")]), "what waits needs no flush");
    }

    #[test]
    fn e07_packets_behind_a_bad_one_are_not_taken() {
        let read = |body: &[u8]| {
            let mut taken = Vec::new();
            let result = read_post(body, |packet| {
                taken.push(format!("{packet:?}"));
                true
            });
            (taken.len(), result)
        };
        assert_eq!(read("4a\u{1e}bAQID\u{1e}4b".as_bytes()), (3, Ok(())));
        for bad in ["4a\u{1e}9\u{1e}4b", "4a\u{1e}\u{1e}4b", "4a\u{1e}b?\u{1e}4b", "4a\u{1e}2\u{1e}4b"] {
            assert_eq!(read(bad.as_bytes()), (1, Err(Cause::Protocol)), "{bad:?}");
        }
        assert_eq!(read(b""), (0, Err(Cause::Protocol)));
        assert_eq!(read(b"4\xff"), (0, Err(Cause::Protocol)));
    }

    #[test]
    fn e08_a_second_get_ends_the_session() {
        let mut polling = Polling::default();
        let (_, mut first) = get(&mut polling);
        let (verdict, mut second) = get(&mut polling);
        assert_eq!(verdict, Verdict::End(Cause::Protocol));
        assert_eq!(packets(&mut first), Some(vec![CLOSE]));
        assert!(matches!(second.try_recv(), Ok(PollAnswer::Refused)));
        assert_eq!(polling.close(Cause::Protocol, 0), Verdict::Free, "it does not linger");
    }

    #[test]
    fn e09_a_second_post_is_not_read() {
        let mut polling = Polling::default();
        assert!(polling.on_post_begin());
        assert!(!polling.on_post_begin());
    }

    #[test]
    fn e12_the_clients_close_releases_its_get() {
        let mut polling = Polling::default();
        let (_, mut waiting) = get(&mut polling);
        assert_eq!(polling.close(Cause::Client, 0), Verdict::Free);
        assert_eq!(packets(&mut waiting), Some(vec![NOOP]));
    }

    #[test]
    fn e13_the_servers_close_is_told_once() {
        let mut polling = Polling::default();
        polling.send(text("41")).expect("room");
        assert_eq!(polling.close(Cause::Kicked, 1_000), Verdict::Continue);
        assert_eq!(polling.deadline(), Some(31_000));
        let (verdict, mut last) = get(&mut polling);
        assert_eq!(verdict, Verdict::Free);
        assert_eq!(packets(&mut last), Some(vec![text("41"), CLOSE]));
        assert_eq!(Polling::default().close(Cause::PingTimeout, 0), Verdict::Free);
    }

    #[test]
    fn r10_a_session_that_may_continue_ends_without_events_in_the_body_of_its_close() {
        for (cause, kept) in [(Cause::Slow, false), (Cause::Drain, false), (Cause::Shed, false), (Cause::Kicked, true)]
        {
            let mut polling = Polling::default();
            for packet in [text("42[1]"), text("431[]"), text("451-[1]"), Packet::Binary(Bytes::from_static(b"a"))] {
                polling.send(packet).expect("room");
            }
            assert_eq!(polling.close(cause, 0), Verdict::Continue);
            let body = packets(&mut get(&mut polling).1).expect("a body");
            let all = [text("42[1]"), text("431[]"), text("451-[1]"), Packet::Binary(Bytes::from_static(b"a")), CLOSE];
            assert_eq!(body, if kept { all.to_vec() } else { vec![text("431[]"), CLOSE] }, "{cause:?}");
        }
    }

    #[test]
    fn e14_packets_for_a_broken_get_end_the_session() {
        let mut polling = Polling::default();
        drop(get(&mut polling));
        polling.send(text("4a")).expect("room");
        assert_eq!(polling.flush(), Verdict::End(Cause::Transport));
    }

    #[test]
    fn e22_and_e23_gets_are_released_and_nothing_is_lost() {
        let probe = ConnKey { shard: 0, slot: 7, generation: 1 };
        let mut polling = Polling::default();
        let (_, mut waiting) = get(&mut polling);
        assert!(polling.hold(probe));
        assert!(packets(&mut waiting).is_none(), "the probe decides, not the handshake");
        polling.release(probe);
        assert_eq!(packets(&mut waiting), Some(vec![NOOP]));
        assert_eq!(packets(&mut get(&mut polling).1), Some(vec![NOOP]));
        polling.send(text("4a")).expect("room");
        assert_eq!(packets(&mut get(&mut polling).1), Some(vec![text("4a")]));
        polling.send(text("4b")).expect("room");
        assert_eq!(polling.upgrade(), [text("4b")]);
    }

    #[test]
    fn e25_and_e26_one_probe_at_a_time_and_it_may_go() {
        let (one, two) = (ConnKey { shard: 0, slot: 1, generation: 0 }, ConnKey { shard: 0, slot: 2, generation: 0 });
        let mut polling = Polling::default();
        assert!(polling.hold(one));
        assert!(!polling.hold(two));
        polling.let_go(two);
        polling.release(two);
        assert_eq!(polling.candidate(), Some(one));
        polling.release(one);
        polling.let_go(one);
        let (verdict, _waiting) = get(&mut polling);
        assert_eq!(verdict, Verdict::Continue, "GETs wait again");
        assert!(polling.hold(two));
    }

    #[test]
    fn r10_on_polling_the_missed_events_come_first_and_the_reply_last_in_one_body() {
        let mut missed = Vec::new();
        for _ in 0..MAX_PACKETS + 1 {
            let mut buffer = FrameBuffer::with_capacity(8);
            buffer.payload().extend_from_slice(b"42[1]");
            missed.extend_from_slice(&buffer.finish(Opcode::Text));
        }
        let mut polling = Polling::default();
        polling.recovered(missed.into(), text("40{}"));
        assert_eq!(polling.send(text("4live")), Ok(()), "what it is owed is not held against it");
        let body = packets(&mut get(&mut polling).1).expect("a body");
        assert_eq!(body.len(), MAX_PACKETS + 3);
        assert_eq!(body[MAX_PACKETS..], [text("42[1]"), text("40{}"), text("4live")]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut polling = Polling::default();
        assert_eq!((0..=MAX_PACKETS).find_map(|_| polling.send(text("4")).err()), Some(Cause::Slow));
        let mut polling = Polling::default();
        let large = Packet::Text(vec![b'4'; 1_000_000].into());
        assert_eq!(polling.send(large.clone()), Ok(()), "one message is never too large");
        assert_eq!(polling.send(large), Err(Cause::Slow));
    }

    proptest! {
        #[test]
        fn frames_become_packets(payloads in proptest::collection::vec((any::<bool>(), 0usize..70_000), 0..4)) {
            let mut frames = Vec::new();
            for (binary, length) in &payloads {
                let mut buffer = FrameBuffer::with_capacity(*length);
                buffer.payload().extend(std::iter::repeat_n(b'x', *length));
                frames.extend_from_slice(&buffer.finish(if *binary { Opcode::Binary } else { Opcode::Text }));
            }
            let mut polling = Polling::default();
            if polling.send_frames(frames.into()).is_ok() {
                let read: Vec<_> = polling.upgrade().into_iter().map(|p| match p {
                    Packet::Text(bytes) => (false, bytes.len()),
                    Packet::Binary(bytes) => (true, bytes.len()),
                }).collect();
                prop_assert_eq!(read, payloads);
            }
        }

        #[test]
        fn any_bytes_are_frames_or_nothing(bytes: Vec<u8>) {
            let _ = Polling::default().send_frames(bytes.into());
        }
    }
}
