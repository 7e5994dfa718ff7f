//! The store in a bucket, through any service that speaks S3, or Google's or Azure's own protocol.
//!
//! ```text
//! write   → gather a part → PUT part N ∥ hash, while part N+1 gathers     writer.rs, plan.rs
//! sync    → checkpoint: parts acknowledged, tail to the rows              writer.rs
//! publish → Complete names exactly these parts; or one PUT                writer.rs
//! open    → nothing; the first byte asks for the range                    read.rs
//! each request → counted, sorted, refused while the store is ill          gate.rs
//! ```
//! Keys are fresh for every publish, so completing *is* publishing: nothing is copied, renamed or listed on the way of a
//! request. Uploads are known by their rows alone ([`Ledger`]); this store keeps nothing in memory that another process
//! would need.

mod blocks;
mod connect;
mod copy;
mod gate;
mod owner;
mod plan;
mod read;
mod watch;
mod writer;

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use wharf_oci::{Algorithm, Digest};

pub use self::connect::{Azure, Client, Credentials, Encryption, Gcs, ObjectOptions, S3, Service};
use self::gate::{Call, Gate};
pub use self::owner::apart;
pub use self::read::ObjectBlob;
pub(crate) use self::read::ObjectStream;
use self::watch::Seen;
use crate::error::{Error, Result};
use crate::hash::Hasher;
use crate::io::Pool;
use crate::key::{Key, UploadId};
use crate::owner::MARK;
use crate::read::Blob;
use crate::store::{
    BlobStore, BoxFuture, Checkpoint, Figures, Ledger, Multipart, Part, SignedUrl, Stored,
    UploadWriter,
};

/// Part size unless told otherwise.
pub const PART_SIZE: u64 = 8 << 20;

/// Names handed to a visitor of a scan at once.
const BATCH: usize = 256;

/// A bucket full of blobs. A clone is the same store.
#[derive(Debug, Clone)]
pub struct Object {
    engine: Arc<Engine>,
    /// The section of the configuration that named it, for errors.
    section: &'static str,
    /// What requests are signed for, where it is named.
    region: Option<String>,
    way: Way,
    seen: Arc<Seen>,
}

/// So long a store that failed last is waited for by somebody who asks how it is.
const PROBE: Duration = Duration::from_secs(3);

/// How the service is reached, for errors.
#[derive(Debug, Clone, Copy, Default)]
struct Way {
    /// The key that the service's host follows from, where no endpoint is named.
    host: Option<&'static str>,
    /// Through a proxy.
    proxied: bool,
}

/// The parts of a service that this store uses.
#[derive(Clone)]
pub struct Backend {
    /// Objects.
    pub store: Arc<dyn ObjectStore>,
    /// Multipart uploads by id.
    pub parts: Arc<dyn MultipartStore>,
    /// URLs for clients, if the service can make them.
    pub signer: Option<Arc<dyn Signer>>,
}

pub(crate) struct Engine {
    store: Arc<dyn ObjectStore>,
    parts: Arc<dyn MultipartStore>,
    signer: Option<Arc<dyn Signer>>,
    /// Where the store's own objects begin: empty or a path.
    prefix: Path,
    part_size: u64,
    gate: Gate,
    /// For hashing and signing.
    pool: Pool,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Object({} below {:?})", self.store, self.prefix.as_ref())
    }
}

impl Engine {
    /// Where an object lies in the bucket.
    fn path(&self, key: &Key) -> Path {
        // A key has only characters that stand for themselves.
        self.prefix
            .parts()
            .chain(key.as_str().split('/').map(Into::into))
            .collect()
    }

    fn blob(self: &Arc<Self>, key: &Key, size: u64) -> ObjectBlob {
        ObjectBlob {
            engine: self.clone(),
            key: Arc::new(key.clone()),
            size,
        }
    }

    async fn put(self: &Arc<Self>, key: &Key, pieces: Vec<Bytes>) -> Result<()> {
        let (shared, path) = (self.clone(), self.path(key));
        let payload = PutPayload::from_iter(pieces);
        let request = Box::pin(async move { shared.store.put(&path, payload).await });
        let request = writer::started(self, request).await?;
        let what = || format!("storing {key}");
        self.gate.pass(Call::Put, what, request).await?;
        Ok(())
    }

