//! Refresh tokens, as hashes.

use std::fmt;

use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;

/// What a refresh token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshTokenRow {
    /// The principal's name.
    pub subject: String,
    /// The credential with which it was obtained.
    pub credential: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

/// Refresh tokens that one principal may have; then the oldest goes.
pub const MOST_REFRESH_TOKENS: u32 = 1_000;

/// Keeps a token. Making the same again changes nothing. Cost: one row, and an index entry for each token
/// of its principal.
#[derive(Clone)]
pub struct Create {
    /// The token's hash.
    pub hash: Vec<u8>,
    /// The principal's name.
    pub subject: String,
    /// The credential with which it was obtained.
    pub credential: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

impl fmt::Debug for Create {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Create")
            .field("subject", &self.subject)
            .finish_non_exhaustive()
    }
}

impl Op for Create {
    type Out = ();

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        tx.exec(
            "INSERT INTO refresh_token (hash, subject, credential, created_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (hash) DO NOTHING",
            vals![&self.hash, &self.subject, &self.credential, self.created_at],
        )
        .await?;
        tx.exec(
            "DELETE FROM refresh_token WHERE hash IN (SELECT hash FROM refresh_token WHERE subject = $1 \
             ORDER BY created_at DESC LIMIT 10 OFFSET $2)",
            vals![&self.subject, i64::from(MOST_REFRESH_TOKENS)],
        )
        .await?;
        Ok(())
    }
}

/// All of a principal that goes.
pub(super) async fn delete_of<T: Tx>(tx: &mut T, principal: &str) -> Result<()> {
    tx.exec(
        "DELETE FROM refresh_token WHERE subject = $1",
        vals![principal],
    )
    .await?;
    Ok(())
}

/// The token with a hash. Cost: one row.
#[derive(Clone)]
pub struct Get {
    /// The token's hash.
    pub hash: Vec<u8>,
}

impl ReadOp for Get {}
impl Op for Get {
    type Out = Option<RefreshTokenRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let row = tx
            .row(
                "SELECT subject, credential, created_at FROM refresh_token WHERE hash = $1",
                vals![&self.hash],
            )
            .await?;
        row.map(|mut row| {
            Ok(RefreshTokenRow {
                subject: row.text(0)?,
                credential: row.text(1)?,
                created_at: row.int(2)?,
            })
        })
        .transpose()
    }
}

/// Forgets a token; `false`: unknown. Cost: one row.
#[derive(Clone)]
pub struct Delete {
    /// The token's hash.
    pub hash: Vec<u8>,
}

impl Op for Delete {
    type Out = bool;
    const SINGLE: bool = true;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        Ok(tx
            .exec(
                "DELETE FROM refresh_token WHERE hash = $1",
                vals![&self.hash],
            )
            .await?
            == 1)
    }
}
