//! Refusals of the management API: problem details (RFC 9457), each with a cause and a cure.
//!
//! Resources return a [`Problem`]; [`super::Api`] writes its JSON when the request id is at hand. Causes that are ours are
//! logged where they happen and never put in here.

use axum::response::{IntoResponse, Response as AxumResponse};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::response::{Response as Documented, ResponseBuilder};
use utoipa::openapi::{ContentBuilder, Ref, RefOr};
use wharf_core::BodyError;
use wharf_core::access::{AuthFailure, Limited};
use wharf_oci::Challenge;

use crate::http::body::Body;
use crate::http::{ApiError, Response};

/// The media type of RFC 9457.
const PROBLEM_JSON: &str = "application/problem+json";
/// Longest answer that a resource makes: a page of a thousand entries is far below.
const LARGEST_ANSWER: usize = 16 << 20;

/// Why something was not done, and what to do about it
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProblemDetails {
    /// Names the kind of problem; an address of this page
    #[serde(rename = "type")]
    #[schema(example = "/api/v1#not-found")]
    kind: String,
    /// The kind in words
    #[schema(example = "not found")]
    title: &'static str,
    /// The status of the answer
    #[schema(example = 404)]
    status: u16,
    /// What is wrong with this request
    #[schema(example = "there is no repository team/app, or you may not see it")]
    detail: String,
    /// What can be done about it
    cure: String,
    /// The parameter or field that is wrong
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// The request, as it stands in the registry's log
    request_id: String,
}

/// The kinds: their name in `type`, status and title.
macro_rules! kinds {
    ($($variant:ident = $name:literal, $status:ident, $title:literal, $cure:literal;)*) => {
        /// What kind of problem it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Kind { $($variant,)* }

        impl Kind {
            /// All of them, for the reference page.
            pub(super) const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The last part of `type`.
            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// In words.
            pub(super) const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// What helps where nothing better is known.
            pub(super) const fn cure(self) -> &'static str {
                match self { $(Self::$variant => $cure,)* }
            }

            /// Of the answer.
            pub(super) const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }
        }
    };
}

kinds! {
    Invalid = "invalid", BAD_REQUEST, "a parameter or field is wrong",
        "correct it as the detail says; the page /api/v1 tells what this address takes";
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "sign in first",
        "send good credentials: a user name with a password or token (Basic), or a token (Bearer)";
    Forbidden = "forbidden", FORBIDDEN, "you lack the right",
        "ask somebody who has the right to do it, or to grant it";
    NotFound = "not-found", NOT_FOUND, "not found",
        "check the name; a list shows what is there, as far as you may see it";
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED, "no such method here",
        "use one of these; the page /api/v1 tells what each is for";
    Timeout = "timeout", REQUEST_TIMEOUT, "the body came too slowly",
        "send it again, without long breaks";
    Conflict = "conflict", CONFLICT, "the state does not allow it",
        "settle first what the detail names, then send it again";
    Changed = "changed", PRECONDITION_FAILED, "somebody changed it meanwhile",
        "read it again, look whether the change is still wanted, and send it anew";
    TooLarge = "too-large", PAYLOAD_TOO_LARGE, "the body is too large",
        "send less at once";
    TooMany = "too-many-requests", TOO_MANY_REQUESTS, "too many requests",
        "wait as long as Retry-After says";
    Internal = "internal", INTERNAL_SERVER_ERROR, "something broke in the registry",
        "send it again later; the log of the registry has more under the id of the request";
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "a store or a directory does not answer",
        "send it again in a moment";
    NoSpace = "no-space", INSUFFICIENT_STORAGE, "the disk is full",
        "an administrator has to make room; then send it again";
}

/// Whether it is the cure of a kind, which says no more than the kind does.
pub(crate) fn is_general(cure: &str) -> bool {
    Kind::ALL.iter().any(|kind| kind.cure() == cure)
}

