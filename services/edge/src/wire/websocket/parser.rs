//! Client frames to messages, in place.

use super::close::{Violation, may_be_received};
use super::frame::Opcode;
use super::header::{self, Header, MAX, Progress};
use super::utf8::Utf8;

/// What a client may send.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a message, over all its fragments.
    pub max_message_bytes: usize,
    /// Fragments of a message; 0: no bound.
    pub max_fragments: u32,
    /// Text messages are taken.
    pub text: bool,
    /// Binary messages are taken.
    pub binary: bool,
}

/// What arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// Answer with a pong of the same payload.
    Ping(&'a [u8]),
    /// The payload does not matter.
    Pong,
    /// The client's close, with its code if it gave one. Nothing after it counts.
    Close(Option<u16>),
}

/// The state of one client's stream between two reads: nothing at all at the border of a message.
#[derive(Debug, Default)]
pub struct Parser(Option<Box<Partial>>);

/// What is incomplete.
#[derive(Debug)]
struct Partial {
    /// When it began, in the caller's milliseconds.
    since: u64,
    /// The beginning of a header.
    head: [u8; MAX],
    head_len: u8,
    /// A frame whose payload is on its way.
    frame: Option<Frame>,
    /// The payload so far of a control frame.
    control: [u8; 125],
    control_len: u8,
    /// The message in progress.
    message: Option<Message>,
    /// The message or control frame was handed out and goes at the next call.
    handed_out: Option<HandedOut>,
}

#[derive(Clone, Copy, Debug)]
enum HandedOut {
    Message,
    Control(Opcode),
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: Opcode,
    fin: bool,
    /// Turned so that its first byte is for the next byte of the payload.
    mask: [u8; 4],
    remaining: usize,
}

#[derive(Debug)]
struct Message {
    text: bool,
    fragments: u32,
    utf8: Utf8,
    data: Vec<u8>,
}

impl Parser {
    /// A stream at its beginning.
    pub const NEW: Self = Self(None);

    /// When the incomplete frame or message began, in the milliseconds that were passed to
    /// [`Self::next`]; `None`: there is none.
    pub fn incomplete_since(&self) -> Option<u64> {
        self.0.as_ref().map(|partial| partial.since)
    }

    /// Takes the next event out of `input`, from `at` on, and moves `at` behind it. `None`: `input` is
    /// used up. Payloads are unmasked in place, so `input` must not be fed twice.
    ///
    /// # Errors
    /// A [`Violation`], at the first byte that proves it; do not call again.
    pub fn next<'a>(
        &'a mut self,
        input: &'a mut [u8],
        at: &mut usize,
        limits: &Limits,
        now: u64,
    ) -> Result<Option<Event<'a>>, Violation> {
        self.forget_handed_out();
        if self.0.is_none() {
            // The usual case: a whole message, or a whole control frame, lies in the buffer.
            let Some(header) = header::read(&input[*at..], None, limits)? else {
                return Ok(self.keep_head(input, at, now));
            };
            let start = *at + header.size;
            if input.len() - start >= header.payload && header.fin {
                *at = start + header.payload;
                let payload = &mut input[start..*at];
                header::unmask(payload, header.mask);
                return whole(header.opcode, payload).map(Some);
            }
        }
        self.next_piecewise(input, at, limits, now)
    }

    /// Drops what the last call handed out of the box, and the box with it when nothing else is in it.
    fn forget_handed_out(&mut self) {
        let Some(partial) = &mut self.0 else { return };
        match partial.handed_out.take() {
            Some(HandedOut::Message) => partial.message = None,
            Some(HandedOut::Control(_)) => partial.control_len = 0,
            None => {}
        }
        if partial.is_empty() {
            self.0 = None;
        }
    }

    /// Keeps the beginning of a header, if there is one.
    fn keep_head(&mut self, input: &[u8], at: &mut usize, now: u64) -> Option<Event<'static>> {
        let rest = &input[*at..];
        *at = input.len();
        if !rest.is_empty() {
            let partial = self.0.get_or_insert_with(|| Partial::new(now));
            let used = usize::from(partial.head_len);
            partial.head[used..used + rest.len()].copy_from_slice(rest);
            partial.head_len += rest.len() as u8;
        }
        None
    }

    fn next_piecewise(
        &mut self,
        input: &mut [u8],
        at: &mut usize,
        limits: &Limits,
        now: u64,
    ) -> Result<Option<Event<'_>>, Violation> {
        let partial = self.0.get_or_insert_with(|| Partial::new(now));
        match partial.advance(input, at, limits)? {
            None if partial.is_empty() => self.0 = None,
            None => {}
            Some(done) => partial.handed_out = Some(done),
        }
        let Some(partial) = &self.0 else { return Ok(None) };
        match (partial.handed_out, &partial.message) {
            (Some(HandedOut::Control(opcode)), _) => {
                control(opcode, &partial.control[..usize::from(partial.control_len)]).map(Some)
            }
            (Some(HandedOut::Message), Some(message)) if !message.utf8.is_whole() => Err(Violation::NotUtf8),
            (Some(HandedOut::Message), Some(message)) => {
                whole(if message.text { Opcode::Text } else { Opcode::Binary }, &message.data).map(Some)
            }
            _ => Ok(None),
        }
    }
}

