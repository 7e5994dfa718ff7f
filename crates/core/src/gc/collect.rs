//! The collector: candidates whose grace is over, and the bytes of what it marked.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use wharf_blob::Key;
use wharf_meta::{blob as rows, candidate};

use super::{is_awake, paused, rules};
use crate::backup::is_held;
use crate::error::Result;
use crate::job::{Job, Step};
use crate::registry::Registry;

/// Keys whose bytes are removed in one step.
const KEYS: u32 = 50;

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freed {
    /// Deleted manifests that can no longer be restored.
    pub manifests: u64,
    /// Links of repositories to blobs.
    pub links: u64,
    /// Blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Keys whose bytes were removed from the blob store.
    pub keys: u64,
}

/// What was collected since the start, for metrics.
#[derive(Debug, Default)]
pub struct Tally {
    links: AtomicU64,
    blobs: AtomicU64,
    bytes: AtomicU64,
}

impl Tally {
    fn add(&self, collected: candidate::Collected) {
        self.links
            .fetch_add(collected.links.into(), Ordering::Relaxed);
        self.blobs
            .fetch_add(collected.blobs.into(), Ordering::Relaxed);
        self.bytes.fetch_add(collected.bytes, Ordering::Relaxed);
    }

    /// The sums by now.
    pub fn read(&self) -> Freed {
        Freed {
            links: self.links.load(Ordering::Relaxed),
            blobs: self.blobs.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            ..Freed::default()
        }
    }
}

impl Freed {
    fn add(&mut self, collected: candidate::Collected) {
        self.links += u64::from(collected.links);
        self.blobs += u64::from(collected.blobs);
        self.bytes += collected.bytes;
    }
}

/// Collects what is due, some candidates in each step, then the bytes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Collect {
    freed: Freed,
    /// All candidates that were due are decided.
    #[serde(default)]
    decided: bool,
    /// The last key that was looked at.
    #[serde(default)]
    after: Option<String>,
}

impl Job for Collect {
    const KIND: &'static str = "gc.collect";

    async fn step(&mut self, registry: &Registry) -> Result<Step> {
        if paused(registry).await?.is_some() {
            return Ok(Step::Done);
        }
        if !self.decided {
            is_awake(registry).await?;
            let collected = decide(registry, rules::due(registry)).await?;
            self.freed.add(collected);
            registry.freed.add(collected);
            self.decided = collected.looked_at == 0;
            return Ok(Step::More);
        }
        let (step, keys) = remove(registry, &mut self.after).await?;
        self.freed.keys += keys;
        if step == Step::Done && self.freed != Freed::default() {
            let Freed {
                links,
                blobs,
                bytes,
                keys,
                ..
            } = self.freed;
            tracing::info!(links, blobs, bytes, keys, "collected");
        }
        Ok(step)
    }
}

/// Decides about some candidates since `due` or before.
async fn decide(registry: &Registry, due: i64) -> Result<candidate::Collected> {
    Ok(registry
        .meta
        .write(candidate::Collect {
            due,
            limit: candidate::BATCH,
            at: registry.clock.now_ms(),
        })
        .await?)
}

/// Removes the bytes of some keys in the list of garbage, unless a running backup may still need them.
pub(crate) async fn remove(registry: &Registry, after: &mut Option<String>) -> Result<(Step, u64)> {
    let page = rows::Garbage {
        after: after.take(),
        limit: KEYS,
    };
    let page = registry.meta.scan(page).await?;
    let Some(last) = page.last().cloned() else {
        return Ok((Step::Done, 0));
    };
    if is_held(registry).await? {
        return Ok((Step::Done, 0));
    }
    let mut keys = Vec::with_capacity(page.len());
    for key in page {
        if registry.holds.load(Ordering::SeqCst) > 0 {
            break;
        }
        let removed = match Key::parse(&key) {
            Ok(name) => registry.blobs.remove(&name).await,
            Err(error) => Err(error),
        };
        match removed {
            Ok(()) => keys.push(key),
            // It stays in the list and is tried again by the next run.
            Err(error) => {
                tracing::warn!(key, %error, "bytes that nothing needs could not be removed")
            }
        }
    }
    let count = keys.len() as u64;
    if !keys.is_empty() {
        registry.meta.write(rows::Collected { keys }).await?;
    }
    if registry.holds.load(Ordering::SeqCst) > 0 {
        return Ok((Step::Done, count));
    }
    *after = Some(last);
    Ok((Step::More, count))
}

/// Collects at once, without waiting for requests: what is due or, with `all`, every candidate and everything that could
/// still be restored.
pub async fn free_now(registry: &Registry, all: bool) -> Result<Freed> {
    let mut freed = Freed {
        manifests: super::purge::all_due(registry, all).await?,
        ..Freed::default()
    };
    let due = if all {
        registry.clock.now_ms()
    } else {
        rules::due(registry)
    };
    loop {
        let collected = decide(registry, due).await?;
        if collected.looked_at == 0 {
            break;
        }
        freed.add(collected);
        registry.freed.add(collected);
    }
    let mut after = None;
    loop {
        let (step, keys) = remove(registry, &mut after).await?;
        freed.keys += keys;
        if step == Step::Done {
            return Ok(freed);
        }
    }
}
