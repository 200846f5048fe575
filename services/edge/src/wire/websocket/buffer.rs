//! A server frame that is being written, for encoders of shared frames.

use super::frame::{MAX_HEADER, Opcode, frame_header};
use bytes::{Buf, Bytes};

/// A frame that is being written: the payload goes into one buffer, behind the room of its header.
#[derive(Debug)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
}

impl FrameBuffer {
    /// Room for a payload of about so many bytes.
    pub fn with_capacity(payload_bytes: usize) -> Self {
        let mut bytes = Vec::with_capacity(MAX_HEADER + payload_bytes);
        bytes.resize(MAX_HEADER, 0);
        Self { bytes }
    }

    /// Where the payload is appended.
    pub fn payload(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The whole frame, without a copy of the payload.
    pub fn finish(mut self, opcode: Opcode) -> Bytes {
        let header = frame_header(opcode, self.bytes.len() - MAX_HEADER);
        let start = MAX_HEADER - header.len();
        self.bytes[start..MAX_HEADER].copy_from_slice(&header);
        let mut frame = Bytes::from(self.bytes);
        frame.advance(start);
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_take_their_shortest_form() {
        let frame = |n: usize| {
            let mut buffer = FrameBuffer::with_capacity(n);
            buffer.payload().resize(MAX_HEADER + n, b'x');
            buffer.finish(Opcode::Text)
        };
        assert_eq!(frame(0).as_ref(), [0x81, 0]);
        assert_eq!(frame(125)[..3], [0x81, 125, b'x']);
        assert_eq!(frame(126)[..5], [0x81, 126, 0, 126, b'x']);
        assert_eq!(frame(65_535)[..5], [0x81, 126, 0xff, 0xff, b'x']);
        assert_eq!(frame(65_536)[..11], [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0, b'x']);
    }
}
