//! `/v2/` (end-1).

use http::header::{CONTENT_TYPE, HeaderValue};

use crate::http::Response;
use crate::http::body::Body;

/// The answer to a caller that may talk to us (PING-1); the guard has sent all others away.
pub(super) fn get() -> Response {
    let mut response = Response::new(Body::full("{}"));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
