//! `/invitation`: where an invited person chooses a password.
//!
//! The link is `/invitation#SECRET`: what stands behind the `#` never leaves the browser, so it is in no log of a proxy and in no
//! `Referer`. A few lines of script, the only ones that the page's policy lets run, move it into the form; without script it is
//! pasted there. The form is sent by POST, and what was sent is never put into the answer.

use std::sync::OnceLock;

use askama::Template;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    RETRY_AFTER,
};
use http::{Method, StatusCode};
use sha2::{Digest as _, Sha256};
use wharf_core::Registry;
use wharf_core::access::{Caller, Circumstances, Password, SHORTEST_PASSWORD};
use wharf_core::identity::{IdentityError, accept_invitation};
use wharf_oci::percent;

use crate::http::body::Body;
use crate::http::{ApiError, Request, Response};

/// Largest form, in bytes.
const LARGEST: u64 = 16 << 10;
/// Where browsers say which page made a request.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Moves the secret from the address into the form, and out of the history.
const SCRIPT: &str = "const code = location.hash.slice(1);\n\
if (code) {\n\
  document.getElementById(\"code\").value = code;\n\
  history.replaceState(null, \"\", location.pathname);\n\
}\n";

#[derive(Template)]
#[template(path = "invitation.html")]
struct Page<'a> {
    host: &'a str,
    script: &'static str,
    shortest: usize,
    /// Who has become a user.
    name: Option<&'a str>,
    /// What is wrong with what was sent.
    problem: Option<&'a str>,
}

/// GET: the form. POST: what came of it.
pub async fn invitation(
    mut request: Request,
    registry: &Registry,
    authority: Option<&str>,
) -> Response {
    let host = authority.or(request.host.as_deref()).unwrap_or("localhost");
    let host = host.to_owned();
    if request.method != Method::POST {
        return page(StatusCode::OK, &host, None, None);
    }
    let (status, told, wait) = match accept(&mut request, registry).await {
        Ok(name) => {
            tracing::info!(user = name, "an invitation was accepted");
            return page(StatusCode::CREATED, &host, Some(&name), None);
        }
        Err(refused) => refused,
    };
    let mut answer = page(status, &host, None, Some(&told));
    if let Some(seconds) = wait {
        let seconds = HeaderValue::from(seconds);
        answer.headers_mut().insert(RETRY_AFTER, seconds);
    }
    answer
}

/// Status, what is wrong, and in how many seconds it may be otherwise.
type Refused = (StatusCode, String, Option<u64>);

async fn accept(request: &mut Request, registry: &Registry) -> Result<String, Refused> {
    let bad = |text: &str| (StatusCode::BAD_REQUEST, text.to_owned(), None);
    let from = request.headers.get(SEC_FETCH_SITE);
    if !matches!(
        from.map(HeaderValue::as_bytes),
        None | Some(b"same-origin" | b"none")
    ) {
        let text = "another site's page sent this; open the link yourself";
        return Err((StatusCode::FORBIDDEN, text.to_owned(), None));
    }
    let form = request.body.collect(LARGEST).await;
    let form = form.map_err(|_| bad("the form did not arrive whole, or is too long"))?;
    let form = std::str::from_utf8(&form).map_err(|_| bad("the form is not UTF-8"))?;
    let field = |wanted: &str| {
        let mut found = percent::query_pairs(form).filter(|(key, _)| *key == *wanted);
        let value = found.next().map(|(_, value)| value.into_owned());
        value.filter(|_| found.next().is_none())
    };
    let (Some(code), Some(password), Some(again)) =
        (field("code"), field("password"), field("again"))
    else {
        return Err(bad("the form needs the code and the password twice"));
    };
    if password != again {
        return Err(bad("the two passwords are not the same"));
    }
    let (code, password) = (Password::new(code.trim()), Password::new(password));
    let address = request.peer.addr.map(|peer| peer.ip());
    let came = Circumstances::new(address, registry.clock.now_ms());
    let origin = Caller::anonymous().under(came).origin(request.id.as_str());
    let accepted = accept_invitation(registry, Some(came), &code, password);
    let accepted = Box::pin(origin.scope(accepted)).await;
    accepted.map_err(|error| match error {
        IdentityError::Unknown(text) => (StatusCode::NOT_FOUND, text, None),
        IdentityError::Password(rule) => bad(&rule.to_string()),
        IdentityError::Limited(limited) => {
            let seconds = limited.retry_after.as_secs();
            let text = format!("too many tries from your address; try again in {seconds} s");
            (StatusCode::TOO_MANY_REQUESTS, text, Some(seconds))
        }
        error => {
            tracing::error!(%error, "an invitation could not be accepted");
            let text = "the registry cannot do this now; try again in a moment, the invitation is still good";
            (StatusCode::SERVICE_UNAVAILABLE, text.to_owned(), Some(5))
        }
    })
}

fn page(status: StatusCode, host: &str, name: Option<&str>, problem: Option<&str>) -> Response {
    let page = Page {
        host,
        script: SCRIPT,
        shortest: SHORTEST_PASSWORD,
        name,
        problem,
    };
    let Ok(text) = page.render() else {
        return ApiError::internal().into_response();
    };
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Ok(policy) = HeaderValue::from_str(policy()) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// Nothing but this page's own script and style, and a form that is sent here.
fn policy() -> &'static str {
    static POLICY: OnceLock<String> = OnceLock::new();
    POLICY.get_or_init(|| {
        let hash = STANDARD.encode(Sha256::digest(SCRIPT));
        format!(
            "default-src 'none'; script-src 'sha256-{hash}'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'; \
             frame-ancestors 'none'"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_escaped_and_only_our_script_runs() {
        let page = Page {
            host: "<script>alert(1)</script>",
            script: SCRIPT,
            shortest: 8,
            name: None,
            problem: Some("<img src=x>"),
        };
        let text = page.render().unwrap();
        assert!(
            !text.contains("alert(1)</script>") && !text.contains("<img"),
            "{text}"
        );
        // The browser hashes what stands between the tags.
        let script = text.split("<script>").nth(1).unwrap();
        let script = script.split("</script>").next().unwrap();
        let hash = STANDARD.encode(Sha256::digest(script));
        assert!(policy().contains(&format!("'sha256-{hash}'")), "{script:?}");
        assert_eq!(text.matches("<script").count(), 1);
    }
}
