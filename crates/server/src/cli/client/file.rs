//! Files in the user's folders: read whole, written beside and renamed, so that nobody ever reads half a file.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cli::exit::{Exit, Failure};

/// Names another file than the usual one.
const CONTEXTS_VARIABLE: &str = "WHARF_CONTEXTS";
/// Between two looks at a lock that another process holds.
const LOOK: Duration = Duration::from_millis(10);

/// A variable that says something.
pub(super) fn set(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Where this user's contexts are kept, and credentials beside them.
pub(super) fn contexts() -> Result<PathBuf, Failure> {
    if let Some(file) = set(CONTEXTS_VARIABLE) {
        return Ok(file.into());
    }
    let folder = match (set("XDG_CONFIG_HOME"), set("HOME")) {
        (Some(folder), _) => PathBuf::from(folder),
        (None, Some(home)) => PathBuf::from(home).join(".config"),
        (None, None) => {
            let text = format!(
                "there is no home folder to keep contexts in: name a file in {CONTEXTS_VARIABLE}"
            );
            return Err(Failure::text(Exit::Failure, text));
        }
    };
    Ok(folder.join("wharf/contexts.toml"))
}

/// The text of a file, if there is one.
pub(super) fn read(path: &Path, largest: usize) -> Result<Option<String>, Failure> {
    let text = || {
        let mut text = String::new();
        let file = File::open(path)?;
        file.take(largest as u64 + 1).read_to_string(&mut text)?;
        match text.len() > largest {
            true => Err(Error::other(format!(
                "it is larger than {} KiB",
                largest >> 10
            ))),
            false => Ok(text),
        }
    };
    match text() {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, &error)),
    }
}

/// What went wrong with a file.
pub(super) fn failed(path: &Path, error: &Error) -> Failure {
    Failure::text(Exit::Failure, format!("{}: {error}", path.display()))
}

/// A file that will take another one's place. There is room for it, and it may be written.
pub(super) struct Beside {
    path: PathBuf,
    beside: PathBuf,
    file: File,
}

impl Beside {
    /// Makes it in the same folder, under a name that nobody else uses meanwhile, with room for as many bytes.
    pub(super) fn make(path: &Path, name: &str, room: usize) -> Result<Self, Error> {
        // Through a link to where the file really is, so that the link stays.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let folder = folder(&path)?;
        let beside = folder.join(name);
        let mode =
            std::fs::metadata(&path).map_or(0o600, |found| found.permissions().mode() & 0o600);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&beside)?;
        let made = Self { path, beside, file };
        (&made.file).write_all(&vec![b'\n'; room])?;
        made.file.sync_all()?;
        Ok(made)
    }

    /// Writes and puts it there, durably.
    pub(super) fn put(mut self, text: &str) -> Result<(), Error> {
        self.file.rewind()?;
        self.file.write_all(text.as_bytes())?;
        self.file.set_len(text.len() as u64)?;
        self.file.sync_all()?;
        std::fs::rename(&self.beside, &self.path)?;
        File::open(folder(&self.path)?)?.sync_all()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // After the rename there is none of this name.
        let _ = std::fs::remove_file(&self.beside);
    }
}

/// The folder that a file is in, made if it is not there, for this user alone.
fn folder(path: &Path) -> Result<&Path, Error> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    Ok(folder)
}

/// Writes a file that only its owner can read.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = format!("{name}.{}.new", std::process::id());
    Beside::make(path, &name, text.len())
        .and_then(|beside| beside.put(text))
        .map_err(|error| failed(path, &error))
}

/// Held by one process at a time; its end lets go, however it ends.
pub(super) struct Lock(#[expect(dead_code, reason = "its Drop lets go")] File);

impl Lock {
    /// Waits for its turn, not for longer than this.
    pub(super) fn take(path: &Path, wait: Duration) -> Result<Self, Failure> {
        let open = || {
            folder(path)?;
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)
        };
        let file = open().map_err(|error| failed(path, &error))?;
        let until = Instant::now() + wait;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(std::fs::TryLockError::Error(error)) => return Err(failed(path, &error)),
                Err(std::fs::TryLockError::WouldBlock) if Instant::now() < until => {
                    std::thread::sleep(LOOK);
                }
                Err(std::fs::TryLockError::WouldBlock) => {
                    let text = format!(
                        "{}: another process has held it for {} s; is one of wharf's or docker's stuck?",
                        path.display(),
                        wait.as_secs()
                    );
                    return Err(Failure::text(Exit::Failure, text));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_can_read_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/contexts.toml");
        write(&path, "one").unwrap();
        write(&path, "two, which is longer").unwrap();
        write(&path, "three").unwrap();
        assert_eq!(read(&path, 100).unwrap().as_deref(), Some("three"));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1
        );
        assert!(read(&path, 4).is_err());
        assert!(read(&folder.path().join("none"), 4).unwrap().is_none());
    }

    #[test]
    fn a_link_to_the_file_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("real"), folder.path().join("link"));
        std::fs::write(&file, "one").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, "two").unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "two");
    }

    #[test]
    fn a_lock_is_held_by_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = Lock::take(&path, Duration::ZERO).unwrap();
        let told = Lock::take(&path, Duration::from_millis(30)).err().unwrap();
        assert!(told.error.to_string().contains("another process"));
        drop(first);
        Lock::take(&path, Duration::ZERO).unwrap();
    }
}
