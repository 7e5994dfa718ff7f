//! A slow walk over all rows, once in a while: finds what the ordinary way of a candidate missed.

use serde::{Deserialize, Serialize};
use wharf_meta::{Id, blob, recheck as rows};
use wharf_oci::Digest;

use super::paused;
use crate::error::Result;
use crate::job::{Job, Step};
use crate::registry::Registry;

/// Rows looked at in one step.
const PAGE: u32 = 200;

/// The walk. Begins anew after a restart.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Recheck {
    #[serde(skip)]
    stage: Stage,
    #[serde(skip)]
    found: u64,
}

#[derive(Debug)]
enum Stage {
    Links(Option<(Digest, Id)>),
    Blobs(Option<Id>),
    Manifests(Option<Id>),
    Done,
}

impl Default for Stage {
    fn default() -> Self {
        Self::Links(None)
    }
}

impl Job for Recheck {
    // Its first name: rows hold it.
    const KIND: &'static str = "gc.audit";

    async fn step(&mut self, registry: &Registry) -> Result<Step> {
        match std::mem::take(&mut self.stage) {
            Stage::Links(after) => {
                let limit = PAGE;
                let page = registry.meta.scan(rows::Links { after, limit }).await?;
                self.stage = match page.last() {
                    Some(link) => Stage::Links(Some((link.digest.clone(), link.repository))),
                    None => Stage::Blobs(None),
                };
                let lost: Vec<_> = page
                    .iter()
                    .filter(|link| link.lost)
                    .map(|link| (link.repository, link.digest.clone()))
                    .collect();
                for links in lost.chunks(rows::BATCH) {
                    let mark = rows::Mark {
                        links: links.to_vec(),
                        at: registry.clock.now_ms(),
                    };
                    self.found += registry.meta.write(mark).await?;
                }
            }
            Stage::Blobs(after) => {
                let limit = PAGE;
                let page = registry.meta.scan(blob::ListLive { after, limit }).await?;
                self.stage = match page.last() {
                    Some(row) => Stage::Blobs(Some(row.id)),
                    None => Stage::Manifests(None),
                };
                let digests = page.into_iter().map(|row| row.digest).collect();
                let digests = registry.meta.scan(rows::Unlinked { digests }).await?;
                if !digests.is_empty() && paused(registry).await?.is_none() {
                    for digests in digests.chunks(rows::BATCH) {
                        let remove = rows::Remove {
                            digests: digests.to_vec(),
                            at: registry.clock.now_ms(),
                        };
                        self.found += registry.meta.write(remove).await?;
                    }
                }
            }
            Stage::Manifests(after) => {
                let limit = PAGE;
                let page = registry.meta.scan(rows::Manifests { after, limit }).await?;
                self.stage = match page.last() {
                    Some(row) => Stage::Manifests(Some(row.id)),
                    None => Stage::Done,
                };
                let forgotten = page.into_iter().filter(|row| row.forgotten);
                let forgotten: Vec<Id> = forgotten.map(|row| row.id).collect();
                for manifests in forgotten.chunks(rows::BATCH) {
                    let manifests = manifests.to_vec();
                    self.found += registry.meta.write(rows::Adopt { manifests }).await?;
                }
            }
            Stage::Done => {
                if self.found > 0 {
                    tracing::info!(
                        found = self.found,
                        "the recheck found what nothing refers to"
                    );
                }
                return Ok(Step::Done);
            }
        }
        Ok(Step::More)
    }
}
