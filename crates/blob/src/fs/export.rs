//! Blobs to another folder, for backups and restores: a second copy, hashed on the way.
//!
//! Never a hard link: what damages one name's bytes would damage the other's. Where the file system shares blocks until
//! one side changes (FICLONE), it may.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ioctl_ficlone};
use rustix::io::Errno;
use wharf_oci::Digest;

use super::engine::{Engine, FILE_MODE};
use crate::error::{Error, Result};
use crate::fault::Step;
use crate::hash::Hasher;
use crate::key::Key;

/// Bytes copied by one job, so that uploads get their turn.
const PART: u64 = 32 << 20;
/// Bytes read at once.
const BUFFER: usize = 256 << 10;

pub(super) async fn export(
    engine: &Arc<Engine>,
    key: &Key,
    digest: &Digest,
    to: &Path,
) -> Result<()> {
    let (shared, name, path) = (engine.clone(), key.clone(), to.to_path_buf());
    let digest = digest.clone();
    let mut copying = engine
        .pool
        .run(move || Copying::begin(&shared, &name, digest, &path))
        .await?;
    loop {
        let job = move || copying.part();
        match engine.pool.run(job).await? {
            Some(next) => copying = next,
            None => return Ok(()),
        }
    }
}

/// A copy under way. One that is given up leaves no file.
struct Copying {
    engine: Arc<Engine>,
    key: Key,
    digest: Digest,
    from: File,
    to: File,
    path: Option<PathBuf>,
    /// The blocks are shared already: only the hash is missing.
    cloned: bool,
    /// `None`: of an algorithm that is not computed.
    hasher: Option<Hasher>,
    done: u64,
    length: u64,
}

impl Copying {
    fn begin(engine: &Arc<Engine>, key: &Key, digest: Digest, path: &Path) -> Result<Self> {
        let failed =
            |errno: Errno| Error::io(|| format!("copying {key} to {}", path.display()), errno);
        let missing = |errno| match errno {
            Errno::NOENT => Error::Missing {
                key: key.to_string(),
            },
            errno => failed(errno),
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let from: File = rustix::fs::openat(&engine.root, key.as_str(), flags, Mode::empty())
            .map_err(missing)?
            .into();
        let length = rustix::fs::fstat(&from).map_err(failed)?.st_size;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let to: File = rustix::fs::open(path, flags, FILE_MODE)
            .map_err(failed)?
            .into();
        let mut copying = Self {
            engine: engine.clone(),
            key: key.clone(),
            from,
            to,
            path: Some(path.to_path_buf()),
            cloned: false,
            hasher: digest.algorithm().map(Hasher::new),
            digest,
            done: 0,
            length: u64::try_from(length).unwrap_or(0),
        };
        // Another file system, or one that cannot: then the bytes are copied.
        copying.cloned = ioctl_ficlone(&copying.to, &copying.from).is_ok();
        Ok(copying)
    }

    /// Copies a part; `None` when it was the last and all of it is durable.
    fn part(mut self) -> Result<Option<Self>> {
        let end = self.length.min(self.done + PART);
        self.copy(end)
            .map_err(|errno| Error::io(|| format!("copying {} for a backup", self.key), errno))?;
        if end < self.length {
            return Ok(Some(self));
        }
        if let Some(hasher) = self.hasher.take() {
            let actual = hasher.finish();
            if self.digest != actual {
                return Err(Error::WrongDigest {
                    key: self.key.to_string(),
                    actual: Box::new(actual),
                });
            }
        }
        self.path = None;
        Ok(None)
    }

    fn copy(&mut self, end: u64) -> rustix::io::Result<()> {
        self.engine.step(Step::Write, self.key.as_str())?;
        let mut buffer = vec![0; BUFFER];
        // What is hashed is what the copy has.
        let source = if self.cloned { &self.to } else { &self.from };
        while self.done < end {
            let want = usize::try_from(end - self.done).map_or(BUFFER, |left| left.min(BUFFER));
            let count = match rustix::io::pread(source, &mut buffer[..want], self.done) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            let piece = &buffer[..count];
            if let Some(hasher) = &mut self.hasher {
                hasher.update(piece);
            }
            if !self.cloned {
                self.to
                    .write_all_at(piece, self.done)
                    .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            }
            self.done += count as u64;
        }
        if end == self.length {
            rustix::fs::fdatasync(&self.to)?;
        }
        Ok(())
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "half a copy could not be removed");
        }
    }
}
/// Copies a range of one file to a place in another, sharing the blocks where the file system can. A short source is an error.
pub(super) fn copy(
    from: &File,
    to: &File,
    range: Range<u64>,
    place: u64,
) -> rustix::io::Result<()> {
    let (mut read, mut written) = (range.start, place);
    while read < range.end {
        let want = usize::try_from(range.end - read).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), want) {
            Ok(0) => return Err(Errno::IO),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return copy_by_hand(from, to, read..range.end, written);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn copy_by_hand(
    from: &File,
    to: &File,
    range: Range<u64>,
    mut place: u64,
) -> rustix::io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut at = range.start;
    while at < range.end {
        let want =
            usize::try_from(range.end - at).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = match rustix::io::pread(from, &mut buffer[..want], at) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        };
        let mut piece = &buffer[..count];
        while !piece.is_empty() {
            match rustix::io::pwrite(to, piece, place) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => {
                    at += count as u64;
                    place += count as u64;
                    piece = &piece[count..];
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}
