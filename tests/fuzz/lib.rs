//! Every parser of foreign bytes as a fuzz target: what comes from clients, from other edges, from NATS and from
//! programs that call the services. A target takes any bytes, and panics when something that must hold does not.
//!
//! `scripts/fuzz` runs libFuzzer over them; the tests of this crate try each target's seeds, whole and damaged.

mod engineio;
mod events;
mod plaza;
mod socketio;
mod texts;
mod websocket;

/// One parser, and what must hold for it.
#[derive(Debug)]
pub struct Target {
    /// As `scripts/fuzz` names it.
    pub name: &'static str,
    /// Takes any bytes; panics when something that must hold does not.
    pub check: fn(&[u8]),
    /// Inputs to begin with, which pass.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    websocket::STREAM,
    websocket::HANDSHAKE,
    websocket::SERVER_FRAMES,
    engineio::PAYLOAD,
    engineio::QUERY,
    socketio::PACKET,
    plaza::JSON,
    plaza::PROTOBUF,
    events::STORED,
    texts::TEXT,
    texts::USERNAME,
    texts::NAMES,
];

/// Texts as inputs.
fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// The input as text; other bytes are of no interest to a parser of texts.
fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

/// The text is one JSON value as browsers read it: serde_json's `Value` takes less, no half of a surrogate pair and
/// no number beyond a float's range.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok()
}

/// The text is one JSON object.
fn is_object(text: &str) -> bool {
    is_json(text) && text.trim_start().starts_with('{')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_name_of_its_own_and_seeds() {
        for (index, target) in TARGETS.iter().enumerate() {
            assert!(TARGETS[..index].iter().all(|other| other.name != target.name), "{}", target.name);
            assert!(!(target.seeds)().is_empty(), "{}", target.name);
        }
    }

    /// Each seed; each cut off after each of its bytes; each with each of its bytes turned into some others.
    #[test]
    fn every_target_takes_its_seeds_whole_and_damaged() {
        for target in TARGETS {
            for seed in (target.seeds)() {
                (target.check)(&seed);
                for place in 0..seed.len() {
                    (target.check)(&seed[..place]);
                    for byte in [0x00, 0x7F, 0x80, 0xFF, b'"', b'0', seed[place] ^ 1, seed[place] ^ 0x40] {
                        let mut damaged = seed.clone();
                        damaged[place] = byte;
                        (target.check)(&damaged);
                    }
                }
            }
        }
    }
}
