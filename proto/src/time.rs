//! Times of the store: RFC 3339 text in NATS headers, milliseconds since 1970-01-01 UTC everywhere else.

/// Milliseconds since 1970-01-01 UTC of a UTC time such as `2026-03-01T12:00:00.123456789Z`, the form
/// of `Nats-Time-Stamp` and of JetStream's answers. `None` for another form and for years before 1970.
///
/// Source: RFC 3339, section 5.6; digits beyond milliseconds are cut.
pub fn parse_utc(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z')?;
    let (date, time) = text.split_once('T')?;
    let (year, month, day) = three(date, '-', [4, 2, 2])?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let (hour, minute, second) = three(time, ':', [2, 2, 2])?;
    if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let millis = fraction.bytes().chain(*b"00").take(3).fold(0, |n, b| n * 10 + u64::from(b - b'0'));
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60
    {
        return None;
    }
    Some((((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis)
}

fn three(text: &str, separator: char, digits: [usize; 3]) -> Option<(u64, u64, u64)> {
    let mut parts = text.split(separator).zip(digits).map(|(part, n)| {
        (part.len() == n && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse().ok()).flatten()
    });
    let all = (parts.next()??, parts.next()??, parts.next()??);
    (text.len() == digits.iter().sum::<usize>() + 2).then_some(all)
}

/// Days since 1970-01-01 in the Gregorian calendar, years counted from March so that the leap day ends one.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_times_are_read() {
        assert_eq!(parse_utc("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse_utc("2000-02-29T23:59:59.9Z"), Some(951_868_799_900));
        assert_eq!(parse_utc("2026-11-25T01:26:46.123456789Z"), Some(1_795_570_006_123));
        for bad in ["", "2026-11-25T01:26:46", "2026-11-25T01:26:46.Z", "26-11-25T01:26:46Z", "2026-11-25T01:26:46-08Z"]
        {
            assert_eq!(parse_utc(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_time_or_none(text: String) {
            let _ = parse_utc(&text);
        }
    }
}
