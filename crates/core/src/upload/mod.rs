//! Uploads: sessions in which bytes become a blob (specification §1.6).
//!
//! A session is a row in `meta` plus the bytes that the row claims: inline in `meta` while they are few, in a file of
//! the blob store after that. The row only ever claims bytes that were durable before its commit, together with the
//! hash state of exactly that offset; whoever takes the session up again truncates to it. A file's length proves
//! nothing.
//!
//! Called by the server's upload endpoints. Must never hold a whole blob in memory, and never let two requests write
//! to one session: [`Locks`] keeps those of this process apart, the compare-and-swap of `upload::Claim` all others.

mod locks;
mod parts;
mod sink;

use wharf_blob::{Key, UploadId};
use wharf_meta::{blob as blob_rows, upload as rows};
use wharf_oci::{Algorithm, ContentRange, Digest, RepositoryName};

pub use self::locks::Locks;
use self::sink::{Content, Finished, Sink};
use crate::blob::is_genuine;
use crate::error::{BodyError, Error, Result};
use crate::job::{Job, Step};
use crate::registry::Registry;

/// Where the bytes of a request come from. Implemented by the transport.
pub trait Source: Send {
    /// The length the client announced, if it did.
    fn announced(&self) -> Option<u64>;

    /// The next bytes; `None` at the end of the body.
    fn chunk(
        &mut self,
    ) -> impl Future<Output = Option<std::result::Result<bytes::Bytes, BodyError>>> + Send;
}

/// Where a session stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The session.
    pub id: UploadId,
    /// How many bytes are durable, and so where the next chunk begins.
    pub offset: u64,
}

/// Opens a session in `repository` for `owner` (UP-1). `algorithm` is a hint from the client (UP-7).
pub async fn create(
    registry: &Registry,
    repository: &RepositoryName,
    owner: &str,
    algorithm: Option<Algorithm>,
) -> Result<Status> {
    let id = UploadId::random();
    registry
        .meta
        .write(rows::Create {
            id: id.to_string(),
            repository: repository.clone(),
            owner: owner.to_owned(),
            algorithm,
            at: registry.clock.now_ms(),
        })
        .await?;
    if registry.blobs.is_shared() {
        registry.uploads.take(&id, 0);
    }
    Ok(Status { id, offset: 0 })
}

/// Who opened the session, if it is this repository's (AUTH-20 asks before anything is decided).
pub async fn owner(
    registry: &Registry,
    repository: &RepositoryName,
    id: &str,
) -> Result<Option<String>> {
    let row = registry.meta.read(rows::Get { id: id.to_owned() }).await?;
    Ok(row
        .filter(|row| row.repository == *repository)
        .map(|row| row.owner))
}

/// Where the session stands (UP-26).
///
/// Whoever asks has often just lost the connection of a chunk, which is still being taken down here: without a short
/// wait for that the answer would be the offset before it, and the client would send everything again.
pub async fn status(
    registry: &Registry,
    repository: &RepositoryName,
    id: &str,
    owner: &str,
) -> Result<Status> {
    if let Ok(id) = UploadId::parse(id) {
        // Only who may see the session may wait for it.
        load(registry, repository, &id.to_string(), owner).await?;
        registry.uploads.settled(&id).await;
    }
    let (id, row) = load(registry, repository, id, owner).await?;
    Ok(Status {
        id,
        offset: row.offset,
    })
}

/// Appends the body to the session (UP-21 … UP-25, UP-31) and tells where it stands afterwards.
///
/// When the client goes away in the middle, what arrived is kept and claimed, so that a resume goes on from there;
/// the error still says that the request failed.
pub async fn append(
    registry: &Registry,
    repository: &RepositoryName,
    id: &str,
    owner: &str,
    range: Option<ContentRange>,
    body: &mut impl Source,
) -> Result<Status> {
    let id = UploadId::parse(id).map_err(|_| Error::UploadUnknown)?;
    let _guard = registry.uploads.lock(&id).await?;
    let (id, row) = load(registry, repository, &id.to_string(), owner).await?;
    check_range(range, row.offset, body.announced())?;

    let algorithm = row.algorithm.unwrap_or(Algorithm::Sha256);
    let mut sink = Sink::resume(registry, id, row, algorithm).await?;
    let epoch = sink.epoch();
    let outcome = async {
        receive(&mut sink, range, body).await?;
        sink.claim().await
    };
    let offset = parts::ended(registry, &id, epoch, outcome.await).await?;
    Ok(Status { id, offset })
}

