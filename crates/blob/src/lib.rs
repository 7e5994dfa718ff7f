//! Bytes: where blobs and uploads in progress lie.
//!
//! A store knows two things: **blobs**, immutable and addressed by a [`Key`] that nobody used before, and **uploads**,
//! files that grow until they are published under a key or discarded. Which digest a key belongs to, and which bytes of
//! an upload count, is decided by rows in `wharf-meta`; file names and lengths prove nothing.
//!
//! Called by `wharf-core` alone (the server only streams what core opened). It must never hold a blob whole in memory,
//! block a runtime thread for more than a millisecond, acknowledge bytes that could be lost with the power, or try a
//! failed `fsync` a second time: the kernel forgets the pages that it could not write, so the second call lies.
//!
//! The byte path in: [`UploadWriter::write`] gathers up to [`BUFFER`] bytes and hands them to the I/O threads, where one
//! hashes and another writes them, while the next segments gather. Large files are written past the page cache. An object
//! store gets parts instead, one under way while the next gathers. The byte path out: [`Blob::stream`].

pub mod error;
pub mod fault;
pub mod fs;
mod hash;
mod io;
mod key;
mod mem;
pub mod object;
mod owner;
mod read;
mod store;
#[cfg(feature = "suite")]
pub mod suite;

pub use self::error::{Error, Result};
pub use self::fs::{Fs, FsOptions};
pub use self::hash::Hasher;
pub use self::io::{Pool, PoolStats};
pub use self::key::{Key, UploadId, UploadIdError};
pub use self::mem::Mem;
pub use self::object::{Object, ObjectOptions};
pub use self::owner::{Ground, Owned, OwnerError};
pub use self::read::{Blob, ByteStream, FileBlob, Piece, Window};
pub use self::store::{
    BUFFER, BlobStore, BoxFuture, Checkpoint, Figures, Fresh, Ledger, Multipart, NoLedger, Part,
    Parts, SignedUrl, Stored, StoredPart, UploadWriter,
};