impl Partial {
    fn new(since: u64) -> Box<Self> {
        Box::new(Self {
            since,
            head: [0; MAX],
            head_len: 0,
            frame: None,
            control: [0; 125],
            control_len: 0,
            message: None,
            handed_out: None,
        })
    }

    /// Nothing has begun.
    fn is_empty(&self) -> bool {
        self.message.is_none() && self.frame.is_none() && self.head_len == 0
    }

    /// Takes bytes until a message or a control frame is complete, or the input is used up.
    fn advance(&mut self, input: &mut [u8], at: &mut usize, limits: &Limits) -> Result<Option<HandedOut>, Violation> {
        loop {
            if self.frame.is_none() && !self.read_head(input, at, limits)? {
                return Ok(None);
            }
            let Some(frame) = &mut self.frame else { return Ok(None) };
            let piece = frame.remaining.min(input.len() - *at);
            let payload = &mut input[*at..*at + piece];
            *at += piece;
            header::unmask(payload, frame.mask);
            frame.mask.rotate_left(piece % 4);
            frame.remaining -= piece;
            let (opcode, fin, complete) = (frame.opcode, frame.fin, frame.remaining == 0);
            self.take_payload(opcode, payload)?;
            if !complete {
                return Ok(None);
            }
            self.frame = None;
            if opcode.is_control() {
                return Ok(Some(HandedOut::Control(opcode)));
            }
            if fin {
                return Ok(Some(HandedOut::Message));
            }
        }
    }

    /// Completes the header, and begins its frame; `false`: the input is used up before that.
    fn read_head(&mut self, input: &[u8], at: &mut usize, limits: &Limits) -> Result<bool, Violation> {
        let progress = self.message.as_ref().map(|m| Progress { bytes: m.data.len(), fragments: m.fragments });
        let header = if self.head_len == 0 {
            // A header that lies whole in the input needs no copy.
            let header = header::read(&input[*at..], progress, limits)?;
            match header {
                Some(header) => {
                    *at += header.size;
                    header
                }
                None => {
                    let rest = &input[*at..];
                    *at = input.len();
                    self.head[..rest.len()].copy_from_slice(rest);
                    self.head_len = rest.len() as u8;
                    return Ok(false);
                }
            }
        } else {
            loop {
                let Some(&byte) = input.get(*at) else { return Ok(false) };
                *at += 1;
                self.head[usize::from(self.head_len)] = byte;
                self.head_len += 1;
                if let Some(header) = header::read(&self.head[..usize::from(self.head_len)], progress, limits)? {
                    self.head_len = 0;
                    break header;
                }
            }
        };
        self.begin(header);
        Ok(true)
    }

    fn begin(&mut self, header: Header) {
        let Header { opcode, fin, mask, payload, .. } = header;
        match opcode {
            Opcode::Text | Opcode::Binary => {
                self.message = Some(Message {
                    text: opcode == Opcode::Text,
                    fragments: 1,
                    utf8: Utf8::default(),
                    data: Vec::new(),
                });
            }
            Opcode::Continuation => {
                if let Some(message) = &mut self.message {
                    message.fragments += 1;
                }
            }
            Opcode::Close | Opcode::Ping | Opcode::Pong => {}
        }
        self.frame = Some(Frame { opcode, fin, mask, remaining: payload });
    }

    /// Keeps the next piece of the frame's payload, unmasked.
    fn take_payload(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), Violation> {
        if opcode.is_control() {
            // The header allows at most 125 bytes.
            let used = usize::from(self.control_len);
            self.control[used..used + payload.len()].copy_from_slice(payload);
            self.control_len += payload.len() as u8;
        } else if let Some(message) = &mut self.message {
            if message.text {
                message.utf8.push(payload).map_err(|_invalid| Violation::NotUtf8)?;
            }
            message.data.extend_from_slice(payload);
        }
        Ok(())
    }
}

/// The event of a whole payload.
fn whole(opcode: Opcode, payload: &[u8]) -> Result<Event<'_>, Violation> {
    match opcode {
        Opcode::Text => simdutf8::basic::from_utf8(payload).map(Event::Text).map_err(|_invalid| Violation::NotUtf8),
        Opcode::Binary | Opcode::Continuation => Ok(Event::Binary(payload)),
        Opcode::Close | Opcode::Ping | Opcode::Pong => control(opcode, payload),
    }
}

fn control(opcode: Opcode, payload: &[u8]) -> Result<Event<'_>, Violation> {
    match (opcode, payload) {
        (Opcode::Ping, payload) => Ok(Event::Ping(payload)),
        (Opcode::Close, []) => Ok(Event::Close(None)),
        (Opcode::Close, &[high, low, ref reason @ ..]) => {
            let code = u16::from_be_bytes([high, low]);
            if !may_be_received(code) {
                return Err(Violation::CloseCode);
            }
            std::str::from_utf8(reason).map_err(|_invalid| Violation::NotUtf8)?;
            Ok(Event::Close(Some(code)))
        }
        (Opcode::Close, _) => Err(Violation::CloseCode),
        _ => Ok(Event::Pong),
    }
}
