//! A slow walk over all files, once in a while: bytes that never got a row, since a crash came between the two; and what is left
//! of uploads.
//!
//! Trusts nothing younger than a day, by the time in its key. Must never run after a restore before somebody said so: a store
//! that is newer than its rows would lose what only newer rows name.

use serde::{Deserialize, Serialize};
use wharf_blob::{Key, Part, Stored};
use wharf_meta::{quarantine, recheck as rows};

use super::paused;
use crate::error::Result;
use crate::job::{Job, Step};
use crate::registry::Registry;
use crate::upload;
use crate::verify::is_named;
use crate::walk::Walk;

/// What is younger than this may still get its row, in milliseconds.
const YOUNG: i64 = 86_400_000;
/// So many are removed by one run; the next one goes on.
const AT_MOST: usize = 10_000;
/// So many are put into the list of garbage by one operation.
const BATCH: usize = rows::BATCH;

/// The walk over all files, in one step: it waits for the disk, not for the stores' locks.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Sweep {}

impl Job for Sweep {
    const KIND: &'static str = "storage.sweep";

    async fn step(&mut self, registry: &Registry) -> Result<Step> {
        if paused(registry).await?.is_some() {
            return Ok(Step::Done);
        }
        let old = registry.ages.older_than(&*registry.clock, YOUNG);
        if registry.blobs.is_shared() {
            uploads(registry, old).await?;
        }
        let mut orphans = Vec::new();
        let mut walk = Walk::new(&*registry.blobs, Part::Blobs);
        while let Some(found) = walk.next().await? {
            for stored in found {
                // A key of another form tells no age: `storage verify` lists it.
                let Stored::Blob(key, _) = stored else {
                    continue;
                };
                if is_old(&key, old) && !is_needed(registry, &key).await? {
                    orphans.push(key);
                }
            }
            // Each was one read on this thread.
            tokio::task::yield_now().await;
            if orphans.len() >= AT_MOST {
                break;
            }
        }
        for keys in orphans.chunks(BATCH) {
            let named = keys.iter().filter_map(|key| {
                let digest = key.digest()?;
                Some((key.as_str().to_owned(), digest))
            });
            let discard = rows::Discard {
                keys: named.collect(),
                at: registry.clock.now_ms(),
            };
            let discarded = registry.meta.write(discard).await?;
            if discarded > 0 {
                tracing::info!(files = discarded, "files that nothing names go");
            }
        }
        Ok(Step::Done)
    }
}

/// Files of uploads without a session, which a crash of any process left in a shared folder: none can tell by itself whether another
/// one is still at work on them. A store that is one process's own is cleared at its start.
async fn uploads(registry: &Registry, old: i64) -> Result<()> {
    let mut walk = Walk::new(&*registry.blobs, Part::Uploads);
    while let Some(found) = walk.next().await? {
        for stored in found {
            if let Stored::Upload { id, written_at, .. } = stored
                && written_at < old
            {
                upload::forget_stray(registry, &id).await?;
            }
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}

fn is_old(key: &Key, before: i64) -> bool {
    let made_at = key.made_at().and_then(|at| i64::try_from(at).ok());
    made_at.is_some_and(|at| at < before)
}

/// Whether a row names it: of a live blob, or of one whose bytes are looked into.
async fn is_needed(registry: &Registry, key: &Key) -> Result<bool> {
    if is_named(&registry.meta, key).await? {
        return Ok(true);
    }
    let Some(digest) = key.digest() else {
        return Ok(true);
    };
    let held = registry.meta.read(quarantine::Of { digest }).await?;
    Ok(held
        .iter()
        .any(|row| row.key.as_deref() == Some(key.as_str())))
}
