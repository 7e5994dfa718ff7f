//! Blobs in files: `uploads/<id>` while they come in, `blobs/<algorithm>/<2 hex>/<hex>.<generation>` once published.
//!
//! Publishing links the upload's file under its key and syncs the folder; the upload's own name goes when the row is
//! written. All file names are made here or parsed by [`Key`] and [`UploadId`], so nothing can leave the folder.

mod counts;
mod fault;
mod upload;

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use wharf_oci::Algorithm;

pub use self::counts::Counts;
pub use self::fault::{Fault, NoFault, Point};
use self::upload::Writer;
use crate::error::{Error, Result};
use crate::io::Pool;
use crate::key::{Key, UploadId};
use crate::read::{Blob, FileBlob};
use crate::store::{BlobStore, BoxFuture, Checkpoint, Part, Stored, UploadWriter};

/// How many files [`BlobStore::scan`] shows at a time.
const SCAN_STEP: usize = 256;

/// How to open the store.
#[derive(Debug, Clone)]
pub struct FsOptions {
    /// The folder; made if absent, for its owner only.
    pub root: PathBuf,
    /// Threads for input and output.
    pub threads: usize,
    /// What shall fail, in tests.
    pub fault: Arc<dyn Fault>,
}

impl FsOptions {
    /// The store in `root`, with four threads.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            threads: 4,
            fault: Arc::new(NoFault),
        }
    }
}

/// The filesystem store.
#[derive(Debug, Clone)]
pub struct Fs {
    disk: Arc<Disk>,
    pool: Pool,
}

/// Blocking file operations; they run on the pool.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    fault: Arc<dyn Fault>,
    counts: Counts,
    /// Folders that are known to be there and synced into their parents.
    folders: Mutex<HashSet<PathBuf>>,
}

impl Fs {
    /// Opens the store and makes its folders. Blocks: call it at the start.
    pub fn open(options: FsOptions) -> Result<Self> {
        let disk = Disk {
            root: options.root,
            fault: options.fault,
            counts: Counts::default(),
            folders: Mutex::default(),
        };
        disk.ensure_folder(&disk.root.join("blobs"))?;
        disk.ensure_folder(&disk.root.join("uploads"))?;
        Ok(Self {
            disk: Arc::new(disk),
            pool: Pool::new(options.threads)?,
        })
    }

    /// How much work was done so far.
    pub fn counts(&self) -> &Counts {
        &self.disk.counts
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Disk) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let disk = self.disk.clone();
        self.pool.run(move || job(&disk)).await
    }
}

