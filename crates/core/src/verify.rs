//! Verification: does the store hold what its rows promise?
//!
//! Called by `wharf storage verify` on a running or a stopped registry, and on backups. Reads page by page, so its
//! memory does not grow with the store. What it finds bad is condemned, if asked to: the blob is then unknown to HEAD and
//! mounts, so that the next push of the same content heals it. Nothing is ever deleted here.

use std::future::poll_fn;
use std::pin::Pin;

use futures_core::Stream;
use wharf_blob::{Blob, BlobStore, Hasher, Key, Part, Stored, UploadId};
use wharf_meta::{Meta, blob as rows, manifest, upload};
use wharf_oci::Digest;

use crate::error::Result;

/// Rows looked at in one step.
const PAGE: u32 = 200;
/// How many findings of a kind are listed by name; all are counted.
const LISTED: usize = 100;

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
    /// What the metadata store found wrong with itself.
    pub database: Vec<String>,
    /// Files under keys that no row names, and their bytes. A running registry has some for a moment; others are left from
    /// a crash or belong to condemned blobs. They harm nobody.
    pub orphans: u64,
    /// Bytes of those files.
    pub orphan_bytes: u64,
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

async fn check_blobs(
    meta: &Meta,
    blobs: &dyn BlobStore,
    depth: Depth,
    at: i64,
    report: &mut Report,
    progress: &mut (dyn FnMut(&Report) + Send),
) -> Result<()> {
    let mut after = None;
    loop {
        let page = meta.scan(rows::ListLive { after, limit: PAGE }).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = Some(last.id);
        for row in page {
            report.blobs += 1;
            report.bytes += row.size;
            // Twice before anything is condemned: a read can fail for reasons that pass.
            if check(meta, blobs, &row, depth.deep).await?.is_none() {
                continue;
            }
            let Some(what) = check(meta, blobs, &row, depth.deep).await? else {
                continue;
            };
            tracing::error!(digest = %row.digest, what, "a blob is damaged");
            report.bad(row.digest.clone(), what);
            if depth.condemn {
                let key = match row.place {
                    rows::Place::Key(key) => Some(key),
                    rows::Place::Inline(_) => None,
                };
                meta.write(rows::Condemn {
                    id: row.id,
                    key,
                    actor: "verify".to_owned(),
                    at,
                })
                .await?;
            }
        }
        progress(report);
    }
}

/// What is wrong with the bytes of one row, if anything.
async fn check(
    meta: &Meta,
    blobs: &dyn BlobStore,
    row: &rows::BlobRow,
    deep: bool,
) -> Result<Option<String>> {
    let blob = match &row.place {
        rows::Place::Key(key) => {
            let opened = match Key::parse(key) {
                Ok(key) => blobs.open(&key, row.size).await,
                Err(error) => Err(error),
            };
            match opened {
                Ok(blob) => blob,
                Err(error) => return Ok(Some(error.to_string())),
            }
        }
        rows::Place::Inline(_) => match meta.read(rows::InlineBytes { id: row.id }).await? {
            Some(bytes) => Blob::Memory(bytes.into()),
            None => return Ok(Some("its bytes are not in the metadata store".to_owned())),
        },
    };
    if blob.len() != row.size {
        return Ok(Some(format!(
            "it has {} bytes and should have {}",
            blob.len(),
            row.size
        )));
    }
    let Some(algorithm) = row.digest.algorithm().filter(|_| deep) else {
        return Ok(None);
    };
    let mut hasher = Hasher::new(algorithm);
    let mut stream = blob.stream(0..row.size);
    while let Some(chunk) = poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await {
        match chunk {
            Ok(bytes) => hasher.update(&bytes),
            Err(error) => return Ok(Some(error.to_string())),
        }
        // Hashing is work: let requests in between.
        tokio::task::yield_now().await;
    }
    let actual = hasher.finish();
    Ok((actual != row.digest).then(|| format!("its bytes hash to {actual}")))
}

async fn check_manifests(
    meta: &Meta,
    report: &mut Report,
    progress: &mut (dyn FnMut(&Report) + Send),
) -> Result<()> {
    let mut after = None;
    loop {
        let page = meta
            .scan(manifest::ListLive {
                after,
                limit: PAGE / 4,
            })
            .await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = Some(last.id);
        for row in page {
            report.manifests += 1;
            let Some(algorithm) = row.digest.algorithm() else {
                continue;
            };
            let actual = Digest::of(algorithm, &row.bytes);
            if actual != row.digest {
                let what = format!("the manifest in {} hashes to {actual}", row.repository);
                report.bad(row.digest, what);
            }
        }
        progress(report);
    }
}

async fn check_files(meta: &Meta, blobs: &dyn BlobStore, report: &mut Report) -> Result<()> {
    let mut keys: Vec<(Key, u64)> = Vec::new();
    let mut uploads: Vec<(UploadId, u64)> = Vec::new();
    // The walk cannot ask rows, so it stops after each step, and suspects are asked about here. Names are short, and
    // only those that are not rows' stay.
    let mut found = Vec::new();
    for part in [Part::Blobs, Part::Uploads] {
        let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
        let mut visit = move |stored| send.send(stored).is_ok();
        let walk = blobs.scan(part, &mut visit);
        tokio::pin!(walk);
        let mut done = false;
        while !done || !receive.is_empty() {
            tokio::select! {
                biased;
                Some(stored) = receive.recv() => found.extend(stored),
                outcome = &mut walk, if !done => {
                    outcome?;
                    done = true;
                }
            }
            for stored in found.drain(..) {
                match stored {
                    Stored::Blob(key, size) if !is_named(meta, &key).await? => {
                        keys.push((key, size))
                    }
                    Stored::Upload(id, size) if !is_session(meta, &id).await? => {
                        uploads.push((id, size))
                    }
                    Stored::Stray(path) if report.strays.len() < LISTED => report.strays.push(path),
                    _ => {}
                }
            }
        }
    }
    // A publish in flight has its file before its row: what is named by now was one.
    for (key, size) in keys {
        if !is_named(meta, &key).await? {
            report.orphans += 1;
            report.orphan_bytes += size;
        }
    }
    for (id, size) in uploads {
        if !is_session(meta, &id).await? {
            report.orphans += 1;
            report.orphan_bytes += size;
        }
    }
    Ok(())
}

async fn is_named(meta: &Meta, key: &Key) -> Result<bool> {
    let Some(digest) = key.digest() else {
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
