//! Blobs: reading, mounting and unlinking what a repository holds (specification §1.5, §1.6 mount, §1.10).
//!
//! A blob is visible only through a repository that links it; that it exists elsewhere changes no answer (BGET-1).

use std::ops::Range;
use std::sync::atomic::Ordering;

use wharf_blob::{Blob, ByteStream, Key};
use wharf_meta::{blob as rows, quarantine};
use wharf_oci::{Digest, RepositoryName};

use crate::access::{Caller, Permission};
use crate::error::{Error, Result};
use crate::registry::Registry;

/// Repositories looked at when a mount names no source. A blob in more places than that, none of the first of them
/// readable, is uploaded once more: slower, never wrong.
const CANDIDATES: u32 = 200;

/// A blob that is there, whole, and ready to be read.
#[derive(Debug)]
pub struct Found {
    /// Its digest, in the algorithm that was asked for.
    pub digest: Digest,
    /// Its bytes, not yet read.
    pub content: Blob,
    /// Where they are, unless the metadata store has them.
    pub key: Option<Key>,
    repository: RepositoryName,
}

impl Found {
    /// The bytes of a range; what is wrong with them shows now, as far as that is known before they are all read.
    pub async fn begin(&mut self, registry: &Registry, range: Range<u64>) -> Result<ByteStream> {
        loop {
            let mut stream = self.content.stream(range.clone());
            let Err(error) = stream.begin().await else {
                return Ok(stream);
            };
            let Some(key) = self.key.take().filter(|_| is_lost(&error)) else {
                return Err(error.into());
            };
            let row = elsewhere(
                registry,
                &self.repository,
                &self.digest,
                key.as_str(),
                &error,
            );
            (self.content, self.key) = place(registry, &self.repository, row.await?).await?;
        }
    }
}

