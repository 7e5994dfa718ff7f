//! Walks over what is stored, for what operations do not keep up by themselves: links that became unneeded under an older
//! version, blobs and deleted manifests from before there was collection.
//!
//! Called by the job `gc.audit` alone, which is the recheck. Pages by key, so that it goes on where it stood.

use serde_json::json;
use wharf_oci::Digest;

use super::event::{self, Fact, Kind};
use super::{candidate, garbage, restorable};
use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;
use crate::value::Id;

/// So many rows one operation here changes.
pub const BATCH: usize = 50;

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The blob.
    pub digest: Digest,
    /// Who holds it.
    pub repository: Id,
    /// It is no candidate, and yet nothing holds it.
    pub lost: bool,
}

/// Links by digest. Cost: three rows for each.
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

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let first = Id::from_bytes([0; 16]);
        let (digest, repository) = match &self.after {
            Some((digest, repository)) => (digest.as_str(), repository),
            None => ("", &first),
        };
        let rows = tx
            .query(
                "SELECT digest, repository_id, candidate_since FROM repository_blob \
                 WHERE (digest, repository_id) > ($1, $2) ORDER BY digest, repository_id LIMIT $3",
                vals![digest, repository, self.limit],
            )
            .await?;
        let mut links = Vec::with_capacity(rows.len());
        for mut row in rows {
            let (digest, repository) = (row.digest(0)?, row.id(1)?);
            let candidate = row.opt_int(2)?.is_some();
            links.push(Link {
                lost: !candidate && !candidate::is_held(tx, &repository, &digest).await?,
                digest,
                repository,
            });
        }
        Ok(links)
    }
}

/// Makes links candidates that nothing holds; tells how many. Locks each link. Cost: five rows for each of [`BATCH`].
#[derive(Clone, Debug)]
pub struct Mark {
    /// Which.
    pub links: Vec<(Id, Digest)>,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Mark {
    type Out = u64;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u64> {
        let mut links: Vec<_> = self.links.iter().take(BATCH).collect();
        links.sort_unstable_by_key(|(repository, digest)| (digest, repository));
        let mut marked = 0;
        for (repository, digest) in links {
            marked += u64::from(candidate::mark(tx, repository, digest, self.at).await?);
        }
        Ok(marked)
    }
}

/// Whether a live blob has no link at all. Cost: one row for each.
#[derive(Clone, Debug)]
pub struct Unlinked {
    /// Which to look at.
    pub digests: Vec<Digest>,
}

impl ReadOp for Unlinked {}
impl Op for Unlinked {
    type Out = Vec<Digest>;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let mut unlinked = Vec::new();
        for digest in &self.digests {
            let linked = tx
                .row(
                    "SELECT 1 FROM repository_blob WHERE digest = $1 LIMIT 1",
                    vals![digest],
                )
                .await?;
            if linked.is_none() {
                unlinked.push(digest.clone());
            }
        }
        Ok(unlinked)
    }
}

