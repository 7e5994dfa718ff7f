//! The seam between the registry and whatever keeps its bytes.

use std::fmt::Debug;
use std::path::Path;
use std::pin::Pin;

use bytes::Bytes;
use wharf_oci::{Algorithm, Digest};

use crate::error::Result;
use crate::key::{Key, UploadId};
use crate::read::Blob;

/// A future behind a pointer, so that traits with async methods stay usable as `dyn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Bytes that an upload gathers before it hands them to the I/O threads. One segment gathers while one is hashed and
/// written, so an upload holds twice this and the last chunk that it was given, and up to `AHEAD` segments more while
/// all uploads together hold fewer than `AHEAD_OF_ALL` of these.
pub const BUFFER: usize = 1 << 20;

/// Segments of one upload that may wait for its hash or its file.
pub(crate) const AHEAD: usize = 4;

/// Segments of all uploads of a store that may wait beyond one for each.
pub(crate) const AHEAD_OF_ALL: usize = 24;

/// A place in an upload up to which every byte is durable, and the hash of those bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Bytes before this place.
    pub offset: u64,
    /// [`Hasher::save`](crate::Hasher::save) at exactly this place. Opaque; when it does not parse, the store hashes
    /// again what it has. Empty at offset 0.
    pub hash: Vec<u8>,
}

impl Checkpoint {
    /// Where every upload begins.
    pub const START: Self = Self {
        offset: 0,
        hash: Vec::new(),
    };
}

/// Something found by [`BlobStore::scan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// Bytes under a key, and how many.
    Blob(Key, u64),
    /// Bytes of an upload, and how many, counted or not.
    Upload(UploadId, u64),
    /// Something that this store did not make, by its path below the store.
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

/// Keeps bytes. Implementations pass `blob_suite!`.
///
/// Every future may be dropped at any point: nothing leaks, and what was not acknowledged may or may not have happened.
pub trait BlobStore: Send + Sync + Debug {
    /// Opens an upload for writing at `from`, cutting off whatever lies beyond. `from.offset` 0 begins it afresh.
    ///
    /// An earlier writer of the same upload loses it: its next call gives [`Error::UploadLost`](crate::Error). Bytes
    /// that are gone give the same error here.
    fn upload<'a>(
        &'a self,
        id: &'a UploadId,
        from: &'a Checkpoint,
        algorithm: Algorithm,
    ) -> BoxFuture<'a, Result<Box<dyn UploadWriter>>>;

    /// Makes a finished upload a blob, durably.
    ///
    /// The upload itself stays until [`discard`](Self::discard), so that a publish whose row could not be written may be
    /// tried again, and the upload written to again; the blob does not change by that.
    fn publish<'a>(&'a self, id: &'a UploadId, key: &'a Key) -> BoxFuture<'a, Result<()>>;

    /// Stores a whole small blob durably.
    fn put<'a>(&'a self, key: &'a Key, bytes: Bytes) -> BoxFuture<'a, Result<()>>;

    /// Forgets an upload's bytes. That there are none is fine.
    fn discard<'a>(&'a self, id: &'a UploadId) -> BoxFuture<'a, Result<()>>;

    /// Opens a blob that has `size` bytes according to its row. Reading starts with [`Blob::stream`].
    fn open<'a>(&'a self, key: &'a Key, size: u64) -> BoxFuture<'a, Result<Blob>>;

    /// Removes a blob. That there is none is fine. Whoever has it open reads on.
    fn remove<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<()>>;

    /// Puts a blob at a path that does not exist yet: a copy of its own, whose bytes are durable and were seen to have the
    /// key's digest; else [`crate::Error::WrongDigest`] and no file. The folder's own durability is the caller's affair.
    fn export<'a>(&'a self, key: &'a Key, to: &'a Path) -> BoxFuture<'a, Result<()>>;

    /// Shows all that is stored in a part, in no order, some hundred at a time. `visit` returns false to stop. What comes
    /// or goes meanwhile may be seen or not.
    fn scan<'a>(
        &'a self,
        part: Part,
        visit: &'a mut (dyn FnMut(Vec<Stored>) -> bool + Send),
    ) -> BoxFuture<'a, Result<()>>;

    /// Lets the next read of a blob come from where it is kept, and not from a copy in memory, where there is one.
    fn uncache<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<()>> {
        let _ = key;
        Box::pin(async { Ok(()) })
    }

    /// Bytes free for new blobs, where that is known. Fails when nothing can be written.
    fn probe(&self) -> BoxFuture<'_, Result<Option<u64>>>;
}

/// One upload, open for appending. Dropping it frees everything; bytes after the last checkpoint are then void.
///
/// After any error, all further calls give [`Error::Poisoned`](crate::Error): take the upload up again from the last
/// acknowledged checkpoint.
pub trait UploadWriter: Send {
    /// Appends bytes. Returns as soon as there is room for them, which is not when they are durable.
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<()>>;

    /// Bytes accepted so far.
    fn offset(&self) -> u64;

    /// Makes everything accepted so far durable.
    fn sync(&mut self) -> BoxFuture<'_, Result<Checkpoint>>;

    /// Makes everything durable for [`BlobStore::publish`], and gives digest and size. Reads the bytes again when
    /// `algorithm` is not the one that the upload was opened with (UP-7). This is no checkpoint: the writer must live
    /// until the upload is published.
    fn finish(&mut self, algorithm: Algorithm) -> BoxFuture<'_, Result<(Digest, u64)>>;
}
