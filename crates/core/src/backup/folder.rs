//! A backup's folder: its marker, its lock, and a place for databases that are worked on.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wharf_meta::lock::{self, FolderLock, LockError};

use super::{BackupError, Content, DATABASE, FORMAT, Result};

/// Says what the folder is, and in which format.
const MARKER: &str = "wharf-backup.json";

/// Runs file work off the runtime's threads.
pub(super) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    off_thread(move || io(what, work)).await
}

/// The same for work that knows what its errors mean.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let outcome = tokio::task::spawn_blocking(work).await;
    outcome.unwrap_or_else(|panicked| {
        Err(BackupError::Io {
            what: "working on files".to_owned(),
            source: io::Error::other(panicked),
        })
    })
}

pub(super) fn io<T>(what: &str, work: impl FnOnce() -> io::Result<T>) -> Result<T> {
    work().map_err(|source| BackupError::Io {
        what: what.to_owned(),
        source,
    })
}

/// Makes the folder, or finds that it is a backup already; nobody else may work on it from then on.
pub(super) fn prepare(folder: &Path, content: Content) -> Result<FolderLock> {
    io(&format!("making {}", folder.display()), || {
        make_private(folder)
    })?;
    if is_empty(folder)? {
        // Marked at once, so that a backup that breaks off can be gone on with.
        io("marking the backup", || mark(folder, content))?;
    } else {
        let there = check_marker(folder)?;
        if there != content {
            return Err(BackupError::Other {
                folder: folder.to_owned(),
                content: there,
            });
        }
    }
    lock(folder)
}

pub(super) fn mark(folder: &Path, content: Content) -> io::Result<()> {
    let text = serde_json::json!({
        "format": FORMAT,
        "version": env!("CARGO_PKG_VERSION"),
        "blobs": content == Content::Everything,
    });
    let half = folder.join("wharf-backup.json.new");
    fs::write(&half, format!("{text}\n"))?;
    File::open(&half)?.sync_all()?;
    fs::rename(half, folder.join(MARKER))
}

/// What it holds, if this is a whole backup that this version can read.
pub(super) fn check(folder: &Path) -> Result<Content> {
    let content = check_marker(folder)?;
    if folder.join(DATABASE).is_file() {
        return Ok(content);
    }
    Err(BackupError::Unfinished {
        folder: folder.to_owned(),
    })
}

fn check_marker(folder: &Path) -> Result<Content> {
    let not = || BackupError::NotABackup {
        folder: folder.to_owned(),
    };
    let text = fs::read(folder.join(MARKER)).map_err(|_| not())?;
    let marker: serde_json::Value = serde_json::from_slice(&text).map_err(|_| not())?;
    match marker.get("format").and_then(serde_json::Value::as_u64) {
        // The first version did not say it, and always copied blobs.
        Some(FORMAT) => match marker.get("blobs").and_then(serde_json::Value::as_bool) {
            Some(false) => Ok(Content::Metadata),
            _ => Ok(Content::Everything),
        },
        Some(found) => Err(BackupError::Format {
            folder: folder.to_owned(),
            found,
        }),
        None => Err(not()),
    }
}

/// Takes the folder for this process alone, at once or not at all.
pub(super) fn lock(folder: &Path) -> Result<FolderLock> {
    lock::acquire(folder, Duration::ZERO, |_| ()).map_err(|error| match error {
        LockError::Held { folder, holder, .. } => BackupError::InUse { folder, holder },
        LockError::Io { path, source } => BackupError::Io {
            what: format!("locking {}", path.display()),
            source,
        },
    })
}

/// The lock, where the folder takes one: a backup on read-only media changes under nobody.
pub(super) fn lock_if_possible(folder: &Path) -> Result<Option<FolderLock>> {
    match lock(folder) {
        Ok(held) => Ok(Some(held)),
        Err(BackupError::Io { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Absent, or without anything but a lock's file.
pub(super) fn is_empty(folder: &Path) -> Result<bool> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(source) => {
            return Err(BackupError::Io {
                what: format!("reading {}", folder.display()),
                source,
            });
        }
    };
    io(&format!("reading {}", folder.display()), || {
        for entry in entries {
            if entry?.file_name() != lock::FILE {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

pub(super) fn make_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

/// A database's log must be in the database before its file goes anywhere alone.
pub(super) fn settled(database: &Path) -> io::Result<()> {
    match fs::metadata(beside(database, "-wal")) {
        Ok(log) if log.len() > 0 => Err(io::Error::other(format!(
            "{} was closed with a log beside it",
            database.display()
        ))),
        _ => Ok(()),
    }
}

/// Removes a database with the files that SQLite keeps beside it.
pub(super) fn remove_database(path: &Path) -> io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        match fs::remove_file(beside(path, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Puts a file in its place: by name on the same file system, else by a copy that is whole before it gets the name.
pub(super) fn place(from: &Path, to: &Path) -> io::Result<()> {
    File::open(from)?.sync_all()?;
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
        outcome => return outcome,
    }
    let half = beside(to, ".new");
    fs::copy(from, &half)?;
    File::open(&half)?.sync_all()?;
    fs::rename(half, to)
}

/// A folder for a database that is worked on, gone when dropped.
///
/// Beside the backup if SQLite can work there; on read-only media and network file systems it can't, and then it is the
/// system's folder for temporary files.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// What a killed run has left is removed: the caller holds the folder's lock.
    pub(super) fn for_folder(folder: &Path) -> Result<Self> {
        let beside = folder.join("scratch");
        if wharf_meta::inspect(&folder.join("scratch.db")).is_ok() && renewed(&beside).is_ok() {
            return Ok(Self(beside));
        }
        let elsewhere = std::env::temp_dir().join(format!("wharf-{}", uuid::Uuid::new_v4()));
        io(&format!("making {}", elsewhere.display()), || {
            make_private(&elsewhere)
        })?;
        Ok(Self(elsewhere))
    }

    pub(super) fn database(&self) -> PathBuf {
        self.0.join(DATABASE)
    }
}

fn renewed(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => make_private(folder),
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "a temporary folder could not be removed");
        }
    }
}
