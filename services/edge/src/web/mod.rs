//! The chat page at `/`: its files are part of the binary, and nothing comes from elsewhere.
//!
//! Every response carries the same strict policy: scripts, styles and images from this origin only, a
//! socket back to this origin, no frames, no forms, and no way for a script to put markup into the
//! page. The files have no version in their names, so a browser asks again each time (`no-cache`) and
//! is mostly told that nothing changed (`ETag`, 304): pages never mix files of two releases.

use axum::Router;
use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HOST, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use sha2::{Digest, Sha256};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// One file of the page.
#[derive(Debug)]
struct File {
    path: &'static str,
    content_type: &'static str,
    body: &'static str,
}

/// Every file, by the path it is served at.
const FILES: &[File] = &[
    File { path: "/", content_type: HTML, body: include_str!("index.html") },
    File { path: "/assets/style.css", content_type: CSS, body: include_str!("style.css") },
    File { path: "/assets/icon.svg", content_type: SVG, body: include_str!("icon.svg") },
    File { path: "/assets/app.js", content_type: JS, body: include_str!("app.js") },
    File { path: "/assets/backoff.js", content_type: JS, body: include_str!("backoff.js") },
    File { path: "/assets/chat.js", content_type: JS, body: include_str!("chat.js") },
    File { path: "/assets/composer.js", content_type: JS, body: include_str!("composer.js") },
    File { path: "/assets/connection.js", content_type: JS, body: include_str!("connection.js") },
    File { path: "/assets/i18n.js", content_type: JS, body: include_str!("i18n.js") },
    File { path: "/assets/outbox.js", content_type: JS, body: include_str!("outbox.js") },
    File { path: "/assets/room.js", content_type: JS, body: include_str!("room.js") },
    File { path: "/assets/sidebar.js", content_type: JS, body: include_str!("sidebar.js") },
    File { path: "/assets/storage.js", content_type: JS, body: include_str!("storage.js") },
    File { path: "/assets/text.js", content_type: JS, body: include_str!("text.js") },
    File { path: "/assets/timeline.js", content_type: JS, body: include_str!("timeline.js") },
    File { path: "/assets/words.js", content_type: JS, body: include_str!("words.js") },
];

/// Routes of the page: GET and HEAD of `/` and of `/assets/...`.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.iter().fold(Router::new(), |router, file| {
        let etag = etag(file.body);
        router.route(file.path, get(move |headers: HeaderMap| async move { respond(file, &etag, &headers) }))
    })
}

fn respond(file: &File, etag: &HeaderValue, request: &HeaderMap) -> Response<Body> {
    let unchanged = request.get_all(IF_NONE_MATCH).iter().any(|known| names(known, etag));
    let body = if unchanged { Body::empty() } else { Body::from(file.body) };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.content_type));
    headers.insert(ETAG, etag.clone());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, policy(request.get(HOST)));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin"));
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    response
}

/// The Content-Security-Policy. Browsers before CSP 3 do not count a socket to the page's own host as
/// `'self'`, so the host is named when the request's `Host` is one.
fn policy(host: Option<&HeaderValue>) -> HeaderValue {
    let sockets = host
        .and_then(|host| host.to_str().ok())
        .filter(|host| is_host(host))
        .map(|host| format!(" ws://{host} wss://{host}"))
        .unwrap_or_default();
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'{sockets}; \
         frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    );
    HeaderValue::try_from(policy).expect("a policy of visible ASCII is a header value")
}

/// A name or address with an optional port and nothing that could end a directive.
fn is_host(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']'))
}

/// Strong validator of a file: the first 96 bits of its hash.
fn etag(body: &str) -> HeaderValue {
    let hash = Sha256::digest(body.as_bytes());
    let tag = format!("\"{}\"", B64.encode(&hash[..12]));
    HeaderValue::try_from(tag).expect("base64url in quotes is a header value")
}

/// Whether an `If-None-Match` list names this tag, by weak comparison (RFC 9110, section 13.1.2).
fn names(list: &HeaderValue, etag: &HeaderValue) -> bool {
    let tag = etag.to_str().unwrap_or_default();
    list.to_str()
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

#[cfg(test)]
mod tests;
