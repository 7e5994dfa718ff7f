//! A folder for blobs that belongs to one installation, whichever process on whichever host uses it.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::owner::{Ground, MARK, Owned, OwnerError, is_mark};

/// Longest mark that is looked at.
const LENGTH: u64 = 200;
/// What the makers of file systems put into an empty one.
const LOST: &str = "lost+found";

/// A folder that a key of the configuration names. It is there before the first start: an empty folder may be one in which
/// nothing is mounted.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    key: &'static str,
}

impl Folder {
    /// The folder, and the key that names it.
    pub fn new(path: impl Into<PathBuf>, key: &'static str) -> Self {
        Self {
            path: path.into(),
            key,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, OwnerError> + Send + 'static,
    ) -> Result<T, OwnerError> {
        let folder = self.clone();
        match tokio::task::spawn_blocking(move || work(&folder)).await {
            Ok(found) => found,
            Err(panicked) => Err(OwnerError(panicked.to_string())),
        }
    }

    fn sentence(&self, text: &str) -> OwnerError {
        OwnerError(format!(
            "`{}`: the folder {} {text}",
            self.key,
            self.path.display()
        ))
    }

    fn explain(&self, error: &io::Error) -> OwnerError {
        match error.kind() {
            ErrorKind::NotFound => self.sentence(
                "is not there; make it, or mount the file system that has it: Wharf does not, since an empty folder could hide \
                 one that is not mounted",
            ),
            ErrorKind::NotADirectory => self.sentence("is a file; name a folder"),
            ErrorKind::PermissionDenied => {
                self.sentence("may not be used by this user; give it to the user that runs Wharf")
            }
            _ => self.sentence(&format!("cannot be used: {error}")),
        }
    }

    fn foreign(&self, mark: &str) -> OwnerError {
        match is_mark(mark) {
            true => self.sentence(&format!(
                "belongs to another installation ({mark}); name another folder; after moving the metadata by hand, restore its \
                 backup instead of beginning anew"
            )),
            false => self.sentence(&format!(
                "has a file {MARK} that was not written by Wharf; name another folder"
            )),
        }
    }

    fn mark(&self) -> Result<Option<String>, OwnerError> {
        let file = match File::open(self.path.join(MARK)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.explain(&error)),
        };
        let mut bytes = Vec::new();
        file.take(LENGTH)
            .read_to_end(&mut bytes)
            .map_err(|error| self.explain(&error))?;
        Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned()))
    }

    /// Marks that are being made count for nothing: whoever makes one is taking an empty folder.
    fn is_empty(&self) -> io::Result<bool> {
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            if name != LOST && !name.starts_with(&format!("{MARK}.")) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn judge(&self, installation: &str) -> Result<Owned, OwnerError> {
        match self.mark()? {
            Some(mark) if mark == installation => return Ok(Owned::Ours),
            Some(mark) => return Err(self.foreign(&mark)),
            None if self.is_empty().map_err(|error| self.explain(&error))? => {}
            // What made it not empty may be a mark, written between the two looks.
            None => {
                return match self.mark()? {
                    Some(mark) if mark == installation => Ok(Owned::Ours),
                    Some(mark) => Err(self.foreign(&mark)),
                    None => Err(self.sentence(
                        "has files in it and no mark of a Wharf installation; name an empty folder",
                    )),
                };
            }
        }
        self.allows()?;
        Ok(Owned::Free)
    }

    fn allows(&self) -> Result<(), OwnerError> {
        let rights = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
        let below = ["", "blobs", "uploads"].map(|name| self.path.join(name));
        for path in below {
            match access(&path, rights) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(rustix::io::Errno::ROFS) => {
                    return Err(self.sentence(
                        "can be read and not written to, so nothing can be pushed; mount its file system for writing",
                    ));
                }
                Err(errno) => return Err(self.explain(&errno.into())),
            }
        }
        Ok(())
    }

    /// The mark gets its name when it is whole and durable, and never in the place of another.
    fn put_mark(&self, installation: &str) -> io::Result<()> {
        let half = self
            .path
            .join(format!("{MARK}.{}", uuid::Uuid::new_v4().simple()));
        let made = || {
            let mut file = File::create_new(&half)?;
            writeln!(file, "{installation}")?;
            file.sync_all()?;
            match fs::hard_link(&half, self.path.join(MARK)) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
                _ => File::open(&self.path)?.sync_all(),
            }
        };
        let outcome = made();
        let removed = fs::remove_file(&half);
        outcome.and(removed)
    }
}

