//! Whether accounts are still known to their directories, as these said when they were asked last.

use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;
use crate::value::Row;

/// An account as its directory sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandingRow {
    /// The directory.
    pub provider: String,
    /// Whom it calls so, for good.
    pub subject: String,
    /// The user here.
    pub user: String,
    /// Negative answers in a row.
    pub misses: u32,
    /// Since when they are enough, in milliseconds since 1970.
    pub gone_at: Option<i64>,
}

fn read(row: &mut Row) -> Result<StandingRow> {
    Ok(StandingRow {
        provider: row.text(0)?,
        subject: row.text(1)?,
        user: row.text(2)?,
        misses: u32::try_from(row.int(3)?).unwrap_or(u32::MAX),
        gone_at: row.opt_int(4)?,
    })
}

/// The accounts of a user. Cost: these.
#[derive(Clone, Debug)]
pub struct Of {
    /// The user.
    pub user: String,
}

impl ReadOp for Of {}
impl Op for Of {
    type Out = Vec<StandingRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT provider, subject, principal, misses, gone_at FROM account WHERE principal = $1 ORDER BY provider, subject LIMIT $2",
                vals![&self.user, super::account::MOST_ACCOUNTS],
            )
            .await?;
        rows.into_iter().map(|mut row| read(&mut row)).collect()
    }
}

/// Accounts of a directory that were not looked for since, those that were longest ago first. Cost: the rows given.
#[derive(Clone, Debug)]
pub struct Due {
    /// The directory.
    pub provider: String,
    /// Looked for before this time, in milliseconds since 1970.
    pub before: i64,
    /// The same for those that were not there and are not gone yet.
    pub missed_before: i64,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Due {}
impl Op for Due {
    type Out = Vec<StandingRow>;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT provider, subject, principal, misses, gone_at FROM account WHERE provider = $1 AND missing = 1 AND checked_at < \
                 $2 ORDER BY checked_at, subject LIMIT $3",
                vals![&self.provider, self.missed_before, self.limit],
            )
            .await?;
        let mut all: Vec<_> = rows
            .into_iter()
            .map(|mut row| read(&mut row))
            .collect::<Result<_>>()?;
        let left = self
            .limit
            .saturating_sub(u32::try_from(all.len()).unwrap_or(u32::MAX));
        let rows = tx
            .query(
                "SELECT provider, subject, principal, misses, gone_at FROM account WHERE provider = $1 AND missing = 0 AND checked_at < \
                 $2 ORDER BY checked_at, subject LIMIT $3",
                vals![&self.provider, self.before, left],
            )
            .await?;
        for mut row in rows {
            all.push(read(&mut row)?);
        }
        Ok(all)
    }
}

/// Notes what a directory says of an account; gives whether it counts as gone. Cost: one row.
#[derive(Clone, Debug)]
pub struct Check {
    /// The directory.
    pub provider: String,
    /// The subject.
    pub subject: String,
    /// Milliseconds since 1970.
    pub at: i64,
    /// Whether it is there.
    pub found: bool,
    /// So many negative answers in a row are enough.
    pub enough: u32,
}

impl Op for Check {
    type Out = bool;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        if self.found {
            tx.exec(
                "UPDATE account SET checked_at = $3, misses = 0, missing = 0, gone_at = NULL WHERE provider = $1 AND subject = $2",
                vals![&self.provider, &self.subject, self.at],
            )
            .await?;
            return Ok(false);
        }
        tx.exec(
            "UPDATE account SET checked_at = $3, gone_at = CASE WHEN gone_at IS NULL AND misses + 1 >= $4 THEN $3 ELSE gone_at END, \
             missing = CASE WHEN misses + 1 >= $4 THEN 0 ELSE 1 END, misses = misses + 1 WHERE provider = $1 AND subject = $2",
            vals![&self.provider, &self.subject, self.at, i64::from(self.enough)],
        )
        .await?;
        let row = tx
            .row(
                "SELECT gone_at FROM account WHERE provider = $1 AND subject = $2",
                vals![&self.provider, &self.subject],
            )
            .await?;
        Ok(match row {
            Some(mut row) => row.opt_int(0)?.is_some(),
            None => false,
        })
    }
}
