//! Uploads (end-4 … end-6, end-11, end-13, end-14).

use http::StatusCode;
use http::header::{CONTENT_RANGE, HeaderName, LOCATION, RANGE};
use wharf_core::{BodyError, Error, blob, upload};
use wharf_oci::{Algorithm, ContentRange, Digest, ErrorCode, RepositoryName};

use super::{Answer, Call, reply};
use crate::http::error::ApiError;
use crate::http::{Request, RequestBody, Response};

const DOCKER_UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

impl upload::Source for RequestBody {
    fn announced(&self) -> Option<u64> {
        self.len()
    }

    async fn chunk(&mut self) -> Option<Result<bytes::Bytes, BodyError>> {
        self.chunk().await
    }
}

/// POST: a mount if it can be, a whole blob if the request carries one, otherwise a session.
pub(super) async fn start(call: &Call<'_>, request: &mut Request, name: &RepositoryName) -> Answer {
    let mount = reply::query(request, "mount").next();
    let whole = reply::query(request, "digest").next();
    if let Some(mount) = mount {
        let digest = digest(&mount)?;
        let from = reply::query(request, "from").next();
        if blob::mount(call.registry, call.caller, name, &digest, from.as_deref()).await? {
            return Ok(created(call, name, &digest));
        }
    } else if let Some(whole) = whole {
        let digest = digest(&whole)?;
        let body = &mut request.body;
        upload::monolithic(call.registry, name, call.actor(), &digest, body).await?;
        return Ok(created(call, name, &digest));
    }
    let hint = match reply::query(request, "digest-algorithm").next() {
        None => None,
        Some(text) => Some(
            text.parse::<Algorithm>()
                .map_err(|_| ApiError::from(Error::DigestUnsupported(text)))?,
        ),
    };
    let status = upload::create(call.registry, name, call.actor(), hint).await?;
    Ok(standing(call, name, &status, StatusCode::ACCEPTED))
}

/// GET: how much is durable (UP-26, UP-27).
pub(super) async fn status(call: &Call<'_>, name: &RepositoryName, id: &str) -> Answer {
    let status = upload::status(call.registry, name, id, call.actor()).await?;
    Ok(standing(call, name, &status, StatusCode::NO_CONTENT))
}

/// PATCH: one more chunk, or a stream (UP-21 … UP-25).
pub(super) async fn append(
    call: &Call<'_>,
    request: &mut Request,
    name: &RepositoryName,
    id: &str,
) -> Answer {
    let range = content_range(request)?;
    let status = upload::append(
        call.registry,
        name,
        id,
        call.actor(),
        range,
        &mut request.body,
    )
    .await
    .map_err(|error| refusal(call, name, id, error))?;
    Ok(standing(call, name, &status, StatusCode::ACCEPTED))
}

/// PUT: the last chunk, if any, and the digest of the whole (UP-10, UP-17, UP-28, UP-29).
pub(super) async fn complete(
    call: &Call<'_>,
    request: &mut Request,
    name: &RepositoryName,
    id: &str,
) -> Answer {
    let range = content_range(request)?;
    let digest = match reply::query(request, "digest").next() {
        Some(text) => Some(digest(&text)?),
        None => None,
    };
    upload::complete(
        call.registry,
        name,
        id,
        call.actor(),
        digest.as_ref(),
        range,
        &mut request.body,
    )
    .await
    .map_err(|error| refusal(call, name, id, error))?;
    match digest {
        Some(digest) => Ok(created(call, name, &digest)),
        None => Err(Error::DigestMissing.into()),
    }
}

/// DELETE: ends the session (UP-40).
pub(super) async fn cancel(call: &Call<'_>, name: &RepositoryName, id: &str) -> Answer {
    upload::cancel(call.registry, name, id, call.actor()).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

fn digest(text: &str) -> Result<Digest, ApiError> {
    Digest::parse(text).map_err(|error| ApiError::new(ErrorCode::DigestInvalid, error.to_string()))
}

fn content_range(request: &Request) -> Result<Option<ContentRange>, ApiError> {
    let Some(value) = request.headers.get(CONTENT_RANGE) else {
        return Ok(None);
    };
    value
        .to_str()
        .ok()
        .and_then(|text| ContentRange::parse(text).ok())
        .map(Some)
        .ok_or_else(|| {
            ApiError::new(
                ErrorCode::BlobUploadInvalid,
                "Content-Range must be <first byte>-<last byte>, without unit and total",
            )
        })
}

/// Where the session stands and goes on (UP-1, UP-22, UP-26).
fn standing(
    call: &Call<'_>,
    name: &RepositoryName,
    status: &upload::Status,
    code: StatusCode,
) -> Response {
    let mut response = reply::empty(code);
    let id = status.id.to_string();
    reply::locate(&mut response, &session(call, name, &id));
    let headers = response.headers_mut();
    headers.insert(RANGE, reply::value(&held(status.offset)));
    headers.insert(DOCKER_UPLOAD_UUID, reply::value(&id));
    response
}

/// The blob is there (UP-10, MNT-1).
fn created(call: &Call<'_>, name: &RepositoryName, digest: &Digest) -> Response {
    let mut response = reply::empty(StatusCode::CREATED);
    reply::locate(
        &mut response,
        &format!("{}/v2/{name}/blobs/{digest}", call.base),
    );
    reply::name_digest(&mut response, digest);
    response
}

/// An error on a session. One about the offset says where to go on, in headers that clients resume from (UP-25).
fn refusal(call: &Call<'_>, name: &RepositoryName, id: &str, error: Error) -> ApiError {
    let offset = match &error {
        Error::OutOfOrder { offset } => Some(*offset),
        _ => None,
    };
    let mut error = ApiError::from(error);
    if let Some(offset) = offset {
        error
            .headers
            .insert(LOCATION, reply::value(&session(call, name, id)));
        error.headers.insert(RANGE, reply::value(&held(offset)));
    }
    error
}

fn session(call: &Call<'_>, name: &RepositoryName, id: &str) -> String {
    format!("{}/v2/{name}/blobs/uploads/{id}", call.base)
}

/// `0-<last byte>`; the grammar has no way to say "nothing", and clients expect `0-0` then (UP-26).
fn held(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}
