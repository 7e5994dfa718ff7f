//! The live manifests of a repository, in pages.

use wharf_oci::{Digest, RepositoryName};

use crate::error::Result;
use crate::ops::repository;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;

/// A page of them, bytewise by digest. Cost: the rows given, and those deleted ones between them.
#[derive(Clone, Debug)]
pub struct Digests {
    /// The repository.
    pub repository: RepositoryName,
    /// The last one of the page before.
    pub after: Option<Digest>,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Digests {}
impl Op for Digests {
    type Out = Vec<Digest>;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let Some(repository) = repository::find(tx, &self.repository).await? else {
            return Ok(Vec::new());
        };
        let after = self.after.as_ref().map_or("", Digest::as_str);
        let rows = tx
            .query(
                "SELECT digest FROM manifest WHERE repository_id = $1 AND digest > $2 AND state = 1 ORDER BY digest LIMIT $3",
                vals![&repository, after, self.limit],
            )
            .await?;
        rows.into_iter().map(|mut row| row.digest(0)).collect()
    }
}
