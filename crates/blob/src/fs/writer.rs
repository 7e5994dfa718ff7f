//! Writing an upload: gather, hand over, hash and write side by side, make durable.
//!
//! Two [lanes](super::lane) run on the I/O threads, one for the file and one for the hash. The request's own task only
//! gathers, and stays ahead of them by a bounded number of segments, so that a disk that stutters stops neither the hash
//! nor the client.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use wharf_oci::{Algorithm, Digest};

use super::engine::Engine;
use super::file::{Durable, UploadFile, hash_part};
use super::lane::{Lane, Segments};
use super::segment::{Gather, Segment};
use crate::error::{Error, Result};
use crate::hash::Hasher;
use crate::key::{Key, UploadId};
use crate::store::{AHEAD, BUFFER, BoxFuture, Checkpoint, UploadWriter};

/// Bytes hashed by one job when a file is read again, so that other uploads get their turn.
const REREAD: u64 = 8 << 20;

pub(super) struct FsWriter {
    engine: Arc<Engine>,
    id: UploadId,
    /// [`Checkpoint::epoch`].
    epoch: i64,
    file: Lane<UploadFile>,
    hash: Lane<Hasher>,
    gathered: Gather,
    offset: u64,
    poisoned: bool,
}

impl FsWriter {
    pub(super) async fn open(
        engine: &Arc<Engine>,
        id: &UploadId,
        from: &Checkpoint,
        algorithm: Algorithm,
    ) -> Result<Self> {
        let (shared, name, offset, epoch) = (engine.clone(), *id, from.offset, from.epoch);
        let job = move || UploadFile::open(&shared, &name, epoch, offset);
        let file = engine.pool.run(job).await?;
        let saved = Hasher::restore(&from.hash)
            .filter(|hasher| hasher.algorithm() == algorithm && hasher.length() == offset);
        let mut writer = Self {
            engine: engine.clone(),
            id: *id,
            epoch,
            hash: Lane::new(saved.unwrap_or_else(|| Hasher::new(algorithm))),
            file: Lane::new(file),
            gathered: Gather::default(),
            offset,
            poisoned: false,
        };
        if writer.hash.idle()?.length() != offset {
            writer.hash = Lane::new(writer.reread(algorithm).await?);
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
            self.hand_over_if_full().await?;
            let filled = (self.offset % BUFFER as u64) as usize;
            let part = bytes.split_to((BUFFER - filled).min(bytes.len()));
            let at = self.offset;
            self.offset += part.len() as u64;
            self.gathered.push(part, at);
        }
        self.hand_over_if_full().await?;
        self.keep_going()
    }

    /// Nothing is taken out of `self` before the last wait, so a future that is dropped here loses nothing.
    async fn hand_over_if_full(&mut self) -> Result<()> {
        if !self.gathered.is_empty() && self.offset.is_multiple_of(BUFFER as u64) {
            self.hand_over().await?;
            self.keep_going()?;
        }
        Ok(())
    }

    /// Puts what was gathered before both lanes, as soon as there is room: always for one segment, for more when the
    /// store has memory to spare.
    async fn hand_over(&mut self) -> Result<()> {
        let ahead = loop {
            self.keep_going()?;
            let waiting = self.file.waiting().max(self.hash.waiting());
            if !self.file.is_busy() && !self.hash.is_busy() {
                break None;
            }
            if waiting < AHEAD
                && let Ok(permit) = self.engine.ahead.clone().try_acquire_owned()
            {
                break Some(permit);
            }
            self.progress().await?;
        };
        let segment = Arc::new(self.gathered.take(ahead));
        self.file.push(segment.clone());
        self.hash.push(segment);
        Ok(())
    }

    /// Gives lanes that are through what waits for them. Never blocks.
    fn keep_going(&mut self) -> Result<()> {
        for done in [self.file.finished()?, self.hash.finished()?] {
            self.recycle(done);
        }
        if !self.file.is_busy() && self.file.waiting() > 0 {
            self.write_waiting(Durable::No)?;
        }
        if !self.hash.is_busy() && self.hash.waiting() > 0 {
            self.hash_waiting()?;
        }
        Ok(())
    }

    fn write_waiting(&mut self, durable: Durable) -> Result<()> {
        self.file.start(&self.engine.pool, move |file, segments| {
            file.append(segments).and_then(|()| file.sync(durable))
        })
    }

    fn hash_waiting(&mut self) -> Result<()> {
        self.hash.start(&self.engine.hash, |hasher, segments| {
            for piece in segments.iter().flat_map(|segment| segment.pieces()) {
                hasher.update(piece);
            }
            Ok(())
        })
    }

    /// Waits until one of the lanes is through. At least one has a job.
    async fn progress(&mut self) -> Result<()> {
        let done = poll_fn(|cx| match self.file.poll(cx) {
            Poll::Pending => self.hash.poll(cx),
            ready => ready,
        });
        let done = done.await?;
        self.recycle(done);
        Ok(())
    }

    /// Keeps memory whose segment has left both lanes.
    fn recycle(&mut self, done: Segments) {
        for block in done
            .into_iter()
            .filter_map(Arc::into_inner)
            .filter_map(Segment::into_block)
        {
            self.gathered.reuse(block);
        }
    }

    /// Everything written, hashed and durable.
    async fn flush(&mut self, durable: Durable) -> Result<()> {
        if !self.gathered.is_empty() {
            self.hand_over().await?;
        }
        // The file's last job does both: writes the rest and makes all of it durable.
        while self.file.is_busy() {
            self.progress().await?;
        }
        self.write_waiting(durable)?;
        if !self.hash.is_busy() && self.hash.waiting() > 0 {
            self.hash_waiting()?;
        }
        while self.file.is_busy() || self.hash.is_busy() {
            self.progress().await?;
            self.keep_going()?;
        }
        Ok(())
    }

    /// One file with everything, where several processes have written to the upload. Nothing waits for either lane.
    async fn join(&mut self) -> Result<()> {
        if !self.engine.shared {
            return Ok(());
        }
        self.file.start(&self.engine.pool, |file, _| file.join())?;
        while self.file.is_busy() {
            self.progress().await?;
        }
        Ok(())
    }

    /// Hashes what the file has up to here, with another algorithm or because the saved state was of no use.
    async fn reread(&mut self, algorithm: Algorithm) -> Result<Hasher> {
        self.join().await?;
        let (file, path) = self.file.idle()?.handle();
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
                parts: None,
                epoch: writer.epoch,
            })
        }))
    }

    fn finish(&mut self, algorithm: Algorithm) -> BoxFuture<'_, Result<(Digest, u64)>> {
        Box::pin(self.guarded(async move |writer| {
            writer.flush(Durable::Bytes).await?;
            writer.join().await?;
            let hasher = writer.hash.idle()?;
            let hasher = if hasher.algorithm() == algorithm {
                hasher.clone()
            } else {
                writer.reread(algorithm).await?
            };
            Ok((hasher.finish(), writer.offset))
        }))
    }

    fn publish<'a>(&'a mut self, digest: &'a Digest) -> BoxFuture<'a, Result<Key>> {
        Box::pin(async move {
            let key = Key::fresh(digest);
            let (id, epoch) = (self.id, self.epoch);
            self.engine.publish_on_pool(&id, epoch, &key).await?;
            Ok(key)
        })
    }
}

impl Drop for FsWriter {
    fn drop(&mut self) {
        // Closing may free gigabytes, so it belongs on the pool; a job under way does it there by itself.
        if let Some(file) = self.file.abandon() {
            self.engine.pool.detach(move || drop(file));
        }
    }
}
