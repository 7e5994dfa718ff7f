//! Manifests that name a subject. Rows are written by [`super::manifest`] alone.

use wharf_oci::{Digest, RepositoryName};

use crate::error::{Error, Result};
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;
use crate::value::Row;

/// So many artifact types may be asked for at once, since each costs a search.
pub const MAX_TYPES: usize = 32;

/// A referrer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    /// The referring manifest, by which pages go on.
    pub digest: Digest,
    /// Its descriptor as JSON, made when it was pushed.
    pub descriptor: String,
}

/// A page of the referrers of a subject, by digest. A subject or repository that does not exist has none (REF-2).
/// Cost: the rows given, times the number of artifact types asked for.
#[derive(Clone, Debug)]
pub struct List {
    /// The repository.
    pub repository: RepositoryName,
    /// The subject.
    pub subject: Digest,
    /// Only these artifact types (REF-6), [`MAX_TYPES`] at most; empty: all.
    pub artifact_types: Vec<String>,
    /// The last digest of the page before.
    pub after: Option<String>,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for List {}
impl Op for List {
    type Out = Vec<Referrer>;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        if self.artifact_types.len() > MAX_TYPES {
            return Err(Error::TooMuch {
                what: "artifact types",
                got: self.artifact_types.len(),
                limit: MAX_TYPES,
            });
        }
        let Some(repository) = super::repository::find(tx, &self.repository).await? else {
            return Ok(Vec::new());
        };
        let after = self.after.as_deref().unwrap_or("");
        if self.artifact_types.is_empty() {
            let rows = tx
                .query(
                    "SELECT digest, descriptor FROM referrer WHERE repository_id = $1 AND subject = $2 AND digest > $3 \
                     ORDER BY digest LIMIT $4",
                    vals![&repository, &self.subject, after, self.limit],
                )
                .await?;
            return rows.into_iter().map(referrer).collect();
        }
        // Each type has its own ordered range; a page of their union is in the union of their pages.
        let mut types: Vec<&String> = self.artifact_types.iter().collect();
        types.sort_unstable();
        types.dedup();
        let mut found = Vec::new();
        for artifact_type in types {
            let rows = tx
                .query(
                    // The inner one has all it needs in the index by type. In one, SQLite takes the primary key and passes
                    // over the referrers of all other types.
                    "SELECT digest, descriptor FROM referrer WHERE repository_id = $1 AND subject = $2 AND digest IN \
                     (SELECT digest FROM referrer WHERE repository_id = $1 AND subject = $2 AND artifact_type = $3 AND \
                     digest > $4 ORDER BY digest LIMIT $5)",
                    vals![&repository, &self.subject, artifact_type, after, self.limit],
                )
                .await?;
            for row in rows {
                found.push(referrer(row)?);
            }
        }
        found.sort_unstable_by(|a, b| a.digest.cmp(&b.digest));
        found.truncate(self.limit as usize);
        Ok(found)
    }
}

fn referrer(mut row: Row) -> Result<Referrer> {
    Ok(Referrer {
        digest: row.digest(0)?,
        descriptor: row.text(1)?,
    })
}
