//! The audit log: entries in one row without gaps, each with a hash over the one before, and the head that says where it ends.
//!
//! What is hashed, and with which key, is `core`'s business (`core/audit`): here entries are only kept, and given their places under
//! the lock of the head, so that of two processes that do so at once one finds the head changed and begins anew. What goes in are
//! events, through the cursor of the consumer [`CONSUMER`], which moves in the same transaction.

use super::event::Seen;
use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;
use crate::value::Row;

/// The consumer of events that puts them into the log.
pub const CONSUMER: &str = "audit";
/// Most entries that one operation writes or removes.
pub const BATCH: usize = 100;

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryRow {
    /// Its place: one more than the entry's before.
    pub seq: i64,
    /// When it happened, in milliseconds since 1970.
    pub at: i64,
    /// What happened, as [`crate::event::Kind::as_str`] says it.
    pub action: String,
    /// Who did it.
    pub principal: String,
    /// The id of the credential, or how the principal signed in without one; empty: unknown.
    pub credential: String,
    /// The client's address; empty: unknown.
    pub address: String,
    /// The request's id; empty: no request.
    pub request: String,
    /// The repository or namespace, if it is about one.
    pub repository: Option<String>,
    /// The blob or manifest, if it is about one.
    pub digest: Option<String>,
    /// The tag, if it is about one.
    pub tag: Option<String>,
    /// JSON object with what else is known.
    pub detail: String,
    /// Over the hash before and all of the above.
    pub hash: Vec<u8>,
    /// Of the hash, with a key that is not in the database.
    pub mac: Vec<u8>,
}

fn entry(mut row: Row) -> Result<EntryRow> {
    Ok(EntryRow {
        seq: row.int(0)?,
        at: row.int(1)?,
        action: row.text(2)?,
        principal: row.text(3)?,
        credential: row.text(4)?,
        address: row.text(5)?,
        request: row.text(6)?,
        repository: row.opt_text(7)?,
        digest: row.opt_text(8)?,
        tag: row.opt_text(9)?,
        detail: row.text(10)?,
        hash: row.bytes(11)?,
        mac: row.bytes(12)?,
    })
}

/// Where the log begins and ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadRow {
    /// The last entry; 0: there was none ever.
    pub seq: i64,
    /// Its hash.
    pub hash: Vec<u8>,
    /// The last entry that was cut off at the old end; 0: none.
    pub cut_seq: i64,
    /// Its hash.
    pub cut_hash: Vec<u8>,
    /// Of all of the above, with a key that is not in the database.
    pub mac: Vec<u8>,
}

/// What the rows say about the end of the log, all of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// The head, if there is one.
    pub head: Option<HeadRow>,
    /// The last entry that there is, and its hash.
    pub last: Option<(i64, Vec<u8>)>,
}

/// Where the log ends. Cost: two rows.
#[derive(Clone, Copy, Debug)]
pub struct Head;

impl ReadOp for Head {}
impl Op for Head {
    type Out = Ends;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Ends> {
        let row = tx
            .row(
                "SELECT h.seq, h.hash, h.cut_seq, h.cut_hash, h.mac, e.seq, e.hash FROM (SELECT 1 AS id) o \
                 LEFT JOIN audit_head h ON h.id = o.id \
                 LEFT JOIN audit_entry e ON e.seq = (SELECT max(seq) FROM audit_entry)",
                vals![],
            )
            .await?;
        let Some(mut row) = row else {
            return Ok(Ends::default());
        };
        let head = match row.opt_int(0)? {
            Some(seq) => Some(HeadRow {
                seq,
                hash: row.bytes(1)?,
                cut_seq: row.int(2)?,
                cut_hash: row.bytes(3)?,
                mac: row.bytes(4)?,
            }),
            None => None,
        };
        let last = match row.opt_int(5)? {
            Some(seq) => Some((seq, row.bytes(6)?)),
            None => None,
        };
        Ok(Ends { head, last })
    }
}

