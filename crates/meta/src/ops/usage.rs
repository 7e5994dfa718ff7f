//! What repositories and prefixes take up: sums that move with what they count, and walks that say whether they are right.
//!
//! Each link and manifest notes how many of its bytes are in the sum of its repository (`counted`), so that whoever takes it
//! away takes off as much. Changes are rows of their own ([`Tx::usage`]), since a row for each repository would be a hot one;
//! [`Fold`] adds them up. The walks here are for the recount, a job: it counts what is from before there were sums, finds out
//! what is shared, and puts right what an older version changed without counting.

use std::collections::BTreeMap;

use wharf_oci::{Digest, RepositoryName};

use super::repository;
use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;
use crate::value::{Id, Row};

/// So many changes one [`Fold`] takes: each costs up to five rows.
pub const MAX_FOLD: u32 = 100;
/// So many rows one operation here changes.
pub const BATCH: usize = 50;

/// By what repositories are put together: the first part of the name.
pub fn prefix(name: &str) -> &str {
    name.split('/').next().unwrap_or(name)
}

/// Whether changes wait for [`Fold`]. Cost: one row.
#[derive(Clone, Copy, Debug)]
pub struct IsPending;

impl ReadOp for IsPending {}
impl Op for IsPending {
    type Out = bool;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let row = tx
            .row(
                "SELECT id FROM usage_delta WHERE id > $1 ORDER BY id LIMIT 1",
                vals![0_i64],
            )
            .await?;
        Ok(row.is_some())
    }
}

/// Adds changes to their sums and removes them; gives how many there were: fewer than `limit` means that none is left. Any
/// number may run at once: each change is taken by one. Cost: five rows for each of `limit`.
#[derive(Clone, Copy, Debug)]
pub struct Fold {
    /// At most so many, [`MAX_FOLD`] or less.
    pub limit: u32,
}

impl Op for Fold {
    type Out = u32;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u32> {
        let rows = tx
            .query(
                "DELETE FROM usage_delta WHERE id IN (SELECT id FROM usage_delta ORDER BY id LIMIT $1) \
                 RETURNING repository_id, bytes",
                vals![self.limit.min(MAX_FOLD)],
            )
            .await?;
        let count = rows.len() as u32;
        // In order, so that two who fold at once never wait for each other in a circle.
        let mut sums = BTreeMap::<Id, (i64, i64)>::new();
        for mut row in rows {
            let sum = sums.entry(row.id(0)?).or_default();
            sum.0 += row.int(1)?;
            sum.1 += 1;
        }
        let mut prefixes = BTreeMap::<String, i64>::new();
        for (repository, (bytes, changes)) in sums {
            tx.exec(
                "INSERT INTO repository_bytes (repository_id, bytes, changes) VALUES ($1, $2, $3) \
                 ON CONFLICT (repository_id) DO UPDATE SET bytes = repository_bytes.bytes + excluded.bytes, \
                 changes = repository_bytes.changes + excluded.changes",
                vals![&repository, bytes, changes],
            )
            .await?;
            if let Some(name) = repository::name(tx, &repository).await? {
                *prefixes.entry(String::new()).or_default() += bytes;
                *prefixes
                    .entry(prefix(name.as_str()).to_owned())
                    .or_default() += bytes;
            }
        }
        for (prefix, bytes) in prefixes {
            add(tx, &prefix, bytes).await?;
        }
        Ok(count)
    }
}

async fn add<T: Tx>(tx: &mut T, prefix: &str, bytes: i64) -> Result<()> {
    tx.exec(
        "INSERT INTO prefix_usage (prefix, bytes, own, blobs) VALUES ($1, $2, 0, 0) \
         ON CONFLICT (prefix) DO UPDATE SET bytes = prefix_usage.bytes + excluded.bytes",
        vals![prefix, bytes],
    )
    .await?;
    Ok(())
}

/// A repository with its sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its row.
    pub id: Id,
    /// Its name.
    pub name: RepositoryName,
    /// Its sum, without what [`Fold`] has not seen.
    pub bytes: i64,
    /// So many changes were folded into it.
    pub changes: i64,
}

/// Repositories with their sums, bytewise by name. Cost: two rows for each.
#[derive(Clone, Debug)]
pub struct Sums {
    /// The last name of the page before.
    pub after: Option<String>,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Sums {}
impl Op for Sums {
    type Out = Vec<Known>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let after = self.after.as_deref().unwrap_or("");
        let rows = tx
            .query(
                "SELECT r.id, r.name, s.bytes, s.changes FROM repository r \
                 LEFT JOIN repository_bytes s ON s.repository_id = r.id WHERE r.name > $1 ORDER BY r.name LIMIT $2",
                vals![after, self.limit],
            )
            .await?;
        rows.into_iter()
            .map(|mut row| {
                Ok(Known {
                    id: row.id(0)?,
                    name: row.repository(1)?,
                    bytes: row.opt_int(2)?.unwrap_or(0),
                    changes: row.opt_int(3)?.unwrap_or(0),
                })
            })
            .collect()
    }
}

