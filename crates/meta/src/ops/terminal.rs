//! Terminals: programs on people's machines that signed in by the device flow, each with a refresh token that is spent by use.
//!
//! All refresh tokens of one terminal share a part, by which its row is found; of the whole tokens the row knows the one that is good
//! and the one before it. Any other that has the part was spent earlier, or never came to anybody: the terminal ends. Rotating is one
//! operation under the row's lock, so that of two that rotate at once the second sees what the first has done.

use std::fmt;

use serde_json::{Value, json};

use super::event::{self, Fact, Kind};
use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;
use crate::value::Row;

/// Most terminals of one user; one more ends the oldest.
pub const MOST_TERMINALS: u32 = 50;

/// A terminal as stored.
#[derive(Clone, PartialEq, Eq)]
pub struct TerminalRow {
    /// Its name in lists.
    pub id: String,
    /// The user.
    pub principal: String,
    /// Where the user is kept.
    pub source: String,
    /// Names the password it was approved with; empty where there was none.
    pub credential: String,
    /// The provider with which whoever approved it had signed in; empty: a password.
    pub provider: String,
    /// The account there.
    pub subject: String,
    /// What the machine is called.
    pub device: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// When it was used last, in milliseconds since 1970, to the minute.
    pub seen_at: i64,
    /// From where it was used last.
    pub address: String,
    /// SHA-256 of what all its refresh tokens share.
    pub family: Vec<u8>,
    /// SHA-256 of the refresh token that is good.
    pub hash: Vec<u8>,
    /// SHA-256 of the one before it.
    pub previous: Option<Vec<u8>>,
    /// When that one was spent, in milliseconds since 1970.
    pub rotated_at: i64,
    /// Counts refresh tokens.
    pub generation: i64,
    /// When it ends unless it is used, in milliseconds since 1970.
    pub expires_at: i64,
    /// When it ends anyway, in milliseconds since 1970.
    pub ends_at: i64,
}

impl fmt::Debug for TerminalRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TerminalRow")
            .field("id", &self.id)
            .field("principal", &self.principal)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

fn read(row: &mut Row) -> Result<TerminalRow> {
    Ok(TerminalRow {
        id: row.text(0)?,
        principal: row.text(1)?,
        source: row.text(2)?,
        credential: row.text(3)?,
        provider: row.text(4)?,
        subject: row.text(5)?,
        device: row.text(6)?,
        created_at: row.int(7)?,
        seen_at: row.int(8)?,
        address: row.text(9)?,
        family: row.bytes(10)?,
        hash: row.bytes(11)?,
        previous: row.opt_bytes(12)?,
        rotated_at: row.int(13)?,
        generation: row.int(14)?,
        expires_at: row.int(15)?,
        ends_at: row.int(16)?,
    })
}

async fn told<T: Tx>(
    tx: &mut T,
    kind: Kind,
    principal: &str,
    at: i64,
    change: (Value, Value),
) -> Result<()> {
    let fact = Fact {
        kind,
        repository: None,
        digest: None,
        tag: None,
        actor: principal,
        at,
        payload: json!({"what": "terminal", "before": change.0, "after": change.1}),
    };
    event::record(tx, fact).await
}

/// Keeps a terminal of a user who is locked; of too many the oldest ends.
pub(super) async fn add<T: Tx>(tx: &mut T, row: &TerminalRow) -> Result<()> {
    let of = Of {
        principal: row.principal.clone(),
    };
    let held = of.run(tx).await?;
    let over = (held.len() + 1).saturating_sub(MOST_TERMINALS as usize);
    for old in held.into_iter().take(over) {
        tx.exec("DELETE FROM terminal WHERE id = $1", vals![&old.id])
            .await?;
        let before = json!({"ids": [old.id], "user": old.principal, "why": "too many"});
        let change = (before, Value::Null);
        told(
            tx,
            Kind::CredentialRemove,
            &row.principal,
            row.created_at,
            change,
        )
        .await?;
    }
    tx.exec(
        "INSERT INTO terminal (id, principal, source, credential, provider, subject, device, created_at, seen_at, address, family, hash, \
         previous, rotated_at, generation, expires_at, ends_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
        vals![
            &row.id,
            &row.principal,
            &row.source,
            &row.credential,
            &row.provider,
            &row.subject,
            &row.device,
            row.created_at,
            row.seen_at,
            &row.address,
            &row.family,
            &row.hash,
            row.previous.as_deref(),
            row.rotated_at,
            row.generation,
            row.expires_at,
            row.ends_at
        ],
    )
    .await?;
    let after = json!({"id": row.id, "user": row.principal, "device": row.device, "provider": row.provider, "expires_at": row.ends_at});
    let change = (Value::Null, after);
    told(
        tx,
        Kind::CredentialCreate,
        &row.principal,
        row.created_at,
        change,
    )
    .await
}

