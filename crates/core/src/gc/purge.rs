//! The end of deleted manifests whose time to be restored is over.

use serde::{Deserialize, Serialize};
use wharf_meta::restorable as rows;

use super::paused;
use crate::error::Result;
use crate::job::{Job, Step};
use crate::registry::Registry;

/// Deleted manifests looked at in one step.
const PAGE: u32 = 20;
/// When the clock cannot be trusted, another look is taken after so long, in milliseconds.
const DOUBT: i64 = 600_000;

/// Purges deleted manifests when their window ends.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Purge {
    purged: u64,
}

impl Job for Purge {
    const KIND: &'static str = "manifest.purge";

    async fn step(&mut self, registry: &Registry) -> Result<Step> {
        if paused(registry).await?.is_some() {
            return Ok(Step::Done);
        }
        let page = rows::Due {
            look_before: registry.clock.now_ms(),
            limit: PAGE,
        };
        let page = registry.meta.scan(page).await?;
        if page.is_empty() {
            if self.purged > 0 {
                tracing::info!(
                    manifests = self.purged,
                    "deleted manifests can no longer be restored"
                );
            }
            return Ok(Step::Done);
        }
        for row in page {
            self.purged += u64::from(look(registry, row).await?);
        }
        Ok(Step::More)
    }
}

/// Ends one if its window is over, or notes when that will be; `true`: it is gone.
async fn look(registry: &Registry, row: rows::Restorable) -> Result<bool> {
    let window = registry.rules.load().restore.of(&row.repository);
    let over = row.deleted_at <= registry.ages.older_than(&*registry.clock, window);
    if over || row.purging {
        return end(registry, &row, "its time to be restored is over").await;
    }
    let now = registry.clock.now_ms();
    let look_at = (row.deleted_at + window).max(now + DOUBT.min(window));
    let manifest = row.manifest;
    registry
        .meta
        .write(rows::Postpone { manifest, look_at })
        .await?;
    Ok(false)
}

async fn end(registry: &Registry, row: &rows::Restorable, cause: &'static str) -> Result<bool> {
    loop {
        let purged = registry
            .meta
            .write(rows::Purge {
                manifest: row.manifest,
                deleted_at: row.deleted_at,
                cause,
                at: registry.clock.now_ms(),
            })
            .await?;
        match purged {
            rows::Purged::More => {}
            rows::Purged::Done => return Ok(true),
            rows::Purged::Kept => return Ok(false),
        }
    }
}

/// Ends those whose window is over or, with `all`, every deleted manifest; tells how many.
pub(super) async fn all_due(registry: &Registry, all: bool) -> Result<u64> {
    let mut count = 0;
    let now = registry.clock.now_ms();
    loop {
        let page = rows::Due {
            look_before: if all { i64::MAX } else { now },
            limit: PAGE,
        };
        let page = registry.meta.scan(page).await?;
        let before = count;
        let mut moved = false;
        for row in page {
            let gone = match all {
                true => end(registry, &row, "freed by an administrator").await?,
                false => look(registry, row).await?,
            };
            count += u64::from(gone);
            moved = true;
        }
        // Those that are being pushed again stay.
        if !moved || (all && count == before) {
            return Ok(count);
        }
    }
}
