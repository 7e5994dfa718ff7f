//! What can go wrong with bytes, told apart as far as callers act differently.

use std::io;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the blob store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk or a quota is full. Nothing of the failed write counts.
    #[error(
        "no space is left for blobs; free space on the blob store's file system and writes go on by themselves"
    )]
    NoSpace,
    /// There are no bytes under this key.
    #[error("there is nothing under the key {key}")]
    Missing {
        /// What was asked for.
        key: String,
    },
    /// The bytes under this key are not as many as its row says.
    #[error("{key} has {actual} bytes and should have {expected}")]
    WrongSize {
        /// What was asked for.
        key: String,
        /// In bytes, from the row.
        expected: u64,
        /// In bytes, from the store.
        actual: u64,
    },
    /// The session's bytes are not there, or fewer than its row claims.
    #[error("the bytes of this upload are gone")]
    UploadLost,
    /// An earlier write or sync of this upload failed. It is never retried: go back to the last checkpoint.
    #[error("an earlier write of this upload failed; go on from its last checkpoint")]
    Poisoned,
    /// A text that is no key of this store.
    #[error("{0:?} is not a key of the blob store")]
    BadKey(String),
    /// The system failed to read or write.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, and to what.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// An input or output error, with what was being done when it happened.
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            _ => Self::Io {
                what: what.into(),
                source,
            },
        }
    }
}
