//! What makes a request a relay: a signature that only edges can make. Pure: time is passed in.
//!
//! ```text
//! plaza-relay: <key generation> <unix ms> <nonce> <HMAC-SHA256 over method, path and query, time, nonce>
//! ```
//! Source: wire reference, row N1; fault model, row SEC12.

use crate::upstream::registration::SharedKey;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use hmac::{Hmac, KeyInit, Mac};
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use sha2::Sha256;
use std::collections::HashSet;
use std::fmt::Write as _;

/// The header that carries the signature.
pub const RELAY: HeaderName = HeaderName::from_static("plaza-relay");

/// How far the clocks of two edges may be apart, in milliseconds.
const WINDOW_MS: u64 = 30_000;

/// Nonces of one window that are remembered; when there are more, the window ends early.
const NONCES: usize = 262_144;

/// Makes each signature another one.
pub type Nonce = [u8; 16];

/// Why a relay is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no signature, more than one, or none of this form.
    #[error("not signed once")]
    Unsigned,
    /// Its time is not now.
    #[error("expired")]
    Expired,
    /// Its key is not one of those that are valid.
    #[error("signed with an unknown key")]
    Key,
    /// It does not fit the request.
    #[error("the signature does not fit")]
    Signature,
    /// It was here before.
    #[error("sent twice")]
    Repeated,
    /// The session is not of this edge: a relay is never relayed again.
    #[error("for another edge")]
    OtherEdge,
}

impl Refused {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Unsigned, Self::Expired, Self::Key, Self::Signature, Self::Repeated, Self::OtherEdge];

    /// The label of the metric.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::Expired => "expired",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Repeated => "repeated",
            Self::OtherEdge => "other_edge",
        }
    }
}

/// The header's value for a request; `None` without a key. `keys` are those that are valid, newest first.
pub fn sign(keys: &[SharedKey], method: &Method, target: &str, now_ms: u64, nonce: Nonce) -> Option<HeaderValue> {
    let key = keys.first()?;
    let mac = mac(key, method, target, now_ms, nonce)?.finalize().into_bytes();
    let mut text = String::with_capacity(120);
    write!(text, "{} {now_ms} {} {}", key.generation, B64.encode(nonce), B64.encode(mac)).ok()?;
    HeaderValue::from_str(&text).ok()
}

/// Checks a request's signature. `target` is its path and query as sent.
///
/// # Errors
/// [`Refused`]; whether the nonce is new is for [`Nonces`] to say.
pub(super) fn verify(
    keys: &[SharedKey],
    method: &Method,
    target: &str,
    headers: &HeaderMap,
    now_ms: u64,
) -> Result<Nonce, Refused> {
    let mut values = headers.get_all(&RELAY).iter();
    let value = values.next().and_then(|value| value.to_str().ok()).ok_or(Refused::Unsigned)?;
    if values.next().is_some() {
        return Err(Refused::Unsigned);
    }
    let (generation, time, nonce, signature) = read(value).ok_or(Refused::Unsigned)?;
    if time.abs_diff(now_ms) > WINDOW_MS {
        return Err(Refused::Expired);
    }
    let key = keys.iter().find(|key| key.generation == generation).ok_or(Refused::Key)?;
    let mac = mac(key, method, target, time, nonce).ok_or(Refused::Key)?;
    mac.verify_slice(&signature).map_err(|_| Refused::Signature)?;
    Ok(nonce)
}

fn read(value: &str) -> Option<(u64, u64, Nonce, [u8; 32])> {
    let mut words = value.split(' ');
    let (generation, time) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let (nonce, signature) = (B64.decode(words.next()?).ok()?, B64.decode(words.next()?).ok()?);
    words.next().is_none().then_some((generation, time, nonce.try_into().ok()?, signature.try_into().ok()?))
}

/// Over everything that the owner acts on; each part's end is unambiguous.
fn mac(key: &SharedKey, method: &Method, target: &str, time_ms: u64, nonce: Nonce) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(&key.secret).ok()?;
    for part in [b"plaza relay 1", method.as_str().as_bytes(), target.as_bytes()] {
        mac.update(part);
        mac.update(b"\n");
    }
    mac.update(&time_ms.to_be_bytes());
    mac.update(&nonce);
    Some(mac)
}

