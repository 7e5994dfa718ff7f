//! The seam between the registry and whatever keeps its bytes.

use std::fmt::Debug;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use wharf_oci::{Algorithm, Digest};

use crate::error::{Error, Result};
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
    /// Which of these bytes are parts of a multipart upload. What follows them is in the rows of a [`Ledger`]. `None`
    /// for a store that finds the bytes by the upload's id, and as long as there is no part.
    pub parts: Option<Parts>,
    /// Under which the upload is written to. In a store that is shared, no two processes ever write under the same.
    pub epoch: i64,
}

/// A multipart upload of an object store: all that is needed to go on with it from anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multipart {
    /// Where the object will be once the upload is complete. Nobody used it before.
    pub key: Key,
    /// What the object store calls it.
    pub session: String,
    /// Bytes of its first part; how parts grow follows from it.
    pub part_size: u64,
}

/// How far a multipart upload is claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// Which.
    pub multipart: Multipart,
    /// So many parts.
    pub count: u64,
    /// So many bytes in them.
    pub bytes: u64,
}

/// A part that the object store acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPart {
    /// Bytes.
    pub size: u64,
    /// What the object store calls it. Completing with this name takes these bytes or fails.
    pub tag: String,
}

/// What the rows must take over together with a checkpoint. Empty for a store that keeps all bytes itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fresh {
    /// Parts since the checkpoint before. When there are any, or it is the first checkpoint, what rows held of the tail
    /// is in them or in `tail`, and goes.
    pub parts: Vec<StoredPart>,
    /// The bytes that end at the checkpoint and that neither parts nor rows have.
    pub tail: Vec<u8>,
}

/// What rows remember of an upload for a store that cannot be asked itself, by whoever holds the upload. Nothing is read
/// before it is needed.
pub trait Ledger: Send + Sync + Debug {
    /// Notes that a multipart upload was begun, durably and before it gets a byte: it will be given up even if nothing is
    /// heard of it again.
    fn begun<'a>(&'a self, multipart: &'a Multipart) -> BoxFuture<'a, Result<()>>;

    /// The claimed parts of a multipart upload in order.
    fn parts<'a>(&'a self, of: &'a Multipart) -> BoxFuture<'a, Result<Vec<StoredPart>>>;

    /// The claimed bytes behind the claimed parts.
    fn tail(&self) -> BoxFuture<'_, Result<Vec<u8>>>;
}

/// For stores and tests that need none: there is nothing, and nothing can be begun.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLedger;

impl Ledger for NoLedger {
    fn begun<'a>(&'a self, _: &'a Multipart) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Err(Error::UploadLost) })
    }

    fn parts<'a>(&'a self, _: &'a Multipart) -> BoxFuture<'a, Result<Vec<StoredPart>>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn tail(&self) -> BoxFuture<'_, Result<Vec<u8>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

impl Checkpoint {
    /// Where every upload begins.
    pub const START: Self = Self {
        offset: 0,
        hash: Vec::new(),
        parts: None,
        epoch: 0,
    };
}

/// Something found by [`BlobStore::scan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// Bytes under a key, and how many.
    Blob(Key, u64),
    /// Bytes of an upload, counted or not.
    Upload {
        /// Its name.
        id: UploadId,
        /// How many.
        size: u64,
        /// When something was last written, in milliseconds since 1970 by the store's clock; 0: it does not say.
        written_at: i64,
    },
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

/// A URL under which anybody may read one blob for a while.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedUrl(String);

impl SignedUrl {
    /// Takes the URL of a store.
    pub fn new(url: String) -> Self {
        Self(url)
    }

    /// The URL. It is a credential: it goes to the client that may read the blob, and into no log.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Debug for SignedUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SignedUrl(…)")
    }
}

/// Keeps bytes. Implementations pass `blob_suite!`.
///
/// Every future may be dropped at any point: nothing leaks, and what was not acknowledged may or may not have happened.
pub trait BlobStore: Send + Sync + Debug {
    /// Whether other processes use the store, too, and an upload's bytes are found through its rows alone: then whoever
    /// goes on with one must take over its row first, and claims parts.
    fn is_remote(&self) -> bool {
        false
    }

    /// Whether other processes use the store, too. Whoever writes to an upload that another one may have written to takes over its
    /// row first.
    fn is_shared(&self) -> bool {
        self.is_remote()
    }

