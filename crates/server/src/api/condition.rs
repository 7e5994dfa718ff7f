//! `ETag`, `If-None-Match` and `If-Match`: nobody overwrites what somebody else changed meanwhile.
//!
//! An entity tag here is a version in quotes: of a row, or of what a name stands for. Who sends it along with a change is told
//! when it is no longer that. The condition is looked at in the transaction of the change, so that of two who mean the same
//! version one is refused.

use std::convert::Infallible;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse as _, Response};
use http::header::{HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use http::request::Parts;
use http::{HeaderMap, StatusCode};

use serde::Serialize;
use utoipa::IntoParams;
use wharf_core::access::Set;
use wharf_meta::Meant;

use super::access::Changed;
use super::problem::{Kind, Problem};

/// Tags that one request can name at most.
const MOST_TAGS: usize = 100;

/// The conditions of a request.
pub(super) struct Conditions(HeaderMap);

impl<S: Sync> FromRequestParts<S> for Conditions {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.headers.clone()))
    }
}

impl Conditions {
    /// The version that the change is meant for (RFC 9110, 13.1.1): `*` is whatever is there, a list is one of several.
    pub(super) fn meant(&self) -> Meant {
        let values: Vec<&HeaderValue> = self.0.get_all(IF_MATCH).iter().collect();
        let lists = values
            .iter()
            .map(|value| value.to_str().unwrap_or_default());
        let tags = || lists.clone().flat_map(|list| list.split(','));
        if values.is_empty() {
            return Meant::Any;
        }
        if tags().any(|tag| tag.trim() == "*") {
            return Meant::There;
        }
        // Weak tags match nothing here, and neither does what no answer ever had.
        let version = |tag: &str| {
            let quoted = tag.trim().strip_prefix('"')?.strip_suffix('"')?;
            let version: i64 = quoted.parse().ok()?;
            (version > 0).then_some(version)
        };
        Meant::OneOf(tags().filter_map(version).take(MOST_TAGS).collect())
    }

    /// Whether the client has this version already.
    pub(super) fn has(&self, version: i64) -> bool {
        let wanted = format!("\"{version}\"");
        let values = self.0.get_all(IF_NONE_MATCH).iter();
        let lists = values.filter_map(|value| value.to_str().ok());
        lists.flat_map(|list| list.split(',')).any(|tag| {
            let tag = tag.trim();
            tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == wanted
        })
    }
}

/// The answer with its entity tag, or 304 when the client has it.
pub(super) fn versioned(version: i64, conditions: &Conditions, what: impl Serialize) -> Response {
    let etag = etag(version);
    match conditions.has(version) {
        true => (StatusCode::NOT_MODIFIED, etag).into_response(),
        false => (etag, Json(what)).into_response(),
    }
}

/// What a change did, with the entity tag of what is there since.
pub(super) fn done(set: Set) -> Response {
    let changed = Json(Changed::from(set.change));
    match set.version {
        Some(version) => (etag(version), changed).into_response(),
        None => changed.into_response(),
    }
}

/// For which state a change is meant
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "documents the header that `Conditions` reads")]
pub(super) struct IfMatch {
    /// The `ETag` that it was shown with; several with commas, or `*` for whatever is there. Otherwise the answer is 412.
    #[param(rename = "If-Match")]
    if_match: Option<String>,
}

/// The entity tag of a version.
pub(super) fn etag(version: i64) -> [(HeaderName, HeaderValue); 1] {
    let value = HeaderValue::from_str(&format!("\"{version}\""));
    [(
        http::header::ETAG,
        value.unwrap_or(HeaderValue::from_static("\"\"")),
    )]
}

/// The condition does not hold.
pub(super) fn changed() -> Problem {
    Problem::new(
        Kind::Changed,
        "it is no longer what If-Match says: somebody changed it meanwhile",
    )
    .with_cure("read it again, look whether the change is still wanted, and send its ETag")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(name: HeaderName, values: &[&'static str]) -> Conditions {
        let values = values.iter();
        let pairs = values.map(|value| (name.clone(), HeaderValue::from_static(value)));
        Conditions(pairs.collect())
    }

    #[test]
    fn versions_in_quotes_are_a_condition() {
        let meant = |values: &[&'static str]| conditions(IF_MATCH, values).meant();
        assert_eq!(meant(&[]), Meant::Any);
        assert_eq!(meant(&["*"]), Meant::There);
        assert_eq!(meant(&[" \"7\" "]), Meant::OneOf(vec![7]));
        for both in [
            &["\"7\", \"8\""][..],
            &["\"7\"", "\"8\""],
            &["\"7\",,W/\"9\",\"8\""],
        ] {
            assert_eq!(meant(both), Meant::OneOf(vec![7, 8]), "{both:?}");
        }
        // What no answer ever had is nothing that could be there, and not even that nothing is.
        for wrong in [
            "7", "W/\"7\"", "\"x\"", "\"0\"", "\"-7\"", "\"7", "", "\"\"",
        ] {
            assert_eq!(meant(&[wrong]), Meant::OneOf(Vec::new()), "{wrong:?}");
        }
    }

    #[test]
    fn what_the_client_has_is_not_sent_again() {
        let has = |value| conditions(IF_NONE_MATCH, &[value]).has(7);
        assert!(has("\"7\"") && has("W/\"7\"") && has("\"6\", \"7\"") && has("*"));
        assert!(!has("\"6\"") && !has("7"));
    }
}
