//! Bringing a deleted manifest back.

use serde_json::json;
use wharf_oci::{Digest, RepositoryName};

use super::state;
use crate::error::Result;
use crate::ops::event::{self, Fact, Kind};
use crate::ops::repository;
use crate::tx::{Counter, Op, ReadOp, Tx};
use crate::vals;
use crate::value::Id;

/// So many references one [`Restore`] brings back: each costs three rows.
const EDGES: u64 = 150;

/// A deleted manifest that can be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// The bare media type it was pushed with.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// When it was deleted: its tags went at the same moment.
    pub deleted_at: i64,
}

/// The bytes of a manifest that can be restored. Cost: four rows.
#[derive(Clone, Debug)]
pub struct GetDeleted {
    /// The repository.
    pub repository: RepositoryName,
    /// The manifest.
    pub digest: Digest,
}

impl ReadOp for GetDeleted {}
impl Op for GetDeleted {
    type Out = Option<Deleted>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let row = tx
            .row(
                "SELECT m.media_type, i.bytes, d.deleted_at FROM repository r \
                 JOIN manifest m ON m.repository_id = r.id AND m.digest = $2 AND m.state = 2 \
                 JOIN restorable d ON d.manifest_id = m.id AND d.purging = 0 \
                 JOIN manifest_inline i ON i.manifest_id = m.id WHERE r.name = $1",
                vals![&self.repository, &self.digest],
            )
            .await?;
        row.map(|mut row| {
            Ok(Deleted {
                media_type: row.text(0)?,
                bytes: row.bytes(1)?,
                deleted_at: row.int(2)?,
            })
        })
        .transpose()
    }
}

/// Deleted manifests that name another one as their subject and went at some moment or later. Cost: two rows for each manifest of
/// the repository that was deleted since and can be restored, [`ABOUT`] at most.
#[derive(Clone, Debug)]
pub struct DeletedAbout {
    /// The repository.
    pub repository: RepositoryName,
    /// The subject.
    pub subject: Digest,
    /// Milliseconds since 1970.
    pub since: i64,
}

/// So many one [`DeletedAbout`] finds.
pub const ABOUT: u32 = 1_000;

impl ReadOp for DeletedAbout {}
impl Op for DeletedAbout {
    type Out = Vec<Digest>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT m.digest FROM repository r JOIN restorable d ON d.repository_id = r.id AND d.deleted_at >= $3 \
                 JOIN manifest m ON m.id = d.manifest_id AND m.state = 2 AND m.subject = $2 WHERE r.name = $1 LIMIT $4",
                vals![&self.repository, &self.subject, self.since, ABOUT],
            )
            .await?;
        rows.into_iter().map(|mut row| row.digest(0)).collect()
    }
}

/// What became of [`Restore`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restored {
    /// It is there again.
    Done,
    /// Some of its references are: call again with this as `after`.
    More(Digest),
    /// The repository has no deleted manifest with this digest, or its time is over.
    Unknown,
}

