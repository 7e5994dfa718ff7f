//! What keeps removed bytes where they are while a backup copies: in this process by a number, and on all replicas by a row
//! that ends by itself when this process does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;
use wharf_meta::{Meta, hold};

use crate::clock::Clock;
use crate::registry::Registry;

/// So long a hold lasts when nothing is heard of its process.
const LASTS: Duration = Duration::from_secs(120);
/// How often it is made to last longer.
const BEAT: Duration = Duration::from_secs(15);

/// A hold; gone when dropped, on other replicas some time later unless it is released.
pub(super) struct Hold<'a> {
    local: &'a AtomicUsize,
    shared: Option<Shared>,
}

struct Shared {
    id: String,
    meta: Meta,
    clock: Arc<dyn Clock>,
    lapsed: Arc<AtomicBool>,
    beat: AbortHandle,
}

impl<'a> Hold<'a> {
    /// Takes one. Before the snapshot: what that names must not go.
    pub(super) async fn take(registry: &'a Registry) -> crate::Result<Self> {
        registry.holds.fetch_add(1, Ordering::SeqCst);
        let mut hold = Self {
            local: &registry.holds,
            shared: None,
        };
        if registry.meta.is_shared() {
            hold.shared = Some(Shared::take(&registry.meta, &registry.clock).await?);
        }
        Ok(hold)
    }

    /// Ends it; false: it did not stand all the time, so that bytes may have gone.
    pub(super) async fn release(mut self) -> crate::Result<bool> {
        let Some(shared) = self.shared.take() else {
            return Ok(true);
        };
        shared.beat.abort();
        let release = hold::Release {
            id: shared.id.clone(),
            at: shared.clock.now_ms(),
        };
        let stood = shared.meta.write(release).await?;
        Ok(stood && !shared.lapsed.load(Ordering::SeqCst))
    }
}

impl Shared {
    async fn take(meta: &Meta, clock: &Arc<dyn Clock>) -> crate::Result<Self> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        meta.write(take(&id, true, clock)).await?;
        let lapsed = Arc::new(AtomicBool::new(false));
        let beat = {
            let (meta, id, clock, lapsed) =
                (meta.clone(), id.clone(), clock.clone(), lapsed.clone());
            tokio::spawn(async move {
                let mut heard = Instant::now();
                loop {
                    tokio::time::sleep(BEAT).await;
                    match meta.write(take(&id, false, &clock)).await {
                        Ok(true) if heard.elapsed() < LASTS => heard = Instant::now(),
                        Err(error) if heard.elapsed() < LASTS => {
                            tracing::warn!(%error, "the hold of a backup could not be made to last; trying again");
                        }
                        // Ended, or nobody can say that it did not.
                        _ => return lapsed.store(true, Ordering::SeqCst),
                    }
                }
            })
        };
        Ok(Self {
            id,
            meta: meta.clone(),
            clock: clock.clone(),
            lapsed,
            beat: beat.abort_handle(),
        })
    }
}

fn take(id: &str, first: bool, clock: &Arc<dyn Clock>) -> hold::Take {
    hold::Take {
        id: id.to_owned(),
        first,
        lasts: i64::try_from(LASTS.as_millis()).unwrap_or(i64::MAX),
        at: clock.now_ms(),
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.local.fetch_sub(1, Ordering::SeqCst);
        if let Some(shared) = &self.shared {
            shared.beat.abort();
        }
    }
}

/// Whether a backup, here or on another replica, may still need bytes that no row names any more. To be asked after the rows
/// are gone: a backup takes its hold before its snapshot.
pub(crate) async fn is_held(registry: &Registry) -> crate::Result<bool> {
    if registry.holds.load(Ordering::SeqCst) > 0 {
        return Ok(true);
    }
    if !registry.meta.is_shared() {
        return Ok(false);
    }
    let at = registry.clock.now_ms();
    Ok(registry.meta.scan(hold::Standing { at }).await?.is_some())
}
