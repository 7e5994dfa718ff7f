//! What happens by itself while Wharf runs: the htpasswd file and signing keys are looked after in each process, all else is
//! jobs, whose kinds are put together here.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wharf_blob::{Part, Stored};
use wharf_core::clock::SharedClock;
use wharf_core::job::{self, Kinds, Spec};
use wharf_core::replica::{self, Me};
use wharf_core::{
    Registry, audit, directory, event, gc, identity, manifest, mark, oidc, scrub, session,
    terminal, upload, usage,
};
use wharf_meta::counter::{Fold, MAX_FOLD};

use crate::api::file_origin;

/// Between two looks at files and keys.
const SHORT: Duration = Duration::from_secs(1);
/// Between two words to the other replicas.
const BEAT: Duration = Duration::from_secs(5);
/// Between two looks at the clock of a shared database.
const FOLLOW: Duration = Duration::from_secs(10);
/// Between two marks where several processes write.
const MARK: Duration = Duration::from_secs(60);
/// Between two rounds of small things.
const OFTEN: Duration = Duration::from_secs(10 * 60);
/// Between two times that changes of counters and of what repositories take up are added up.
const FOLD: Duration = Duration::from_secs(20);
/// Between two looks for sessions whose providers are to be asked.
const ACCOUNTS: Duration = Duration::from_secs(5);
/// Between two looks for invitations and grants that have ended.
const FORGET: Duration = Duration::from_secs(60 * 60);
/// Between two looks for accounts that directories know.
const RECHECK: Duration = Duration::from_secs(2 * 60);
/// Between two rounds of things that nobody waits for.
const DAILY: Duration = Duration::from_secs(86_400);
/// When it is night for many: the walks over everything begin then.
const NIGHT: Duration = Duration::from_secs(3 * 3_600);
/// Between two walks over all rows.
const WEEKLY: Duration = Duration::from_secs(7 * 86_400);

/// How a process that runs jobs does so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upkeep {
    /// Time between two looks for what can go.
    pub collect_every: Duration,
}

/// All kinds of jobs, the most important first.
pub(super) fn kinds(upkeep: Option<Upkeep>) -> Kinds {
    let collect = upkeep.map_or(OFTEN, |upkeep| upkeep.collect_every);
    Kinds::default()
        .with::<upload::Expire>(Spec::every(OFTEN))
        .with::<gc::Purge>(Spec::every(collect))
        .with::<gc::Collect>(Spec::every(collect))
        .with::<gc::Untagged>(Spec::every(OFTEN))
        .with::<manifest::Sweep>(Spec::every(OFTEN))
        .with::<scrub::Settle>(Spec::every(OFTEN))
        .with::<job::Reclaim>(Spec::every(OFTEN))
        .with::<event::Trim>(Spec::every(DAILY))
        .with::<audit::Cut>(Spec::every(OFTEN))
        .with::<job::Trim>(Spec::every(DAILY))
        .with::<gc::Recheck>(Spec::every(WEEKLY).at(NIGHT).after(OFTEN))
        .with::<usage::Recount>(Spec::every(WEEKLY).at(NIGHT).after(OFTEN))
        .with::<gc::Sweep>(Spec::every(DAILY).after(DAILY).at(NIGHT))
        .with::<scrub::Scrub>(Spec::every(DAILY).after(OFTEN))
        .with::<directory::Recheck>(Spec::every(RECHECK).after(RECHECK))
}

/// Looks after the registry until `stop`. Beside requests, from the first one on: a start takes as long for a store of
/// millions as for an empty one.
pub(super) async fn run(
    registry: Arc<Registry>,
    shared: Option<Arc<SharedClock>>,
    stop: CancellationToken,
) {
    tokio::join!(
        every(SHORT, &stop, || access(&registry)),
        every(SHORT, &stop, || log(&registry)),
        every(FOLD, &stop, || fold(&registry)),
        every(FORGET, &stop, || forget(&registry)),
        every(ACCOUNTS, &stop, || accounts(&registry)),
        every(FOLLOW, &stop, || follow(&registry, shared.as_deref())),
        async {
            // The start did the first.
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(marks(&registry)) => {}
            }
            every(marks(&registry), &stop, || tend(&registry)).await;
        },
        async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = after_crash(&registry) => {}
            }
        },
    );
}

