//! The opening handshake (RFC 6455, section 4.2).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION};
use http::header::{HeaderName, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Method, Version};
use sha1::{Digest, Sha1};

/// Why a handshake is refused. The connection closes after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 400, with what was wrong.
    #[error("{0}")]
    Bad(&'static str),
    /// 426 with `Sec-WebSocket-Version: 13`.
    #[error("only version 13 of the WebSocket protocol is spoken here")]
    Version,
}

/// Checks the request for an upgrade; the value of `Sec-WebSocket-Accept` that accepts it.
///
/// # Errors
/// [`Refusal`]: not GET, not HTTP/1.1, `Upgrade` or `Connection` without its token, a body, a version
/// other than 13, or a key that is not 16 bytes in base64.
pub fn check_upgrade(parts: &Parts) -> Result<String, Refusal> {
    let headers = &parts.headers;
    if parts.method != Method::GET {
        return Err(Refusal::Bad("a WebSocket handshake is a GET request"));
    }
    if parts.version != Version::HTTP_11 {
        return Err(Refusal::Bad("a WebSocket handshake needs HTTP/1.1"));
    }
    if !has_token(headers, &UPGRADE, "websocket") || !has_token(headers, &CONNECTION, "upgrade") {
        return Err(Refusal::Bad("the headers Upgrade: websocket and Connection: Upgrade are missing"));
    }
    let empty = headers.get_all(CONTENT_LENGTH).iter().all(|value| value.as_bytes() == b"0");
    if !empty || headers.contains_key(TRANSFER_ENCODING) {
        return Err(Refusal::Bad("a WebSocket handshake has no body"));
    }
    if only(headers, &SEC_WEBSOCKET_VERSION) != Some(b"13") {
        return Err(Refusal::Version);
    }
    let key = only(headers, &SEC_WEBSOCKET_KEY).filter(|key| STANDARD.decode(key).is_ok_and(|key| key.len() == 16));
    let key = key.ok_or(Refusal::Bad("the header Sec-WebSocket-Key is not 16 bytes in base64"))?;
    let digest = Sha1::new().chain_update(key).chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    Ok(STANDARD.encode(digest))
}

/// The first of `ours` that the client offered, in our order of preference.
pub fn choose_subprotocol(headers: &HeaderMap, ours: &[&'static str]) -> Option<&'static str> {
    ours.iter().copied().find(|name| tokens(headers, &SEC_WEBSOCKET_PROTOCOL).any(|offered| offered == *name))
}

/// The value of a header that stands exactly once, without blanks round it.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.as_bytes().trim_ascii())
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|found| found.eq_ignore_ascii_case(token))
}

/// The tokens of a list header, over all its lines.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn parts(method: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri("/ws");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    const GOOD: [(&str, &str); 4] = [
        ("upgrade", "h2c, WebSocket"),
        ("connection", "keep-alive, UPGRADE"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ];

    fn without(name: &str, more: &[(&'static str, &'static str)]) -> Parts {
        let kept = GOOD.into_iter().filter(|(n, _)| *n != name);
        parts("GET", &kept.chain(more.iter().copied()).collect::<Vec<_>>())
    }

    #[test]
    fn w01_the_handshake_of_the_standard_is_accepted() {
        assert_eq!(check_upgrade(&parts("GET", &GOOD)).as_deref(), Ok("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    }

    #[test]
    fn w01_everything_else_is_refused() {
        assert!(check_upgrade(&parts("POST", &GOOD)).is_err());
        for name in ["upgrade", "connection", "sec-websocket-key"] {
            assert!(matches!(check_upgrade(&without(name, &[])), Err(Refusal::Bad(_))), "{name}");
        }
        for key in ["", "short", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZXg="] {
            assert!(check_upgrade(&without("sec-websocket-key", &[("sec-websocket-key", key)])).is_err(), "{key}");
        }
        for version in ["", "8", "12", "013"] {
            let parts = without("sec-websocket-version", &[("sec-websocket-version", version)]);
            assert_eq!(check_upgrade(&parts), Err(Refusal::Version), "{version}");
        }
        assert_eq!(check_upgrade(&without("sec-websocket-version", &[])), Err(Refusal::Version));
        assert!(check_upgrade(&without("", &[("content-length", "5")])).is_err());
        assert!(check_upgrade(&without("", &[("transfer-encoding", "chunked")])).is_err());
        assert!(check_upgrade(&without("", &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")])).is_err());
        let mut old = parts("GET", &GOOD);
        old.version = Version::HTTP_10;
        assert!(check_upgrade(&old).is_err());
    }

    #[test]
    fn a_subprotocol_is_one_that_was_offered_in_our_order() {
        let ours = ["plaza.v1.proto", "plaza.v1.json"];
        let offered = |value: &'static str| without("", &[("sec-websocket-protocol", value)]).headers;
        assert_eq!(choose_subprotocol(&offered("chat, plaza.v1.json"), &ours), Some("plaza.v1.json"));
        assert_eq!(choose_subprotocol(&offered("plaza.v1.json,plaza.v1.proto"), &ours), Some("plaza.v1.proto"));
        assert_eq!(choose_subprotocol(&offered("PLAZA.V1.JSON"), &ours), None);
        assert_eq!(choose_subprotocol(&HeaderMap::new(), &ours), None);
    }
}
