//! Uploads in a folder that several processes share: each epoch of an upload has a file of its own, `uploads/<id>/<epoch>.<start>`,
//! with the bytes from `start` on.
//!
//! Whoever takes an upload over has the row's next epoch, and goes on where the row's claim ends, in a new file. The process
//! that had it may go on writing, truncating and publishing, for it may not know: all that it reaches is its own file, of which
//! nothing counts behind the next one's start, and its next claim fails. Taking over copies nothing, so chunks may arrive in turn
//! at any number of processes; what lies in several files becomes one when the upload ends. Called by `file.rs`, and where an
//! upload ends.

use std::fs::File;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::engine::{Engine, UPLOADS, upload_path};
use super::failed;
use super::file::create;
use crate::error::{Error, Result};
use crate::key::UploadId;

/// The bytes of an upload from `start` to `end` in a file that begins at `start`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) epoch: i64,
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Piece {
    /// Where it lies.
    pub(super) fn path(&self, id: &UploadId) -> String {
        piece_path(id, self.epoch, self.start)
    }

    fn parse(name: &str) -> Option<Self> {
        let (epoch, start) = name.split_once('.')?;
        Some(Self {
            epoch: epoch.parse().ok()?,
            start: start.parse().ok()?,
            end: u64::MAX,
        })
    }
}

/// The file of one epoch.
pub(super) fn piece_path(id: &UploadId, epoch: i64, start: u64) -> String {
    format!("{}/{epoch}.{start}", upload_path(id))
}

/// Which bytes count in which file, given all files that are there: from each one's start to the start of any later epoch's.
/// Of two files of an epoch the longer one is the whole that it made of all pieces.
fn cover(mut found: Vec<Piece>) -> Vec<Piece> {
    found.sort_unstable_by_key(|piece| (piece.epoch, piece.start));
    found.dedup_by_key(|piece| piece.epoch);
    let mut limit = u64::MAX;
    for piece in found.iter_mut().rev() {
        piece.end = limit;
        limit = limit.min(piece.start);
    }
    found.retain(|piece| piece.start < piece.end);
    found
}

/// The files that have the first `offset` bytes, in order. Nothing may be missing.
pub(super) fn pieces(
    engine: &Engine,
    id: &UploadId,
    epoch: i64,
    offset: u64,
) -> Result<Vec<Piece>> {
    let names = engine.names(&upload_path(id))?;
    let found = names.iter().filter_map(|name| Piece::parse(name));
    let mut pieces = cover(found.filter(|piece| piece.epoch <= epoch).collect());
    pieces.retain(|piece| piece.start < offset);
    let mut reached = 0;
    for piece in &mut pieces {
        piece.end = piece.end.min(offset);
        if piece.start != reached {
            return Err(Error::UploadLost);
        }
        reached = piece.end;
    }
    match reached == offset {
        true => Ok(pieces),
        false => Err(Error::UploadLost),
    }
}

/// A new file for an upload's bytes from `start` on.
pub(super) fn begin(engine: &Engine, id: &UploadId, path: &str) -> Result<File> {
    let made = || {
        engine.make_folder(&upload_path(id))?;
        create(engine, path)
    };
    match made() {
        // One that was abandoned a moment ago took the folder along.
        Err(error) if is_gone(&error) => made(),
        outcome => outcome,
    }
}

/// Opens a piece for reading; all its bytes must be there.
pub(super) fn open(engine: &Engine, id: &UploadId, piece: &Piece) -> Result<File> {
    let path = piece.path(id);
    let failed = failed("opening", &path);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file: File = match rustix::fs::openat(&engine.root, &path, flags, Mode::empty()) {
        Ok(file) => file.into(),
        Err(Errno::NOENT) => return Err(Error::UploadLost),
        Err(errno) => return Err(failed(errno)),
    };
    let stat = rustix::fs::fstat(&file).map_err(&failed)?;
    match u64::try_from(stat.st_size) {
        Ok(length) if length >= piece.end - piece.start => Ok(file),
        _ => Err(Error::UploadLost),
    }
}

fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

