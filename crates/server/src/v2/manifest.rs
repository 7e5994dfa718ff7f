//! Manifests (end-3, end-7, end-9).

use http::StatusCode;
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH,
};
use wharf_core::manifest::{self, Expect, Push};
use wharf_core::{BodyError, Error};
use wharf_oci::{Digest, ErrorCode, Reference, RepositoryName, Tag};

use super::{Answer, Call, reply};
use crate::http::body::Body;
use crate::http::error::ApiError;
use crate::http::{Request, Response};

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

/// GET and HEAD: the bytes as they were pushed, whatever `Accept` says (MGET-1 … MGET-12).
pub(super) async fn get(
    call: &Call<'_>,
    request: &Request,
    name: &RepositoryName,
    reference: &Reference,
) -> Answer {
    let head = request.method == http::Method::HEAD;
    let stored = manifest::get(call.registry, name, reference, !head).await?;
    let mut response = if reply::not_modified(&request.headers, &stored.digest) {
        reply::empty(StatusCode::NOT_MODIFIED)
    } else {
        let mut response = match &stored.bytes {
            Some(bytes) if !head => Response::new(Body::full(bytes.clone())),
            _ => reply::empty(StatusCode::OK),
        };
        let headers = response.headers_mut();
        // Those below, and what every answer gets: the table is made once.
        headers.reserve(8);
        headers.insert(CONTENT_TYPE, reply::value(&stored.media_type));
        if head {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(stored.size));
        }
        response
    };
    reply::name_digest(&mut response, &stored.digest);
    reply::tag_entity(&mut response, &stored.digest);
    // A tag can move, so intermediaries must ask again; a digest cannot (MGET-11).
    let cache = match reference {
        Reference::Tag(_) => HeaderValue::from_static("private, no-cache"),
        Reference::Digest(_) => HeaderValue::from_static("private, max-age=31536000, immutable"),
    };
    response.headers_mut().insert(CACHE_CONTROL, cache);
    Ok(response)
}

/// PUT by tag, by digest, or by digest with several tags (MPUT-1 … MPUT-19).
pub(super) async fn put(
    call: &Call<'_>,
    request: &mut Request,
    name: &RepositoryName,
    reference: &Reference,
) -> Answer {
    let tags = match reference {
        Reference::Tag(_) => Vec::new(),
        Reference::Digest(_) => reply::query(request, "tag")
            .map(|text| {
                Tag::parse(&text)
                    .map_err(|error| ApiError::new(ErrorCode::TagInvalid, error.to_string()))
            })
            .collect::<Result<Vec<_>, _>>()?,
    };
    let expect = expectation(request)?;
    let limit = call.registry.limits.manifest_size;
    let bytes = request
        .body
        .collect(limit)
        .await
        .map_err(|error| match error {
            BodyError::TooLarge => Error::ManifestTooLarge { limit },
            other => other.into(),
        })?;
    let pushed = manifest::push(
        call.registry,
        Push {
            repository: name,
            reference,
            content_type: request
                .headers
                .get(CONTENT_TYPE)
                .and_then(|value| value.to_str().ok()),
            bytes,
            tags,
            expect,
            actor: call.actor(),
            caller: Some(call.caller),
        },
    )
    .await?;

    let mut response = reply::empty(StatusCode::CREATED);
    let location = format!("{}/v2/{name}/manifests/{}", call.base, pushed.digest);
    reply::locate(&mut response, &location);
    reply::name_digest(&mut response, &pushed.digest);
    if let Some(subject) = &pushed.subject {
        response
            .headers_mut()
            .insert(OCI_SUBJECT, reply::value(subject.as_str()));
    }
    if matches!(reference, Reference::Digest(_)) {
        for tag in &pushed.tags {
            response
                .headers_mut()
                .append(OCI_TAG, reply::value(tag.as_str()));
        }
    }
    for text in &pushed.warnings {
        reply::warn(&mut response, text);
    }
    Ok(response)
}

/// DELETE: a tag alone, or a manifest with all its tags (DEL-1, DEL-2).
pub(super) async fn delete(
    call: &Call<'_>,
    name: &RepositoryName,
    reference: &Reference,
) -> Answer {
    match reference {
        Reference::Tag(tag) => {
            wharf_core::tag::delete(call.registry, name, tag, call.actor()).await?;
        }
        Reference::Digest(digest) => {
            manifest::delete(call.registry, name, digest, call.actor()).await?;
        }
    }
    Ok(reply::empty(StatusCode::ACCEPTED))
}

/// `If-Match: "<digest>"` and `If-None-Match: *` guard a tag against another writer (MGET-10).
fn expectation(request: &Request) -> Result<Expect, ApiError> {
    let text = |name| {
        request
            .headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    if text(IF_NONE_MATCH).is_some_and(|value| reply::entity(value) == "*") {
        return Ok(Expect::Absent);
    }
    match text(IF_MATCH).map(reply::entity) {
        None => Ok(Expect::Any),
        Some("*") => Ok(Expect::Present),
        Some(tag) => Digest::parse(tag).map(Expect::Digest).map_err(|_| {
            ApiError::new(
                ErrorCode::DigestInvalid,
                "If-Match on a manifest must name one digest, in quotes",
            )
        }),
    }
}
