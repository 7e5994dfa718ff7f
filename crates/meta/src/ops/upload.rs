//! Upload sessions: a row claims only bytes that were durable before its commit, with the hash state of exactly that
//! offset. The session's publish is in [`super::blob::Publish`].

use serde_json::json;
use wharf_oci::{Algorithm, RepositoryName};

use super::event::{self, Fact, Kind};
use super::multipart::{self, ClaimedParts, MultipartRow};
use crate::error::{Error, Result};
use crate::tx::{Counter, Op, ReadOp, Tx};
use crate::vals;

/// Inline chunks are joined when there are so many, so that a request for each byte does not make the end of its
/// session expensive.
pub const MAX_CHUNKS: u32 = 64;

/// A session as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadRow {
    /// The session's id.
    pub id: String,
    /// Where it was opened.
    pub repository: RepositoryName,
    /// The principal that opened it (UP-5).
    pub owner: String,
    /// The algorithm that the client announced (UP-7).
    pub algorithm: Option<Algorithm>,
    /// So many bytes are durable.
    pub offset: u64,
    /// The hasher's state at `offset`; empty: nothing was claimed yet.
    pub hash: Vec<u8>,
    /// The bytes are in the blob store, or in `parts`; otherwise in [`Chunks`].
    pub in_file: bool,
    /// So many inline chunks, fewer than [`MAX_CHUNKS`].
    pub chunks: u32,
    /// Parts of a multipart upload; what follows them is in [`Chunks`].
    pub parts: Option<ClaimedParts>,
    /// The fencing token of whoever writes.
    pub epoch: i64,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970: the last claim.
    pub touched_at: i64,
}

/// Opens a session; the same id again changes nothing. A session without bytes promises none, so it may be lost in a power
/// cut: the client gets a 404 and opens another. Cost: one row.
#[derive(Clone, Debug)]
pub struct Create {
    /// An unguessable id.
    pub id: String,
    /// Where.
    pub repository: RepositoryName,
    /// The principal.
    pub owner: String,
    /// The algorithm that the client announced.
    pub algorithm: Option<Algorithm>,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Create {
    type Out = ();
    const SINGLE: bool = true;
    const RELAXED: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        let made = tx
            .exec(
                "INSERT INTO upload (id, repository, owner, algorithm, bytes_held, hash_state, in_file, chunks, epoch, \
                 created_at, touched_at) VALUES ($1, $2, $3, $4, 0, $5, 0, 0, 0, $6, $6) ON CONFLICT (id) DO NOTHING",
                vals![
                    &self.id,
                    &self.repository,
                    &self.owner,
                    self.algorithm.map(Algorithm::as_str),
                    &[][..],
                    self.at
                ],
            )
            .await?;
        tx.count(Counter::Uploads, made as i64).await
    }
}

/// A session. Cost: one row.
#[derive(Clone, Debug)]
pub struct Get {
    /// Its id.
    pub id: String,
}

impl ReadOp for Get {}
impl Op for Get {
    type Out = Option<UploadRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let row = tx
            .row(
                "SELECT u.id, u.repository, u.owner, u.algorithm, u.bytes_held, u.hash_state, u.in_file, u.chunks, u.epoch, \
                 u.created_at, u.touched_at, u.parts, u.part_bytes, m.key, m.session, m.part_size FROM upload u \
                 LEFT JOIN multipart m ON m.key = u.multipart WHERE u.id = $1",
                vals![&self.id],
            )
            .await?;
        let Some(mut row) = row else { return Ok(None) };
        let parts = match row.opt_text(13)? {
            Some(key) => Some(ClaimedParts {
                multipart: MultipartRow {
                    key,
                    session: row.text(14)?,
                    part_size: row.size(15)?,
                },
                count: row.size(11)?,
                bytes: row.size(12)?,
            }),
            None => None,
        };
        let algorithm = row
            .opt_text(3)?
            .map(|text| text.parse::<Algorithm>())
            .transpose();
        Ok(Some(UploadRow {
            id: row.text(0)?,
            repository: row.repository(1)?,
            owner: row.text(2)?,
            algorithm: algorithm
                .map_err(|_| Error::Corrupt("an upload names an unknown hash algorithm".into()))?,
            offset: row.size(4)?,
            hash: row.bytes(5)?,
            in_file: row.flag(6)?,
            chunks: u32::try_from(row.int(7)?).unwrap_or(u32::MAX),
            parts,
            epoch: row.int(8)?,
            created_at: row.int(9)?,
            touched_at: row.int(10)?,
        }))
    }
}

