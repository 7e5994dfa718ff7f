//! The handle that everything above holds.

use std::path::Path;
use std::sync::Arc;

use wharf_oci::RepositoryName;

use crate::engine::sqlite::{Engine, SqliteOptions};
use crate::error::Result;
use crate::fresh::Stamp;
use crate::stats::Stats;
use crate::tx::{Op, ReadOp};

/// The metadata store. Cheap to clone; the last clone closes it when [`Meta::close`] did not.
#[derive(Clone, Debug)]
pub struct Meta {
    engine: Arc<Engine>,
}

/// What [`Meta::open`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// There was no database: it was made.
    pub fresh: bool,
    /// The schema before, when migrations ran. A snapshot of that state lies beside the database.
    pub migrated_from: Option<u32>,
}

impl Meta {
    /// Opens the database, making or migrating it. Blocks; takes well below a second whatever the database holds.
    ///
    /// The caller holds the data folder's [`crate::lock`]. Refuses a folder or file it must not use, before it touched
    /// anything: see [`crate::inspect`].
    pub fn open(options: SqliteOptions) -> Result<(Meta, Opened)> {
        let (engine, opened) = Engine::open(options)?;
        Ok((
            Meta {
                engine: Arc::new(engine),
            },
            opened,
        ))
    }

    /// Runs an operation; when this gives `Ok`, it is durable. An operation whose future is dropped may still happen.
    pub async fn write<O: Op>(&self, op: O) -> Result<O::Out> {
        self.engine.write(op).await
    }

    /// Runs a short read at once, on this thread: for point reads only, since it blocks for their time (microseconds).
    /// Sees every write that was acknowledged before.
    pub async fn read<O: ReadOp>(&self, op: O) -> Result<O::Out> {
        self.engine.read(&op)
    }

    /// Runs a read that passes over many rows on the threads made for that.
    pub async fn scan<O: ReadOp>(&self, op: O) -> Result<O::Out> {
        self.engine.scan(op).await
    }

    /// When the tag or digest of a repository was looked at: to be taken before a read, and kept with what it gave.
    pub fn stamp(&self, repository: &RepositoryName, reference: &str) -> Stamp {
        self.engine.fresh().stamp(repository, reference)
    }

    /// Whether what was read after the stamp was taken is what a read would give now. Exact: false from before the
    /// commit of a change is visible to any reader.
    pub fn is_fresh(&self, stamp: Stamp) -> bool {
        self.engine.fresh().is_fresh(stamp)
    }

    /// Writes a consistent copy of the database to a file that does not exist yet, while serving, and syncs it.
    pub async fn snapshot_into(&self, path: &Path) -> Result<()> {
        self.engine.snapshot_into(path).await
    }

    /// What is wrong inside the database itself, at most 20 findings; empty when it is whole. Reads all of it.
    pub async fn integrity(&self) -> Result<Vec<String>> {
        self.engine.integrity().await
    }

    /// A row turned out not to be what it was: nothing is written from now on, as after damage that SQLite finds itself.
    pub fn report_damage(&self, what: String) {
        self.engine.report_damage(what);
    }

    /// Whether the disk is so full that only deletes are accepted.
    pub fn is_full(&self) -> bool {
        self.engine.is_full()
    }

    /// The store's figures.
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// Gives at most so many pages that nothing uses any more back to the file system, as part of the writer's work; tells
    /// how many are left. Bounded: some microseconds for each page.
    pub async fn reclaim(&self, pages: u32) -> Result<u64> {
        self.engine.reclaim(pages).await
    }

    /// Every statement that was prepared so far, as its operation wrote it; for the record of query plans.
    pub fn statements(&self) -> Vec<String> {
        self.engine.statements()
    }

    /// How the engine would run a statement of an operation: one line for each step.
    pub fn explain(&self, statement: &str) -> Result<Vec<String>> {
        self.engine.explain(statement)
    }

    /// Finishes what was accepted, moves the log into the database and closes. Later calls give [`crate::Error::Closed`].
    pub async fn close(&self) {
        self.engine.close().await;
    }
}
