//! Server frames: unmasked, and therefore the same bytes for every recipient.

use bytes::Bytes;

/// Longest header of a server frame.
pub const HEADER_MAX: usize = 10;

/// Opcode of a text message.
pub const TEXT: u8 = 1;
/// Opcode of a binary message.
pub const BINARY: u8 = 2;

/// The header of a final, unmasked frame of `length` payload bytes: its bytes, and how many count.
///
/// Source: RFC 6455, section 5.2.
pub fn header(opcode: u8, length: usize) -> ([u8; HEADER_MAX], usize) {
    let mut header = [0; HEADER_MAX];
    header[0] = 0x80 | opcode;
    match length {
        0..=125 => {
            header[1] = length as u8;
            (header, 2)
        }
        126..=0xffff => {
            header[1] = 126;
            header[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            (header, 4)
        }
        _ => {
            header[1] = 127;
            header[2..].copy_from_slice(&(length as u64).to_be_bytes());
            (header, 10)
        }
    }
}

/// A frame that is being written: the payload goes into one buffer, behind the room of its header.
#[derive(Debug)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
}

impl FrameBuffer {
    /// Room for a payload of about so many bytes.
    pub fn with_capacity(payload_bytes: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEADER_MAX + payload_bytes);
        bytes.resize(HEADER_MAX, 0);
        Self { bytes }
    }

    /// Where the payload is appended.
    pub fn payload(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The whole frame, without a copy of the payload.
    pub fn finish(mut self, opcode: u8) -> Bytes {
        let (header, length) = header(opcode, self.bytes.len() - HEADER_MAX);
        let start = HEADER_MAX - length;
        self.bytes[start..HEADER_MAX].copy_from_slice(&header[..length]);
        Bytes::from(self.bytes).slice(start..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_take_their_shortest_form() {
        let frame = |n: usize| {
            let mut buffer = FrameBuffer::with_capacity(n);
            buffer.payload().resize(HEADER_MAX + n, b'x');
            buffer.finish(TEXT)
        };
        assert_eq!(frame(0).as_ref(), [0x81, 0]);
        assert_eq!(frame(125)[..3], [0x81, 125, b'x']);
        assert_eq!(frame(126)[..5], [0x81, 126, 0, 126, b'x']);
        assert_eq!(frame(65_535)[..5], [0x81, 126, 0xff, 0xff, b'x']);
        assert_eq!(frame(65_536)[..11], [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0, b'x']);
    }
}
