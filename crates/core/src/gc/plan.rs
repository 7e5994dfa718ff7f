//! What would go, when and why; nothing is changed.

use wharf_meta::{blob as rows, candidate, restorable};
use wharf_oci::{Digest, RepositoryName};

use super::{paused, rules};
use crate::error::Result;
use crate::registry::Registry;

/// Rows looked at in one step.
const PAGE: u32 = 200;
/// So many entries of a kind are listed; all are counted.
const LISTED: usize = 200;

/// Something that will go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Where.
    pub repository: RepositoryName,
    /// What.
    pub digest: Digest,
    /// Bytes of the blob; `None` for a manifest, or when the bytes are gone already.
    pub size: Option<u64>,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// Why, in words.
    pub why: &'static str,
}

/// What collection would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Why nothing goes at present.
    pub paused: Option<String>,
    /// Blobs that repositories do not need, by age.
    pub blobs: Vec<Planned>,
    /// All of them.
    pub blob_count: u64,
    /// Their bytes, counted for each repository.
    pub blob_bytes: u64,
    /// Deleted manifests, which can be restored until then.
    pub manifests: Vec<Planned>,
    /// All of them.
    pub manifest_count: u64,
    /// Keys whose bytes are to be removed from the blob store.
    pub keys: u64,
}

/// Makes the plan. Costs as much as there is to go.
pub async fn plan(registry: &Registry) -> Result<Plan> {
    let mut plan = Plan {
        paused: paused(registry).await?,
        ..Plan::default()
    };
    let grace = registry.rules.load().grace;
    if plan.paused.is_none()
        && let Some(left) = registry.ages.doubt(&*registry.clock, grace)
    {
        plan.paused = Some(format!(
            "the registry stood still for long, or its clock was set forward: all graces began anew, the longest ends in {} min",
            left / 60_000
        ));
    }
    let now = registry.clock.now_ms();
    // A clock that leapt puts the end off.
    let late = now - rules::due(registry);
    let mut after = None;
    loop {
        let page = registry
            .meta
            .scan(candidate::List { after, limit: PAGE })
            .await?;
        let Some(last) = page.last() else { break };
        after = Some((last.since, last.digest.clone(), last.repository_id));
        for row in page.into_iter().filter(|row| !row.held) {
            plan.blob_count += 1;
            plan.blob_bytes += row.size.unwrap_or(0);
            if plan.blobs.len() < LISTED {
                plan.blobs.push(Planned {
                    repository: row.repository,
                    digest: row.digest,
                    size: row.size,
                    at: row.since.saturating_add(late),
                    why: if row.hidden {
                        "deleted by a client"
                    } else {
                        "no manifest refers to it"
                    },
                });
            }
        }
    }
    let windows = registry.rules.load().restore.clone();
    let mut after = None;
    loop {
        let page = restorable::Page { after, limit: PAGE };
        let page = registry.meta.scan(page).await?;
        let Some(last) = page.last() else { break };
        after = Some((last.look_at, last.manifest));
        for row in page {
            plan.manifest_count += 1;
            if plan.manifests.len() < LISTED {
                plan.manifests.push(Planned {
                    at: row.deleted_at + windows.of(&row.repository),
                    repository: row.repository,
                    digest: row.digest,
                    size: None,
                    why: "deleted; it can be restored until then",
                });
            }
        }
    }
    let mut after = None;
    loop {
        let page = registry
            .meta
            .scan(rows::Garbage { after, limit: PAGE })
            .await?;
        let Some(last) = page.last().cloned() else {
            break;
        };
        plan.keys += page.len() as u64;
        after = Some(last);
    }
    Ok(plan)
}
