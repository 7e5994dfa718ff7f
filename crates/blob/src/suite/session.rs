//! Uploads as the registry makes them: a writer and its rows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use wharf_oci::{Algorithm, Digest};

use crate::{
    BlobStore, BoxFuture, Checkpoint, Error, Fresh, Key, Ledger, Multipart, Result, StoredPart,
    UploadId, UploadWriter,
};

/// What the metadata store does for uploads, in memory: claims by epoch, parts, tails.
#[derive(Debug, Default)]
pub struct Rows(Mutex<Claimed>);

#[derive(Debug, Default)]
struct Claimed {
    epoch: u64,
    parts: Vec<StoredPart>,
    tail: Vec<u8>,
    begun: Vec<Multipart>,
}

impl Rows {
    fn lock(&self) -> MutexGuard<'_, Claimed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Multipart uploads that were ever begun.
    pub fn begun(&self) -> Vec<Multipart> {
        self.lock().begun.clone()
    }

    fn claim(&self, epoch: u64, fresh: Fresh) -> Result<()> {
        let mut claimed = self.lock();
        if claimed.epoch != epoch {
            return Err(Error::UploadLost);
        }
        if !fresh.parts.is_empty() {
            claimed.tail.clear();
        }
        claimed.parts.extend(fresh.parts);
        claimed.tail.extend(fresh.tail);
        Ok(())
    }
}

impl Ledger for Rows {
    fn begun<'a>(&'a self, multipart: &'a Multipart) -> BoxFuture<'a, Result<()>> {
        self.lock().begun.push(multipart.clone());
        Box::pin(async { Ok(()) })
    }

    fn parts<'a>(&'a self, _: &'a Multipart) -> BoxFuture<'a, Result<Vec<StoredPart>>> {
        Box::pin(async { Ok(self.lock().parts.clone()) })
    }

    fn tail(&self) -> BoxFuture<'_, Result<Vec<u8>>> {
        Box::pin(async { Ok(self.lock().tail.clone()) })
    }
}

/// An upload as the registry sees it: an id, and rows.
#[derive(Debug)]
pub struct Session {
    /// Its id.
    pub id: UploadId,
    /// Its rows.
    pub rows: Arc<Rows>,
}

impl Session {
    /// One that nobody has written to.
    #[allow(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        Self {
            id: UploadId::random(),
            rows: Arc::default(),
        }
    }

    /// Takes it over.
    pub async fn resume(
        &self,
        store: &dyn BlobStore,
        from: &Checkpoint,
        algorithm: Algorithm,
    ) -> Result<Held> {
        let epoch = {
            let mut claimed = self.rows.lock();
            claimed.epoch += 1;
            if from.offset == 0 {
                claimed.parts.clear();
                claimed.tail.clear();
            }
            claimed.epoch
        };
        let ledger: Arc<dyn Ledger> = self.rows.clone();
        Ok(Held {
            writer: store.upload(&self.id, from, algorithm, &ledger).await?,
            rows: self.rows.clone(),
            epoch,
            lost: false,
        })
    }
}

/// A writer together with its rows: a checkpoint counts once it is claimed.
pub struct Held {
    writer: Box<dyn UploadWriter>,
    rows: Arc<Rows>,
    epoch: u64,
    lost: bool,
}

impl Held {
    /// [`UploadWriter::write`].
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        match self.lost {
            true => Err(Error::Poisoned),
            false => self.writer.write(bytes).await,
        }
    }

    /// [`UploadWriter::sync`], and the claim of it.
    pub async fn sync(&mut self) -> Result<Checkpoint> {
        let checkpoint = self.writer.sync().await?;
        let claim = self.rows.claim(self.epoch, self.writer.fresh());
        self.lost = claim.is_err();
        claim.map(|()| checkpoint)
    }

    /// [`UploadWriter::offset`].
    pub fn offset(&self) -> u64 {
        self.writer.offset()
    }

    /// [`UploadWriter::finish`].
    pub async fn finish(&mut self, algorithm: Algorithm) -> Result<(Digest, u64)> {
        self.writer.finish(algorithm).await
    }

    /// [`UploadWriter::publish`].
    pub async fn publish(&mut self, digest: &Digest) -> Result<Key> {
        self.writer.publish(digest).await
    }
}