impl Ground for Folder {
    async fn owned_by(&self, installation: &str) -> Result<Owned, OwnerError> {
        let installation = installation.to_owned();
        self.look(move |folder| folder.judge(&installation)).await
    }

    async fn owner(&self) -> Result<Option<String>, OwnerError> {
        self.look(|folder| match folder.mark()? {
            Some(mark) if is_mark(&mark) => Ok(Some(mark)),
            _ => folder.judge("").map(|_| None),
        })
        .await
    }

    async fn take(&self, installation: &str) -> Result<(), OwnerError> {
        let installation = installation.to_owned();
        self.look(move |folder| {
            folder
                .put_mark(&installation)
                .map_err(|error| folder.explain(&error))?;
            match folder.mark()? {
                Some(mark) if mark == installation => Ok(()),
                Some(mark) => Err(folder.foreign(&mark)),
                None => Err(folder.sentence(&format!(
                    "took the file {MARK} and does not have it; take a file system that can be relied on"
                ))),
            }
        })
        .await
    }

    async fn is_writable(&self, _installation: &str) -> Result<bool, OwnerError> {
        self.look(|folder| folder.allows().map(|()| true)).await
    }

    fn place(&self) -> (&'static str, String) {
        ("folder", self.key.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_free_folder_is_taken_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path(), "storage.folder");
        assert_eq!(folder.owner().await, Ok(None));
        assert_eq!(folder.owned_by("one").await, Ok(Owned::Free));
        let names: Vec<_> = (0..8).map(|name| format!("installation-{name}")).collect();
        let mut taking = tokio::task::JoinSet::new();
        for name in names.clone() {
            let folder = folder.clone();
            taking.spawn(async move { folder.take(&name).await.map(|()| name) });
        }
        let won: Vec<_> = taking.join_all().await.into_iter().flatten().collect();
        let [winner] = &won[..] else {
            panic!("not one winner: {won:?}")
        };
        assert_eq!(folder.owned_by(winner).await, Ok(Owned::Ours));
        assert_eq!(folder.owner().await, Ok(Some(winner.clone())));
        assert_eq!(folder.is_writable(winner).await, Ok(true));
        let told = folder.owned_by("another").await.unwrap_err().0;
        assert!(
            told.contains("`storage.folder`") && told.contains(winner),
            "{told}"
        );
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "half marks were left"
        );
        // Whoever has it may take it again.
        folder.take(winner).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_somebody_elses_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path(), "storage.folder");
        fs::create_dir(dir.path().join(LOST)).unwrap();
        fs::write(dir.path().join(format!("{MARK}.half")), "").unwrap();
        assert_eq!(folder.owned_by("one").await, Ok(Owned::Free));
        fs::write(dir.path().join("letter"), "").unwrap();
        let told = folder.owned_by("one").await.unwrap_err().0;
        assert!(told.contains("no mark"), "{told}");
        fs::write(dir.path().join(MARK), "<html>").unwrap();
        let told = folder.owner().await.unwrap_err().0;
        assert!(told.contains("not written by Wharf"), "{told}");
        for (path, words) in [("absent", "mount"), ("letter", "is a file")] {
            let folder = Folder::new(dir.path().join(path), "storage.folder");
            let told = folder.owned_by("one").await.unwrap_err().0;
            assert!(told.contains(words), "{told}");
        }
    }
}
