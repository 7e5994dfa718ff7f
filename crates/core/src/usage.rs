//! What repositories take up: the sums that go with every change, and the recount that finds out what is shared.
//!
//! Called by the jobs of `app`, by `wharf repo list --size` and for metrics. Must never hold up a push: changes of sums are rows
//! that pushes append, added up here.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use wharf_meta::{Id, usage as rows};
use wharf_oci::{Digest, RepositoryName};

use crate::error::Result;
use crate::job::{Job, Step};
use crate::registry::Registry;

/// Rows looked at in one step.
const PAGE: u32 = 200;

/// Adds up all changes that wait.
pub async fn fold(registry: &Registry) -> Result<()> {
    // A write would wait for the disk, and there is mostly nothing to write.
    if !registry.meta.read(rows::IsPending).await? {
        return Ok(());
    }
    let limit = rows::MAX_FOLD;
    while registry.meta.write(rows::Fold { limit }).await? >= limit {}
    Ok(())
}

/// Counts everything anew, once in a while: what is from before there were sums gets into them, a sum that an older version
/// did not keep up is put right, and what only one repository or prefix holds is found out. Begins anew after a restart.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Recount {
    #[serde(skip)]
    stage: Stage,
    #[serde(skip)]
    repositories: HashMap<Id, Found>,
    /// Numbers of prefixes, and what they take up.
    #[serde(skip)]
    prefixes: HashMap<String, usize>,
    #[serde(skip)]
    by_prefix: Vec<rows::Usage>,
    /// Links of the digest that the page before ended with.
    #[serde(skip)]
    last: Vec<rows::Link>,
    #[serde(skip)]
    corrected: u64,
}

#[derive(Debug)]
struct Found {
    name: RepositoryName,
    prefix: usize,
    /// Changes in its sum before the walk.
    changes: i64,
    usage: rows::Usage,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Fold,
    Repositories(Option<String>),
    Links(Option<(Digest, Id)>),
    Manifests(Option<Id>),
    FoldAgain,
    Keep,
    KeepPrefixes,
}

impl Job for Recount {
    const KIND: &'static str = "usage.recount";

    async fn step(&mut self, registry: &Registry) -> Result<Step> {
        let limit = PAGE;
        match std::mem::take(&mut self.stage) {
            Stage::Fold => {
                fold(registry).await?;
                self.stage = Stage::Repositories(None);
            }
            Stage::Repositories(after) => {
                let page = registry.meta.scan(rows::Sums { after, limit }).await?;
                self.stage = match page.last() {
                    Some(last) => Stage::Repositories(Some(last.name.to_string())),
                    None => Stage::Links(None),
                };
                for known in page {
                    self.meet(known);
                }
            }
            Stage::Links(after) => {
                let page = registry.meta.scan(rows::Links { after, limit }).await?;
                self.stage = match page.last() {
                    Some(link) => Stage::Links(Some((link.digest.clone(), link.repository))),
                    None => Stage::Manifests(None),
                };
                let wrong = page.iter().filter(|link| link.counted != link.bytes());
                let wrong: Vec<_> = wrong
                    .map(|link| (link.repository, link.digest.clone()))
                    .collect();
                let end = page.is_empty();
                for link in page {
                    let before = self.last.first();
                    if before.is_some_and(|before| before.digest != link.digest) {
                        self.count_links();
                    }
                    self.last.push(link);
                }
                if end {
                    self.count_links();
                }
                for links in wrong.chunks(rows::BATCH) {
                    let links = links.to_vec();
                    registry.meta.write(rows::CountLinks { links }).await?;
                }
            }
            Stage::Manifests(after) => {
                let page = registry.meta.scan(rows::Manifests { after, limit }).await?;
                self.stage = match page.last() {
                    Some(row) => Stage::Manifests(Some(row.id)),
                    None => Stage::FoldAgain,
                };
                let wrong = page.iter().filter(|row| row.counted != row.bytes);
                let wrong: Vec<_> = wrong.map(|row| row.id).collect();
                for row in page {
                    self.count_manifest(&row);
                }
                for manifests in wrong.chunks(rows::BATCH) {
                    let manifests = manifests.to_vec();
                    registry
                        .meta
                        .write(rows::CountManifests { manifests })
                        .await?;
                }
            }
            Stage::FoldAgain => {
                // What changed while the walk went on shows in its sum from here on, and is not corrected.
                fold(registry).await?;
                self.stage = Stage::Keep;
            }
            Stage::Keep => self.keep(registry).await?,
            Stage::KeepPrefixes => return self.keep_prefixes(registry).await,
        }
        Ok(Step::More)
    }
}

