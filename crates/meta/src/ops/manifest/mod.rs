//! Manifests: their bytes, what they refer to, and their way in and out.
//!
//! A manifest belongs to one repository. A deleted one keeps its row and what it refers to while it can be restored: see
//! [`super::restorable`]. What it refers to is kept by digest, since a target may be absent (sparse indexes, subjects).

mod delete;
mod list;
mod put;
mod restore;
mod untagged;

use wharf_oci::{Digest, EdgeKind, RepositoryName, Tag};

use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;
use crate::value::{Id, Row};

pub use delete::{Delete, Deleted, SweepEdges, Swept, Unfinished};
pub use list::Digests;
pub use put::{Expect, Pinned, Put, PutEdges, PutOutcome};
pub use restore::{ABOUT, Deleted as Gone, DeletedAbout, GetDeleted, Restore, Restored};
pub use untagged::{DeleteUntagged, DependentsOf};

/// So many references one operation may bring; more come through [`PutEdges`] first.
pub const MAX_EDGES: usize = 200;
/// So many tags one push may move.
pub const MAX_TAGS: usize = 50;
/// So long the references of an unfinished push hold their targets, in milliseconds.
pub const PIN_MS: i64 = 3_600_000;

/// The values of `manifest.state`, as they stand in the statements.
pub(crate) mod state {
    /// Its references come in parts; it is not there yet.
    pub(crate) const PENDING: i64 = 0;
    /// It is there.
    pub(crate) const LIVE: i64 = 1;
    /// It was deleted.
    pub(crate) const DELETED: i64 = 2;
}

/// How a manifest is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ref {
    /// By what a tag points to.
    Tag(Tag),
    /// By digest.
    Digest(Digest),
}

/// A live manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestRow {
    /// Its digest.
    pub digest: Digest,
    /// The bare media type it was pushed with.
    pub media_type: String,
    /// Bytes.
    pub size: u64,
    /// Its bytes, if they were asked for.
    pub bytes: Option<Vec<u8>>,
}

/// A manifest of a repository. One statement. Cost: one row of each of two (digest) or three (tag) tables, one more with
/// the bytes.
#[derive(Clone, Debug)]
pub struct Get {
    /// The repository.
    pub repository: RepositoryName,
    /// Which one.
    pub reference: Ref,
    /// Whether the bytes are wanted.
    pub with_bytes: bool,
}

/// What every pull by tag asks.
pub(crate) const BY_TAG: &str = "SELECT m.digest, m.media_type, m.size, i.bytes FROM repository r \
     JOIN tag t ON t.repository_id = r.id AND t.name = $2 \
     JOIN manifest m ON m.id = t.manifest_id AND m.state = 1 \
     JOIN manifest_inline i ON i.manifest_id = m.id WHERE r.name = $1";

impl ReadOp for Get {}
impl Op for Get {
    type Out = Option<ManifestRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let row = match (&self.reference, self.with_bytes) {
            (Ref::Tag(tag), true) => tx.row(BY_TAG, vals![&self.repository, tag]).await?,
            (Ref::Tag(tag), false) => {
                let sql = "SELECT m.digest, m.media_type, m.size FROM repository r \
                           JOIN tag t ON t.repository_id = r.id AND t.name = $2 \
                           JOIN manifest m ON m.id = t.manifest_id AND m.state = 1 WHERE r.name = $1";
                tx.row(sql, vals![&self.repository, tag]).await?
            }
            (Ref::Digest(digest), true) => {
                let sql = "SELECT m.digest, m.media_type, m.size, i.bytes FROM repository r \
                           JOIN manifest m ON m.repository_id = r.id AND m.digest = $2 AND m.state = 1 \
                           JOIN manifest_inline i ON i.manifest_id = m.id WHERE r.name = $1";
                tx.row(sql, vals![&self.repository, digest]).await?
            }
            (Ref::Digest(digest), false) => {
                let sql = "SELECT m.digest, m.media_type, m.size FROM repository r \
                           JOIN manifest m ON m.repository_id = r.id AND m.digest = $2 AND m.state = 1 \
                           WHERE r.name = $1";
                tx.row(sql, vals![&self.repository, digest]).await?
            }
        };
        row.map(|row| manifest(row, self.with_bytes)).transpose()
    }
}

fn manifest(mut row: Row, with_bytes: bool) -> Result<ManifestRow> {
    Ok(ManifestRow {
        digest: row.digest(0)?,
        media_type: row.text(1)?,
        size: row.size(2)?,
        bytes: if with_bytes {
            Some(row.bytes(3)?)
        } else {
            None
        },
    })
}

/// A live manifest as verification sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its row.
    pub id: Id,
    /// Its repository.
    pub repository: RepositoryName,
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Live manifests of all repositories by id, for verification. Cost: the rows that are passed over.
#[derive(Clone, Debug)]
pub struct ListLive {
    /// The last id of the page before.
    pub after: Option<Id>,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for ListLive {}
impl Op for ListLive {
    type Out = Vec<Stored>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let after = self.after.unwrap_or(Id::from_bytes([0; 16]));
        let rows = tx
            .query(
                "SELECT m.id, r.name, m.digest, i.bytes FROM manifest m JOIN repository r ON r.id = m.repository_id \
                 JOIN manifest_inline i ON i.manifest_id = m.id WHERE m.id > $1 AND m.state = 1 ORDER BY m.id LIMIT $2",
                vals![&after, self.limit],
            )
            .await?;
        rows.into_iter()
            .map(|mut row| {
                Ok(Stored {
                    id: row.id(0)?,
                    repository: row.repository(1)?,
                    digest: row.digest(2)?,
                    bytes: row.bytes(3)?,
                })
            })
            .collect()
    }
}

/// A reference of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeRow {
    /// What the target is to the manifest.
    pub kind: EdgeKind,
    /// The target.
    pub target: Digest,
    /// Its size as the manifest states it.
    pub size: u64,
    /// The push is refused when the repository does not hold the target.
    pub must_exist: bool,
    /// The target may be a manifest or a blob, whatever `kind` says (MPUT-11). Otherwise a child is a manifest and
    /// anything else a blob.
    pub any_store: bool,
}

const fn kind_name(kind: EdgeKind) -> &'static str {
    match kind {
        EdgeKind::Config => "config",
        EdgeKind::Layer => "layer",
        EdgeKind::Child => "child",
        EdgeKind::Blob => "blob",
    }
}

/// The manifest of a repository that needs a target: a live one, or one whose references came less than [`PIN_MS`] ago.
/// Cost: one row, and one for each deleted manifest with the same target that was not swept.
pub(crate) async fn referenced_by<T: Tx>(
    tx: &mut T,
    repository: &Id,
    target: &Digest,
    at: i64,
) -> Result<Option<Digest>> {
    let row = tx
        .row(
            "SELECT m.digest FROM manifest_reference e JOIN manifest m ON m.id = e.manifest_id \
             WHERE e.repository_id = $1 AND e.target = $2 AND e.live = 1 \
             AND (m.state = 1 OR (m.state = 0 AND m.changed_at > $3)) LIMIT 1",
            vals![repository, target, at - PIN_MS],
        )
        .await?;
    row.map(|mut row| row.digest(0)).transpose()
}
