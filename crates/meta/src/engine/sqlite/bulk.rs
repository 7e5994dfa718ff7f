//! Fills a database fast, for measurements and tests: the operations of the registry themselves, so that rows, indexes
//! and counters are those that a server would have made; but on one thread, with few commits and no syncs.
//!
//! Called by `xtask` and by the suite. A crash while it runs leaves a database that is worth nothing; no server may use
//! this.

use std::path::Path;
use std::sync::Arc;

use rusqlite::config::DbConfig;

use super::connection::{Connection, Mode, Registry, Steps, error};
use super::tx::{Counts, Progress, SqliteTx, Writes, run, simple};
use super::writer::add_counts;
use super::{SqliteOptions, migrate};
use crate::error::{Error, Result};
use crate::folder::{Found, inspect};
use crate::fresh::Touched;
use crate::tx::Op;

/// Operations in one commit. Each writes every page that was changed since the one before, and what is pushed changes pages
/// all over the indexes: commits of 50,000 operations wrote a store of a million manifests ten times over.
const COMMIT_EVERY: u32 = 2_000_000;

/// A database that is being filled.
#[derive(Debug)]
pub struct Bulk {
    connection: Connection,
    counts: Counts,
    since_commit: u32,
}

impl Bulk {
    /// Makes a database, or goes on with one of this version that is closed. The page cache has `cache_mib`.
    pub fn open(path: &Path, cache_mib: u32) -> Result<Bulk> {
        match inspect(path)? {
            Found::Nothing => migrate::create(path)?,
            Found::Usable { .. } => {
                migrate::upgrade(path, crate::migration::ALL)?;
            }
        }
        let options = SqliteOptions {
            writer_cache_kib: cache_mib.saturating_mul(1024),
            ..SqliteOptions::new(path)
        };
        let connection = Connection::open(&options, Mode::Write, Arc::new(Registry::default()))?;
        let fail = |e: rusqlite::Error| error(&e, "fill");
        let raw = connection.raw();
        // The first makes the others possible: a log would hold everything twice.
        for (pragma, value) in [("locking_mode", "EXCLUSIVE"), ("synchronous", "OFF")] {
            raw.pragma_update(None, pragma, value).map_err(fail)?;
        }
        // Nothing is ever undone, so that no page needs to be kept as it was; SQLite's defensive mode would forbid that.
        raw.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false)
            .map_err(fail)?;
        for mode in ["DELETE", "OFF"] {
            let now: String = raw
                .pragma_update_and_check(None, "journal_mode", mode, |row| row.get(0))
                .map_err(fail)?;
            if !now.eq_ignore_ascii_case(mode) {
                return Err(Error::Bug {
                    op: "fill".to_owned(),
                    reason: format!("the journal is {now} instead of {mode}"),
                });
            }
        }
        simple(raw, "BEGIN IMMEDIATE")?;
        Ok(Bulk {
            connection,
            counts: Counts::default(),
            since_commit: 0,
        })
    }

    /// Runs an operation. After an error the database is worth nothing.
    pub fn run<O: Op>(&mut self, op: &O) -> Result<O::Out> {
        let mut progress = Progress::new(Writes::Bulk);
        // Nobody else has the database open.
        let mut touched = Touched::default();
        let out = run(
            op,
            &mut SqliteTx {
                connection: &mut self.connection,
                progress: &mut progress,
                counts: &mut self.counts,
                touched: &mut touched,
            },
        )?;
        self.since_commit += 1;
        if self.since_commit >= COMMIT_EVERY {
            self.commit()?;
            simple(self.connection.raw(), "BEGIN IMMEDIATE")?;
        }
        Ok(out)
    }

    /// Runs an operation and tells how much work its statements were.
    pub fn measure<O: Op>(&mut self, op: &O) -> Result<(O::Out, Steps)> {
        self.connection.steps = Steps::default();
        let out = self.run(op)?;
        Ok((out, self.connection.steps))
    }

    fn commit(&mut self) -> Result<()> {
        self.since_commit = 0;
        add_counts(&mut self.connection, &std::mem::take(&mut self.counts))?;
        simple(self.connection.raw(), "COMMIT")
    }

    /// Brings everything to the disk.
    pub fn finish(mut self) -> Result<()> {
        self.commit()?;
        let path = self.connection.raw().path().map(str::to_owned);
        drop(self.connection);
        let synced = path
            .map(std::fs::File::open)
            .transpose()
            .and_then(|file| file.map_or(Ok(()), |file| file.sync_all()));
        synced.map_err(|e| Error::Io(format!("syncing the filled database: {e}")))
    }
}
