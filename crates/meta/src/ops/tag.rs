//! Tags. This file is the model for new operations: read it before writing one.
//!
//! Tags are moved by [`super::manifest::Put`]; every move raises the tag's version by one and is written to the history,
//! from which a deleted tag's version goes on.

use serde_json::json;
use wharf_oci::{Digest, RepositoryName, Tag};

use super::event::{self, Fact, Kind};
use super::repository;
use crate::error::{Error, Result};
use crate::meant::Meant;
use crate::tx::{Counter, Op, ReadOp, Tx};
use crate::vals;
use crate::value::{Id, Row};

/// A page of tags in bytewise order; `None`: no such repository. Cost: the rows given.
#[derive(Clone, Debug)]
pub struct List {
    /// The repository.
    pub repository: RepositoryName,
    /// The last tag of the page before; it need not exist.
    pub after: Option<String>,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for List {}
impl Op for List {
    type Out = Option<Vec<String>>;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let Some(repository) = repository::find(tx, &self.repository).await? else {
            return Ok(None);
        };
        let after = self.after.as_deref().unwrap_or("");
        let rows = tx
            .query(
                "SELECT name FROM tag WHERE repository_id = $1 AND name > $2 ORDER BY name LIMIT $3",
                vals![&repository, after, self.limit],
            )
            .await?;
        rows.into_iter()
            .map(|mut row| row.text(0))
            .collect::<Result<_>>()
            .map(Some)
    }
}

/// A tag with the manifest that it stands at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The tag.
    pub name: String,
    /// The manifest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// What kind of artifact it is, if it says so.
    pub artifact_type: Option<String>,
    /// The manifest's own bytes.
    pub size: i64,
    /// One more with each move.
    pub version: i64,
    /// When it came to stand there, in milliseconds since 1970.
    pub moved_at: i64,
}

fn standing(mut row: Row) -> Result<Standing> {
    Ok(Standing {
        name: row.text(0)?,
        digest: row.digest(1)?,
        media_type: row.text(2)?,
        artifact_type: row.opt_text(3)?,
        size: row.int(4)?,
        version: row.int(5)?,
        moved_at: row.int(6)?,
    })
}

/// As [`List`], with where each stands. Cost: two rows for each.
#[derive(Clone, Debug)]
pub struct Stand(pub List);

impl ReadOp for Stand {}
impl Op for Stand {
    type Out = Option<Vec<Standing>>;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let list = &self.0;
        let Some(repository) = repository::find(tx, &list.repository).await? else {
            return Ok(None);
        };
        let after = list.after.as_deref().unwrap_or("");
        let rows = tx
            .query(
                "SELECT t.name, m.digest, m.media_type, m.artifact_type, m.size, t.version, t.moved_at FROM tag t \
                 JOIN manifest m ON m.id = t.manifest_id WHERE t.repository_id = $1 AND t.name > $2 ORDER BY t.name LIMIT $3",
                vals![&repository, after, list.limit],
            )
            .await?;
        let rows: Result<_> = rows.into_iter().map(standing).collect();
        rows.map(Some)
    }
}

/// Tags from one name on and before another, in bytewise order; `None`: no such repository. Cost: the rows given.
#[derive(Clone, Debug)]
pub struct Between {
    /// The repository.
    pub repository: RepositoryName,
    /// The first name.
    pub from: String,
    /// The name before which it ends.
    pub until: String,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Between {}
impl Op for Between {
    type Out = Option<Vec<String>>;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let Some(repository) = repository::find(tx, &self.repository).await? else {
            return Ok(None);
        };
        let rows = tx
            .query(
                "SELECT name FROM tag WHERE repository_id = $1 AND name >= $2 AND name < $3 ORDER BY name LIMIT $4",
                vals![&repository, &self.from, &self.until, self.limit],
            )
            .await?;
        let rows: Result<_> = rows.into_iter().map(|mut row| row.text(0)).collect();
        rows.map(Some)
    }
}

/// As [`Between`], with where each stands. Cost: two rows for each.
#[derive(Clone, Debug)]
pub struct StandBetween(pub Between);

impl ReadOp for StandBetween {}
impl Op for StandBetween {
    type Out = Option<Vec<Standing>>;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let list = &self.0;
        let Some(repository) = repository::find(tx, &list.repository).await? else {
            return Ok(None);
        };
        let rows = tx
            .query(
                "SELECT t.name, m.digest, m.media_type, m.artifact_type, m.size, t.version, t.moved_at FROM tag t \
                 JOIN manifest m ON m.id = t.manifest_id WHERE t.repository_id = $1 AND t.name >= $2 AND t.name < $3 \
                 ORDER BY t.name LIMIT $4",
                vals![&repository, &list.from, &list.until, list.limit],
            )
            .await?;
        let rows: Result<_> = rows.into_iter().map(standing).collect();
        rows.map(Some)
    }
}

