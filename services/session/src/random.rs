//! Random names and secrets.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use rand::RngExt;

/// The identity of a store's data: 22 characters base64url, 128 random bits.
pub fn boot() -> String {
    B64.encode(rand::rng().random::<[u8; 16]>())
}

/// 32 bytes of a new secret.
pub fn key() -> [u8; 32] {
    rand::rng().random()
}

/// A number of an edge, not 0.
pub fn edge_number() -> u32 {
    rand::rng().random_range(1..=u32::MAX)
}
