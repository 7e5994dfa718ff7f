//! Extension discovery (EXT-1, EXT-2). Wharf's own features live outside `/v2/`, so there is nothing to list.

use crate::http::Response;
use crate::v2::reply;

/// The list of extensions, which is empty.
pub(super) fn discover() -> Response {
    reply::json(br#"{"extensions":[]}"#.to_vec())
}
