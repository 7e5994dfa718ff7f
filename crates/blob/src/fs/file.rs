//! An upload's file: appending, making durable, taking up again. Everything here runs on I/O threads.

use std::fs::File;
use std::io::IoSlice;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::counts::Counted;
use super::engine::{Engine, FILE_MODE, UPLOADS, copy_path, upload_path};
use super::failed;
use super::fence::Fence;
use super::segment::{ALIGN, Segment};
use crate::error::{Error, Result};
use crate::fault::Step;
use crate::hash::Hasher;
use crate::key::{Key, UploadId};

/// Buffers that one `pwritev` takes (IOV_MAX on Linux).
const VECTOR: usize = 1024;

/// Bytes that one write through the page cache takes, about. The kernel gives the processor to nobody else while it fills
/// fresh pages, and where those are slow, a mebibyte of them keeps whoever answers requests waiting for milliseconds.
const TURN: usize = 128 << 10;

/// How durable a job shall leave the file.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Durable {
    No,
    /// The bytes: enough for a file that gets another name.
    Bytes,
    /// Bytes and the file's own name: what a checkpoint promises.
    Name,
}

/// An upload's file, open for appending. Lives on the I/O threads.
pub(super) struct UploadFile {
    engine: Arc<Engine>,
    fence: Arc<Fence>,
    path: String,
    file: Arc<File>,
    /// The same file, opened for writing past the page cache; made when first needed.
    direct: Option<File>,
    /// The file system wants every write to go through the page cache.
    cached_only: bool,
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
    pub(super) fn open(engine: &Arc<Engine>, id: &UploadId, offset: u64) -> Result<Self> {
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
                direct: None,
                cached_only: false,
                length: offset,
                checkpoint: offset,
                unnamed: offset == 0,
                wanted: offset > 0,
            })
        })
    }

    /// The file, for reading it again.
    pub(super) fn handle(&self) -> (Arc<File>, String) {
        (self.file.clone(), self.path.clone())
    }

    pub(super) fn append(&mut self, segments: &[Arc<Segment>]) -> Result<()> {
        let fence = self.fence.clone();
        fence.hold(|| {
            self.write_segments(segments)
                .inspect_err(|_| self.cut_back())
        })
    }

    fn write_segments(&mut self, mut segments: &[Arc<Segment>]) -> Result<()> {
        while let Some(first) = segments.first() {
            if first.is_aligned() && self.length.is_multiple_of(ALIGN as u64) {
                let aligned = segments.iter().take_while(|segment| segment.is_aligned());
                let (run, rest) = segments.split_at(aligned.count());
                let mut slices: Vec<_> = run.iter().flat_map(|segment| segment.slices()).collect();
                self.write_past_cache(&mut slices)?;
                segments = rest;
            } else {
                self.write_all(&mut first.slices())?;
                segments = &segments[1..];
            }
        }
        Ok(())
    }

    /// Writes without leaving a copy in the page cache; where that can't be, through it.
    fn write_past_cache(&mut self, mut slices: &mut [IoSlice<'_>]) -> Result<()> {
        if self.direct.is_none() && !self.cached_only {
            let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
            match rustix::fs::openat(&self.engine.root, &self.path, flags, Mode::empty()) {
                Ok(file) => self.direct = Some(file.into()),
                Err(_) => self.cached_only = true,
            }
        }
        let Some(direct) = self.direct.take() else {
            return self.write_all(slices);
        };
        match self.write_some(&direct, slices) {
            Ok(count) => {
                IoSlice::advance_slices(&mut slices, count);
                self.direct = Some(direct);
            }
            // Not on this file system, or not with this alignment.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => self.cached_only = true,
            Err(errno) => return Err(failed("writing", &self.path)(errno)),
        }
        if slices.is_empty() {
            Ok(())
        } else if self.direct.is_some() && self.length.is_multiple_of(ALIGN as u64) {
            self.write_past_cache(slices)
        } else {
            self.write_all(slices)
        }
    }

    fn write_all(&mut self, mut slices: &mut [IoSlice<'_>]) -> Result<()> {
        let file = self.file.clone();
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            let count = self
                .write_some(&file, &slices[..turn(slices)])
                .map_err(failed("writing", &self.path))?;
            IoSlice::advance_slices(&mut slices, count);
        }
        Ok(())
    }

    fn write_some(&mut self, file: &File, slices: &[IoSlice<'_>]) -> rustix::io::Result<usize> {
        let _timed = self.engine.counts.time(Counted::Write);
        let slices = &slices[..slices.len().min(VECTOR)];
        loop {
            self.engine.step(Step::Write, &self.path)?;
            match rustix::io::pwritev(file, slices, self.length) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => {
                    self.length += count as u64;
                    return Ok(count);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    pub(super) fn sync(&mut self, durable: Durable) -> Result<()> {
        if durable == Durable::No {
            return Ok(());
        }
        let synced = sync_data(&self.engine, &self.file, &self.path).and_then(|()| {
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
                self.wanted |= durable == Durable::Name;
                Ok(())
            }
            Err(error) => {
                self.cut_back();
                Err(error)
            }
        })
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

/// How many of the slices one write takes: at least one, and no more once there are enough bytes.
fn turn(slices: &[IoSlice<'_>]) -> usize {
    let mut bytes = 0;
    let enough = slices.iter().position(|slice| {
        bytes += slice.len();
        bytes >= TURN
    });
    enough.map_or(slices.len(), |last| last + 1)
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

pub(super) fn hash_part(
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

/// A whole small blob in one job. It moves to its final name before it is synced, so that file systems with a journal
/// commit both at once; nobody knows the key before this has ended.
pub(super) fn put(engine: &Engine, key: &Key, bytes: &[u8]) -> Result<()> {
    let (folder, path) = (key.folder(), upload_path(&UploadId::random()));
    engine.folder(folder)?;
    let file = create(engine, &path)?;
    write_whole(engine, &file, &path, bytes)
        .and_then(|()| engine.rename(&path, key))
        .and_then(|()| sync_data(engine, &file, key.as_str()))
        .and_then(|()| engine.sync_folder(folder))
        .inspect_err(|_| {
            for name in [&path, key.as_str()] {
                if let Err(error) = engine.unlink(name) {
                    tracing::warn!(name, %error, "a blob that could not be stored was left behind; `storage verify` lists it");
                }
            }
        })
}

fn write_whole(engine: &Engine, mut file: &File, path: &str, bytes: &[u8]) -> Result<()> {
    let _timed = engine.counts.time(Counted::Write);
    let failed = failed("writing", path);
    engine.step(Step::Write, path).map_err(&failed)?;
    std::io::Write::write_all(&mut file, bytes)
        .map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)))
}

fn sync_data(engine: &Engine, file: &File, path: &str) -> Result<()> {
    let _timed = engine.counts.time(Counted::Sync);
    let failed = failed("syncing", path);
    engine.step(Step::Sync, path).map_err(&failed)?;
    rustix::fs::fdatasync(file).map_err(&failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_takes_one_slice_at_least_and_stops_at_its_turn() {
        let turns = |sizes: &[usize]| {
            let bytes = vec![0; 2 * TURN];
            let slices: Vec<_> = sizes.iter().map(|n| IoSlice::new(&bytes[..*n])).collect();
            turn(&slices)
        };
        assert_eq!(turns(&[2 * TURN, 1]), 1);
        assert_eq!(turns(&[TURN - 1, 1, 1]), 2);
        assert_eq!(turns(&[TURN / 2, TURN / 4]), 2);
        assert_eq!(turns(&[0]), 1);
    }
}
