//! base64url (RFC 4648, section 5) without padding, for the ids and positions of which several stand in every frame:
//! their lengths are known when this is compiled. Anything else takes the library, which is also what reads them.

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// `N` bytes as `M` characters.
pub(crate) fn encode<const N: usize, const M: usize>(bytes: &[u8; N]) -> [u8; M] {
    const { assert!(M == (N * 8).div_ceil(6), "three bytes are four characters") };
    let mut text = [0; M];
    for (three, four) in bytes.chunks(3).zip(text.chunks_mut(4)) {
        let mut word = [0; 4];
        word[1..=three.len()].copy_from_slice(three);
        let word = u32::from_be_bytes(word);
        for (character, shift) in four.iter_mut().zip([18, 12, 6, 0]) {
            *character = DIGITS[(word >> shift) as usize & 63];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn texts_are_those_of_the_library(sixteen: [u8; 16], twenty_two: [u8; 22], three: [u8; 3]) {
            prop_assert_eq!(encode::<16, 22>(&sixteen).to_vec(), URL_SAFE_NO_PAD.encode(sixteen).into_bytes());
            prop_assert_eq!(encode::<22, 30>(&twenty_two).to_vec(), URL_SAFE_NO_PAD.encode(twenty_two).into_bytes());
            prop_assert_eq!(encode::<3, 4>(&three).to_vec(), URL_SAFE_NO_PAD.encode(three).into_bytes());
        }
    }
}