impl Engine {
    /// What is in an upload's folder; nothing where there is none.
    pub(super) fn names(&self, folder: &str) -> Result<Vec<String>> {
        let failed = failed("listing", folder);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&self.root, folder, flags, Mode::empty());
        let dir = match opened.and_then(Dir::new) {
            Ok(dir) => dir,
            // From a time when the folder was not shared.
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
            Err(errno) => return Err(failed(errno)),
        };
        let mut names = Vec::new();
        for entry in dir {
            let entry = entry.map_err(&failed)?;
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        Ok(names)
    }

    /// Makes the name of an upload's file durable.
    pub(super) fn sync_name(&self, path: &str) -> Result<()> {
        let (folder, _) = path.rsplit_once('/').unwrap_or((UPLOADS, path));
        self.sync_folder(folder)?;
        match folder {
            UPLOADS => Ok(()),
            _ => self.sync_folder(UPLOADS),
        }
    }

    /// Removes an upload's file that nobody wants, and its folder with the last one.
    pub(super) fn abandon(&self, path: &str) -> Result<()> {
        self.unlink(path)?;
        match path.rsplit_once('/') {
            Some((folder, _)) if folder != UPLOADS => self.remove_folder(folder),
            _ => Ok(()),
        }
    }

    /// Removes all files of an upload.
    pub(super) fn discard_all(&self, folder: &str) -> Result<()> {
        for name in self.names(folder)? {
            self.unlink(&format!("{folder}/{name}"))?;
        }
        self.remove_folder(folder)
    }

    fn remove_folder(&self, folder: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.root, folder, AtFlags::REMOVEDIR) {
            // Somebody else is at work in it, and removes it later.
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            Err(Errno::NOTDIR) => self.unlink(folder),
            Err(errno) => Err(failed("removing", folder)(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn piece(name: &str) -> Option<Piece> {
        Piece::parse(name)
    }

    #[test]
    fn names_that_are_none_count_for_nothing() {
        for name in [
            "", "1", "1.", ".5", "1.copy", "1.5.copy", "x.0", "1.-5", "1.5x",
        ] {
            assert_eq!(piece(name), None, "{name}");
        }
        let one = piece("3.70").unwrap();
        assert_eq!((one.epoch, one.start), (3, 70));
    }

    /// What happens to an upload, one process after the other.
    #[derive(Debug, Clone)]
    enum Turn {
        /// Taken over; with a file, and so many bytes claimed in it.
        Taken { file: bool, claimed: u64 },
        /// All that is claimed becomes one file of the last epoch.
        Joined,
    }

    proptest! {
        /// Each claimed byte is found where it was written, whoever makes a file late.
        #[test]
        fn bytes_are_found_where_they_were_claimed(
            turns in prop::collection::vec(
                prop_oneof![
                    4 => (any::<bool>(), 0..100u64).prop_map(|(file, claimed)| Turn::Taken { file, claimed }),
                    1 => Just(Turn::Joined),
                ],
                1..12,
            ),
            late in any::<bool>(),
        ) {
            // Which epoch's file has each byte.
            let mut bytes: Vec<i64> = Vec::new();
            let mut files = vec![];
            let mut epoch = 0;
            for turn in turns {
                let start = bytes.len() as u64;
                match turn {
                    Turn::Taken { file, claimed } => {
                        epoch += 1;
                        // One that claims nothing may wake up and make its file after all others.
                        if file || claimed > 0 || late {
                            files.push(Piece { epoch, start, end: u64::MAX });
                        }
                        bytes.resize(bytes.len() + claimed as usize, epoch);
                    }
                    Turn::Joined if files.iter().any(|file| file.epoch == epoch) => {
                        files.push(Piece { epoch, start: 0, end: u64::MAX });
                        bytes.fill(epoch);
                    }
                    Turn::Joined => {}
                }
            }
            let covered = cover(files);
            for (at, &epoch) in bytes.iter().enumerate() {
                let here = covered.iter().find(|piece| (piece.start..piece.end).contains(&(at as u64)));
                prop_assert_eq!(here.map(|piece| piece.epoch), Some(epoch), "byte {} of {:?}", at, &covered);
            }
        }
    }
}
