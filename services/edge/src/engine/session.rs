//! Engine.IO sessions on long-polling: slots without a descriptor, and the move to a WebSocket.

use super::core::Core;
use super::poll::{Poll, PollAnswer, PollCall};
use super::polling::{Verdict, read_post};
use super::slot::{NONE, Phase};
use crate::accept::places::Place;
use crate::bridge::ConnKey;
use crate::conn::{Cause, Close, Connection, Packet};
use crate::wire::websocket::{CodeLabel, Opcode, push_frame};
use bytes::Bytes;
use mio::unix::SourceFd;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use tokio::sync::oneshot::Sender;

impl Core {
    /// Serves a long-polling call.
    pub(super) fn on_poll(&mut self, poll: Poll) {
        let Poll { call, answer } = poll;
        let session = call.session().map(|(key, secret)| self.slab.find_session(key, secret));
        match (call, session) {
            (PollCall::Open { connection, place }, _) => self.open_polling(connection, place, answer),
            (_, None | Some(None)) => reply(answer, PollAnswer::Unknown),
            (call, Some(Some(index))) => {
                self.on_session_call(index, call, answer);
                if self.slab.get(index).phase != Phase::Free {
                    self.settle(index);
                    self.set_timer(index);
                }
            }
        }
    }

    fn open_polling(&mut self, connection: Box<dyn Connection>, place: Option<Arc<Place>>, answer: Sender<PollAnswer>) {
        let Some(index) = self.slab.insert(connection, None) else { return };
        self.seat(index, place);
        let key = self.slab.key(index);
        self.enter(index, |connection, now, out| connection.on_open(key, now, out));
        if let Some(polling) = &mut self.slab.at(index).polling {
            let verdict = polling.opened(key, answer);
            self.obey(index, &verdict);
        }
        if self.drain_until != 0 && self.slab.get(index).phase == Phase::Open {
            self.close_within(index);
        }
    }

    fn on_session_call(&mut self, index: u32, call: PollCall, answer: Sender<PollAnswer>) {
        let open = self.slab.get(index).phase == Phase::Open;
        let Some(polling) = &mut self.slab.at(index).polling else {
            return match call {
                PollCall::Check { .. } => reply(answer, PollAnswer::Accepted),
                _ => reply(answer, PollAnswer::WrongTransport),
            };
        };
        match call {
            PollCall::Open { .. } => {}
            PollCall::Check { .. } => {
                reply(answer, if open { PollAnswer::Accepted } else { PollAnswer::Unknown });
            }
            PollCall::Get { .. } => {
                let verdict = polling.on_get(answer);
                self.obey(index, &verdict);
            }
            PollCall::PostBegin { .. } => {
                if polling.on_post_begin() {
                    reply(answer, PollAnswer::Accepted);
                } else {
                    reply(answer, PollAnswer::Refused);
                    self.end_session(index, Cause::Protocol);
                }
            }
            PollCall::Post { body, .. } => {
                polling.on_post();
                let result = read_post(&body, |message| {
                    self.enter(index, |connection, now, out| connection.on_message(message, now, out));
                    self.slab.get(index).phase == Phase::Open
                });
                match result {
                    Ok(()) => reply(answer, PollAnswer::Accepted),
                    Err(cause) => {
                        reply(answer, PollAnswer::Refused);
                        self.end_session(index, cause);
                    }
                }
            }
            PollCall::Abandon { .. } => self.end_session(index, Cause::Transport),
        }
    }

    /// A request broke a rule, or broke: the session is gone at once, and only its waiting GET hears of it.
    fn end_session(&mut self, index: u32, cause: Cause) {
        if self.slab.get(index).phase != Phase::Open {
            return;
        }
        let candidate = self.slab.at(index).polling.as_mut().and_then(|polling| {
            polling.end();
            polling.candidate()
        });
        self.finish(index, cause, CodeLabel::POLLING);
        self.free(index);
        self.close_candidate(candidate, cause);
    }

    fn obey(&mut self, index: u32, verdict: &Verdict) {
        match verdict {
            Verdict::Continue => {}
            Verdict::End(cause) => self.end_session(index, *cause),
            Verdict::Free => self.free(index),
        }
    }

