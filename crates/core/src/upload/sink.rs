//! Where an upload's bytes go: into `meta` while they are few, into the blob store from then on.
//!
//! The sink alone knows which of the two an upload is in. Its promise: after [`Sink::claim`] the row states an offset
//! whose bytes and hash state are durable, and nothing beyond it counts. What arrives whole in one request and fits into a
//! buffer needs no claim: it stays in memory until it is published.

use std::sync::Arc;

use bytes::Bytes;
use wharf_blob::{Checkpoint, Hasher, Ledger, Parts, UploadId, UploadWriter};
use wharf_meta::{multipart, upload as rows};
use wharf_oci::{Algorithm, Digest};

use super::parts;

use crate::error::{Error, Result};
use crate::registry::Registry;

/// Bytes between two claims of one long request: what a crash can cost a client that resumes.
const CLAIM_EVERY: u64 = 512 << 20;

/// Bytes that are held until they are claimed or published; hashing so many takes a runtime thread a fraction of a
/// millisecond.
const HELD_BELOW: u64 = 256 << 10;

/// A whole upload, verified by nobody yet.
pub(super) struct Finished {
    /// What the bytes hash to.
    pub(super) digest: Digest,
    /// How many they are.
    pub(super) size: u64,
    /// Where they are.
    pub(super) content: Content,
}

/// The bytes of a whole upload.
pub(super) enum Content {
    /// So few that they go into the row.
    Inline(Vec<u8>),
    /// In memory, on the way to a file.
    Held(Bytes),
    /// With the blob store. Dropping this before it was published frees it, unless a row claims it.
    File(Box<dyn UploadWriter>),
}

/// An upload being written to. The caller holds its lock.
pub(super) struct Sink<'r> {
    registry: &'r Registry,
    id: UploadId,
    algorithm: Algorithm,
    place: Place,
    /// How long the whole is going to be, where the client has told.
    expected: Option<u64>,
    /// What the row said when it was read; `None`: there is none.
    row_epoch: Option<i64>,
    /// Under which the session was taken over; `None`: it was not.
    epoch: Option<i64>,
    /// The claim that the row makes at present; `None` when there is no row to claim with, or it is to stay as it is.
    claimed: Option<Claimed>,
}

struct Claimed {
    epoch: i64,
    offset: u64,
    in_file: bool,
}

enum Place {
    /// All bytes so far.
    Held(Vec<u8>),
    File(Box<dyn UploadWriter>),
}

impl<'r> Sink<'r> {
    /// Takes a session up where its row says it stands.
    pub(super) async fn resume(
        registry: &'r Registry,
        id: UploadId,
        row: rows::UploadRow,
        algorithm: Algorithm,
    ) -> Result<Self> {
        let taken = match row.in_file {
            true => take_over(registry, &id, row.epoch).await?,
            // The compare-and-swap of the claim sees to bytes in rows.
            false => None,
        };
        let row_epoch = Some(row.epoch);
        let epoch = taken.unwrap_or(row.epoch);
        let place = if row.in_file {
            let parts = match row.parts {
                Some(claimed) => Some(Parts {
                    multipart: parts::multipart(claimed.multipart)?,
                    count: claimed.count,
                    bytes: claimed.bytes,
                }),
                None => None,
            };
            let from = Checkpoint {
                offset: row.offset,
                hash: row.hash,
                parts,
                epoch,
            };
            let ledger = ledger(registry, id);
            let writer = registry.blobs.upload(&id, &from, algorithm, &ledger);
            Place::File(writer.await?)
        } else if row.offset == 0 {
            Place::Held(Vec::new())
        } else {
            let bytes = registry
                .meta
                .read(rows::Chunks { id: id.to_string() })
                .await?;
            if bytes.len() as u64 != row.offset {
                // Between the two reads somebody else moved the session on.
                return Err(Error::UploadBusy);
            }
            Place::Held(bytes)
        };
        Ok(Self {
            registry,
            id,
            algorithm,
            place,
            expected: None,
            row_epoch,
            epoch: taken,
            claimed: Some(Claimed {
                epoch,
                offset: row.offset,
                in_file: row.in_file,
            }),
        })
    }

