//! Local principals and their secrets, as hashes.

use std::fmt;

use serde_json::{Value, json};
use wharf_oci::RepositoryName;

use super::event::{self, Fact, Kind};
use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;
use crate::value::Row;

/// A local principal.
#[derive(Clone, PartialEq, Eq)]
pub struct PrincipalRow {
    /// The name.
    pub name: String,
    /// What it is, for example `user`.
    pub kind: String,
    /// The secret's hash in the form of the password hashing scheme; `None`: it cannot log in with a secret.
    pub secret_hash: Option<String>,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// When the secret was last set, in milliseconds since 1970.
    pub changed_at: i64,
    /// Since when it is locked out, in milliseconds since 1970.
    pub disabled_at: Option<i64>,
    /// When it ends, in milliseconds since 1970.
    pub expires_at: Option<i64>,
    /// From where it may come, as `core` writes it; empty: from everywhere.
    pub networks: String,
    /// Who made it; empty: nobody noted that.
    pub created_by: String,
}

fn read(row: &mut Row) -> Result<PrincipalRow> {
    Ok(PrincipalRow {
        name: row.text(0)?,
        kind: row.text(1)?,
        secret_hash: row.opt_text(2)?,
        created_at: row.int(3)?,
        changed_at: row.int(4)?,
        disabled_at: row.opt_int(5)?,
        expires_at: row.opt_int(6)?,
        networks: row.text(7)?,
        created_by: row.text(8)?,
    })
}

impl fmt::Debug for PrincipalRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrincipalRow")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// The principal with a name. Cost: one row.
#[derive(Clone, Debug)]
pub struct Get {
    /// The name.
    pub name: String,
}

impl ReadOp for Get {}
impl Op for Get {
    type Out = Option<PrincipalRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let row = tx
            .row(
                "SELECT name, kind, secret_hash, created_at, changed_at, disabled_at, expires_at, networks, created_by FROM \
                 principal WHERE name = $1",
                vals![&self.name],
            )
            .await?;
        row.map(|mut row| read(&mut row)).transpose()
    }
}

/// Makes a principal if its name is free, and tells whether it did: whoever comes first has made the administrator.
/// Cost: one row.
#[derive(Clone)]
pub struct Create {
    /// The name.
    pub name: String,
    /// What it is.
    pub kind: String,
    /// The secret's hash.
    pub secret_hash: Option<String>,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Create {
    type Out = bool;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let made = tx
            .exec(
                "INSERT INTO principal (name, kind, secret_hash, created_at, changed_at) VALUES ($1, $2, $3, $4, $4) \
                 ON CONFLICT (name) DO NOTHING",
                vals![&self.name, &self.kind, self.secret_hash.as_deref(), self.at],
            )
            .await?;
        if made == 0 {
            return Ok(false);
        }
        let after = json!({"name": self.name, "kind": self.kind});
        let payload = json!({"what": self.kind, "before": null, "after": after});
        event::record(tx, fact(Kind::PrincipalCreate, None, self.at, payload)).await?;
        Ok(true)
    }
}

/// A fact about a principal; its namespace is that of a robot.
pub(super) fn fact(
    kind: Kind,
    namespace: Option<&RepositoryName>,
    at: i64,
    payload: Value,
) -> Fact<'_> {
    Fact {
        kind,
        repository: namespace,
        digest: None,
        tag: None,
        actor: "",
        at,
        payload,
    }
}

/// Principals of a kind with names from `from` on and before `until`, by name. Cost: their rows.
#[derive(Clone, Debug)]
pub struct List {
    /// What they are.
    pub kind: String,
    /// Behind this name.
    pub after: String,
    /// Before this name; `None`: to the end.
    pub until: Option<String>,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for List {}
impl Op for List {
    type Out = Vec<PrincipalRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = match &self.until {
            Some(until) => {
                tx.query(
                    "SELECT name, kind, secret_hash, created_at, changed_at, disabled_at, expires_at, networks, created_by \
                     FROM principal WHERE kind = $1 AND name > $2 AND name < $3 ORDER BY name LIMIT $4",
                    vals![&self.kind, &self.after, until, self.limit],
                )
                .await?
            }
            None => {
                tx.query(
                    "SELECT name, kind, secret_hash, created_at, changed_at, disabled_at, expires_at, networks, created_by \
                     FROM principal WHERE kind = $1 AND name > $2 ORDER BY name LIMIT $3",
                    vals![&self.kind, &self.after, self.limit],
                )
                .await?
            }
        };
        rows.into_iter().map(|mut row| read(&mut row)).collect()
    }
}

/// Locks a principal out, or lets it in again; `false`: there is none of that kind. Cost: one row.
#[derive(Clone, Debug)]
pub struct Disable {
    /// The name.
    pub name: String,
    /// What it must be.
    pub kind: String,
    /// Whether it is locked out from now on.
    pub disabled: bool,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Disable {
    type Out = bool;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let (name, kind) = (&self.name, &self.kind);
        let row = tx
            .row(
                "SELECT disabled_at FROM principal WHERE name = $1 AND kind = $2 FOR UPDATE",
                vals![name, kind],
            )
            .await?;
        let Some(mut row) = row else {
            return Ok(false);
        };
        let before = row.opt_int(0)?;
        if self.disabled {
            tx.exec(
                "UPDATE principal SET disabled_at = COALESCE(disabled_at, $3), kept_hash = COALESCE(secret_hash, kept_hash), \
                 secret_hash = NULL WHERE name = $1 AND kind = $2",
                vals![name, kind, self.at],
            )
            .await?;
        } else {
            tx.exec(
                "UPDATE principal SET disabled_at = NULL, secret_hash = COALESCE(secret_hash, kept_hash), kept_hash = NULL \
                 WHERE name = $1 AND kind = $2",
                vals![name, kind],
            )
            .await?;
        }
        let payload = json!({
            "what": kind,
            "before": {"name": name, "disabled": before.is_some()},
            "after": {"name": name, "disabled": self.disabled},
        });
        let namespace = event::namespace_of(kind, name);
        let fact = fact(Kind::PrincipalChange, namespace.as_ref(), self.at, payload);
        event::record(tx, fact).await?;
        Ok(true)
    }
}

/// Sets the secret of a principal, who stays locked out if that is how it is; `false`: there is none with this name. Cost:
/// one row.
#[derive(Clone)]
pub struct SetSecret {
    /// The name.
    pub name: String,
    /// The new secret's hash.
    pub hash: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for SetSecret {
    type Out = bool;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let row = tx
            .row(
                "UPDATE principal SET secret_hash = CASE WHEN disabled_at IS NULL THEN $2 END, kept_hash = CASE WHEN disabled_at IS \
                 NULL THEN NULL ELSE $2 END, changed_at = $3 WHERE name = $1 RETURNING kind",
                vals![&self.name, &self.hash, self.at],
            )
            .await?;
        let Some(mut row) = row else {
            return Ok(false);
        };
        // What it was and is nobody is told.
        let payload = json!({"what": row.text(0)?, "name": self.name, "changed": "password"});
        event::record(tx, fact(Kind::PrincipalChange, None, self.at, payload)).await?;
        Ok(true)
    }
}

/// Whether any principal exists. Cost: one row.
#[derive(Clone, Copy, Debug)]
pub struct Any;

impl ReadOp for Any {}
impl Op for Any {
    type Out = bool;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        Ok(tx
            .row("SELECT 1 FROM principal ORDER BY name LIMIT 1", &[])
            .await?
            .is_some())
    }
}
