//! Blobs whose bytes were found lost or wrong, with what is left of them.
//!
//! [`super::blob::Condemn`] puts them here. The next push of the same digest makes a new row, and [`Settle`] then lets the old
//! bytes go; so does collection when no repository holds the digest any more.

use wharf_oci::{Digest, RepositoryName};

use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;
use crate::value::{Id, Row};

/// A condemned blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condemned {
    /// Its row.
    pub id: Id,
    /// Its digest.
    pub digest: Digest,
    /// The size that it should have.
    pub size: u64,
    /// Where what is left of it lies; `None`: among the rows.
    pub key: Option<String>,
    /// When it was found, in milliseconds since 1970.
    pub since: i64,
    /// What is wrong, in words.
    pub cause: String,
}

fn condemned(mut row: Row) -> Result<Condemned> {
    Ok(Condemned {
        id: row.id(0)?,
        digest: row.digest(1)?,
        size: row.size(2)?,
        key: row.opt_text(3)?,
        since: row.int(4)?,
        cause: row.text(5)?,
    })
}

pub(crate) async fn add<T: Tx>(
    tx: &mut T,
    id: &Id,
    digest: &Digest,
    size: u64,
    key: Option<&str>,
    cause: &str,
    at: i64,
) -> Result<()> {
    tx.exec(
        "INSERT INTO quarantine (blob_id, digest, size, key, since, cause) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (blob_id) DO NOTHING",
        vals![id, digest, size, key, at, cause],
    )
    .await?;
    Ok(())
}

/// Those of a digest. Cost: the rows given.
#[derive(Clone, Debug)]
pub struct Of {
    /// The digest.
    pub digest: Digest,
}

impl ReadOp for Of {}
impl Op for Of {
    type Out = Vec<Condemned>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT blob_id, digest, size, key, since, cause FROM quarantine WHERE digest = $1 LIMIT 100",
                vals![&self.digest],
            )
            .await?;
        rows.into_iter().map(condemned).collect()
    }
}

/// Whether a repository holds a blob that is in quarantine, so that who asks for it can be told. Cost: one row of each of three
/// tables.
#[derive(Clone, Debug)]
pub struct Hides {
    /// The repository.
    pub repository: RepositoryName,
    /// The digest.
    pub digest: Digest,
}

impl ReadOp for Hides {}
impl Op for Hides {
    type Out = bool;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let row = tx
            .row(
                "SELECT 1 FROM repository r \
                 JOIN repository_blob l ON l.repository_id = r.id AND l.digest = $2 AND l.hidden = 0 \
                 JOIN quarantine q ON q.digest = l.digest WHERE r.name = $1 LIMIT 1",
                vals![&self.repository, &self.digest],
            )
            .await?;
        Ok(row.is_some())
    }
}

/// All of them by row. Cost: the rows given.
#[derive(Clone, Copy, Debug)]
pub struct List {
    /// The last one of the page before.
    pub after: Option<Id>,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for List {}
impl Op for List {
    type Out = Vec<Condemned>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let after = self.after.unwrap_or(Id::from_bytes([0; 16]));
        let rows = tx
            .query(
                "SELECT blob_id, digest, size, key, since, cause FROM quarantine WHERE blob_id > $1 ORDER BY blob_id LIMIT $2",
                vals![&after, self.limit],
            )
            .await?;
        rows.into_iter().map(condemned).collect()
    }
}

/// How many there are. Cost: as many rows.
#[derive(Clone, Copy, Debug)]
pub struct Count;

impl ReadOp for Count {}
impl Op for Count {
    type Out = u64;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u64> {
        let row = tx.row("SELECT COUNT(*) FROM quarantine", &[]).await?;
        row.map_or(Ok(0), |mut row| row.size(0))
    }
}

/// Lets what is left of a condemned blob go, if a push has healed it or nobody holds it any more; `false`: it stays. Locks the
/// digest's live row. Cost: six rows.
#[derive(Clone, Copy, Debug)]
pub struct Settle {
    /// The condemned row.
    pub id: Id,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Settle {
    type Out = bool;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let row = tx
            .row(
                "SELECT digest, key FROM quarantine WHERE blob_id = $1 FOR UPDATE",
                vals![&self.id],
            )
            .await?;
        let Some(mut row) = row else {
            return Ok(true);
        };
        let (digest, key) = (row.digest(0)?, row.opt_text(1)?);
        let live = tx
            .row(
                "SELECT id FROM blob WHERE digest = $1 AND state = 1 FOR UPDATE",
                vals![&digest],
            )
            .await?;
        let linked = tx
            .row(
                "SELECT 1 FROM repository_blob WHERE digest = $1 LIMIT 1",
                vals![&digest],
            )
            .await?;
        if live.is_none() && linked.is_some() {
            return Ok(false);
        }
        tx.exec("DELETE FROM quarantine WHERE blob_id = $1", vals![&self.id])
            .await?;
        tx.exec(
            "DELETE FROM blob WHERE id = $1 AND state = 0",
            vals![&self.id],
        )
        .await?;
        match key {
            Some(key) => {
                tx.exec(
                    "INSERT INTO garbage (key, since) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING",
                    vals![&key, self.at],
                )
                .await?;
            }
            None => {
                tx.exec(
                    "DELETE FROM blob_inline WHERE blob_id = $1",
                    vals![&self.id],
                )
                .await?;
            }
        }
        Ok(true)
    }
}