/// A refusal.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    kind: Kind,
    detail: String,
    cure: Option<String>,
    field: Option<String>,
    headers: Box<HeaderMap>,
    /// The caller may not, and the answer does not say so.
    refused: bool,
}

impl Problem {
    /// Of this kind, with what is wrong. Never a secret.
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            cure: None,
            field: None,
            headers: Box::default(),
            refused: false,
        }
    }

    /// The same for somebody who may not know whether it is there.
    #[must_use]
    pub(super) fn refused(mut self) -> Self {
        self.refused = true;
        self
    }

    /// The problem in an answer, if it is one.
    pub(super) fn within(response: &AxumResponse) -> Option<&Self> {
        response.extensions().get::<Self>()
    }

    /// Whether somebody may not do what was asked for, whatever the answer says of it.
    pub(super) fn is_refusal(&self) -> bool {
        self.refused || self.is_forbidden() || self.kind.status() == StatusCode::UNAUTHORIZED
    }

    /// Whether the answer says so.
    pub(super) fn is_forbidden(&self) -> bool {
        self.kind.status() == StatusCode::FORBIDDEN
    }

    /// What is wrong.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// The same with what to do about it.
    #[must_use]
    pub(super) fn with_cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = Some(cure.into());
        self
    }

    /// The same with a header more.
    #[must_use]
    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// A parameter or field that cannot be meant.
    pub(super) fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            field: Some(field.into()),
            ..Self::new(Kind::Invalid, detail)
        }
    }

    /// Nothing is served there.
    pub(super) fn no_such_address() -> Self {
        Self::new(Kind::NotFound, "nothing is served at this address")
            .with_cure("/api/v1 lists the addresses of this API")
    }

    /// What is asked for is not there, or is nothing for this caller: both are answered alike.
    pub(super) fn unseen(what: impl std::fmt::Display) -> Self {
        let detail = format!("there is no {what}, or you may not see it");
        Self::new(Kind::NotFound, detail)
            .with_cure("check the name; if it is right, ask an administrator for the right to pull")
    }

    pub(super) fn method_not_allowed(list: &str) -> Self {
        Self::new(
            Kind::MethodNotAllowed,
            format!("this address knows only {list}"),
        )
    }

    pub(super) fn other_site() -> Self {
        Self::new(
            Kind::Forbidden,
            "a page of another site made a browser send this request",
        )
        .with_cure("send it from a program, or from a page of this host")
    }

    /// Credentials are missing.
    pub(super) fn sign_in(service: &str) -> Self {
        Self::new(Kind::Unauthenticated, "this needs credentials")
            .with_cure("send a user name and password with Basic, or a token with Bearer")
            .challenged("Basic", service, None)
    }

    /// The token was asked for less than this needs.
    pub(super) fn narrow_token(service: &str, error: &'static str) -> Self {
        Self::new(
            Kind::Unauthenticated,
            "the token was asked for less than this request needs, or is no longer good",
        )
        .with_cure("fetch one with the scope that is needed, or send the credentials themselves")
        .challenged("Bearer", service, Some(error))
    }

    /// Credentials are no good.
    pub(super) fn unauthenticated(failure: AuthFailure, service: &str) -> Self {
        if let Some(retry_after) = failure.retry_after() {
            let seconds = retry_after.as_secs().max(1);
            return Self::new(Kind::TooMany, failure.to_string())
                .with_header(RETRY_AFTER, HeaderValue::from(seconds));
        }
        match failure {
            AuthFailure::Store(error) | AuthFailure::Directory(error) => error.into(),
            failure => {
                let error = failure.challenge_error();
                let scheme = if error.is_some() { "Bearer" } else { "Basic" };
                Self::new(Kind::Unauthenticated, failure.to_string())
                    .challenged(scheme, service, error)
            }
        }
    }

    fn challenged(self, scheme: &str, service: &str, error: Option<&str>) -> Self {
        let challenge = Challenge {
            scheme: scheme.into(),
            realm: service.into(),
            error: error.map(str::to_owned),
            ..Challenge::default()
        };
        match HeaderValue::from_str(&challenge.to_string()) {
            Ok(value) => self.with_header(WWW_AUTHENTICATE, value),
            Err(_) => self,
        }
    }

    /// The answer.
    pub(super) fn answer(self, request_id: &str) -> Response {
        let details = ProblemDetails {
            kind: format!("/api/v1#{}", self.kind.name()),
            title: self.kind.title(),
            status: self.kind.status().as_u16(),
            detail: self.detail,
            cure: self.cure.unwrap_or_else(|| self.kind.cure().to_owned()),
            field: self.field,
            request_id: request_id.to_owned(),
        };
        // Plain structures of text and numbers always serialize.
        let text = serde_json::to_vec(&details).unwrap_or_default();
        let mut response = Response::new(Body::full(text));
        *response.status_mut() = self.kind.status();
        *response.headers_mut() = *self.headers;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        response
    }
}

