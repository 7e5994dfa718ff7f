//! Secrets of robots and API tokens of users, as hashes; when each was used last.
//!
//! A principal's row is locked before its credentials are looked at, so that nothing is given to one that is going.

use std::fmt;

use serde_json::{Value, json};

use super::access::{self, By, Changed};
use super::event::{self, Fact, Kind};
use super::{principal, refresh_token, session, terminal};
use crate::error::Result;
use crate::meant::Meant;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;
use crate::value::Row;

/// A secret, without the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct CredentialRow {
    /// Its name in tokens and lists; says nothing about the secret.
    pub id: String,
    /// `token` of a user, `robot`.
    pub kind: String,
    /// Whose it is.
    pub principal: String,
    /// Where the principal is kept: another of the same name elsewhere is somebody else.
    pub source: String,
    /// What its owner calls it.
    pub name: String,
    /// SHA-256 of the secret.
    pub hash: Vec<u8>,
    /// What it leaves of the principal's rights, as `core` writes it; `None`: all.
    pub scopes: Option<String>,
    /// Milliseconds since 1970.
    pub expires_at: Option<i64>,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Who made it.
    pub created_by: String,
}

impl fmt::Debug for CredentialRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialRow")
            .field("id", &self.id)
            .field("principal", &self.principal)
            .finish_non_exhaustive()
    }
}

fn read(row: &mut Row) -> Result<CredentialRow> {
    Ok(CredentialRow {
        id: row.text(0)?,
        kind: row.text(1)?,
        principal: row.text(2)?,
        source: row.text(3)?,
        name: row.text(4)?,
        hash: row.bytes(5)?,
        scopes: row.opt_text(6)?,
        expires_at: row.opt_int(7)?,
        created_at: row.int(8)?,
        created_by: row.text(9)?,
    })
}

async fn insert<T: Tx>(tx: &mut T, row: &CredentialRow) -> Result<()> {
    tx.exec(
        "INSERT INTO credential (id, kind, principal, source, name, hash, scopes, expires_at, created_at, created_by) VALUES \
         ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        vals![
            &row.id,
            &row.kind,
            &row.principal,
            &row.source,
            &row.name,
            &row.hash,
            row.scopes.as_deref(),
            row.expires_at,
            row.created_at,
            &row.created_by
        ],
    )
    .await?;
    Ok(())
}

/// What the audit log says of one: all but the secret's hash.
fn told(row: &CredentialRow) -> Value {
    json!({
        "id": row.id,
        "kind": row.kind,
        "principal": row.principal,
        "name": row.name,
        "scopes": row.scopes,
        "expires_at": row.expires_at,
    })
}

/// Records what became of a credential of a principal.
async fn record<T: Tx>(
    tx: &mut T,
    kind: Kind,
    of: &CredentialRow,
    at: i64,
    (before, after): (Value, Value),
) -> Result<()> {
    let namespace = event::namespace_of(&of.kind, &of.principal);
    let payload = json!({"what": of.kind, "before": before, "after": after});
    let fact = Fact {
        actor: &of.created_by,
        ..principal::fact(kind, namespace.as_ref(), at, payload)
    };
    event::record(tx, fact).await
}

async fn forget<T: Tx>(tx: &mut T, id: &str) -> Result<()> {
    tx.exec("DELETE FROM credential WHERE id = $1", vals![id])
        .await?;
    tx.exec("DELETE FROM credential_use WHERE id = $1", vals![id])
        .await?;
    Ok(())
}

/// Locks a principal, and gives whether it may come in; `None`: there is none. To be called before its credentials are read or
/// written.
async fn lock<T: Tx>(tx: &mut T, principal: &str) -> Result<Option<bool>> {
    let row = tx
        .row(
            "SELECT disabled_at FROM principal WHERE name = $1 FOR UPDATE",
            vals![principal],
        )
        .await?;
    row.map(|mut row| Ok(row.opt_int(0)?.is_none())).transpose()
}

/// What became of a new credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is kept.
    Done,
    /// There is no such principal, or it is locked out.
    Unknown,
    /// The principal has as many as one may have, or one of that name.
    Refused,
}

/// Gives a principal another credential. Its name must be free among the principal's. Cost: the principal's credentials.
#[derive(Clone, Debug)]
pub struct Add {
    /// It.
    pub row: CredentialRow,
    /// The principal has a row here, and must have it still.
    pub local: bool,
    /// So many one principal may have.
    pub most: u32,
}

