//! Candidates: links that nothing is known to need, and what becomes of them.
//!
//! A link is one from birth, and again when its last holding reference goes; the transaction that makes it so calls
//! `note` or `mark`. A push of a manifest does not clear the mark of each thing it refers to: candidates are hints, and
//! [`Collect`] looks again under a lock. What holds a link: a reference of a manifest of its repository that is live, being
//! pushed, or can be restored. A blob goes with its last link, in the same transaction, and its key into the list of
//! garbage; only who finds it there removes bytes.

use serde_json::json;
use wharf_oci::{Digest, RepositoryName};

use super::event::{self, Fact, Kind};
use super::{garbage, repository};
use crate::error::Result;
use crate::tx::{Counter, Op, ReadOp, Tx};
use crate::vals;
use crate::value::Id;

/// So many candidates one [`Collect`] decides: each costs up to twelve rows.
pub const BATCH: u32 = 25;

/// Puts a link whose `candidate_since` was just set to `at` into the queue.
pub(crate) async fn note<T: Tx>(
    tx: &mut T,
    repository: &Id,
    digest: &Digest,
    at: i64,
) -> Result<()> {
    tx.exec(
        "INSERT INTO candidate (since, digest, repository_id) VALUES ($1, $2, $3) \
         ON CONFLICT (since, digest, repository_id) DO NOTHING",
        vals![at, digest, repository],
    )
    .await?;
    Ok(())
}

/// Makes the link of a target a candidate if nothing holds it any more: to be called after a holding reference was removed.
/// Locks the link first, so that of two that remove the last two references at once the second one sees it.
pub(crate) async fn mark<T: Tx>(
    tx: &mut T,
    repository: &Id,
    target: &Digest,
    at: i64,
) -> Result<bool> {
    let link = tx
        .row(
            "SELECT candidate_since FROM repository_blob WHERE repository_id = $1 AND digest = $2 FOR UPDATE",
            vals![repository, target],
        )
        .await?;
    let Some(mut link) = link else {
        return Ok(false);
    };
    if link.opt_int(0)?.is_some() || is_held(tx, repository, target).await? {
        return Ok(false);
    }
    tx.exec(
        "UPDATE repository_blob SET candidate_since = $3 WHERE repository_id = $1 AND digest = $2",
        vals![repository, target, at],
    )
    .await?;
    note(tx, repository, target, at).await?;
    Ok(true)
}

/// Whether a reference of the repository holds its link to a target. The link is locked by the caller.
pub(crate) async fn is_held<T: Tx>(tx: &mut T, repository: &Id, target: &Digest) -> Result<bool> {
    let live = tx
        .row(
            "SELECT 1 FROM manifest_reference WHERE repository_id = $1 AND target = $2 AND live = 1 LIMIT 1",
            vals![repository, target],
        )
        .await?;
    if live.is_some() {
        return Ok(true);
    }
    let kept = tx
        .row(
            "SELECT 1 FROM kept_reference WHERE repository_id = $1 AND target = $2 LIMIT 1",
            vals![repository, target],
        )
        .await?;
    Ok(kept.is_some())
}

/// What a [`Collect`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Candidates looked at; 0: none is due.
    pub looked_at: u32,
    /// Links removed.
    pub links: u32,
    /// Blobs removed with their last link.
    pub blobs: u32,
    /// Their bytes.
    pub bytes: u64,
}

impl std::ops::AddAssign for Collected {
    fn add_assign(&mut self, other: Self) {
        self.looked_at += other.looked_at;
        self.links += other.links;
        self.blobs += other.blobs;
        self.bytes += other.bytes;
    }
}

/// Decides about the oldest candidates: what something needs after all is none any more, the others go. Locks the blob, then
/// the link, and looks only then. Doing it again goes on. Cost: two rows for each candidate, twelve for each that goes;
/// [`BATCH`] at most.
#[derive(Clone, Copy, Debug)]
pub struct Collect {
    /// Candidates since this moment or before are due; milliseconds since 1970.
    pub due: i64,
    /// At most so many, [`BATCH`] or less.
    pub limit: u32,
    /// Milliseconds since 1970.
    pub at: i64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Hint {
    digest: Digest,
    repository: Id,
    since: i64,
}

impl Op for Collect {
    type Out = Collected;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Collected> {
        let rows = tx
            .query(
                "SELECT since, digest, repository_id FROM candidate WHERE since <= $1 \
                 ORDER BY since, digest, repository_id LIMIT $2",
                vals![self.due, self.limit.clamp(1, BATCH)],
            )
            .await?;
        let mut hints = Vec::with_capacity(rows.len());
        for mut row in rows {
            hints.push(Hint {
                digest: row.digest(1)?,
                repository: row.id(2)?,
                since: row.int(0)?,
            });
        }
        // The order in which everybody locks them.
        hints.sort_unstable();
        let mut collected = Collected::default();
        for hint in &hints {
            collected += self.one(tx, hint).await?;
        }
        Ok(collected)
    }
}

impl Collect {
    async fn one<T: Tx>(&self, tx: &mut T, hint: &Hint) -> Result<Collected> {
        let mut collected = Collected {
            looked_at: 1,
            ..Collected::default()
        };
        // In the order in which a publish locks them, so that the two cannot wait for each other.
        let blob = tx
            .row(
                "SELECT id, size, key FROM blob WHERE digest = $1 AND state = 1 FOR UPDATE",
                vals![&hint.digest],
            )
            .await?;
        let link = tx
            .row(
                "SELECT candidate_since, hidden, counted FROM repository_blob WHERE repository_id = $1 AND digest = $2 FOR UPDATE",
                vals![&hint.repository, &hint.digest],
            )
            .await?;
        tx.exec(
            "DELETE FROM candidate WHERE since = $1 AND digest = $2 AND repository_id = $3",
            vals![hint.since, &hint.digest, &hint.repository],
        )
        .await?;
        let Some(mut link) = link else {
            return Ok(collected);
        };
        let (since, hidden, counted) = (link.opt_int(0)?, link.flag(1)?, link.int(2)?);
        if since != Some(hint.since) {
            return Ok(collected);
        }
        if is_held(tx, &hint.repository, &hint.digest).await? {
            tx.exec(
                "UPDATE repository_blob SET candidate_since = NULL WHERE repository_id = $1 AND digest = $2",
                vals![&hint.repository, &hint.digest],
            )
            .await?;
            return Ok(collected);
        }
        tx.exec(
            "DELETE FROM repository_blob WHERE repository_id = $1 AND digest = $2",
            vals![&hint.repository, &hint.digest],
        )
        .await?;
        tx.usage(&hint.repository, -counted).await?;
        collected.links = 1;
        let mut size = None;
        if let Some(mut blob) = blob {
            let linked = tx
                .row(
                    "SELECT 1 FROM repository_blob WHERE digest = $1 LIMIT 1",
                    vals![&hint.digest],
                )
                .await?;
            if linked.is_none() {
                let (id, bytes, key) = (blob.id(0)?, blob.size(1)?, blob.opt_text(2)?);
                remove_blob(tx, &id, bytes, key.as_deref(), self.at).await?;
                (collected.blobs, collected.bytes, size) = (1, bytes, Some(bytes));
            }
        }
        self.record(tx, hint, hidden, size).await?;
        Ok(collected)
    }

