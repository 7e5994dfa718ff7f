//! Blobs: bytes by digest, and which repository holds them.
//!
//! Content is only found through `repository_blob`, whoever else holds the same digest. [`Lookup`] and [`ListLive`] pass
//! that by for publish, backup and verification; no request's answer may rest on them.

use serde_json::json;
use wharf_oci::{Digest, RepositoryName};

use super::event::{self, Fact, Kind};
pub use super::garbage::{Collected, FORGOTTEN, Garbage, IsGarbage};
use super::{candidate, garbage, manifest, multipart, quarantine, repository, upload};
use crate::error::{Error, Result};
use crate::tx::{Counter, Op, ReadOp, Tx};
use crate::vals;
use crate::value::{Id, Row};

/// Where a blob's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this store; `None`: the bytes were not asked for.
    Inline(Option<Vec<u8>>),
    /// Under a key of the blob store.
    Key(String),
}

/// A live blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRow {
    /// Its row.
    pub id: Id,
    /// Its digest.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Where they are.
    pub place: Place,
}

/// Columns: id, digest, size, key, and the inline bytes if they were asked for.
fn blob(mut row: Row, with_bytes: bool) -> Result<BlobRow> {
    let place = match row.opt_text(3)? {
        Some(key) => Place::Key(key),
        None if with_bytes => Place::Inline(Some(row.bytes(4)?)),
        None => Place::Inline(None),
    };
    Ok(BlobRow {
        id: row.id(0)?,
        digest: row.digest(1)?,
        size: row.size(2)?,
        place,
    })
}

/// A blob that a repository holds (BGET, HEAD). Cost: one row of each of three tables, four with the bytes.
#[derive(Clone, Debug)]
pub struct Find {
    /// The repository.
    pub repository: RepositoryName,
    /// The blob.
    pub digest: Digest,
    /// Whether inline bytes are wanted.
    pub with_bytes: bool,
}

impl ReadOp for Find {}
impl Op for Find {
    type Out = Option<BlobRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let sql = if self.with_bytes {
            "SELECT b.id, b.digest, b.size, b.key, i.bytes FROM repository r \
             JOIN repository_blob l ON l.repository_id = r.id AND l.digest = $2 AND l.hidden = 0 \
             JOIN blob b ON b.digest = l.digest AND b.state = 1 \
             LEFT JOIN blob_inline i ON i.blob_id = b.id WHERE r.name = $1"
        } else {
            "SELECT b.id, b.digest, b.size, b.key FROM repository r \
             JOIN repository_blob l ON l.repository_id = r.id AND l.digest = $2 AND l.hidden = 0 \
             JOIN blob b ON b.digest = l.digest AND b.state = 1 WHERE r.name = $1"
        };
        let row = tx.row(sql, vals![&self.repository, &self.digest]).await?;
        row.map(|row| blob(row, self.with_bytes)).transpose()
    }
}

/// A blob that a repository holds and will go on holding (HEAD, mount): one that collection is about to take counts as absent,
/// so that nobody relies on it. Cost: as [`Find`]; for a candidate near its end, two rows more.
#[derive(Clone, Debug)]
pub struct Stat {
    /// The repository.
    pub repository: RepositoryName,
    /// The blob.
    pub digest: Digest,
    /// Candidates since before this are near their end; milliseconds since 1970.
    pub fading_before: i64,
}

impl ReadOp for Stat {}
impl Op for Stat {
    type Out = Option<BlobRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let row = tx
            .row(
                "SELECT b.id, b.digest, b.size, b.key FROM repository r \
                 JOIN repository_blob l ON l.repository_id = r.id AND l.digest = $2 AND l.hidden = 0 \
                 JOIN blob b ON b.digest = l.digest AND b.state = 1 WHERE r.name = $1 \
                 AND (l.candidate_since IS NULL OR l.candidate_since >= $3 OR EXISTS (SELECT 1 FROM manifest_reference e \
                 WHERE e.repository_id = r.id AND e.target = $2 AND e.live = 1) OR EXISTS (SELECT 1 FROM kept_reference k \
                 WHERE k.repository_id = r.id AND k.target = $2))",
                vals![&self.repository, &self.digest, self.fading_before],
            )
            .await?;
        row.map(|row| blob(row, false)).transpose()
    }
}

/// Repositories that hold a blob, in no particular order: candidates for a mount without `from`. Cost: the rows given.
#[derive(Clone, Debug)]
pub struct Holders {
    /// The blob.
    pub digest: Digest,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Holders {}
impl Op for Holders {
    type Out = Vec<RepositoryName>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT r.name FROM repository_blob l JOIN repository r ON r.id = l.repository_id WHERE l.digest = $1 \
                 AND l.hidden = 0 LIMIT $2",
                vals![&self.digest, self.limit],
            )
            .await?;
        rows.into_iter().map(|mut row| row.repository(0)).collect()
    }
}

