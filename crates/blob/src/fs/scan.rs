//! Walking over everything that lies in the folder, a batch at a time.

use std::ops::ControlFlow;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::engine::{BLOBS, Engine, UPLOADS};
use super::failed;
use crate::error::Result;
use crate::key::{Key, UploadId};
use crate::store::Entry;

/// Entries looked at by one job.
const BATCH: usize = 512;

pub(super) async fn scan(
    engine: &Arc<Engine>,
    visit: &mut (dyn FnMut(Entry) -> ControlFlow<()> + Send),
) -> Result<()> {
    let mut walk = Walk {
        engine: engine.clone(),
        ahead: vec![UPLOADS.to_owned(), BLOBS.to_owned()],
        current: None,
    };
    loop {
        let job = move || {
            let batch = walk.batch()?;
            Ok((walk, batch))
        };
        let batch;
        (walk, batch) = engine.read.pool.run(job).await?;
        let Some(batch) = batch else { return Ok(()) };
        for entry in batch {
            if visit(entry).is_break() {
                return Ok(());
            }
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
    fn batch(&mut self) -> Result<Option<Vec<Entry>>> {
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
                    found.push(Entry::Foreign { path });
                    continue;
                }
                Err(errno) => return Err(failed("looking at", &path)(errno)),
            };
            let in_uploads = folder == UPLOADS;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory if !in_uploads => self.ahead.push(path),
                FileType::RegularFile => found.push(classify(in_uploads, &name, path, &stat)),
                _ => found.push(Entry::Foreign { path }),
            }
        }
        Ok(Some(found))
    }

    fn open(&self, path: String) -> Result<Option<(String, Dir)>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&self.engine.root, &path, flags, Mode::empty())
            .and_then(|folder| Dir::new(folder));
        match opened {
            Ok(dir) => Ok(Some((path, dir))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(failed("listing", &path)(errno)),
        }
    }
}

fn classify(in_uploads: bool, name: &str, path: String, stat: &Stat) -> Entry {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let modified_ms = stat.st_mtime * 1000 + stat.st_mtime_nsec as i64 / 1_000_000;
    if in_uploads {
        match UploadId::parse(name) {
            Ok(id) => Entry::Upload {
                id,
                size,
                modified_ms,
            },
            Err(_) => Entry::Foreign { path },
        }
    } else {
        match Key::parse(&path) {
            Ok(key) if key.digest().is_some() => Entry::Blob {
                key,
                size,
                modified_ms,
            },
            _ => Entry::Foreign { path },
        }
    }
}
