//! Uploads to an object store: their rows, and the end of every multipart upload that was begun.
//!
//! A multipart upload costs money until it is completed or aborted, and no listing is made to find it. So it is noted
//! before it gets a byte, and leaves the notes as a blob's key or by being given up here.

use wharf_blob::{BoxFuture, Key, Ledger, Multipart, StoredPart, UploadId};
use wharf_meta::{Meta, multipart as rows, upload};

use crate::error::{Error, Result};
use crate::registry::Registry;

/// Multipart uploads given up in one step.
const BATCH: u32 = 100;

/// The rows of one upload.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) meta: Meta,
    pub(super) id: UploadId,
    /// When the request that uses them began; milliseconds since 1970.
    pub(super) at: i64,
}

fn failed(error: wharf_meta::Error) -> wharf_blob::Error {
    wharf_blob::Error::Ledger(Box::new(error))
}

impl Ledger for Rows {
    fn begun<'a>(&'a self, multipart: &'a Multipart) -> BoxFuture<'a, wharf_blob::Result<()>> {
        Box::pin(async move {
            let begin = rows::Begin {
                multipart: row(multipart),
                upload: self.id.to_string(),
                at: self.at,
            };
            self.meta.write(begin).await.map_err(failed)
        })
    }

    fn parts<'a>(
        &'a self,
        of: &'a Multipart,
    ) -> BoxFuture<'a, wharf_blob::Result<Vec<StoredPart>>> {
        Box::pin(async move {
            let mut all = Vec::new();
            loop {
                let list = rows::List {
                    key: of.key.to_string(),
                    from: all.len() as u64,
                };
                let page = self.meta.scan(list).await.map_err(failed)?;
                let last = page.len() < rows::PAGE as usize;
                all.extend(page.into_iter().map(|part| StoredPart {
                    size: part.size,
                    tag: part.tag,
                }));
                if last {
                    return Ok(all);
                }
            }
        })
    }

    fn tail(&self) -> BoxFuture<'_, wharf_blob::Result<Vec<u8>>> {
        Box::pin(async move {
            let id = self.id.to_string();
            self.meta.scan(upload::Chunks { id }).await.map_err(failed)
        })
    }
}

/// As its row has it.
pub(super) fn row(multipart: &Multipart) -> rows::MultipartRow {
    rows::MultipartRow {
        key: multipart.key.to_string(),
        session: multipart.session.clone(),
        part_size: multipart.part_size,
    }
}

/// As the blob store has it.
pub(super) fn multipart(row: rows::MultipartRow) -> Result<Multipart> {
    Ok(Multipart {
        key: Key::parse(&row.key)?,
        session: row.session,
        part_size: row.part_size,
    })
}

/// After the end of an upload: gives up what was begun for it and did not become a blob, and forgets what did. A failure
/// here is nobody's: [`release`] comes back for it.
pub(super) async fn settle(registry: &Registry, id: &UploadId, published: Option<&Multipart>) {
    let outcome = async {
        if let Some(published) = published {
            forget(registry, published.key.to_string()).await?;
        }
        let give_up = rows::GiveUp {
            upload: id.to_string(),
            but: None,
        };
        for row in registry.meta.write(give_up).await? {
            give_up_one(registry, row).await?;
        }
        Ok::<_, Error>(())
    };
    if let Err(error) = outcome.await {
        tracing::warn!(upload = %id, %error, "parts of an upload could not be given up; trying again later");
    }
}

/// Ends a session whose bytes the object store has lost, so that its client begins anew instead of asking for ever. One that
/// somebody else has taken over, or ended, is left alone.
pub(super) async fn ended<T>(
    registry: &Registry,
    id: &UploadId,
    epoch: Option<i64>,
    outcome: Result<T>,
) -> Result<T> {
    if let (Err(Error::UploadUnknown), Some(epoch), true) =
        (&outcome, epoch, registry.blobs.is_remote())
    {
        let lose = rows::Lose {
            upload: id.to_string(),
            epoch,
        };
        if registry.meta.write(lose).await? {
            tracing::warn!(upload = %id, "the object store has lost an upload; its client has to begin again");
            settle(registry, id, None).await;
        }
    }
    outcome
}

/// Gives up all multipart uploads that nobody will complete; returns how many. Called with the expiry of sessions.
pub(super) async fn release(registry: &Registry, begun_before: i64) -> Result<u64> {
    let mut count = 0;
    loop {
        let abandoned = rows::Abandoned {
            begun_before,
            limit: BATCH,
        };
        let batch = registry.meta.write(abandoned).await?;
        if batch.is_empty() {
            break;
        }
        for row in batch {
            give_up_one(registry, row).await?;
            count += 1;
        }
    }
    loop {
        let batch = registry.meta.scan(rows::Over { limit: BATCH }).await?;
        if batch.is_empty() {
            return Ok(count);
        }
        for key in batch {
            forget(registry, key).await?;
        }
    }
}

/// Bytes first, rows second: what has a row is tried again.
async fn give_up_one(registry: &Registry, row: rows::MultipartRow) -> Result<()> {
    let multipart = multipart(row)?;
    registry.blobs.give_up(&multipart).await?;
    forget(registry, multipart.key.to_string()).await
}

async fn forget(registry: &Registry, key: String) -> Result<()> {
    while registry
        .meta
        .write(rows::Forget { key: key.clone() })
        .await?
    {}
    Ok(())
}
