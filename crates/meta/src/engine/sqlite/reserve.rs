//! Room that is set aside on the disk, so that deletes work when it is full.
//!
//! A file without content, with its blocks taken. When an operation that gives room back finds no room itself, the writer
//! lets the blocks go and runs it again; until they can be taken back, it accepts nothing else, because others would be
//! quicker to use them up. All there is to know is whether the file has its blocks.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, fallocate, fstat, ftruncate};
use rustix::io::Errno;

/// See the module.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    /// 0: nothing is ever set aside.
    bytes: u64,
    spent: AtomicBool,
}

impl Reserve {
    /// Nothing is set aside yet.
    pub(super) fn new(path: PathBuf, bytes: u64) -> Reserve {
        Reserve {
            path,
            bytes,
            spent: AtomicBool::new(false),
        }
    }

    /// Whether only what gives room back is accepted.
    pub(super) fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Acquire)
    }

    /// Takes the blocks, unless they are taken already. After they were needed, only when as much again is free: else
    /// taking them would be what fills the disk.
    pub(super) fn hold(&self) -> bool {
        if self.bytes == 0 {
            return true;
        }
        match self.take() {
            Ok(()) => {
                if self.spent.swap(false, Ordering::AcqRel) {
                    tracing::warn!("there is room on the disk again: writes are accepted");
                }
                true
            }
            // No such call on this file system: then deletes on a full disk have what is left in the log.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.spent.store(false, Ordering::Release);
                true
            }
            Err(errno) => {
                if !self.spent.swap(true, Ordering::AcqRel) {
                    tracing::error!(%errno, bytes = self.bytes, "no room can be set aside on the disk: only reads and deletes are accepted until it can");
                }
                false
            }
        }
    }

    /// Lets the blocks go; tells whether there were any.
    pub(super) fn release(&self) -> bool {
        if self.bytes == 0 {
            return false;
        }
        let freed = self.file().and_then(|file| {
            let had = fstat(&file)?.st_blocks > 0;
            ftruncate(&file, 0)?;
            Ok(had)
        });
        match freed {
            Ok(had) => {
                if !self.spent.swap(true, Ordering::AcqRel) {
                    tracing::error!(
                        "the disk is full: deletes get the room that was set aside, and nothing else is written until there is more"
                    );
                }
                had
            }
            Err(errno) => {
                tracing::error!(path = %self.path.display(), %errno, "the room that was set aside cannot be let go");
                false
            }
        }
    }

    fn file(&self) -> rustix::io::Result<File> {
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&self.path)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    fn take(&self) -> rustix::io::Result<()> {
        let file = self.file()?;
        let stat = fstat(&file)?;
        // Blocks count 512 bytes each (stat(2)). A copied folder may hold the file without them.
        if u64::try_from(stat.st_blocks).unwrap_or(0) * 512 >= self.bytes {
            return Ok(());
        }
        let wanted = self.bytes * if self.is_spent() { 2 } else { 1 };
        let taken = fallocate(&file, FallocateFlags::empty(), 0, wanted);
        ftruncate(&file, if taken.is_ok() { self.bytes } else { 0 })?;
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn blocks_are_taken_let_go_and_taken_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reserve");
        let reserve = Reserve::new(path.clone(), 1 << 20);
        let blocks = || std::fs::metadata(&path).unwrap().blocks() * 512;
        assert!(reserve.hold() && !reserve.is_spent());
        assert!(blocks() >= 1 << 20);
        assert!(reserve.release() && reserve.is_spent());
        assert_eq!(blocks(), 0);
        assert!(!reserve.release(), "there was nothing left to let go");
        // As a copied folder has it: the length without the blocks.
        File::create(&path).unwrap().set_len(1 << 20).unwrap();
        assert!(reserve.hold() && !reserve.is_spent());
        assert!(blocks() >= 1 << 20);
    }

    #[test]
    fn what_sets_nothing_aside_makes_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reserve");
        let reserve = Reserve::new(path.clone(), 0);
        assert!(reserve.hold() && !reserve.release() && !reserve.is_spent());
        assert!(!path.exists());
    }
}
