//! Multipart uploads of an object store: noted before they get a byte, so that each ends as a blob or is given up.

use wharf_oci::Digest;

use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;
use crate::value::Row;

/// Rows of parts that one operation reads or removes.
pub const PAGE: u32 = 500;

/// Under way.
const OPEN: i64 = 0;
/// Its parts and its object are to go.
const GIVEN_UP: i64 = 1;
/// Only rows are left of it.
const OVER: i64 = 2;

/// A multipart upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultipartRow {
    /// The blob store's key of the object that it becomes.
    pub key: String,
    /// What the object store calls it.
    pub session: String,
    /// Bytes of its first part.
    pub part_size: u64,
}

/// How much of a multipart upload a session claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedParts {
    /// Which.
    pub multipart: MultipartRow,
    /// So many parts.
    pub count: u64,
    /// So many bytes in them.
    pub bytes: u64,
}

/// A part as the object store acknowledged it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartRow {
    /// Bytes.
    pub size: u64,
    /// What the object store calls it.
    pub tag: String,
}

/// Notes a multipart upload. Cost: one row.
#[derive(Clone, Debug)]
pub struct Begin {
    /// Which.
    pub multipart: MultipartRow,
    /// The upload that it is for, whether that has a session or not.
    pub upload: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Begin {
    type Out = ();
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        let MultipartRow {
            key,
            session,
            part_size,
        } = &self.multipart;
        tx.exec(
            "INSERT INTO multipart (key, upload_id, session, part_size, state, began_at) VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (key) DO NOTHING",
            vals![key, &self.upload, session, *part_size, OPEN, self.at],
        )
        .await?;
        Ok(())
    }
}

/// Claimed parts in order. Cost: the rows given, [`PAGE`] at most.
#[derive(Clone, Debug)]
pub struct List {
    /// The multipart upload's key.
    pub key: String,
    /// How many to pass over.
    pub from: u64,
}

impl ReadOp for List {}
impl Op for List {
    type Out = Vec<PartRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT size, tag FROM upload_part WHERE key = $1 AND number >= $2 ORDER BY number LIMIT $3",
                vals![&self.key, self.from, PAGE],
            )
            .await?;
        let part = |mut row: Row| {
            Ok(PartRow {
                size: row.size(0)?,
                tag: row.text(1)?,
            })
        };
        rows.into_iter().map(part).collect()
    }
}

/// Ends a session whose bytes are lost, unless somebody else has taken it over since; `false`: it is left alone. Decides
/// on the upload's row. Cost: its row and chunks.
#[derive(Clone, Debug)]
pub struct Lose {
    /// The session's id.
    pub upload: String,
    /// Under which it was taken.
    pub epoch: i64,
}

impl Op for Lose {
    type Out = bool;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let ours = tx
            .row(
                "SELECT 1 FROM upload WHERE id = $1 AND epoch = $2 FOR UPDATE",
                vals![&self.upload, self.epoch],
            )
            .await?;
        match ours {
            Some(_) => {
                let removed = super::upload::remove(tx, &self.upload, i64::MAX).await?;
                Ok(removed.is_some())
            }
            None => Ok(false),
        }
    }
}

/// Gives up what was begun for an upload and did not become a blob, and tells of it. Locks those rows. Cost: the rows
/// given, in practice one.
#[derive(Clone, Debug)]
pub struct GiveUp {
    /// The upload's id.
    pub upload: String,
    /// One that is to go on.
    pub but: Option<String>,
}

impl Op for GiveUp {
    type Out = Vec<MultipartRow>;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let but = self.but.as_deref().unwrap_or_default();
        tx.exec(
            "UPDATE multipart SET state = $3 WHERE upload_id = $1 AND state = $2 AND key <> $4",
            vals![&self.upload, OPEN, GIVEN_UP, but],
        )
        .await?;
        let rows = tx
            .query(
                "SELECT key, session, part_size FROM multipart WHERE upload_id = $1 AND state = $2",
                vals![&self.upload, GIVEN_UP],
            )
            .await?;
        rows.into_iter().map(multipart).collect()
    }
}

