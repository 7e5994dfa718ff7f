//! `ETag`, `If-None-Match` and `If-Match`: nobody overwrites what somebody else changed meanwhile.
//!
//! An entity tag here is the version of a row in quotes. Who sends it along with a change is told when it is no longer that.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use http::request::Parts;

use super::problem::{Kind, Problem};

/// The conditions of a request.
pub(super) struct Conditions(HeaderMap);

impl<S: Sync> FromRequestParts<S> for Conditions {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.headers.clone()))
    }
}

impl Conditions {
    /// The version that the change is meant for; `None`: whatever it is.
    pub(super) fn version(&self) -> Result<Option<i64>, Problem> {
        let mut values = self.0.get_all(IF_MATCH).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if value.as_bytes().trim_ascii() == b"*" {
            return Ok(None);
        }
        let text = value.to_str().unwrap_or_default().trim();
        let quoted = text
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        let version = quoted.and_then(|inner| inner.parse().ok());
        match (version, values.next()) {
            (Some(version), None) => Ok(Some(version)),
            // What no answer ever had cannot be what is there.
            _ => Err(changed()),
        }
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
    fn only_one_version_in_quotes_is_a_condition() {
        let version = |values: &[&'static str]| conditions(IF_MATCH, values).version().ok();
        assert_eq!(version(&[]), Some(None));
        assert_eq!(version(&["*"]), Some(None));
        assert_eq!(version(&["\"7\""]), Some(Some(7)));
        for wrong in [
            &["7"][..],
            &["W/\"7\""],
            &["\"7\", \"8\""],
            &["\"7\"", "\"8\""],
            &["\"x\""],
        ] {
            assert_eq!(version(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_the_client_has_is_not_sent_again() {
        let has = |value| conditions(IF_NONE_MATCH, &[value]).has(7);
        assert!(has("\"7\"") && has("W/\"7\"") && has("\"6\", \"7\"") && has("*"));
        assert!(!has("\"6\"") && !has("7"));
    }
}