/// Tells the others that this process is there, until `stop`.
pub(super) async fn beats(registry: Arc<Registry>, me: Me, stop: CancellationToken) {
    every(BEAT, &stop, || async {
        if let Err(error) = replica::beat(&registry, &me).await {
            tracing::debug!(%error, "the other replicas could not be told of this one");
        }
    })
    .await;
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
    if registry.access.took_file() {
        let noted = audit::command(registry, "htpasswd.reload", serde_json::json!({}));
        file_origin().scope(noted).await;
    }
    if let Err(error) = mark::watch(registry).await {
        tracing::warn!(%error, "collection could not be paused; trying again");
    }
}

/// Asks providers about the accounts of sessions.
async fn accounts(registry: &Registry) {
    if let Err(error) = oidc::check(registry).await {
        tracing::warn!(%error, "the accounts of sessions could not be looked after; trying again");
    }
}

/// Forgets invitations, grants, credentials, sessions and terminals that have ended.
async fn forget(registry: &Registry) {
    if let Err(error) = identity::forget_ended(registry).await {
        tracing::warn!(%error, "invitations, grants and credentials that have ended could not be forgotten; trying again");
    }
    if let Err(error) = session::forget(registry).await {
        tracing::warn!(%error, "sessions that have ended could not be forgotten; trying again");
    }
    if let Err(error) = terminal::forget(registry).await {
        tracing::warn!(%error, "terminals that have ended could not be forgotten; trying again");
    }
}

/// Brings what happened into the audit log. A task of its own: what is on its way when the server stops gets there.
async fn log(registry: &Arc<Registry>) {
    let registry = registry.clone();
    let logging = tokio::spawn(async move {
        if let Err(error) = registry.audit.flush(&registry, false).await {
            tracing::warn!(%error, "sign-ins and refusals could not be written to the audit log; trying again");
        }
        if let Err(error) = audit::seal(&registry).await {
            tracing::warn!(%error, "the audit log could not be brought up to date; trying again");
        }
    });
    let _ = logging.await;
}

/// Time between two marks: of a database of its own, whose disk may sleep, they only tell of another time than this run's.
fn marks(registry: &Registry) -> Duration {
    match registry.meta.is_shared() {
        true => MARK,
        false => OFTEN,
    }
}

async fn tend(registry: &Registry) {
    if let Err(error) = mark::tend(registry).await {
        tracing::warn!(%error, "whether the metadata is as new as the blobs could not be seen; trying again");
    }
}

/// Looks at the clock that all replicas go by.
async fn follow(registry: &Registry, shared: Option<&SharedClock>) {
    if let Some(clock) = shared
        && let Err(error) = clock.follow(&registry.meta).await
    {
        tracing::debug!(%error, "the database's clock could not be read; going on by what was seen of it");
    }
}

/// Adds up what each write counted by itself.
async fn fold(registry: &Registry) {
    if let Err(error) = usage::fold(registry).await {
        tracing::warn!(%error, "what repositories take up could not be added up; trying again");
    }
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

/// Clears away what a crash can leave behind: upload files without a session.
async fn after_crash(registry: &Registry) {
    // What others are at work on shows no sign of it: there, the daily walk looks at the age, too.
    if registry.blobs.is_shared() {
        return;
    }
    let mut found = Vec::new();
    let listed = registry
        .blobs
        .scan(Part::Uploads, &mut |stored| {
            found.extend(stored.into_iter().filter_map(|stored| match stored {
                Stored::Upload { id, .. } => Some(id),
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