/// Locks the head; whether it still is what the caller went by.
async fn locked<T: Tx>(tx: &mut T, expected: Option<&[u8]>) -> Result<bool> {
    let row = tx
        .row(
            "SELECT mac FROM audit_head WHERE id = 1 FOR UPDATE",
            vals![],
        )
        .await?;
    let mac = row.map(|mut row| row.bytes(0)).transpose()?;
    Ok(mac.as_deref() == expected)
}

async fn set<T: Tx>(tx: &mut T, head: &HeadRow) -> Result<()> {
    tx.exec(
        "UPDATE audit_head SET seq = $1, hash = $2, cut_seq = $3, cut_hash = $4, mac = $5 WHERE id = 1",
        vals![head.seq, &head.hash, head.cut_seq, &head.cut_hash, &head.mac],
    )
    .await?;
    Ok(())
}

/// Puts entries behind the last one, moves the head to the last of them, and the consumer's cursor to the last event that they were
/// made of. False: the log is not as the caller saw it; nothing was done. Locks the head. Cost: the entries and three rows.
#[derive(Clone, Debug)]
pub struct Append {
    /// The mac of the head that the entries follow; `None`: there is none.
    pub expected: Option<Vec<u8>>,
    /// [`BATCH`] at most.
    pub entries: Vec<EntryRow>,
    /// The head from then on.
    pub head: HeadRow,
    /// The last event that they were made of, and when.
    pub seen: Option<(i64, i64, i64)>,
}

impl Op for Append {
    type Out = bool;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let Some(first) = self.entries.first() else {
            return Ok(true);
        };
        if !locked(tx, self.expected.as_deref()).await? {
            return Ok(false);
        }
        let taken = tx
            .row(
                "SELECT 1 FROM audit_entry WHERE seq >= $1 LIMIT 1",
                vals![first.seq],
            )
            .await?;
        if taken.is_some() {
            return Ok(false);
        }
        if self.expected.is_none() {
            // Of two that begin the log at once, the second waits here for the first.
            let empty: &[u8] = &[];
            let made = tx
                .exec(
                    "INSERT INTO audit_head (id, seq, hash, cut_seq, cut_hash, mac) VALUES (1, 0, $1, 0, $1, $1) \
                     ON CONFLICT (id) DO NOTHING",
                    vals![empty],
                )
                .await?;
            if made == 0 {
                return Ok(false);
            }
        }
        for entry in self.entries.iter().take(BATCH) {
            tx.exec(
                "INSERT INTO audit_entry (seq, at, action, principal, credential, address, request, repository, digest, tag, \
                 detail, hash, mac) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
                vals![
                    entry.seq,
                    entry.at,
                    &entry.action,
                    &entry.principal,
                    &entry.credential,
                    &entry.address,
                    &entry.request,
                    entry.repository.as_deref(),
                    entry.digest.as_deref(),
                    entry.tag.as_deref(),
                    &entry.detail,
                    &entry.hash,
                    &entry.mac
                ],
            )
            .await?;
        }
        set(tx, &self.head).await?;
        if let Some((transaction, id, at)) = self.seen {
            let seen = Seen {
                consumer: CONSUMER.to_owned(),
                transaction,
                id,
                at,
            };
            seen.run(tx).await?;
        }
        Ok(true)
    }
}

/// Cuts the oldest entries off, up to the one that the new head names as cut; [`BATCH`] at most. False: the log is not as the
/// caller saw it; nothing was done. Locks the head. Cost: the entries and two rows.
#[derive(Clone, Debug)]
pub struct Cut {
    /// The mac of the head that the caller saw.
    pub expected: Vec<u8>,
    /// The head from then on.
    pub head: HeadRow,
}

impl Op for Cut {
    type Out = bool;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        if !locked(tx, Some(&self.expected)).await? {
            return Ok(false);
        }
        tx.exec(
            "DELETE FROM audit_entry WHERE seq <= $1 AND seq > $2",
            vals![self.head.cut_seq, self.head.cut_seq - BATCH as i64],
        )
        .await?;
        set(tx, &self.head).await?;
        Ok(true)
    }
}