/// Appends what the closing request carries and publishes the whole as `digest` (UP-10, UP-28, UP-29).
///
/// A wrong offset leaves the session as it was (CS-6), and so does a body that breaks: PUT is idempotent, and clients
/// send the very same request again, with all of the body and no range that would tell. A wrong digest ends the session
/// (UP-13).
pub async fn complete(
    registry: &Registry,
    repository: &RepositoryName,
    id: &str,
    owner: &str,
    digest: Option<&Digest>,
    range: Option<ContentRange>,
    body: &mut impl Source,
) -> Result<()> {
    let id = UploadId::parse(id).map_err(|_| Error::UploadUnknown)?;
    let _guard = registry.uploads.lock(&id).await?;
    let (id, row) = load(registry, repository, &id.to_string(), owner).await?;
    check_range(range, row.offset, body.announced())?;
    let digest = digest.ok_or(Error::DigestMissing)?;
    let wanted = implemented(digest)?;

    // With nothing received yet only the algorithm that will be needed is computed.
    let algorithm = match row.offset {
        0 => wanted,
        _ => row.algorithm.unwrap_or(Algorithm::Sha256),
    };
    let mut sink = Sink::resume(registry, id, row, algorithm)
        .await?
        .all_or_nothing();
    let epoch = sink.epoch();
    let outcome = async {
        receive(&mut sink, range, body).await?;
        match sink.finish(wanted).await? {
            Finished { digest: actual, .. } if actual != *digest => {
                forget(registry, &id).await?;
                Err(Error::DigestMismatch {
                    expected: digest.clone(),
                    actual,
                })
            }
            finished => publish(registry, repository, Some(&id), &id, owner, finished).await,
        }
    };
    parts::ended(registry, &id, epoch, outcome.await).await
}

/// Receives and publishes a whole blob in one request (UP-11), without a session that outlives it.
pub async fn monolithic(
    registry: &Registry,
    repository: &RepositoryName,
    owner: &str,
    digest: &Digest,
    body: &mut impl Source,
) -> Result<()> {
    let wanted = implemented(digest)?;
    let id = UploadId::random();
    // Nobody knows this id but whoever clears away files without a session.
    let _guard = registry.uploads.lock(&id).await?;
    let mut sink = Sink::unclaimed(registry, id, wanted);
    let outcome = async {
        receive(&mut sink, None, body).await?;
        let finished = sink.finish(wanted).await?;
        if finished.digest != *digest {
            return Err(Error::DigestMismatch {
                expected: digest.clone(),
                actual: finished.digest,
            });
        }
        Ok(finished)
    }
    .await;
    let outcome = match outcome {
        Ok(finished) => publish(registry, repository, None, &id, owner, finished).await,
        Err(error) => Err(error),
    };
    if outcome.is_err() {
        // No session knows of these bytes, so nobody will come back for them.
        registry.blobs.discard(&id).await?;
        if registry.blobs.is_remote() {
            parts::settle(registry, &id, None).await;
        }
    }
    outcome
}

/// Ends the session and frees what it holds (UP-40).
pub async fn cancel(
    registry: &Registry,
    repository: &RepositoryName,
    id: &str,
    owner: &str,
) -> Result<()> {
    let id = UploadId::parse(id).map_err(|_| Error::UploadUnknown)?;
    let _guard = registry.uploads.lock(&id).await?;
    let (id, _) = load(registry, repository, &id.to_string(), owner).await?;
    forget(registry, &id).await
}

/// Forgets sessions that nobody has touched for `limits.upload_age_ms`; returns how many (UP-6).
///
/// Called by the job [`Expire`]. Works in small steps, so that it never holds the writer for long.
pub async fn expire(registry: &Registry) -> Result<u64> {
    let age = registry.limits.upload_age_ms;
    let before = registry.ages.older_than(&*registry.clock, age);
    let count = expire_sessions(registry, before).await?;
    if registry.blobs.is_remote() {
        parts::release(registry, before).await?;
    }
    Ok(count)
}

async fn expire_sessions(registry: &Registry, before: i64) -> Result<u64> {
    let mut count = 0;
    loop {
        let batch = registry
            .meta
            .scan(rows::Expired {
                touched_before: before,
                limit: 100,
            })
            .await?;
        if batch.is_empty() {
            return Ok(count);
        }
        let mut freed = 0;
        for id in batch {
            let id =
                UploadId::parse(&id).map_err(|_| Error::Internal("upload id in a row".into()))?;
            freed += u64::from(expire_one(registry, &id, before).await?);
        }
        count += freed;
        if freed == 0 {
            return Ok(count);
        }
    }
}

