//! Writing an upload: gather, hand over, hash and write side by side, make durable.
//!
//! Two lanes run on the I/O pool, one for the file and one for the hash. Each has at most one job at a time, and takes its
//! state along, so a writer that is dropped leaves the job to end by itself and to free what it holds.

use std::fs::File;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use wharf_oci::{Algorithm, Digest};

use super::counts::Counted;
use super::engine::{Engine, FILE_MODE, UPLOADS, copy_path, upload_path};
use super::failed;
use super::fence::Fence;
use crate::error::{Error, Result};
use crate::fault::Step;
use crate::hash::Hasher;
use crate::io::Started;
use crate::key::{Key, UploadId};
use crate::store::{BUFFER, BoxFuture, Checkpoint, UploadWriter};

/// Chunks below this are copied together: a list of many tiny ones would cost more memory than their bytes.
const SMALL: usize = 4 << 10;

/// Where tiny chunks are collected.
const TAIL: usize = 64 << 10;

/// Buffers that one `pwritev` takes (IOV_MAX on Linux).
const VECTOR: usize = 1024;

/// Bytes hashed by one job when a file is read again, so that other uploads get their turn.
const REREAD: u64 = 8 << 20;

pub(super) struct FsWriter {
    engine: Arc<Engine>,
    file: Lane<UploadFile>,
    hash: Lane<Hasher>,
    gathered: Gather,
    offset: u64,
    poisoned: bool,
}

/// Something that is either here or with a job on the pool.
enum Lane<T> {
    Idle(T),
    Busy(Started<(T, Result<()>)>),
    Lost,
}

/// How durable a hand-over shall be.
#[derive(Clone, Copy, PartialEq)]
enum Durable {
    No,
    /// The bytes: enough for a file that gets another name.
    Bytes,
    /// Bytes and the file's own name: what a checkpoint promises.
    Name,
}

impl FsWriter {
    pub(super) async fn open(
        engine: &Arc<Engine>,
        id: &UploadId,
        from: &Checkpoint,
        algorithm: Algorithm,
    ) -> Result<Self> {
        let (shared, name, offset) = (engine.clone(), *id, from.offset);
        let job = move || UploadFile::open(&shared, &name, offset);
        let file = engine.pool.run(job).await?;
        let saved = Hasher::restore(&from.hash)
            .filter(|hasher| hasher.algorithm() == algorithm && hasher.length() == offset);
        let mut writer = Self {
            engine: engine.clone(),
            hash: Lane::Idle(saved.unwrap_or_else(|| Hasher::new(algorithm))),
            file: Lane::Idle(file),
            gathered: Gather::default(),
            offset,
            poisoned: false,
        };
        if writer.hash.idle()?.length() != offset {
            writer.hash = Lane::Idle(writer.reread(algorithm).await?);
        }
        Ok(writer)
    }

    /// Runs an operation, and remembers for good when it failed.
    async fn guarded<T>(&mut self, body: impl AsyncFnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        let outcome = body(self).await;
        self.poisoned = outcome.is_err();
        outcome
    }

