//! The handle that everything above holds.

use std::path::Path;
use std::sync::Arc;

use wharf_oci::RepositoryName;

use crate::copy::{self, Copied};
use crate::engine::postgres::{self, PostgresOptions};
use crate::engine::sqlite::{self, SqliteOptions};
use crate::error::{Error, Result};
use crate::fresh::Stamp;
use crate::origin;
use crate::stats::Stats;
use crate::tx::{Op, ReadOp};

/// The metadata store. Cheap to clone; the last clone closes it when [`Meta::close`] did not.
#[derive(Clone, Debug)]
pub struct Meta {
    engine: Engine,
}

/// What runs the operations.
#[derive(Clone, Debug)]
enum Engine {
    Sqlite(Arc<sqlite::Engine>),
    Postgres(Arc<postgres::Engine>),
}

/// One state of a store; see [`Meta::snapshot`].
#[derive(Debug)]
pub(crate) enum Snapshot {
    /// The state as it is at each read: only for a store that nobody writes to.
    Sqlite(Meta),
    /// A transaction.
    Postgres(Box<postgres::Snapshot>),
}

impl Snapshot {
    /// Runs a read.
    pub(crate) async fn read<O: ReadOp>(&self, op: O) -> Result<O::Out> {
        match self {
            Snapshot::Sqlite(meta) => meta.scan(op).await,
            Snapshot::Postgres(snapshot) => snapshot.read(&op).await,
        }
    }
}

/// What [`Meta::open`] or [`Meta::connect`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// There was no database, or an empty one: it was made.
    pub fresh: bool,
    /// The schema before, when migrations ran. With SQLite, a snapshot of that state lies beside the database.
    pub migrated_from: Option<u32>,
}

impl Meta {
    /// Opens the database, making or migrating it. Blocks; takes well below a second whatever the database holds.
    ///
    /// The caller holds the data folder's [`crate::lock`]. Refuses a folder or file it must not use, before it touched
    /// anything: see [`crate::inspect`].
    pub fn open(options: SqliteOptions) -> Result<(Meta, Opened)> {
        let (engine, opened) = sqlite::Engine::open(options)?;
        let engine = Engine::Sqlite(Arc::new(engine));
        Ok((Meta { engine }, opened))
    }

    /// Connects to a PostgreSQL database, making its tables or migrating them. Any number of processes may do so.
    ///
    /// Waits for a server that does not answer yet. Refuses one that cannot keep what is promised, and a database that
    /// holds something else, before it touched anything.
    pub async fn connect(options: PostgresOptions) -> Result<(Meta, Opened)> {
        let (engine, opened) = postgres::Engine::open(options).await?;
        let engine = Engine::Postgres(Arc::new(engine));
        Ok((Meta { engine }, opened))
    }

    /// Whether other processes may write to the same store.
    pub fn is_shared(&self) -> bool {
        matches!(self.engine, Engine::Postgres(_))
    }

    /// Runs an operation; when this gives `Ok`, it is durable. An operation whose future is dropped may still happen.
    ///
    /// What it records comes from where the caller is said to come from: [`crate::Origin::scope`].
    pub async fn write<O: Op>(&self, op: O) -> Result<O::Out> {
        let op = origin::Carried::new(op);
        match &self.engine {
            Engine::Sqlite(engine) => engine.write(op).await,
            Engine::Postgres(engine) => Box::pin(engine.write(op)).await,
        }
    }

    /// Runs a short read: for point reads only. SQLite does it at once on this thread and blocks for microseconds.
    /// Sees every write that was acknowledged before, by whatever process.
    pub async fn read<O: ReadOp>(&self, op: O) -> Result<O::Out> {
        match &self.engine {
            Engine::Sqlite(engine) => engine.read(&op),
            Engine::Postgres(engine) => Box::pin(engine.read(op)).await,
        }
    }

    /// Runs a read that passes over many rows where it holds nobody up.
    pub async fn scan<O: ReadOp>(&self, op: O) -> Result<O::Out> {
        match &self.engine {
            Engine::Sqlite(engine) => engine.scan(op).await,
            Engine::Postgres(engine) => Box::pin(engine.scan(op)).await,
        }
    }

    /// When the tag or digest of a repository was looked at: to be taken before a read, and kept with what it gave.
    pub fn stamp(&self, repository: &RepositoryName, reference: &str) -> Stamp {
        match &self.engine {
            Engine::Sqlite(engine) => engine.fresh().stamp(repository, reference),
            Engine::Postgres(_) => Stamp::STALE,
        }
    }

    /// Whether what was read after the stamp was taken is what a read would give now. Exact: false from before the
    /// commit of a change is visible to any reader. Where other processes write too, never.
    pub fn is_fresh(&self, stamp: Stamp) -> bool {
        match &self.engine {
            Engine::Sqlite(engine) => engine.fresh().is_fresh(stamp),
            Engine::Postgres(_) => false,
        }
    }

