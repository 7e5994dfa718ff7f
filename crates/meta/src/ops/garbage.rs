//! Garbage: keys whose bytes nothing needs any more. Who marks a blob puts its key here in the same transaction; only who finds it
//! here removes bytes, and forgets it afterwards.

use crate::error::{Error, Result};
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;

/// Puts a key into the list; `false`: it stood there already.
pub(crate) async fn add<T: Tx>(tx: &mut T, key: &str, at: i64) -> Result<bool> {
    let made = tx
        .exec(
            "INSERT INTO garbage (key, since) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING",
            vals![key, at],
        )
        .await?;
    Ok(made == 1)
}

/// Whether a key is in the list.
pub(crate) async fn has<T: Tx>(tx: &mut T, key: &str) -> Result<bool> {
    let row = tx
        .row("SELECT 1 FROM garbage WHERE key = $1", vals![key])
        .await?;
    Ok(row.is_some())
}

/// Takes a key out of the list.
pub(crate) async fn remove<T: Tx>(tx: &mut T, key: &str) -> Result<()> {
    tx.exec("DELETE FROM garbage WHERE key = $1", vals![key])
        .await?;
    Ok(())
}

/// Keys whose bytes nothing needs any more, in order. Cost: the rows given.
#[derive(Clone, Debug)]
pub struct Garbage {
    /// The last key of the page before.
    pub after: Option<String>,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Garbage {}
impl Op for Garbage {
    type Out = Vec<String>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let after = self.after.as_deref().unwrap_or("");
        let rows = tx
            .query(
                "SELECT key FROM garbage WHERE key > $1 ORDER BY key LIMIT $2",
                vals![after, self.limit],
            )
            .await?;
        rows.into_iter().map(|mut row| row.text(0)).collect()
    }
}

/// Whether the bytes under a key are about to be removed. Cost: one row.
#[derive(Clone, Debug)]
pub struct IsGarbage {
    /// The key.
    pub key: String,
}

impl ReadOp for IsGarbage {}
impl Op for IsGarbage {
    type Out = bool;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        has(tx, &self.key).await
    }
}

/// Forgets keys after their bytes were removed. Cost: one row for each; at most [`FORGOTTEN`].
#[derive(Clone, Debug)]
pub struct Collected {
    /// The keys.
    pub keys: Vec<String>,
}

/// So many keys one [`Collected`] takes.
pub const FORGOTTEN: usize = 200;

impl Op for Collected {
    type Out = ();
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        if self.keys.len() > FORGOTTEN {
            return Err(Error::TooMuch {
                what: "keys",
                got: self.keys.len(),
                limit: FORGOTTEN,
            });
        }
        for key in &self.keys {
            tx.exec("DELETE FROM unnamed WHERE key = $1", vals![key])
                .await?;
            remove(tx, key).await?;
        }
        Ok(())
    }
}