/// The inline bytes of a session, in order. Cost: its chunks.
#[derive(Clone, Debug)]
pub struct Chunks {
    /// The session's id.
    pub id: String,
}

impl ReadOp for Chunks {}
impl Op for Chunks {
    type Out = Vec<u8>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Vec<u8>> {
        chunks(tx, &self.id).await
    }
}

/// Takes a session over: gives it a new epoch, so that whoever held it before can claim nothing more. `None`: the
/// session is gone, or somebody else took it first. Cost: one row.
#[derive(Clone, Debug)]
pub struct Take {
    /// The session's id.
    pub id: String,
    /// The epoch that was read.
    pub epoch: i64,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Take {
    type Out = Option<i64>;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let row = tx
            .row(
                "UPDATE upload SET epoch = epoch + 1, touched_at = $3 WHERE id = $1 AND epoch = $2 RETURNING epoch",
                vals![&self.id, self.epoch, self.at],
            )
            .await?;
        row.map(|mut row| row.int(0)).transpose()
    }
}

/// Claims durable bytes by compare-and-swap on epoch and offset; `false`: the session is gone, was taken over or stands
/// elsewhere. The same claim again is `true`, since the answer to the first may have been lost. Decides on the upload's
/// row. Cost: two rows; when it moves to a file, and in every [`MAX_CHUNKS`]th claim, also the chunks it had.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The session's id.
    pub id: String,
    /// The epoch under which the bytes were written.
    pub epoch: i64,
    /// The offset before.
    pub from: u64,
    /// The offset after.
    pub to: u64,
    /// The hasher's state at `to`.
    pub hash: Vec<u8>,
    /// The bytes of `from..to`, when they are kept inline.
    pub append: Option<Vec<u8>>,
    /// All bytes are in the upload file now: inline chunks are dropped.
    pub in_file: bool,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Claim {
    type Out = bool;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        if let Some(bytes) = &self.append
            && (self.in_file || self.to.checked_sub(self.from) != Some(bytes.len() as u64))
        {
            let reason = "the bytes to append are not those of the claim".to_owned();
            return Err(Error::Bug {
                op: Self::name().to_owned(),
                reason,
            });
        }
        let added = self.append.as_ref().is_some_and(|bytes| !bytes.is_empty());
        let changed = tx
            .row(
                "UPDATE upload SET bytes_held = $4, hash_state = $5, in_file = $6, \
                 chunks = CASE WHEN $6 = 1 THEN 0 ELSE chunks + $7 END, touched_at = $8 \
                 WHERE id = $1 AND epoch = $2 AND bytes_held = $3 AND in_file <= $6 RETURNING chunks",
                vals![
                    &self.id,
                    self.epoch,
                    self.from,
                    self.to,
                    &self.hash,
                    self.in_file,
                    added,
                    self.at
                ],
            )
            .await?;
        let Some(mut changed) = changed else {
            let row = tx
                .row(
                    "SELECT bytes_held, hash_state, epoch, in_file FROM upload WHERE id = $1",
                    vals![&self.id],
                )
                .await?;
            let Some(mut row) = row else { return Ok(false) };
            return Ok(row.size(0)? == self.to
                && row.bytes(1)? == self.hash
                && row.int(2)? == self.epoch
                && row.flag(3)? == self.in_file);
        };
        if self.in_file {
            tx.exec(
                "DELETE FROM upload_chunk WHERE upload_id = $1",
                vals![&self.id],
            )
            .await?;
        }
        if let Some(bytes) = &self.append
            && added
        {
            // A claim of the same range by an epoch that lost is overwritten.
            tx.exec(
                "INSERT INTO upload_chunk (upload_id, start, bytes) VALUES ($1, $2, $3) \
                 ON CONFLICT (upload_id, start) DO UPDATE SET bytes = excluded.bytes",
                vals![&self.id, self.from, bytes],
            )
            .await?;
            if changed.int(0)? >= i64::from(MAX_CHUNKS) {
                join(tx, &self.id).await?;
            }
        }
        Ok(true)
    }
}

/// Makes one chunk of all that a session has.
async fn join<T: Tx>(tx: &mut T, id: &str) -> Result<()> {
    let bytes = chunks(tx, id).await?;
    tx.exec("DELETE FROM upload_chunk WHERE upload_id = $1", vals![id])
        .await?;
    tx.exec(
        "INSERT INTO upload_chunk (upload_id, start, bytes) VALUES ($1, 0, $2)",
        vals![id, &bytes],
    )
    .await?;
    tx.exec("UPDATE upload SET chunks = 1 WHERE id = $1", vals![id])
        .await?;
    Ok(())
}