/// The live row of a digest, whoever holds it. Never decides what a client sees. Cost: one row.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// The blob.
    pub digest: Digest,
}

impl ReadOp for Lookup {}
impl Op for Lookup {
    type Out = Option<BlobRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let row = tx
            .row(
                "SELECT id, digest, size, key FROM blob WHERE digest = $1 AND state = 1",
                vals![&self.digest],
            )
            .await?;
        row.map(|row| blob(row, false)).transpose()
    }
}

/// Live blobs by id, for backup and verification. Cost: the rows that are passed over, dead ones among them.
#[derive(Clone, Debug)]
pub struct ListLive {
    /// The last id of the page before.
    pub after: Option<Id>,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for ListLive {}
impl Op for ListLive {
    type Out = Vec<BlobRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let after = self.after.unwrap_or(Id::from_bytes([0; 16]));
        let rows = tx
            .query(
                "SELECT id, digest, size, key FROM blob WHERE id > $1 AND state = 1 ORDER BY id LIMIT $2",
                vals![&after, self.limit],
            )
            .await?;
        rows.into_iter().map(|row| blob(row, false)).collect()
    }
}

/// The inline bytes of a blob row, for backup and verification. Cost: one row.
#[derive(Clone, Copy, Debug)]
pub struct InlineBytes {
    /// The row.
    pub id: Id,
}

impl ReadOp for InlineBytes {}
impl Op for InlineBytes {
    type Out = Option<Vec<u8>>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let row = tx
            .row(
                "SELECT bytes FROM blob_inline WHERE blob_id = $1",
                vals![&self.id],
            )
            .await?;
        row.map(|mut row| row.bytes(0)).transpose()
    }
}

/// Lets a repository hold a blob that another one holds; `false`: that one does not hold it (any more), or its bytes are
/// not sound. Locks the source's link and the blob's row against removal. Cost: five rows.
#[derive(Clone, Debug)]
pub struct Mount {
    /// Where it shall be seen; made if absent.
    pub repository: RepositoryName,
    /// Who holds it.
    pub from: RepositoryName,
    /// The blob.
    pub digest: Digest,
    /// The principal.
    pub actor: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Mount {
    type Out = bool;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let Some(from) = repository::find(tx, &self.from).await? else {
            return Ok(false);
        };
        // The blob alone is locked, and first: two mounts in opposite directions would wait for each other's links.
        let blob = tx
            .row(
                "SELECT size FROM blob WHERE digest = $1 AND state = 1 FOR SHARE",
                vals![&self.digest],
            )
            .await?;
        let Some(mut blob) = blob else {
            return Ok(false);
        };
        let size = blob.size(0)?;
        let shown = tx
            .row(
                "SELECT 1 FROM repository_blob WHERE repository_id = $1 AND digest = $2 AND hidden = 0",
                vals![&from, &self.digest],
            )
            .await?;
        if shown.is_none() {
            return Ok(false);
        }
        let repository = repository::ensure(tx, &self.repository, self.at).await?;
        if link(tx, &repository, &self.digest, size, self.at).await? {
            let payload = json!({ "from": self.from.as_str() });
            self.record(tx, payload).await?;
        }
        Ok(true)
    }
}

impl Mount {
    async fn record<T: Tx>(&self, tx: &mut T, payload: serde_json::Value) -> Result<()> {
        let fact = Fact {
            kind: Kind::BlobMount,
            repository: Some(&self.repository),
            digest: Some(&self.digest),
            tag: None,
            actor: &self.actor,
            at: self.at,
            payload,
        };
        event::record(tx, fact).await
    }
}

/// The size of a sound blob that a repository holds; its link and row are locked against removal.
pub(crate) async fn held<T: Tx>(
    tx: &mut T,
    repository: &Id,
    digest: &Digest,
) -> Result<Option<u64>> {
    // The blob stands first, so it is locked first, as by everybody else.
    let row = tx
        .row(
            "SELECT b.size FROM blob b JOIN repository_blob l ON l.digest = b.digest AND l.hidden = 0 \
             WHERE l.repository_id = $1 AND b.digest = $2 AND b.state = 1 FOR SHARE",
            vals![repository, digest],
        )
        .await?;
    row.map(|mut row| row.size(0)).transpose()
}

