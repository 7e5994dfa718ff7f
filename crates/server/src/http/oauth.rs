//! Answers as OAuth has them (RFC 6749, 5), for programs that sign in from a terminal. Nothing here is kept by anybody.

use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, PRAGMA, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use wharf_core::terminal::TerminalError;
use wharf_oci::{media_type, percent};

use super::{Body, Response};

/// How programs name the grant of RFC 8628.
pub const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// The exchange of a token of another issuer for one of ours (RFC 8693).
pub const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// When to come back while too many wait.
const COME_BACK: Duration = Duration::from_secs(60);

/// An answer in JSON.
pub fn answer(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::full(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// A refusal, by its word.
pub fn refused(error: &TerminalError) -> Response {
    let (status, wait) = match error {
        TerminalError::Store(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            Some(Duration::from_secs(5)),
        ),
        TerminalError::Full => (StatusCode::TOO_MANY_REQUESTS, Some(COME_BACK)),
        TerminalError::Limited(limited) => {
            (StatusCode::TOO_MANY_REQUESTS, Some(limited.retry_after))
        }
        _ => (StatusCode::BAD_REQUEST, None),
    };
    let told = match error {
        TerminalError::Store(_) => {
            "the registry cannot do this now; try again in a moment".to_owned()
        }
        error => error.to_string(),
    };
    let body = json!({"error": error.word(), "error_description": told});
    let mut response = answer(status, &body);
    if let Some(wait) = wait {
        let seconds = HeaderValue::from(wait.as_secs().max(1));
        response.headers_mut().insert(RETRY_AFTER, seconds);
    }
    response
}

/// Whether a body is, or may be, a form.
pub fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .map(|kind| kind.to_str().unwrap_or_default());
    kind.is_none_or(|kind| {
        media_type::bare(kind).eq_ignore_ascii_case("application/x-www-form-urlencoded")
    })
}

/// A field of a form; one that comes twice is refused (RFC 6749, 3.2).
pub fn field(form: &str, wanted: &str) -> Result<Option<String>, TerminalError> {
    let mut found = percent::query_pairs(form).filter(|(key, _)| *key == *wanted);
    let value = found.next().map(|(_, value)| value.into_owned());
    match found.next() {
        None => Ok(value.filter(|value| !value.is_empty())),
        Some(_) => Err(TerminalError::Request(format!(
            "the form has {wanted} more than once"
        ))),
    }
}

/// A field that has to be there.
pub fn needed(form: &str, wanted: &str) -> Result<String, TerminalError> {
    field(form, wanted)?.ok_or_else(|| TerminalError::Request(format!("{wanted} is missing")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_there_once_or_it_is_an_error() {
        assert_eq!(field("a=1&b=2", "a").unwrap().as_deref(), Some("1"));
        assert_eq!(field("a=&b=2", "a").unwrap(), None);
        assert_eq!(field("", "a").unwrap(), None);
        let twice = field("a=1&a=1", "a").unwrap_err();
        assert_eq!(
            (twice.word(), &*twice.to_string()),
            ("invalid_request", "the form has a more than once")
        );
        assert_eq!(needed("b=1", "a").unwrap_err().to_string(), "a is missing");
    }

    #[test]
    fn the_store_is_told_nothing_of() {
        let error = TerminalError::Store(wharf_core::Error::Internal("row 17".into()));
        let response = refused(&error);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
    }
}
