//! Replicas: which processes serve from this store, as each says of itself every few seconds.
//!
//! Nothing is decided by these rows: leases and fences are in the rows that they protect. They are for people, and for a
//! process that starts and wants to know whether the others are set up as it is.

use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;

/// A process that has said nothing for so long is forgotten, in milliseconds.
pub const FORGET_MS: i64 = 600_000;
/// So many are listed at most.
const LISTED: u32 = 1_000;

/// What a process says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its name, made at its start.
    pub id: String,
    /// Where it listens.
    pub address: String,
    /// Its version.
    pub version: String,
    /// The settings that must be the same everywhere, as JSON.
    pub settings: String,
    /// How busy it is, as JSON.
    pub load: String,
}

/// A process as the others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaRow {
    /// What it said last.
    pub said: Said,
    /// When it started, in milliseconds since 1970.
    pub started_at: i64,
    /// How long ago it said that, in milliseconds by the store's clock.
    pub silent_for: i64,
}

/// Says that a process is there; forgets those that are long gone. Cost: one row, and those that go.
#[derive(Clone, Debug)]
pub struct Beat {
    /// What it says.
    pub said: Said,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Beat {
    type Out = ();
    const RELAXED: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        let at = tx.now(self.at).await?;
        let said = &self.said;
        tx.exec(
            "INSERT INTO replica (id, address, version, settings, load, started_at, seen_at) VALUES ($1, $2, $3, $4, $5, $6, \
             $6) ON CONFLICT (id) DO UPDATE SET load = excluded.load, seen_at = excluded.seen_at",
            vals![&said.id, &said.address, &said.version, &said.settings, &said.load, at],
        )
        .await?;
        // Not one that says something itself just now: two that come back at once would wait for each other.
        let silent = tx
            .query(
                "SELECT id FROM replica WHERE seen_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED",
                vals![at - FORGET_MS, LISTED],
            )
            .await?;
        for mut row in silent {
            tx.exec("DELETE FROM replica WHERE id = $1", vals![&row.text(0)?])
                .await?;
        }
        Ok(())
    }
}

/// Says that a process is going. Cost: one row.
#[derive(Clone, Debug)]
pub struct Leave {
    /// Its name.
    pub id: String,
}

impl Op for Leave {
    type Out = ();
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        tx.exec("DELETE FROM replica WHERE id = $1", vals![&self.id])
            .await?;
        Ok(())
    }
}

/// All processes that were heard of lately, by start. Cost: a row each.
#[derive(Clone, Copy, Debug)]
pub struct List {
    /// Milliseconds since 1970.
    pub at: i64,
}

impl ReadOp for List {}
impl Op for List {
    type Out = Vec<ReplicaRow>;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let at = tx.now(self.at).await?;
        let rows = tx
            .query(
                "SELECT id, address, version, settings, load, started_at, seen_at FROM replica ORDER BY started_at, id LIMIT $1",
                vals![LISTED],
            )
            .await?;
        rows.into_iter()
            .map(|mut row| {
                Ok(ReplicaRow {
                    said: Said {
                        id: row.text(0)?,
                        address: row.text(1)?,
                        version: row.text(2)?,
                        settings: row.text(3)?,
                        load: row.text(4)?,
                    },
                    started_at: row.int(5)?,
                    silent_for: at.saturating_sub(row.int(6)?),
                })
            })
            .collect()
    }
}