/// Makes a link, or brings a hidden one back; `true`: the repository did not hold the blob before. A link that nothing is
/// known to need is a candidate from now on: whoever pushes or mounts has the whole grace to refer to it.
async fn link<T: Tx>(
    tx: &mut T,
    repository: &Id,
    digest: &Digest,
    size: u64,
    at: i64,
) -> Result<bool> {
    let made = tx
        .exec(
            "INSERT INTO repository_blob (repository_id, digest, linked_at, candidate_since, hidden, counted) \
             VALUES ($1, $2, $3, $3, 0, $4) ON CONFLICT (digest, repository_id) DO NOTHING",
            vals![repository, digest, at, size],
        )
        .await?;
    if made == 1 {
        tx.usage(repository, signed(size)).await?;
        candidate::note(tx, repository, digest, at).await?;
        return Ok(true);
    }
    let row = tx
        .row(
            "SELECT candidate_since, hidden, counted FROM repository_blob WHERE repository_id = $1 AND digest = $2 FOR UPDATE",
            vals![repository, digest],
        )
        .await?;
    // PostgreSQL only: it was collected since the insert met it.
    let mut row = row.ok_or_else(|| Error::Busy("a link was made and collected at once".into()))?;
    let (since, hidden, counted) = (row.opt_int(0)?, row.flag(1)?, row.int(2)?);
    if since.is_none() && !hidden {
        return Ok(false);
    }
    tx.exec(
        "UPDATE repository_blob SET candidate_since = $3, hidden = 0, counted = $4 \
         WHERE repository_id = $1 AND digest = $2",
        vals![repository, digest, at, size],
    )
    .await?;
    tx.usage(repository, signed(size) - counted).await?;
    if since != Some(at) {
        candidate::note(tx, repository, digest, at).await?;
    }
    Ok(hidden)
}

/// What became of [`Unlink`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unlinked {
    /// The repository shows it no more. The link stays for manifests that can be restored, and until collection.
    Done,
    /// The repository did not hold it.
    Unknown,
    /// This manifest of the repository needs it.
    ReferencedBy(Digest),
}

/// Takes a blob out of a repository's sight and makes its link a candidate. Locks the link, which [`manifest::Put`] shares
/// for each blob it refers to. Cost: four rows, and one for each manifest that refers to it and was deleted but not yet
/// swept.
#[derive(Clone, Debug)]
pub struct Unlink {
    /// The repository.
    pub repository: RepositoryName,
    /// The blob.
    pub digest: Digest,
    /// The principal.
    pub actor: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Unlink {
    type Out = Unlinked;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Unlinked> {
        let Some(repository) = repository::find(tx, &self.repository).await? else {
            return Ok(Unlinked::Unknown);
        };
        let link = tx
            .row(
                "SELECT candidate_since, counted FROM repository_blob WHERE repository_id = $1 AND digest = $2 AND hidden = 0 \
                 FOR UPDATE",
                vals![&repository, &self.digest],
            )
            .await?;
        let Some(mut link) = link else {
            return Ok(Unlinked::Unknown);
        };
        if let Some(by) = manifest::referenced_by(tx, &repository, &self.digest, self.at).await? {
            return Ok(Unlinked::ReferencedBy(by));
        }
        tx.exec(
            "UPDATE repository_blob SET candidate_since = $3, hidden = 1, counted = 0 \
             WHERE repository_id = $1 AND digest = $2",
            vals![&repository, &self.digest, self.at],
        )
        .await?;
        tx.usage(&repository, -link.int(1)?).await?;
        if link.opt_int(0)? != Some(self.at) {
            candidate::note(tx, &repository, &self.digest, self.at).await?;
        }
        let fact = Fact {
            kind: Kind::BlobDelete,
            repository: Some(&self.repository),
            digest: Some(&self.digest),
            tag: None,
            actor: &self.actor,
            at: self.at,
            payload: json!({ "cause": "deleted" }),
        };
        event::record(tx, fact).await?;
        Ok(Unlinked::Done)
    }
}

/// The bytes of a [`Publish`].
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// To be kept in this store.
    Inline(Vec<u8>),
    /// Durable in the blob store under this key.
    Key(String),
    /// Under a key that a multipart upload was completed to: its row must still be under way, and is not after this.
    Multipart(String),
    /// Those of the live row, which the caller has found to be sound.
    Existing,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Content::Inline(bytes) => write!(f, "Inline({} bytes)", bytes.len()),
            Content::Key(key) => write!(f, "Key({key})"),
            Content::Multipart(key) => write!(f, "Multipart({key})"),
            Content::Existing => f.write_str("Existing"),
        }
    }
}