/// A link as the recount sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The blob.
    pub digest: Digest,
    /// Who holds it.
    pub repository: Id,
    /// A client took it out.
    pub hidden: bool,
    /// So many of its bytes are in the sum.
    pub counted: u64,
    /// Size of the live blob; `None`: its bytes were lost, and nobody knows better than `counted`.
    pub size: Option<u64>,
}

impl Link {
    /// So many of its bytes belong into the sum.
    pub fn bytes(&self) -> u64 {
        match self.hidden {
            true => 0,
            false => self.size.unwrap_or(self.counted),
        }
    }
}

/// Links by digest. Cost: two rows for each.
#[derive(Clone, Debug)]
pub struct Links {
    /// The last one of the page before.
    pub after: Option<(Digest, Id)>,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Links {}
impl Op for Links {
    type Out = Vec<Link>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let first = Id::from_bytes([0; 16]);
        let (digest, repository) = match &self.after {
            Some((digest, repository)) => (digest.as_str(), repository),
            None => ("", &first),
        };
        let rows = tx
            .query(
                "SELECT l.digest, l.repository_id, l.hidden, l.counted, b.size FROM repository_blob l \
                 LEFT JOIN blob b ON b.digest = l.digest AND b.state = 1 \
                 WHERE (l.digest, l.repository_id) > ($1, $2) ORDER BY l.digest, l.repository_id LIMIT $3",
                vals![digest, repository, self.limit],
            )
            .await?;
        rows.into_iter()
            .map(|mut row| {
                Ok(Link {
                    digest: row.digest(0)?,
                    repository: row.id(1)?,
                    hidden: row.flag(2)?,
                    counted: row.size(3)?,
                    size: number(&mut row, 4)?,
                })
            })
            .collect()
    }
}

fn number(row: &mut Row, at: usize) -> Result<Option<u64>> {
    Ok(row.opt_int(at)?.map(|n| n.max(0).cast_unsigned()))
}

/// A manifest as the recount sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its row.
    pub id: Id,
    /// Its repository.
    pub repository: Id,
    /// So many of its bytes are in the sum.
    pub counted: u64,
    /// So many belong there.
    pub bytes: u64,
}

/// Manifests by id. Cost: one row for each.
#[derive(Clone, Copy, Debug)]
pub struct Manifests {
    /// The last one of the page before.
    pub after: Option<Id>,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Manifests {}
impl Op for Manifests {
    type Out = Vec<Manifest>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let after = self.after.unwrap_or(Id::from_bytes([0; 16]));
        let rows = tx
            .query(
                "SELECT id, repository_id, state, size, counted FROM manifest WHERE id > $1 ORDER BY id LIMIT $2",
                vals![&after, self.limit],
            )
            .await?;
        rows.into_iter()
            .map(|mut row| {
                let (live, size) = (row.int(2)? == 1, row.size(3)?);
                Ok(Manifest {
                    id: row.id(0)?,
                    repository: row.id(1)?,
                    bytes: if live { size } else { 0 },
                    counted: row.size(4)?,
                })
            })
            .collect()
    }
}

/// Counts links that are not counted as they are. Locks each. Cost: three rows for each of [`BATCH`].
#[derive(Clone, Debug)]
pub struct CountLinks {
    /// Which.
    pub links: Vec<(Id, Digest)>,
}

impl Op for CountLinks {
    type Out = ();
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        let mut links: Vec<_> = self.links.iter().take(BATCH).collect();
        links.sort_unstable_by_key(|(repository, digest)| (digest, repository));
        for (repository, digest) in links {
            let link = tx
                .row(
                    "SELECT hidden, counted FROM repository_blob WHERE repository_id = $1 AND digest = $2 FOR UPDATE",
                    vals![repository, digest],
                )
                .await?;
            let Some(mut link) = link else { continue };
            let (hidden, counted) = (link.flag(0)?, link.int(1)?);
            let blob = tx
                .row(
                    "SELECT size FROM blob WHERE digest = $1 AND state = 1",
                    vals![digest],
                )
                .await?;
            let bytes = match blob {
                _ if hidden => 0,
                Some(mut blob) => blob.int(0)?,
                None => continue,
            };
            if bytes != counted {
                tx.exec(
                    "UPDATE repository_blob SET counted = $3 WHERE repository_id = $1 AND digest = $2",
                    vals![repository, digest, bytes],
                )
                .await?;
                tx.usage(repository, bytes - counted).await?;
            }
        }
        Ok(())
    }
}

