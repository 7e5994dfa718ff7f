//! What all operations of one folder share: its descriptor, the pools, the fences, the known folders.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use tokio::sync::Semaphore;

use super::counts::{Counted, Counts};
use super::fence::Fences;
use super::pieces::piece_path;
use super::{FsOptions, failed};
use crate::error::{Error, Result};
use crate::fault::{Fault, Step};
use crate::io::Pool;
use crate::key::UploadId;
use crate::read::ReadIo;
use crate::store::AHEAD_OF_ALL;

pub(super) const BLOBS: &str = "blobs";
pub(super) const UPLOADS: &str = "uploads";

/// Longest note that is read, in bytes.
const NOTE: u64 = 200;

/// Only the registry's own user has any business here.
const FOLDER_MODE: Mode = Mode::RWXU;
pub(super) const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Hashing takes whole processors while large blobs come in; whoever answers a small request goes first.
const HASH_NICE: i32 = 5;

/// Reading what is not in memory copies it once for nothing, and whoever waits for it waits for the disk anyway.
const READ_NICE: i32 = 10;

#[derive(Debug)]
pub(super) struct Engine {
    /// All paths are relative to it: short, and right even when the folder is moved.
    pub(super) root: OwnedFd,
    /// Threads for everything that changes something.
    pub(super) pool: Pool,
    /// Threads for hashing, which never wait for the disk.
    pub(super) hash: Pool,
    /// Segments that uploads may hold beyond one each.
    pub(super) ahead: Arc<Semaphore>,
    pub(super) read: Arc<ReadIo>,
    pub(super) fences: Fences,
    pub(super) counts: Counts,
    /// See [`FsOptions::shared`].
    pub(super) shared: bool,
    fault: Option<Arc<dyn Fault>>,
    /// Folders below `blobs` whose own entries are durable. Held while one is made.
    folders: Mutex<HashSet<String>>,
}

impl Engine {
    pub(super) fn open(options: FsOptions) -> Result<Arc<Self>> {
        let FsOptions {
            root,
            threads,
            read_only,
            shared,
            fault,
        } = options;
        let cannot = |error: io::Error| Error::io(|| format!("opening {}", root.display()), error);
        let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get().min(64));
        let threads = match threads {
            // Many more than cores: they wait for the disk, and a journal commits in one go what waits together.
            0 => (cores * 2).clamp(16, 64),
            chosen => chosen,
        };
        if !read_only {
            std::fs::create_dir_all(&root).map_err(cannot)?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd =
            rustix::fs::open(&root, flags, Mode::empty()).map_err(|errno| cannot(errno.into()))?;
        let engine = Self {
            root: fd,
            pool: Pool::new("blob-write", threads).map_err(cannot)?,
            // One processor stays free of it: stepping back is not enough where every turn takes milliseconds.
            hash: Pool::nice("blob-hash", cores - 1, HASH_NICE).map_err(cannot)?,
            ahead: Arc::new(Semaphore::new(AHEAD_OF_ALL)),
            read: Arc::new(ReadIo {
                pool: Pool::nice("blob-read", threads, READ_NICE).map_err(cannot)?,
                buffers: Arc::default(),
                fault: fault.clone(),
            }),
            fences: Fences::default(),
            counts: Counts::default(),
            shared,
            fault,
            folders: Mutex::default(),
        };
        if !read_only {
            engine.settle()?;
        }
        Ok(Arc::new(engine))
    }

    /// Makes the folders that belong here, and makes durable what a killed process left in the cache only. This settles
    /// it once, so that [`Self::folder`] never has to ask about a folder that it finds.
    fn settle(&self) -> Result<()> {
        self.make_folder(BLOBS)?;
        self.make_folder(UPLOADS)?;
        self.sync_folder(".")?;
        match self.sync_folder("..") {
            // The folder may be new as well. Where we may not even open the one above it, somebody else made it.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {}
            outcome => outcome?,
        }
        self.sync_folder(BLOBS)?;
        let mut known = HashSet::from([BLOBS.to_owned()]);
        for algorithm in self.folders_in(BLOBS)? {
            // What another process makes after this is not known to be durable.
            let below = self.folders_in(&algorithm)?;
            self.sync_folder(&algorithm)?;
            known.extend(below);
            known.insert(algorithm);
        }
        *self.folders() = known;
        Ok(())
    }