    /// Opens an upload for writing at `from`, cutting off whatever lies beyond. `from.offset` 0 begins it afresh.
    ///
    /// An earlier writer of the same upload loses it: its next call gives [`Error::UploadLost`] where the
    /// store itself knows of both, and where it does not (one that is shared), its next claim fails at the row. Bytes that
    /// are gone give [`Error::UploadLost`] here, or at the latest when the upload is published.
    fn upload<'a>(
        &'a self,
        id: &'a UploadId,
        from: &'a Checkpoint,
        algorithm: Algorithm,
        ledger: &'a Arc<dyn Ledger>,
    ) -> BoxFuture<'a, Result<Box<dyn UploadWriter>>>;

    /// Stores a whole small blob durably.
    fn put<'a>(&'a self, key: &'a Key, bytes: Bytes) -> BoxFuture<'a, Result<()>>;

    /// Forgets what this store keeps under the upload's id. That there is nothing is fine.
    fn discard<'a>(&'a self, id: &'a UploadId) -> BoxFuture<'a, Result<()>>;

    /// Gives up a multipart upload: its parts go, and its object if it was completed. Only for one that no blob's row
    /// names, nor ever will. That there is none is fine.
    fn give_up<'a>(&'a self, multipart: &'a Multipart) -> BoxFuture<'a, Result<()>> {
        let _ = multipart;
        Box::pin(async { Ok(()) })
    }

    /// Opens a blob that has `size` bytes according to its row. Reading starts with [`Blob::stream`]. A store that is
    /// reached over a network asks nothing here: whether the blob is there shows in [`ByteStream::begin`](crate::ByteStream::begin).
    fn open<'a>(&'a self, key: &'a Key, size: u64) -> BoxFuture<'a, Result<Blob>>;

    /// Whether the blob is there with this size, as far as that can be said without a request to another machine.
    fn check<'a>(&'a self, key: &'a Key, size: u64) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.open(key, size).await.map(|_| ()) })
    }

    /// Whether the blob is there with this size, whatever it costs to find out.
    fn inspect<'a>(&'a self, key: &'a Key, size: u64) -> BoxFuture<'a, Result<()>> {
        self.check(key, size)
    }

    /// A URL from which a client can read the blob itself for `lifetime`, if the store can give one.
    fn signed_url<'a>(
        &'a self,
        key: &'a Key,
        lifetime: std::time::Duration,
    ) -> BoxFuture<'a, Result<Option<SignedUrl>>> {
        let _ = (key, lifetime);
        Box::pin(async { Ok(None) })
    }

    /// Removes a blob. That there is none is fine. Whoever has it open reads on where the store can do that.
    fn remove<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<()>>;

    /// Puts a blob at a path that does not exist yet: a copy of its own, whose bytes are durable and were seen to have
    /// `digest`; else [`Error::WrongDigest`] and no file. The folder's own durability is the caller's affair.
    fn export<'a>(
        &'a self,
        key: &'a Key,
        digest: &'a Digest,
        to: &'a Path,
    ) -> BoxFuture<'a, Result<()>>;

    /// Stores a blob that another store has, under the key that it has there; else [`Error::WrongDigest`] or
    /// [`Error::WrongSize`], and nothing. What lies under the key is replaced: it is known to be no such blob.
    fn copy_in<'a>(
        &'a self,
        key: &'a Key,
        digest: &'a Digest,
        blob: Blob,
    ) -> BoxFuture<'a, Result<()>>;

    /// Shows all that is stored in a part, in no order, some hundred at a time. `visit` returns false to stop. What comes
    /// or goes meanwhile may be seen or not. A store whose uploads are known by their rows alone shows none.
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

    /// A short text that was kept beside the blobs under a name of a few letters, if there is one.
    fn note<'a>(&'a self, name: &'static str) -> BoxFuture<'a, Result<Option<String>>>;

    /// Keeps such a text, replacing what was there. It may be lost in a crash, but never half written.
    fn set_note<'a>(&'a self, name: &'static str, text: String) -> BoxFuture<'a, Result<()>>;

    /// Figures for metrics.
    fn figures(&self) -> Figures {
        Figures::default()
    }
}

/// What a store counted since it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Kind of work, how often, nanoseconds in all.
    pub work: Vec<(&'static str, u64, u64)>,
    /// Requests to an object store that failed in the end.
    pub failed: u64,
    /// Requests that were not even tried, because those before them failed.
    pub refused: u64,
    /// Whether requests are refused at the moment.
    pub open_circuit: bool,
}

/// One upload, open for appending. Dropping it frees everything; bytes after the last checkpoint are then void.
///
/// After any error, all further calls give [`Error::Poisoned`]: take the upload up again from the last
/// acknowledged checkpoint.
pub trait UploadWriter: Send {
    /// Says how long the whole upload is going to be, where the client has told. A hint for sizes, before any write.
    fn expect(&mut self, total: u64) {
        let _ = total;
    }

    /// Appends bytes. Returns as soon as there is room for them, which is not when they are durable.
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<()>>;

    /// Bytes accepted so far.
    fn offset(&self) -> u64;

    /// Makes everything accepted so far durable, together with what [`fresh`](Self::fresh) gives then.
    fn sync(&mut self) -> BoxFuture<'_, Result<Checkpoint>>;

    /// What the rows must hold for the last checkpoint to stand. Given once.
    fn fresh(&mut self) -> Fresh {
        Fresh::default()
    }

    /// Ends writing for [`publish`](Self::publish), and gives digest and size. Reads the bytes again when `algorithm` is
    /// not the one that the upload was opened with (UP-7). This is no checkpoint: the writer must live until the upload is
    /// published.
    fn finish(&mut self, algorithm: Algorithm) -> BoxFuture<'_, Result<(Digest, u64)>>;

    /// Makes the finished upload a blob, durably, under a key that nobody used before.
    ///
    /// What the store keeps under the upload's id stays until [`discard`](BlobStore::discard), so that a publish whose row
    /// could not be written may be tried again; the blob does not change by that.
    fn publish<'a>(&'a mut self, digest: &'a Digest) -> BoxFuture<'a, Result<Key>>;

    /// The multipart upload that publishing completes; its row must go in the transaction that makes the blob's.
    fn multipart(&self) -> Option<&Multipart> {
        None
    }
}