/// The same for manifests, but for those that somebody else has locked: a push locks its manifest first and then those that it
/// refers to, and no order of these is right for both. Locks each. Cost: three rows for each of [`BATCH`].
#[derive(Clone, Debug)]
pub struct CountManifests {
    /// Which.
    pub manifests: Vec<Id>,
}

impl Op for CountManifests {
    type Out = ();
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        for id in self.manifests.iter().take(BATCH) {
            let row = tx
                .row(
                    "SELECT m.repository_id, r.name, m.digest, m.state, m.size, m.counted FROM manifest m \
                     JOIN repository r ON r.id = m.repository_id WHERE m.id = $1 FOR UPDATE OF m SKIP LOCKED",
                    vals![id],
                )
                .await?;
            let Some(mut row) = row else { continue };
            let (repository, name, digest) = (row.id(0)?, row.repository(1)?, row.digest(2)?);
            let (live, size, counted) = (row.int(3)? == 1, row.int(4)?, row.int(5)?);
            let bytes = if live { size } else { 0 };
            if bytes != counted {
                tx.touch(&name, digest.as_str());
                tx.exec(
                    "UPDATE manifest SET counted = $2 WHERE id = $1",
                    vals![id, bytes],
                )
                .await?;
                tx.usage(&repository, bytes - counted).await?;
            }
        }
        Ok(())
    }
}

/// Whether a [`Correct`] has something to do: asked before, since a read disturbs nobody. Cost: one row.
#[derive(Clone, Debug)]
pub struct IsWrong(pub Correct);

impl ReadOp for IsWrong {}
impl Op for IsWrong {
    type Out = bool;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let row = tx
            .row(
                "SELECT 1 FROM repository_bytes WHERE repository_id = $1 AND changes = $2 AND bytes <> $3",
                vals![&self.0.repository, self.0.changes, self.0.bytes],
            )
            .await?;
        Ok(row.is_some())
    }
}

/// Puts a sum right that a walk found wrong, unless something was folded into it since: `changes` is what [`Sums`] said
/// before the walk. Locks the sum. Cost: three rows.
#[derive(Clone, Debug)]
pub struct Correct {
    /// The repository.
    pub repository: Id,
    /// Its name.
    pub name: RepositoryName,
    /// What the walk counted.
    pub bytes: i64,
    /// Only if so many changes were folded.
    pub changes: i64,
}

impl Op for Correct {
    type Out = bool;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let row = tx
            .row(
                "SELECT bytes, changes FROM repository_bytes WHERE repository_id = $1 FOR UPDATE",
                vals![&self.repository],
            )
            .await?;
        let Some(mut row) = row else { return Ok(false) };
        let (bytes, changes) = (row.int(0)?, row.int(1)?);
        if changes != self.changes || bytes == self.bytes {
            return Ok(false);
        }
        tx.exec(
            "UPDATE repository_bytes SET bytes = $2 WHERE repository_id = $1",
            vals![&self.repository, self.bytes],
        )
        .await?;
        for prefix in ["", prefix(self.name.as_str())] {
            add(tx, prefix, self.bytes - bytes).await?;
        }
        Ok(true)
    }
}

/// What a repository or a prefix takes up, as a recount found it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all its blobs and manifests.
    pub logical: u64,
    /// Bytes of those that nobody outside holds: what its end would free.
    pub own: u64,
    /// Its blobs.
    pub blobs: u64,
}

/// Keeps what was counted for repositories. Cost: one row for each, [`BATCH`] at most.
#[derive(Clone, Debug)]
pub struct Keep {
    /// Repositories with what they take up.
    pub usage: Vec<(Id, Usage)>,
    /// When it was counted, in milliseconds since 1970.
    pub at: i64,
}

impl Op for Keep {
    type Out = ();

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        let mut all: Vec<_> = self.usage.iter().take(BATCH).collect();
        // In order, so that two that do so at once never wait for each other in a circle.
        all.sort_unstable_by_key(|(repository, _)| *repository);
        for (repository, usage) in all {
            tx.exec(
                "INSERT INTO repository_usage (repository_id, logical, own, blobs, counted_at) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (repository_id) DO UPDATE SET logical = excluded.logical, own = excluded.own, \
                 blobs = excluded.blobs, counted_at = excluded.counted_at",
                vals![repository, usage.logical, usage.own, usage.blobs, self.at],
            )
            .await?;
        }
        Ok(())
    }
}

