//! What makes a request a relay: a signature that only edges can make, good once. Pure, and without a clock,
//! as those of two edges may be minutes apart.
//!
//! ```text
//! plaza-relay: <key generation> <signer> <number> <HMAC-SHA256 over method, path and query, signer, number>
//! ```
//! Each process signs under a name of its own and numbers its signatures; the owner of a session remembers
//! which numbers were here, as IPsec does (RFC 4303, section 3.4.3).
//! Source: wire reference, row N1; fault model, row SEC12.

use crate::upstream::registration::SharedKey;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use hmac::{Hmac, KeyInit, Mac};
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use sha2::Sha256;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The header that carries the signature.
pub const RELAY: HeaderName = HeaderName::from_static("plaza-relay");

/// How many numbers a signature may be behind the newest of its signer: far more than can be on their way.
const WINDOW: u64 = 65_536;

/// Signers that are remembered, 8 KiB each; beyond, the one that signed longest ago is forgotten.
const SIGNERS: usize = 1_024;

/// A name that each signing process makes up.
pub(super) type Name = [u8; 16];

/// Makes signatures, each with another number.
#[derive(Debug)]
pub struct Signer {
    name: Name,
    last: AtomicU64,
}

impl Signer {
    /// A signer of this name, which must not have signed anything yet.
    pub const fn new(name: Name) -> Self {
        Self { name, last: AtomicU64::new(0) }
    }

    /// The header's value for a request; `None` without a key. `keys` are those that are valid, newest first.
    pub fn sign(&self, keys: &[SharedKey], method: &Method, target: &str) -> Option<HeaderValue> {
        let key = keys.first()?;
        let number = self.last.fetch_add(1, Relaxed) + 1;
        let mac = mac(key, method, target, &self.name, number)?.finalize().into_bytes();
        let mut text = String::with_capacity(120);
        write!(text, "{} {} {number} {}", key.generation, B64.encode(self.name), B64.encode(mac)).ok()?;
        HeaderValue::from_str(&text).ok()
    }
}

/// Why a relay is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no signature, more than one, or none of this form.
    #[error("not signed once")]
    Unsigned,
    /// Its key is not one of those that are valid.
    #[error("signed with an unknown key")]
    Key,
    /// It does not fit the request.
    #[error("the signature does not fit")]
    Signature,
    /// It was here before, or is too old for anybody to know.
    #[error("sent twice, or long ago")]
    Repeated,
    /// The session is not of this edge: a relay is never relayed again.
    #[error("for another edge")]
    OtherEdge,
}

impl Refused {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Unsigned, Self::Key, Self::Signature, Self::Repeated, Self::OtherEdge];

    /// The label of the metric.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Repeated => "repeated",
            Self::OtherEdge => "other_edge",
        }
    }
}

/// Checks a request's signature: who signed it, with which number. `target` is its path and query as sent.
///
/// # Errors
/// [`Refused`]; whether the number is new is for [`Seen`] to say.
pub(super) fn verify(
    keys: &[SharedKey],
    method: &Method,
    target: &str,
    headers: &HeaderMap,
) -> Result<(Name, u64), Refused> {
    let mut values = headers.get_all(&RELAY).iter();
    let value = values.next().and_then(|value| value.to_str().ok()).ok_or(Refused::Unsigned)?;
    if values.next().is_some() {
        return Err(Refused::Unsigned);
    }
    let (generation, name, number, signature) = read(value).ok_or(Refused::Unsigned)?;
    let key = keys.iter().find(|key| key.generation == generation).ok_or(Refused::Key)?;
    let mac = mac(key, method, target, &name, number).ok_or(Refused::Key)?;
    mac.verify_slice(&signature).map_err(|_| Refused::Signature)?;
    Ok((name, number))
}

fn read(value: &str) -> Option<(u64, Name, u64, [u8; 32])> {
    let mut words = value.split(' ');
    let (generation, name) = (words.next()?.parse().ok()?, B64.decode(words.next()?).ok()?);
    let (number, signature) = (words.next()?.parse().ok()?, B64.decode(words.next()?).ok()?);
    words.next().is_none().then_some((generation, name.try_into().ok()?, number, signature.try_into().ok()?))
}

/// Over everything that the owner acts on; each part's end is unambiguous.
fn mac(key: &SharedKey, method: &Method, target: &str, name: &Name, number: u64) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(&key.secret).ok()?;
    for part in [b"plaza relay 2", method.as_str().as_bytes(), target.as_bytes()] {
        mac.update(part);
        mac.update(b"\n");
    }
    mac.update(name);
    mac.update(&number.to_be_bytes());
    Some(mac)
}

/// The signatures that were here.
#[derive(Debug, Default)]
pub(super) struct Seen {
    signers: HashMap<Name, Window>,
    adds: u64,
}

/// The last numbers of one signer: number n is bit n modulo [`WINDOW`].
#[derive(Debug)]
struct Window {
    newest: u64,
    bits: Box<[u64]>,
    /// Which [`Seen::add`] used it last.
    used: u64,
}

impl Seen {
    /// Notes a signature; false: it was here before, or is further behind than is remembered.
    pub(super) fn add(&mut self, name: Name, number: u64) -> bool {
        self.adds += 1;
        if self.signers.len() >= SIGNERS && !self.signers.contains_key(&name) {
            let oldest = self.signers.iter().min_by_key(|(_, window)| window.used).map(|(name, _)| *name);
            oldest.and_then(|oldest| self.signers.remove(&oldest));
        }
        let window = self.signers.entry(name).or_insert_with(Window::new);
        window.used = self.adds;
        window.add(number)
    }
}