    async fn remove(&self, key: &Key) -> Result<()> {
        let path = self.path(key);
        let what = || format!("removing {key}");
        let request = self.store.delete(&path);
        match self.gate.pass(Call::Delete, what, request).await {
            Err(Error::Missing { .. }) => Ok(()),
            outcome => outcome,
        }
    }
}

impl Object {
    /// A store over parts that were made elsewhere: for tests, and for whoever counts the requests below.
    pub fn over(backend: Backend, prefix: &str, part_size: u64) -> Result<Self> {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let pool = Pool::new("blob-object", threads)
            .map_err(|error| Error::io(|| "starting threads".to_owned(), error))?;
        let engine = Engine {
            store: backend.store,
            parts: backend.parts,
            signer: backend.signer,
            prefix: Path::from(prefix),
            part_size,
            gate: Gate::new(),
            pool,
        };
        Ok(Self {
            engine: Arc::new(engine),
            section: "storage.s3",
            region: None,
            way: Way::default(),
            seen: Arc::default(),
        })
    }

    /// Requests so far, by kind: for tests that count them.
    pub fn requests(&self) -> Vec<(&'static str, u64)> {
        let work = self.engine.gate.figures().work.into_iter();
        work.map(|(kind, times, _)| (kind, times)).collect()
    }

    async fn list(&self, visit: &mut (dyn FnMut(Vec<Stored>) -> bool + Send)) -> Result<()> {
        let engine = &self.engine;
        let below: Path = engine.prefix.parts().chain(["blobs".into()]).collect();
        let skip = match engine.prefix.as_ref() {
            "" => 0,
            prefix => prefix.len() + 1,
        };
        engine.gate.admit()?;
        let mut listing = engine.store.list(Some(&below));
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let next = std::future::poll_fn(|cx| listing.as_mut().poll_next(cx));
            let Some(found) = next.await else {
                break;
            };
            let found = found.map_err(|error| engine.gate.sort("listing blobs".into(), error))?;
            let name = found.location.as_ref().get(skip..).unwrap_or_default();
            batch.push(match Key::parse(name) {
                Ok(key) => Stored::Blob(key, found.size),
                Err(_) => Stored::Stray(name.to_owned()),
            });
            if batch.len() == BATCH && !visit(std::mem::take(&mut batch)) {
                return Ok(());
            }
        }
        if !batch.is_empty() {
            visit(batch);
        }
        Ok(())
    }

    async fn copy_out(&self, key: &Key, digest: &Digest, to: &FilePath) -> Result<()> {
        let size = self.engine.measure(key).await?;
        let path = to.to_owned();
        let failed = |error| Error::io(|| format!("copying {key} to {}", to.display()), error);
        let mut copy = Copy {
            file: std::fs::File::create_new(&path).map_err(failed)?,
            path: Some(path),
        };
        let mut stream = self.engine.blob(key, size).stream(0..size);
        let mut hasher = digest.algorithm().map(Hasher::new);
        while let Some(piece) = std::future::poll_fn(|cx| stream.poll_next(cx)).await {
            let piece = piece?;
            let job = move || {
                std::io::Write::write_all(&mut copy.file, &piece)
                    .map_err(|error| Error::io(|| "writing a copy".to_owned(), error))?;
                if let Some(hasher) = &mut hasher {
                    hasher.update(&piece);
                }
                Ok((copy, hasher))
            };
            (copy, hasher) = self.engine.pool.run(job).await?;
        }
        let actual = hasher.map(Hasher::finish);
        if let Some(actual) = actual.filter(|actual| actual != digest) {
            return Err(Error::WrongDigest {
                key: key.to_string(),
                actual: Box::new(actual),
            });
        }
        let job = move || {
            let synced = copy.file.sync_data();
            synced.map_err(|error| Error::io(|| "syncing a copy".to_owned(), error))?;
            copy.path = None;
            Ok(())
        };
        self.engine.pool.run(job).await
    }
}

