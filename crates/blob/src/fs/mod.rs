//! The store in a folder: `uploads/<id>` grows, `blobs/<algorithm>/<2 hex>/<hex>.<generation>` is immutable. In a folder that
//! is shared, it is `uploads/<id>/<epoch>.<start>` (pieces.rs).
//!
//! ```text
//! write  → gather ≤ 1 MiB                                       writer.rs, segment.rs
//!        → I/O threads: hash ∥ pwritev, some segments apart     lane.rs, file.rs
//! sync   → fdatasync (first time also the folder) → checkpoint  file.rs
//! put    → write, rename, fdatasync, fsync(folder): one job     file.rs
//! publish → link(uploads/<id>, key) → fsync(folder)             publish.rs
//! open   → openat2(cached), else on the pool → fstat            here
//! ```
//! Only this process may use the folder (the data folder's lock sees to it), unless it is shared. A new writer of an upload
//! fences the one before it, so a write that a vanished request left behind never lands in what came after (fence.rs). Nobody
//! can fence another process, which may have been frozen in the middle of a write: there, each writes to files of its own.

mod counts;
mod engine;
mod export;
mod fence;
mod file;
mod lane;
mod owner;
mod pieces;
mod publish;
mod scan;
mod segment;
mod writer;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use wharf_oci::{Algorithm, Digest};

use self::counts::Counted;
pub use self::counts::Counts;
use self::engine::Engine;
pub use self::owner::Folder;
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::io::PoolStats;
use crate::key::{Key, UploadId};
use crate::read::{Blob, FileBlob};
use crate::store::{BlobStore, BoxFuture, Checkpoint, Figures, Ledger, Part, Stored, UploadWriter};

/// How to open a folder as a store.
#[derive(Debug, Clone)]
pub struct FsOptions {
    /// The folder; it and what belongs into it are made when absent.
    pub root: PathBuf,
    /// I/O threads for writing at most, and as many for reading. 0 lets the store choose.
    pub threads: usize,
    /// Touch nothing: no folder is made, none is synced. For looking at backups, on media that may not be writable.
    pub read_only: bool,
    /// Other processes use the folder, too, on a file system that is coherent between them.
    pub shared: bool,
    /// Faults to inject, in tests.
    pub fault: Option<Arc<dyn Fault>>,
}

impl FsOptions {
    /// The store in `root`, with as many threads as fit the machine.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            threads: 0,
            read_only: false,
            shared: false,
            fault: None,
        }
    }
}

/// A folder full of blobs. A clone is the same store.
#[derive(Debug, Clone)]
pub struct Fs {
    engine: Arc<Engine>,
}

impl Fs {
    /// Whether nothing is under way: no writer, no reader, no work of one that was dropped.
    #[cfg(feature = "suite")]
    pub fn is_quiet(&self) -> bool {
        Arc::strong_count(&self.engine) == 1
    }

    /// Opens the folder. Blocks: makes folders durable that a crash may have left in the cache only.
    pub fn open(options: FsOptions) -> Result<Self> {
        let engine = Engine::open(options)?;
        Ok(Self { engine })
    }

    /// [`BlobStore::upload`] without a ledger: a folder needs none.
    pub async fn upload(
        &self,
        id: &UploadId,
        from: &Checkpoint,
        algorithm: Algorithm,
    ) -> Result<Box<dyn UploadWriter>> {
        let writer = writer::FsWriter::open(&self.engine, id, from, algorithm).await?;
        Ok(Box::new(writer))
    }

    /// Makes a finished upload a blob under `key`, durably. The upload itself stays until [`BlobStore::discard`].
    pub async fn publish(&self, id: &UploadId, key: &Key) -> Result<()> {
        self.engine.publish_on_pool(id, 0, key).await
    }

    /// How much work was done so far.
    pub fn counts(&self) -> &Counts {
        &self.engine.counts
    }

    /// How busy the threads for writing and for reading are.
    pub fn stats(&self) -> (PoolStats, PoolStats) {
        (self.engine.pool.stats(), self.engine.read.pool.stats())
    }

    /// Opens without blocking when the kernel knows the file already.
    fn open_cached(&self, key: &Key) -> Option<rustix::io::Result<File>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let cached = ResolveFlags::CACHED;
        match rustix::fs::openat2(
            &self.engine.root,
            key.as_str(),
            flags,
            Mode::empty(),
            cached,
        ) {
            Ok(file) => Some(Ok(file.into())),
            // What another process made a moment ago, this kernel may not know yet.
            Err(Errno::NOENT) if self.engine.shared => None,
            Err(Errno::NOENT) => Some(Err(Errno::NOENT)),
            // Not in the cache, an old kernel, or a sandbox without this call.
            Err(_) => None,
        }
    }

    fn opened(&self, key: &Key, size: u64, file: rustix::io::Result<File>) -> Result<Blob> {
        let failed = |errno: Errno| Error::io(|| format!("opening {key}"), errno);
        let file = file.map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR => Error::Missing {
                key: key.to_string(),
            },
            errno => failed(errno),
        })?;
        let stat = rustix::fs::fstat(&file).map_err(failed)?;
        if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(Error::Missing {
                key: key.to_string(),
            });
        }
        let actual = u64::try_from(stat.st_size).unwrap_or(0);
        if actual == size {
            let blob = FileBlob::new(file, key.clone(), size, self.engine.read.clone());
            Ok(Blob::File(blob))
        } else {
            Err(Error::WrongSize {
                key: key.to_string(),
                expected: size,
                actual,
            })
        }
    }
}

