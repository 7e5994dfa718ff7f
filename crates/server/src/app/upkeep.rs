//! What happens by itself while Wharf runs: the htpasswd file and signing keys are looked after, forgotten uploads are
//! cleared away. Each run takes small steps and stops at shutdown.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wharf_blob::{Part, Stored};
use wharf_core::{Registry, manifest, upload};
use wharf_meta::counter::{Fold, MAX_FOLD};

/// Between two looks at files and keys.
const SHORT: Duration = Duration::from_secs(1);
/// Between two rounds of clearing away.
const LONG: Duration = Duration::from_secs(10 * 60);
/// Between two times that changes of counters are added up, where they are kept apart.
const FOLD: Duration = Duration::from_secs(20);
/// Pages of the database that are given back in one step: well below a millisecond of the writer's time.
const PAGES: u32 = 64;
/// Pages without use that stay, so that the next writes need not grow the file again (4 MiB).
const SPARE: u64 = 1024;

/// Looks after the registry until `stop`. Beside requests, from the first one on: a start takes as long for a store of
/// millions as for an empty one.
pub(super) async fn run(registry: Arc<Registry>, stop: CancellationToken) {
    tokio::join!(
        every(SHORT, &stop, || access(&registry)),
        every(FOLD, &stop, || fold(&registry)),
        async {
            tokio::select! {
                () = stop.cancelled() => return,
                () = after_crash(&registry) => {}
            }
            every(LONG, &stop, || clear(&registry)).await;
        },
    );
}

async fn every<F: Future<Output = ()>>(
    period: Duration,
    stop: &CancellationToken,
    mut work: impl FnMut() -> F,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = async {
                work().await;
                tokio::time::sleep(period).await;
            } => {}
        }
    }
}

async fn access(registry: &Registry) {
    if let Err(error) = registry.access.upkeep(registry.clock.now_ms()).await {
        tracing::warn!(%error, "users and keys could not be looked after; trying again");
    }
}

/// Adds up what each write to a shared database counted by itself.
async fn fold(registry: &Registry) {
    if !registry.meta.is_shared() {
        return;
    }
    let step = Fold { limit: MAX_FOLD };
    loop {
        match registry.meta.write(step).await {
            Ok(folded) if folded >= MAX_FOLD => {}
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%error, "counters could not be added up; trying again");
                return;
            }
        }
    }
}

async fn clear(registry: &Registry) {
    match upload::expire(registry).await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "forgotten uploads were cleared away"),
        Err(error) => {
            tracing::warn!(%error, "forgotten uploads could not be cleared away; trying again")
        }
    }
    if let Err(error) = manifest::sweep(registry).await {
        tracing::warn!(%error, "references of deleted manifests could not be cleared away; trying again");
    }
    if let Err(error) = wharf_core::blob::collect_replaced(registry).await {
        tracing::warn!(%error, "replaced blobs could not be removed; trying again");
    }
    if let Err(error) = reclaim(registry).await {
        tracing::warn!(%error, "unused pages of the database could not be given back; trying again");
    }
}

/// Gives pages of the database that deletions freed back to the file system; between two steps other writes have their
/// turn.
async fn reclaim(registry: &Registry) -> wharf_meta::Result<()> {
    let mut unused = registry.meta.reclaim(0).await?;
    while unused > SPARE {
        let before = unused;
        unused = registry.meta.reclaim(PAGES).await?;
        if unused >= before {
            // Others free faster than this gives back: the next round goes on.
            return Ok(());
        }
    }
    Ok(())
}

/// Clears away what a crash can leave behind: upload files without a session.
async fn after_crash(registry: &Registry) {
    let mut found = Vec::new();
    let listed = registry
        .blobs
        .scan(Part::Uploads, &mut |stored| {
            found.extend(stored.into_iter().filter_map(|stored| match stored {
                Stored::Upload(id, _) => Some(id),
                _ => None,
            }));
            true
        })
        .await;
    if let Err(error) = listed {
        tracing::warn!(%error, "upload files that a crash left behind were not all found; the next start looks again");
    }
    for id in found {
        // Each is one read on this thread, and there may be a hundred thousand.
        tokio::task::yield_now().await;
        if let Err(error) = upload::forget_stray(registry, &id).await {
            tracing::warn!(%id, %error, "the file of an upload that nobody continues could not be removed; \
                the next start tries again");
        }
    }
}
