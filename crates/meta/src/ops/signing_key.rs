//! The keys that sign bearer tokens, shared by all replicas.

use std::fmt;

use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;

/// A key.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKeyRow {
    /// The key's id, its thumbprint.
    pub kid: String,
    /// The JWA name, for example `ES256`.
    pub algorithm: String,
    /// The private key, PKCS#8 DER, sealed by whoever adds it.
    pub private_der: Vec<u8>,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Since when it signs no more; it still verifies.
    pub retired_at: Option<i64>,
}

impl fmt::Debug for SigningKeyRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKeyRow")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .field("retired_at", &self.retired_at)
            .finish_non_exhaustive()
    }
}

/// All keys, newest first. Cost: all rows, of which rotation leaves a handful; 100 at most.
#[derive(Clone, Copy, Debug)]
pub struct List;

impl ReadOp for List {}
impl Op for List {
    type Out = Vec<SigningKeyRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT kid, algorithm, private_der, created_at, retired_at FROM signing_key ORDER BY created_at DESC, \
                 kid LIMIT 100",
                &[],
            )
            .await?;
        rows.into_iter()
            .map(|mut row| {
                Ok(SigningKeyRow {
                    kid: row.text(0)?,
                    algorithm: row.text(1)?,
                    private_der: row.bytes(2)?,
                    created_at: row.int(3)?,
                    retired_at: row.opt_int(4)?,
                })
            })
            .collect()
    }
}

/// Adds a key; one with the same id stays as it is. Cost: one row.
#[derive(Clone)]
pub struct Add {
    /// The key's id.
    pub kid: String,
    /// The JWA name.
    pub algorithm: String,
    /// The private key, PKCS#8 DER.
    pub private_der: Vec<u8>,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Add {
    type Out = bool;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let made = tx
            .exec(
                "INSERT INTO signing_key (kid, algorithm, private_der, created_at) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (kid) DO NOTHING",
                vals![&self.kid, &self.algorithm, &self.private_der, self.at],
            )
            .await?;
        Ok(made == 1)
    }
}

/// Puts other bytes in the place of a key's, if they are still these: the same key, sealed otherwise. Cost: one row.
#[derive(Clone)]
pub struct Reseal {
    /// The key's id.
    pub kid: String,
    /// What is there.
    pub from: Vec<u8>,
    /// What shall be.
    pub to: Vec<u8>,
}

impl Op for Reseal {
    type Out = bool;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let changed = tx
            .exec(
                "UPDATE signing_key SET private_der = $3 WHERE kid = $1 AND private_der = $2",
                vals![&self.kid, &self.from, &self.to],
            )
            .await?;
        Ok(changed == 1)
    }
}

/// Removes a key, whatever it still verifies. Cost: one row.
#[derive(Clone, Debug)]
pub struct Remove {
    /// The key's id.
    pub kid: String,
}

impl Op for Remove {
    type Out = ();
    const SINGLE: bool = true;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        tx.exec("DELETE FROM signing_key WHERE kid = $1", vals![&self.kid])
            .await?;
        Ok(())
    }
}

/// Lets a key sign no more; `false`: unknown, or retired before. Cost: one row.
#[derive(Clone, Debug)]
pub struct Retire {
    /// The key's id.
    pub kid: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Retire {
    type Out = bool;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let changed = tx
            .exec(
                "UPDATE signing_key SET retired_at = $2 WHERE kid = $1 AND retired_at IS NULL",
                vals![&self.kid, self.at],
            )
            .await?;
        Ok(changed == 1)
    }
}

/// Forgets one key that was retired before a time. `false`: there is no such key (any more). Cost: one
/// row, found among the handful that there are.
#[derive(Clone, Copy, Debug)]
pub struct Forget {
    /// Milliseconds since 1970.
    pub retired_before: i64,
}

impl Op for Forget {
    type Out = bool;
    const SINGLE: bool = true;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let gone = tx
            .exec(
                "DELETE FROM signing_key WHERE kid = (SELECT kid FROM signing_key WHERE retired_at < $1 LIMIT 1)",
                vals![self.retired_before],
            )
            .await?;
        Ok(gone == 1)
    }
}