    async fn append(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            if self.gathered.length >= BUFFER {
                self.hand_over(Durable::No).await?;
            }
            let room = BUFFER - self.gathered.length;
            let part = bytes.split_to(room.min(bytes.len()));
            self.offset += part.len() as u64;
            self.gathered.push(part);
        }
        if self.gathered.length >= BUFFER {
            self.hand_over(Durable::No).await?;
        }
        Ok(())
    }

    /// Starts hashing and writing what was gathered, as soon as the segment before is through.
    ///
    /// Nothing is taken out of `self` before the last wait, so a future that is dropped here loses nothing.
    async fn hand_over(&mut self, durable: Durable) -> Result<()> {
        self.settle().await?;
        let pool = &self.engine.pool;
        let (for_file, for_hash) = pool.two_slots().await;
        let mut file = self.file.take()?;
        let segment = Arc::new(self.gathered.take());
        if !segment.is_empty() {
            let mut hasher = self.hash.take()?;
            let segment = segment.clone();
            self.hash = Lane::Busy(pool.start(for_hash, move || {
                for piece in segment.iter() {
                    hasher.update(piece);
                }
                (hasher, Ok(()))
            }));
        }
        self.file = Lane::Busy(pool.start(for_file, move || {
            let outcome = file.append(&segment).and_then(|()| file.sync(durable));
            (file, outcome)
        }));
        Ok(())
    }

    /// Waits until nothing of this upload is on the pool.
    async fn settle(&mut self) -> Result<()> {
        self.file.settle().await?;
        self.hash.settle().await
    }

    /// Everything written, hashed and durable.
    async fn flush(&mut self, durable: Durable) -> Result<()> {
        self.hand_over(durable).await?;
        self.settle().await
    }

    /// Hashes what the file has up to here, with another algorithm or because the saved state was of no use.
    async fn reread(&mut self, algorithm: Algorithm) -> Result<Hasher> {
        let (file, path) = {
            let upload = self.file.idle()?;
            (upload.file.clone(), upload.path.clone())
        };
        let mut hasher = Hasher::new(algorithm);
        while hasher.length() < self.offset {
            let (engine, file, path) = (self.engine.clone(), file.clone(), path.clone());
            let end = self.offset.min(hasher.length() + REREAD);
            let job = move || {
                hash_part(&engine, &file, &path, &mut hasher, end)?;
                Ok(hasher)
            };
            hasher = self.engine.pool.run(job).await?;
        }
        Ok(hasher)
    }
}

impl UploadWriter for FsWriter {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.guarded(async move |writer| writer.append(bytes).await))
    }

    fn offset(&self) -> u64 {
        self.offset
    }

    fn sync(&mut self) -> BoxFuture<'_, Result<Checkpoint>> {
        Box::pin(self.guarded(async |writer| {
            writer.flush(Durable::Name).await?;
            Ok(Checkpoint {
                offset: writer.offset,
                hash: writer.hash.idle()?.save(),
            })
        }))
    }

    fn finish(&mut self, algorithm: Algorithm) -> BoxFuture<'_, Result<(Digest, u64)>> {
        Box::pin(self.guarded(async move |writer| {
            writer.flush(Durable::Bytes).await?;
            let hasher = writer.hash.idle()?;
            let hasher = if hasher.algorithm() == algorithm {
                hasher.clone()
            } else {
                writer.reread(algorithm).await?
            };
            Ok((hasher.finish(), writer.offset))
        }))
    }
}

impl Drop for FsWriter {
    fn drop(&mut self) {
        // Closing may free gigabytes, so it belongs on the pool; a job under way does it there by itself.
        let file = match std::mem::replace(&mut self.file, Lane::Lost) {
            Lane::Idle(file) => Some(file),
            Lane::Busy(started) => started.abandon().map(|(file, _)| file),
            Lane::Lost => None,
        };
        if let Some(file) = file {
            self.engine.pool.detach(move || drop(file));
        }
    }
}

impl<T> Lane<T> {
    /// Waits for the job that has it, and passes on how that ended. Dropping the wait changes nothing.
    async fn settle(&mut self) -> Result<()> {
        let Self::Busy(started) = self else {
            return Ok(());
        };
        match started.await {
            Ok((value, outcome)) => {
                *self = Self::Idle(value);
                outcome
            }
            Err(panicked) => {
                *self = Self::Lost;
                Err(panicked)
            }
        }
    }

    fn idle(&self) -> Result<&T> {
        match self {
            Self::Idle(value) => Ok(value),
            _ => Err(Error::Poisoned),
        }
    }

    fn take(&mut self) -> Result<T> {
        match std::mem::replace(self, Self::Lost) {
            Self::Idle(value) => Ok(value),
            other => {
                *self = other;
                Err(Error::Poisoned)
            }
        }
    }
}

/// The bytes of a segment as they came, without copying the large ones.
#[derive(Default)]
struct Gather {
    pieces: Vec<Bytes>,
    tail: BytesMut,
    length: usize,
}

