//! A number that only grows, and that is also kept beside the blobs: a store whose number is behind that one was restored from
//! an older state, or lost its last writes.

use crate::error::Result;
use crate::tx::{Op, Tx};
use crate::vals;

/// The setting that holds it.
const KEY: &str = "mark";

/// What [`Advance`] found and made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advanced {
    /// The number before; 0: there was none.
    pub before: u64,
    /// The number now.
    pub now: u64,
}

/// Makes the number larger by one, and larger than `beyond`. Cost: one row.
#[derive(Clone, Copy, Debug)]
pub struct Advance {
    /// What is beside the blobs.
    pub beyond: u64,
}

impl Op for Advance {
    type Out = Advanced;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Advanced> {
        let row = tx
            .row(
                "SELECT value FROM setting WHERE key = $1 FOR UPDATE",
                vals![KEY],
            )
            .await?;
        let value = row.map(|mut row| row.text(0)).transpose()?;
        let before = value.and_then(|value| value.parse().ok()).unwrap_or(0);
        let now = self.beyond.max(before) + 1;
        // Two that find no row at once may get the same number, which harms nobody.
        tx.exec(
            "INSERT INTO setting (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            vals![KEY, &now.to_string()],
        )
        .await?;
        Ok(Advanced { before, now })
    }
}
