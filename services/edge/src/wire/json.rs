//! Pieces of JSON: written by hand into one buffer, read without building a tree.

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// Largest integer of a JSON number that every client reads exactly.
pub const MAX_INTEGER: u64 = (1 << 53) - 1;

/// Writes a string with its quotes, escaped as JavaScript does it.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    if serde_json::to_writer(&mut *out, text).is_err() {
        unreachable!("a string is always written to memory");
    }
}

/// Whether a text stands in JSON as it is, without escapes.
// Without an early exit the compiler looks at many bytes at a time.
#[inline]
pub fn is_plain(text: &str) -> bool {
    text.bytes().fold(true, |plain, b| plain & (b >= b' ' && b != b'"' && b != b'\\'))
}

/// Writes several pieces of text as one string.
pub fn write_pieces(out: &mut Vec<u8>, pieces: &[&str]) {
    out.push(b'"');
    for piece in pieces {
        if is_plain(piece) {
            out.extend_from_slice(piece.as_bytes());
        } else {
            // With quotes of its own, which go again.
            let start = out.len();
            write_string(out, piece);
            out.remove(start);
            out.pop();
        }
    }
    out.push(b'"');
}

/// Writes a number.
pub fn write_integer(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    let mut rest = number;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// An object that is being written; keys are plain names that need no escape.
#[derive(Debug)]
pub struct ObjectWriter<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> ObjectWriter<'a> {
    /// Opens the object.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    /// Writes a key; its value must follow in the returned buffer.
    // In its caller the name's length is known, and the name a few moves.
    #[inline]
    pub fn key(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::replace(&mut self.first, false) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// A string.
    pub fn string(&mut self, name: &str, value: &str) -> &mut Self {
        write_pieces(self.key(name), &[value]);
        self
    }

    /// A value whose text needs no escape: an id, a position.
    pub fn plain(&mut self, name: &str, value: &[u8]) -> &mut Self {
        let out = self.key(name);
        out.push(b'"');
        out.extend_from_slice(value);
        out.push(b'"');
        self
    }

    /// A string, left out when empty.
    pub fn string_if(&mut self, name: &str, value: &str) -> &mut Self {
        if value.is_empty() { self } else { self.string(name, value) }
    }

    /// A number.
    pub fn integer(&mut self, name: &str, value: u64) -> &mut Self {
        write_integer(self.key(name), value);
        self
    }

    /// True or false.
    pub fn boolean(&mut self, name: &str, value: bool) -> &mut Self {
        self.key(name).extend_from_slice(if value { b"true" } else { b"false" });
        self
    }

    /// JSON text as it stands.
    pub fn raw(&mut self, name: &str, json: &[u8]) -> &mut Self {
        self.key(name).extend_from_slice(json);
        self
    }

    /// Closes the object.
    pub fn end(&mut self) {
        self.out.push(b'}');
    }
}

/// The text, when it is one JSON value and nothing else.
pub fn valid(json: &[u8]) -> Option<&str> {
    serde_json::from_slice::<&RawValue>(json).ok().map(RawValue::get)
}

/// A JSON array taken apart at its first elements; everything in it has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Array<'a> {
    /// The first element; `None` for `[]`.
    pub first: Option<&'a str>,
    /// The second.
    pub second: Option<&'a str>,
    /// All behind the first, without the bracket: `1,"x"`.
    pub rest: &'a str,
}

impl<'a> Array<'a> {
    /// Reads a text that is an array and nothing else; `None` for any other text.
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let (first, second) = deserializer.deserialize_seq(FirstTwo).ok()?;
        deserializer.end().ok()?;
        let rest = match first {
            None => "",
            // Both are parts of one text, so the difference of their addresses is a place in it.
            Some(first) => {
                let after = first.as_ptr() as usize - text.as_ptr() as usize + first.len();
                let inner = text[after..].trim_end().strip_suffix(']')?.trim();
                inner.strip_prefix(',').unwrap_or(inner).trim_start()
            }
        };
        Some(Self { first, second, rest })
    }
}

/// Keeps two elements as text and checks the others.
struct FirstTwo;

impl<'de> Visitor<'de> for FirstTwo {
    type Value = (Option<&'de str>, Option<&'de str>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let first = elements.next_element::<&RawValue>()?.map(RawValue::get);
        let second = if first.is_some() { elements.next_element::<&RawValue>()?.map(RawValue::get) } else { None };
        if second.is_some() {
            while elements.next_element::<IgnoredAny>()?.is_some() {}
        }
        Ok((first, second))
    }
}

/// Checks that every `{"_placeholder":true,"num":n}` in a JSON text has an integer `n` below
/// `attachments`. Nesting deeper than 128 is refused.
pub fn placeholders_fit(json: &str, attachments: usize) -> bool {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    Placeholders { attachments }.deserialize(&mut deserializer).is_ok()
}

/// Walks a value; an error is a placeholder that does not fit.
#[derive(Clone, Copy)]
struct Placeholders {
    attachments: usize,
}

/// What an object needs to know of its members.
enum Seen {
    True,
    Number(f64),
    Other,
}