async fn chunks<T: Tx>(tx: &mut T, id: &str) -> Result<Vec<u8>> {
    let rows = tx
        .query(
            "SELECT bytes FROM upload_chunk WHERE upload_id = $1 ORDER BY start",
            vals![id],
        )
        .await?;
    let mut all = Vec::new();
    for mut row in rows {
        all.append(&mut row.bytes(0)?);
    }
    Ok(all)
}

/// Ends a session without a blob; `false`: it was gone. Cost: its row and chunks.
#[derive(Clone, Debug)]
pub struct Delete {
    /// The session's id.
    pub id: String,
}

impl Op for Delete {
    type Out = bool;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        Ok(remove(tx, &self.id, i64::MAX).await?.is_some())
    }
}

/// Forgets a session that nobody has touched since a time; tells whether there was such a one. Cost: as [`Delete`], and an event.
#[derive(Clone, Debug)]
pub struct Expire {
    /// The session's id.
    pub id: String,
    /// Milliseconds since 1970.
    pub touched_before: i64,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Expire {
    type Out = bool;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let Some(removed) = remove(tx, &self.id, self.touched_before).await? else {
            return Ok(false);
        };
        let fact = Fact {
            kind: Kind::UploadExpire,
            repository: Some(&removed.repository),
            digest: None,
            tag: None,
            actor: &removed.owner,
            at: self.at,
            payload: json!({
                "cause": "nobody continued it",
                "upload": self.id,
                "held": removed.held,
                "since": removed.touched_at,
            }),
        };
        event::record(tx, fact).await?;
        Ok(true)
    }
}

/// What a session was that is gone.
pub(crate) struct Removed {
    repository: RepositoryName,
    owner: String,
    held: i64,
    touched_at: i64,
}

/// Locks a session's row, if there is one.
pub(crate) async fn lock<T: Tx>(tx: &mut T, id: &str) -> Result<()> {
    tx.row("SELECT 1 FROM upload WHERE id = $1 FOR UPDATE", vals![id])
        .await?;
    Ok(())
}

/// Removes a session's rows, if it was not touched since; tells what it was.
pub(crate) async fn remove<T: Tx>(
    tx: &mut T,
    id: &str,
    touched_before: i64,
) -> Result<Option<Removed>> {
    let removed = tx
        .row(
            "DELETE FROM upload WHERE id = $1 AND touched_at < $2 RETURNING chunks, repository, owner, bytes_held, touched_at",
            vals![id, touched_before],
        )
        .await?;
    let Some(mut row) = removed else {
        return Ok(None);
    };
    multipart::end(tx, id).await?;
    if row.int(0)? > 0 {
        tx.exec("DELETE FROM upload_chunk WHERE upload_id = $1", vals![id])
            .await?;
    }
    tx.count(Counter::Uploads, -1).await?;
    Ok(Some(Removed {
        repository: row.repository(1)?,
        owner: row.text(2)?,
        held: row.int(3)?,
        touched_at: row.int(4)?,
    }))
}

/// Sessions not touched since a time, longest first. Cost: the rows given.
#[derive(Clone, Copy, Debug)]
pub struct Expired {
    /// Milliseconds since 1970.
    pub touched_before: i64,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Expired {}
impl Op for Expired {
    type Out = Vec<String>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT id FROM upload WHERE touched_at < $1 ORDER BY touched_at LIMIT $2",
                vals![self.touched_before, self.limit],
            )
            .await?;
        rows.into_iter().map(|mut row| row.text(0)).collect()
    }
}

/// How many sessions are open. Cost: the counter's row, and each change that [`super::counter::Fold`] has not seen.
#[derive(Clone, Copy, Debug)]
pub struct CountOpen;

impl ReadOp for CountOpen {}
impl Op for CountOpen {
    type Out = u64;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u64> {
        let row = tx
            .row(
                "SELECT CAST(COALESCE(SUM(part), 0) AS BIGINT) FROM (SELECT value AS part FROM counter WHERE name = $1 \
                 UNION ALL SELECT delta FROM counter_delta WHERE name = $1) AS parts",
                vals![Counter::Uploads.as_str()],
            )
            .await?;
        row.map_or(Ok(0), |mut row| Ok(u64::try_from(row.int(0)?).unwrap_or(0)))
    }
}
