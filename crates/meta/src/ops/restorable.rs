//! Deleted manifests that can be restored, and their end.
//!
//! A deletion leaves the manifest's row and bytes, and turns its references into kept ones, which hold what they name as
//! before. When its time is over, [`Purge`] removes all of it in steps; what loses its last reference by that becomes a
//! candidate. How long the time is, is decided above: `look_at` says when to ask.

use serde_json::json;
use wharf_oci::{Digest, RepositoryName};

use super::event::{self, Fact, Kind};
use super::manifest::{PIN_MS, state};
use super::{candidate, repository};
use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;
use crate::value::{Id, Row};

/// So many references one [`Purge`] removes: each costs up to seven rows.
const EDGES: u64 = 40;

/// Makes a manifest that was just deleted restorable.
pub(crate) async fn add<T: Tx>(
    tx: &mut T,
    manifest: &Id,
    repository: &Id,
    digest: &Digest,
    actor: &str,
    at: i64,
) -> Result<()> {
    tx.exec(
        "INSERT INTO restorable (manifest_id, repository_id, digest, deleted_at, actor, look_at, purging) \
         VALUES ($1, $2, $3, $4, $5, $4, 0) ON CONFLICT (manifest_id) DO UPDATE SET deleted_at = excluded.deleted_at, \
         actor = excluded.actor, look_at = excluded.look_at, purging = 0",
        vals![manifest, repository, digest, at, actor],
    )
    .await?;
    Ok(())
}

/// A manifest came back by a push.
pub(crate) async fn forget<T: Tx>(tx: &mut T, manifest: &Id) -> Result<()> {
    tx.exec(
        "DELETE FROM restorable WHERE manifest_id = $1",
        vals![manifest],
    )
    .await?;
    Ok(())
}

/// A deleted manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restorable {
    /// Its row.
    pub manifest: Id,
    /// Its repository.
    pub repository: RepositoryName,
    /// Its digest.
    pub digest: Digest,
    /// When it was deleted, in milliseconds since 1970.
    pub deleted_at: i64,
    /// Who deleted it.
    pub actor: String,
    /// When its end is decided.
    pub look_at: i64,
    /// Its end has begun.
    pub purging: bool,
}

fn restorable(mut row: Row) -> Result<Restorable> {
    Ok(Restorable {
        manifest: row.id(0)?,
        repository: row.repository(1)?,
        digest: row.digest(2)?,
        deleted_at: row.int(3)?,
        actor: row.text(4)?,
        look_at: row.int(5)?,
        purging: row.flag(6)?,
    })
}

/// Those whose end is to be decided, the earliest first. Cost: the rows given.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    /// Milliseconds since 1970; `i64::MAX` for all.
    pub look_before: i64,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Due {}
impl Op for Due {
    type Out = Vec<Restorable>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT d.manifest_id, r.name, d.digest, d.deleted_at, d.actor, d.look_at, d.purging FROM restorable d \
                 JOIN repository r ON r.id = d.repository_id WHERE d.look_at <= $1 ORDER BY d.look_at LIMIT $2",
                vals![self.look_before, self.limit],
            )
            .await?;
        rows.into_iter().map(restorable).collect()
    }
}

/// All of them in the order of their ends, for the plan. Cost: the rows given.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// The last one of the page before: when its end is decided, and its row.
    pub after: Option<(i64, Id)>,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Page {}
impl Op for Page {
    type Out = Vec<Restorable>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let (look_at, manifest) = self.after.unwrap_or((i64::MIN, Id::from_bytes([0; 16])));
        let rows = tx
            .query(
                "SELECT d.manifest_id, r.name, d.digest, d.deleted_at, d.actor, d.look_at, d.purging FROM restorable d \
                 JOIN repository r ON r.id = d.repository_id WHERE (d.look_at, d.manifest_id) > ($1, $2) \
                 ORDER BY d.look_at, d.manifest_id LIMIT $3",
                vals![look_at, &manifest, self.limit],
            )
            .await?;
        rows.into_iter().map(restorable).collect()
    }
}

/// Those of a repository, the latest first. Cost: the rows given.
#[derive(Clone, Debug)]
pub struct List {
    /// The repository.
    pub repository: RepositoryName,
    /// The last one of the page before: when it was deleted, and its digest.
    pub before: Option<(i64, String)>,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for List {}
impl Op for List {
    type Out = Vec<Restorable>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let first = (i64::MAX, String::new());
        let (at, digest) = self.before.as_ref().unwrap_or(&first);
        let rows = tx
            .query(
                "SELECT d.manifest_id, r.name, d.digest, d.deleted_at, d.actor, d.look_at, d.purging FROM repository r \
                 JOIN restorable d ON d.repository_id = r.id WHERE r.name = $1 AND (d.deleted_at, d.digest) < ($2, $3) \
                 ORDER BY d.deleted_at DESC, d.digest DESC LIMIT $4",
                vals![&self.repository, *at, digest, self.limit],
            )
            .await?;
        rows.into_iter().map(restorable).collect()
    }
}

