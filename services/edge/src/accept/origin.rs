//! Which pages may talk to this edge: the Origin that browsers send. Pure.
//!
//! Source: RFC 6454; fault model, row SEC1.

/// A page's origin, in lower case, with its port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Origin {
    /// Reads `scheme://host[:port]` and nothing behind it.
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
        if scheme.is_empty() || !scheme.bytes().all(plain) {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = host_and_port(rest)?;
        Some(Self { port: port.or_else(|| default_port(&scheme)), host, scheme })
    }
}

/// Splits `host[:port]`; the host in lower case. IPv6 stands in brackets.
fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.rfind(':') {
        Some(colon) if !text[colon..].contains(']') => (&text[..colon], Some(&text[colon + 1..])),
        _ => (text, None),
    };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let good = match literal {
        Some(address) => address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.'),
        None => host.bytes().all(allowed),
    };
    if host.is_empty() || !good {
        return None;
    }
    let port = match port {
        None => None,
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().ok()?),
        Some(_) => return None,
    };
    Some((host.to_ascii_lowercase(), port))
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

/// What the Origin of a request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// There is none: no browser, or a request of the page itself.
    Absent,
    /// It may: the value for `Access-Control-Allow-Origin`.
    Allowed(&'a str),
    /// It may not.
    Refused,
}

/// The pages that may: the request's own host, and those of `--allowed-origins`.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    listed: Vec<Origin>,
    /// Listed as they stand: `null`, or a scheme without a host.
    opaque: Vec<String>,
    any: bool,
}

impl Origins {
    /// Reads the list of `--allowed-origins`: `https://host[:port]`, `null`, or `*` for all.
    ///
    /// # Errors
    /// The entry that is none of these.
    pub fn parse<S: AsRef<str>>(list: &[S]) -> Result<Self, String> {
        let mut origins = Self::default();
        for entry in list.iter().map(AsRef::as_ref) {
            match (entry, Origin::parse(entry)) {
                ("*", _) => origins.any = true,
                ("null" | "file://", _) => origins.opaque.push(entry.to_owned()),
                (_, Some(origin)) => origins.listed.push(origin),
                (_, None) => {
                    return Err(format!("{entry:?} is no origin; https://host, https://host:port, null or * is"));
                }
            }
        }
        Ok(origins)
    }

    /// Judges a request by its `Origin` headers and its `Host`.
    pub fn check<'a>(&self, mut headers: impl Iterator<Item = &'a [u8]>, host: Option<&str>) -> Verdict<'a> {
        let Some(first) = headers.next() else { return Verdict::Absent };
        let Ok(text) = std::str::from_utf8(first) else { return Verdict::Refused };
        if headers.next().is_some() || text.is_empty() {
            return Verdict::Refused;
        }
        let allowed = self.any && text.bytes().all(|b| b.is_ascii_graphic())
            || self.opaque.iter().any(|listed| listed == text)
            || Origin::parse(text).is_some_and(|origin| self.listed.contains(&origin) || is_own(&origin, host));
        if allowed { Verdict::Allowed(text) } else { Verdict::Refused }
    }
}

/// The page came from where the request goes. The scheme is not compared: TLS ends before the edge.
fn is_own(origin: &Origin, host: Option<&str>) -> bool {
    let Some((host, port)) = host.and_then(host_and_port) else { return false };
    matches!(origin.scheme.as_str(), "http" | "https")
        && origin.host == host
        && origin.port == port.or_else(|| default_port(&origin.scheme))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn judge(allowed: &[&str], origins: &[&str], host: &str) -> bool {
        let list = Origins::parse(allowed).expect("a good list");
        let verdict = list.check(origins.iter().map(|o| o.as_bytes()), Some(host));
        assert_ne!(verdict, Verdict::Absent);
        matches!(verdict, Verdict::Allowed(_))
    }

    #[test]
    fn sec1_the_own_host_is_allowed_and_look_alikes_are_not() {
        for good in
            ["http://good.com", "https://good.com", "https://GOOD.com", "https://good.com:443", "http://good.com:80"]
        {
            assert!(judge(&[], &[good], "good.com"), "{good}");
        }
        assert!(judge(&[], &["http://localhost:5000"], "LOCALHOST:5000"));
        assert!(judge(&[], &["http://[::1]:5000"], "[::1]:5000"));
        for bad in [
            "",
            "null",
            "file://",
            "good.com",
            "https://good.com.evil.com",
            "https://evil-good.com",
            "https://good.com:8443",
            "https://good.com/",
            "https://good.com@evil.com",
            "https://xn--good-x.com",
            "ftp://good.com",
            "https://",
            "https://good.com:",
            "https://good.com:443:443",
            "https://good.com%00",
            "//good.com",
            "https://good.com evil.com",
        ] {
            assert!(!judge(&[], &[bad], "good.com"), "{bad}");
        }
        assert!(!judge(&[], &["https://good.com", "https://good.com"], "good.com"), "two headers");
    }

    #[test]
    fn sec1_listed_origins_match_scheme_host_and_port() {
        let list = ["https://app.example", "http://dev.example:8080", "null"];
        for good in ["https://app.example", "https://app.example:443", "http://dev.example:8080", "null"] {
            assert!(judge(&list, &[good], "chat.example"), "{good}");
        }
        for bad in [
            "http://app.example",
            "https://app.example:8443",
            "https://dev.example:8080",
            "file://",
            "https://x.app.example",
        ] {
            assert!(!judge(&list, &[bad], "chat.example"), "{bad}");
        }
        assert!(judge(&["*"], &["https://any.where"], "chat.example"));
    }

    #[test]
    fn a_missing_origin_is_no_browsers_and_a_bad_entry_is_named() {
        assert_eq!(Origins::default().check(std::iter::empty(), Some("good.com")), Verdict::Absent);
        assert!(Origins::parse(&["https://a.example/path"]).is_err_and(|e| e.contains("https://a.example/path")));
    }

    proptest! {
        #[test]
        fn any_origin_gets_a_verdict(text: Vec<u8>, host: String) {
            let verdict = Origins::default().check(std::iter::once(text.as_slice()), Some(&host));
            if let Verdict::Allowed(origin) = verdict {
                let place = origin.to_ascii_lowercase();
                prop_assert!(place.ends_with(&host.to_ascii_lowercase()) || place.contains(&host.to_ascii_lowercase()));
            }
        }
    }
}