impl Op for Add {
    type Out = Added;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Added> {
        match self.local {
            true if lock(tx, &self.row.principal).await? != Some(true) => {
                return Ok(Added::Unknown);
            }
            true => {}
            // Whoever has no row here waits all the same for others that are given one.
            false => session::lock(tx, &self.row.principal).await?,
        }
        let held = tx
            .query(
                "SELECT name FROM credential WHERE principal = $1 ORDER BY created_at, id LIMIT $2",
                vals![&self.row.principal, self.most],
            )
            .await?;
        if held.len() >= self.most as usize {
            return Ok(Added::Refused);
        }
        for mut row in held {
            if row.text(0)? == self.row.name {
                return Ok(Added::Refused);
            }
        }
        insert(tx, &self.row).await?;
        let change = (Value::Null, told(&self.row));
        record(
            tx,
            Kind::CredentialCreate,
            &self.row,
            self.row.created_at,
            change,
        )
        .await?;
        Ok(Added::Done)
    }
}

/// Gives a robot another secret; of those that it has, the newest is good until `until` at most, and the others end now.
/// Gives whether there is such a robot. Cost: the robot's secrets.
#[derive(Clone, Debug)]
pub struct Rotate {
    /// The new one.
    pub row: CredentialRow,
    /// Until when the last one before it may still be used, in milliseconds since 1970.
    pub until: i64,
}

impl Op for Rotate {
    type Out = bool;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        if lock(tx, &self.row.principal).await?.is_none() {
            return Ok(false);
        }
        let held = tx
            .query(
                "SELECT id, expires_at FROM credential WHERE principal = $1 ORDER BY created_at DESC, id DESC LIMIT $2",
                vals![&self.row.principal, 100_u32],
            )
            .await?;
        let (mut ended, mut shortened) = (Vec::new(), None);
        for (at, mut row) in held.into_iter().enumerate() {
            let (id, end) = (row.text(0)?, row.opt_int(1)?);
            if at > 0 {
                forget(tx, &id).await?;
                ended.push(json!({"id": id, "expires_at": end}));
            } else if end.is_none_or(|end| end > self.until) {
                shortened = Some((
                    json!({"id": id, "expires_at": end}),
                    json!({"id": id, "expires_at": self.until}),
                ));
                tx.exec(
                    "UPDATE credential SET expires_at = $2 WHERE id = $1",
                    vals![&id, self.until],
                )
                .await?;
            }
        }
        insert(tx, &self.row).await?;
        let at = self.row.created_at;
        if !ended.is_empty() {
            let change = (Value::from(ended), Value::Null);
            record(tx, Kind::CredentialRemove, &self.row, at, change).await?;
        }
        if let Some(change) = shortened {
            record(tx, Kind::CredentialChange, &self.row, at, change).await?;
        }
        let change = (Value::Null, told(&self.row));
        record(tx, Kind::CredentialCreate, &self.row, at, change).await?;
        Ok(true)
    }
}

/// The credential with a hash. Cost: one row.
#[derive(Clone)]
pub struct ByHash {
    /// SHA-256 of the secret.
    pub hash: Vec<u8>,
}

impl ReadOp for ByHash {}
impl Op for ByHash {
    type Out = Option<CredentialRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let row = tx
            .row(
                "SELECT id, kind, principal, source, name, hash, scopes, expires_at, created_at, created_by FROM credential \
                 WHERE hash = $1",
                vals![&self.hash],
            )
            .await?;
        row.map(|mut row| read(&mut row)).transpose()
    }
}

/// The credential with an id. Cost: one row.
#[derive(Clone, Debug)]
pub struct ById {
    /// Its id.
    pub id: String,
}

impl ReadOp for ById {}
impl Op for ById {
    type Out = Option<CredentialRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let row = tx
            .row(
                "SELECT id, kind, principal, source, name, hash, scopes, expires_at, created_at, created_by FROM credential \
                 WHERE id = $1",
                vals![&self.id],
            )
            .await?;
        row.map(|mut row| read(&mut row)).transpose()
    }
}

/// A credential with its last use: when, in milliseconds since 1970, and from where.
pub type Listed = (CredentialRow, Option<(i64, String)>);

