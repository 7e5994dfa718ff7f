//! One data folder, one process.
//!
//! The server takes the lock before it opens anything in the folder and holds it until it ends; commands that work on a
//! stopped registry take it too. The lock is the kernel's (`flock`), so it goes with the process, however that ends. The
//! file stays: removing it would let two processes lock two files of the same name.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// The file's name in the data folder.
pub const FILE: &str = "lock";
/// How often a held lock is tried again.
const INTERVAL: Duration = Duration::from_millis(100);

/// The lock, held until this is dropped.
#[derive(Debug)]
pub struct FolderLock {
    // Closing the file releases the lock.
    _file: File,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error(
        "the data folder {folder} is in use by {holder}; stop that process, or choose another folder (--data). Waited \
         {} s",
        waited.as_secs()
    )]
    Held {
        /// The folder.
        folder: PathBuf,
        /// "process 123", or that the process is not known.
        holder: String,
        /// How long it was tried.
        waited: Duration,
    },
    /// The lock file cannot be made or locked.
    #[error("cannot lock the data folder: {path}: {source}")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Takes the lock of a data folder, which exists. Blocks for up to `wait`; `waiting` is called once, when the lock is
/// found held, with who holds it.
pub fn acquire(
    folder: &Path,
    wait: Duration,
    mut waiting: impl FnMut(&str),
) -> Result<FolderLock, LockError> {
    let path = folder.join(FILE);
    let io = |source| LockError::Io {
        path: path.clone(),
        source,
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io)?;
    let start = Instant::now();
    let mut told = false;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK) => {}
            Err(Errno::INTR) => continue,
            Err(other) => return Err(io(other.into())),
        }
        let waited = start.elapsed();
        if waited >= wait {
            return Err(LockError::Held {
                folder: folder.to_owned(),
                holder: holder(&mut file),
                waited,
            });
        }
        if !told {
            waiting(&holder(&mut file));
            told = true;
        }
        std::thread::sleep(INTERVAL.min(wait - waited));
    }
    // Who holds it is for people only; the lock itself does not depend on it.
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(io)?;
    Ok(FolderLock { _file: file })
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file
        .rewind()
        .and_then(|()| file.take(32).read_to_string(&mut text));
    match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(pid)) => format!("process {pid}"),
        _ => "a process that did not leave its number".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Locks of one process count too, since `flock` belongs to the open file.
    #[test]
    fn second_is_refused_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let held = acquire(folder.path(), Duration::ZERO, |_| panic!("nobody holds it")).unwrap();
        let mut told = Vec::new();
        let error = acquire(folder.path(), Duration::from_millis(250), |who| {
            told.push(who.to_owned())
        })
        .unwrap_err();
        let me = format!("process {}", std::process::id());
        assert_eq!(told, [me.as_str()]);
        assert!(error.to_string().contains(&me), "{error}");
        drop(held);
        acquire(folder.path(), Duration::ZERO, |_| panic!("it was released")).unwrap();
    }

    #[test]
    fn waits_for_the_holder() {
        let folder = tempfile::tempdir().unwrap();
        let held = acquire(folder.path(), Duration::ZERO, |_| {}).unwrap();
        let release = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            drop(held);
        });
        acquire(folder.path(), Duration::from_secs(30), |_| {}).unwrap();
        release.join().unwrap();
    }

    #[test]
    fn missing_folder_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = acquire(&folder.path().join("none"), Duration::ZERO, |_| {}).unwrap_err();
        assert!(matches!(error, LockError::Io { .. }), "{error}");
    }
}
