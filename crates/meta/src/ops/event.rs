//! The outbox: what happened, written by the operations that made it so.
//!
//! Everything reactive starts here. Nobody else writes events.

use wharf_oci::{Digest, RepositoryName};

use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A repository came to hold a blob that was uploaded.
    BlobPush,
    /// A repository came to hold a blob of another one.
    BlobMount,
    /// A repository no longer holds a blob.
    BlobDelete,
    /// A blob's bytes were found to be lost or wrong.
    BlobCondemn,
    /// A manifest came to be, or came back.
    ManifestPush,
    /// A manifest went.
    ManifestDelete,
    /// A tag was made or moved.
    TagMove,
    /// A tag went.
    TagDelete,
}

impl Kind {
    /// The stored name: noun, dot, verb.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::BlobPush => "blob.push",
            Kind::BlobMount => "blob.mount",
            Kind::BlobDelete => "blob.delete",
            Kind::BlobCondemn => "blob.condemn",
            Kind::ManifestPush => "manifest.push",
            Kind::ManifestDelete => "manifest.delete",
            Kind::TagMove => "tag.move",
            Kind::TagDelete => "tag.delete",
        }
    }
}

/// A fact to record.
pub(crate) struct Fact<'a> {
    pub(crate) kind: Kind,
    pub(crate) repository: Option<&'a RepositoryName>,
    pub(crate) digest: Option<&'a Digest>,
    pub(crate) tag: Option<&'a str>,
    pub(crate) actor: &'a str,
    pub(crate) at: i64,
    pub(crate) payload: serde_json::Value,
}

/// Writes one event row.
pub(crate) async fn record<T: Tx>(tx: &mut T, fact: Fact<'_>) -> Result<()> {
    let payload = fact.payload.to_string();
    tx.exec(
        "INSERT INTO event (at, kind, repository, digest, tag, actor, payload) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        vals![fact.at, fact.kind.as_str(), fact.repository, fact.digest, fact.tag, fact.actor, &payload],
    )
    .await?;
    Ok(())
}

/// An event as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// Grows with every event, never used twice.
    pub id: i64,
    /// Milliseconds since 1970.
    pub at: i64,
    /// [`Kind::as_str`].
    pub kind: String,
    /// The repository, if it is about one.
    pub repository: Option<String>,
    /// The blob or manifest, if it is about one.
    pub digest: Option<String>,
    /// The tag, if it is about one.
    pub tag: Option<String>,
    /// The principal's name.
    pub actor: String,
    /// JSON object with what else is known.
    pub payload: String,
}

/// Events after an id, oldest first. Cost: the rows given.
#[derive(Clone, Copy, Debug)]
pub struct List {
    /// The last id already seen; 0 for all.
    pub after: i64,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for List {}
impl Op for List {
    type Out = Vec<EventRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT id, at, kind, repository, digest, tag, actor, payload FROM event WHERE id > $1 ORDER BY id \
                 LIMIT $2",
                vals![self.after, self.limit],
            )
            .await?;
        rows.into_iter()
            .map(|mut row| {
                Ok(EventRow {
                    id: row.int(0)?,
                    at: row.int(1)?,
                    kind: row.text(2)?,
                    repository: row.opt_text(3)?,
                    digest: row.opt_text(4)?,
                    tag: row.opt_text(5)?,
                    actor: row.text(6)?,
                    payload: row.text(7)?,
                })
            })
            .collect()
    }
}
