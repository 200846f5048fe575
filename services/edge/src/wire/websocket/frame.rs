//! Frames as the server sends them: one header of 2, 4 or 10 bytes, never masked, never fragmented.

use bytes::Bytes;
use std::ops::Range;

/// What a frame carries (RFC 6455, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment.
    Continuation = 0,
    /// UTF-8.
    Text = 1,
    /// Bytes.
    Binary = 2,
    /// The last frame of a side.
    Close = 8,
    /// Wants a pong.
    Ping = 9,
    /// Answers a ping.
    Pong = 10,
}

impl Opcode {
    /// The opcode of a header's low four bits; `None`: reserved.
    pub(super) const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Continuation),
            1 => Some(Self::Text),
            2 => Some(Self::Binary),
            8 => Some(Self::Close),
            9 => Some(Self::Ping),
            10 => Some(Self::Pong),
            _ => None,
        }
    }

    /// Close, ping and pong.
    pub const fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// Bytes of the longest header that the server writes.
pub const MAX_HEADER: usize = 10;

/// A frame's header.
#[derive(Clone, Copy, Debug)]
pub struct FrameHeader {
    bytes: [u8; MAX_HEADER],
    len: u8,
}

impl std::ops::Deref for FrameHeader {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The header of a whole message of `payload` bytes in one frame.
pub fn frame_header(opcode: Opcode, payload: usize) -> FrameHeader {
    let mut bytes = [0; MAX_HEADER];
    bytes[0] = 0x80 | opcode as u8;
    let len = match payload {
        0..=125 => {
            bytes[1] = payload as u8;
            2
        }
        126..=0xFFFF => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&(payload as u16).to_be_bytes());
            4
        }
        _ => {
            bytes[1] = 127;
            bytes[2..].copy_from_slice(&(payload as u64).to_be_bytes());
            10
        }
    };
    FrameHeader { bytes, len }
}

/// Appends a whole frame.
pub fn push_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    out.extend_from_slice(&frame_header(opcode, payload.len()));
    out.extend_from_slice(payload);
}

/// A whole frame in bytes of its own, to be shared by all its receivers.
pub fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(MAX_HEADER + payload.len());
    push_frame(&mut out, opcode, payload);
    out.into()
}

/// Appends a close frame. `reason` is cut to the 123 bytes that fit, at a character's border.
pub fn push_close(out: &mut Vec<u8>, code: Option<u16>, reason: &str) {
    let Some(code) = code else { return push_frame(out, Opcode::Close, &[]) };
    let fits = (0..=reason.len().min(123)).rev().find(|&end| reason.is_char_boundary(end)).unwrap_or(0);
    let reason = &reason[..fits];
    out.extend_from_slice(&frame_header(Opcode::Close, 2 + reason.len()));
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// Reads back a frame that this module wrote, at the start of `input`: its opcode and where its payload
/// lies. `None`: `input` does not begin with a whole frame.
pub fn read_server_frame(input: &[u8]) -> Option<(Opcode, Range<usize>)> {
    let opcode = Opcode::from_bits(input.first()? & 0x0F)?;
    let (start, len): (usize, usize) = match *input.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes(input.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(input.get(2..10)?.try_into().ok()?)).ok()?),
        len => (2, usize::from(len)),
    };
    let end = start.checked_add(len)?;
    (end <= input.len()).then_some((opcode, start..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w05_headers_use_the_shortest_form() {
        for (len, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let bytes = frame(Opcode::Binary, &vec![7; len]);
            assert_eq!(bytes.len(), header + len);
            assert_eq!(read_server_frame(&bytes), Some((Opcode::Binary, header..header + len)));
            assert_eq!(read_server_frame(&bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn an_engineio_ping_is_the_constant_frame() {
        assert_eq!(&frame(Opcode::Text, b"2")[..], [0x81, 0x01, 0x32]);
    }

    #[test]
    fn w11_a_close_reason_is_cut_at_a_character() {
        let mut out = Vec::new();
        push_close(&mut out, Some(1008), &"é".repeat(100));
        assert_eq!(out.len(), 2 + 2 + 122);
        out.clear();
        push_close(&mut out, None, "");
        assert_eq!(out, [0x88, 0]);
    }
}