/// Keeps what was counted for prefixes. Cost: two rows for each, [`BATCH`] at most.
#[derive(Clone, Debug)]
pub struct KeepPrefixes {
    /// Prefixes with what they take up.
    pub usage: Vec<(String, Usage)>,
    /// When it was counted, in milliseconds since 1970.
    pub at: i64,
}

impl Op for KeepPrefixes {
    type Out = ();

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        let mut all: Vec<_> = self.usage.iter().take(BATCH).collect();
        // In the order of [`Fold`].
        all.sort_unstable_by_key(|(prefix, _)| prefix);
        for (prefix, usage) in all {
            tx.exec(
                "INSERT INTO prefix_usage (prefix, bytes, own, blobs, counted_at) VALUES ($1, 0, $2, $3, $4) \
                 ON CONFLICT (prefix) DO UPDATE SET own = excluded.own, blobs = excluded.blobs, \
                 counted_at = excluded.counted_at",
                vals![prefix, usage.own, usage.blobs, self.at],
            )
            .await?;
        }
        Ok(())
    }
}

/// What a repository takes up: its sum now, the rest as it was counted last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Its name, or a prefix; of [`Largest`], the empty one is the whole store.
    pub name: String,
    /// What it takes up.
    pub usage: Usage,
    /// When `own` and `blobs` were counted; `None`: not yet.
    pub at: Option<i64>,
}

fn counted(mut row: Row) -> Result<Counted> {
    Ok(Counted {
        name: row.text(0)?,
        usage: Usage {
            logical: number(&mut row, 1)?.unwrap_or(0),
            own: number(&mut row, 2)?.unwrap_or(0),
            blobs: number(&mut row, 3)?.unwrap_or(0),
        },
        at: row.opt_int(4)?,
    })
}

/// Repositories with what they take up, bytewise by name. Cost: three rows for each.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// The last name of the page before.
    pub after: Option<String>,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Sizes {}
impl Op for Sizes {
    type Out = Vec<Counted>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let after = self.after.as_deref().unwrap_or("");
        let rows = tx
            .query(
                "SELECT r.name, s.bytes, u.own, u.blobs, u.counted_at FROM repository r \
                 LEFT JOIN repository_bytes s ON s.repository_id = r.id \
                 LEFT JOIN repository_usage u ON u.repository_id = r.id WHERE r.name > $1 ORDER BY r.name LIMIT $2",
                vals![after, self.limit],
            )
            .await?;
        rows.into_iter().map(counted).collect()
    }
}

/// A repository with what it takes up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// When it was made, in milliseconds since 1970.
    pub created_at: i64,
    /// Its name, and what it takes up.
    pub counted: Counted,
}

/// As [`super::repository::List`], with what each takes up. Cost: three rows for each, and one search for each prefix that is
/// passed through.
#[derive(Clone, Debug)]
pub struct Within {
    /// The last name of the page before; it need not exist.
    pub after: Option<String>,
    /// At most so many.
    pub limit: u32,
    /// Only repositories within one of these prefixes; `None`: all.
    pub within: Option<Vec<String>>,
}

impl ReadOp for Within {}
impl Op for Within {
    type Out = Vec<Found>;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let limit = self.limit as usize;
        let mut found = Vec::new();
        let ranges = repository::ranges_after(self.within.as_deref(), self.after.as_deref());
        for (low, high) in ranges {
            if found.len() >= limit {
                break;
            }
            let left = (limit - found.len()) as u64;
            let rows = tx
                .query(
                    "SELECT r.name, s.bytes, u.own, u.blobs, u.counted_at, r.created_at FROM repository r \
                     LEFT JOIN repository_bytes s ON s.repository_id = r.id \
                     LEFT JOIN repository_usage u ON u.repository_id = r.id \
                     WHERE r.name >= $1 AND r.name < $2 ORDER BY r.name LIMIT $3",
                    vals![&low, &high, left],
                )
                .await?;
            for mut row in rows {
                found.push(Found {
                    created_at: row.int(5)?,
                    counted: counted(row)?,
                });
            }
        }
        Ok(found)
    }
}

/// The prefixes that take up most, the whole store among them. Cost: two rows for each.
#[derive(Clone, Copy, Debug)]
pub struct Largest {
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Largest {}
impl Op for Largest {
    type Out = Vec<Counted>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT prefix, bytes, own, blobs, counted_at FROM prefix_usage WHERE bytes > $1 \
                 ORDER BY bytes DESC LIMIT $2",
                vals![0_i64, self.limit],
            )
            .await?;
        rows.into_iter().map(counted).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_first_parts() {
        assert_eq!(prefix("team/app/x"), "team");
        assert_eq!(prefix("alone"), "alone");
    }
}