/// Claims parts that the object store acknowledged, and the bytes behind them, by compare-and-swap on epoch and offset;
/// `false`: the session is gone, was taken over or stands elsewhere. The same claim again is `true`, since the answer to
/// the first may have been lost. Decides on the upload's row. Cost: three rows and one for each new part; when there are
/// new parts, also the chunks that are in them.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The session's id.
    pub id: String,
    /// The epoch under which the bytes were sent.
    pub epoch: i64,
    /// The offset before.
    pub from: u64,
    /// The offset after.
    pub to: u64,
    /// The hasher's state at `to`.
    pub hash: Vec<u8>,
    /// All parts up to here.
    pub parts: Option<ClaimedParts>,
    /// The last of them, which no claim had before.
    pub fresh: Vec<PartRow>,
    /// The bytes that end at `to` and are in no part.
    pub tail: Vec<u8>,
    /// Chunks that rows have are in parts or in `tail` now: they go.
    pub replace: bool,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Claim {
    type Out = bool;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let added = !self.tail.is_empty();
        let (key, count, bytes) = match &self.parts {
            Some(parts) => (Some(&parts.multipart.key), parts.count, parts.bytes),
            None => (None, 0, 0),
        };
        let changed = tx
            .exec(
                "UPDATE upload SET bytes_held = $4, hash_state = $5, in_file = 1, multipart = $6, parts = $7, \
                 part_bytes = $8, chunks = CASE WHEN $9 = 1 THEN $10 ELSE chunks + $10 END, touched_at = $11 \
                 WHERE id = $1 AND epoch = $2 AND bytes_held = $3",
                vals![
                    &self.id,
                    self.epoch,
                    self.from,
                    self.to,
                    &self.hash,
                    key,
                    count,
                    bytes,
                    self.replace,
                    added,
                    self.at
                ],
            )
            .await?;
        if changed == 0 {
            let row = tx
                .row(
                    "SELECT bytes_held, hash_state, epoch, multipart FROM upload WHERE id = $1",
                    vals![&self.id],
                )
                .await?;
            let Some(mut row) = row else { return Ok(false) };
            return Ok(row.size(0)? == self.to
                && row.bytes(1)? == self.hash
                && row.int(2)? == self.epoch
                && row.opt_text(3)?.as_ref() == key);
        }
        if self.replace {
            tx.exec(
                "DELETE FROM upload_chunk WHERE upload_id = $1",
                vals![&self.id],
            )
            .await?;
        }
        if added {
            let start = self.to - self.tail.len() as u64;
            tx.exec(
                "INSERT INTO upload_chunk (upload_id, start, bytes) VALUES ($1, $2, $3) \
                 ON CONFLICT (upload_id, start) DO UPDATE SET bytes = excluded.bytes",
                vals![&self.id, start, &self.tail],
            )
            .await?;
        }
        let first = count.saturating_sub(self.fresh.len() as u64);
        for (number, part) in (first..).zip(&self.fresh) {
            tx.exec(
                "INSERT INTO upload_part (key, number, size, tag) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (key, number) DO UPDATE SET size = excluded.size, tag = excluded.tag",
                vals![key, number, part.size, &part.tag],
            )
            .await?;
        }
        Ok(true)
    }
}

/// What is to be given up in the object store: all that was, and what was begun so long ago without a session that nobody
/// can still be writing to it. Cost: the rows given, and those of uploads that are as old and have a session.
#[derive(Clone, Copy, Debug)]
pub struct Abandoned {
    /// Milliseconds since 1970.
    pub begun_before: i64,
    /// At most so many.
    pub limit: u32,
}

impl Op for Abandoned {
    type Out = Vec<MultipartRow>;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        tx.exec(
            "UPDATE multipart SET state = $2 WHERE state = $3 AND began_at < $1 AND NOT EXISTS \
             (SELECT 1 FROM upload WHERE upload.id = multipart.upload_id)",
            vals![self.begun_before, GIVEN_UP, OPEN],
        )
        .await?;
        let rows = tx
            .query(
                "SELECT key, session, part_size FROM multipart WHERE state = $1 ORDER BY began_at LIMIT $2",
                vals![GIVEN_UP, self.limit],
            )
            .await?;
        rows.into_iter().map(multipart).collect()
    }
}