/// Where one tag stands. Cost: three rows.
#[derive(Clone, Debug)]
pub struct GetStanding {
    /// The repository.
    pub repository: RepositoryName,
    /// The tag.
    pub tag: Tag,
}

impl ReadOp for GetStanding {}
impl Op for GetStanding {
    type Out = Option<Standing>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let row = tx
            .row(
                "SELECT t.name, m.digest, m.media_type, m.artifact_type, m.size, t.version, t.moved_at FROM repository r \
                 JOIN tag t ON t.repository_id = r.id AND t.name = $2 JOIN manifest m ON m.id = t.manifest_id WHERE r.name = $1",
                vals![&self.repository, &self.tag],
            )
            .await?;
        row.map(standing).transpose()
    }
}

/// Removes a tag and leaves its manifest; `false`: no such tag. Locks the tag. Cost: four rows.
#[derive(Clone, Debug)]
pub struct Delete {
    /// The repository.
    pub repository: RepositoryName,
    /// The tag.
    pub tag: Tag,
    /// The principal.
    pub actor: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Delete {
    type Out = bool;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        Ok(self.remove(tx, &Meant::Any).await? == Deleted::Done)
    }
}

impl Delete {
    /// Removes the tag if it is the version that is meant.
    async fn remove<T: Tx>(&self, tx: &mut T, version: &Meant) -> Result<Deleted> {
        let Some(repository) = repository::find(tx, &self.repository).await? else {
            return Ok(Deleted::Unknown);
        };
        let change = Change {
            repository: &repository,
            name: &self.repository,
            actor: &self.actor,
            cause: "deleted",
            at: self.at,
        };
        let Some(current) = change.current(tx, self.tag.as_str()).await? else {
            return Ok(Deleted::Unknown);
        };
        if !version.fits(Some(current.version)) {
            return Ok(Deleted::Moved);
        }
        change.remove(tx, self.tag.as_str(), &current).await?;
        Ok(Deleted::Done)
    }
}

/// What became of [`DeleteAt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// The tag is gone.
    Done,
    /// There is no such tag.
    Unknown,
    /// It has another version than the one that was expected.
    Moved,
}

/// As [`Delete`], and only if the tag still has this version.
#[derive(Clone, Debug)]
pub struct DeleteAt {
    /// The tag.
    pub delete: Delete,
    /// The version that is meant.
    pub version: Meant,
}

impl Op for DeleteAt {
    type Out = Deleted;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Deleted> {
        self.delete.remove(tx, &self.version).await
    }
}

/// What became of [`Restore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// The tag stands at the manifest.
    Done,
    /// The repository has no such manifest.
    Unknown,
    /// The tag was moved since it was looked at.
    Moved,
}

/// Puts a tag back to a manifest that is there, as a move of its own. Locks the manifest's row and the tag. Cost: six rows.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The repository.
    pub repository: RepositoryName,
    /// The tag.
    pub tag: Tag,
    /// Where it shall stand.
    pub digest: Digest,
    /// Where it must stand now; `None`: it must not be there.
    pub expect: Option<Digest>,
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
        let manifest = tx
            .row(
                "SELECT id FROM manifest WHERE repository_id = $1 AND digest = $2 AND state = 1 FOR UPDATE",
                vals![&repository, &self.digest],
            )
            .await?;
        let Some(mut manifest) = manifest else {
            return Ok(Restored::Unknown);
        };
        let change = Change {
            repository: &repository,
            name: &self.repository,
            actor: &self.actor,
            cause: "restored",
            at: self.at,
        };
        let current = change.current(tx, self.tag.as_str()).await?;
        let stands = current.as_ref().map(|current| &current.digest);
        if stands == Some(&self.digest) {
            return Ok(Restored::Done);
        }
        if stands != self.expect.as_ref() {
            return Ok(Restored::Moved);
        }
        change
            .point(
                tx,
                &self.tag,
                current.as_ref(),
                &manifest.id(0)?,
                &self.digest,
            )
            .await?;
        Ok(Restored::Done)
    }
}

