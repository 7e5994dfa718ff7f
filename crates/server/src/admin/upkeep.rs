//! Commands about jobs, collection and undelete.

use serde::{Deserialize, Serialize};
use wharf_core::restore::{self, RestoreError};
use wharf_core::{Registry, gc, usage};
use wharf_meta::quarantine;
use wharf_meta::usage::{Counted, Largest, Sizes};
use wharf_oci::{Digest, RepositoryName, Tag};

use super::Refusal;

/// Rows on a page of a listing here.
const PAGE: u32 = 500;
/// So many rows a listing has at most.
const LISTED: usize = 10_000;
/// Who acts, in histories and events.
const ACTOR: &str = "operator";

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Upkeep {
    /// What would go.
    GcPlan,
    /// Collects at once.
    GcRun {
        /// All that nothing needs, whatever its grace and window.
        all: bool,
    },
    /// Stops all removal.
    GcPause {
        /// Why.
        reason: String,
    },
    /// Lets removal go on.
    GcResume,
    /// Repositories with what they take up.
    RepoList {
        /// Below this prefix only.
        within: Option<String>,
    },
    /// First parts of repositories' names with what they take up, the largest first.
    PrefixList,
    /// What happened in a repository, or to one of its tags.
    History {
        /// Which.
        repository: String,
        /// Only this tag.
        tag: Option<String>,
        /// At most so many.
        limit: u32,
    },
    /// Puts a tag back.
    TagRestore {
        /// Where.
        repository: String,
        /// Which.
        tag: String,
        /// To where it stood from this version on.
        version: Option<i64>,
    },
    /// Brings a deleted manifest back.
    ManifestRestore {
        /// Where.
        repository: String,
        /// Which.
        digest: String,
    },
    /// Blobs in quarantine.
    Damaged,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpkeepReply {
    /// It is done.
    Done,
    /// To [`Upkeep::GcPlan`].
    Plan(PlanView),
    /// To [`Upkeep::GcRun`].
    Freed(Freed),
    /// To [`Upkeep::RepoList`] and [`Upkeep::PrefixList`].
    Sizes(Vec<SizeView>),
    /// To [`Upkeep::History`].
    History(HistoryView),
    /// To the commands that restore: the manifest, and whether it was deleted; the tags that stand at it again.
    Restored {
        /// The manifest.
        digest: String,
        /// It was deleted.
        manifest: bool,
        /// Tags that stand at it again.
        tags: Vec<String>,
        /// Other manifests that came back, since they went with it or after it.
        others: u64,
    },
    /// To [`Upkeep::Damaged`].
    Damaged(Vec<Damaged>),
}

/// Something that will go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedView {
    /// Where.
    pub repository: String,
    /// What.
    pub digest: String,
    /// Bytes of a blob.
    pub size: Option<u64>,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// Why.
    pub why: String,
}

/// What would go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanView {
    /// Why nothing goes at present.
    pub paused: Option<String>,
    /// When this was found out.
    pub now: i64,
    /// The first blobs.
    pub blobs: Vec<PlannedView>,
    /// All of them.
    pub blob_count: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// The first deleted manifests.
    pub manifests: Vec<PlannedView>,
    /// All of them.
    pub manifest_count: u64,
    /// Keys whose bytes wait for removal.
    pub keys: u64,
}

/// What was freed: [`gc::Freed`] on its way through the socket.
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
}

/// What a repository or prefix takes up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizeView {
    /// Its name.
    pub name: String,
    /// Bytes of all it holds.
    pub logical: u64,
    /// Bytes of what nobody else holds, when it was counted.
    pub own: u64,
    /// Its blobs, when they were counted.
    pub blobs: u64,
    /// When these two were counted; `None`: not yet.
    pub at: Option<i64>,
}

/// A move of a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveView {
    /// The tag.
    pub tag: String,
    /// The version that it had from then on.
    pub version: i64,
    /// Where it stood before.
    pub from: Option<String>,
    /// Where it stood after.
    pub to: Option<String>,
    /// Who moved it.
    pub actor: String,
    /// When.
    pub at: i64,
}