/// A copy under way. One that is given up leaves no file.
struct Copy {
    file: std::fs::File,
    path: Option<std::path::PathBuf>,
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "half a copy could not be removed");
        }
    }
}

impl BlobStore for Object {
    fn is_remote(&self) -> bool {
        true
    }

    fn upload<'a>(
        &'a self,
        _: &'a UploadId,
        from: &'a Checkpoint,
        algorithm: Algorithm,
        ledger: &'a Arc<dyn Ledger>,
    ) -> BoxFuture<'a, Result<Box<dyn UploadWriter>>> {
        Box::pin(async move {
            let writer = writer::ObjectWriter::open(&self.engine, from, algorithm, ledger)?;
            Ok(Box::new(writer) as Box<dyn UploadWriter>)
        })
    }

    fn put<'a>(&'a self, key: &'a Key, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.engine.put(key, vec![bytes]))
    }

    fn discard<'a>(&'a self, _: &'a UploadId) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn give_up<'a>(&'a self, multipart: &'a Multipart) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.engine.give_up(multipart))
    }

    fn open<'a>(&'a self, key: &'a Key, size: u64) -> BoxFuture<'a, Result<Blob>> {
        Box::pin(async move { Ok(Blob::Object(self.engine.blob(key, size))) })
    }

    fn check<'a>(&'a self, _: &'a Key, _: u64) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn inspect<'a>(&'a self, key: &'a Key, size: u64) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let actual = self.engine.measure(key).await?;
            match actual == size {
                true => Ok(()),
                false => Err(Error::WrongSize {
                    key: key.to_string(),
                    expected: size,
                    actual,
                }),
            }
        })
    }

    fn signed_url<'a>(
        &'a self,
        key: &'a Key,
        lifetime: Duration,
    ) -> BoxFuture<'a, Result<Option<SignedUrl>>> {
        Box::pin(async move {
            let Some(signer) = &self.engine.signer else {
                return Ok(None);
            };
            let path = self.engine.path(key);
            let signed = signer.signed_url(http::Method::GET, &path, lifetime).await;
            let what = || format!("signing a URL for {key}");
            let url = signed.map_err(|error| self.engine.gate.sort(what(), error))?;
            Ok(Some(SignedUrl::new(url.to_string())))
        })
    }

    fn remove<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.engine.remove(key))
    }

    fn export<'a>(
        &'a self,
        key: &'a Key,
        digest: &'a Digest,
        to: &'a FilePath,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.copy_out(key, digest, to))
    }

    fn copy_in<'a>(
        &'a self,
        key: &'a Key,
        digest: &'a Digest,
        blob: Blob,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.engine.copy_in(key, digest, blob))
    }

    fn scan<'a>(
        &'a self,
        part: Part,
        visit: &'a mut (dyn FnMut(Vec<Stored>) -> bool + Send),
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            match part {
                Part::Blobs => self.list(visit).await,
                Part::Uploads => Ok(()),
            }
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<Option<u64>>> {
        Box::pin(async move {
            if self.engine.gate.is_open() {
                return Err(Error::Resting);
            }
            // Nothing is asked while all is well. After a failure the next answer decides, and nobody may have asked since.
            if self.engine.gate.has_failed() {
                match tokio::time::timeout(PROBE, self.read_note(MARK)).await {
                    Ok(Ok(_) | Err(Error::Missing { .. } | Error::Refused { .. })) => {}
                    Ok(Err(error)) => return Err(error),
                    Err(_) => return Err(Error::Resting),
                }
            }
            Ok(None)
        })
    }

    fn note<'a>(&'a self, name: &'static str) -> BoxFuture<'a, Result<Option<String>>> {
        Box::pin(async move {
            match self.read_note(name).await {
                Ok(note) => Ok(Some(note)),
                Err(Error::Missing { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn set_note<'a>(&'a self, name: &'static str, text: String) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.write_note(name, text))
    }

    fn figures(&self) -> Figures {
        self.engine.gate.figures()
    }
}
