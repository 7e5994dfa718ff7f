//! A store in memory, for tests of the layers above.
//!
//! Keeps the promises of [`BlobStore`], with "durable" meaning "in the map": a writer's bytes get there with `sync`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use wharf_oci::{Algorithm, Digest};

use crate::error::{Error, Result};
use crate::hash::Hasher;
use crate::key::{Key, UploadId};
use crate::read::Blob;
use crate::store::{BlobStore, BoxFuture, Checkpoint, Ledger, Part, Stored, UploadWriter};

/// Blobs and uploads in maps. A clone is the same store.
#[derive(Debug, Clone, Default)]
pub struct Mem(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    blobs: HashMap<Key, Bytes>,
    uploads: HashMap<UploadId, Upload>,
    notes: HashMap<&'static str, String>,
    epochs: u64,
}

#[derive(Debug)]
struct Upload {
    durable: Vec<u8>,
    /// Which writer it belongs to.
    epoch: u64,
}

impl Mem {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl BlobStore for Mem {
    fn upload<'a>(
        &'a self,
        id: &'a UploadId,
        from: &'a Checkpoint,
        algorithm: Algorithm,
        _: &'a Arc<dyn Ledger>,
    ) -> BoxFuture<'a, Result<Box<dyn UploadWriter>>> {
        Box::pin(async move {
            let mut inner = self.lock();
            inner.epochs += 1;
            let epoch = inner.epochs;
            let keep = usize::try_from(from.offset).map_err(|_| Error::UploadLost)?;
            if keep == 0 {
                inner.uploads.remove(id);
            }
            let upload = match inner.uploads.get_mut(id) {
                Some(upload) if upload.durable.len() >= keep => upload,
                None if keep == 0 => inner.uploads.entry(*id).or_insert(Upload {
                    durable: Vec::new(),
                    epoch,
                }),
                _ => return Err(Error::UploadLost),
            };
            upload.epoch = epoch;
            upload.durable.truncate(keep);
            let saved = Hasher::restore(&from.hash)
                .filter(|hasher| hasher.algorithm() == algorithm && hasher.length() == from.offset);
            let hasher = saved.unwrap_or_else(|| {
                let mut hasher = Hasher::new(algorithm);
                hasher.update(&upload.durable);
                hasher
            });
            Ok(Box::new(MemWriter {
                store: self.clone(),
                id: *id,
                epoch,
                fresh: Vec::new(),
                hasher,
                poisoned: false,
            }) as Box<dyn UploadWriter>)
        })
    }

    fn put<'a>(&'a self, key: &'a Key, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.lock().blobs.insert(key.clone(), bytes);
            Ok(())
        })
    }

    fn discard<'a>(&'a self, id: &'a UploadId) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.lock().uploads.remove(id);
            Ok(())
        })
    }

    fn open<'a>(&'a self, key: &'a Key, size: u64) -> BoxFuture<'a, Result<Blob>> {
        Box::pin(async move {
            let inner = self.lock();
            let bytes = inner.blobs.get(key).ok_or_else(|| Error::Missing {
                key: key.to_string(),
            })?;
            if bytes.len() as u64 == size {
                Ok(Blob::Memory(bytes.clone()))
            } else {
                Err(Error::WrongSize {
                    key: key.to_string(),
                    expected: size,
                    actual: bytes.len() as u64,
                })
            }
        })
    }

    fn remove<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.lock().blobs.remove(key);
            Ok(())
        })
    }

    fn export<'a>(
        &'a self,
        key: &'a Key,
        digest: &'a Digest,
        to: &'a Path,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let bytes = self.lock().blobs.get(key).cloned();
            let bytes = bytes.ok_or_else(|| Error::Missing {
                key: key.to_string(),
            })?;
            if let Some(algorithm) = digest.algorithm()
                && Digest::of(algorithm, &bytes) != *digest
            {
                return Err(Error::WrongDigest {
                    key: key.to_string(),
                    actual: Box::new(Digest::of(algorithm, &bytes)),
                });
            }
            std::fs::File::create_new(to)
                .and_then(|mut file| std::io::Write::write_all(&mut file, &bytes))
                .map_err(|error| Error::io(|| format!("writing {}", to.display()), error))
        })
    }

    fn copy_in<'a>(
        &'a self,
        key: &'a Key,
        digest: &'a Digest,
        blob: Blob,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut stream = blob.stream(0..blob.len());
            let mut bytes = Vec::new();
            while let Some(piece) = stream.next().await {
                bytes.extend_from_slice(&piece?);
            }
            if let Some(algorithm) = digest.algorithm()
                && Digest::of(algorithm, &bytes) != *digest
            {
                return Err(Error::WrongDigest {
                    key: key.to_string(),
                    actual: Box::new(Digest::of(algorithm, &bytes)),
                });
            }
            self.lock().blobs.insert(key.clone(), bytes.into());
            Ok(())
        })
    }

    fn scan<'a>(
        &'a self,
        part: Part,
        visit: &'a mut (dyn FnMut(Vec<Stored>) -> bool + Send),
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let inner = self.lock();
            let found: Vec<_> = match part {
                Part::Blobs => inner
                    .blobs
                    .iter()
                    .map(|(key, bytes)| Stored::Blob(key.clone(), bytes.len() as u64))
                    .collect(),
                Part::Uploads => inner
                    .uploads
                    .iter()
                    .map(|(id, upload)| Stored::Upload {
                        id: *id,
                        size: upload.durable.len() as u64,
                        written_at: 0,
                    })
                    .collect(),
            };
            drop(inner);
            for some in found.chunks(256) {
                if !visit(some.to_vec()) {
                    break;
                }
            }
            Ok(())
        })
    }

    fn note<'a>(&'a self, name: &'static str) -> BoxFuture<'a, Result<Option<String>>> {
        Box::pin(async move { Ok(self.lock().notes.get(name).cloned()) })
    }

    fn set_note<'a>(&'a self, name: &'static str, text: String) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.lock().notes.insert(name, text);
            Ok(())
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<Option<u64>>> {
        Box::pin(async { Ok(None) })
    }
}