/// The terminal with an id. Cost: one row.
#[derive(Clone, Debug)]
pub struct ById {
    /// Its id.
    pub id: String,
}

impl ReadOp for ById {}
impl Op for ById {
    type Out = Option<TerminalRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let row = tx
            .row(
                "SELECT id, principal, source, credential, provider, subject, device, created_at, seen_at, address, family, hash, previous, \
                 rotated_at, generation, expires_at, ends_at FROM terminal WHERE id = $1",
                vals![&self.id],
            )
            .await?;
        row.map(|mut row| read(&mut row)).transpose()
    }
}

/// The terminal with a family of refresh tokens. Cost: one row.
#[derive(Clone)]
pub struct ByFamily {
    /// SHA-256 of what its tokens share.
    pub family: Vec<u8>,
}

impl ReadOp for ByFamily {}
impl Op for ByFamily {
    type Out = Option<TerminalRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let row = tx
            .row(
                "SELECT id, principal, source, credential, provider, subject, device, created_at, seen_at, address, family, hash, previous, \
                 rotated_at, generation, expires_at, ends_at FROM terminal WHERE family = $1",
                vals![&self.family],
            )
            .await?;
        row.map(|mut row| read(&mut row)).transpose()
    }
}

/// The terminals of a user, the oldest first. Cost: these.
#[derive(Clone, Debug)]
pub struct Of {
    /// The user.
    pub principal: String,
}

impl ReadOp for Of {}
impl Op for Of {
    type Out = Vec<TerminalRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT id, principal, source, credential, provider, subject, device, created_at, seen_at, address, family, hash, previous, \
                 rotated_at, generation, expires_at, ends_at FROM terminal WHERE principal = $1 ORDER BY created_at, id LIMIT $2",
                vals![&self.principal, MOST_TERMINALS],
            )
            .await?;
        rows.into_iter().map(|mut row| read(&mut row)).collect()
    }
}

/// What came of rotating.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotated {
    /// No such terminal.
    Unknown,
    /// Its time is over.
    Over,
    /// The token was spent: the terminal has ended.
    Reused(Box<TerminalRow>),
    /// The next token is good, and only that one.
    Done(Box<TerminalRow>),
}

/// Spends a refresh token for the next one. Cost: one row.
#[derive(Clone)]
pub struct Rotate {
    /// SHA-256 of what the tokens share.
    pub family: Vec<u8>,
    /// SHA-256 of the one that is shown.
    pub shown: Vec<u8>,
    /// SHA-256 of the next one.
    pub next: Vec<u8>,
    /// Milliseconds since 1970.
    pub at: i64,
    /// So long the token before the last is still good for another one, since the last may have been lost on its way; in ms.
    pub grace: i64,
    /// So long the terminal may go on without being used, in ms.
    pub idle: i64,
    /// From where it is used.
    pub address: String,
}