/// A deleted manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// Which.
    pub digest: String,
    /// When it was deleted.
    pub at: i64,
    /// Who deleted it.
    pub actor: String,
    /// Until when it can be restored.
    pub until: i64,
}

/// What happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryView {
    /// Moves of tags, the latest first.
    pub moves: Vec<MoveView>,
    /// Deleted manifests, the latest first.
    pub deleted: Vec<Deleted>,
}

/// A blob in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damaged {
    /// Which.
    pub digest: String,
    /// The size that it should have.
    pub size: u64,
    /// Since when it is known.
    pub since: i64,
    /// What is wrong.
    pub cause: String,
}

/// Does it.
pub(super) async fn execute(registry: &Registry, command: Upkeep) -> Result<UpkeepReply, Refusal> {
    let meta = &registry.meta;
    match command {
        Upkeep::GcPlan => plan(registry).await,
        Upkeep::GcRun { all } => {
            if let Some(reason) = gc::paused(registry).await.map_err(Refusal::failed)? {
                return Err(Refusal::Wrong(format!(
                    "nothing is removed at present: {reason}. `wharf gc resume` lets it go on"
                )));
            }
            let freed = gc::free_now(registry, all).await.map_err(Refusal::failed)?;
            tracing::info!(?freed, all, "collected at an operator's word");
            Ok(UpkeepReply::Freed(Freed {
                manifests: freed.manifests,
                links: freed.links,
                blobs: freed.blobs,
                bytes: freed.bytes,
            }))
        }
        Upkeep::GcPause { reason } => {
            gc::pause(meta, &reason).await.map_err(Refusal::failed)?;
            Ok(UpkeepReply::Done)
        }
        Upkeep::GcResume => {
            gc::resume(registry).await.map_err(Refusal::failed)?;
            Ok(UpkeepReply::Done)
        }
        Upkeep::RepoList { within } => sizes(registry, within.as_deref()).await,
        Upkeep::PrefixList => {
            fold(registry).await;
            let limit = LISTED as u32;
            let found = registry.meta.scan(Largest { limit }).await;
            let found = found.map_err(Refusal::failed)?.into_iter();
            let named = found.filter(|row| !row.name.is_empty());
            Ok(UpkeepReply::Sizes(named.map(SizeView::from).collect()))
        }
        Upkeep::History {
            repository,
            tag,
            limit,
        } => history(registry, &repository, tag.as_deref(), limit).await,
        Upkeep::TagRestore {
            repository,
            tag,
            version,
        } => {
            let (repository, tag) = (parse_repository(&repository)?, parse_tag(&tag)?);
            restored(restore::tag(registry, &repository, &tag, version, ACTOR).await)
        }
        Upkeep::ManifestRestore { repository, digest } => {
            let repository = parse_repository(&repository)?;
            let digest = Digest::parse(&digest)
                .map_err(|error| Refusal::Wrong(format!("{digest}: {error}")))?;
            restored(restore::manifest(registry, &repository, &digest, ACTOR).await)
        }
        Upkeep::Damaged => damaged(registry).await,
    }
}

fn restored(outcome: Result<restore::Restored, RestoreError>) -> Result<UpkeepReply, Refusal> {
    let restored = outcome.map_err(|error| match error {
        RestoreError::Core(_) | RestoreError::Meta(_) => Refusal::failed(error),
        other => Refusal::Wrong(other.to_string()),
    })?;
    Ok(UpkeepReply::Restored {
        digest: restored.digest.to_string(),
        manifest: restored.manifest,
        tags: restored.tags,
        others: restored.others,
    })
}

fn parse_repository(name: &str) -> Result<RepositoryName, Refusal> {
    RepositoryName::parse(name).map_err(|error| Refusal::Wrong(format!("{name}: {error}")))
}

