//! Verification: does the store hold what its rows promise?
//!
//! Called by `wharf storage verify` on a running or a stopped registry, and on backups. Reads page by page, so its
//! memory does not grow with the store. What it finds bad is condemned, if asked to: the blob is then unknown to HEAD and
//! mounts, so that the next push of the same content heals it. Nothing is ever deleted here.
//!
//! Condemning has no way back but a push, so it needs proof: absent, of another length, of another hash, or a sector that
//! the disk can't read. Too many open files or missing rights prove nothing. And when most of the store looks bad, it is
//! the disk that is not there; then nothing is condemned.

use std::io;

use wharf_blob::{Blob, BlobStore, Hasher, Key, Part, Stored, UploadId};
use wharf_meta::{Meta, blob as rows, manifest, multipart, upload};
use wharf_oci::Digest;

use crate::error::{Error, Result};
use crate::walk::Walk;

/// Rows looked at in one step.
const PAGE: u32 = 200;
/// Manifests looked at in one step; they come with their bytes, up to 4 MiB each.
const MANIFESTS: u32 = 16;
/// How many findings of a kind are listed by name; all are counted.
const LISTED: usize = 100;
/// Bad blobs that wait for their sentence until it is known whether they are the exception.
const PENDING: usize = 1_000;
/// So many bad blobs are believed without asking how many are good.
const BELIEVED: u64 = 10;
/// Files without a row that wait for a second look.
const SUSPECTS: usize = 10_000;

/// How thorough to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Hash every byte again, and check the database from inside.
    pub deep: bool,
    /// Condemn what is found bad.
    pub condemn: bool,
}

/// What is wrong with one blob or manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub digest: Digest,
    /// What is wrong, in words.
    pub what: String,
}

/// What was looked at, and what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Blobs looked at.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Manifests looked at.
    pub manifests: u64,
    /// How many blobs and manifests are bad.
    pub bad: u64,
    /// The first of them.
    pub findings: Vec<Finding>,
    /// Bad blobs that were to be condemned and were not: most of the store looks bad, so its disk may not be there.
    pub withheld: u64,
    /// What the metadata store found wrong with itself.
    pub database: Vec<String>,
    /// Files under keys that no row names, and their bytes. A running registry has some for a moment; others are left from
    /// a crash or belong to condemned blobs. They harm nobody.
    pub orphans: u64,
    /// Bytes of those files.
    pub orphan_bytes: u64,
    /// The first of them: keys, and ids of uploads without a session.
    pub orphan_names: Vec<String>,
    /// Files that are no part of the store.
    pub strays: Vec<String>,
}

impl Report {
    /// Whether everything that rows promise is there.
    pub fn is_sound(&self) -> bool {
        self.bad == 0 && self.database.is_empty()
    }

    fn bad(&mut self, digest: Digest, what: impl Into<String>) {
        self.bad += 1;
        if self.findings.len() < LISTED {
            self.findings.push(Finding {
                digest,
                what: what.into(),
            });
        }
    }
}

/// Looks at everything. `progress` hears of the report after each step; `at` is the time for events, in ms since 1970.
pub async fn verify(
    meta: &Meta,
    blobs: &dyn BlobStore,
    depth: Depth,
    at: i64,
    progress: &mut (dyn FnMut(&Report) + Send),
) -> Result<Report> {
    let mut report = Report::default();
    if depth.deep {
        report.database = meta.integrity().await?;
    }
    check_blobs(meta, blobs, depth, at, &mut report, progress).await?;
    check_manifests(meta, &mut report, progress).await?;
    check_files(meta, blobs, &mut report).await?;
    progress(&report);
    Ok(report)
}

/// Looks at the metadata alone: the database from inside, and every manifest.
pub(crate) async fn metadata(
    meta: &Meta,
    progress: &mut (dyn FnMut(&Report) + Send),
) -> Result<Report> {
    let mut report = Report {
        database: meta.integrity().await?,
        ..Report::default()
    };
    check_manifests(meta, &mut report, progress).await?;
    Ok(report)
}

async fn check_blobs(
    meta: &Meta,
    blobs: &dyn BlobStore,
    depth: Depth,
    at: i64,
    report: &mut Report,
    progress: &mut (dyn FnMut(&Report) + Send),
) -> Result<()> {
    let mut sentenced = Sentenced::default();
    let mut after = None;
    loop {
        let page = meta.scan(rows::ListLive { after, limit: PAGE }).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        for row in page {
            report.blobs += 1;
            report.bytes += row.size;
            let Some((row, what, proof)) = judge(meta, blobs, row, depth.deep).await? else {
                continue;
            };
            tracing::error!(digest = %row.digest, what, "a blob is damaged");
            report.bad(row.digest.clone(), what.clone());
            if depth.condemn && proof {
                sentenced.add(row, what);
            }
        }
        sentenced.carry_out(meta, at, report, false).await?;
        progress(report);
    }
    sentenced.carry_out(meta, at, report, true).await
}