impl Op for Rotate {
    type Out = Rotated;
    // No row more; and who cannot go on can neither pull from a full disk nor delete.
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Rotated> {
        let row = tx
            .row(
                "SELECT id, principal, source, credential, provider, subject, device, created_at, seen_at, address, family, hash, previous, \
                 rotated_at, generation, expires_at, ends_at FROM terminal WHERE family = $1 FOR UPDATE",
                vals![&self.family],
            )
            .await?;
        let Some(mut row) = row.map(|mut row| read(&mut row)).transpose()? else {
            return Ok(Rotated::Unknown);
        };
        if row.expires_at <= self.at {
            return Ok(Rotated::Over);
        }
        if self.shown == row.hash {
            row.previous = Some(std::mem::take(&mut row.hash));
            row.rotated_at = self.at;
        } else if row.previous.as_ref() != Some(&self.shown)
            || self.at.saturating_sub(row.rotated_at).unsigned_abs() > self.grace.unsigned_abs()
        {
            tx.exec("DELETE FROM terminal WHERE id = $1", vals![&row.id])
                .await?;
            let before = json!({"id": row.id, "user": row.principal, "device": row.device, "address": self.address});
            let change = (before, Value::Null);
            told(tx, Kind::TerminalReuse, &row.principal, self.at, change).await?;
            return Ok(Rotated::Reused(Box::new(row)));
        }
        // Had the last one been used, the one shown would not be the one before it any more.
        row.hash = self.next.clone();
        row.generation += 1;
        row.seen_at = self.at;
        row.address.clone_from(&self.address);
        row.expires_at = self.at.saturating_add(self.idle).min(row.ends_at);
        tx.exec(
            "UPDATE terminal SET hash = $2, previous = $3, rotated_at = $4, generation = $5, seen_at = $6, address = $7, expires_at = $8 \
             WHERE id = $1",
            vals![
                &row.id,
                &row.hash,
                row.previous.as_deref(),
                row.rotated_at,
                row.generation,
                row.seen_at,
                &row.address,
                row.expires_at
            ],
        )
        .await?;
        Ok(Rotated::Done(Box::new(row)))
    }
}

/// Notes that a terminal was used. Cost: one row.
#[derive(Clone, Debug)]
pub struct Touch {
    /// Its id.
    pub id: String,
    /// From where.
    pub address: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Touch {
    type Out = ();

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        tx.exec(
            "UPDATE terminal SET seen_at = $2, address = $3 WHERE id = $1 AND seen_at < $2",
            vals![&self.id, self.at, &self.address],
        )
        .await?;
        Ok(())
    }
}

/// Ends terminals of a user who is locked, those that are meant; gives how many.
pub(super) async fn end<T: Tx>(
    tx: &mut T,
    principal: &str,
    at: i64,
    meant: impl Fn(&TerminalRow) -> bool + Send,
) -> Result<usize> {
    let of = Of {
        principal: principal.to_owned(),
    };
    let mut gone = Vec::new();
    for row in of.run(tx).await?.into_iter().filter(|row| meant(row)) {
        let ended = tx
            .exec("DELETE FROM terminal WHERE id = $1", vals![&row.id])
            .await?;
        // Else a token that was spent has just ended it.
        if ended > 0 {
            gone.push(row.id);
        }
    }
    if gone.is_empty() {
        return Ok(0);
    }
    let count = gone.len();
    let change = (json!({"ids": gone, "user": principal}), Value::Null);
    told(tx, Kind::CredentialRemove, principal, at, change).await?;
    Ok(count)
}

/// When the last terminal of an account ends at the latest, in milliseconds since 1970; `None`: there is none any more.
pub(super) async fn last_of<T: Tx>(
    tx: &mut T,
    principal: &str,
    (provider, subject): (&str, &str),
    at: i64,
) -> Result<Option<i64>> {
    let of = Of {
        principal: principal.to_owned(),
    };
    let rows = of.run(tx).await?.into_iter();
    let rows = rows
        .filter(|row| row.provider == provider && row.subject == subject && row.expires_at > at);
    Ok(rows.map(|row| row.ends_at).max())
}

/// Forgets terminals that ended before a time, at most so many; gives how many. Cost: their rows.
#[derive(Clone, Copy, Debug)]
pub struct Forget {
    /// Milliseconds since 1970.
    pub before: i64,
    /// At most so many.
    pub limit: u32,
}

impl Op for Forget {
    type Out = u64;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u64> {
        // Asked twice: PostgreSQL looks anew at a row that was just used, and only there.
        tx.exec(
            "DELETE FROM terminal WHERE expires_at < $1 AND id IN (SELECT id FROM terminal WHERE expires_at < $1 ORDER BY expires_at \
             LIMIT $2)",
            vals![self.before, self.limit],
        )
        .await
    }
}

/// Ends all terminals of a user that goes, and what it has decided.
pub(super) async fn delete_of<T: Tx>(tx: &mut T, principal: &str) -> Result<()> {
    tx.exec(
        "DELETE FROM device_grant WHERE principal = $1",
        vals![principal],
    )
    .await?;
    tx.exec(
        "DELETE FROM terminal WHERE principal = $1",
        vals![principal],
    )
    .await?;
    Ok(())
}