/// Finds a blob for HEAD and existence checks: damaged bytes count as absent, so that the next push heals them.
pub async fn stat(
    registry: &Registry,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<u64> {
    let row = stays(registry, repository, digest)
        .await?
        .ok_or_else(|| unknown(repository, digest))?;
    if is_sound(registry, &row).await {
        Ok(row.size)
    } else {
        Err(unknown(repository, digest))
    }
}

/// Opens a blob for reading. One whose bytes are gone, or in quarantine, is [`Error::BlobDamaged`], never a short answer.
pub async fn open(
    registry: &Registry,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Found> {
    let row = find(registry, repository, digest).await?;
    let (content, key) = place(registry, repository, row).await?;
    Ok(Found {
        digest: digest.clone(),
        content,
        key,
        repository: repository.clone(),
    })
}

/// What a row leads to, or the row that takes its place while it is looked at.
async fn place(
    registry: &Registry,
    repository: &RepositoryName,
    mut row: rows::BlobRow,
) -> Result<(Blob, Option<Key>)> {
    loop {
        let key = match row.place {
            rows::Place::Inline(bytes) => {
                let bytes = bytes.unwrap_or_default();
                if !is_of(&row.digest, &bytes) {
                    let what = format!("the bytes of blob {}", row.digest);
                    return Err(damaged_row(registry, &what));
                }
                return Ok((Blob::Memory(bytes.into()), None));
            }
            rows::Place::Key(key) => key,
        };
        let name = Key::parse(&key).map_err(|error| damaged(&row.digest, &error))?;
        match registry.blobs.open(&name, row.size).await {
            Ok(blob) => return Ok((blob, Some(name))),
            Err(error) if is_lost(&error) => {
                row = elsewhere(registry, repository, &row.digest, &key, &error).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether the bytes are not what their row says.
fn is_lost(error: &wharf_blob::Error) -> bool {
    use wharf_blob::Error as E;
    matches!(error, E::Missing { .. } | E::WrongSize { .. })
}

/// The row of a blob that was not under this key: it may have been collected and pushed again, or replaced, since its row was
/// read. If the row still names the key, the blob is damaged.
async fn elsewhere(
    registry: &Registry,
    repository: &RepositoryName,
    digest: &Digest,
    key: &str,
    error: &wharf_blob::Error,
) -> Result<rows::BlobRow> {
    let row = find(registry, repository, digest).await?;
    match &row.place {
        rows::Place::Key(again) if again == key => Err(damaged(digest, error)),
        _ => Ok(row),
    }
}

fn damaged(digest: &Digest, error: &dyn std::fmt::Display) -> Error {
    tracing::error!(%digest, %error, "a blob is not what its row says");
    Error::BlobDamaged {
        digest: digest.clone(),
    }
}

/// Links a blob from a repository that `caller` may pull now (MNT-1 … MNT-3). `false` sends the client to an
/// ordinary upload and says nothing about why: absent, damaged, unreadable and malformed all look alike.
pub async fn mount(
    registry: &Registry,
    caller: &Caller,
    repository: &RepositoryName,
    digest: &Digest,
    from: Option<&str>,
) -> Result<bool> {
    match from {
        Some(from) => {
            let Ok(from) = RepositoryName::parse(from) else {
                return Ok(false);
            };
            mount_from(registry, caller, repository, digest, &from).await
        }
        None => {
            let holders = registry
                .meta
                .read(rows::Holders {
                    digest: digest.clone(),
                    limit: CANDIDATES,
                })
                .await?;
            for from in holders {
                if mount_from(registry, caller, repository, digest, &from).await? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}

async fn mount_from(
    registry: &Registry,
    caller: &Caller,
    repository: &RepositoryName,
    digest: &Digest,
    from: &RepositoryName,
) -> Result<bool> {
    if !registry.access.allow(caller, Permission::Pull, Some(from)) {
        return Ok(false);
    }
    let Some(row) = stays(registry, from, digest).await? else {
        return Ok(false);
    };
    if !is_sound(registry, &row).await {
        return Ok(false);
    }
    Ok(registry
        .meta
        .write(rows::Mount {
            repository: repository.clone(),
            from: from.clone(),
            digest: digest.clone(),
            actor: caller.principal.name().to_owned(),
            at: registry.clock.now_ms(),
        })
        .await?)
}

/// Takes a blob out of the repository (DEL-3). Its bytes stay for whoever else links them.
pub async fn delete(
    registry: &Registry,
    repository: &RepositoryName,
    digest: &Digest,
    actor: &str,
) -> Result<()> {
    let unlinked = registry
        .meta
        .write(rows::Unlink {
            repository: repository.clone(),
            digest: digest.clone(),
            actor: actor.to_owned(),
            at: registry.clock.now_ms(),
        })
        .await?;
    match unlinked {
        rows::Unlinked::Done => Ok(()),
        rows::Unlinked::Unknown => Err(unknown(repository, digest)),
        rows::Unlinked::ReferencedBy(manifest) => Err(Error::BlobReferenced {
            digest: digest.clone(),
            manifest,
        }),
    }
}

/// Removes bytes that no row names any more. What fails, or what a running backup may still need, stays in the list and
/// is tried again by the upkeep.
pub(crate) async fn collect(registry: &Registry, key: String) {
    if registry.holds.load(Ordering::SeqCst) > 0 {
        return;
    }
    let outcome = async {
        registry.blobs.remove(&Key::parse(&key)?).await?;
        registry
            .meta
            .write(rows::Collected {
                keys: vec![key.clone()],
            })
            .await?;
        Ok::<_, Error>(())
    };
    if let Err(error) = outcome.await {
        tracing::warn!(key, %error, "replaced bytes could not be removed");
    }
}

/// Removes all bytes that no row names any more and that are not yet removed. Called when a backup is done.
pub async fn collect_replaced(registry: &Registry) -> Result<()> {
    let mut after = None;
    while crate::gc::remove(registry, &mut after).await?.0 != crate::job::Step::Done {}
    Ok(())
}

/// Whether the bytes that a row promises are there in full. Contents are the business of `verify`.
pub(crate) async fn is_sound(registry: &Registry, row: &rows::BlobRow) -> bool {
    match &row.place {
        rows::Place::Inline(_) => true,
        rows::Place::Key(key) => match Key::parse(key) {
            Ok(key) => match registry.blobs.check(&key, row.size).await {
                Ok(()) => true,
                Err(error) => {
                    tracing::error!(digest = %row.digest, %error, "a blob's file is not what its row says");
                    false
                }
            },
            Err(_) => false,
        },
    }
}

/// Whether the bytes that a row promises are there and have its digest: reads all of them. Asked when somebody has just
/// sent the same bytes again, so it costs less than what they have done.
pub(crate) async fn is_genuine(registry: &Registry, row: &rows::BlobRow) -> Result<bool> {
    let genuine = match &row.place {
        rows::Place::Inline(_) => {
            let bytes = registry.meta.read(rows::InlineBytes { id: row.id }).await?;
            bytes.is_some_and(|bytes| is_of(&row.digest, &bytes))
        }
        rows::Place::Key(_) if !is_sound(registry, row).await => false,
        rows::Place::Key(key) => {
            let blob = match Key::parse(key) {
                Ok(key) => registry.blobs.open(&key, row.size).await,
                Err(error) => Err(error),
            };
            match blob {
                Ok(blob) => crate::verify::has_digest(blob, row.digest.clone()).await?,
                Err(_) => false,
            }
        }
    };
    if !genuine {
        tracing::error!(digest = %row.digest, "a stored blob is damaged; a push has just brought its bytes again");
    }
    Ok(genuine)
}

/// Whether bytes from the metadata store are still those of their digest; of an algorithm that is not computed, nobody
/// knows.
pub(crate) fn is_of(digest: &Digest, bytes: &[u8]) -> bool {
    digest
        .algorithm()
        .is_none_or(|algorithm| Digest::of(algorithm, bytes) == *digest)
}

/// The row of a blob that the repository holds and that collection is not about to take.
async fn stays(
    registry: &Registry,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Option<rows::BlobRow>> {
    Ok(registry
        .meta
        .read(rows::Stat {
            repository: repository.clone(),
            digest: digest.clone(),
            fading_before: crate::gc::fading(registry),
        })
        .await?)
}

async fn find(
    registry: &Registry,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<rows::BlobRow> {
    let row = registry
        .meta
        .read(rows::Find {
            repository: repository.clone(),
            digest: digest.clone(),
            with_bytes: true,
        })
        .await?;
    if let Some(row) = row {
        return Ok(row);
    }
    let hides = quarantine::Hides {
        repository: repository.clone(),
        digest: digest.clone(),
    };
    match registry.meta.read(hides).await? {
        true => Err(Error::BlobDamaged {
            digest: digest.clone(),
        }),
        false => Err(unknown(repository, digest)),
    }
}

/// The database gave back something else than was put in.
pub(crate) fn damaged_row(registry: &Registry, what: &str) -> Error {
    let what = format!("{what} do not have their digest any more");
    registry.meta.report_damage(what.clone());
    wharf_meta::Error::Corrupt(what).into()
}

fn unknown(repository: &RepositoryName, digest: &Digest) -> Error {
    Error::BlobUnknown {
        repository: repository.clone(),
        digest: digest.clone(),
    }
}