impl BlobStore for Fs {
    fn upload<'a>(
        &'a self,
        id: &'a UploadId,
        from: &'a Checkpoint,
        algorithm: Algorithm,
    ) -> BoxFuture<'a, Result<Box<dyn UploadWriter>>> {
        let (id, from) = (*id, from.clone());
        Box::pin(async move {
            let disk = self.disk.clone();
            let writer = Writer::open(self.pool.clone(), disk, id, from, algorithm).await?;
            Ok(Box::new(writer) as Box<dyn UploadWriter>)
        })
    }

    fn publish<'a>(&'a self, id: &'a UploadId, key: &'a Key) -> BoxFuture<'a, Result<()>> {
        let (from, to) = (self.disk.upload_path(id), self.disk.key_path(key));
        Box::pin(self.run(move |disk| {
            disk.ensure_parent(&to)?;
            let timed = disk.counts.time(Point::Link);
            disk.fault.at(Point::Link, &to)?;
            match fs::hard_link(&from, &to) {
                Ok(()) => {}
                // A file system without links: the session cannot outlive a failed commit there.
                Err(error) if no_links(&error) => fs::rename(&from, &to)
                    .map_err(|error| Error::io(format!("renaming {}", from.display()), error))?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(Error::UploadLost);
                }
                Err(error) => return Err(Error::io(format!("linking {}", to.display()), error)),
            }
            drop(timed);
            disk.sync_parent(&to)
        }))
    }

    fn put<'a>(&'a self, key: &'a Key, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        let path = self.disk.key_path(key);
        Box::pin(self.run(move |disk| {
            disk.ensure_parent(&path)?;
            let outcome = (|| {
                let what = || format!("writing {}", path.display());
                disk.fault.at(Point::Write, &path)?;
                let mut file = private()
                    .create_new(true)
                    .open(&path)
                    .map_err(|error| Error::io(what(), error))?;
                file.write_all(&bytes)
                    .map_err(|error| Error::io(what(), error))?;
                disk.sync(&file, &path)?;
                disk.sync_parent(&path)
            })();
            if outcome.is_err() {
                let _ = fs::remove_file(&path);
            }
            outcome
        }))
    }

    fn discard<'a>(&'a self, id: &'a UploadId) -> BoxFuture<'a, Result<()>> {
        let path = self.disk.upload_path(id);
        Box::pin(self.run(move |_| remove(&path)))
    }

    fn open<'a>(&'a self, key: &'a Key, size: u64) -> BoxFuture<'a, Result<Blob>> {
        let path = self.disk.key_path(key);
        Box::pin(async move {
            // Opening and asking for the length touch no data, so they happen here rather than on the pool.
            let _timed = self.disk.counts.time(Point::Read);
            self.disk.fault.at(Point::Read, &path)?;
            let file = File::open(&path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Error::Missing {
                    key: key.to_string(),
                },
                _ => Error::io(format!("opening {}", path.display()), error),
            })?;
            let actual = file
                .metadata()
                .map_err(|error| Error::io(format!("opening {}", path.display()), error))?
                .len();
            if actual != size {
                return Err(Error::WrongSize {
                    key: key.to_string(),
                    expected: size,
                    actual,
                });
            }
            Ok(Blob::File(FileBlob {
                file: Arc::new(file),
                size,
                pool: self.pool.clone(),
            }))
        })
    }

    fn remove<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<()>> {
        let path = self.disk.key_path(key);
        Box::pin(self.run(move |_| remove(&path)))
    }

    fn export<'a>(&'a self, key: &'a Key, to: &'a Path) -> BoxFuture<'a, Result<()>> {
        let (from, to) = (self.disk.key_path(key), to.to_owned());
        Box::pin(self.run(move |disk| {
            match fs::hard_link(&from, &to) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound && !from.exists() => {
                    return Err(Error::Missing {
                        key: from.display().to_string(),
                    });
                }
                Err(_) => {}
            }
            // Another file system: a copy under another name first, so that a broken one is never taken for whole.
            let half = to.with_extension("partial");
            let what = || format!("copying to {}", half.display());
            fs::copy(&from, &half).map_err(|error| Error::io(what(), error))?;
            let file = File::open(&half).map_err(|error| Error::io(what(), error))?;
            disk.sync(&file, &half)?;
            fs::rename(&half, &to).map_err(|error| Error::io(what(), error))
        }))
    }

    fn scan<'a>(
        &'a self,
        part: Part,
        visit: &'a mut (dyn FnMut(Vec<Stored>) -> bool + Send),
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let root = self.disk.root.clone();
            let mut folders = vec![match part {
                Part::Blobs => root.join("blobs"),
                Part::Uploads => root.join("uploads"),
            }];
            while let Some(folder) = folders.pop() {
                let mut entries = self
                    .run(move |_| {
                        fs::read_dir(&folder).map_err(|error| {
                            Error::io(format!("reading {}", folder.display()), error)
                        })
                    })
                    .await?;
                loop {
                    let base = root.clone();
                    let (rest, found, below, done) =
                        self.run(move |_| step(entries, &base)).await?;
                    entries = rest;
                    folders.extend(below);
                    if !found.is_empty() && !visit(found) {
                        return Ok(());
                    }
                    if done {
                        break;
                    }
                }
            }
            Ok(())
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<Option<u64>>> {
        Box::pin(self.run(|disk| {
            let what = || format!("asking for the space of {}", disk.root.display());
            let space =
                rustix::fs::statvfs(&disk.root).map_err(|error| Error::io(what(), error.into()))?;
            if space.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
                let error = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
                return Err(Error::io(what(), error));
            }
            Ok(Some(space.f_bavail.saturating_mul(space.f_frsize)))
        }))
    }
}