impl Recount {
    fn meet(&mut self, known: rows::Known) {
        let next = self.prefixes.len();
        let prefix = rows::prefix(known.name.as_str()).to_owned();
        let prefix = *self.prefixes.entry(prefix).or_insert(next);
        self.by_prefix
            .resize(self.prefixes.len(), rows::Usage::default());
        let found = Found {
            prefix,
            changes: known.changes,
            usage: rows::Usage::default(),
            name: known.name,
        };
        self.repositories.insert(known.id, found);
    }

    /// Counts the links of one digest. A repository that was made since the walk began is for the next one.
    fn count_links(&mut self) {
        let mut shown = std::mem::take(&mut self.last);
        shown.retain(|link| !link.hidden);
        let mut prefixes = Vec::new();
        for link in &shown {
            let bytes = link.bytes();
            let Some(found) = self.repositories.get_mut(&link.repository) else {
                prefixes.push((None, bytes));
                continue;
            };
            found.usage.blobs += 1;
            found.usage.logical += bytes;
            found.usage.own += if shown.len() == 1 { bytes } else { 0 };
            self.by_prefix[found.prefix].logical += bytes;
            prefixes.push((Some(found.prefix), bytes));
        }
        prefixes.sort_unstable();
        prefixes.dedup_by_key(|(prefix, _)| *prefix);
        let alone = prefixes.len() == 1;
        for (prefix, bytes) in prefixes {
            if let Some(prefix) = prefix {
                self.by_prefix[prefix].blobs += 1;
                self.by_prefix[prefix].own += if alone { bytes } else { 0 };
            }
        }
    }

    fn count_manifest(&mut self, row: &rows::Manifest) {
        let Some(found) = self.repositories.get_mut(&row.repository) else {
            return;
        };
        for usage in [&mut found.usage, &mut self.by_prefix[found.prefix]] {
            usage.logical += row.bytes;
            usage.own += row.bytes;
        }
    }

    /// Keeps what was counted for some repositories, and puts their sums right.
    async fn keep(&mut self, registry: &Registry) -> Result<()> {
        let some: Vec<Id> = self
            .repositories
            .keys()
            .take(rows::BATCH)
            .copied()
            .collect();
        if some.is_empty() {
            self.stage = Stage::KeepPrefixes;
            return Ok(());
        }
        let mut usage = Vec::with_capacity(some.len());
        for id in some {
            let Some(found) = self.repositories.remove(&id) else {
                continue;
            };
            usage.push((id, found.usage));
            let correct = rows::Correct {
                repository: id,
                bytes: i64::try_from(found.usage.logical).unwrap_or(i64::MAX),
                changes: found.changes,
                name: found.name,
            };
            if registry.meta.read(rows::IsWrong(correct.clone())).await? {
                self.corrected += u64::from(registry.meta.write(correct).await?);
            }
        }
        let at = registry.clock.now_ms();
        registry.meta.write(rows::Keep { usage, at }).await?;
        self.stage = Stage::Keep;
        Ok(())
    }

    async fn keep_prefixes(&mut self, registry: &Registry) -> Result<Step> {
        let some: Vec<String> = self.prefixes.keys().take(rows::BATCH).cloned().collect();
        if some.is_empty() {
            if self.corrected > 0 {
                tracing::info!(
                    repositories = self.corrected,
                    "the recount put sizes right that an older version had not kept up"
                );
            }
            return Ok(Step::Done);
        }
        let usage = some.into_iter().filter_map(|prefix| {
            let number = self.prefixes.remove(&prefix)?;
            Some((prefix, self.by_prefix[number]))
        });
        let usage = usage.collect();
        let at = registry.clock.now_ms();
        registry
            .meta
            .write(rows::KeepPrefixes { usage, at })
            .await?;
        self.stage = Stage::KeepPrefixes;
        Ok(Step::More)
    }
}
