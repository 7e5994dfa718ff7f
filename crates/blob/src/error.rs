//! What can go wrong with bytes.

use std::io;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk or the quota is full. What was written since the last checkpoint is gone; nothing else is.
    #[error("no space is left for blobs; free some on the disk (or raise the quota) and try again")]
    NoSpace,
    /// No blob lies under this key.
    #[error("no file {key} is in the blob store; run `wharf storage verify`")]
    Missing {
        /// The key as its row has it.
        key: String,
    },
    /// What lies under the key has not the size that its row states.
    #[error("{key} has {actual} bytes instead of {expected}; run `wharf storage verify --deep`")]
    WrongSize {
        /// The key as its row has it.
        key: String,
        /// Bytes that the row states.
        expected: u64,
        /// Bytes that are there.
        actual: u64,
    },
    /// What lies under the key has other bytes than its digest says.
    #[error("{key} is damaged: its bytes hash to {actual}")]
    WrongDigest {
        /// The key as its row has it.
        key: String,
        /// What they hash to.
        actual: Box<wharf_oci::Digest>,
    },
    /// The store no longer has the bytes that a checkpoint claims, or another writer has taken the upload over.
    #[error("the upload's bytes are no longer there; begin it again")]
    UploadLost,
    /// The upload was completed by an earlier request, which could not make it a blob: nothing can be appended, and
    /// finishing it works.
    #[error("the upload's bytes were completed by an earlier request; finish it")]
    Completed,
    /// An earlier write or sync of this writer failed. Take the upload up again from its last checkpoint.
    #[error(
        "an earlier write of this upload failed; take it up again from its last acknowledged offset"
    )]
    Poisoned,
    /// A text that is no key of a blob store: it leaves `blobs/`, or has a character or length that no key has.
    #[error("{0:?} is not a key of the blob store")]
    BadKey(String),
    /// The object store does not answer, or not sensibly, although it was asked again.
    #[error("the object store fails while {what}: {source}")]
    Unreachable {
        /// What was tried, and on which object.
        what: String,
        /// What the last attempt gave.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// So many requests failed that the object store is left alone for some seconds.
    #[error("the object store did not answer lately; it is asked again in a moment")]
    Resting,
    /// The object store understood, and refuses.
    #[error("the object store refuses {what}: {source}")]
    Refused {
        /// What was tried, and on which object.
        what: String,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The object store has no room, or the bucket's quota is used up.
    #[error(
        "the object store is full or its quota is used up, seen while {what} ({said}); free room there or raise the quota"
    )]
    Full {
        /// What was tried, and on which object.
        what: String,
        /// What it said.
        said: String,
    },
    /// A text that the configuration has cannot be used, or a file that it names.
    #[error("`{key}`: {problem}")]
    Setup {
        /// The key.
        key: String,
        /// What is wrong with it, and the way out.
        problem: String,
    },
    /// The blob is larger than the object store takes in ten thousand parts.
    #[error(
        "a blob of more than {limit} bytes does not fit into the object store's parts; raise `storage.part_size`"
    )]
    TooLarge {
        /// In bytes.
        limit: u64,
    },
    /// The rows that belong to an upload could not be read or written.
    #[error("{0}")]
    Ledger(Box<dyn std::error::Error + Send + Sync>),
    /// Anything else that the operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, and on which file.
        what: String,
        /// What the operating system said.
        source: io::Error,
    },
}

impl Error {
    /// Sorts out a failed system call; `what` is only made when it goes into the message.
    pub(crate) fn io(what: impl FnOnce() -> String, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            _ => Self::Io {
                what: what(),
                source,
            },
        }
    }
}
