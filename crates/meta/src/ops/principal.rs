//! Local principals and their secrets, as hashes.

use std::fmt;

use serde_json::{Value, json};
use wharf_oci::RepositoryName;

use super::event::{self, Fact, Kind};
use crate::error::Result;
use crate::meant::Meant;
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

impl PrincipalRow {
    /// Another number for another state of the row, for whoever wants to change just this one (FNV-1a: nobody gains by two that
    /// are the same).
    pub fn version(&self) -> i64 {
        let state = format!(
            "{}|{}|{}|{}|{:?}|{:?}|{}",
            self.name,
            self.kind,
            self.created_at,
            self.changed_at,
            self.disabled_at,
            self.expires_at,
            self.networks
        );
        let hash = state.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        (hash >> 1).cast_signed()
    }
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

/// A principal, as the audit log shows it.
fn told(name: &str, disabled: bool, expires_at: Option<i64>, networks: &str) -> Value {
    json!({"name": name, "disabled": disabled, "expires_at": expires_at, "networks": networks})
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

/// The principal of that name, locked.
pub(super) async fn locked<T: Tx>(tx: &mut T, name: &str) -> Result<Option<PrincipalRow>> {
    let row = tx
        .row(
            "SELECT name, kind, secret_hash, created_at, changed_at, disabled_at, expires_at, networks, created_by FROM \
             principal WHERE name = $1 FOR UPDATE",
            vals![name],
        )
        .await?;
    row.map(|mut row| read(&mut row)).transpose()
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It is done.
    Done,
    /// There is none of that name and kind. Nothing was done.
    Unknown,
    /// It is another version by now. Nothing was done.
    Differs,
    /// A namespace would be left without owner, or with `""` the registry without administrator. Nothing was done.
    Last(String),
}

/// Changes a principal; what is `None` stays. Who is locked out keeps what it signed in with for when it is let in again. Whoever
/// is the last owner or administrator is not locked out; that locks the epoch of rights. Cost: one row, and what the principal
/// holds as owner or administrator.
#[derive(Clone, Debug)]
pub struct Change {
    /// The name.
    pub name: String,
    /// What it must be.
    pub kind: String,
    /// The version that the change is meant for.
    pub version: Meant,
    /// Whether it is locked out from now on.
    pub disabled: Option<bool>,
    /// When it ends, in milliseconds since 1970.
    pub expires_at: Option<i64>,
    /// From where it may come, as `core` writes it.
    pub networks: Option<String>,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Change {
    type Out = Changed;
    // No row more but what tells of it; and whoever is to be locked out is to be so on a full disk, too.
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Changed> {
        let (name, kind) = (&self.name, &self.kind);
        let last = match self.disabled {
            Some(true) => super::access::last_of(tx, kind, name).await?,
            _ => None,
        };
        let Some(row) = locked(tx, name).await?.filter(|row| row.kind == *kind) else {
            return Ok(Changed::Unknown);
        };
        if !self.version.fits(Some(row.version())) {
            return Ok(Changed::Differs);
        }
        if let Some(path) = last.filter(|_| row.disabled_at.is_none()) {
            return Ok(Changed::Last(path));
        }
        match self.disabled {
            Some(true) => {
                tx.exec(
                    "UPDATE principal SET disabled_at = COALESCE(disabled_at, $2), kept_hash = COALESCE(secret_hash, kept_hash), \
                     secret_hash = NULL WHERE name = $1",
                    vals![name, self.at],
                )
                .await?;
            }
            Some(false) => {
                tx.exec(
                    "UPDATE principal SET disabled_at = NULL, secret_hash = COALESCE(secret_hash, kept_hash), kept_hash = NULL \
                     WHERE name = $1",
                    vals![name],
                )
                .await?;
            }
            None => {}
        }
        if self.expires_at.is_some() || self.networks.is_some() {
            tx.exec(
                "UPDATE principal SET expires_at = COALESCE($2, expires_at), networks = COALESCE($3, networks) WHERE name = $1",
                vals![name, self.expires_at, self.networks.as_deref()],
            )
            .await?;
        }
        let disabled = self.disabled.unwrap_or(row.disabled_at.is_some());
        let payload = json!({
            "what": kind,
            "before": told(name, row.disabled_at.is_some(), row.expires_at, &row.networks),
            "after": told(
                name,
                disabled,
                self.expires_at.or(row.expires_at),
                self.networks.as_ref().unwrap_or(&row.networks),
            ),
        });
        let namespace = event::namespace_of(kind, name);
        let fact = fact(Kind::PrincipalChange, namespace.as_ref(), self.at, payload);
        event::record(tx, fact).await?;
        Ok(Changed::Done)
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
    // As [`Change`]: a password that others know is replaced whatever the disk says.
    const FREES: bool = true;

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
