//! Parsers of single values. Each error says what was wrong and what would be right.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// An IP address with a port.
///
/// # Errors
/// A sentence with examples: host names are not addresses to listen on.
pub fn addr(text: &str) -> Result<SocketAddr, String> {
    let example = "write an IP address and a port, such as 127.0.0.1:8000 or [::1]:8000";
    text.parse().map_err(|_| format!("`{text}` is not an address; {example}"))
}

/// A whole number, with `_` between digits and the units `KiB`, `MiB` and `GiB`.
///
/// # Errors
/// A sentence, with the range when the number is outside of it.
pub fn integer(text: &str, range: &RangeInclusive<u64>) -> Result<u64, String> {
    const UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("", 1)];
    let number = with_unit(text, &UNITS).ok_or_else(|| {
        format!(
            "`{text}` is not a whole number; write one from {} to {}, such as 4096 or 64KiB",
            range.start(),
            range.end()
        )
    })?;
    if range.contains(&number) {
        return Ok(number);
    }
    Err(format!("is {number}, but {} to {} is allowed", range.start(), range.end()))
}

/// A time with the unit `ms`, `s`, `m`, `h` or `d`; without a unit, seconds. The range is in
/// milliseconds.
///
/// # Errors
/// A sentence, with the range when the time is outside of it.
pub fn duration(text: &str, range_ms: &RangeInclusive<u64>) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 6] =
        [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("", 1000)];
    let millis = with_unit(text, &UNITS)
        .ok_or_else(|| format!("`{text}` is not a time; write one such as 20s, 300ms, 2m or 7d"))?;
    if range_ms.contains(&millis) {
        return Ok(Duration::from_millis(millis));
    }
    let (low, high) = (show_millis(*range_ms.start()), show_millis(*range_ms.end()));
    Err(format!("is {}, but {low} to {high} is allowed", show_millis(millis)))
}

/// Whether a switch is on.
///
/// # Errors
/// A sentence that names the texts that are understood.
pub fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

/// Digits before the first unit that fits, times that unit; `None` when they are no number or do
/// not fit into 64 bits.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    digits.replace('_', "").parse::<u64>().ok()?.checked_mul(*factor)
}

/// Milliseconds as people write them: the largest unit that loses nothing.
fn show_millis(millis: u64) -> String {
    for (unit, factor) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if millis >= factor && millis.is_multiple_of(factor) {
            return format!("{}{unit}", millis / factor);
        }
    }
    format!("{millis}ms")
}