/// The credentials of a principal, the oldest first. Cost: their rows.
#[derive(Clone, Debug)]
pub struct Of {
    /// Whose.
    pub principal: String,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Of {}
impl Op for Of {
    type Out = Vec<Listed>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT c.id, c.kind, c.principal, c.source, c.name, c.hash, c.scopes, c.expires_at, c.created_at, \
                 c.created_by, u.used_at, u.address FROM credential c LEFT JOIN credential_use u ON u.id = c.id WHERE \
                 c.principal = $1 ORDER BY c.created_at, c.id LIMIT $2",
                vals![&self.principal, self.limit],
            )
            .await?;
        rows.into_iter()
            .map(|mut row| {
                let used = match row.opt_int(10)? {
                    Some(at) => Some((at, row.text(11)?)),
                    None => None,
                };
                Ok((read(&mut row)?, used))
            })
            .collect()
    }
}

/// Ends a credential; gives whose it was. Cost: its rows.
#[derive(Clone, Debug)]
pub struct Revoke {
    /// Its id.
    pub id: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Revoke {
    type Out = Option<String>;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let row = tx
            .row(
                "DELETE FROM credential WHERE id = $1 RETURNING id, kind, principal, source, name, hash, scopes, expires_at, \
                 created_at, created_by",
                vals![&self.id],
            )
            .await?;
        let Some(mut row) = row else { return Ok(None) };
        let mut gone = read(&mut row)?;
        tx.exec("DELETE FROM credential_use WHERE id = $1", vals![&self.id])
            .await?;
        // Who made it need not be who ends it.
        gone.created_by.clear();
        let change = (told(&gone), Value::Null);
        record(tx, Kind::CredentialRemove, &gone, self.at, change).await?;
        Ok(Some(gone.principal))
    }
}

/// Notes that a credential was used. Of two notes the later stays. Cost: one row.
#[derive(Clone, Debug)]
pub struct Use {
    /// Its id.
    pub id: String,
    /// Milliseconds since 1970.
    pub at: i64,
    /// From where.
    pub address: String,
}

impl Op for Use {
    type Out = ();
    const SINGLE: bool = true;
    const RELAXED: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        tx.exec(
            "INSERT INTO credential_use (id, used_at, address) VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET used_at = \
             excluded.used_at, address = excluded.address WHERE credential_use.used_at < excluded.used_at",
            vals![&self.id, self.at, &self.address],
        )
        .await?;
        Ok(())
    }
}

/// Forgets credentials that ended before a time, at most so many; gives how many. Locks their principals. Cost: their rows.
#[derive(Clone, Copy, Debug)]
pub struct Forget {
    /// Milliseconds since 1970.
    pub ended_before: i64,
    /// At most so many.
    pub limit: u32,
}

impl Op for Forget {
    type Out = u32;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u32> {
        let rows = tx
            .query(
                "SELECT principal, id FROM credential WHERE expires_at < $1 ORDER BY expires_at LIMIT $2",
                vals![self.ended_before, self.limit],
            )
            .await?;
        let mut ended = Vec::with_capacity(rows.len());
        for mut row in rows {
            ended.push((row.text(0)?, row.text(1)?));
        }
        // The order in which everybody locks principals, each before its credentials.
        ended.sort_unstable();
        for (principal, id) in &ended {
            lock(tx, principal).await?;
            forget(tx, id).await?;
        }
        Ok(u32::try_from(ended.len()).unwrap_or(u32::MAX))
    }
}

/// Removes a principal with its credentials and all that it holds, the principal itself last. Refused where nobody would be left.
/// Again while it gives [`Changed::More`]; what is taken is gone by then. Locks the epoch of rights. Cost: its credentials, and
/// [`access::STEP`] rows of what it holds.
#[derive(Clone, Debug)]
pub struct RemovePrincipal {
    /// Its name.
    pub name: String,
    /// What it must be.
    pub kind: String,
    /// The version that is meant.
    pub version: Meant,
    /// Who removes it.
    pub by: By,
}