impl Gather {
    fn push(&mut self, bytes: Bytes) {
        self.length += bytes.len();
        if bytes.len() < SMALL {
            if self.tail.len() + bytes.len() > TAIL {
                self.seal();
            }
            self.tail.reserve(bytes.len().max(SMALL));
            self.tail.extend_from_slice(&bytes);
        } else {
            self.seal();
            self.pieces.push(bytes);
        }
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push(self.tail.split().freeze());
        }
    }

    fn take(&mut self) -> Vec<Bytes> {
        self.seal();
        self.length = 0;
        std::mem::take(&mut self.pieces)
    }
}

/// An upload's file, open for appending. Lives on the I/O threads.
struct UploadFile {
    engine: Arc<Engine>,
    fence: Arc<Fence>,
    path: String,
    file: Arc<File>,
    /// Bytes in the file.
    length: u64,
    /// Bytes that are durable and acknowledged, or were when it was opened.
    checkpoint: u64,
    /// The file's name may not be durable yet.
    unnamed: bool,
    /// Somebody may come back for these bytes.
    wanted: bool,
}

impl UploadFile {
    fn open(engine: &Arc<Engine>, id: &UploadId, offset: u64) -> Result<Self> {
        engine.fences.take_over(id, |fence| {
            let path = upload_path(id);
            let file = if offset == 0 {
                create(engine, &path)?
            } else {
                resume(engine, &path, offset)?
            };
            Ok(Self {
                engine: engine.clone(),
                fence: fence.clone(),
                path,
                file: Arc::new(file),
                length: offset,
                checkpoint: offset,
                unnamed: offset == 0,
                wanted: offset > 0,
            })
        })
    }

    fn append(&mut self, segment: &[Bytes]) -> Result<()> {
        let fence = self.fence.clone();
        fence.hold(|| {
            self.write_all(segment).inspect_err(|_| self.cut_back())?;
            Ok(())
        })
    }

    fn write_all(&mut self, segment: &[Bytes]) -> Result<()> {
        let _timed = self.engine.counts.time(Counted::Write);
        let failed = failed("writing", &self.path);
        for pieces in segment.chunks(VECTOR) {
            let mut slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            let mut slices = slices.as_mut_slice();
            IoSlice::advance_slices(&mut slices, 0);
            while !slices.is_empty() {
                self.engine.step(Step::Write, &self.path).map_err(&failed)?;
                match rustix::io::pwritev(&*self.file, slices, self.length) {
                    Ok(0) => return Err(failed(Errno::IO)),
                    Ok(count) => {
                        self.length += count as u64;
                        IoSlice::advance_slices(&mut slices, count);
                    }
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(failed(errno)),
                }
            }
        }
        Ok(())
    }

    fn sync(&mut self, durable: Durable) -> Result<()> {
        if durable == Durable::No {
            return Ok(());
        }
        let synced = self.sync_data().and_then(|()| {
            if durable == Durable::Name && self.unnamed {
                self.engine.sync_folder(UPLOADS)?;
                self.unnamed = false;
            }
            Ok(())
        });
        let fence = self.fence.clone();
        // Held only now: nobody shall wait for a slow disk in order to take the upload over.
        fence.hold(|| match synced {
            Ok(()) => {
                self.checkpoint = self.length;
                self.wanted = true;
                Ok(())
            }
            Err(error) => {
                self.cut_back();
                Err(error)
            }
        })
    }

    fn sync_data(&self) -> Result<()> {
        let _timed = self.engine.counts.time(Counted::Sync);
        let failed = failed("syncing", &self.path);
        self.engine.step(Step::Sync, &self.path).map_err(&failed)?;
        rustix::fs::fdatasync(&*self.file).map_err(&failed)
    }