/// What became of [`Publish`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// The repository holds the blob.
    Done {
        /// It did not before.
        linked: bool,
        /// A key whose bytes nothing needs now: of the bytes that were replaced, or of these, when others came first. It
        /// stands in the list of [`Garbage`] until [`Collected`].
        surplus: Option<String>,
    },
    /// [`Content::Existing`] was given, and no live row has this digest.
    NoSuchBlob,
    /// The bytes under the given key are gone, or about to go: the multipart upload was given up, or this is a repeated publish
    /// whose first answer was lost, and the blob was collected since.
    GivenUp,
}

/// Makes verified bytes a blob of a repository and ends the upload they came from. Locks the blob's live row. Doing it
/// again changes nothing more. Cost: twelve rows and the upload's chunks.
///
/// Of two who publish the same bytes at once the first one's stay, since somebody may read them already. Only what the
/// caller has found to be bad is replaced.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The session that ends with this.
    pub upload: Option<String>,
    /// Where it shall be seen; made if absent.
    pub repository: RepositoryName,
    /// The blob, verified by the caller.
    pub digest: Digest,
    /// Its bytes, counted by the caller.
    pub size: u64,
    /// Where they are.
    pub content: Content,
    /// The place of bad bytes, which these are to replace.
    pub instead_of: Option<Place>,
    /// The principal.
    pub actor: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Publish {
    type Out = Published;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Published> {
        if let Content::Multipart(key) = &self.content {
            if let Some(upload) = &self.upload {
                upload::lock(tx, upload).await?;
            }
            let taken = multipart::publish(tx, key, &self.digest).await?;
            if !taken && !self.was_done(tx, key).await? {
                return Ok(Published::GivenUp);
            }
        }
        let live = match self.live(tx).await? {
            Some(live) => Some(live),
            None if self.content == Content::Existing => return Ok(Published::NoSuchBlob),
            None if self.is_lost(tx).await? => return Ok(Published::GivenUp),
            None if self.insert(tx).await? => None,
            // PostgreSQL only: another transaction published the same digest in between.
            None => Some(
                self.live(tx)
                    .await?
                    .ok_or_else(|| Error::Busy("a blob was published and lost at once".into()))?,
            ),
        };
        let surplus = match live {
            Some(live) if self.is_to_replace(&live) => self.replace(tx, live).await?,
            Some(live) => self.spare(tx, live).await?,
            None => None,
        };
        let repository = repository::ensure(tx, &self.repository, self.at).await?;
        let linked = link(tx, &repository, &self.digest, self.size, self.at).await?;
        if let Some(upload) = &self.upload {
            upload::remove(tx, upload, i64::MAX).await?;
        }
        if linked {
            let fact = Fact {
                kind: Kind::BlobPush,
                repository: Some(&self.repository),
                digest: Some(&self.digest),
                tag: None,
                actor: &self.actor,
                at: self.at,
                payload: json!({ "size": self.size }),
            };
            event::record(tx, fact).await?;
        }
        Ok(Published::Done { linked, surplus })
    }
}

struct Live {
    id: Id,
    size: u64,
    key: Option<String>,
}

impl Publish {
    async fn live<T: Tx>(&self, tx: &mut T) -> Result<Option<Live>> {
        let row = tx
            .row(
                "SELECT id, size, key FROM blob WHERE digest = $1 AND state = 1 FOR UPDATE",
                vals![&self.digest],
            )
            .await?;
        row.map(|mut row| {
            Ok(Live {
                id: row.id(0)?,
                size: row.size(1)?,
                key: row.opt_text(2)?,
            })
        })
        .transpose()
    }

    fn key(&self) -> Option<&str> {
        match &self.content {
            Content::Key(key) | Content::Multipart(key) => Some(key),
            Content::Inline(_) | Content::Existing => None,
        }
    }

