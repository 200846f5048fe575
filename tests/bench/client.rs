//! One connection of the load: no buffer of its own but the rest of a frame that was cut by a read.

use crate::speak::{Speak, Who};
use mio::net::TcpStream;
use std::io::{ErrorKind, Read, Write};

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waiting for the end of the 101.
    Upgrading,
    /// In this step of the set-up.
    Step(u16),
    /// Set up.
    Ready,
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Got<'a> {
    /// The set-up is complete.
    Ready,
    /// A message, after the set-up.
    Message(&'a [u8]),
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    phase: Phase,
    /// The beginning of a frame whose end has not been read.
    rest: Vec<u8>,
    /// What the socket did not take.
    unsent: Vec<u8>,
}

impl Client {
    pub(crate) const fn new(stream: TcpStream) -> Self {
        Self { stream, phase: Phase::Upgrading, rest: Vec::new(), unsent: Vec::new() }
    }

    /// Sends a text message.
    pub(crate) fn text(&mut self, text: &str) -> std::io::Result<()> {
        self.write(&frame(1, text.as_bytes()))
    }

    /// Sends bytes, now or when the socket takes them.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.unsent.extend_from_slice(bytes);
        self.flush()
    }

    /// Sends what was left over.
    pub(crate) fn flush(&mut self) -> std::io::Result<()> {
        let mut sent = 0;
        while sent < self.unsent.len() {
            match self.stream.write(&self.unsent[sent..]) {
                Ok(n) => sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.unsent.drain(..sent);
        if self.unsent.is_empty() {
            self.unsent = Vec::new();
        }
        Ok(())
    }

    /// Reads until the socket is empty and hands out what came; returns the number of reads with
    /// something in them.
    pub(crate) fn read(
        &mut self,
        speak: Speak,
        who: Who,
        buffer: &mut [u8],
        mut got: impl FnMut(&mut Self, Got<'_>),
    ) -> std::io::Result<u64> {
        let mut reads = 0;
        loop {
            let kept = self.rest.len();
            buffer[..kept].copy_from_slice(&self.rest);
            let read = match self.stream.read(&mut buffer[kept..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(reads),
                Err(error) => return Err(error),
            };
            reads += 1;
            let used = self.take(speak, who, &buffer[..kept + read], &mut got)?;
            self.rest = buffer[used..kept + read].to_vec();
            if kept + read < buffer.len() {
                return Ok(reads);
            }
        }
    }

    /// Handles the complete frames of `bytes`; returns how many bytes they have.
    fn take(
        &mut self,
        speak: Speak,
        who: Who,
        bytes: &[u8],
        got: &mut impl FnMut(&mut Self, Got<'_>),
    ) -> std::io::Result<usize> {
        let mut at = 0;
        if self.phase == Phase::Upgrading {
            let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(0) };
            if !bytes.starts_with(b"HTTP/1.1 101") {
                let line = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
                return Err(std::io::Error::other(format!("no upgrade: {line}")));
            }
            at = end + 4;
            self.step(speak, who, 0, got)?;
        }
        while let Some((opcode, start, end)) = next_frame(&bytes[at..]) {
            let payload = &bytes[at + start..at + end];
            match opcode {
                8 => return Err(std::io::Error::other(format!("closed: {payload:?}"))),
                9 => self.write(&frame(10, payload))?,
                _ if speak == Speak::SocketIo && payload == b"2" => self.text("3")?,
                _ => match self.phase {
                    Phase::Step(n) => {
                        let step = speak.step(usize::from(n), who).expect("a client is in a step that exists");
                        if speak.answers(payload, &step.expect) {
                            self.step(speak, who, n + 1, got)?;
                        }
                    }
                    Phase::Ready => got(self, Got::Message(payload)),
                    Phase::Upgrading => {}
                },
            }
            at += end;
        }
        Ok(at)
    }

    /// Enters a step of the set-up, or the end of it.
    fn step(
        &mut self,
        speak: Speak,
        who: Who,
        n: u16,
        got: &mut impl FnMut(&mut Self, Got<'_>),
    ) -> std::io::Result<()> {
        match speak.step(usize::from(n), who) {
            Some(step) => {
                self.phase = Phase::Step(n);
                if step.send.is_empty() { Ok(()) } else { self.text(&step.send) }
            }
            None => {
                self.phase = Phase::Ready;
                got(self, Got::Ready);
                Ok(())
            }
        }
    }
}

/// A masked frame.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![0x80 | opcode];
    if payload.len() < 126 {
        bytes.push(0x80 | payload.len() as u8);
    } else {
        bytes.push(0x80 | 126);
        bytes.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// Opcode, begin and end of the payload of the frame at the beginning of `bytes`, if it is complete.
fn next_frame(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (start, length) = match second & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        127 => (10, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize),
        short => (2, usize::from(short)),
    };
    (bytes.len() >= start + length).then_some((first & 0x0f, start, start + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_frames_are_taken() {
        let bytes = [0x81, 3, b'a', b'b', b'c', 0x8a, 0];
        assert_eq!(next_frame(&bytes), Some((1, 2, 5)));
        assert_eq!(next_frame(&bytes[5..]), Some((10, 2, 2)));
        assert_eq!(next_frame(&bytes[..4]), None);
        assert_eq!(next_frame(&[0x81, 126, 0]), None);
    }
}