/// Blobs that are bad, until it is clear that the store as a whole is not.
#[derive(Default)]
struct Sentenced {
    pending: Vec<(rows::BlobRow, String)>,
    /// More than were kept.
    overflow: u64,
}

impl Sentenced {
    fn add(&mut self, row: rows::BlobRow, cause: String) {
        if self.pending.len() < PENDING {
            self.pending.push((row, cause));
        } else {
            self.overflow += 1;
        }
    }

    async fn carry_out(
        &mut self,
        meta: &Meta,
        at: i64,
        report: &mut Report,
        last: bool,
    ) -> Result<()> {
        // What was seen first may be the bad part of a large store, so the rest is awaited before anything is given up.
        let exceptions = report.bad <= BELIEVED || report.bad.saturating_mul(2) <= report.blobs;
        if !exceptions {
            if last {
                report.withheld += self.pending.len() as u64;
            }
        } else {
            for (row, cause) in self.pending.drain(..) {
                condemn(meta, row, cause, at).await?;
            }
        }
        if last {
            report.withheld += self.overflow;
        }
        Ok(())
    }
}

/// Puts a blob into quarantine: from now on it is unknown to HEAD and mounts, until it is pushed again.
pub(crate) async fn condemn(
    meta: &Meta,
    row: rows::BlobRow,
    cause: String,
    at: i64,
) -> Result<bool> {
    let key = match row.place {
        rows::Place::Key(key) => Some(key),
        rows::Place::Inline(_) => None,
    };
    Ok(meta
        .write(rows::Condemn {
            id: row.id,
            key,
            cause,
            actor: "verify".to_owned(),
            at,
        })
        .await?)
}

/// What is wrong with a blob, and whether that is proven; with the row as it is by now. Looks twice: reading can fail for
/// reasons that pass, and a push may have healed the blob meanwhile.
pub(crate) async fn judge(
    meta: &Meta,
    blobs: &dyn BlobStore,
    row: rows::BlobRow,
    deep: bool,
) -> Result<Option<(rows::BlobRow, String, bool)>> {
    if let Verdict::Sound = check(meta, blobs, &row, deep).await? {
        return Ok(None);
    }
    let digest = row.digest.clone();
    let Some(row) = meta.read(rows::Lookup { digest }).await? else {
        return Ok(None);
    };
    Ok(match check(meta, blobs, &row, deep).await? {
        Verdict::Sound => None,
        Verdict::Bad(what) => Some((row, what, true)),
        Verdict::Unclear(what) => Some((row, what, false)),
    })
}

enum Verdict {
    Sound,
    /// Certainly not what the row promises.
    Bad(String),
    /// It could not be looked at.
    Unclear(String),
}

impl Verdict {
    fn of(error: &wharf_blob::Error) -> Self {
        let proof = match error {
            wharf_blob::Error::Missing { .. }
            | wharf_blob::Error::WrongSize { .. }
            | wharf_blob::Error::WrongDigest { .. }
            | wharf_blob::Error::BadKey(_) => true,
            wharf_blob::Error::Io { source, .. } => is_unreadable(source),
            _ => false,
        };
        match proof {
            true => Self::Bad(error.to_string()),
            false => Self::Unclear(error.to_string()),
        }
    }
}

/// The disk can't read its sector: EIO, or what some file systems say of a checksum that does not fit (EUCLEAN, EBADMSG).
fn is_unreadable(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(5 | 117 | 74))
}

/// Looks at the bytes of one row.
async fn check(
    meta: &Meta,
    blobs: &dyn BlobStore,
    row: &rows::BlobRow,
    deep: bool,
) -> Result<Verdict> {
    let blob = match &row.place {
        rows::Place::Key(key) => {
            let opened = match Key::parse(key) {
                Ok(key) if deep => blobs.open(&key, row.size).await,
                Ok(key) => match blobs.inspect(&key, row.size).await {
                    Ok(()) => return Ok(Verdict::Sound),
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            };
            match opened {
                Ok(blob) => blob,
                Err(error) => return Ok(Verdict::of(&error)),
            }
        }
        rows::Place::Inline(_) => match meta.read(rows::InlineBytes { id: row.id }).await? {
            Some(bytes) => Blob::Memory(bytes.into()),
            None => {
                let what = "its bytes are not in the metadata store";
                return Ok(Verdict::Bad(what.to_owned()));
            }
        },
    };
    if blob.len() != row.size {
        let (actual, expected) = (blob.len(), row.size);
        let what = format!("it has {actual} bytes and should have {expected}");
        return Ok(Verdict::Bad(what));
    }
    if !deep {
        return Ok(Verdict::Sound);
    }
    // Hashing is work for its own thread: requests go on meanwhile.
    let (runtime, digest) = (tokio::runtime::Handle::current(), row.digest.clone());
    off_thread(move || runtime.block_on(hash(blob, digest))).await
}

/// Whether a blob's bytes have this digest. What cannot be read does not.
pub(crate) async fn has_digest(blob: Blob, digest: Digest) -> Result<bool> {
    let runtime = tokio::runtime::Handle::current();
    let verdict = off_thread(move || runtime.block_on(hash(blob, digest))).await?;
    Ok(matches!(verdict, Verdict::Sound))
}

async fn hash(blob: Blob, digest: Digest) -> Verdict {
    let Some(algorithm) = digest.algorithm() else {
        return Verdict::Sound;
    };
    let mut hasher = Hasher::new(algorithm);
    let mut stream = blob.stream(0..blob.len());
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(bytes) => hasher.update(&bytes),
            Err(error) => return Verdict::of(&error),
        }
    }
    let actual = hasher.finish();
    match actual == digest {
        true => Verdict::Sound,
        false => Verdict::Bad(format!("its bytes hash to {actual}")),
    }
}