fn parse_tag(tag: &str) -> Result<Tag, Refusal> {
    Tag::parse(tag).map_err(|error| Refusal::Wrong(format!("{tag}: {error}")))
}

async fn plan(registry: &Registry) -> Result<UpkeepReply, Refusal> {
    let plan = gc::plan(registry).await.map_err(Refusal::failed)?;
    let view = |planned: gc::Planned| PlannedView {
        repository: planned.repository.to_string(),
        digest: planned.digest.to_string(),
        size: planned.size,
        at: planned.at,
        why: planned.why.to_owned(),
    };
    Ok(UpkeepReply::Plan(PlanView {
        paused: plan.paused,
        now: registry.clock.now_ms(),
        blobs: plan.blobs.into_iter().map(view).collect(),
        blob_count: plan.blob_count,
        blob_bytes: plan.blob_bytes,
        manifests: plan.manifests.into_iter().map(view).collect(),
        manifest_count: plan.manifest_count,
        keys: plan.keys,
    }))
}

impl From<Counted> for SizeView {
    fn from(row: Counted) -> Self {
        Self {
            name: row.name,
            logical: row.usage.logical,
            own: row.usage.own,
            blobs: row.usage.blobs,
            at: row.at,
        }
    }
}

/// What was pushed a moment ago shall show; that it does not is no reason to show nothing.
async fn fold(registry: &Registry) {
    if let Err(error) = usage::fold(registry).await {
        tracing::warn!(%error, "sizes lack what was pushed last");
    }
}

async fn sizes(registry: &Registry, within: Option<&str>) -> Result<UpkeepReply, Refusal> {
    fold(registry).await;
    let mut sizes = Vec::new();
    let mut after = None;
    while sizes.len() < LISTED {
        let page = Sizes { after, limit: PAGE };
        let page = registry.meta.scan(page).await.map_err(Refusal::failed)?;
        let Some(last) = page.last() else { break };
        after = Some(last.name.clone());
        let wanted = page
            .into_iter()
            .filter(|row| within.is_none_or(|prefix| is_within(&row.name, prefix)));
        sizes.extend(wanted.map(SizeView::from));
    }
    Ok(UpkeepReply::Sizes(sizes))
}

fn is_within(name: &str, prefix: &str) -> bool {
    RepositoryName::parse(name).is_ok_and(|name| name.is_within(prefix))
}

async fn history(
    registry: &Registry,
    repository: &str,
    tag: Option<&str>,
    limit: u32,
) -> Result<UpkeepReply, Refusal> {
    let repository = parse_repository(repository)?;
    let tag = tag.map(parse_tag).transpose()?;
    let limit = limit.min(LISTED as u32);
    let history = restore::history(registry, &repository, tag.as_ref(), limit)
        .await
        .map_err(Refusal::failed)?;
    let moves = history.moves.into_iter().map(|one| MoveView {
        tag: one.tag,
        version: one.version,
        from: one.from.map(|digest| digest.to_string()),
        to: one.to.map(|digest| digest.to_string()),
        actor: one.actor,
        at: one.at,
    });
    let deleted = history.deleted.into_iter().map(|(row, until)| Deleted {
        digest: row.digest.to_string(),
        at: row.deleted_at,
        actor: row.actor,
        until,
    });
    Ok(UpkeepReply::History(HistoryView {
        moves: moves.collect(),
        deleted: deleted.collect(),
    }))
}

async fn damaged(registry: &Registry) -> Result<UpkeepReply, Refusal> {
    let mut damaged = Vec::new();
    let mut after = None;
    while damaged.len() < LISTED {
        let page = quarantine::List { after, limit: PAGE };
        let page = registry.meta.scan(page).await.map_err(Refusal::failed)?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        damaged.extend(page.into_iter().map(|row| Damaged {
            digest: row.digest.to_string(),
            size: row.size,
            since: row.since,
            cause: row.cause,
        }));
    }
    Ok(UpkeepReply::Damaged(damaged))
}