    /// A sink without a session: nothing is claimed, everything is lost if the request fails.
    pub(super) fn unclaimed(registry: &'r Registry, id: UploadId, algorithm: Algorithm) -> Self {
        Self {
            registry,
            id,
            algorithm,
            place: Place::Held(Vec::new()),
            expected: None,
            row_epoch: None,
            epoch: None,
            claimed: None,
        }
    }

    /// The same, but the row goes on saying what it says now, whatever happens to the request.
    pub(super) fn all_or_nothing(mut self) -> Self {
        self.claimed = None;
        self
    }

    pub(super) fn registry(&self) -> &'r Registry {
        self.registry
    }

    /// Under which the session was taken over, if it was.
    pub(super) fn epoch(&self) -> Option<i64> {
        self.epoch
    }

    /// Says how many bytes are still to come.
    pub(super) fn expect(&mut self, more: u64) {
        let total = self.offset().saturating_add(more);
        self.expected = Some(total);
        if let Place::File(writer) = &mut self.place {
            writer.expect(total);
        }
    }

    /// Bytes received in all, claimed or not.
    pub(super) fn offset(&self) -> u64 {
        match &self.place {
            Place::Held(bytes) => bytes.len() as u64,
            Place::File(writer) => writer.offset(),
        }
    }

    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<()> {
        if let Place::Held(held) = &mut self.place {
            let limit = self.registry.limits.inline_below.max(HELD_BELOW);
            if ((held.len() + bytes.len()) as u64) < limit {
                held.extend_from_slice(&bytes);
                return Ok(());
            }
        }
        self.in_file().await?.write(bytes).await?;
        if let Some(claimed) = &self.claimed
            && self.offset() - claimed.offset >= CLAIM_EVERY
        {
            self.claim().await?;
        }
        Ok(())
    }

    /// Before a file of the session is made: in a folder that is shared, others may be about to do the same.
    async fn hold_file(&mut self) -> Result<()> {
        if let (Some(row), None, false) =
            (self.row_epoch, self.epoch, self.registry.blobs.is_remote())
        {
            self.epoch = take_over(self.registry, &self.id, row).await?;
            if let (Some(claimed), Some(epoch)) = (&mut self.claimed, self.epoch) {
                claimed.epoch = epoch;
            }
        }
        Ok(())
    }

    /// The upload's file, which begins with what was held so far.
    async fn in_file(&mut self) -> Result<&mut Box<dyn UploadWriter>> {
        if let Place::Held(_) = &self.place {
            self.hold_file().await?;
        }
        if let Place::Held(held) = &mut self.place {
            let start = Checkpoint {
                hash: Hasher::new(self.algorithm).save(),
                epoch: self.epoch.or(self.row_epoch).unwrap_or(0),
                ..Checkpoint::START
            };
            let ledger = ledger(self.registry, self.id);
            let blobs = &self.registry.blobs;
            let writer = blobs.upload(&self.id, &start, self.algorithm, &ledger);
            let mut writer = writer.await?;
            if let Some(total) = self.expected {
                writer.expect(total);
            }
            if !held.is_empty() {
                writer.write(Bytes::from(std::mem::take(held))).await?;
            }
            self.place = Place::File(writer);
        }
        match &mut self.place {
            Place::File(writer) => Ok(writer),
            Place::Held(_) => Err(Error::Internal("an upload without its file".into())),
        }
    }

    /// Makes everything received so far durable and lets the row say so. Returns the offset.
    pub(super) async fn claim(&mut self) -> Result<u64> {
        let offset = self.offset();
        match &self.claimed {
            None => return Ok(offset),
            Some(claimed) if !claimed.in_file && claimed.offset == offset => return Ok(offset),
            Some(_) if offset >= self.registry.limits.inline_below => {
                self.in_file().await?;
            }
            Some(_) => {}
        }
        if self.registry.blobs.is_remote() && matches!(self.place, Place::File(_)) {
            return self.claim_parts().await;
        }
        let Some(claimed) = &mut self.claimed else {
            return Ok(offset);
        };
        let (to, hash, append, in_file) = match &mut self.place {
            Place::Held(bytes) => {
                let from = usize::try_from(claimed.offset).unwrap_or(usize::MAX);
                let tail = bytes.get(from..).unwrap_or_default().to_vec();
                (bytes.len() as u64, Vec::new(), Some(tail), false)
            }
            Place::File(writer) => {
                let Checkpoint { offset, hash, .. } = writer.sync().await?;
                (offset, hash, None, true)
            }
        };
        if to == claimed.offset && in_file == claimed.in_file {
            return Ok(to);
        }
        let swapped = self
            .registry
            .meta
            .write(rows::Claim {
                id: self.id.to_string(),
                epoch: claimed.epoch,
                from: claimed.offset,
                to,
                hash,
                append,
                in_file,
                at: self.registry.clock.now_ms(),
            })
            .await?;
        if !swapped {
            // Cancelled, expired or taken over while the body came in.
            return Err(Error::UploadUnknown);
        }
        claimed.offset = to;
        claimed.in_file = in_file;
        Ok(to)
    }

    /// [`claim`](Self::claim) where the bytes are parts, and rows behind them.
    async fn claim_parts(&mut self) -> Result<u64> {
        let (Place::File(writer), Some(claimed)) = (&mut self.place, &mut self.claimed) else {
            return Ok(self.offset());
        };
        let checkpoint = writer.sync().await?;
        let fresh = writer.fresh();
        let to = checkpoint.offset;
        if to == claimed.offset && claimed.in_file && fresh.parts.is_empty() {
            return Ok(to);
        }
        let claim = multipart::Claim {
            id: self.id.to_string(),
            epoch: claimed.epoch,
            from: claimed.offset,
            to,
            hash: checkpoint.hash,
            parts: checkpoint.parts.map(|claimed| multipart::ClaimedParts {
                multipart: parts::row(&claimed.multipart),
                count: claimed.count,
                bytes: claimed.bytes,
            }),
            replace: !claimed.in_file || !fresh.parts.is_empty(),
            fresh: fresh
                .parts
                .into_iter()
                .map(|part| multipart::PartRow {
                    size: part.size,
                    tag: part.tag,
                })
                .collect(),
            tail: fresh.tail,
            at: self.registry.clock.now_ms(),
        };
        if !self.registry.meta.write(claim).await? {
            // Cancelled, expired or taken over while the body came in.
            return Err(Error::UploadUnknown);
        }
        claimed.offset = to;
        claimed.in_file = true;
        Ok(to)
    }

    /// Ends writing: everything is durable (or in memory, to be committed with the row) and hashed with `algorithm`.
    pub(super) async fn finish(self, algorithm: Algorithm) -> Result<Finished> {
        match self.place {
            Place::Held(bytes) => Ok(Finished {
                digest: Digest::of(algorithm, &bytes),
                size: bytes.len() as u64,
                content: if (bytes.len() as u64) < self.registry.limits.inline_below {
                    Content::Inline(bytes)
                } else {
                    Content::Held(bytes.into())
                },
            }),
            Place::File(mut writer) => {
                let (digest, size) = writer.finish(algorithm).await?;
                Ok(Finished {
                    digest,
                    size,
                    content: Content::File(writer),
                })
            }
        }
    }
}

/// Makes sure that whoever wrote to the session before claims nothing more, and gives the epoch that does it. Where no
/// other process reaches the bytes, the blob store itself sees to that, and in a shared folder it does for those of this
/// process.
async fn take_over(registry: &Registry, id: &UploadId, epoch: i64) -> Result<Option<i64>> {
    let blobs = &registry.blobs;
    if !blobs.is_shared() || (!blobs.is_remote() && registry.uploads.has(id, epoch)) {
        return Ok(None);
    }
    let take = rows::Take {
        id: id.to_string(),
        epoch,
        at: registry.clock.now_ms(),
    };
    let taken = registry.meta.write(take).await?.ok_or(Error::UploadBusy)?;
    if !blobs.is_remote() {
        registry.uploads.take(id, taken);
    }
    Ok(Some(taken))
}

fn ledger(registry: &Registry, id: UploadId) -> Arc<dyn Ledger> {
    Arc::new(parts::Rows {
        meta: registry.meta.clone(),
        id,
        at: registry.clock.now_ms(),
    })
}