async fn check_manifests(
    meta: &Meta,
    report: &mut Report,
    progress: &mut (dyn FnMut(&Report) + Send),
) -> Result<()> {
    let mut after = None;
    loop {
        let limit = MANIFESTS;
        let page = meta.scan(manifest::ListLive { after, limit }).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = Some(last.id);
        report.manifests += page.len() as u64;
        let wrong = off_thread(move || {
            let wrong = page.into_iter().filter_map(|row| {
                let actual = Digest::of(row.digest.algorithm()?, &row.bytes);
                (actual != row.digest).then(|| {
                    let what = format!("the manifest in {} hashes to {actual}", row.repository);
                    (row.digest, what)
                })
            });
            wrong.collect::<Vec<_>>()
        })
        .await?;
        for (digest, what) in wrong {
            tracing::error!(%digest, what, "a manifest is damaged");
            report.bad(digest, what);
        }
        progress(report);
    }
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::Internal(format!("verification: {error}")))
}

async fn check_files(meta: &Meta, blobs: &dyn BlobStore, report: &mut Report) -> Result<()> {
    for part in [Part::Blobs, Part::Uploads] {
        let mut walk = Walk::new(blobs, part);
        let mut suspects = Vec::new();
        while let Some(found) = walk.next().await? {
            for stored in found {
                match stored {
                    Stored::Stray(path) if report.strays.len() < LISTED => report.strays.push(path),
                    Stored::Stray(_) => {}
                    stored if is_wanted(meta, &stored).await? => {}
                    stored => suspects.push(stored),
                }
            }
            if suspects.len() >= SUSPECTS {
                convict(meta, &mut suspects, report).await?;
            }
        }
        convict(meta, &mut suspects, report).await?;
    }
    Ok(())
}

/// A publish in flight has its file before its row: what has a row by now was one.
async fn convict(meta: &Meta, suspects: &mut Vec<Stored>, report: &mut Report) -> Result<()> {
    for stored in suspects.drain(..) {
        if is_wanted(meta, &stored).await? {
            continue;
        }
        let (name, size) = match stored {
            Stored::Blob(key, size) => (key.to_string(), size),
            Stored::Upload { id, size, .. } => (format!("uploads/{id}"), size),
            Stored::Stray(path) => (path, 0),
        };
        report.orphans += 1;
        report.orphan_bytes += size;
        if report.orphan_names.len() < LISTED {
            report.orphan_names.push(name);
        }
    }
    Ok(())
}

async fn is_wanted(meta: &Meta, stored: &Stored) -> Result<bool> {
    match stored {
        Stored::Blob(key, _) => {
            // What is marked for removal goes by itself.
            let marked = rows::IsGarbage {
                key: key.as_str().to_owned(),
            };
            Ok(is_named(meta, key).await? || meta.read(marked).await?)
        }
        Stored::Upload { id, .. } => is_session(meta, id).await,
        Stored::Stray(_) => Ok(false),
    }
}

/// Whether a live row has its bytes under this key.
pub(crate) async fn is_named(meta: &Meta, key: &Key) -> Result<bool> {
    let digest = match key.digest() {
        Some(digest) => Some(digest),
        // Chosen before the digest was known.
        None => {
            let key = key.to_string();
            meta.read(multipart::DigestOf { key }).await?
        }
    };
    let Some(digest) = digest else {
        return Ok(false);
    };
    let row = meta.read(rows::Lookup { digest }).await?;
    Ok(
        row.is_some_and(
            |row| matches!(row.place, rows::Place::Key(named) if named == key.as_str()),
        ),
    )
}

async fn is_session(meta: &Meta, id: &UploadId) -> Result<bool> {
    let row = meta.read(upload::Get { id: id.to_string() }).await?;
    Ok(row.is_some())
}

#[cfg(test)]
mod tests;
