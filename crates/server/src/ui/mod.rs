//! Pages for people: what this is, and how to log in and push; where an invited person chooses a password; where one signs in and
//! looks after tokens and sessions.
//!
//! Nothing from elsewhere; the host that a page shows comes from the request, so it is always escaped.

mod invitation;
mod people;

pub use self::invitation::invitation;
pub use self::people::people;

use askama::Template;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};

use crate::http::body::Body;
use crate::http::{Request, Response, Scheme};

#[derive(Template)]
#[template(path = "welcome.html")]
struct Welcome<'a> {
    host: &'a str,
    version: &'a str,
    plain: bool,
}

#[derive(Template)]
#[template(path = "welcome.txt", escape = "none")]
struct WelcomeText<'a> {
    host: &'a str,
    version: &'a str,
    plain: bool,
}

/// `GET /`: HTML for browsers, text for everybody else. `authority` is the host of `server.external_url`, if set.
pub fn welcome(request: &Request, authority: Option<&str>) -> Response {
    let host = authority.or(request.host.as_deref()).unwrap_or("localhost");
    let version = env!("CARGO_PKG_VERSION");
    let plain = request.scheme == Scheme::Http && !is_loopback(host);
    let browser = request
        .headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    let (page, kind) = if browser {
        (
            Welcome {
                host,
                version,
                plain,
            }
            .render(),
            "text/html; charset=utf-8",
        )
    } else {
        (
            WelcomeText {
                host,
                version,
                plain,
            }
            .render(),
            "text/plain; charset=utf-8",
        )
    };
    let Ok(page) = page else {
        return crate::http::ApiError::internal().into_response();
    };
    let mut response = Response::new(Body::full(page));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    );
    response
}

/// Whether clients treat this host as their own machine, and so need no TLS.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name == "localhost" || name.starts_with("127.") || name == "[::1]"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_escaped() {
        let page = Welcome {
            host: "<script>alert(1)</script>",
            version: "1",
            plain: true,
        };
        let page = page.render().unwrap();
        assert!(!page.contains("<script"), "{page}");
    }

    #[test]
    fn loopback_hosts_are_known() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.0.0.1",
            "[::1]:80",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "reg.example",
            "reg.example:5000",
            "10.0.0.1",
            "[fe80::1]:80",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
