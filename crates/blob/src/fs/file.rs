//! An upload's file: appending, making durable, taking up again. Everything here runs on I/O threads.

use std::fs::File;
use std::io::IoSlice;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::counts::Counted;
use super::engine::{Engine, FILE_MODE, copy_path, upload_path};
use super::failed;
use super::fence::Fence;
use super::pieces::{self, piece_path};
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
    id: UploadId,
    /// Under which this process writes to the upload, where several may.
    epoch: i64,
    path: String,
    file: Arc<File>,
    /// The same file, opened for writing past the page cache; made when first needed.
    direct: Option<File>,
    /// The file system wants every write to go through the page cache.
    cached_only: bool,
    /// Which byte of the upload is the file's first; 0 but where other processes wrote what is before.
    start: u64,
    /// Bytes of the upload up to the file's end.
    length: u64,
    /// Those that are durable and acknowledged, or were when it was opened.
    checkpoint: u64,
    /// The file's name may not be durable yet.
    unnamed: bool,
    /// Somebody may come back for these bytes.
    wanted: bool,
}

impl UploadFile {
    pub(super) fn open(
        engine: &Arc<Engine>,
        id: &UploadId,
        epoch: i64,
        offset: u64,
    ) -> Result<Self> {
        engine.fences.take_over(id, |fence| {
            let start = match engine.shared {
                true => start_of(engine, id, epoch, offset)?,
                false => 0,
            };
            let path = engine.upload_file(id, epoch, start);
            let fresh = start == offset;
            let file = match (engine.shared, fresh) {
                (_, false) => resume(engine, &path, offset - start)?,
                (false, true) => create(engine, &path)?,
                (true, true) => pieces::begin(engine, id, &path)?,
            };
            Ok(Self {
                engine: engine.clone(),
                fence: fence.clone(),
                id: *id,
                epoch,
                path,
                file: Arc::new(file),
                direct: None,
                cached_only: false,
                start,
                length: offset,
                checkpoint: offset,
                unnamed: fresh,
                wanted: !fresh,
            })
        })
    }

    /// The file, for reading it again; it must have the whole upload.
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

    /// Whether what comes next may be written past the page cache.
    fn is_aligned(&self) -> bool {
        (self.length - self.start).is_multiple_of(ALIGN as u64)
    }

    fn write_segments(&mut self, mut segments: &[Arc<Segment>]) -> Result<()> {
        while let Some(first) = segments.first() {
            if first.is_aligned() && self.is_aligned() {
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
        } else if self.direct.is_some() && self.is_aligned() {
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
            match rustix::io::pwritev(file, slices, self.length - self.start) {
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
                self.engine.sync_name(&self.path)?;
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

    /// Makes one file of what several processes wrote.
    pub(super) fn join(&mut self) -> Result<()> {
        let fence = self.fence.clone();
        match self.start {
            0 => Ok(()),
            _ => fence.hold(|| self.join_pieces()),
        }
    }

    fn join_pieces(&mut self) -> Result<()> {
        let engine = &self.engine;
        let whole = piece_path(&self.id, self.epoch, 0);
        let half = copy_path(&whole);
        let failed = failed("copying", &half);
        let earlier = pieces::pieces(engine, &self.id, self.epoch, self.start)?;
        let made = create(engine, &half)?;
        for piece in earlier {
            let from = pieces::open(engine, &self.id, &piece)?;
            let length = piece.end - piece.start;
            super::export::copy(&from, &made, 0..length, piece.start).map_err(&failed)?;
        }
        let own = 0..self.length - self.start;
        super::export::copy(&self.file, &made, own, self.start).map_err(&failed)?;
        sync_data(engine, &made, &half)?;
        rustix::fs::renameat(&engine.root, &half, &engine.root, &whole).map_err(&failed)?;
        if !self.wanted {
            engine.unlink(&self.path)?;
        }
        self.file = Arc::new(made);
        self.direct = None;
        self.path = whole;
        self.start = 0;
        self.unnamed = true;
        Ok(())
    }

    /// Gives back the space of what was not acknowledged. The caller holds the fence.
    fn cut_back(&mut self) {
        match rustix::fs::ftruncate(&*self.file, self.checkpoint - self.start) {
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
        let removed = self.fence.hold(|| self.engine.abandon(&self.path));
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

/// Where the file begins in which this epoch goes on at `offset`: the one that it has, or a new one.
fn start_of(engine: &Engine, id: &UploadId, epoch: i64, offset: u64) -> Result<u64> {
    if offset == 0 {
        return Ok(0);
    }
    let pieces = pieces::pieces(engine, id, epoch, offset)?;
    let own = pieces.iter().find(|piece| piece.epoch == epoch);
    Ok(own.map_or(offset, |piece| piece.start))
}

/// A new file, also where one of that name was: its bytes and its name's durability belong to another life.
pub(super) fn create(engine: &Engine, path: &str) -> Result<File> {
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
    let outcome = super::export::copy(shared, &made, 0..offset, 0).and_then(|()| {
        engine.step(Step::Sync, &copy)?;
        rustix::fs::fdatasync(&made)?;
        rustix::fs::renameat(&engine.root, &copy, &engine.root, path)
    });
    if let Err(errno) = outcome {
        // Best effort: the next try begins with removing it as well.
        let _ = rustix::fs::unlinkat(&engine.root, &copy, AtFlags::empty());
        return Err(failed(errno));
    }
    engine.sync_name(path)?;
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
