use super::*;
use axum::http::Request;
use http_body_util::BodyExt;
use tower::ServiceExt;

async fn ask(request: Request<Body>) -> (StatusCode, HeaderMap, String) {
    let (parts, body) = router::<()>().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

async fn get_file(path: &str) -> (StatusCode, HeaderMap, String) {
    ask(Request::get(path).header("host", "chat.example:5000").body(Body::empty()).unwrap()).await
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).unwrap().to_str().unwrap()
}

#[tokio::test]
async fn every_file_has_its_type_its_tag_and_the_security_headers() {
    for file in FILES {
        let (status, headers, body) = get_file(file.path).await;
        assert_eq!(status, StatusCode::OK, "{}", file.path);
        assert_eq!(body, file.body);
        assert_eq!(text(&headers, "content-type"), file.content_type);
        assert_eq!(text(&headers, "cache-control"), "no-cache");
        assert_eq!(text(&headers, "x-content-type-options"), "nosniff");
        assert_eq!(text(&headers, "referrer-policy"), "no-referrer");
        assert_eq!(
            text(&headers, "content-security-policy"),
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
             connect-src 'self' ws://chat.example:5000 wss://chat.example:5000; \
             frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
        );
        let tag = text(&headers, "etag");
        assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() == 18, "{tag}");
    }
}

#[tokio::test]
async fn a_known_tag_is_answered_without_a_body() {
    let (_, headers, _) = get_file("/").await;
    let tag = text(&headers, "etag");
    for known in [tag.to_owned(), format!("\"other\", W/{tag}"), "*".to_owned()] {
        let request = Request::get("/").header("if-none-match", &known).body(Body::empty()).unwrap();
        let (status, headers, body) = ask(request).await;
        assert_eq!((status, body.as_str()), (StatusCode::NOT_MODIFIED, ""), "{known}");
        assert!(headers.contains_key("content-security-policy"));
    }
    let request = Request::get("/").header("if-none-match", "\"other\"").body(Body::empty()).unwrap();
    assert_eq!(ask(request).await.0, StatusCode::OK);
}

#[tokio::test]
async fn head_has_headers_and_no_body_and_other_methods_are_refused() {
    let request = Request::head("/").body(Body::empty()).unwrap();
    let (status, headers, body) = ask(request).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, ""));
    assert_eq!(text(&headers, "content-type"), HTML);
    let request = Request::post("/").body(Body::empty()).unwrap();
    assert_eq!(ask(request).await.0, StatusCode::METHOD_NOT_ALLOWED);
}

#[test]
fn a_host_that_is_none_cannot_enter_the_policy() {
    for bad in ["", "a b", "x; script-src *", "x,y", "x'self'", "x/y", &"a".repeat(256)] {
        let policy = policy(HeaderValue::from_str(bad).ok().as_ref());
        assert!(policy.to_str().unwrap().contains("connect-src 'self'; frame"), "{bad}");
    }
    for good in ["localhost:5000", "[::1]:5000", "chat.example"] {
        let policy = policy(Some(&HeaderValue::from_static(good)));
        assert!(policy.to_str().unwrap().contains(&format!("wss://{good};")), "{good}");
    }
}

#[test]
fn no_file_names_another_host_or_carries_inline_code() {
    for file in FILES {
        let body = file.body.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        for outside in ["http://", "https://", "src=\"//", "href=\"//", "@import", "data:"] {
            assert!(!body.contains(outside), "{} mentions {outside}", file.path);
        }
        for markup in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
            assert!(!body.contains(markup), "{} uses {markup}", file.path);
        }
        if file.content_type == HTML {
            assert!(!body.contains("<style") && !body.contains(" style=") && !body.contains(" onclick="));
            assert!(!body.contains("<script>"));
        }
    }
}

#[test]
fn what_the_page_names_is_served() {
    let served = |path: &str| FILES.iter().any(|file| file.path == path);
    for file in FILES {
        for (before, after) in [("\"/assets/", "\""), ("from \"./", "\"")] {
            for part in file.body.split(before).skip(1) {
                let name = part.split(after).next().unwrap();
                assert!(served(&format!("/assets/{name}")), "{} wants {name}", file.path);
            }
        }
    }
}

/// The page's sentences for errors are by code, in both languages.
#[test]
fn every_error_code_has_its_words() {
    let words = FILES.iter().find(|file| file.path.ends_with("words.js")).unwrap().body;
    for code in plaza_proto::code::Code::ALL {
        let count = words.matches(&format!("error_{}:", code.as_str())).count();
        assert_eq!(count, 2, "error_{code}");
    }
}
