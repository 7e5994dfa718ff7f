//! Blobs to another folder, for backups.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::engine::{Engine, FILE_MODE};
use crate::error::{Error, Result};
use crate::fault::Step;
use crate::key::Key;

/// Bytes copied by one job, so that uploads get their turn.
const PART: u64 = 32 << 20;

pub(super) async fn export(engine: &Arc<Engine>, key: &Key, to: &Path) -> Result<()> {
    let (shared, name, path) = (engine.clone(), key.clone(), to.to_path_buf());
    let begun = engine
        .pool
        .run(move || begin(&shared, &name, &path))
        .await?;
    let Some(copying) = begun else { return Ok(()) };
    let mut copying = copying;
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
    from: File,
    to: File,
    path: Option<std::path::PathBuf>,
    done: u64,
    length: u64,
}

/// Links, or opens what a copy needs.
fn begin(engine: &Arc<Engine>, key: &Key, path: &Path) -> Result<Option<Copying>> {
    let failed =
        |errno: Errno| Error::io(|| format!("exporting {key} to {}", path.display()), errno);
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
    let linked = engine
        .step(Step::Link, key.as_str())
        .and_then(|()| rustix::fs::linkat(&engine.root, key.as_str(), CWD, path, AtFlags::empty()));
    match linked {
        Ok(()) => return Ok(None),
        // Another file system, one without links, or no room in the link count.
        Err(Errno::XDEV | Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {}
        Err(errno) => return Err(failed(errno)),
    }
    let length = rustix::fs::fstat(&from).map_err(failed)?.st_size;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let to = rustix::fs::open(path, flags, FILE_MODE).map_err(failed)?;
    Ok(Some(Copying {
        engine: engine.clone(),
        key: key.clone(),
        from,
        to: to.into(),
        path: Some(path.to_path_buf()),
        done: 0,
        length: u64::try_from(length).unwrap_or(0),
    }))
}

impl Copying {
    /// Copies a part; `None` when it was the last and all of it is durable.
    fn part(mut self) -> Result<Option<Self>> {
        let end = self.length.min(self.done + PART);
        let outcome = self
            .engine
            .step(Step::Write, self.key.as_str())
            .and_then(|()| copy(&self.from, &self.to, self.done..end))
            .and_then(|()| match end == self.length {
                true => rustix::fs::fdatasync(&self.to),
                false => Ok(()),
            });
        outcome
            .map_err(|errno| Error::io(|| format!("copying {} for a backup", self.key), errno))?;
        self.done = end;
        if end < self.length {
            return Ok(Some(self));
        }
        self.path = None;
        Ok(None)
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

/// Copies a range from file to file, sharing the blocks where the file system can. A short source is an error.
pub(super) fn copy(from: &File, to: &File, range: Range<u64>) -> rustix::io::Result<()> {
    let (mut read, mut written) = (range.start, range.start);
    while written < range.end {
        let want = usize::try_from(range.end - written).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), want) {
            Ok(0) => return Err(Errno::IO),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return copy_by_hand(from, to, written..range.end);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn copy_by_hand(from: &File, to: &File, range: Range<u64>) -> rustix::io::Result<()> {
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
            match rustix::io::pwrite(to, piece, at) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => {
                    at += count as u64;
                    piece = &piece[count..];
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}
