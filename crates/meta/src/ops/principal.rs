//! Local principals and their secrets, as hashes.

use std::fmt;

use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;

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
                "SELECT name, kind, secret_hash, created_at, changed_at FROM principal WHERE name = $1",
                vals![&self.name],
            )
            .await?;
        row.map(|mut row| {
            Ok(PrincipalRow {
                name: row.text(0)?,
                kind: row.text(1)?,
                secret_hash: row.opt_text(2)?,
                created_at: row.int(3)?,
                changed_at: row.int(4)?,
            })
        })
        .transpose()
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
        Ok(made == 1)
    }
}

/// Sets the secret of a principal; `false`: there is none with this name. Cost: one row.
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
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let changed = tx
            .exec(
                "UPDATE principal SET secret_hash = $2, changed_at = $3 WHERE name = $1",
                vals![&self.name, &self.hash, self.at],
            )
            .await?;
        Ok(changed == 1)
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