/// Multipart uploads of which only rows are left. Cost: the rows given.
#[derive(Clone, Copy, Debug)]
pub struct Over {
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Over {}
impl Op for Over {
    type Out = Vec<String>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT key FROM multipart WHERE state = $1 ORDER BY began_at LIMIT $2",
                vals![OVER, self.limit],
            )
            .await?;
        rows.into_iter().map(|mut row| row.text(0)).collect()
    }
}

/// Removes rows of a multipart upload that became a blob, or is gone from the object store; `true`: there are more.
/// Cost: [`PAGE`] rows at most.
#[derive(Clone, Debug)]
pub struct Forget {
    /// Its key.
    pub key: String,
}

impl Op for Forget {
    type Out = bool;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let last = tx
            .row(
                "SELECT number FROM upload_part WHERE key = $1 ORDER BY number DESC LIMIT 1",
                vals![&self.key],
            )
            .await?;
        let last = last.map(|mut row| row.int(0)).transpose()?;
        if let Some(last) = last {
            tx.exec(
                "DELETE FROM upload_part WHERE key = $1 AND number > $2",
                vals![&self.key, last - i64::from(PAGE)],
            )
            .await?;
        }
        let more = last.is_some_and(|last| last >= i64::from(PAGE));
        if more {
            tx.exec(
                "UPDATE multipart SET state = $2 WHERE key = $1",
                vals![&self.key, OVER],
            )
            .await?;
        } else {
            tx.exec("DELETE FROM multipart WHERE key = $1", vals![&self.key])
                .await?;
        }
        Ok(more)
    }
}

/// The digest that a key without one was published for. Whether a live blob still has that key is for
/// [`super::blob::Lookup`] to say. Cost: one row.
#[derive(Clone, Debug)]
pub struct DigestOf {
    /// The key.
    pub key: String,
}

impl ReadOp for DigestOf {}
impl Op for DigestOf {
    type Out = Option<Digest>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let row = tx
            .row(
                "SELECT digest FROM unnamed WHERE key = $1",
                vals![&self.key],
            )
            .await?;
        row.map(|mut row| row.digest(0)).transpose()
    }
}

/// Takes the multipart upload for a blob's; `false`: it was given up, or is unknown.
pub(crate) async fn publish<T: Tx>(tx: &mut T, key: &str, digest: &Digest) -> Result<bool> {
    let taken = tx
        .exec(
            "UPDATE multipart SET state = $2 WHERE key = $1 AND state = $3",
            vals![key, OVER, OPEN],
        )
        .await?;
    if taken == 1 {
        tx.exec(
            "INSERT INTO unnamed (key, digest) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING",
            vals![key, digest],
        )
        .await?;
    }
    Ok(taken == 1)
}

/// Whether the object of a multipart upload is to go. Locks its row.
pub(crate) async fn is_given_up<T: Tx>(tx: &mut T, key: &str) -> Result<bool> {
    let row = tx
        .row(
            "SELECT state FROM multipart WHERE key = $1 FOR UPDATE",
            vals![key],
        )
        .await?;
    Ok(row.map(|mut row| row.int(0)).transpose()? == Some(GIVEN_UP))
}

/// Takes an object for a blob's whose multipart upload nobody may know any more.
pub(crate) async fn adopt<T: Tx>(tx: &mut T, key: &str, digest: &Digest) -> Result<()> {
    if !publish(tx, key, digest).await? && !key.contains('.') {
        tx.exec(
            "INSERT INTO unnamed (key, digest) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING",
            vals![key, digest],
        )
        .await?;
    }
    Ok(())
}

/// Gives up all that was begun for an upload whose session ends.
pub(crate) async fn end<T: Tx>(tx: &mut T, upload: &str) -> Result<()> {
    tx.exec(
        "UPDATE multipart SET state = $2 WHERE upload_id = $1 AND state = $3",
        vals![upload, GIVEN_UP, OPEN],
    )
    .await?;
    Ok(())
}

fn multipart(mut row: Row) -> Result<MultipartRow> {
    Ok(MultipartRow {
        key: row.text(0)?,
        session: row.text(1)?,
        part_size: row.size(2)?,
    })
}
