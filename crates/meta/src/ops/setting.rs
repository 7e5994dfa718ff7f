//! Single values that every replica shares.

use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;

/// Locks a setting, made if absent, and gives its value: for those that must wait for each other and have no row in common.
pub(super) async fn lock<T: Tx>(tx: &mut T, key: &str) -> Result<String> {
    let mut value = locked(tx, key).await?;
    if value.is_none() {
        tx.exec(
            "INSERT INTO setting (key, value) VALUES ($1, '0') ON CONFLICT (key) DO NOTHING",
            vals![key],
        )
        .await?;
        value = locked(tx, key).await?;
    }
    Ok(value.unwrap_or_default())
}

async fn locked<T: Tx>(tx: &mut T, key: &str) -> Result<Option<String>> {
    let row = tx
        .row(
            "SELECT value FROM setting WHERE key = $1 FOR UPDATE",
            vals![key],
        )
        .await?;
    row.map(|mut row| row.text(0)).transpose()
}

/// The time that all who use this store go by, in milliseconds since 1970: the database's, or the caller's where one process
/// uses it. Cost: none.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The caller's.
    pub at: i64,
}

impl ReadOp for Now {}
impl Op for Now {
    type Out = i64;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<i64> {
        tx.now(self.at).await
    }
}

/// A value. Cost: one row.
#[derive(Clone, Debug)]
pub struct Get {
    /// Its key.
    pub key: String,
}

impl ReadOp for Get {}
impl Op for Get {
    type Out = Option<String>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let row = tx
            .row("SELECT value FROM setting WHERE key = $1", vals![&self.key])
            .await?;
        row.map(|mut row| row.text(0)).transpose()
    }
}

/// Sets a value; the last one wins. Cost: one row.
#[derive(Clone, Debug)]
pub struct Put {
    /// Its key.
    pub key: String,
    /// The value.
    pub value: String,
}

impl Op for Put {
    type Out = ();
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        tx.exec(
            "INSERT INTO setting (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            vals![&self.key, &self.value],
        )
        .await?;
        Ok(())
    }
}

/// Sets a value unless there is one, and gives what stands then; the first one wins. Cost: one row.
#[derive(Clone, Debug)]
pub struct Ensure {
    /// Its key.
    pub key: String,
    /// The value, if there is none.
    pub value: String,
}

impl Op for Ensure {
    type Out = String;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<String> {
        tx.exec(
            "INSERT INTO setting (key, value) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING",
            vals![&self.key, &self.value],
        )
        .await?;
        let row = tx
            .row("SELECT value FROM setting WHERE key = $1", vals![&self.key])
            .await?;
        row.map_or(Ok(self.value.clone()), |mut row| row.text(0))
    }
}

/// Removes a value. Cost: one row.
#[derive(Clone, Debug)]
pub struct Remove {
    /// Its key.
    pub key: String,
}

impl Op for Remove {
    type Out = ();
    const SINGLE: bool = true;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        tx.exec("DELETE FROM setting WHERE key = $1", vals![&self.key])
            .await?;
        Ok(())
    }
}
