//! What arrives: sockets from the handshake, and bytes on them.

use super::Adopt;
use super::core::Core;
use super::slot::Phase;
use super::stats::add;
use crate::conn::{Cause, Close, Incoming};
use crate::wire::websocket::{Event, Limits, Opcode, Parser};
use mio::unix::SourceFd;
use std::io::{self, Read};
use std::os::fd::AsRawFd;

/// Reads of one connection before the others have their turn.
const READS_PER_TURN: usize = 4;

impl Core {
    /// The poll's name for a connection.
    pub(super) fn token(&self, index: u32) -> mio::Token {
        let generation = self.slab.get(index).generation & 0x7FFF_FFFF;
        mio::Token((generation as usize) << 32 | index as usize)
    }

    /// The connection that an event of the poll is for.
    pub(super) fn find_token(&self, token: mio::Token) -> Option<u32> {
        let index = token.0 as u32;
        let there = (index as usize) < self.slab.slots.len() && self.token(index) == token;
        there.then_some(index)
    }

    /// Takes a socket in.
    pub(super) fn adopt(&mut self, adopt: Adopt) {
        let Adopt { socket, leftover, connection, options, place, trace } = adopt;
        let descriptor = socket.as_raw_fd();
        // A full shard closes the socket; the accept loop counts connections and refuses before that.
        let Some(index) = self.slab.insert(connection, Some(socket)) else { return };
        self.seat(index, place);
        self.slab.at(index).options = self.intern(options);
        let interest = mio::Interest::READABLE | mio::Interest::WRITABLE;
        if self.registry.register(&mut SourceFd(&descriptor), self.token(index), interest).is_err() {
            return self.broken(index);
        }
        let key = self.slab.key(index);
        if let Some(mut span) = trace {
            span.set("http.response.status_code", 101);
            span.set("plaza.connection.id", key.to_string());
            self.upgrades.insert(index, span.context().clone());
        }
        self.enter(index, |connection, now, out| connection.on_open(key, now, out));
        self.settle(index);
        if self.drain_until != 0 && self.slab.get(index).phase == Phase::Open {
            self.close_within(index);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut current = index;
        for piece in leftover.chunks(buffer.len()) {
            buffer[..piece.len()].copy_from_slice(piece);
            current = self.feed(current, &mut buffer[..piece.len()]);
        }
        self.buffer = buffer;
        self.settle(current);
    }

    /// Reads what a socket has.
    pub(super) fn on_readable(&mut self, index: u32, ended: bool) {
        let mut index = index;
        let mut buffer = std::mem::take(&mut self.buffer);
        for turn in 1.. {
            let Some(socket) = &self.slab.sockets[index as usize] else { break };
            let mut socket = socket;
            match socket.read(&mut buffer) {
                Ok(0) => {
                    self.broken(index);
                    break;
                }
                Ok(read) => {
                    add(&self.handle.stats().received_bytes, read as u64);
                    index = self.feed(index, &mut buffer[..read]);
                    if read < buffer.len() && !ended {
                        break;
                    }
                    if turn == READS_PER_TURN {
                        self.again.push_back(index);
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.broken(index);
                    break;
                }
            }
        }
        self.buffer = buffer;
        self.settle(index);
    }

    /// Gives bytes to a connection, message by message; the connection that has the socket then.
    fn feed(&mut self, index: u32, bytes: &mut [u8]) -> u32 {
        let mut index = index;
        if !matches!(self.slab.get(index).phase, Phase::Open | Phase::Closing) {
            return index;
        }
        let mut at = 0;
        let mut parser = std::mem::replace(&mut self.slab.at(index).parser, Parser::NEW);
        let mut generation = self.slab.get(index).generation;
        loop {
            let options = self.options_of(index);
            let limits = Limits {
                max_message_bytes: options.max_message_bytes,
                max_fragments: options.max_fragments,
                text: options.text,
                binary: options.binary,
            };
            match parser.next(bytes, &mut at, &limits, self.now()) {
                Ok(None) => break,
                Ok(Some(Event::Text(text))) => self.on_message(index, Incoming::Text(text)),
                Ok(Some(Event::Binary(data))) => self.on_message(index, Incoming::Binary(data)),
                Ok(Some(Event::Ping(payload))) => self.on_ping(index, payload),
                Ok(Some(Event::Pong)) => self.on_pong(index),
                Ok(Some(Event::Close(code))) => {
                    self.on_peer_close(index, code);
                    return index;
                }
                Err(violation) => {
                    self.on_violation(index, violation);
                    return index;
                }
            }
            if let Some(session) = self.moved_to.take() {
                index = session;
                generation = self.slab.get(index).generation;
            }
            let slot = self.slab.get(index);
            if slot.generation != generation || !matches!(slot.phase, Phase::Open | Phase::Closing) {
                return index;
            }
        }
        let begun = parser.incomplete_since();
        self.slab.at(index).parser = parser;
        if begun.is_some() {
            self.set_timer(index);
        }
        index
    }

    fn on_message(&mut self, index: u32, message: Incoming<'_>) {
        self.enter(index, |connection, now, out| connection.on_message(message, now, out));
    }

    /// A ping is answered at once; while the socket is full, only the latest is.
    fn on_ping(&mut self, index: u32, payload: &[u8]) {
        if self.slab.get(index).phase != Phase::Open || !self.admit_control(index) {
            return;
        }
        let mut frame = [0; 127];
        let frame = pong(&mut frame, payload);
        match &mut self.slab.at(index).outbox {
            Some(outbox) => outbox.set_pong(frame),
            None => self.push_private(index, frame),
        }
    }

    fn on_pong(&mut self, index: u32) {
        if self.slab.get(index).phase == Phase::Open && self.admit_control(index) {
            self.enter(index, |connection, now, out| connection.on_pong(now, out));
        }
    }

    /// Counts a control frame; `false`: it was one too many, and the connection is closed.
    fn admit_control(&mut self, index: u32) -> bool {
        let max = self.options_of(index).control_frames_per_second;
        let second = (self.now() / 1_000) as u32;
        let slot = self.slab.at(index);
        if slot.control_second != second {
            (slot.control_second, slot.control_frames) = (second, 0);
        }
        slot.control_frames = slot.control_frames.saturating_add(1);
        let admitted = max == 0 || slot.control_frames <= max;
        if !admitted {
            let close = Close { code: Some(1008), reason: "too many control frames", cause: Cause::Limit };
            self.close(index, &close);
        }
        admitted
    }
}

/// A pong frame on the stack; a ping carries at most 125 bytes.
fn pong<'a>(frame: &'a mut [u8; 127], payload: &[u8]) -> &'a [u8] {
    let length = payload.len().min(125);
    frame[0] = 0x80 | Opcode::Pong as u8;
    frame[1] = length as u8;
    frame[2..2 + length].copy_from_slice(&payload[..length]);
    &frame[..2 + length]
}
