//! Path, query and body of a request, read with errors that name the field.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// Parameters in the path.
pub(super) struct Path<T>(pub(super) T);

/// Parameters behind the `?`.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        read.map(|axum::extract::Path(value)| Self(value))
            .map_err(|error: PathRejection| Problem::invalid("path", error.body_text()))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        read.map(|axum::extract::Query(value)| Self(value))
            .map_err(|error: QueryRejection| unread("query", &error.body_text()))
    }
}

/// A body in JSON. None at all is an empty object, so that whoever wants nothing special need not send one.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let json = request.headers().get(CONTENT_TYPE).cloned();
        let bytes = bytes::Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|error| Problem::invalid("body", error.body_text()))?;
        let text: &[u8] = match bytes.is_empty() {
            true => b"{}",
            // A form of another site's page cannot have this type.
            false if json.is_none_or(|kind| !is_json(kind.as_bytes())) => {
                return Err(Problem::invalid(
                    "Content-Type",
                    "the body must be application/json",
                ));
            }
            false => &bytes,
        };
        let read = axum::Json::<T>::from_bytes(text);
        read.map(|axum::Json(value)| Self(value))
            .map_err(|error| unread("body", &error.body_text()))
    }
}

/// What axum says, without what it says each time, and with the field if it names one.
fn unread(whole: &'static str, text: &str) -> Problem {
    const ALWAYS: [&str; 3] = [
        "Failed to deserialize query string: ",
        "Failed to deserialize the JSON body into the target type: ",
        "Failed to parse the request body as JSON: ",
    ];
    let text = ALWAYS
        .iter()
        .find_map(|always| text.strip_prefix(always))
        .unwrap_or(text);
    let is_field = |name: &str| {
        let part = |c: char| c.is_ascii_alphanumeric() || "_.[]".contains(c);
        name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(part)
    };
    match text.split_once(": ").filter(|(name, _)| is_field(name)) {
        Some((field, reason)) => Problem::invalid(field, reason),
        None => Problem::invalid(whole, text),
    }
}

fn is_json(kind: &[u8]) -> bool {
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"application/json")
}
