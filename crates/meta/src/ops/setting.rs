//! Single values that every replica shares.

use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;

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
