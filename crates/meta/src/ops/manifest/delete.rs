//! Deleting manifests, and what deletion leaves for later.

use serde_json::json;
use wharf_oci::{Digest, RepositoryName};

use super::state;
use crate::error::Result;
use crate::ops::event::{self, Fact, Kind};
use crate::ops::tag::{Change, Current};
use crate::ops::{candidate, repository, restorable};
use crate::tx::{Counter, Op, Tx};
use crate::vals;
use crate::value::Id;

/// So many tags one [`Delete`] removes: each costs three rows.
const TAGS: u64 = 150;
/// So many references one [`Delete`] marks itself; the rest is for [`SweepEdges`].
const EDGES: u64 = 200;
/// What a manifest costs [`SweepEdges`] beside its references, counted in references.
const MANIFEST: u64 = 3;
/// What a reference costs that is removed and leaves a candidate, counted in references that are marked.
const WITH_CANDIDATE: u64 = 4;

/// What became of [`Delete`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// The manifest is gone, with all its tags.
    Done,
    /// Some of its tags are gone: call again.
    More,
    /// The repository has no such manifest.
    Unknown,
}

/// Deletes a manifest: its tags first, some in each call, then itself and its place among referrers. Its row, bytes and
/// references stay for as long as it is [`restorable`], and a push revives it. Locks the manifest's row. Cost: 640 rows at
/// most.
#[derive(Clone, Debug)]
pub struct Delete {
    /// The repository.
    pub repository: RepositoryName,
    /// The manifest.
    pub digest: Digest,
    /// The principal.
    pub actor: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Delete {
    type Out = Deleted;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Deleted> {
        self.because(tx, "deleted").await
    }
}

impl Delete {
    /// The same, for this reason.
    pub(super) async fn because<T: Tx>(&self, tx: &mut T, cause: &'static str) -> Result<Deleted> {
        let Some(repository) = repository::find(tx, &self.repository).await? else {
            return Ok(Deleted::Unknown);
        };
        let row = tx
            .row(
                "SELECT id, subject, media_type, counted FROM manifest WHERE repository_id = $1 AND digest = $2 AND state = 1 \
                 FOR UPDATE",
                vals![&repository, &self.digest],
            )
            .await?;
        let Some(mut row) = row else {
            return Ok(Deleted::Unknown);
        };
        let (id, subject, media_type) = (row.id(0)?, row.opt_digest(1)?, row.text(2)?);
        let counted = row.int(3)?;

        let tags = tx
            .query(
                "SELECT name, version FROM tag WHERE manifest_id = $1 ORDER BY repository_id, name LIMIT $2 FOR UPDATE",
                vals![&id, TAGS + 1],
            )
            .await?;
        let more = tags.len() as u64 > TAGS;
        let removed = tags.len().min(TAGS as usize);
        let change = Change {
            repository: &repository,
            name: &self.repository,
            actor: &self.actor,
            cause: "its manifest was deleted",
            at: self.at,
        };
        for mut row in tags.into_iter().take(removed) {
            let (name, version) = (row.text(0)?, row.int(1)?);
            let current = Current {
                manifest: id,
                digest: self.digest.clone(),
                version,
            };
            change.remove(tx, &name, &current).await?;
        }
        // Both in one call would hold the writer for too long.
        if more || removed > TAGS as usize / 2 {
            return Ok(Deleted::More);
        }

        let marked = mark(tx, &id, None, EDGES).await?;
        tx.touch(&self.repository, self.digest.as_str());
        tx.exec(
            "UPDATE manifest SET state = $2, swept = $3, changed_at = $4, counted = 0 WHERE id = $1",
            vals![&id, state::DELETED, marked.all, self.at],
        )
        .await?;
        if let Some(subject) = &subject {
            tx.exec(
                "DELETE FROM referrer WHERE repository_id = $1 AND subject = $2 AND digest = $3",
                vals![&repository, subject, &self.digest],
            )
            .await?;
        }
        restorable::add(tx, &id, &repository, &self.digest, &self.actor, self.at).await?;
        tx.count(Counter::Manifests, -1).await?;
        tx.usage(&repository, -counted).await?;
        let fact = Fact {
            kind: Kind::ManifestDelete,
            repository: Some(&self.repository),
            digest: Some(&self.digest),
            tag: None,
            actor: &self.actor,
            at: self.at,
            payload: json!({
                "media_type": media_type,
                "subject": subject.as_ref().map(Digest::as_str),
                "cause": cause,
            }),
        };
        event::record(tx, fact).await?;
        Ok(Deleted::Done)
    }
}

/// What [`mark`] did.
struct Marked {
    count: u64,
    /// The last target.
    last: Option<Digest>,
    /// None is left.
    all: bool,
}

/// Marks references of a deleted manifest, so that looking for what needs a blob does not pass over them; from then on they
/// hold what they name as [`restorable`] ones. Begins behind `after`, since it would otherwise pass over all that are marked already.
async fn mark<T: Tx>(
    tx: &mut T,
    manifest: &Id,
    after: Option<&Digest>,
    limit: u64,
) -> Result<Marked> {
    let after = after.map_or("", Digest::as_str);
    let targets = tx
        .query(
            "SELECT target FROM manifest_reference WHERE manifest_id = $1 AND target > $2 ORDER BY target LIMIT $3",
            vals![manifest, after, limit],
        )
        .await?;
    let count = targets.len() as u64;
    let last = match targets.into_iter().next_back() {
        Some(mut row) => Some(row.digest(0)?),
        None => None,
    };
    if let Some(last) = &last {
        tx.exec(
            "INSERT INTO kept_reference (repository_id, target, manifest_id) \
             SELECT repository_id, target, manifest_id FROM manifest_reference \
             WHERE manifest_id = $1 AND target > $2 AND target <= $3 AND live = 1 \
             ON CONFLICT (repository_id, target, manifest_id) DO NOTHING",
            vals![manifest, after, last],
        )
        .await?;
        tx.exec(
            "UPDATE manifest_reference SET live = 0 WHERE manifest_id = $1 AND target > $2 AND target <= $3 AND live = 1",
            vals![manifest, after, last],
        )
        .await?;
    }
    Ok(Marked {
        count,
        last,
        all: count < limit,
    })
}

/// Does what deletions left undone: marks the references of deleted manifests that had many, and drops pushes that
/// [`super::PutEdges`] began and nobody finished. Locks the manifests' rows. Cost: `limit` rows.
#[derive(Clone, Debug)]
pub struct SweepEdges {
    /// Where the step before ended: its [`Swept::at`]. `None` is never wrong, but passes over what it marked.
    pub after: Option<Unfinished>,
    /// At most so many references, [`super::MAX_EDGES`] or less; a manifest counts as three.
    pub limit: u32,
    /// Pushes begun before this are dropped: now less [`super::PIN_MS`] or more. Milliseconds since 1970.
    pub pending_before: i64,
}

/// What a [`SweepEdges`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// References, and three for each manifest; 0: nothing is left.
    pub done: u32,
    /// What it left unfinished.
    pub at: Option<Unfinished>,
}