/// Decides about the end of a deleted manifest at another time. Cost: one row.
#[derive(Clone, Copy, Debug)]
pub struct Postpone {
    /// The manifest.
    pub manifest: Id,
    /// When to ask again, in milliseconds since 1970.
    pub look_at: i64,
}

impl Op for Postpone {
    type Out = ();
    const SINGLE: bool = true;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        tx.exec(
            "UPDATE restorable SET look_at = $2 WHERE manifest_id = $1",
            vals![&self.manifest, self.look_at],
        )
        .await?;
        Ok(())
    }
}

/// What became of [`Purge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purged {
    /// It is gone for good.
    Done,
    /// Some of its references are: call again.
    More,
    /// It was restored or pushed again, or is being pushed: nothing was done.
    Kept,
}

/// Ends a deleted manifest: its references, some in each call, then its bytes and row. Locks the manifest's row, then the links
/// of what it refers to, in the order of their digests. Cost: seven rows for each of 40 references, eight more.
#[derive(Clone, Debug)]
pub struct Purge {
    /// The manifest.
    pub manifest: Id,
    /// Only if it was deleted at this moment: one that came back and went again has a new time.
    pub deleted_at: i64,
    /// Why, for the event.
    pub cause: &'static str,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Purge {
    type Out = Purged;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Purged> {
        let manifest = tx
            .row(
                "SELECT state, repository_id, digest, swept, counted FROM manifest WHERE id = $1 FOR UPDATE",
                vals![&self.manifest],
            )
            .await?;
        let restorable = tx
            .row(
                "SELECT deleted_at, purging FROM restorable WHERE manifest_id = $1 FOR UPDATE",
                vals![&self.manifest],
            )
            .await?;
        let Some(mut restorable) = restorable else {
            return Ok(Purged::Kept);
        };
        let (deleted_at, purging) = (restorable.int(0)?, restorable.flag(1)?);
        let Some(mut manifest) = manifest else {
            forget(tx, &self.manifest).await?;
            return Ok(Purged::Kept);
        };
        let found = manifest.int(0)?;
        if found == state::LIVE {
            forget(tx, &self.manifest).await?;
            return Ok(Purged::Kept);
        }
        if found != state::DELETED {
            // It is being pushed again; that may break off.
            tx.exec(
                "UPDATE restorable SET look_at = $2 WHERE manifest_id = $1",
                vals![&self.manifest, self.at + PIN_MS],
            )
            .await?;
            return Ok(Purged::Kept);
        }
        if deleted_at != self.deleted_at {
            return Ok(Purged::Kept);
        }
        let (repository, digest) = (manifest.id(1)?, manifest.digest(2)?);
        let Some(name) = repository::name(tx, &repository).await? else {
            return Ok(Purged::Kept);
        };
        tx.touch(&name, digest.as_str());
        if !purging {
            tx.exec(
                "UPDATE restorable SET purging = 1 WHERE manifest_id = $1",
                vals![&self.manifest],
            )
            .await?;
        }
        if !manifest.flag(3)? {
            // What marks references of deleted manifests would make kept ones of those that are left.
            tx.exec(
                "UPDATE manifest SET swept = 1 WHERE id = $1",
                vals![&self.manifest],
            )
            .await?;
        }
        if !self.edges(tx, &repository).await? {
            return Ok(Purged::More);
        }
        tx.exec(
            "DELETE FROM manifest_inline WHERE manifest_id = $1",
            vals![&self.manifest],
        )
        .await?;
        tx.exec("DELETE FROM manifest WHERE id = $1", vals![&self.manifest])
            .await?;
        // Not nought only if an older version deleted it.
        tx.usage(&repository, -manifest.int(4)?).await?;
        forget(tx, &self.manifest).await?;
        let fact = Fact {
            kind: Kind::ManifestPurge,
            repository: Some(&name),
            digest: Some(&digest),
            tag: None,
            actor: "gc",
            at: self.at,
            payload: json!({ "cause": self.cause, "deleted_at": deleted_at }),
        };
        event::record(tx, fact).await?;
        Ok(Purged::Done)
    }
}

impl Purge {
    /// Removes some references; `true`: none is left.
    async fn edges<T: Tx>(&self, tx: &mut T, repository: &Id) -> Result<bool> {
        let targets = tx
            .query(
                "SELECT target FROM manifest_reference WHERE manifest_id = $1 ORDER BY target LIMIT $2",
                vals![&self.manifest, EDGES],
            )
            .await?;
        let all = (targets.len() as u64) < EDGES;
        for mut row in targets {
            let target = row.digest(0)?;
            tx.exec(
                "DELETE FROM kept_reference WHERE repository_id = $1 AND target = $2 AND manifest_id = $3",
                vals![repository, &target, &self.manifest],
            )
            .await?;
            tx.exec(
                "DELETE FROM manifest_reference WHERE manifest_id = $1 AND target = $2",
                vals![&self.manifest, &target],
            )
            .await?;
            candidate::mark(tx, repository, &target, self.at).await?;
        }
        Ok(all)
    }
}