    async fn insert<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let id = tx.id(self.at);
        let made = tx
            .exec(
                "INSERT INTO blob (id, digest, size, key, state, created_at, changed_at) VALUES ($1, $2, $3, $4, 1, $5, \
                 $5) ON CONFLICT (digest) WHERE state = 1 DO NOTHING",
                vals![&id, &self.digest, self.size, self.key(), self.at],
            )
            .await?;
        if made == 0 {
            return Ok(false);
        }
        if let Content::Inline(bytes) = &self.content {
            put_inline(tx, &id, bytes).await?;
        }
        tx.count(Counter::Blobs, 1).await?;
        tx.count(Counter::BlobBytes, signed(self.size)).await?;
        Ok(true)
    }

    /// Whether this is a repeated publish whose first answer was lost.
    async fn was_done<T: Tx>(&self, tx: &mut T, key: &str) -> Result<bool> {
        let live = self.live(tx).await?;
        Ok(live.is_some_and(|live| live.key.as_deref() == Some(key)) || self.is_lost(tx).await?)
    }

    /// Whether the bytes under the key are about to go: this is then a repeated publish whose first answer was lost.
    async fn is_lost<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        match self.key() {
            Some(key) => garbage::has(tx, key).await,
            None => Ok(false),
        }
    }

    fn is_to_replace(&self, live: &Live) -> bool {
        match (&self.instead_of, &live.key) {
            (Some(Place::Key(bad)), Some(key)) => bad == key,
            (Some(Place::Inline(_)), None) => true,
            _ => false,
        }
    }

    /// Leaves the live bytes where they are; gives the key of the new ones, unless that is theirs.
    async fn spare<T: Tx>(&self, tx: &mut T, live: Live) -> Result<Option<String>> {
        match self.key() {
            Some(key) if live.key.as_deref() != Some(key) => discard(tx, key, self.at).await,
            _ => Ok(None),
        }
    }

    /// Puts the new bytes in the place of the old ones; gives the key that nothing needs any more.
    async fn replace<T: Tx>(&self, tx: &mut T, live: Live) -> Result<Option<String>> {
        match &self.content {
            Content::Existing => return Ok(None),
            Content::Inline(bytes) => put_inline(tx, &live.id, bytes).await?,
            Content::Key(_) | Content::Multipart(_) if live.key.is_none() => {
                tx.exec(
                    "DELETE FROM blob_inline WHERE blob_id = $1",
                    vals![&live.id],
                )
                .await?;
            }
            Content::Key(_) | Content::Multipart(_) => {}
        }
        if live.key.is_some() || self.key().is_some() || live.size != self.size {
            tx.exec(
                "UPDATE blob SET size = $2, key = $3, changed_at = $4 WHERE id = $1",
                vals![&live.id, self.size, self.key(), self.at],
            )
            .await?;
            tx.count(Counter::BlobBytes, signed(self.size) - signed(live.size))
                .await?;
        }
        match &live.key {
            Some(key) => discard(tx, key, self.at).await,
            None => Ok(None),
        }
    }
}

/// Makes a key garbage; gives it, unless it was that already.
async fn discard<T: Tx>(tx: &mut T, key: &str, at: i64) -> Result<Option<String>> {
    let made = garbage::add(tx, key, at).await?;
    Ok(made.then(|| key.to_owned()))
}

async fn put_inline<T: Tx>(tx: &mut T, id: &Id, bytes: &[u8]) -> Result<()> {
    tx.exec(
        "INSERT INTO blob_inline (blob_id, bytes) VALUES ($1, $2) \
         ON CONFLICT (blob_id) DO UPDATE SET bytes = excluded.bytes",
        vals![id, bytes],
    )
    .await?;
    Ok(())
}

fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// Takes a blob whose bytes are lost or wrong out of sight everywhere, until the next push of the same digest heals it
/// for every repository that held it. `key` must be what the caller looked at (`None`: inline bytes): if it was replaced
/// meanwhile, nothing happens. `false`: no such live row. Cost: four rows.
#[derive(Clone, Debug)]
pub struct Condemn {
    /// The row.
    pub id: Id,
    /// The place that was found bad.
    pub key: Option<String>,
    /// What is wrong, in words.
    pub cause: String,
    /// The principal, or the job.
    pub actor: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Condemn {
    type Out = bool;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let row = tx
            .row(
                "SELECT digest, size, key FROM blob WHERE id = $1 AND state = 1 FOR UPDATE",
                vals![&self.id],
            )
            .await?;
        let Some(mut row) = row else { return Ok(false) };
        let (digest, size, key) = (row.digest(0)?, row.size(1)?, row.opt_text(2)?);
        if key != self.key {
            return Ok(false);
        }
        tx.exec(
            "UPDATE blob SET state = 0, changed_at = $2 WHERE id = $1",
            vals![&self.id, self.at],
        )
        .await?;
        tx.count(Counter::Blobs, -1).await?;
        tx.count(Counter::BlobBytes, -signed(size)).await?;
        quarantine::add(
            tx,
            &self.id,
            &digest,
            size,
            key.as_deref(),
            &self.cause,
            self.at,
        )
        .await?;
        let fact = Fact {
            kind: Kind::BlobCondemn,
            repository: None,
            digest: Some(&digest),
            tag: None,
            actor: &self.actor,
            at: self.at,
            payload: json!({ "size": size, "key": key, "cause": self.cause }),
        };
        event::record(tx, fact).await?;
        Ok(true)
    }
}
