//! Blobs (end-2, end-10): whole, in parts, or gone.

use http::StatusCode;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue,
    IF_RANGE, RANGE,
};
use wharf_core::{Registry, blob};
use wharf_oci::{Digest, RangeRequest, RepositoryName, Span, range::parse_range};

use super::{Answer, Call, reply};
use crate::http::body::{Body, Source};
use crate::http::error::ApiError;
use crate::http::{Request, Response};

const OCTET_STREAM: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// HEAD: the status and headers of a GET without its body, answered from the rows (BGET-11).
pub(super) async fn head(
    call: &Call<'_>,
    request: &Request,
    name: &RepositoryName,
    digest: &Digest,
) -> Answer {
    let size = blob::stat(call.registry, name, digest).await?;
    if reply::not_modified(&request.headers, digest) {
        return Ok(described(reply::empty(StatusCode::NOT_MODIFIED), digest));
    }
    let mut response = described(reply::empty(StatusCode::OK), digest);
    response.headers_mut().insert(CONTENT_TYPE, OCTET_STREAM);
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(size));
    Ok(response)
}

/// GET: all of it, one range, several ranges, or 304 (BGET-1 … BGET-9).
pub(super) async fn get(
    call: &Call<'_>,
    request: &Request,
    name: &RepositoryName,
    digest: &Digest,
) -> Answer {
    let mut found = blob::open(call.registry, name, digest).await?;
    if reply::not_modified(&request.headers, digest) {
        return Ok(described(reply::empty(StatusCode::NOT_MODIFIED), digest));
    }
    if let Some(response) = super::redirect::answer(call, name, &found, &request.peer).await {
        return Ok(response);
    }
    let size = found.content.len();
    let mut response = match wanted(request, digest, size) {
        RangeRequest::Full => {
            let mut response =
                Response::new(Body::blob(found.begin(call.registry, 0..size).await?, size));
            response.headers_mut().insert(CONTENT_TYPE, OCTET_STREAM);
            response
        }
        RangeRequest::Unsatisfiable => return Err(ApiError::range_not_satisfiable(size)),
        RangeRequest::Ranges(spans) => match spans.as_slice() {
            [span] => {
                let range = span.start..span.end_inclusive + 1;
                let stream = found.begin(call.registry, range).await?;
                let body = Body::blob(stream, span.len());
                let mut response = Response::new(body);
                response.headers_mut().insert(CONTENT_TYPE, OCTET_STREAM);
                response
                    .headers_mut()
                    .insert(CONTENT_RANGE, reply::value(&content_range(*span, size)));
                partial(response)
            }
            spans => partial(multipart(call.registry, &mut found, spans, size).await?),
        },
    };
    response = described(response, digest);
    Ok(response)
}

/// DELETE: takes the blob out of this repository (DEL-3, DEL-5).
pub(super) async fn delete(call: &Call<'_>, name: &RepositoryName, digest: &Digest) -> Answer {
    blob::delete(call.registry, name, digest, call.actor()).await?;
    Ok(reply::empty(StatusCode::ACCEPTED))
}

/// The ranges to send. `If-Range` that names anything else than this content asks for all of it (BGET-7).
fn wanted(request: &Request, digest: &Digest, size: u64) -> RangeRequest {
    let Some(range) = request
        .headers
        .get(RANGE)
        .and_then(|value| value.to_str().ok())
    else {
        return RangeRequest::Full;
    };
    let current = request.headers.get(IF_RANGE).is_none_or(|value| {
        value
            .to_str()
            .is_ok_and(|tag| reply::entity(tag) == digest.as_str())
    });
    if current {
        parse_range(range, size)
    } else {
        RangeRequest::Full
    }
}

/// What every answer about a blob says. Content by digest never changes; shared caches must not keep what needs rights.
fn described(mut response: Response, digest: &Digest) -> Response {
    reply::name_digest(&mut response, digest);
    reply::tag_entity(&mut response, digest);
    let headers = response.headers_mut();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("private, max-age=31536000, immutable"),
    );
    response
}

fn partial(mut response: Response) -> Response {
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    response
}

fn content_range(span: Span, size: u64) -> String {
    format!("bytes {}-{}/{size}", span.start, span.end_inclusive)
}

/// All ranges in one answer (BGET-6), framed as RFC 9110 §14.6 says.
async fn multipart(
    registry: &Registry,
    found: &mut blob::Found,
    spans: &[Span],
    size: u64,
) -> Answer {
    // The boundary must not occur in the content, and nobody can put a blob's own digest into the blob. At most 70
    // characters (RFC 2046 §5.1.1).
    let digest = found.digest.clone();
    let encoded = digest.encoded();
    let boundary = &encoded[..encoded.len().min(64)];
    let mut parts = Vec::with_capacity(spans.len() + 1);
    for (number, span) in spans.iter().enumerate() {
        let range = span.start..span.end_inclusive + 1;
        // The first shows whether there is anything at all; the others are asked for when it is their turn.
        let stream = match number {
            0 => found.begin(registry, range).await?,
            _ => found.content.stream(range),
        };
        let head = format!(
            "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: {}\r\n\r\n",
            content_range(*span, size)
        );
        parts.push((head.into(), Some((Source::Blob(stream), span.len()))));
    }
    parts.push((format!("\r\n--{boundary}--\r\n").into(), None));
    let mut response = Response::new(Body::parts(parts));
    response.headers_mut().insert(
        CONTENT_TYPE,
        reply::value(&format!("multipart/byteranges; boundary={boundary}")),
    );
    Ok(response)
}
