//! Walking over everything that lies in the folder, a batch at a time.

use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::engine::{BLOBS, Engine, UPLOADS};
use super::failed;
use crate::error::Result;
use crate::key::{Key, UploadId};
use crate::store::{Part, Stored};

/// Entries looked at by one job.
const BATCH: usize = 512;

pub(super) async fn scan(
    engine: &Arc<Engine>,
    part: Part,
    visit: &mut (dyn FnMut(Vec<Stored>) -> bool + Send),
) -> Result<()> {
    let top = match part {
        Part::Blobs => BLOBS,
        Part::Uploads => UPLOADS,
    };
    let mut walk = Walk {
        engine: engine.clone(),
        ahead: vec![top.to_owned()],
        current: None,
    };
    loop {
        let job = move || {
            let batch = walk.batch()?;
            Ok((walk, batch))
        };
        let batch;
        (walk, batch) = engine.read.pool.run(job).await?;
        if !batch.is_some_and(&mut *visit) {
            return Ok(());
        }
    }
}

struct Walk {
    engine: Arc<Engine>,
    /// Folders still to be read. Small: one level is at most a few hundred folders wide.
    ahead: Vec<String>,
    current: Option<(String, Dir)>,
}

impl Walk {
    /// Up to a batch of entries; `None` when there are no more.
    fn batch(&mut self) -> Result<Option<Vec<Stored>>> {
        let mut found = Vec::new();
        while found.len() < BATCH {
            if self.current.is_none() {
                match self.ahead.pop() {
                    Some(path) => self.current = self.open(path)?,
                    None if found.is_empty() => return Ok(None),
                    None => break,
                }
            }
            let Some((folder, dir)) = &mut self.current else {
                continue;
            };
            let Some(entry) = dir.next() else {
                self.current = None;
                continue;
            };
            let entry = entry.map_err(failed("listing", folder))?;
            let name = entry.file_name().to_string_lossy();
            if name == "." || name == ".." {
                continue;
            }
            let path = format!("{folder}/{name}");
            let stat = match rustix::fs::statat(&self.engine.root, &path, AtFlags::SYMLINK_NOFOLLOW)
            {
                Ok(stat) => stat,
                // Gone since it was listed, or a name that is no text.
                Err(Errno::NOENT) if entry.file_name().to_str().is_ok() => continue,
                Err(Errno::NOENT) => {
                    found.push(Stored::Stray(path));
                    continue;
                }
                Err(errno) => return Err(failed("looking at", &path)(errno)),
            };
            let in_uploads = folder == UPLOADS;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory if in_uploads && self.engine.shared => {
                    found.push(match UploadId::parse(&name) {
                        Ok(id) => self.engine.upload(id, &path, &stat)?,
                        Err(_) => Stored::Stray(path),
                    });
                }
                FileType::Directory if !in_uploads => self.ahead.push(path),
                FileType::RegularFile => found.push(classify(in_uploads, &name, path, &stat)),
                _ => found.push(Stored::Stray(path)),
            }
        }
        Ok(Some(found))
    }

    fn open(&self, path: String) -> Result<Option<(String, Dir)>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened =
            rustix::fs::openat(&self.engine.root, &path, flags, Mode::empty()).and_then(Dir::new);
        match opened {
            Ok(dir) => Ok(Some((path, dir))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(failed("listing", &path)(errno)),
        }
    }
}

fn classify(in_uploads: bool, name: &str, path: String, stat: &Stat) -> Stored {
    let size = size(stat);
    if in_uploads {
        match UploadId::parse(name) {
            Ok(id) => Stored::Upload {
                id,
                size,
                written_at: written_at(stat),
            },
            Err(_) => Stored::Stray(path),
        }
    } else {
        match Key::parse(&path) {
            // Blobs that were copied here from a bucket keep their keys.
            Ok(key) if key.digest().is_some() || key.is_unnamed() => Stored::Blob(key, size),
            _ => Stored::Stray(path),
        }
    }
}

impl Engine {
    /// An upload in a shared folder: all its files.
    fn upload(&self, id: UploadId, path: &str, folder: &Stat) -> Result<Stored> {
        let mut files = Vec::new();
        for name in self.names(path)? {
            let name = format!("{path}/{name}");
            match rustix::fs::statat(&self.root, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => files.push(stat),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed("looking at", &name)(errno)),
            }
        }
        let times = files.iter().chain([folder]).map(written_at);
        Ok(Stored::Upload {
            id,
            size: files.iter().map(size).sum(),
            written_at: times.max().unwrap_or(0),
        })
    }
}

fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

fn written_at(stat: &Stat) -> i64 {
    let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    stat.st_mtime
        .saturating_mul(1_000)
        .saturating_add(nanos / 1_000_000)
}