    async fn record<T: Tx>(
        &self,
        tx: &mut T,
        hint: &Hint,
        hidden: bool,
        size: Option<u64>,
    ) -> Result<()> {
        let repository = repository::name(tx, &hint.repository).await?;
        let cause = if hidden { "deleted" } else { "unreferenced" };
        let fact = Fact {
            kind: Kind::BlobCollect,
            repository: repository.as_ref(),
            digest: Some(&hint.digest),
            tag: None,
            actor: "gc",
            at: self.at,
            payload: json!({ "cause": cause, "since": hint.since, "freed": size }),
        };
        event::record(tx, fact).await
    }
}

/// Takes a live blob that no repository links out of the store; its key becomes garbage. The caller has locked its row.
pub(crate) async fn remove_blob<T: Tx>(
    tx: &mut T,
    id: &Id,
    size: u64,
    key: Option<&str>,
    at: i64,
) -> Result<()> {
    tx.exec("DELETE FROM blob WHERE id = $1", vals![id]).await?;
    match key {
        Some(key) => {
            garbage::add(tx, key, at).await?;
        }
        None => {
            tx.exec("DELETE FROM blob_inline WHERE blob_id = $1", vals![id])
                .await?;
        }
    }
    tx.count(Counter::Blobs, -1).await?;
    tx.count(Counter::BlobBytes, -i64::try_from(size).unwrap_or(i64::MAX))
        .await
}

/// A candidate as the plan shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Since when.
    pub since: i64,
    /// The blob.
    pub digest: Digest,
    /// The repository that links it.
    pub repository: RepositoryName,
    /// Its row.
    pub repository_id: Id,
    /// Its size; `None`: no live blob has this digest.
    pub size: Option<u64>,
    /// A client took it out.
    pub hidden: bool,
    /// Something needs it after all, or the candidate is out of date: nothing will happen.
    pub held: bool,
}

/// Candidates by age, for the plan. Cost: four rows for each.
#[derive(Clone, Debug)]
pub struct List {
    /// The last one of the page before.
    pub after: Option<(i64, Digest, Id)>,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for List {}
impl Op for List {
    type Out = Vec<Listed>;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let first = Id::from_bytes([0; 16]);
        let (since, digest, id) = match &self.after {
            Some((since, digest, id)) => (*since, digest.as_str(), id),
            None => (i64::MIN, "", &first),
        };
        let rows = tx
            .query(
                "SELECT c.since, c.digest, c.repository_id, r.name, b.size, l.candidate_since, l.hidden FROM candidate c \
                 JOIN repository r ON r.id = c.repository_id \
                 LEFT JOIN repository_blob l ON l.digest = c.digest AND l.repository_id = c.repository_id \
                 LEFT JOIN blob b ON b.digest = c.digest AND b.state = 1 \
                 WHERE (c.since, c.digest, c.repository_id) > ($1, $2, $3) \
                 ORDER BY c.since, c.digest, c.repository_id LIMIT $4",
                vals![since, digest, id, self.limit],
            )
            .await?;
        let mut listed = Vec::with_capacity(rows.len());
        for mut row in rows {
            let (since, digest, repository) = (row.int(0)?, row.digest(1)?, row.id(2)?);
            let stale = row.opt_int(5)? != Some(since);
            listed.push(Listed {
                since,
                repository: row.repository(3)?,
                repository_id: repository,
                size: row.opt_int(4)?.and_then(|size| u64::try_from(size).ok()),
                hidden: row.opt_int(6)? == Some(1),
                held: stale || is_held(tx, &repository, &digest).await?,
                digest,
            });
        }
        Ok(listed)
    }
}