/// Tags that went with a manifest when it was deleted. Cost: the moves of that moment.
#[derive(Clone, Debug)]
pub struct GoneWith {
    /// The repository.
    pub repository: RepositoryName,
    /// The manifest.
    pub digest: Digest,
    /// When it was deleted.
    pub at: i64,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for GoneWith {}
impl Op for GoneWith {
    type Out = Vec<String>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT h.name FROM repository r JOIN tag_history h ON h.repository_id = r.id AND h.moved_at = $3 \
                 AND h.from_digest = $2 AND h.to_digest IS NULL WHERE r.name = $1 LIMIT $4",
                vals![&self.repository, &self.digest, self.at, self.limit],
            )
            .await?;
        rows.into_iter().map(|mut row| row.text(0)).collect()
    }
}

/// A move of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The tag.
    pub tag: String,
    /// The version that it had from then on.
    pub version: i64,
    /// Where it pointed before; `None`: it was made.
    pub from: Option<Digest>,
    /// Where it pointed after; `None`: it was deleted.
    pub to: Option<Digest>,
    /// The principal.
    pub actor: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

/// Moves of one tag by version, or of all tags of a repository by time, newest first. Cost: the rows given.
#[derive(Clone, Debug)]
pub struct History {
    /// The repository.
    pub repository: RepositoryName,
    /// Only this tag.
    pub tag: Option<Tag>,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for History {}
impl Op for History {
    type Out = Vec<Move>;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let Some(repository) = repository::find(tx, &self.repository).await? else {
            return Ok(Vec::new());
        };
        let rows = match &self.tag {
            Some(tag) => {
                tx.query(
                    "SELECT name, version, from_digest, to_digest, actor, moved_at FROM tag_history \
                     WHERE repository_id = $1 AND name = $2 ORDER BY version DESC LIMIT $3",
                    vals![&repository, tag, self.limit],
                )
                .await?
            }
            None => {
                tx.query(
                    "SELECT name, version, from_digest, to_digest, actor, moved_at FROM tag_history \
                     WHERE repository_id = $1 ORDER BY moved_at DESC LIMIT $2",
                    vals![&repository, self.limit],
                )
                .await?
            }
        };
        rows.into_iter().map(moved).collect()
    }
}

/// Moves of one tag before a version, newest first, for pages. Cost: the rows given.
#[derive(Clone, Debug)]
pub struct MovesBefore {
    /// The repository.
    pub repository: RepositoryName,
    /// The tag.
    pub tag: Tag,
    /// Only those to an earlier version; `i64::MAX`: all.
    pub version: i64,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for MovesBefore {}
impl Op for MovesBefore {
    type Out = Vec<Move>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT h.name, h.version, h.from_digest, h.to_digest, h.actor, h.moved_at FROM repository r \
                 JOIN tag_history h ON h.repository_id = r.id AND h.name = $2 AND h.version < $3 WHERE r.name = $1 \
                 ORDER BY h.version DESC LIMIT $4",
                vals![&self.repository, &self.tag, self.version, self.limit],
            )
            .await?;
        rows.into_iter().map(moved).collect()
    }
}

/// Moves of all tags of a repository before one of them, newest first, for pages. Cost: the rows given, and those of the same
/// millisecond.
#[derive(Clone, Debug)]
pub struct MovesIn {
    /// The repository.
    pub repository: RepositoryName,
    /// The last one of the page before: when it was, of which tag, and the version.
    pub before: Option<(i64, String, i64)>,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for MovesIn {}
impl Op for MovesIn {
    type Out = Vec<Move>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let first = (i64::MAX, String::new(), 0);
        let (at, tag, version) = self.before.as_ref().unwrap_or(&first);
        let rows = tx
            .query(
                "SELECT h.name, h.version, h.from_digest, h.to_digest, h.actor, h.moved_at FROM repository r \
                 JOIN tag_history h ON h.repository_id = r.id WHERE r.name = $1 AND (h.moved_at, h.name, h.version) < ($2, $3, $4) \
                 ORDER BY h.moved_at DESC, h.name DESC, h.version DESC LIMIT $5",
                vals![&self.repository, *at, tag, *version, self.limit],
            )
            .await?;
        rows.into_iter().map(moved).collect()
    }
}

fn moved(mut row: Row) -> Result<Move> {
    Ok(Move {
        tag: row.text(0)?,
        version: row.int(1)?,
        from: row.opt_digest(2)?,
        to: row.opt_digest(3)?,
        actor: row.text(4)?,
        at: row.int(5)?,
    })
}

/// Where a tag points.
pub(crate) struct Current {
    pub(crate) manifest: Id,
    pub(crate) digest: Digest,
    pub(crate) version: i64,
}

/// Who changes tags where and when.
pub(crate) struct Change<'a> {
    pub(crate) repository: &'a Id,
    pub(crate) name: &'a RepositoryName,
    pub(crate) actor: &'a str,
    /// Why, for events.
    pub(crate) cause: &'static str,
    pub(crate) at: i64,
}

