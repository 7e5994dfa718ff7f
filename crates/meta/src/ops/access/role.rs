//! Roles beside those that are built in: named lists of permissions.

use serde_json::json;

use super::change::Part;
use super::{By, Changed, begin, end};
use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;

/// A role as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleRow {
    /// The name.
    pub name: String,
    /// Words separated by commas.
    pub permissions: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// The principal.
    pub created_by: String,
}

/// Roles by name. Cost: the rows given.
#[derive(Clone, Debug)]
pub struct List {
    /// The last one of the page before; `""` at first.
    pub after: String,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for List {}
impl Op for List {
    type Out = Vec<RoleRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT name, permissions, created_at, created_by FROM access_role WHERE name > $1 ORDER BY name LIMIT $2",
                vals![&self.after, self.limit],
            )
            .await?;
        rows.into_iter()
            .map(|mut row| {
                Ok(RoleRow {
                    name: row.text(0)?,
                    permissions: row.text(1)?,
                    created_at: row.int(2)?,
                    created_by: row.text(3)?,
                })
            })
            .collect()
    }
}

/// What a role is made of, if there is one, and whether it is bound anywhere. Cost: two rows.
#[derive(Clone, Debug)]
pub struct Get {
    /// The name.
    pub name: String,
}

impl ReadOp for Get {}
impl Op for Get {
    type Out = (Option<String>, bool);

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let row = tx
            .row(
                "SELECT permissions FROM access_role WHERE name = $1",
                vals![&self.name],
            )
            .await?;
        let bound = tx
            .row(
                "SELECT 1 FROM access_binding WHERE role = $1 LIMIT 1",
                vals![&self.name],
            )
            .await?;
        Ok((row.map(|mut row| row.text(0)).transpose()?, bound.is_some()))
    }
}

/// Makes a role, or changes what it is made of, wherever it is bound. Locks the epoch. Cost: four rows.
#[derive(Clone, Debug)]
pub struct Put {
    /// The name.
    pub name: String,
    /// Words separated by commas.
    pub permissions: String,
    /// Who does it.
    pub by: By,
}

impl Op for Put {
    type Out = Changed;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Changed> {
        let epoch = match begin(tx, &self.by).await? {
            Ok(epoch) => epoch,
            Err(kept) => return Ok(kept),
        };
        let row = tx
            .row(
                "SELECT permissions FROM access_role WHERE name = $1",
                vals![&self.name],
            )
            .await?;
        let before = row.map(|mut row| row.text(0)).transpose()?;
        if before.as_deref() == Some(&*self.permissions) {
            return Ok(Changed::Same);
        }
        tx.exec(
            "INSERT INTO access_role (name, permissions, created_at, created_by) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (name) DO UPDATE SET permissions = excluded.permissions",
            vals![&self.name, &self.permissions, self.by.at, &self.by.actor],
        )
        .await?;
        let payload = json!({
            "what": "role",
            "before": before.map(|permissions| json!({"name": self.name, "permissions": permissions})),
            "after": {"name": self.name, "permissions": self.permissions},
        });
        let part = Part::Role(self.name.clone());
        end(tx, epoch, &self.by, "", &[part], payload).await?;
        Ok(Changed::Done)
    }
}

/// Removes a role that is bound nowhere. Locks the epoch. Cost: four rows.
#[derive(Clone, Debug)]
pub struct Delete {
    /// The name.
    pub name: String,
    /// Who does it.
    pub by: By,
}

impl Op for Delete {
    type Out = Changed;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Changed> {
        let epoch = match begin(tx, &self.by).await? {
            Ok(epoch) => epoch,
            Err(kept) => return Ok(kept),
        };
        let bound = tx
            .row(
                "SELECT 1 FROM access_binding WHERE role = $1 LIMIT 1",
                vals![&self.name],
            )
            .await?;
        if bound.is_some() {
            return Ok(Changed::InUse);
        }
        let gone = tx
            .row(
                "DELETE FROM access_role WHERE name = $1 RETURNING permissions",
                vals![&self.name],
            )
            .await?;
        let Some(mut gone) = gone else {
            return Ok(Changed::Unknown);
        };
        let before = json!({"name": self.name, "permissions": gone.text(0)?});
        let payload = json!({"what": "role", "before": before, "after": null});
        let part = Part::Role(self.name.clone());
        end(tx, epoch, &self.by, "", &[part], payload).await?;
        Ok(Changed::Done)
    }
}