/// Carries the problem to [`settle`], which knows the request id.
impl IntoResponse for Problem {
    fn into_response(self) -> AxumResponse {
        let mut response = AxumResponse::default();
        *response.status_mut() = self.kind.status();
        response.extensions_mut().insert(self);
        response
    }
}

/// From axum's answer to ours.
pub(super) async fn settle(response: AxumResponse, request_id: &str) -> Response {
    let (mut head, body) = response.into_parts();
    if let Some(problem) = head.extensions.remove::<Problem>() {
        return problem.answer(request_id);
    }
    if head.status.is_client_error() || head.status.is_server_error() {
        // Nothing of ours: an extractor of axum that should not be in use.
        tracing::error!(status = %head.status, "an answer without a problem");
        return Problem::from(ApiError::internal()).answer(request_id);
    }
    match axum::body::to_bytes(body, LARGEST_ANSWER).await {
        Ok(bytes) => {
            let mut response = Response::new(Body::full(bytes));
            *response.status_mut() = head.status;
            *response.headers_mut() = head.headers;
            response
        }
        Err(error) => {
            tracing::error!(%error, "an answer is longer than any should be");
            Problem::from(ApiError::internal()).answer(request_id)
        }
    }
}

/// The one table from what the registry says to statuses is that of `/v2/`.
impl From<wharf_core::Error> for Problem {
    fn from(error: wharf_core::Error) -> Self {
        ApiError::from(error).into()
    }
}

impl From<wharf_meta::Error> for Problem {
    fn from(error: wharf_meta::Error) -> Self {
        wharf_core::Error::from(error).into()
    }
}

impl From<Limited> for Problem {
    fn from(limited: Limited) -> Self {
        let problem = Self::from(ApiError::from(limited));
        problem.with_cure("wait as long as Retry-After says; an administrator can allow more")
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        ApiError::from(error).into()
    }
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        let fits = Kind::ALL.iter().find(|kind| kind.status() == error.status);
        let kind = match fits {
            Some(kind) => *kind,
            None if error.status.is_client_error() => Kind::Invalid,
            None => Kind::Internal,
        };
        let mut problem = Self::new(kind, error.message);
        problem.headers = error.headers;
        problem
    }
}

/// What every address may answer besides what it is for, in the document.
pub(super) struct Refusals;

impl utoipa::IntoResponses for Refusals {
    fn responses() -> std::collections::BTreeMap<String, RefOr<Documented>> {
        let problem = |kind: Kind| {
            let content = ContentBuilder::new()
                .schema(Some(Ref::from_schema_name("ProblemDetails")))
                .build();
            let title = format!("{}{}", kind.title()[..1].to_uppercase(), &kind.title()[1..]);
            let response = ResponseBuilder::new()
                .description(title)
                .content(PROBLEM_JSON, content)
                .build();
            (kind.status().as_str().to_owned(), RefOr::T(response))
        };
        [
            Kind::Invalid,
            Kind::Unauthenticated,
            Kind::Forbidden,
            Kind::NotFound,
            Kind::Unavailable,
        ]
        .map(problem)
        .into()
    }
}