/// Entries in the order of their places. Cost: the rows given.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    /// Behind this place.
    pub after: i64,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Walk {}
impl Op for Walk {
    type Out = Vec<EntryRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT seq, at, action, principal, credential, address, request, repository, digest, tag, detail, hash, mac \
                 FROM audit_entry WHERE seq > $1 ORDER BY seq LIMIT $2",
                vals![self.after, self.limit],
            )
            .await?;
        rows.into_iter().map(entry).collect()
    }
}

/// Whose entries, or about what, a [`Page`] holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// All.
    Everything,
    /// Of this principal.
    Principal(String),
    /// On exactly this repository or namespace.
    Repository(String),
}

/// A place in the order of time: milliseconds since 1970, and the place in the log.
pub type Place = (i64, i64);

/// Entries by time. Cost: the rows given.
#[derive(Clone, Debug)]
pub struct Page {
    /// Which.
    pub about: About,
    /// Behind this place; with `latest_first`, from it on.
    pub from: Place,
    /// Before this place.
    pub until: Place,
    /// The latest first.
    pub latest_first: bool,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Page {}
impl Op for Page {
    type Out = Vec<EntryRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let ((from, from_seq), (until, until_seq)) = (self.from, self.until);
        let limit = self.limit;
        let rows = match (&self.about, self.latest_first) {
            (About::Everything, false) => {
                tx.query(
                    "SELECT seq, at, action, principal, credential, address, request, repository, digest, tag, detail, hash, mac \
                     FROM audit_entry WHERE (at, seq) > ($1, $2) AND (at, seq) < ($3, $4) ORDER BY at, seq LIMIT $5",
                    vals![from, from_seq, until, until_seq, limit],
                )
                .await?
            }
            (About::Everything, true) => {
                tx.query(
                    "SELECT seq, at, action, principal, credential, address, request, repository, digest, tag, detail, hash, mac \
                     FROM audit_entry WHERE (at, seq) > ($1, $2) AND (at, seq) < ($3, $4) ORDER BY at DESC, seq DESC LIMIT $5",
                    vals![from, from_seq, until, until_seq, limit],
                )
                .await?
            }
            (About::Principal(name), false) => {
                tx.query(
                    "SELECT seq, at, action, principal, credential, address, request, repository, digest, tag, detail, hash, mac \
                     FROM audit_entry WHERE principal = $1 AND (at, seq) > ($2, $3) AND (at, seq) < ($4, $5) \
                     ORDER BY at, seq LIMIT $6",
                    vals![name, from, from_seq, until, until_seq, limit],
                )
                .await?
            }
            (About::Principal(name), true) => {
                tx.query(
                    "SELECT seq, at, action, principal, credential, address, request, repository, digest, tag, detail, hash, mac \
                     FROM audit_entry WHERE principal = $1 AND (at, seq) > ($2, $3) AND (at, seq) < ($4, $5) \
                     ORDER BY at DESC, seq DESC LIMIT $6",
                    vals![name, from, from_seq, until, until_seq, limit],
                )
                .await?
            }
            (About::Repository(name), false) => {
                tx.query(
                    "SELECT seq, at, action, principal, credential, address, request, repository, digest, tag, detail, hash, mac \
                     FROM audit_entry WHERE repository = $1 AND (at, seq) > ($2, $3) AND (at, seq) < ($4, $5) \
                     ORDER BY at, seq LIMIT $6",
                    vals![name, from, from_seq, until, until_seq, limit],
                )
                .await?
            }
            (About::Repository(name), true) => {
                tx.query(
                    "SELECT seq, at, action, principal, credential, address, request, repository, digest, tag, detail, hash, mac \
                     FROM audit_entry WHERE repository = $1 AND (at, seq) > ($2, $3) AND (at, seq) < ($4, $5) \
                     ORDER BY at DESC, seq DESC LIMIT $6",
                    vals![name, from, from_seq, until, until_seq, limit],
                )
                .await?
            }
        };
        rows.into_iter().map(entry).collect()
    }
}
