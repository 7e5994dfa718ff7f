//! Collection: what nothing refers to goes, while the registry serves.
//!
//! Nothing here walks over the store to find garbage: operations leave candidates when they remove the last reference of
//! something, and a push or mount makes one from birth ([`wharf_meta::candidate`]). The jobs here wait until their grace is
//! over, decide each in one transaction, and remove the bytes of the very key that the transaction marked. [`Recheck`] and
//! [`Sweep`] are slow walks for what the ordinary way cannot know: rows of older versions, and files that never had a row.
//!
//! Called by the jobs of `app` and by `wharf gc`. Must never remove bytes that a row names, and nothing while
//! [`paused`].

mod collect;
mod plan;
mod purge;
mod recheck;
mod rules;
mod sweep;
#[cfg(test)]
mod tests;
mod untagged;

pub(crate) use self::collect::remove;
pub use self::collect::{Collect, Freed, Tally, free_now};
pub use self::plan::{Plan, Planned, plan};
pub use self::purge::Purge;
pub use self::recheck::Recheck;
pub(crate) use self::rules::fading;
pub use self::rules::{Rules, Windows};
pub use self::sweep::Sweep;
pub use self::untagged::Untagged;

use wharf_meta::setting;

use crate::error::Result;
use crate::registry::Registry;

/// The setting that says why nothing is removed.
const PAUSED: &str = "gc.paused";
/// The setting with the time at which the registry was last seen to run, in milliseconds since 1970.
const SEEN: &str = "gc.seen";
/// How often that is written.
const SEEN_EVERY: i64 = 10 * 60_000;
/// A registry that did not run for longer than this, or whose clock was set forward meanwhile, begins all graces anew: nobody
/// can tell the two apart.
const ABSENCE: i64 = 60 * 60_000;

/// Why nothing is removed at present, if so.
pub async fn paused(registry: &Registry) -> Result<Option<String>> {
    let key = PAUSED.to_owned();
    let reason = registry.meta.read(setting::Get { key }).await?;
    Ok(reason.filter(|reason| !reason.is_empty()))
}

/// Stops all removal until [`resume`].
pub async fn pause(meta: &wharf_meta::Meta, reason: &str) -> Result<()> {
    let (key, value) = (PAUSED.to_owned(), reason.to_owned());
    Ok(meta.write(setting::Put { key, value }).await?)
}

/// Lets removal go on.
pub async fn resume(registry: &Registry) -> Result<()> {
    pause(&registry.meta, "").await
}

/// To be called at the start: sees whether the clock can be trusted with the ages of what is there.
pub async fn awake(registry: &Registry) -> Result<()> {
    let key = SEEN.to_owned();
    let seen = registry.meta.read(setting::Get { key }).await?;
    let now = registry.clock.now_ms();
    let absent = seen
        .and_then(|seen| seen.parse::<i64>().ok())
        .map_or(0, |seen| now.saturating_sub(seen));
    if absent > ABSENCE {
        tracing::warn!(
            seconds = absent / 1_000,
            "the registry did not run for long, or its clock was set forward: collection lets every grace begin anew"
        );
        registry.ages.leapt(&*registry.clock, absent);
    }
    if let Err(error) = remember(registry, now).await {
        tracing::warn!(%error, "the time of this start could not be noted");
    }
    Ok(())
}

async fn remember(registry: &Registry, now: i64) -> Result<()> {
    let (key, value) = (SEEN.to_owned(), now.to_string());
    Ok(registry.meta.write(setting::Put { key, value }).await?)
}

/// Notes that the registry runs, now and then.
async fn is_awake(registry: &Registry) -> Result<()> {
    let key = SEEN.to_owned();
    let now = registry.clock.now_ms();
    let seen = registry.meta.read(setting::Get { key }).await?;
    let seen = seen.and_then(|seen| seen.parse::<i64>().ok()).unwrap_or(0);
    if now.saturating_sub(seen) >= SEEN_EVERY
        && let Err(error) = remember(registry, now).await
    {
        // On a full disk this has no room, and what frees it must go on.
        tracing::debug!(%error, "the time could not be noted");
    }
    Ok(())
}
