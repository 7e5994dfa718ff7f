//! Namespaces: prefixes of repository names that have settings.

use serde_json::json;

use super::change::Part;
use super::{By, Changed, STEP, begin, binding, end};
use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;

/// A namespace as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceRow {
    /// A prefix of repository names on `/` borders.
    pub path: String,
    /// `private`, `internal` or `public`.
    pub visibility: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// The principal.
    pub created_by: String,
}

/// Namespaces by path. Cost: the rows given.
#[derive(Clone, Debug)]
pub struct List {
    /// The last one of the page before; `""` at first.
    pub after: String,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for List {}
impl Op for List {
    type Out = Vec<NamespaceRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT path, visibility, created_at, created_by FROM namespace WHERE path > $1 ORDER BY path LIMIT $2",
                vals![&self.after, self.limit],
            )
            .await?;
        rows.into_iter()
            .map(|mut row| {
                Ok(NamespaceRow {
                    path: row.text(0)?,
                    visibility: row.text(1)?,
                    created_at: row.int(2)?,
                    created_by: row.text(3)?,
                })
            })
            .collect()
    }
}

/// The visibility of a namespace, if it has settings. Cost: one row.
#[derive(Clone, Debug)]
pub struct Get {
    /// The path.
    pub path: String,
}

impl ReadOp for Get {}
impl Op for Get {
    type Out = Option<String>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let row = tx
            .row(
                "SELECT visibility FROM namespace WHERE path = $1",
                vals![&self.path],
            )
            .await?;
        row.map(|mut row| row.text(0)).transpose()
    }
}

/// Makes a namespace, or changes its visibility. Locks the epoch. Cost: four rows.
#[derive(Clone, Debug)]
pub struct Put {
    /// The path.
    pub path: String,
    /// Its visibility from now on.
    pub visibility: String,
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
                "SELECT visibility FROM namespace WHERE path = $1",
                vals![&self.path],
            )
            .await?;
        let before = row.map(|mut row| row.text(0)).transpose()?;
        if before.as_deref() == Some(&*self.visibility) {
            return Ok(Changed::Same);
        }
        tx.exec(
            "INSERT INTO namespace (path, visibility, created_at, created_by) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (path) DO UPDATE SET visibility = excluded.visibility",
            vals![&self.path, &self.visibility, self.by.at, &self.by.actor],
        )
        .await?;
        let payload = json!({
            "what": "namespace",
            "before": before.map(|visibility| json!({"visibility": visibility})),
            "after": {"visibility": self.visibility},
        });
        let part = Part::Visibility(self.path.clone());
        end(tx, epoch, &self.by, &self.path, &[part], payload).await?;
        Ok(Changed::Done)
    }
}

/// Removes a namespace with its settings and all bindings on exactly its path, those of its owners too; its repositories stay.
/// Again while it gives [`Changed::More`]. Locks the epoch. Cost: [`STEP`] rows.
#[derive(Clone, Debug)]
pub struct Delete {
    /// The path; never `""`.
    pub path: String,
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
        if self.path.is_empty() {
            return Ok(Changed::Unknown);
        }
        let settings = tx
            .row(
                "DELETE FROM namespace WHERE path = $1 RETURNING visibility",
                vals![&self.path],
            )
            .await?;
        let visibility = settings.map(|mut row| row.text(0)).transpose()?;
        let gone = tx
            .query(
                "DELETE FROM access_binding WHERE (namespace, kind, name, role, networks, tags, sign_in, expires_at) IN \
                 (SELECT namespace, kind, name, role, networks, tags, sign_in, expires_at FROM access_binding \
                 WHERE namespace = $1 LIMIT $2) RETURNING namespace, kind, name, role, networks, tags, sign_in, expires_at",
                vals![&self.path, STEP],
            )
            .await?;
        if visibility.is_none() && gone.is_empty() {
            return Ok(Changed::Unknown);
        }
        let gone = binding::told(gone)?;
        let all = gone.len();
        let before = json!({"visibility": visibility, "bindings": gone});
        let payload = json!({"what": "namespace", "before": before, "after": null});
        let part = Part::Namespace(self.path.clone());
        end(tx, epoch, &self.by, &self.path, &[part], payload).await?;
        Ok(match all as i64 >= STEP {
            true => Changed::More,
            false => Changed::Done,
        })
    }
}