impl<'de> DeserializeSeed<'de> for Placeholders {
    type Value = Seen;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Seen, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Placeholders {
    type Value = Seen;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON with placeholders of its attachments")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Seen, E> {
        Ok(if value { Seen::True } else { Seen::Other })
    }

    fn visit_u64<E>(self, value: u64) -> Result<Seen, E> {
        Ok(Seen::Number(value as f64))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Seen, E> {
        Ok(Seen::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Seen, E> {
        Ok(Seen::Number(value))
    }

    fn visit_str<E>(self, _: &str) -> Result<Seen, E> {
        Ok(Seen::Other)
    }

    fn visit_unit<E>(self) -> Result<Seen, E> {
        Ok(Seen::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Seen, A::Error> {
        while elements.next_element_seed(self)?.is_some() {}
        Ok(Seen::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Seen, A::Error> {
        let (mut placeholder, mut number) = (false, None);
        while let Some(key) = members.next_key::<std::borrow::Cow<'_, str>>()? {
            match (key.as_ref(), members.next_value_seed(self)?) {
                ("_placeholder", seen) => placeholder = matches!(seen, Seen::True),
                ("num", Seen::Number(n)) => number = Some(n),
                ("num", Seen::True | Seen::Other) => number = None,
                _ => {}
            }
        }
        let fits = |n: f64| n >= 0.0 && n.fract() == 0.0 && n < self.attachments as f64;
        if placeholder && !number.is_some_and(fits) {
            return Err(A::Error::custom("a placeholder names no attachment"));
        }
        Ok(Seen::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn array(text: &str) -> Option<(Option<&str>, Option<&str>, &str)> {
        Array::parse(text).map(|a| (a.first, a.second, a.rest))
    }

    #[test]
    fn arrays_come_apart_without_being_written_again() {
        assert_eq!(array("[]"), Some((None, None, "")));
        assert_eq!(array(r#"["a"]"#), Some((Some(r#""a""#), None, "")));
        assert_eq!(
            array(r#" [ "a" , 1.50 , {"b": [2 ]} ] "#),
            Some((Some(r#""a""#), Some("1.50"), r#"1.50 , {"b": [2 ]}"#))
        );
        assert_eq!(array(r#"[1,"x",{"k":[false]}]"#), Some((Some("1"), Some(r#""x""#), r#""x",{"k":[false]}"#)));
        for wrong in ["", "[", "{}", "1", "[1,]", "[1]x", r#"["a" "b"]"#, "[1][2]", "[01]", "[\"\u{1}\"]"] {
            assert_eq!(array(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn deep_nesting_does_not_exhaust_the_stack() {
        let deep = format!("[\"a\",{}1{}]", "[".repeat(30_000), "]".repeat(30_000));
        assert!(Array::parse(&deep).is_some());
        assert!(!placeholders_fit(&deep, 1));
    }

    #[test]
    fn s14_placeholders_must_name_an_attachment() {
        let one = |json: &str| placeholders_fit(json, 1);
        assert!(one(r#"["m",{"_placeholder":true,"num":0}]"#));
        assert!(one(r#"["m",{"_placeholder":false,"num":9},{"a":[{"num":-1}]}]"#));
        for num in ["1", "-1", "0.5", "\"0\"", "null", "true", "1e400", "99999999999999999999"] {
            assert!(!one(&format!(r#"["m",[{{"x":{{"_placeholder":true,"num":{num}}}}}]]"#)), "{num}");
        }
        assert!(!one(r#"["m",{"_placeholder":true}]"#));
    }

    proptest! {
        #[test]
        fn strings_and_numbers_are_what_serde_json_writes(text: String, number: u64) {
            let mut out = Vec::new();
            ObjectWriter::new(&mut out).string("a", &text).integer("b", number).end();
            prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&out).ok(), Some(serde_json::json!({"a": text, "b": number})));
        }

        #[test]
        fn pieces_are_one_string(pieces in proptest::collection::vec(".{0,9}|[\"\\\\\u{0}-\u{1f}a]{0,9}", 0..4)) {
            let mut out = Vec::new();
            write_pieces(&mut out, &pieces.iter().map(String::as_str).collect::<Vec<_>>());
            prop_assert_eq!(serde_json::from_slice::<String>(&out).ok(), Some(pieces.concat()));
        }

        #[test]
        fn any_text_is_an_array_or_none(text in r#"[\[\]{}",:0-9a \\.-]{0,40}"#) {
            let known = serde_json::from_str::<Vec<&RawValue>>(&text).ok();
            let read = Array::parse(&text);
            prop_assert_eq!(known.is_some(), read.is_some());
            if let (Some(known), Some(read)) = (known, read) {
                prop_assert_eq!(known.first().map(|v| v.get()), read.first);
                let rest = format!("[{}]", read.rest);
                let rest = serde_json::from_str::<Vec<&RawValue>>(&rest).expect("the rest is an array too");
                prop_assert_eq!(rest.len(), known.len().saturating_sub(1));
            }
            let _ = placeholders_fit(&text, 1);
        }
    }
}