/// Forgets a session, unless somebody has touched it since `before` (milliseconds since 1970); tells whether it did. That it was
/// listed as idle says nothing: the list is older than this look.
pub async fn expire_one(registry: &Registry, id: &UploadId, before: i64) -> Result<bool> {
    // Somebody writes to it at this moment: it is not idle after all.
    let Ok(_guard) = registry.uploads.try_lock(id) else {
        return Ok(false);
    };
    let expire = rows::Expire {
        id: id.to_string(),
        touched_before: before,
        at: registry.clock.now_ms(),
    };
    // Another process may have taken it up since.
    let gone = registry.meta.write(expire).await?;
    if gone {
        free(registry, id).await?;
    }
    Ok(gone)
}

/// Forgets sessions that nobody continues.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Expire {}

impl Job for Expire {
    const KIND: &'static str = "upload.expire";

    async fn step(&mut self, registry: &Registry) -> Result<Step> {
        let count = expire(registry).await?;
        if count > 0 {
            tracing::info!(count, "forgotten uploads were cleared away");
        }
        Ok(Step::Done)
    }
}

/// Frees bytes of an upload that no session claims: a crash left them. Whoever writes to the upload holds its lock, and
/// makes its bytes claimed or frees them; so nothing is touched that is in use.
pub async fn forget_stray(registry: &Registry, id: &UploadId) -> Result<()> {
    let Ok(_guard) = registry.uploads.try_lock(id) else {
        return Ok(());
    };
    let row = registry.meta.read(rows::Get { id: id.to_string() }).await?;
    if row.is_none_or(|row| !row.in_file) {
        registry.blobs.discard(id).await?;
    }
    Ok(())
}

/// The session's row, if it is this repository's and this owner's (UP-5).
async fn load(
    registry: &Registry,
    repository: &RepositoryName,
    id: &str,
    owner: &str,
) -> Result<(UploadId, rows::UploadRow)> {
    let id = UploadId::parse(id).map_err(|_| Error::UploadUnknown)?;
    let row = registry
        .meta
        .read(rows::Get { id: id.to_string() })
        .await?
        .filter(|row| row.repository == *repository && row.owner == owner)
        .ok_or(Error::UploadUnknown)?;
    Ok((id, row))
}

/// Decides about a chunk from its headers, before a byte of it is read (UP-24).
fn check_range(range: Option<ContentRange>, offset: u64, announced: Option<u64>) -> Result<()> {
    let Some(range) = range else { return Ok(()) };
    if range.start != offset {
        return Err(Error::OutOfOrder { offset });
    }
    match announced {
        Some(length) if length != range.len() => Err(Error::SizeMismatch {
            announced: range.len(),
            received: length,
        }),
        _ => Ok(()),
    }
}

/// Moves the body into the sink. On a broken body what arrived is claimed, then the error goes on.
async fn receive(
    sink: &mut Sink<'_>,
    range: Option<ContentRange>,
    body: &mut impl Source,
) -> Result<()> {
    let limit = sink.registry().limits.blob_size;
    if let Some(length) = body.announced()
        && sink.offset().saturating_add(length) > limit
    {
        return Err(Error::BlobTooLarge { limit });
    }
    if let Some(length) = body.announced() {
        sink.expect(length);
    }
    let mut received = 0u64;
    while let Some(chunk) = body.chunk().await {
        match chunk {
            Ok(bytes) => {
                received += bytes.len() as u64;
                // What room there is belongs to deletes.
                if sink.registry().meta.is_full() {
                    return Err(Error::NoSpace);
                }
                if sink.offset() + bytes.len() as u64 > limit {
                    return Err(Error::BlobTooLarge { limit });
                }
                // A chunk longer than its own header says is refused whole: nothing of it is claimed.
                if let Some(range) = range
                    && received > range.len()
                {
                    return Err(Error::SizeMismatch {
                        announced: range.len(),
                        received,
                    });
                }
                sink.write(bytes).await?;
            }
            Err(error) => {
                sink.claim().await?;
                return Err(error.into());
            }
        }
    }
    match range {
        Some(range) if received != range.len() => Err(Error::SizeMismatch {
            announced: range.len(),
            received,
        }),
        _ => Ok(()),
    }
}

/// The algorithm of a digest that the client wants to push under.
fn implemented(digest: &Digest) -> Result<Algorithm> {
    digest
        .algorithm()
        .ok_or_else(|| Error::DigestUnsupported(digest.algorithm_name().to_owned()))
}