/// The nonces of the last two windows: a signature is good once.
#[derive(Debug, Default)]
pub(super) struct Nonces {
    now: HashSet<Nonce>,
    before: HashSet<Nonce>,
    since_ms: u64,
}

impl Nonces {
    /// Notes a nonce; false: it was here before.
    pub(super) fn add(&mut self, nonce: Nonce, now_ms: u64) -> bool {
        // A signature is valid for a window to each side of its time: two windows cover it.
        if now_ms.saturating_sub(self.since_ms) > 2 * WINDOW_MS || self.now.len() >= NONCES {
            self.before = std::mem::take(&mut self.now);
            self.since_ms = now_ms;
        }
        !self.before.contains(&nonce) && self.now.insert(nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_700_000_000_000;
    const TARGET: &str = "/socket.io/?EIO=4&transport=polling&sid=x";

    fn key(generation: u64) -> SharedKey {
        SharedKey { generation, secret: [generation as u8; 32].into() }
    }

    fn headers(values: &[HeaderValue]) -> HeaderMap {
        values.iter().map(|value| (RELAY, value.clone())).collect()
    }

    fn signed(generation: u64) -> HeaderValue {
        sign(&[key(generation)], &Method::GET, TARGET, NOW, [7; 16]).expect("a key")
    }

    fn check(keys: &[SharedKey], values: &[HeaderValue], now: u64) -> Result<Nonce, Refused> {
        verify(keys, &Method::GET, TARGET, &headers(values), now)
    }

    #[test]
    fn sec12_two_generations_of_keys_are_accepted_and_no_others() {
        let keys = [key(3), key(2)];
        assert_eq!(check(&keys, &[signed(3)], NOW), Ok([7; 16]));
        assert_eq!(check(&keys, &[signed(2)], NOW), Ok([7; 16]));
        assert_eq!(check(&keys, &[signed(1)], NOW), Err(Refused::Key));
        assert_eq!(check(&[], &[signed(1)], NOW), Err(Refused::Key));
        assert!(sign(&[], &Method::GET, TARGET, NOW, [7; 16]).is_none());
    }

    #[test]
    fn sec12_unsigned_expired_and_changed_requests_are_refused() {
        let keys = [key(3)];
        assert_eq!(check(&keys, &[], NOW), Err(Refused::Unsigned));
        assert_eq!(check(&keys, &[signed(3), signed(3)], NOW), Err(Refused::Unsigned));
        assert_eq!(check(&keys, &[signed(3)], NOW + 30_001), Err(Refused::Expired));
        assert_eq!(check(&keys, &[signed(3)], NOW - 30_001), Err(Refused::Expired));
        assert_eq!(check(&keys, &[signed(3)], NOW - 30_000), Ok([7; 16]));
        let headers = headers(&[signed(3)]);
        assert_eq!(verify(&keys, &Method::POST, TARGET, &headers, NOW), Err(Refused::Signature));
        assert_eq!(verify(&keys, &Method::GET, "/socket.io/?sid=y", &headers, NOW), Err(Refused::Signature));
        let forger = [SharedKey { secret: [9; 32].into(), ..key(3) }];
        assert_eq!(check(&forger, &[signed(3)], NOW), Err(Refused::Signature));
    }

    #[test]
    fn a_nonce_is_good_once_while_its_signature_is_valid() {
        let mut nonces = Nonces::default();
        assert!(nonces.add([1; 16], NOW));
        assert!(!nonces.add([1; 16], NOW));
        assert!(nonces.add([2; 16], NOW + 60_001));
        assert!(!nonces.add([1; 16], NOW + 60_001));
        assert!(nonces.add([3; 16], NOW + 120_002));
        assert!(nonces.add([1; 16], NOW + 120_002), "long expired");
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(value in "[ -~]{0,200}") {
            if let Ok(value) = HeaderValue::from_str(&value) {
                prop_assert!(check(&[key(3)], &[value], NOW).is_err());
            }
        }
    }
}