/// A deleted manifest of whose references a part is marked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    manifest: Id,
    /// When it was deleted: one that came back and went again begins anew.
    deleted_at: i64,
    /// The last target that is marked.
    target: Digest,
}

impl Op for SweepEdges {
    type Out = Swept;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Swept> {
        let mut at = None;
        let limit = u64::from(self.limit.clamp(1, super::MAX_EDGES as u32));
        let mut done = 0;
        while done < limit {
            let left = limit - done;
            let deleted = tx
                .row(
                    "SELECT id, changed_at FROM manifest WHERE state = 2 AND swept = 0 ORDER BY changed_at LIMIT 1 FOR UPDATE",
                    &[],
                )
                .await?;
            if let Some(mut row) = deleted {
                let (id, deleted_at) = (row.id(0)?, row.int(1)?);
                let after = self
                    .after
                    .as_ref()
                    .filter(|after| after.manifest == id && after.deleted_at == deleted_at)
                    .map(|after| &after.target);
                let marked = mark(tx, &id, after, left).await?;
                if marked.all {
                    tx.exec("UPDATE manifest SET swept = 1 WHERE id = $1", vals![&id])
                        .await?;
                } else {
                    at = marked.last.map(|target| Unfinished {
                        manifest: id,
                        deleted_at,
                        target,
                    });
                }
                done += marked.count + MANIFEST;
                continue;
            }
            let pending = tx
                .row(
                    "SELECT id FROM manifest WHERE state = 0 AND changed_at < $1 ORDER BY changed_at LIMIT 1 FOR UPDATE",
                    vals![self.pending_before],
                )
                .await?;
            let Some(mut row) = pending else { break };
            done += drop_pending(tx, &row.id(0)?, left, self.pending_before).await? + MANIFEST;
        }
        Ok(Swept {
            done: u32::try_from(done).unwrap_or(u32::MAX),
            at,
        })
    }
}

/// Drops a push that was not finished, as much as `limit` references are worth; a manifest that was there once is deleted
/// again. What it held may become a candidate, which costs as much as [`WITH_CANDIDATE`] marked references.
async fn drop_pending<T: Tx>(tx: &mut T, id: &Id, limit: u64, at: i64) -> Result<u64> {
    let was_there = tx
        .row(
            "SELECT 1 FROM manifest_inline WHERE manifest_id = $1",
            vals![id],
        )
        .await?
        .is_some();
    if was_there {
        tx.exec(
            "UPDATE manifest SET state = 2, swept = 0 WHERE id = $1",
            vals![id],
        )
        .await?;
        return Ok(0);
    }
    let limit = limit.div_ceil(WITH_CANDIDATE);
    let targets = tx
        .query(
            "SELECT target, repository_id FROM manifest_reference WHERE manifest_id = $1 ORDER BY target LIMIT $2",
            vals![id, limit],
        )
        .await?;
    let dropped = targets.len() as u64;
    for mut row in targets {
        let (target, repository) = (row.digest(0)?, row.id(1)?);
        tx.exec(
            "DELETE FROM manifest_reference WHERE manifest_id = $1 AND target = $2",
            vals![id, &target],
        )
        .await?;
        candidate::mark(tx, &repository, &target, at).await?;
    }
    if dropped < limit {
        tx.exec("DELETE FROM manifest WHERE id = $1", vals![id])
            .await?;
    }
    Ok(dropped * WITH_CANDIDATE)
}
