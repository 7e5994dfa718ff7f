//! A slow walk over all rows, once in a while: finds what the ordinary way of a candidate missed, and counts what repositories
//! take up on the way.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use wharf_meta::{Id, audit as rows, blob};
use wharf_oci::Digest;

use super::paused;
use crate::error::Result;
use crate::job::{Job, Step};
use crate::registry::Registry;

/// Rows looked at in one step.
const PAGE: u32 = 200;

/// The walk. Begins anew after a restart: what it counts is only kept at the end.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Audit {
    #[serde(skip)]
    stage: Stage,
    #[serde(skip)]
    usage: HashMap<Id, rows::Usage>,
    /// Links of the digest that the page before ended with.
    #[serde(skip)]
    last: Vec<rows::Link>,
    #[serde(skip)]
    found: u64,
}

#[derive(Debug)]
enum Stage {
    Links(Option<(Digest, Id)>),
    Blobs(Option<Id>),
    Manifests(Option<Id>),
    Keep,
}

impl Default for Stage {
    fn default() -> Self {
        Self::Links(None)
    }
}

impl Job for Audit {
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
                let end = page.is_empty();
                for link in page {
                    if self
                        .last
                        .first()
                        .is_some_and(|last| last.digest != link.digest)
                    {
                        self.count();
                    }
                    self.last.push(link);
                }
                if end {
                    self.count();
                }
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
                    None => Stage::Keep,
                };
                let mut forgotten = Vec::new();
                for row in page {
                    let usage = self.usage.entry(row.repository).or_default();
                    usage.logical += row.size;
                    usage.own += row.size;
                    if row.forgotten {
                        forgotten.push(row.id);
                    }
                }
                for manifests in forgotten.chunks(rows::BATCH) {
                    let manifests = manifests.to_vec();
                    self.found += registry.meta.write(rows::Adopt { manifests }).await?;
                }
            }
            Stage::Keep => {
                let some: Vec<Id> = self.usage.keys().take(rows::BATCH).copied().collect();
                if some.is_empty() {
                    if self.found > 0 {
                        tracing::info!(
                            found = self.found,
                            "the audit found what nothing refers to"
                        );
                    }
                    return Ok(Step::Done);
                }
                let usage = some
                    .into_iter()
                    .filter_map(|id| self.usage.remove(&id).map(|usage| (id, usage)))
                    .collect();
                let at = registry.clock.now_ms();
                registry.meta.write(rows::Keep { usage, at }).await?;
                self.stage = Stage::Keep;
            }
        }
        Ok(Step::More)
    }
}

impl Audit {
    /// Counts the links of one digest.
    fn count(&mut self) {
        let links = std::mem::take(&mut self.last);
        let alone = links.iter().filter(|link| !link.hidden).count() == 1;
        for link in links {
            // Also for a repository that only has what clients took out, so that its figures are no older ones.
            let usage = self.usage.entry(link.repository).or_default();
            if !link.hidden {
                usage.blobs += 1;
                usage.logical += link.size;
                usage.own += if alone { link.size } else { 0 };
            }
        }
    }
}