    /// One state of the store, for reads that must all see the same.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot> {
        match &self.engine {
            Engine::Sqlite(_) => Ok(Snapshot::Sqlite(self.clone())),
            Engine::Postgres(engine) => Ok(Snapshot::Postgres(Box::new(engine.snapshot().await?))),
        }
    }

    /// Copies everything into a store that holds nothing, and compares; gives what was copied of each table. Of a PostgreSQL
    /// store it is one consistent state, whoever writes meanwhile; to an SQLite store nobody may write. `progress` hears the
    /// table, how many of its rows are done, and whether they were compared rather than copied.
    pub async fn copy_to(
        &self,
        to: &Meta,
        progress: &mut (dyn FnMut(&'static str, u64, bool) + Send),
    ) -> Result<Vec<Copied>> {
        copy::copy(self, to, progress).await
    }

    /// Refuses a store that holds something already, as a target of [`Meta::copy_to`].
    pub async fn expect_empty(&self) -> Result<()> {
        copy::check_empty(self).await
    }

    /// Whether this is the target of a copy that broke off: nothing may serve from it.
    pub async fn is_half_copied(&self) -> Result<bool> {
        copy::is_unfinished(self).await
    }

    /// What shows that the database lost writes that it had acknowledged to this process, until [`Meta::forget_loss`]. With
    /// SQLite nothing does: what is put back while it runs is damage.
    pub fn loss(&self) -> Option<String> {
        match &self.engine {
            Engine::Sqlite(_) => None,
            Engine::Postgres(engine) => engine.loss(),
        }
    }

    /// It was taken note of.
    pub fn forget_loss(&self) {
        if let Engine::Postgres(engine) = &self.engine {
            engine.forget_loss();
        }
    }

    /// What an engine needs after rows came with ids of their own.
    pub(crate) async fn finish_copy(&self) -> Result<()> {
        match &self.engine {
            Engine::Sqlite(_) => Ok(()),
            Engine::Postgres(engine) => engine.finish_copy().await,
        }
    }

    /// Writes a consistent copy of the database to a file that does not exist yet, while serving, and syncs it. It is an
    /// SQLite database, whatever the engine.
    pub async fn snapshot_into(&self, path: &Path) -> Result<()> {
        match &self.engine {
            Engine::Sqlite(engine) => engine.snapshot_into(path).await,
            Engine::Postgres(_) => {
                let options = SqliteOptions {
                    // Synced when it is whole.
                    synchronous: sqlite::Synchronous::Normal,
                    ..SqliteOptions::new(path)
                };
                let (copy, _) = Meta::open(options)?;
                let copied = self.copy_to(&copy, &mut |_, _, _| {}).await;
                copy.close().await;
                copied?;
                let file = std::fs::File::open(path);
                file.and_then(|file| file.sync_all())
                    .map_err(|e| Error::Io(format!("{}: {e}", path.display())))
            }
        }
    }

    /// What is wrong inside the database itself, at most 20 findings; empty when it is whole. Reads all of it. PostgreSQL
    /// looks after its own (data checksums, pg_amcheck): nothing is found here.
    pub async fn integrity(&self) -> Result<Vec<String>> {
        match &self.engine {
            Engine::Sqlite(engine) => engine.integrity().await,
            Engine::Postgres(_) => Ok(Vec::new()),
        }
    }

    /// A row turned out not to be what it was: nothing is written from now on, as after damage that SQLite finds itself.
    /// With PostgreSQL it is only logged: other replicas would write on.
    pub fn report_damage(&self, what: String) {
        match &self.engine {
            Engine::Sqlite(engine) => engine.report_damage(what),
            Engine::Postgres(_) => {
                tracing::error!(
                    what,
                    "a row of the metadata database is not what was written"
                );
            }
        }
    }

    /// Whether the disk is so full that only deletes are accepted. A server of its own knows about its disk.
    pub fn is_full(&self) -> bool {
        match &self.engine {
            Engine::Sqlite(engine) => engine.is_full(),
            Engine::Postgres(_) => false,
        }
    }

    /// The store's figures.
    pub fn stats(&self) -> Stats {
        match &self.engine {
            Engine::Sqlite(engine) => engine.stats(),
            Engine::Postgres(engine) => engine.stats(),
        }
    }

    /// Gives at most so many pages that nothing uses any more back to the file system, as part of the writer's work; tells
    /// how many are left. Bounded: some microseconds for each page. PostgreSQL vacuums by itself: none are left.
    pub async fn reclaim(&self, pages: u32) -> Result<u64> {
        match &self.engine {
            Engine::Sqlite(engine) => engine.reclaim(pages).await,
            Engine::Postgres(_) => Ok(0),
        }
    }

    /// Every statement that was prepared so far, as its operation wrote it; for the record of query plans.
    pub fn statements(&self) -> Vec<String> {
        match &self.engine {
            Engine::Sqlite(engine) => engine.statements(),
            Engine::Postgres(engine) => engine.statements(),
        }
    }

    /// How SQLite would run a statement of an operation: one line for each step.
    pub fn explain(&self, statement: &str) -> Result<Vec<String>> {
        match &self.engine {
            Engine::Sqlite(engine) => engine.explain(statement),
            Engine::Postgres(_) => Err(Error::Unsupported {
                what: "explaining a statement",
                instead: "use EXPLAIN in psql",
            }),
        }
    }

    /// Finishes what was accepted, moves the log into the database and closes. Later calls give [`crate::Error::Closed`].
    pub async fn close(&self) {
        match &self.engine {
            Engine::Sqlite(engine) => engine.close().await,
            Engine::Postgres(engine) => engine.close(),
        }
    }
}