impl BlobStore for Fs {
    fn is_shared(&self) -> bool {
        self.engine.shared
    }

    fn upload<'a>(
        &'a self,
        id: &'a UploadId,
        from: &'a Checkpoint,
        algorithm: Algorithm,
        _: &'a Arc<dyn Ledger>,
    ) -> BoxFuture<'a, Result<Box<dyn UploadWriter>>> {
        Box::pin(Self::upload(self, id, from, algorithm))
    }

    fn put<'a>(&'a self, key: &'a Key, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (engine, key) = (self.engine.clone(), key.clone());
            let job = move || file::put(&engine, &key, &bytes);
            self.engine.pool.run(job).await
        })
    }

    fn discard<'a>(&'a self, id: &'a UploadId) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (engine, id) = (self.engine.clone(), *id);
            self.engine.pool.run(move || engine.discard(&id)).await
        })
    }

    fn open<'a>(&'a self, key: &'a Key, size: u64) -> BoxFuture<'a, Result<Blob>> {
        Box::pin(async move {
            let _timed = self.engine.counts.time(Counted::Open);
            if let Some(file) = self.open_cached(key) {
                return self.opened(key, size, file);
            }
            let (store, key) = (self.clone(), key.clone());
            let job = move || {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let root = &store.engine.root;
                let file = rustix::fs::openat(root, key.as_str(), flags, Mode::empty());
                store.opened(&key, size, file.map(File::from))
            };
            self.engine.read.pool.run(job).await
        })
    }

    fn remove<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (engine, key) = (self.engine.clone(), key.clone());
            self.engine
                .pool
                .run(move || engine.unlink(key.as_str()))
                .await
        })
    }

    fn export<'a>(
        &'a self,
        key: &'a Key,
        digest: &'a Digest,
        to: &'a Path,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(export::export(&self.engine, key, digest, to))
    }

    fn copy_in<'a>(
        &'a self,
        key: &'a Key,
        digest: &'a Digest,
        blob: Blob,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let id = UploadId::random();
            let algorithm = digest.algorithm().unwrap_or(Algorithm::Sha256);
            let mut writer = Self::upload(self, &id, &Checkpoint::START, algorithm).await?;
            let copied = async {
                let mut stream = blob.stream(0..blob.len());
                while let Some(piece) = stream.next().await {
                    writer.write(piece?).await?;
                }
                let (actual, _) = writer.finish(algorithm).await?;
                // Of an algorithm that is not computed, nobody knows.
                if digest.algorithm().is_some() && actual != *digest {
                    return Err(Error::WrongDigest {
                        key: key.to_string(),
                        actual: Box::new(actual),
                    });
                }
                self.remove(key).await?;
                Self::publish(self, &id, key).await
            };
            let outcome = copied.await;
            drop(writer);
            self.discard(&id).await?;
            outcome
        })
    }

    fn scan<'a>(
        &'a self,
        part: Part,
        visit: &'a mut (dyn FnMut(Vec<Stored>) -> bool + Send),
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(scan::scan(&self.engine, part, visit))
    }

    fn uncache<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (engine, key) = (self.engine.clone(), key.clone());
            let job = move || {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let failed = failed("opening", key.as_str());
                match rustix::fs::openat(&engine.root, key.as_str(), flags, Mode::empty()) {
                    // Published blobs are synced, so their pages are clean and may go.
                    Ok(file) => rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
                        .map_err(failed),
                    Err(Errno::NOENT) => Ok(()),
                    Err(errno) => Err(failed(errno)),
                }
            };
            self.engine.read.pool.run(job).await
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<Option<u64>>> {
        Box::pin(async move {
            let engine = self.engine.clone();
            self.engine.pool.run(move || engine.probe()).await
        })
    }

    fn note<'a>(&'a self, name: &'static str) -> BoxFuture<'a, Result<Option<String>>> {
        Box::pin(async move {
            let engine = self.engine.clone();
            self.engine.pool.run(move || engine.note(name)).await
        })
    }

    fn set_note<'a>(&'a self, name: &'static str, text: String) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let engine = self.engine.clone();
            let job = move || engine.set_note(name, &text);
            self.engine.pool.run(job).await
        })
    }

    fn figures(&self) -> Figures {
        Figures {
            work: self.engine.counts.read(),
            ..Figures::default()
        }
    }
}

/// What a failed call says about itself.
pub(crate) fn failed(what: &'static str, path: &str) -> impl Fn(Errno) -> Error {
    let path = path.to_owned();
    move |errno| Error::io(|| format!("{what} {path}"), io::Error::from(errno))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod window_tests;