impl Window {
    fn new() -> Self {
        Self { newest: 0, bits: vec![0; (WINDOW / 64) as usize].into(), used: 0 }
    }

    fn add(&mut self, number: u64) -> bool {
        if number > self.newest {
            if number - self.newest >= WINDOW {
                self.bits.fill(0);
            } else {
                (self.newest + 1..=number).for_each(|passed| *self.word(passed) &= !bit(passed));
            }
            self.newest = number;
        } else if self.newest - number >= WINDOW {
            return false;
        }
        let word = self.word(number);
        let new = *word & bit(number) == 0;
        *word |= bit(number);
        new
    }

    fn word(&mut self, number: u64) -> &mut u64 {
        &mut self.bits[(number % WINDOW / 64) as usize]
    }
}

const fn bit(number: u64) -> u64 {
    1 << (number % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const TARGET: &str = "/socket.io/?EIO=4&transport=polling&sid=x";
    const NAME: Name = [7; 16];

    fn key(generation: u64) -> SharedKey {
        SharedKey { generation, secret: [generation as u8; 32].into() }
    }

    fn headers(values: &[HeaderValue]) -> HeaderMap {
        values.iter().map(|value| (RELAY, value.clone())).collect()
    }

    fn signed(generation: u64) -> HeaderValue {
        Signer::new(NAME).sign(&[key(generation)], &Method::GET, TARGET).expect("a key")
    }

    fn check(keys: &[SharedKey], values: &[HeaderValue]) -> Result<(Name, u64), Refused> {
        verify(keys, &Method::GET, TARGET, &headers(values))
    }

    #[test]
    fn sec12_two_generations_of_keys_are_accepted_and_no_others() {
        let keys = [key(3), key(2)];
        assert_eq!(check(&keys, &[signed(3)]), Ok((NAME, 1)));
        assert_eq!(check(&keys, &[signed(2)]), Ok((NAME, 1)));
        assert_eq!(check(&keys, &[signed(1)]), Err(Refused::Key));
        assert_eq!(check(&[], &[signed(1)]), Err(Refused::Key));
        assert!(Signer::new(NAME).sign(&[], &Method::GET, TARGET).is_none());
    }

    #[test]
    fn sec12_unsigned_and_changed_requests_are_refused() {
        let keys = [key(3)];
        assert_eq!(check(&keys, &[]), Err(Refused::Unsigned));
        assert_eq!(check(&keys, &[signed(3), signed(3)]), Err(Refused::Unsigned));
        let headers = headers(&[signed(3)]);
        assert_eq!(verify(&keys, &Method::POST, TARGET, &headers), Err(Refused::Signature));
        assert_eq!(verify(&keys, &Method::GET, "/socket.io/?sid=y", &headers), Err(Refused::Signature));
        let text = signed(3).to_str().expect("it is ASCII").replace(" 1 ", " 2 ");
        let renumbered = HeaderValue::from_str(&text).expect("it is a header");
        assert_eq!(check(&keys, &[renumbered]), Err(Refused::Signature));
        let forger = [SharedKey { secret: [9; 32].into(), ..key(3) }];
        assert_eq!(check(&forger, &[signed(3)]), Err(Refused::Signature));
    }

    #[test]
    fn sec12_a_signature_is_good_once_and_not_when_it_is_long_past() {
        let mut seen = Seen::default();
        assert!(seen.add(NAME, 3) && seen.add(NAME, 1) && seen.add(NAME, 2));
        assert!(![1, 2, 3].into_iter().any(|number| seen.add(NAME, number)));
        assert!(seen.add([8; 16], 3), "of another signer");
        assert!(seen.add(NAME, WINDOW + 2));
        assert!(!seen.add(NAME, 2) && !seen.add(NAME, 3));
        assert!(seen.add(NAME, 4));
        assert!(seen.add(NAME, 10 * WINDOW) && seen.add(NAME, 9 * WINDOW + 1) && !seen.add(NAME, 9 * WINDOW));
    }

    #[test]
    fn signers_that_are_gone_make_room() {
        let mut seen = Seen::default();
        let name = |n: usize| Name::from((n as u128).to_be_bytes());
        for n in 0..SIGNERS + 10 {
            assert!(seen.add(name(0), n as u64 + 1) && (n == 0 || seen.add(name(n), 1)));
        }
        assert_eq!(seen.signers.len(), SIGNERS);
        assert!(!seen.add(name(0), 1), "who still signs is remembered");
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(value in "[ -~]{0,200}") {
            if let Ok(value) = HeaderValue::from_str(&value) {
                prop_assert!(check(&[key(3)], &[value]).is_err());
            }
        }

        #[test]
        fn within_the_window_exactly_the_repeated_ones_are_refused(numbers in prop::collection::vec(0..300_000_u64, 0..200)) {
            let (mut seen, mut set, mut newest) = (Seen::default(), HashSet::new(), 0);
            for number in numbers {
                newest = newest.max(number);
                let expected = newest - number < WINDOW && set.insert(number);
                prop_assert_eq!(seen.add(NAME, number), expected);
            }
        }
    }
}
