//! Bytes: where blobs lie, how they get there, and how they are read.
//!
//! `core` stores and opens blobs through [`BlobStore`]; it alone knows which repository may see which. Nothing here knows
//! SQL or HTTP, and no blob is ever held whole in memory.

pub mod error;
pub mod fs;
pub mod hash;
pub mod io;
pub mod key;
pub mod read;
pub mod store;

pub use error::{Error, Result};
pub use fs::{Fs, FsOptions};
pub use hash::Hasher;
pub use key::{Key, UploadId, UploadIdError};
pub use read::{Blob, ByteStream, FileBlob};
pub use store::{BlobStore, BoxFuture, Checkpoint, Part, Stored, UploadWriter};

/// How much of an upload gathers in memory before it goes to the disk, in bytes. Two of these are in use at most.
pub const BUFFER: usize = 1 << 20;
