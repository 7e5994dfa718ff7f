//! Pieces of answers that several nouns share: JSON bodies, links, conditions, page sizes.

use http::StatusCode;
use http::header::{
    CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, LINK, LOCATION, WARNING,
};
use wharf_oci::{Digest, ErrorCode, percent};

use crate::http::body::Body;
use crate::http::error::ApiError;
use crate::http::{Request, Response};

/// The header that names the digest of what is sent or was stored (MGET-3, BGET-3).
pub(super) const DOCKER_CONTENT_DIGEST: HeaderName =
    HeaderName::from_static("docker-content-digest");

/// 200 with a JSON body.
pub(super) fn json(body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::full(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A header value made of what has been parsed already: digests, names, numbers. Never of raw input.
pub(super) fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Adds `Location`.
pub(super) fn locate(response: &mut Response, location: &str) {
    response.headers_mut().insert(LOCATION, value(location));
}

/// Adds `Docker-Content-Digest`.
pub(super) fn name_digest(response: &mut Response, digest: &Digest) {
    response
        .headers_mut()
        .insert(DOCKER_CONTENT_DIGEST, value(digest.as_str()));
}

/// Adds the link to the next page (TAGS-5, REF-7, CAT-1). `target` is a path with its query, percent-encoded.
pub(super) fn link_next(response: &mut Response, target: &str) {
    response
        .headers_mut()
        .insert(LINK, value(&format!("<{target}>; rel=\"next\"")));
}

/// Adds the digest as the entity tag.
pub(super) fn tag_entity(response: &mut Response, digest: &Digest) {
    response
        .headers_mut()
        .insert(ETAG, value(&format!("\"{digest}\"")));
}

/// Adds a warning for the person behind the client (WARN-1). `text` is ours: ASCII and short.
pub(super) fn warn(response: &mut Response, text: &str) {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    response
        .headers_mut()
        .append(WARNING, value(&format!("299 - \"{escaped}\"")));
}

/// Whether the client already has this content (MGET-9): `If-None-Match` with or without quotes.
pub(super) fn not_modified(headers: &HeaderMap, digest: &Digest) -> bool {
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|list| names(list, digest))
}

/// Whether a list of entity tags names `digest`, or is `*`.
pub(super) fn names(list: &str, digest: &Digest) -> bool {
    list.split(',')
        .map(entity)
        .any(|tag| tag == "*" || tag == digest.as_str())
}

/// An entity tag without its quotes and weakness.
pub(super) fn entity(tag: &str) -> &str {
    let tag = tag.trim();
    tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"')
}

/// The values of a query parameter, decoded.
pub(super) fn query<'q>(request: &'q Request, name: &'q str) -> impl Iterator<Item = String> + 'q {
    percent::query_pairs(&request.query)
        .filter(move |(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

/// The page size that the client asks for (TAGS-3): absent is `None`, and what is no number is an error.
pub(super) fn page_size(request: &Request) -> Result<Option<u32>, ApiError> {
    let Some(text) = query(request, "n").next() else {
        return Ok(None);
    };
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ApiError::new(
            ErrorCode::PaginationNumberInvalid,
            format!("n must be a whole number, 0 or more, not {text:?}"),
        ));
    }
    // Larger than any page is as good as the largest page.
    Ok(Some(text.parse().unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spec: MGET-9.
    #[test]
    fn entity_tags_match_in_every_spelling() {
        let digest = Digest::of(wharf_oci::Algorithm::Sha256, b"x");
        for list in [
            format!("\"{digest}\""),
            digest.to_string(),
            format!("W/\"{digest}\""),
            format!("\"other\", \"{digest}\""),
            "*".to_owned(),
        ] {
            assert!(names(&list, &digest), "{list}");
        }
        assert!(!names("\"sha256:0\"", &digest));
        assert!(!names("", &digest));
    }

    /// Spec: WARN-1.
    #[test]
    fn warnings_are_quoted() {
        let mut response = empty(StatusCode::OK);
        warn(&mut response, "say \"no\"");
        assert_eq!(
            response.headers()[WARNING],
            "299 - \"say \\\"no\\\"\"".to_owned()
        );
    }
}
