//! Deleting manifests that no tag, index or subject keeps.

use wharf_oci::{Digest, RepositoryName};

use super::{Delete, Deleted};
use crate::error::Result;
use crate::ops::repository;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;

/// So many dependents are given at most.
const DEPENDENTS: u64 = 1_000;

/// Deletes a manifest as [`Delete`] does, unless a tag stands at it, a live manifest refers to it, or its subject is there (REF-11): then it
/// is [`Deleted::Unknown`], as if it were not there. Locks the manifest's row, which whoever tags it or refers to it locks too. Cost: four
/// rows more.
#[derive(Clone, Debug)]
pub struct DeleteUntagged(pub Delete);

impl Op for DeleteUntagged {
    type Out = Deleted;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Deleted> {
        let Delete {
            repository, digest, ..
        } = &self.0;
        let Some(repository) = repository::find(tx, repository).await? else {
            return Ok(Deleted::Unknown);
        };
        let row = tx
            .row(
                "SELECT id, subject FROM manifest WHERE repository_id = $1 AND digest = $2 AND state = 1 FOR UPDATE",
                vals![&repository, digest],
            )
            .await?;
        let Some(mut row) = row else {
            return Ok(Deleted::Unknown);
        };
        let (id, subject) = (row.id(0)?, row.opt_digest(1)?);
        let tagged = tx
            .row(
                "SELECT 1 FROM tag WHERE manifest_id = $1 LIMIT 1",
                vals![&id],
            )
            .await?;
        let needed = tx
            .row(
                "SELECT 1 FROM manifest_reference WHERE repository_id = $1 AND target = $2 AND live = 1 LIMIT 1",
                vals![&repository, digest],
            )
            .await?;
        let about = match &subject {
            Some(subject) => {
                tx.row(
                    "SELECT 1 FROM manifest WHERE repository_id = $1 AND digest = $2 AND state = 1",
                    vals![&repository, subject],
                )
                .await?
            }
            None => None,
        };
        if tagged.is_some() || needed.is_some() || about.is_some() {
            return Ok(Deleted::Unknown);
        }
        self.0.because(tx, "nothing names it").await
    }
}

/// What a deleted manifest may have been the last to keep: its children, and the manifests that name it as their subject. Cost: the rows
/// given.
#[derive(Clone, Debug)]
pub struct DependentsOf {
    /// The repository.
    pub repository: RepositoryName,
    /// The manifest.
    pub digest: Digest,
}

impl ReadOp for DependentsOf {}
impl Op for DependentsOf {
    type Out = Vec<Digest>;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT e.target FROM repository r JOIN manifest m ON m.repository_id = r.id AND m.digest = $2 \
                 JOIN manifest_reference e ON e.manifest_id = m.id AND e.kind = 'child' WHERE r.name = $1 LIMIT $3",
                vals![&self.repository, &self.digest, DEPENDENTS],
            )
            .await?;
        let mut found: Vec<Digest> = Vec::new();
        for mut row in rows {
            found.push(row.digest(0)?);
        }
        let rows = tx
            .query(
                "SELECT f.digest FROM repository r JOIN referrer f ON f.repository_id = r.id AND f.subject = $2 \
                 WHERE r.name = $1 LIMIT $3",
                vals![&self.repository, &self.digest, DEPENDENTS],
            )
            .await?;
        for mut row in rows {
            found.push(row.digest(0)?);
        }
        Ok(found)
    }
}