impl Op for RemovePrincipal {
    type Out = Changed;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Changed> {
        let (name, kind) = (&*self.name, &*self.kind);
        let going = access::binding::Going { name, kind };
        let epoch = match access::begin(tx, &self.by).await? {
            Ok(epoch) => epoch,
            Err(kept) => return Ok(kept),
        };
        match principal::locked(tx, name)
            .await?
            .filter(|row| row.kind == kind)
        {
            None => return Ok(Changed::Unknown),
            Some(row) if !self.version.fits(Some(row.version())) => return Ok(Changed::Differs),
            Some(_) => {}
        }
        match going.take(tx, epoch, &self.by).await? {
            Changed::Done | Changed::Same => {}
            other => return Ok(other),
        }
        tx.exec("DELETE FROM principal WHERE name = $1", vals![name])
            .await?;
        let rows = tx
            .query(
                "DELETE FROM credential WHERE principal = $1 RETURNING id",
                vals![name],
            )
            .await?;
        let mut ids = Vec::with_capacity(rows.len());
        for mut row in rows {
            let id = row.text(0)?;
            tx.exec("DELETE FROM credential_use WHERE id = $1", vals![&id])
                .await?;
            ids.push(id);
        }
        session::delete_of(tx, name).await?;
        terminal::delete_of(tx, name).await?;
        refresh_token::delete_of(tx, name).await?;
        let before = json!({"name": name, "kind": kind, "credentials": ids});
        let payload = json!({"what": kind, "before": before, "after": null});
        let namespace = event::namespace_of(kind, name);
        let at = self.by.at;
        let fact = principal::fact(Kind::PrincipalRemove, namespace.as_ref(), at, payload);
        event::record(tx, fact).await?;
        Ok(Changed::Done)
    }
}

/// Makes a robot with its first secret; false: the name is taken. Cost: two rows.
#[derive(Clone, Debug)]
pub struct CreateRobot {
    /// Its first secret; the robot has the secret's principal as its name, and its time and maker.
    pub secret: CredentialRow,
    /// When the robot ends, in milliseconds since 1970.
    pub expires_at: i64,
    /// From where it may come, as `core` writes it; empty: from everywhere.
    pub networks: String,
}

impl Op for CreateRobot {
    type Out = bool;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let secret = &self.secret;
        let made = tx
            .exec(
                "INSERT INTO principal (name, kind, created_at, changed_at, expires_at, networks, created_by) VALUES ($1, \
                 'robot', $2, $2, $3, $4, $5) ON CONFLICT (name) DO NOTHING",
                vals![
                    &secret.principal,
                    secret.created_at,
                    self.expires_at,
                    &self.networks,
                    &secret.created_by
                ],
            )
            .await?;
        if made == 0 {
            return Ok(false);
        }
        insert(tx, secret).await?;
        let namespace = event::namespace_of("robot", &secret.principal);
        let after = json!({"name": secret.principal, "kind": "robot", "expires_at": self.expires_at, "networks": self.networks});
        let payload = json!({"what": "robot", "before": null, "after": after});
        let fact = Fact {
            actor: &secret.created_by,
            ..principal::fact(
                Kind::PrincipalCreate,
                namespace.as_ref(),
                secret.created_at,
                payload,
            )
        };
        event::record(tx, fact).await?;
        let change = (Value::Null, told(secret));
        record(
            tx,
            Kind::CredentialCreate,
            secret,
            secret.created_at,
            change,
        )
        .await?;
        Ok(true)
    }
}

/// Moves the end of a robot; false: there is none. Cost: two rows.
#[derive(Clone, Debug)]
pub struct Extend {
    /// Its name.
    pub name: String,
    /// When it ends, in milliseconds since 1970.
    pub expires_at: i64,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Extend {
    type Out = bool;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let row = tx
            .row(
                "SELECT expires_at FROM principal WHERE name = $1 AND kind = 'robot' FOR UPDATE",
                vals![&self.name],
            )
            .await?;
        let Some(mut row) = row else {
            return Ok(false);
        };
        let before = row.opt_int(0)?;
        tx.exec(
            "UPDATE principal SET expires_at = $2 WHERE name = $1 AND kind = 'robot'",
            vals![&self.name, self.expires_at],
        )
        .await?;
        let payload = json!({
            "what": "robot",
            "before": {"name": self.name, "expires_at": before},
            "after": {"name": self.name, "expires_at": self.expires_at},
        });
        let namespace = event::namespace_of("robot", &self.name);
        let fact = principal::fact(Kind::PrincipalChange, namespace.as_ref(), self.at, payload);
        event::record(tx, fact).await?;
        Ok(true)
    }
}