/// Takes live blobs without a link out of the store; tells how many. Locks each blob, which a publish does before it links. Cost:
/// six rows for each of [`BATCH`].
#[derive(Clone, Debug)]
pub struct Remove {
    /// Which.
    pub digests: Vec<Digest>,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Remove {
    type Out = u64;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u64> {
        let mut digests: Vec<_> = self.digests.iter().take(BATCH).collect();
        digests.sort_unstable();
        let mut removed = 0;
        for digest in digests {
            let blob = tx
                .row(
                    "SELECT id, size, key FROM blob WHERE digest = $1 AND state = 1 FOR UPDATE",
                    vals![digest],
                )
                .await?;
            let Some(mut blob) = blob else { continue };
            let linked = tx
                .row(
                    "SELECT 1 FROM repository_blob WHERE digest = $1 LIMIT 1",
                    vals![digest],
                )
                .await?;
            if linked.is_some() {
                continue;
            }
            let (id, size, key) = (blob.id(0)?, blob.size(1)?, blob.opt_text(2)?);
            candidate::remove_blob(tx, &id, size, key.as_deref(), self.at).await?;
            let fact = Fact {
                kind: Kind::BlobCollect,
                repository: None,
                digest: Some(digest),
                tag: None,
                actor: "gc",
                at: self.at,
                payload: json!({ "cause": "no repository holds it", "freed": size }),
            };
            event::record(tx, fact).await?;
            removed += 1;
        }
        Ok(removed)
    }
}

/// Makes keys garbage that no live blob has; tells how many. Locks each blob's live row. Cost: three rows for each of [`BATCH`].
#[derive(Clone, Debug)]
pub struct Discard {
    /// Keys, each with the digest in its name.
    pub keys: Vec<(String, Digest)>,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Discard {
    type Out = u64;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u64> {
        let mut discarded = 0;
        let mut keys: Vec<_> = self.keys.iter().take(BATCH).collect();
        keys.sort_unstable_by_key(|(key, digest)| (digest, key));
        for (key, digest) in keys {
            // Before all else, as whoever takes the blob away and makes its key garbage.
            live(tx, digest).await?;
            // First this row, then the look: whoever adopts the bytes inserts it too, and waits or makes us wait.
            let made = garbage::add(tx, key, self.at).await?;
            if live(tx, digest).await?.as_ref() != Some(key) {
                discarded += u64::from(made);
                if made {
                    let fact = Fact {
                        kind: Kind::BlobCollect,
                        repository: None,
                        digest: Some(digest),
                        tag: None,
                        actor: "storage.sweep",
                        at: self.at,
                        payload: json!({ "cause": "no row names these bytes", "key": key }),
                    };
                    event::record(tx, fact).await?;
                }
            } else if made {
                garbage::remove(tx, key).await?;
            }
        }
        Ok(discarded)
    }
}

/// Locks the live blob, if there is one; gives its key.
async fn live<T: Tx>(tx: &mut T, digest: &Digest) -> Result<Option<String>> {
    let row = tx
        .row(
            "SELECT key FROM blob WHERE digest = $1 AND state = 1 FOR UPDATE",
            vals![digest],
        )
        .await?;
    row.map_or(Ok(None), |mut row| row.opt_text(0))
}

/// A manifest as the recheck sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its row.
    pub id: Id,
    /// It was deleted, and nothing will ever end it.
    pub forgotten: bool,
}

/// Manifests by id. Cost: two rows for each.
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
                "SELECT m.id, m.state, d.look_at FROM manifest m \
                 LEFT JOIN restorable d ON d.manifest_id = m.id WHERE m.id > $1 ORDER BY m.id LIMIT $2",
                vals![&after, self.limit],
            )
            .await?;
        rows.into_iter()
            .map(|mut row| {
                Ok(Manifest {
                    id: row.id(0)?,
                    forgotten: row.int(1)? == 2 && row.opt_int(2)?.is_none(),
                })
            })
            .collect()
    }
}

/// Makes deleted manifests restorable that an older version deleted, so that they end as all others do; tells how many. Locks each
/// manifest's row, but for those that somebody else has: they are for the next walk. Cost: four rows for each of [`BATCH`].
#[derive(Clone, Debug)]
pub struct Adopt {
    /// Which.
    pub manifests: Vec<Id>,
}

impl Op for Adopt {
    type Out = u64;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u64> {
        let mut adopted = 0;
        for id in self.manifests.iter().take(BATCH) {
            let row = tx
                .row(
                    "SELECT repository_id, digest, changed_at FROM manifest WHERE id = $1 AND state = 2 FOR UPDATE SKIP LOCKED",
                    vals![id],
                )
                .await?;
            let Some(mut row) = row else { continue };
            let (repository, digest, at) = (row.id(0)?, row.digest(1)?, row.int(2)?);
            let known = tx
                .row("SELECT 1 FROM restorable WHERE manifest_id = $1", vals![id])
                .await?;
            if known.is_none() {
                restorable::add(tx, id, &repository, &digest, "unknown", at).await?;
                adopted += 1;
            }
        }
        Ok(adopted)
    }
}