    /// Lets what waits leave by the waiting GET.
    pub(super) fn flush_polling(&mut self, index: u32) {
        if self.slab.get(index).phase != Phase::Open {
            return;
        }
        if let Some(polling) = &mut self.slab.at(index).polling {
            let verdict = polling.flush();
            self.obey(index, &verdict);
        }
    }

    /// Moves what the rooms have for a polling session into its queue.
    pub(super) fn serve_polling(&mut self, index: u32) {
        let Some(mut polling) = self.slab.at(index).polling.take() else { return };
        let mut steps = std::mem::take(&mut self.steps);
        let result = loop {
            self.merge(index, false, &mut steps);
            if self.merged.is_empty() {
                break Ok(());
            }
            self.count_sends(0, steps.len() as u64, 0);
            if let Err(cause) = polling.send_frames(Bytes::copy_from_slice(&self.merged)) {
                break Err(cause);
            }
        };
        self.steps = steps;
        self.slab.at(index).polling = Some(polling);
        match result {
            Ok(()) => self.flush_polling(index),
            Err(cause) => self.close(index, &Close { code: None, reason: "too slow", cause }),
        }
    }

    /// A WebSocket wants to take over a session.
    pub(super) fn probe(&mut self, index: u32, to: ConnKey, secret: [u8; 16]) {
        let key = self.slab.key(index);
        let session = self.slab.find_session(to, secret);
        let held = session.filter(|&session| {
            let slot = self.slab.at(session);
            slot.phase == Phase::Open && slot.polling.as_mut().is_some_and(|polling| polling.hold(key))
        });
        self.slab.at(index).probes = held.unwrap_or(NONE);
        self.enter(index, |connection, now, out| connection.on_probe(held.is_some(), now, out));
    }

    /// The WebSocket has probed: GETs are answered at once.
    pub(super) fn release(&mut self, index: u32) {
        let (key, session) = (self.slab.key(index), self.slab.get(index).probes);
        if session != NONE
            && let Some(polling) = &mut self.slab.at(session).polling
        {
            polling.release(key);
        }
    }

    /// The WebSocket becomes its session's transport: the descriptor moves, and the probe's slot is free.
    pub(super) fn upgrade(&mut self, index: u32) {
        let session = self.slab.get(index).probes;
        if session == NONE {
            return self.close(index, &Close { code: None, reason: "no session", cause: Cause::Protocol });
        }
        self.flush_fresh();
        if self.slab.get(index).phase != Phase::Open {
            return;
        }
        let Some(socket) = self.slab.sockets[index as usize].take() else { return };
        let token = self.token(session);
        let interest = mio::Interest::READABLE | mio::Interest::WRITABLE;
        if self.registry.reregister(&mut SourceFd(&socket.as_raw_fd()), token, interest).is_err() {
            return self.broken(index);
        }
        self.slab.sockets[session as usize] = Some(socket);
        let probe = self.slab.at(index);
        probe.probes = NONE;
        let (parser, outbox) = (std::mem::take(&mut probe.parser), probe.outbox.take());
        let (options, blocked) = (probe.options, probe.blocked);
        let slot = self.slab.at(session);
        (slot.parser, slot.outbox, slot.options, slot.blocked) = (parser, outbox, options, blocked);
        let packets = self.slab.end_polling(session).map(|polling| polling.upgrade()).unwrap_or_default();
        if let Some(handshake) = self.upgrades.remove(&index) {
            self.upgrades.insert(session, handshake);
        }
        self.free(index);
        self.moved_to = Some(session);
        let mut frames = Vec::new();
        for packet in packets {
            let (opcode, payload) = match &packet {
                Packet::Text(payload) => (Opcode::Text, payload),
                Packet::Binary(payload) => (Opcode::Binary, payload),
            };
            push_frame(&mut frames, opcode, payload);
        }
        self.push_private(session, &frames);
        self.serve_own(session, false);
        self.settle(session);
        self.set_timer(session);
    }
}

/// Answers a request; it may be gone.
fn reply(answer: Sender<PollAnswer>, with: PollAnswer) {
    let _gone = answer.send(with);
}
