//! Refusals: one type, one JSON format (ERR-1 … ERR-5).
//!
//! Handlers return [`ApiError`]; the transport itself refuses with it too. Causes that are ours are logged where they
//! happen and never put in here.

use http::header::{ALLOW, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode};
use wharf_core::BodyError;
use wharf_core::access::Limited;
use wharf_oci::{ErrorCode, ErrorEntry};

use super::Response;
use super::body::{Body, ErrorDoc};
use super::route::RouteError;

/// A refusal: status, code, and a message that says what to do.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// The status; [`ErrorCode::status`] unless the case demands another.
    pub status: StatusCode,
    /// For programs.
    pub code: ErrorCode,
    /// For people: what is wrong and the way out. Never a secret.
    pub message: String,
    /// More about the case, a plain string (ERR-1). Left empty, it names the request id (ERR-5).
    pub detail: Option<String>,
    /// Further entries, when several things are wrong at once (MPUT-9).
    pub more: Vec<ErrorEntry>,
    /// Headers of the answer; boxed, since errors travel through many small results.
    pub headers: Box<HeaderMap>,
}

impl ApiError {
    /// A refusal with the code's own status.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::from_u16(code.status())
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code,
            message: message.into(),
            detail: None,
            more: Vec::new(),
            headers: Box::default(),
        }
    }

    /// The same with another status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The same with a header more.
    #[must_use]
    pub fn with_header(mut self, name: http::HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// The same with a detail.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same with the seconds after which to ask again (ERR-3).
    #[must_use]
    pub fn with_retry_after(self, after: std::time::Duration) -> Self {
        let seconds = after.as_secs().max(1);
        self.with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// 405 with the methods that there are (API-4).
    pub fn method_not_allowed(methods: &[Method]) -> Self {
        let list = methods
            .iter()
            .map(Method::as_str)
            .collect::<Vec<_>>()
            .join(", ");
        let message = format!("this address knows only {list}");
        let error =
            Self::new(ErrorCode::Unsupported, message).with_status(StatusCode::METHOD_NOT_ALLOWED);
        match HeaderValue::from_str(&list) {
            Ok(value) => error.with_header(ALLOW, value),
            Err(_) => error,
        }
    }

    /// 416 that says how long the content is (BGET-4).
    pub fn range_not_satisfiable(size: u64) -> Self {
        let error = Self::new(
            ErrorCode::RangeInvalid,
            format!("the range lies outside of the content, which has {size} bytes"),
        );
        match HeaderValue::from_str(&format!("bytes */{size}")) {
            Ok(value) => error.with_header(CONTENT_RANGE, value),
            Err(_) => error,
        }
    }

    /// 500 for what should not happen; the cause belongs into the log.
    pub fn internal() -> Self {
        Self::new(
            ErrorCode::Unknown,
            "something broke in the registry; its log has the cause under this request id",
        )
    }

    /// The answer. Its JSON is written when it is sent, since only then the request id is at hand.
    pub fn into_response(self) -> Response {
        let mut entries = Vec::with_capacity(1 + self.more.len());
        entries.push(ErrorEntry {
            code: self.code,
            message: self.message,
            detail: self.detail,
        });
        entries.extend(self.more);
        let mut response = Response::new(Body::error(ErrorDoc { entries }));
        *response.status_mut() = self.status;
        *response.headers_mut() = *self.headers;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

impl From<RouteError> for ApiError {
    fn from(error: RouteError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        let (code, status) = match error {
            BodyError::Idle => (ErrorCode::BlobUploadInvalid, StatusCode::REQUEST_TIMEOUT),
            BodyError::Truncated => (ErrorCode::SizeInvalid, StatusCode::BAD_REQUEST),
            BodyError::TooLarge => (ErrorCode::SizeInvalid, StatusCode::PAYLOAD_TOO_LARGE),
        };
        Self::new(code, error.to_string()).with_status(status)
    }
}

impl From<Limited> for ApiError {
    fn from(limited: Limited) -> Self {
        Self::new(ErrorCode::TooManyRequests, limited.to_string())
            .with_retry_after(limited.retry_after)
    }
}

/// The one table from what the registry says to what HTTP says (ERR-2).
impl From<wharf_core::Error> for ApiError {
    fn from(error: wharf_core::Error) -> Self {
        use wharf_core::Error as E;
        let message = error.to_string();
        let of = |code: ErrorCode, status: StatusCode| {
            Self::new(code, message.clone()).with_status(status)
        };
        match error {
            E::NameUnknown(_) => of(ErrorCode::NameUnknown, StatusCode::NOT_FOUND),
            E::BlobUnknown { digest, .. } => {
                of(ErrorCode::BlobUnknown, StatusCode::NOT_FOUND).with_detail(digest.to_string())
            }
            // The same as HEAD says. With a 500 docker counts down retries for over a minute and then shows only the
            // number; the log line where it was found is what an operator watches.
            E::BlobDamaged { digest } => {
                of(ErrorCode::BlobUnknown, StatusCode::NOT_FOUND).with_detail(digest.to_string())
            }
            E::ManifestUnknown { reference, .. } => {
                of(ErrorCode::ManifestUnknown, StatusCode::NOT_FOUND)
                    .with_detail(reference.to_string())
            }
            E::UploadUnknown => of(ErrorCode::BlobUploadUnknown, StatusCode::NOT_FOUND),
            E::UploadBusy | E::UploadComplete => {
                of(ErrorCode::BlobUploadInvalid, StatusCode::CONFLICT)
            }
            E::DigestMissing | E::DigestUnsupported(_) | E::DigestMismatch { .. } => {
                of(ErrorCode::DigestInvalid, StatusCode::BAD_REQUEST)
            }
            E::SizeMismatch { .. } => of(ErrorCode::SizeInvalid, StatusCode::BAD_REQUEST),
            E::OutOfOrder { .. } => of(ErrorCode::RangeInvalid, StatusCode::RANGE_NOT_SATISFIABLE),
            E::BlobTooLarge { .. } => of(ErrorCode::SizeInvalid, StatusCode::PAYLOAD_TOO_LARGE),
            E::Body(error) => error.into(),
            E::ManifestInvalid(_) | E::ReferenceSize { .. } => {
                of(ErrorCode::ManifestInvalid, StatusCode::BAD_REQUEST)
            }
            E::ManifestTooLarge { .. } => {
                of(ErrorCode::ManifestInvalid, StatusCode::PAYLOAD_TOO_LARGE)
            }
            E::ReferencesMissing(missing) => missing_references(missing),
            E::TooManyTags { .. } => of(ErrorCode::TagInvalid, StatusCode::URI_TOO_LONG),
            E::TagDenied { .. } => of(ErrorCode::Denied, StatusCode::FORBIDDEN),
            E::PreconditionFailed => {
                of(ErrorCode::ManifestInvalid, StatusCode::PRECONDITION_FAILED)
            }
            E::BlobReferenced { manifest, .. } => {
                of(ErrorCode::Unsupported, StatusCode::METHOD_NOT_ALLOWED)
                    .with_detail(manifest.to_string())
            }
            E::NoSpace => of(ErrorCode::Unavailable, StatusCode::INSUFFICIENT_STORAGE)
                .with_retry_after(std::time::Duration::from_secs(60)),
            E::Unavailable { retry_after, .. } => {
                of(ErrorCode::Unavailable, StatusCode::SERVICE_UNAVAILABLE)
                    .with_retry_after(retry_after)
            }
            E::Internal(cause) => {
                tracing::error!(cause, "internal error");
                Self::internal()
            }
        }
    }
}

/// One entry for each missing item (MPUT-9).
fn missing_references(missing: Vec<wharf_oci::Digest>) -> ApiError {
    let mut entries = missing.into_iter().map(|digest| ErrorEntry {
        code: ErrorCode::ManifestBlobUnknown,
        message: format!(
            "{digest} is not in this repository; push it before the manifest that names it"
        ),
        detail: Some(digest.to_string()),
    });
    match entries.next() {
        None => ApiError::internal(),
        Some(first) => {
            let mut error =
                ApiError::new(first.code, first.message).with_status(StatusCode::BAD_REQUEST);
            error.detail = first.detail;
            error.more = entries.collect();
            error
        }
    }
}
