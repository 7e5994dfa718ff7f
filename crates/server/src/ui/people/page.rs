//! What all pages for people share: headers, cookies, forms.
//!
//! Pages load nothing, run no script and are in no other page. A cookie is of this host alone: over TLS its name says so, and in the
//! clear there are only pages for this machine itself.

use askama::Template;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HOST, HeaderName, HeaderValue,
    LOCATION, ORIGIN, REFERRER_POLICY, SET_COOKIE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, StatusCode};
use wharf_core::access::Password;
use wharf_oci::percent;

use crate::http::body::Body;
use crate::http::{ApiError, Request, Response, Scheme};
use crate::ui::is_loopback;

/// Largest form, in bytes.
const LARGEST: u64 = 16 << 10;
/// Where browsers say which page made a request.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What a browser keeps for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cookie {
    /// A session.
    Session,
    /// What the sign-in page's form has to bring.
    Form,
    /// A sign-in that is under way at a provider.
    Flow,
    /// That somebody went to a provider to sign out there.
    Leaving,
    /// What reminds the provider of the sign-in when it ends.
    Hint,
}

impl Cookie {
    fn name(self, secure: bool) -> &'static str {
        match (self, secure) {
            (Self::Session, true) => "__Host-wharf_session",
            (Self::Session, false) => "wharf_session",
            (Self::Form, true) => "__Host-wharf_form",
            (Self::Form, false) => "wharf_form",
            (Self::Flow, true) => "__Host-wharf_flow",
            (Self::Flow, false) => "wharf_flow",
            (Self::Leaving, true) => "__Host-wharf_leaving",
            (Self::Leaving, false) => "wharf_leaving",
            (Self::Hint, true) => "__Host-wharf_hint",
            (Self::Hint, false) => "wharf_hint",
        }
    }
}

/// Whether cookies can be kept here: over TLS, or on this machine.
pub(super) fn is_safe(request: &Request) -> bool {
    request.scheme == Scheme::Https || request.host.as_deref().is_some_and(is_loopback)
}

fn is_secure(request: &Request) -> bool {
    request.scheme == Scheme::Https
}

/// The cookie of a request. Of two with one name, none: somebody may have put one beside ours.
pub(super) fn cookie(request: &Request, which: Cookie) -> Option<Password> {
    let name = which.name(is_secure(request));
    let values = request.headers.get_all(COOKIE).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    let pairs = values.flat_map(|value| value.split(';'));
    let mut found = pairs.filter_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name && value.len() <= 8_192).then(|| value.to_owned())
    });
    let value = found.next().filter(|value| !value.is_empty())?;
    found.next().is_none().then(|| Password::new(value))
}

/// Sets a cookie for so many seconds; 0 takes it away. All go along when somebody follows a link here, as a provider's answer is one,
/// and none with what another site's page sends.
pub(super) fn set(
    request: &Request,
    headers: &mut HeaderMap,
    which: Cookie,
    value: &str,
    seconds: u64,
) {
    let secure = is_secure(request);
    let name = which.name(secure);
    let secure = if secure { "; Secure" } else { "" };
    let text = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.append(SET_COOKIE, value);
    }
}

/// Whether a form was sent by a page of ours, as far as the browser says. What it says nothing of is decided by what stands in the
/// form.
pub(super) fn is_own(request: &Request) -> bool {
    let site = request.headers.get(SEC_FETCH_SITE);
    let site = matches!(
        site.map(HeaderValue::as_bytes),
        None | Some(b"same-origin" | b"none")
    );
    let origin = request.headers.get(ORIGIN);
    let host = request.host.as_deref().or_else(|| {
        let host = request.headers.get(HOST)?;
        host.to_str().ok()
    });
    let origin = origin.is_none_or(|origin| {
        let own = host.map(|host| format!("{}://{host}", request.scheme.as_str()));
        own.is_some_and(|own| origin.as_bytes().eq_ignore_ascii_case(own.as_bytes()))
    });
    site && origin
}

/// The fields of a form, each once.
#[derive(Debug)]
pub(super) struct Form(String);

impl Form {
    /// Reads the body.
    pub(super) async fn read(request: &mut Request) -> Option<Self> {
        let form = request.body.collect(LARGEST).await.ok()?;
        let form = std::str::from_utf8(&form).ok()?;
        Some(Self(form.to_owned()))
    }

    /// A field that is there once.
    pub(super) fn field(&self, wanted: &str) -> Option<String> {
        field(&self.0, wanted)
    }
}

/// A field of a query or a form that is there once.
pub(super) fn field(text: &str, wanted: &str) -> Option<String> {
    let mut found = percent::query_pairs(text).filter(|(key, _)| *key == *wanted);
    let value = found.next().map(|(_, value)| value.into_owned());
    value.filter(|_| found.next().is_none())
}

/// A page.
pub(super) fn page(status: StatusCode, page: &impl Template) -> Response {
    let Ok(text) = page.render() else {
        return ApiError::internal().into_response();
    };
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    headers.insert(CONTENT_TYPE, html);
    harden(headers);
    response
}

/// Sends the browser elsewhere.
pub(super) fn go(to: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    if let Ok(to) = HeaderValue::from_str(to) {
        headers.insert(LOCATION, to);
    }
    harden(headers);
    response
}

/// An answer to a program, which is not kept.
pub(super) fn plain(status: StatusCode, json: Option<serde_json::Value>) -> Response {
    let body = json.map_or_else(Body::empty, |json| Body::full(json.to_string()));
    let is_json = status != StatusCode::OK;
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if is_json {
        let json = HeaderValue::from_static("application/json");
        headers.insert(CONTENT_TYPE, json);
    }
    harden(headers);
    response
}

fn harden(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A form that is sent says where from, by `Origin`; to other hosts nothing is told.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    // What the policy below says to browsers that read it.
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
        ),
    );
}
