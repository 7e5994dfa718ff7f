//! Invitations: somebody who has the link chooses a password, once, and so becomes a local user.

use std::fmt;

use serde_json::json;

use super::access;
use super::event::{self, Kind};
use super::principal::fact;
use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;
use crate::value::Row;

/// An invitation, without its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct InvitationRow {
    /// The user to be.
    pub name: String,
    /// Its name in lists; says nothing about the secret.
    pub id: String,
    /// SHA-256 of the secret.
    pub hash: Vec<u8>,
    /// Milliseconds since 1970.
    pub expires_at: i64,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Who invited.
    pub created_by: String,
}

impl fmt::Debug for InvitationRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InvitationRow")
            .field("name", &self.name)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

fn read(row: &mut Row) -> Result<InvitationRow> {
    Ok(InvitationRow {
        name: row.text(0)?,
        id: row.text(1)?,
        hash: row.bytes(2)?,
        expires_at: row.int(3)?,
        created_at: row.int(4)?,
        created_by: row.text(5)?,
    })
}

/// Keeps an invitation in the place of any before it for the same name; `false`: there is a principal of that name. Locks the epoch of
/// rights. Cost: three rows.
#[derive(Clone, Debug)]
pub struct Put {
    /// It.
    pub row: InvitationRow,
}

impl Op for Put {
    type Out = bool;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let row = &self.row;
        // Whoever comes with an account and finds nobody invited makes the user under this lock.
        access::lock(tx).await?;
        // Whoever accepts the one before makes the user.
        tx.row(
            "SELECT 1 FROM invitation WHERE name = $1 FOR UPDATE",
            vals![&row.name],
        )
        .await?;
        let taken = tx
            .row("SELECT 1 FROM principal WHERE name = $1", vals![&row.name])
            .await?;
        if taken.is_some() {
            return Ok(false);
        }
        tx.exec(
            "INSERT INTO invitation (name, id, hash, expires_at, created_at, created_by) VALUES ($1, $2, $3, $4, $5, $6) ON \
             CONFLICT (name) DO UPDATE SET id = excluded.id, hash = excluded.hash, expires_at = excluded.expires_at, created_at = \
             excluded.created_at, created_by = excluded.created_by",
            vals![
                &row.name,
                &row.id,
                &row.hash,
                row.expires_at,
                row.created_at,
                &row.created_by
            ],
        )
        .await?;
        let after = json!({"name": row.name, "id": row.id, "expires_at": row.expires_at});
        let payload = json!({"what": "invitation", "before": null, "after": after});
        let made = Kind::CredentialCreate;
        event::record(tx, fact(made, None, row.created_at, payload)).await?;
        Ok(true)
    }
}

/// The invitation with a hash. Cost: one row.
#[derive(Clone)]
pub struct ByHash {
    /// SHA-256 of the secret.
    pub hash: Vec<u8>,
}

impl ReadOp for ByHash {}
impl Op for ByHash {
    type Out = Option<InvitationRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let row = tx
            .row(
                "SELECT name, id, hash, expires_at, created_at, created_by FROM invitation WHERE hash = $1",
                vals![&self.hash],
            )
            .await?;
        row.map(|mut row| read(&mut row)).transpose()
    }
}

/// Invitations by name. Cost: their rows.
#[derive(Clone, Debug)]
pub struct List {
    /// Behind this name.
    pub after: String,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for List {}
impl Op for List {
    type Out = Vec<InvitationRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT name, id, hash, expires_at, created_at, created_by FROM invitation WHERE name > $1 ORDER BY name LIMIT $2",
                vals![&self.after, self.limit],
            )
            .await?;
        rows.into_iter().map(|mut row| read(&mut row)).collect()
    }
}

/// Ids of invitations that ended before a time, the oldest first. Cost: their rows.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Milliseconds since 1970.
    pub before: i64,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Ended {}
impl Op for Ended {
    type Out = Vec<String>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT id FROM invitation WHERE expires_at < $1 ORDER BY expires_at LIMIT $2",
                vals![self.before, self.limit],
            )
            .await?;
        rows.into_iter().map(|mut row| row.text(0)).collect()
    }
}

/// Takes an invitation back; gives for whom it was. Cost: one row.
#[derive(Clone, Debug)]
pub struct Withdraw {
    /// Its id.
    pub id: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Withdraw {
    type Out = Option<String>;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let row = tx
            .row(
                "DELETE FROM invitation WHERE id = $1 RETURNING name",
                vals![&self.id],
            )
            .await?;
        let Some(mut row) = row else {
            return Ok(None);
        };
        let name = row.text(0)?;
        let before = json!({"name": name, "id": self.id});
        let payload = json!({"what": "invitation", "before": before, "after": null});
        event::record(tx, fact(Kind::CredentialRemove, None, self.at, payload)).await?;
        Ok(Some(name))
    }
}

/// What became of an invitation that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// There is a user now, of this name.
    Done(String),
    /// There is no such invitation, or it has ended: somebody was faster. Nothing was done.
    Gone,
    /// Somebody made a principal of that name meanwhile; the invitation is gone.
    Taken(String),
}

/// Ends an invitation and makes its user. Of two that accept at once the first one to lock its row does. Cost: two rows.
#[derive(Clone)]
pub struct Accept {
    /// SHA-256 of the secret.
    pub hash: Vec<u8>,
    /// The password's hash.
    pub secret_hash: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Accept {
    type Out = Accepted;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Accepted> {
        let row = tx
            .row(
                "DELETE FROM invitation WHERE hash = $1 AND expires_at > $2 RETURNING name, created_by",
                vals![&self.hash, self.at],
            )
            .await?;
        let Some(mut row) = row else {
            return Ok(Accepted::Gone);
        };
        let (name, by) = (row.text(0)?, row.text(1)?);
        let made = tx
            .exec(
                "INSERT INTO principal (name, kind, secret_hash, created_at, changed_at, created_by) VALUES ($1, 'user', $2, $3, \
                 $3, $4) ON CONFLICT (name) DO NOTHING",
                vals![&name, &self.secret_hash, self.at, &by],
            )
            .await?;
        if made == 0 {
            return Ok(Accepted::Taken(name));
        }
        // Nobody signed in: it is the doing of whoever is user now.
        let after = json!({"name": name, "kind": "user", "invited_by": by});
        let payload = json!({"what": "user", "before": null, "after": after});
        let made = event::Fact {
            actor: &name,
            ..fact(Kind::PrincipalCreate, None, self.at, payload)
        };
        event::record(tx, made).await?;
        Ok(Accepted::Done(name))
    }
}