/// Makes verified bytes a blob of the repository: blob first, row second.
///
/// Bytes that somebody else has pushed before are linked, but only when what lies there has that digest; otherwise these
/// verified bytes take its place, which is how a damaged blob heals.
async fn publish(
    registry: &Registry,
    repository: &RepositoryName,
    session: Option<&UploadId>,
    bytes_of: &UploadId,
    actor: &str,
    finished: Finished,
) -> Result<()> {
    let Finished {
        digest,
        size,
        content: mut bytes,
    } = finished;
    let in_file = matches!(bytes, Content::File(_));
    // The stored bytes may be collected between the look and the commit: then those that were sent take their place.
    let existing = link_existing(registry, repository, session, actor, &digest, size).await?;
    let is_linked = matches!(existing, Existing::Linked);
    if !is_linked {
        let (content, fresh) = match &mut bytes {
            Content::Inline(bytes) => (blob_rows::Content::Inline(bytes.clone()), None),
            Content::Held(bytes) => {
                let key = Key::fresh(&digest);
                registry.blobs.put(&key, bytes.clone()).await?;
                (blob_rows::Content::Key(key.to_string()), Some(key))
            }
            Content::File(writer) => {
                let key = writer.publish(&digest).await?;
                let content = match writer.multipart() {
                    Some(_) => blob_rows::Content::Multipart(key.to_string()),
                    None => blob_rows::Content::Key(key.to_string()),
                };
                (content, Some(key))
            }
        };
        let outcome = registry
            .meta
            .write(blob_rows::Publish {
                upload: session.map(ToString::to_string),
                repository: repository.clone(),
                digest: digest.clone(),
                size,
                content,
                instead_of: match existing {
                    Existing::Bad(place) => Some(place),
                    Existing::Linked | Existing::None => None,
                },
                actor: actor.to_owned(),
                at: registry.clock.now_ms(),
            })
            .await;
        match outcome {
            Ok(blob_rows::Published::Done {
                surplus: Some(key), ..
            }) => crate::blob::collect(registry, key).await,
            // Somebody ended the session meanwhile, and the bytes with it.
            Ok(blob_rows::Published::GivenUp) => return Err(Error::UploadUnknown),
            Ok(_) => {}
            // Certainly rolled back: the key names bytes that no row will ever want. After any other failure the commit
            // may have happened, so the bytes stay; `storage verify` lists them if it did not.
            Err(error @ wharf_meta::Error::Full(_)) => {
                if let Some(key) = fresh {
                    registry.blobs.remove(&key).await?;
                }
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        }
    }
    // From here on the push is durable; what is left is tidying, and its failure is not the client's.
    registry.uploads.forget(bytes_of);
    if in_file && let Err(error) = registry.blobs.discard(bytes_of).await {
        tracing::warn!(upload = %bytes_of, %error, "a finished upload file could not be removed");
    }
    if let Content::File(writer) = &bytes
        && let Some(multipart) = writer.multipart()
    {
        let published = (!is_linked).then_some(multipart);
        parts::settle(registry, bytes_of, published).await;
    }
    Ok(())
}

/// What became of bytes that are stored already.
enum Existing {
    /// The repository holds them now.
    Linked,
    /// They do not have their digest; their place.
    Bad(blob_rows::Place),
    /// There are none.
    None,
}

/// Links bytes that are stored already, if they have their digest.
async fn link_existing(
    registry: &Registry,
    repository: &RepositoryName,
    session: Option<&UploadId>,
    actor: &str,
    digest: &Digest,
    size: u64,
) -> Result<Existing> {
    let lookup = blob_rows::Lookup {
        digest: digest.clone(),
    };
    let Some(row) = registry.meta.read(lookup).await? else {
        return Ok(Existing::None);
    };
    if !is_genuine(registry, &row).await? {
        return Ok(Existing::Bad(row.place));
    }
    let published = registry
        .meta
        .write(blob_rows::Publish {
            upload: session.map(ToString::to_string),
            repository: repository.clone(),
            digest: digest.clone(),
            size,
            content: blob_rows::Content::Existing,
            instead_of: None,
            actor: actor.to_owned(),
            at: registry.clock.now_ms(),
        })
        .await?;
    Ok(match published {
        blob_rows::Published::NoSuchBlob => Existing::None,
        _ => Existing::Linked,
    })
}

/// Ends a session whose lock the caller holds. The row goes first: bytes without a row are found at the next start,
/// a row without bytes would promise what is gone.
async fn forget(registry: &Registry, id: &UploadId) -> Result<()> {
    registry
        .meta
        .write(rows::Delete { id: id.to_string() })
        .await?;
    free(registry, id).await
}

/// Frees what a session held that is gone.
async fn free(registry: &Registry, id: &UploadId) -> Result<()> {
    registry.uploads.forget(id);
    registry.blobs.discard(id).await?;
    if registry.blobs.is_remote() {
        parts::settle(registry, id, None).await;
    }
    Ok(())
}