/// Brings a deleted manifest back with its references, and shows again what clients took out of the repository meanwhile;
/// some references in each call. Its tags are for [`crate::tag::Restore`]. Locks the manifest's row, and the link of each
/// reference. Cost: three rows for each of 150 references, eight more.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The repository.
    pub repository: RepositoryName,
    /// The manifest.
    pub digest: Digest,
    /// Where the call before ended.
    pub after: Option<Digest>,
    /// Its descriptor in the list of referrers; needed when it has a subject.
    pub referrer_json: Option<String>,
    /// The principal.
    pub actor: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Restore {
    type Out = Restored;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Restored> {
        let Some(repository) = repository::find(tx, &self.repository).await? else {
            return Ok(Restored::Unknown);
        };
        let row = tx
            .row(
                "SELECT id, subject, artifact_type, size, counted FROM manifest WHERE repository_id = $1 AND digest = $2 AND state = 2 \
                 FOR UPDATE",
                vals![&repository, &self.digest],
            )
            .await?;
        let Some(mut row) = row else {
            return Ok(Restored::Unknown);
        };
        let (id, subject, artifact_type) = (row.id(0)?, row.opt_digest(1)?, row.opt_text(2)?);
        let (size, counted) = (row.int(3)?, row.int(4)?);
        let restorable = tx
            .row(
                "SELECT purging FROM restorable WHERE manifest_id = $1 FOR UPDATE",
                vals![&id],
            )
            .await?;
        let purging = restorable.map_or(Ok(true), |mut row| row.flag(0))?;
        if purging {
            return Ok(Restored::Unknown);
        }
        tx.touch(&self.repository, self.digest.as_str());
        if self.after.is_none() {
            // What marks references of deleted manifests would undo this.
            tx.exec("UPDATE manifest SET swept = 1 WHERE id = $1", vals![&id])
                .await?;
        }
        if let Some(last) = self.edges(tx, &repository, &id).await? {
            return Ok(Restored::More(last));
        }
        tx.exec(
            "UPDATE manifest SET state = $2, swept = 0, changed_at = $3, counted = size WHERE id = $1",
            vals![&id, state::LIVE, self.at],
        )
        .await?;
        tx.exec("DELETE FROM restorable WHERE manifest_id = $1", vals![&id])
            .await?;
        if let (Some(subject), Some(descriptor)) = (&subject, &self.referrer_json) {
            tx.exec(
                "INSERT INTO referrer (repository_id, subject, digest, artifact_type, descriptor) \
                 VALUES ($1, $2, $3, $4, $5) ON CONFLICT (repository_id, subject, digest) DO NOTHING",
                vals![
                    &repository,
                    subject,
                    &self.digest,
                    artifact_type.as_deref().unwrap_or(""),
                    descriptor
                ],
            )
            .await?;
        }
        tx.count(Counter::Manifests, 1).await?;
        tx.usage(&repository, size - counted).await?;
        let fact = Fact {
            kind: Kind::ManifestRestore,
            repository: Some(&self.repository),
            digest: Some(&self.digest),
            tag: None,
            actor: &self.actor,
            at: self.at,
            payload: json!({ "subject": subject.as_ref().map(Digest::as_str) }),
        };
        event::record(tx, fact).await?;
        Ok(Restored::Done)
    }
}

impl Restore {
    /// Brings some references back; gives the last one when more may follow.
    async fn edges<T: Tx>(
        &self,
        tx: &mut T,
        repository: &Id,
        manifest: &Id,
    ) -> Result<Option<Digest>> {
        let after = self.after.as_ref().map_or("", Digest::as_str);
        let targets = tx
            .query(
                "SELECT target FROM manifest_reference WHERE manifest_id = $1 AND target > $2 ORDER BY target LIMIT $3",
                vals![manifest, after, EDGES],
            )
            .await?;
        let full = targets.len() as u64 == EDGES;
        let mut last = None;
        for mut row in targets {
            let target = row.digest(0)?;
            // First of all: who takes the blob out of the repository locks it, and then looks for references.
            let link = tx
                .row(
                    "SELECT hidden FROM repository_blob WHERE repository_id = $1 AND digest = $2 FOR UPDATE",
                    vals![repository, &target],
                )
                .await?;
            tx.exec(
                "UPDATE manifest_reference SET live = 1 WHERE manifest_id = $1 AND target = $2",
                vals![manifest, &target],
            )
            .await?;
            if link.map_or(Ok(false), |mut link| link.flag(0))? {
                let shown = tx
                    .row(
                        "UPDATE repository_blob SET hidden = 0, \
                         counted = COALESCE((SELECT b.size FROM blob b WHERE b.digest = $2 AND b.state = 1), 0) \
                         WHERE repository_id = $1 AND digest = $2 RETURNING counted",
                        vals![repository, &target],
                    )
                    .await?;
                if let Some(mut shown) = shown {
                    tx.usage(repository, shown.int(0)?).await?;
                }
            }
            last = Some(target);
        }
        Ok(last.filter(|_| full))
    }
}
