//! Counters whose changes were written as rows of their own, as PostgreSQL does.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::tx::{Op, Tx};
use crate::vals;

/// So many changes one [`Fold`] takes at most.
pub const MAX_FOLD: u32 = 400;

/// Adds changes to their counters and removes them; gives how many there were: fewer than `limit` means that none is left.
/// Any number may run at once: each change is taken by one. Cost: `limit` rows, and one for each counter.
#[derive(Clone, Copy, Debug)]
pub struct Fold {
    /// At most so many, [`MAX_FOLD`] or less.
    pub limit: u32,
}

impl Op for Fold {
    type Out = u32;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u32> {
        let rows = tx
            .query(
                "DELETE FROM counter_delta WHERE id IN (SELECT id FROM counter_delta ORDER BY id LIMIT $1) \
                 RETURNING name, delta",
                vals![self.limit.min(MAX_FOLD)],
            )
            .await?;
        let count = rows.len() as u32;
        // In order, so that two who fold at once never wait for each other in a circle.
        let mut sums = BTreeMap::<String, i64>::new();
        for mut row in rows {
            *sums.entry(row.text(0)?).or_default() += row.int(1)?;
        }
        for (name, sum) in sums {
            tx.exec(
                "INSERT INTO counter (name, value) VALUES ($1, $2) \
                 ON CONFLICT (name) DO UPDATE SET value = counter.value + excluded.value",
                vals![&name, sum],
            )
            .await?;
        }
        Ok(count)
    }
}
