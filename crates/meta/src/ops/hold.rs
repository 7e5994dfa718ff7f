//! Holds on removal: as long as one stands, no replica removes bytes from the blob store. A backup takes one.
//!
//! Each is a row of `setting`, with the time at which it ends by itself, by the store's clock. Whoever is about to remove bytes
//! looks after the rows that named them are gone: then a hold that was taken before a snapshot is seen.

use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;

/// What their keys begin with.
const PREFIX: &str = "hold.";
/// The end of the range of such keys.
const BEHIND: &str = "hold/";
/// Rows looked at: more than there ever are.
const LISTED: i64 = 100;

fn key(id: &str) -> String {
    format!("{PREFIX}{id}")
}

/// Takes a hold, or makes one last longer that has not ended; gives whether it stands. Cost: a row, and those that have ended.
#[derive(Clone, Debug)]
pub struct Take {
    /// A name that nobody else uses.
    pub id: String,
    /// It is taken for the first time.
    pub first: bool,
    /// So many milliseconds from now.
    pub lasts: i64,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Take {
    type Out = bool;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let at = tx.now(self.at).await?;
        tx.exec(
            "DELETE FROM setting WHERE key >= $1 AND key < $2 AND CAST(value AS BIGINT) <= $3",
            vals![PREFIX, BEHIND, at],
        )
        .await?;
        let (key, until) = (key(&self.id), (at + self.lasts).to_string());
        if self.first {
            tx.exec(
                "INSERT INTO setting (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                vals![&key, &until],
            )
            .await?;
            return Ok(true);
        }
        let changed = tx
            .exec(
                "UPDATE setting SET value = $2 WHERE key = $1",
                vals![&key, &until],
            )
            .await?;
        Ok(changed > 0)
    }
}

/// Ends a hold; gives whether it stood until now. Cost: a row.
#[derive(Clone, Debug)]
pub struct Release {
    /// Its name.
    pub id: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Release {
    type Out = bool;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let at = tx.now(self.at).await?;
        let row = tx
            .row(
                "DELETE FROM setting WHERE key = $1 RETURNING value",
                vals![&key(&self.id)],
            )
            .await?;
        let until = row.map(|mut row| row.text(0)).transpose()?;
        Ok(until.is_some_and(|until| until.parse().is_ok_and(|until: i64| until > at)))
    }
}

/// For how many milliseconds a hold stands at most from now; `None`: there is none. Cost: a row each.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Milliseconds since 1970.
    pub at: i64,
}

impl ReadOp for Standing {}
impl Op for Standing {
    type Out = Option<i64>;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Option<i64>> {
        let at = tx.now(self.at).await?;
        let rows = tx
            .query(
                "SELECT value FROM setting WHERE key >= $1 AND key < $2 LIMIT $3",
                vals![PREFIX, BEHIND, LISTED],
            )
            .await?;
        let mut longest = None;
        for mut row in rows {
            // What is no time was written by something newer: it holds.
            let until = row.text(0)?.parse().unwrap_or(i64::MAX);
            if until > at {
                longest = longest.max(Some(until - at));
            }
        }
        Ok(longest)
    }
}
