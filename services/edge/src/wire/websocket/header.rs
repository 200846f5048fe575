//! Headers of client frames, checked byte by byte: a fault shows at its first byte, however the stream
//! is cut.

use super::close::Violation;
use super::frame::Opcode;
use super::parser::Limits;

/// Bytes of the longest client header: two, a 64-bit length, the mask.
pub(super) const MAX: usize = 14;

/// A complete, legal header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) opcode: Opcode,
    pub(super) fin: bool,
    pub(super) mask: [u8; 4],
    /// At most the message limit, so it fits.
    pub(super) payload: usize,
    /// Bytes of the header itself.
    pub(super) size: usize,
}

/// The message in progress, as far as a header can be wrong about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// Bytes so far.
    pub(super) bytes: usize,
    /// Fragments so far.
    pub(super) fragments: u32,
}

/// Reads the header at the start of `input`; `None`: more bytes are needed.
///
/// # Errors
/// The [`Violation`] that the bytes so far prove.
pub(super) fn read(input: &[u8], message: Option<Progress>, limits: &Limits) -> Result<Option<Header>, Violation> {
    let Some(&first) = input.first() else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(Violation::ReservedBits);
    }
    let opcode = Opcode::from_bits(first & 0x0F).ok_or(Violation::ReservedOpcode)?;
    let fin = first & 0x80 != 0;
    match (opcode, message) {
        (Opcode::Close | Opcode::Ping | Opcode::Pong, _) if !fin => return Err(Violation::Control),
        (Opcode::Continuation, None) | (Opcode::Text | Opcode::Binary, Some(_)) => {
            return Err(Violation::FragmentOrder);
        }
        (Opcode::Text, _) if !limits.text => return Err(Violation::WrongKind),
        (Opcode::Binary, _) if !limits.binary => return Err(Violation::WrongKind),
        (Opcode::Continuation, Some(progress))
            if limits.max_fragments != 0 && progress.fragments >= limits.max_fragments =>
        {
            return Err(Violation::TooManyFragments);
        }
        _ => {}
    }
    let Some(&second) = input.get(1) else { return Ok(None) };
    if second & 0x80 == 0 {
        return Err(Violation::Unmasked);
    }
    let (payload, size) = match second & 0x7F {
        short @ 0..=125 => (u64::from(short), 6),
        _ if opcode.is_control() => return Err(Violation::Control),
        126 => {
            let Some(&[high, low]) = input.get(2..4) else { return Ok(None) };
            let length = u16::from_be_bytes([high, low]);
            if length < 126 {
                return Err(Violation::Length);
            }
            (u64::from(length), 8)
        }
        _ => {
            let Some(bytes) = input.get(2..10).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok()) else {
                return Ok(None);
            };
            let length = u64::from_be_bytes(bytes);
            if length < 0x1_0000 || length >> 63 != 0 {
                return Err(Violation::Length);
            }
            (length, 14)
        }
    };
    let so_far = if opcode == Opcode::Continuation { message.map_or(0, |progress| progress.bytes) } else { 0 };
    if !opcode.is_control() && payload > limits.max_message_bytes.saturating_sub(so_far) as u64 {
        return Err(Violation::TooBig);
    }
    let Some(mask) = input.get(size - 4..size).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()) else {
        return Ok(None);
    };
    Ok(Some(Header { opcode, fin, mask, payload: payload as usize, size }))
}

/// Removes the mask from `data`, whose first byte is masked by the first byte of `mask`.
pub(super) fn unmask(data: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = data.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(wide.to_ne_bytes()) {
        *byte ^= key;
    }
}