    /// Gives back the space of what was not acknowledged. The caller holds the fence.
    fn cut_back(&mut self) {
        match rustix::fs::ftruncate(&*self.file, self.checkpoint) {
            Ok(()) => self.length = self.checkpoint,
            Err(errno) => {
                tracing::warn!(path = self.path, %errno, "a failed upload could not be cut back; resuming it does");
            }
        }
    }
}

impl Drop for UploadFile {
    fn drop(&mut self) {
        if self.wanted {
            return;
        }
        // Nothing of it was acknowledged, so nobody can come back for it: a client that vanished leaves no file.
        let removed = self.fence.hold(|| self.engine.unlink(&self.path));
        if let Err(error) = removed
            && !matches!(error, Error::UploadLost)
        {
            tracing::warn!(path = self.path, %error, "an abandoned upload could not be removed");
        }
    }
}

/// A new file, also where one of that name was: its bytes and its name's durability belong to another life.
fn create(engine: &Engine, path: &str) -> Result<File> {
    let failed = failed("creating", path);
    engine.step(Step::Create, path).map_err(&failed)?;
    engine.unlink(path)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&engine.root, path, flags, FILE_MODE).map_err(&failed)?;
    Ok(file.into())
}

/// The file as it was at a checkpoint.
fn resume(engine: &Engine, path: &str, offset: u64) -> Result<File> {
    let failed = failed("opening", path);
    engine.step(Step::Create, path).map_err(&failed)?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let file: File = match rustix::fs::openat(&engine.root, path, flags, Mode::empty()) {
        Ok(file) => file.into(),
        Err(Errno::NOENT) => return Err(Error::UploadLost),
        Err(errno) => return Err(failed(errno)),
    };
    let stat = rustix::fs::fstat(&file).map_err(&failed)?;
    let length = u64::try_from(stat.st_size).unwrap_or(0);
    if length < offset {
        return Err(Error::UploadLost);
    }
    if stat.st_nlink > 1 {
        // It was published, and what is published never changes.
        return unshare(engine, path, &file, offset);
    }
    if length > offset {
        rustix::fs::ftruncate(&file, offset).map_err(&failed)?;
    }
    Ok(file)
}

/// Replaces an upload's file by a copy of its first `offset` bytes. Rare: a publish whose row could not be written.
fn unshare(engine: &Engine, path: &str, shared: &File, offset: u64) -> Result<File> {
    let copy = copy_path(path);
    let failed = failed("copying", path);
    let made = create(engine, &copy)?;
    let outcome = super::export::copy(shared, &made, 0..offset).and_then(|()| {
        engine.step(Step::Sync, &copy)?;
        rustix::fs::fdatasync(&made)?;
        rustix::fs::renameat(&engine.root, &copy, &engine.root, path)
    });
    if let Err(errno) = outcome {
        // Best effort: the next try begins with removing it as well.
        let _ = rustix::fs::unlinkat(&engine.root, &copy, AtFlags::empty());
        return Err(failed(errno));
    }
    engine.sync_folder(UPLOADS)?;
    Ok(made)
}

fn hash_part(
    engine: &Engine,
    file: &File,
    path: &str,
    hasher: &mut Hasher,
    end: u64,
) -> Result<()> {
    let failed = failed("reading", path);
    let mut buffer = vec![0; 256 << 10];
    while hasher.length() < end {
        engine.step(Step::Read, path).map_err(&failed)?;
        let want = usize::try_from(end - hasher.length())
            .map_or(buffer.len(), |left| left.min(buffer.len()));
        match rustix::io::pread(file, &mut buffer[..want], hasher.length()) {
            Ok(0) => return Err(Error::UploadLost),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(())
}

/// A whole small blob in one job: an upload that is published at once.
pub(super) fn put(engine: &Arc<Engine>, key: &Key, bytes: Bytes) -> Result<()> {
    let id = UploadId::random();
    let mut file = UploadFile::open(engine, &id, 0)?;
    file.append(&[bytes])?;
    file.sync(Durable::Bytes)?;
    let published = engine.publish(&id, key);
    let discarded = engine.discard(&id);
    published.and(discarded)
}
