//! What every blob store can do. Backends: [`crate::fs`] and [`crate::mem`]; object storage will be a third.
//!
//! A store knows keys and uploads, and nothing of repositories or rows. It never decides whether bytes are wanted.

use std::fmt::Debug;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;

use bytes::Bytes;
use wharf_oci::{Algorithm, Digest};

use crate::error::Result;
use crate::key::{Key, UploadId};
use crate::read::Blob;

/// A future of a trait object's method.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A point of an upload that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// So many bytes.
    pub offset: u64,
    /// [`crate::Hasher::save`] at exactly that offset. Empty at offset 0.
    pub hash: Vec<u8>,
}

/// Something found by [`BlobStore::scan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// Bytes under a key, and how many.
    Blob(Key, u64),
    /// Bytes of an upload, and how many.
    Upload(UploadId, u64),
    /// A file that is neither, by its path below the store's folder.
    Stray(String),
}

/// A part of the store, for [`BlobStore::scan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Published blobs.
    Blobs,
    /// Uploads.
    Uploads,
}

/// Bytes by key.
///
/// Durable means: survives power loss. A store syncs the data and the names that lead to it before it says so.
pub trait BlobStore: Send + Sync + Debug {
    /// Takes an upload up at a checkpoint; bytes beyond it are dropped. The hash goes on with the checkpoint's state, or
    /// anew with `algorithm` at offset 0. [`crate::Error::UploadLost`] when fewer bytes are there.
    fn upload<'a>(
        &'a self,
        id: &'a UploadId,
        from: &'a Checkpoint,
        algorithm: Algorithm,
    ) -> BoxFuture<'a, Result<Box<dyn UploadWriter>>>;

    /// Makes the bytes of a finished upload durable under `key`. The upload stays until it is discarded, so that a crash
    /// before the row is written loses nothing.
    fn publish<'a>(&'a self, id: &'a UploadId, key: &'a Key) -> BoxFuture<'a, Result<()>>;

    /// Stores few bytes under `key`, durable on return.
    fn put<'a>(&'a self, key: &'a Key, bytes: Bytes) -> BoxFuture<'a, Result<()>>;

    /// Forgets an upload's bytes; that there are none is fine.
    fn discard<'a>(&'a self, id: &'a UploadId) -> BoxFuture<'a, Result<()>>;

    /// Opens bytes for reading. [`crate::Error::Missing`] and [`crate::Error::WrongSize`] when they are not what the row says.
    fn open<'a>(&'a self, key: &'a Key, size: u64) -> BoxFuture<'a, Result<Blob>>;

    /// Removes bytes; that there are none is fine. Readers that have them open read on.
    fn remove<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<()>>;

    /// Puts a copy at `to`, a path on this machine, sharing the bytes if it can. Durable on return, but for `to`'s folder.
    fn export<'a>(&'a self, key: &'a Key, to: &'a Path) -> BoxFuture<'a, Result<()>>;

    /// Shows all that is stored in a part, in no order, some hundred at a time. `visit` returns false to stop.
    fn scan<'a>(
        &'a self,
        part: Part,
        visit: &'a mut (dyn FnMut(Vec<Stored>) -> bool + Send),
    ) -> BoxFuture<'a, Result<()>>;

    /// Bytes free for new blobs, where that is known. Fails when nothing can be written.
    fn probe(&self) -> BoxFuture<'_, Result<Option<u64>>>;
}

/// An upload being written: hashed and stored while it streams.
///
/// Holds at most [`crate::BUFFER`] bytes twice, plus one chunk, in memory. May be dropped at any time; what was not
/// synced does not count then.
pub trait UploadWriter: Send {
    /// Hands bytes over, waiting while both buffers are full. An error may belong to earlier bytes.
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<()>>;

    /// Bytes taken so far, durable or not.
    fn offset(&self) -> u64;

    /// Makes all bytes taken so far durable. After a failure the writer is useless: a failed sync is never tried again.
    fn sync(&mut self) -> BoxFuture<'_, Result<Checkpoint>>;

    /// Makes all bytes durable and tells their digest and number. Another algorithm than the running one reads them again
    /// (UP-7).
    fn finish(&mut self, algorithm: Algorithm) -> BoxFuture<'_, Result<(Digest, u64)>>;
}