struct MemWriter {
    store: Mem,
    id: UploadId,
    epoch: u64,
    /// Bytes since the last checkpoint.
    fresh: Vec<u8>,
    hasher: Hasher,
    poisoned: bool,
}

impl MemWriter {
    fn commit(&mut self) -> Result<()> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        let mut inner = self.store.lock();
        match inner.uploads.get_mut(&self.id) {
            Some(upload) if upload.epoch == self.epoch => {
                upload.durable.append(&mut self.fresh);
                Ok(())
            }
            _ => {
                self.poisoned = true;
                Err(Error::UploadLost)
            }
        }
    }
}

impl UploadWriter for MemWriter {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            if self.poisoned {
                return Err(Error::Poisoned);
            }
            self.hasher.update(&bytes);
            self.fresh.extend_from_slice(&bytes);
            Ok(())
        })
    }

    fn offset(&self) -> u64 {
        self.hasher.length()
    }

    fn sync(&mut self) -> BoxFuture<'_, Result<Checkpoint>> {
        Box::pin(async move {
            self.commit()?;
            Ok(Checkpoint {
                offset: self.hasher.length(),
                hash: self.hasher.save(),
                ..Checkpoint::START
            })
        })
    }

    fn finish(&mut self, algorithm: Algorithm) -> BoxFuture<'_, Result<(Digest, u64)>> {
        Box::pin(async move {
            self.commit()?;
            let digest = if algorithm == self.hasher.algorithm() {
                self.hasher.clone().finish()
            } else {
                let inner = self.store.lock();
                let upload = inner.uploads.get(&self.id).ok_or(Error::UploadLost)?;
                Digest::of(algorithm, &upload.durable)
            };
            Ok((digest, self.hasher.length()))
        })
    }

    fn publish<'a>(&'a mut self, digest: &'a Digest) -> BoxFuture<'a, Result<Key>> {
        Box::pin(async move {
            let key = Key::fresh(digest);
            let mut inner = self.store.lock();
            inner.epochs += 1;
            let epoch = inner.epochs;
            let upload = inner.uploads.get_mut(&self.id).ok_or(Error::UploadLost)?;
            // From now on no writer reaches these bytes, this one included.
            upload.epoch = epoch;
            let bytes = Bytes::copy_from_slice(&upload.durable);
            inner.blobs.insert(key.clone(), bytes);
            Ok(key)
        })
    }
}