impl Change<'_> {
    /// Locks a tag and tells where it points.
    pub(crate) async fn current<T: Tx>(&self, tx: &mut T, tag: &str) -> Result<Option<Current>> {
        let row = tx
            .row(
                "SELECT t.manifest_id, m.digest, t.version FROM tag t LEFT JOIN manifest m ON m.id = t.manifest_id \
                 WHERE t.repository_id = $1 AND t.name = $2 FOR UPDATE OF t",
                vals![self.repository, tag],
            )
            .await?;
        let Some(mut row) = row else { return Ok(None) };
        let (manifest, digest, version) = (row.id(0)?, row.opt_digest(1)?, row.int(2)?);
        let digest = match digest {
            Some(digest) => digest,
            // PostgreSQL only: the tag was moved while this waited for it. It gives the tag as it is now, beside the
            // manifest that it pointed to before, which no longer fits.
            None => {
                let moved = tx
                    .row(
                        "SELECT digest FROM manifest WHERE id = $1",
                        vals![&manifest],
                    )
                    .await?;
                match moved {
                    Some(mut row) => row.digest(0)?,
                    None => return Err(Error::Corrupt("a tag points to no manifest".into())),
                }
            }
        };
        Ok(Some(Current {
            manifest,
            digest,
            version,
        }))
    }

    /// Points a tag to a manifest; nothing happens when it does so already. `current` is what [`Change::current`] gave in
    /// this transaction.
    pub(crate) async fn point<T: Tx>(
        &self,
        tx: &mut T,
        tag: &Tag,
        current: Option<&Current>,
        manifest: &Id,
        digest: &Digest,
    ) -> Result<()> {
        if current.is_some_and(|current| current.manifest == *manifest) {
            return Ok(());
        }
        tx.touch(self.name, tag.as_str());
        let version = match current {
            Some(current) => {
                tx.exec(
                    "UPDATE tag SET manifest_id = $3, version = $4, moved_at = $5 WHERE repository_id = $1 AND name = $2",
                    vals![self.repository, tag, manifest, current.version + 1, self.at],
                )
                .await?;
                current.version + 1
            }
            None => {
                let last = tx
                    .row(
                        "SELECT version FROM tag_history WHERE repository_id = $1 AND name = $2 \
                         ORDER BY version DESC LIMIT 1",
                        vals![self.repository, tag],
                    )
                    .await?;
                let version = last.map_or(Ok(0), |mut row| row.int(0))? + 1;
                let made = tx
                    .exec(
                        "INSERT INTO tag (repository_id, name, manifest_id, version, moved_at) \
                         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (repository_id, name) DO NOTHING",
                        vals![self.repository, tag, manifest, version, self.at],
                    )
                    .await?;
                if made == 0 {
                    // PostgreSQL only: made by another transaction since it was looked at. All is undone and tried anew.
                    return Err(Error::Busy("a tag was made by two pushes at once".into()));
                }
                tx.count(Counter::Tags, 1).await?;
                version
            }
        };
        let from = current.map(|current| &current.digest);
        self.history(tx, tag.as_str(), version, from, Some(digest))
            .await
    }

    /// Removes a tag that was locked.
    pub(crate) async fn remove<T: Tx>(
        &self,
        tx: &mut T,
        tag: &str,
        current: &Current,
    ) -> Result<()> {
        tx.touch(self.name, tag);
        tx.exec(
            "DELETE FROM tag WHERE repository_id = $1 AND name = $2",
            vals![self.repository, tag],
        )
        .await?;
        tx.count(Counter::Tags, -1).await?;
        self.history(tx, tag, current.version + 1, Some(&current.digest), None)
            .await
    }

    async fn history<T: Tx>(
        &self,
        tx: &mut T,
        tag: &str,
        version: i64,
        from: Option<&Digest>,
        to: Option<&Digest>,
    ) -> Result<()> {
        tx.exec(
            "INSERT INTO tag_history (repository_id, name, version, from_digest, to_digest, actor, moved_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            vals![self.repository, tag, version, from, to, self.actor, self.at],
        )
        .await?;
        let fact = Fact {
            kind: if to.is_some() {
                Kind::TagMove
            } else {
                Kind::TagDelete
            },
            repository: Some(self.name),
            digest: to.or(from),
            tag: Some(tag),
            actor: self.actor,
            at: self.at,
            payload: json!({
                "version": version,
                "from": from.map(Digest::as_str),
                "to": to.map(Digest::as_str),
                "cause": self.cause,
            }),
        };
        event::record(tx, fact).await
    }
}