    /// Asks the fault hook.
    pub(super) fn step(&self, step: Step, path: &str) -> rustix::io::Result<()> {
        match &self.fault {
            None => Ok(()),
            Some(fault) => fault
                .before(step, path)
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }

    /// Makes sure that a folder below `blobs` exists durably.
    ///
    /// A folder whose `fsync` failed is taken away again, so that the next try makes a new entry: syncing the old one
    /// again would prove nothing.
    pub(super) fn folder(&self, path: &str) -> Result<()> {
        let mut known = self.folders();
        let missing: Vec<_> = path
            .match_indices('/')
            .map(|(at, _)| &path[..at])
            .chain([path])
            .filter(|folder| !known.contains(*folder))
            .collect();
        for folder in missing {
            self.make_folder(folder)?;
            let parent = folder.rsplit_once('/').map_or(".", |(parent, _)| parent);
            if let Err(error) = self.sync_folder(parent) {
                if let Err(errno) = rustix::fs::unlinkat(&self.root, folder, AtFlags::REMOVEDIR) {
                    tracing::error!(folder, %errno, "a folder that may not be durable could not be removed");
                }
                return Err(error);
            }
            known.insert(folder.to_owned());
        }
        Ok(())
    }

    /// Somebody removed folders below our feet: look again.
    pub(super) fn forget_folders(&self) {
        self.folders().clear();
    }

    pub(super) fn sync_folder(&self, path: &str) -> Result<()> {
        let _timed = self.counts.time(Counted::SyncFolder);
        let failed = failed("syncing the folder", path);
        self.step(Step::SyncDir, path).map_err(&failed)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(&self.root, path, flags, Mode::empty()).map_err(&failed)?;
        match rustix::fs::fsync(&folder) {
            // A file system that has no such thing for folders (some network ones) writes them through.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Removes a name. That there is none is fine.
    pub(super) fn unlink(&self, path: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.root, path, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(errno) => Err(failed("removing", path)(errno)),
        }
    }

    pub(super) fn discard(&self, id: &UploadId) -> Result<()> {
        self.fences.take_over(id, |_| {
            let path = upload_path(id);
            if self.shared {
                return self.discard_all(&path);
            }
            self.unlink(&copy_path(&path))?;
            self.unlink(&path)
        })
    }

    /// The file of an upload in which its bytes from `start` on are.
    pub(super) fn upload_file(&self, id: &UploadId, epoch: i64, start: u64) -> String {
        match self.shared {
            true => piece_path(id, epoch, start),
            false => upload_path(id),
        }
    }

    pub(super) fn probe(&self) -> Result<Option<u64>> {
        let failed = failed("writing to", UPLOADS);
        let stat = rustix::fs::fstatvfs(&self.root).map_err(&failed)?;
        if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(failed(Errno::ROFS));
        }
        self.step(Step::Create, UPLOADS).map_err(&failed)?;
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.root, UPLOADS, flags, FILE_MODE) {
            Ok(file) => {
                self.step(Step::Write, UPLOADS).map_err(&failed)?;
                io::Write::write_all(&mut File::from(file), b"?")
                    .map_err(|error| Error::io(|| format!("writing to {UPLOADS}"), error))?;
            }
            // No files without a name on this file system; what statvfs says has to do.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {}
            Err(errno) => return Err(failed(errno)),
        }
        Ok(Some(stat.f_bavail.saturating_mul(stat.f_frsize)))
    }

    /// See [`BlobStore::note`](crate::BlobStore::note).
    pub(super) fn note(&self, name: &'static str) -> Result<Option<String>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.root, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened.map_err(failed("opening", name))?,
        };
        let mut text = String::new();
        io::Read::read_to_string(&mut io::Read::take(File::from(file), NOTE), &mut text)
            .map_err(|error| Error::io(|| format!("reading {name}"), error))?;
        Ok(Some(text))
    }

    /// See [`BlobStore::set_note`](crate::BlobStore::set_note).
    pub(super) fn set_note(&self, name: &'static str, text: &str) -> Result<()> {
        let half = format!("{name}.new");
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.root, half.as_str(), flags, FILE_MODE)
            .map_err(failed("making", &half))?;
        io::Write::write_all(&mut File::from(file), text.as_bytes())
            .map_err(|error| Error::io(|| format!("writing {half}"), error))?;
        rustix::fs::renameat(&self.root, half.as_str(), &self.root, name)
            .map_err(failed("renaming", &half))
    }

    pub(super) fn make_folder(&self, path: &str) -> Result<()> {
        match rustix::fs::mkdirat(&self.root, path, FOLDER_MODE) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(failed("making the folder", path)(errno)),
        }
    }

    fn folders_in(&self, path: &str) -> Result<Vec<String>> {
        let failed = failed("listing", path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(&self.root, path, flags, Mode::empty()).map_err(&failed)?;
        let mut found = Vec::new();
        for entry in Dir::read_from(&folder).map_err(&failed)? {
            let entry = entry.map_err(&failed)?;
            match entry.file_name().to_str() {
                Ok(name) if entry.file_type().is_dir() && !name.starts_with('.') => {
                    found.push(format!("{path}/{name}"));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    fn folders(&self) -> MutexGuard<'_, HashSet<String>> {
        self.folders
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }
}

/// Where an upload lies: a file, or a folder of them.
pub(super) fn upload_path(id: &UploadId) -> String {
    format!("{UPLOADS}/{id}")
}

/// Where a shared upload is copied to before it may be written to again.
pub(super) fn copy_path(upload: &str) -> String {
    format!("{upload}.copy")
}