impl Disk {
    pub(crate) fn upload_path(&self, id: &UploadId) -> PathBuf {
        self.root.join("uploads").join(id.to_string())
    }

    fn key_path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    /// Makes a folder and all above it, each synced into its parent before anything in it counts.
    fn ensure_folder(&self, folder: &Path) -> Result<()> {
        let known = |folders: &HashSet<PathBuf>| folders.contains(folder);
        if known(&self.folders.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(());
        }
        if let Some(parent) = folder.parent()
            && !parent.as_os_str().is_empty()
            && !parent.exists()
        {
            self.ensure_folder(parent)?;
        }
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
            Err(error) => {
                return Err(Error::io(
                    format!("making the folder {}", folder.display()),
                    error,
                ));
            }
        }
        // Also when it was there: the process that made it may have died before its own sync.
        self.sync_parent(folder)?;
        self.folders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(folder.to_owned());
        Ok(())
    }

    fn ensure_parent(&self, path: &Path) -> Result<()> {
        path.parent()
            .map_or(Ok(()), |parent| self.ensure_folder(parent))
    }

    /// Makes the name of `path` durable.
    pub(crate) fn sync_parent(&self, path: &Path) -> Result<()> {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let _timed = self.counts.time(Point::SyncFolder);
        self.fault.at(Point::SyncFolder, parent)?;
        File::open(parent)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| Error::io(format!("syncing the folder {}", parent.display()), error))
    }

    /// Makes the content of `file` durable.
    pub(crate) fn sync(&self, file: &File, path: &Path) -> Result<()> {
        let _timed = self.counts.time(Point::Sync);
        self.fault.at(Point::Sync, path)?;
        file.sync_data()
            .map_err(|error| Error::io(format!("syncing {}", path.display()), error))
    }
}

/// Opens files for writing that only their owner can read.
pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(format!("removing {}", path.display()), error)),
    }
}

fn no_links(error: &io::Error) -> bool {
    matches!(
        error
            .raw_os_error()
            .map(rustix::io::Errno::from_raw_os_error),
        Some(rustix::io::Errno::PERM | rustix::io::Errno::NOTSUP | rustix::io::Errno::MLINK)
    )
}

type Step = (fs::ReadDir, Vec<Stored>, Vec<PathBuf>, bool);

/// Some hundred entries of a folder: what they are, and which folders lie below.
fn step(mut entries: fs::ReadDir, root: &Path) -> Result<Step> {
    let (mut found, mut below, mut done) = (Vec::new(), Vec::new(), false);
    while found.len() + below.len() < SCAN_STEP {
        let Some(entry) = entries.next() else {
            done = true;
            break;
        };
        let entry =
            entry.map_err(|error| Error::io("reading a folder of the blob store", error))?;
        let path = entry.path();
        let Ok(metadata) = entry.metadata() else {
            // Removed since the folder was read.
            continue;
        };
        if metadata.is_dir() {
            below.push(path);
            continue;
        }
        let name = path
            .strip_prefix(root)
            .unwrap_or(&path)
            .to_string_lossy()
            .into_owned();
        let upload = name.strip_prefix("uploads/").map(UploadId::parse);
        found.push(match (upload, Key::parse(&name)) {
            (Some(Ok(id)), _) => Stored::Upload(id, metadata.len()),
            (None, Ok(key)) => Stored::Blob(key, metadata.len()),
            _ => Stored::Stray(name),
        });
    }
    Ok((entries, found, below, done))
}
