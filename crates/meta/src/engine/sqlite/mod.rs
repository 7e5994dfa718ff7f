//! SQLite: one writer thread with group commit, inline point reads, two threads for scans, one for checkpoints.
//!
//! ```text
//! write → queue → writer thread: BEGIN, op, op, op, COMMIT (one sync, or none if no op needs it) → answers
//! read  → a read-only connection on the caller's thread
//! scan  → queue → two reader threads
//!         checkpoint thread: log → database, off everybody's way
//! ```
//! Invariant: only the writer thread changes rows. Nothing here knows what an operation means.

mod backlog;
#[cfg(feature = "suite")]
mod bulk;
mod checkpoint;
mod connection;
mod dialect;
mod log;
mod look;
mod migrate;
mod reader;
mod reclaim;
mod reserve;
mod shared;
mod tx;
mod unread;
mod writer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::OpenFlags;
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, Result};
use crate::folder::{Found, beside, inspect};
use crate::fresh::Fresh;
use crate::meta::Opened;
use crate::migration::ALL;
use crate::stats::Stats;
use crate::tx::{Op, ReadOp};
use backlog::Backlog;
#[cfg(feature = "suite")]
pub use bulk::Bulk;
use checkpoint::Checkpointer;
#[cfg(feature = "suite")]
pub use connection::Steps;
use connection::{Connection, Mode, Registry, error, failure};
pub(crate) use look::known;
use reader::{PendingScan, Scan, Slots};
use reserve::Reserve;
use shared::{PAGE, Shared};
use unread::failed_read;
use writer::{Commit, Message, Pending, RELAXED_IN_A_ROW, Writer, hook, lost};

/// What a commit promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronous {
    /// An acknowledged write survives a power cut.
    Full,
    /// It survives a crash of the process; a power cut may take the last ones.
    Normal,
}

/// How to open a database.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// The file; its folder exists.
    pub path: PathBuf,
    /// What a commit promises.
    pub synchronous: Synchronous,
    /// At most so many operations in one commit.
    pub max_batch: usize,
    /// So many operations may wait for the writer; further callers wait to get in.
    pub queue: usize,
    /// So many connections for inline reads, at most: as many as runtime threads.
    pub inline_readers: usize,
    /// So many threads for scans.
    pub scan_threads: usize,
    /// The writer's page cache, in KiB.
    pub writer_cache_kib: u32,
    /// The page cache of each reading connection, in KiB.
    pub reader_cache_kib: u32,
    /// A checkpoint begins when so many bytes are in the log.
    pub checkpoint_bytes: u64,
    /// The log's file is cut to this when it starts anew, so that writes on a full disk find room in it.
    pub wal_keep_bytes: u64,
    /// Writes are refused while the log holds more bytes than this, which takes a very long read.
    pub max_wal_bytes: u64,
    /// So many bytes are set aside beside the database, for deletes on a full disk; 0: none.
    pub reserve_bytes: u64,
    /// How long SQLite waits for a lock of its own.
    pub busy_timeout: Duration,
}

impl SqliteOptions {
    /// The defaults, which suit every size of store.
    pub fn new(path: impl Into<PathBuf>) -> SqliteOptions {
        let threads = std::thread::available_parallelism().map_or(4, usize::from);
        SqliteOptions {
            path: path.into(),
            synchronous: Synchronous::Full,
            max_batch: 256,
            queue: 4096,
            inline_readers: threads.clamp(2, 64),
            scan_threads: 2,
            writer_cache_kib: 16 * 1024,
            reader_cache_kib: 4 * 1024,
            checkpoint_bytes: 16 << 20,
            wal_keep_bytes: 32 << 20,
            max_wal_bytes: 4 << 30,
            reserve_bytes: 0,
            busy_timeout: Duration::from_secs(5),
        }
    }
}

/// The engine.
#[derive(Debug)]
pub(crate) struct Engine {
    options: SqliteOptions,
    shared: Arc<Shared>,
    registry: Arc<Registry>,
    queue: mpsc::Sender<Message>,
    slots: Arc<Slots>,
    scans: Mutex<Option<mpsc::Sender<Box<dyn Scan>>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Engine {
    /// See [`crate::Meta::open`].
    pub(crate) fn open(options: SqliteOptions) -> Result<(Engine, Opened)> {
        let reserve = Reserve::new(beside(&options.path, "-reserve"), options.reserve_bytes);
        match Self::open_with(options.clone(), reserve) {
            // SQLite itself needs a few pages to begin.
            Err(error @ (Error::Full(_) | Error::Io(_))) => {
                let reserve =
                    Reserve::new(beside(&options.path, "-reserve"), options.reserve_bytes);
                if !reserve.release() {
                    return Err(error);
                }
                Self::open_with(options, reserve)
            }
            outcome => outcome,
        }
    }

    fn open_with(options: SqliteOptions, reserve: Reserve) -> Result<(Engine, Opened)> {
        let opened = match inspect(&options.path)? {
            Found::Nothing => {
                migrate::create(&options.path)?;
                Opened {
                    fresh: true,
                    migrated_from: None,
                }
            }
            Found::Usable { .. } => {
                // Without a sync for each commit, a power cut may tear several.
                if options.synchronous == Synchronous::Full {
                    log::check(&beside(&options.path, "-wal"))?;
                }
                Opened {
                    fresh: false,
                    migrated_from: migrate::upgrade(&options.path, ALL)?,
                }
            }
        };
        let registry = Arc::new(Registry::default());
        let shared = Arc::new(Shared::new(
            options.checkpoint_bytes.div_ceil(PAGE).max(1),
            reserve,
        ));
        let connect = |mode| Connection::open(&options, mode, Arc::clone(&registry));

        let mut writer = connect(Mode::Write)?;
        hook(&mut writer, &shared)?;
        let (queue, received) = mpsc::channel(options.queue.max(1));
        let writer = {
            let (shared, max_batch) = (Arc::clone(&shared), options.max_batch.max(1));
            let max_wal_bytes = options.max_wal_bytes;
            let commits = (options.synchronous == Synchronous::Full).then_some(Commit::Synced);
            move || Writer {
                connection: writer,
                backlog: Backlog::new(received, max_batch),
                shared,
                max_batch,
                max_wal_bytes,
                logged: HashMap::new(),
                commits,
                // The process before may have been killed right after such a commit.
                unsynced: RELAXED_IN_A_ROW,
                sync_time: Duration::ZERO,
            }
        };
        let slots = Arc::new(Slots::new(
            &options,
            Arc::clone(&registry),
            Arc::clone(&shared),
        ));
        let checkpointer = Checkpointer {
            connection: connect(Mode::Write)?,
            slots: Arc::clone(&slots),
            shared: Arc::clone(&shared),
            told: None,
        };
        let (scans, scanned) = mpsc::channel(options.queue.max(1));
        let scanned = Arc::new(Mutex::new(scanned));

        let mut threads = vec![
            spawn("meta-writer", move || writer().run())?,
            spawn("meta-checkpoint", move || checkpointer.run())?,
        ];
        for _ in 0..options.scan_threads.max(1) {
            let (connection, queue) = (connect(Mode::Read)?, Arc::clone(&scanned));
            threads.push(spawn("meta-scan", move || {
                reader::scans(connection, &queue)
            })?);
        }
        shared.reserve.hold();
        shared.wake_checkpoint();
        let engine = Engine {
            options,
            shared,
            registry,
            queue,
            slots,
            scans: Mutex::new(Some(scans)),
            threads: Mutex::new(threads),
        };
        Ok((engine, opened))
    }

    /// See [`crate::Meta::write`].
    pub(crate) async fn write<O: Op>(&self, op: O) -> Result<O::Out> {
        let (reply, answer) = oneshot::channel();
        let work = Pending {
            op,
            out: None,
            reply,
        };
        self.queue
            .send(Message::Work(Box::new(work)))
            .await
            .map_err(|_| Error::Closed)?;
        let answer = answer.await.map_err(|_| lost(O::name()))?;
        self.shared.note(&answer);
        answer
    }

    /// See [`crate::Meta::read`].
    pub(crate) fn read<O: ReadOp>(&self, op: &O) -> Result<O::Out> {
        self.shared.counts.reads.fetch_add(1, Ordering::Relaxed);
        let answer = self.slots.read(op);
        self.shared.note(&answer);
        answer
    }

    /// See [`crate::Meta::stamp`].
    pub(crate) fn fresh(&self) -> &Fresh {
        &self.shared.fresh
    }

    /// See [`crate::Meta::scan`].
    pub(crate) async fn scan<O: ReadOp>(&self, op: O) -> Result<O::Out> {
        self.shared.counts.scans.fetch_add(1, Ordering::Relaxed);
        let queue = self
            .scans
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .ok_or(Error::Closed)?;
        let (reply, answer) = oneshot::channel();
        queue
            .send(Box::new(PendingScan { op, reply }))
            .await
            .map_err(|_| Error::Closed)?;
        drop(queue);
        let answer = answer.await.map_err(|_| Error::Closed)?;
        self.shared.note(&answer);
        answer
    }

    /// See [`crate::Meta::snapshot_into`].
    pub(crate) async fn snapshot_into(&self, to: &Path) -> Result<()> {
        let (from, to) = (self.options.path.clone(), to.to_owned());
        let (reply, answer) = oneshot::channel();
        // A thread of its own: this may take minutes, and scans go on.
        spawn("meta-snapshot", move || {
            let copy = || {
                let connection = connection::open(&from, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
                connection
                    .busy_timeout(Duration::from_secs(5))
                    .map_err(|e| error(&e, "snapshot"))?;
                migrate::copy_into(&connection, &to)
            };
            let _ = reply.send(copy());
        })?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// See [`crate::Meta::integrity`].
    pub(crate) async fn integrity(&self) -> Result<Vec<String>> {
        let path = self.options.path.clone();
        let (reply, answer) = oneshot::channel();
        // A thread of its own, as for a snapshot.
        spawn("meta-integrity", move || {
            let check = || {
                let connection = connection::open(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
                let mut check = connection
                    .prepare("PRAGMA integrity_check(20)")
                    .map_err(|e| error(&e, "integrity check"))?;
                let found = check
                    .query_map([], |row| row.get::<_, String>(0))
                    .and_then(Iterator::collect::<rusqlite::Result<Vec<String>>>)
                    .map_err(|e| failure(&connection, &e, "integrity check"))?;
                if failed_read(&connection) {
                    // It lists pages that it could not get among those that are wrong.
                    return Err(Error::Io("the database cannot be read".to_owned()));
                }
                Ok(found.into_iter().filter(|line| line != "ok").collect())
            };
            let _ = reply.send(check());
        })?;
        let found: Vec<String> = answer.await.map_err(|_| Error::Closed)??;
        if let Some(first) = found.first() {
            self.report_damage(first.clone());
        }
        Ok(found)
    }

    /// See [`crate::Meta::report_damage`].
    pub(crate) fn report_damage(&self, what: String) {
        self.shared.note::<()>(&Err(Error::Corrupt(what)));
    }

    /// See [`crate::Meta::is_full`].
    pub(crate) fn is_full(&self) -> bool {
        self.shared.reserve.is_spent()
    }

    /// See [`crate::Meta::reclaim`].
    pub(crate) async fn reclaim(&self, pages: u32) -> Result<u64> {
        let (reply, answer) = oneshot::channel();
        let work = reclaim::Reclaim::new(pages, reply);
        self.queue
            .send(Message::Work(Box::new(work)))
            .await
            .map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| lost("engine::Reclaim"))?
    }

    /// See [`crate::Meta::stats`].
    pub(crate) fn stats(&self) -> Stats {
        let counts = &self.shared.counts;
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        Stats {
            operations: counts.operations.load(Ordering::Relaxed),
            failed: counts.failed.load(Ordering::Relaxed),
            commits: counts.commits.load(Ordering::Relaxed),
            failed_commits: counts.failed_commits.load(Ordering::Relaxed),
            commit_time: Duration::from_nanos(counts.commit_nanos.load(Ordering::Relaxed)),
            largest_batch: counts.largest_batch.load(Ordering::Relaxed),
            waiting: (self.queue.max_capacity() - self.queue.capacity()) as u64,
            refusing: self.shared.refusing().is_some(),
            damaged: self.shared.damaged().is_some(),
            full: self.shared.is_full(),
            checkpoints: counts.checkpoints.load(Ordering::Relaxed),
            failed_checkpoints: counts.failed_checkpoints.load(Ordering::Relaxed),
            wal_bytes: self.shared.wal_bytes(),
            wal_file_bytes: size(&beside(&self.options.path, "-wal")),
            database_bytes: size(&self.options.path),
            reads: counts.reads.load(Ordering::Relaxed),
            scans: counts.scans.load(Ordering::Relaxed),
            slow: self.shared.slow_list(),
            ..Stats::default()
        }
    }

    /// See [`crate::Meta::statements`].
    pub(crate) fn statements(&self) -> Vec<String> {
        self.registry.list()
    }

    /// See [`crate::Meta::explain`].
    pub(crate) fn explain(&self, statement: &str) -> Result<Vec<String>> {
        let connection = Connection::open(&self.options, Mode::Read, Arc::clone(&self.registry))?;
        let fail = |e: rusqlite::Error| error(&e, "explain");
        let mut prepared = connection
            .raw()
            .prepare(&format!(
                "EXPLAIN QUERY PLAN {}",
                dialect::statement(statement)
            ))
            .map_err(fail)?;
        // Parameters stay NULL: plans do not depend on them.
        let mut rows = prepared.raw_query();
        let mut steps = Vec::new();
        while let Some(row) = rows.next().map_err(fail)? {
            steps.push(row.get(3).map_err(fail)?);
        }
        Ok(steps)
    }

    /// See [`crate::Meta::close`].
    pub(crate) async fn close(&self) {
        // An error means that it is closed already.
        let _ = self.queue.send(Message::Close).await;
        let threads = self.stop();
        if threads.is_empty() {
            return;
        }
        let (done, joined) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let joiner = spawn("meta-close", move || {
            join(threads, &shared);
            let _ = done.send(());
        });
        if joiner.is_ok() {
            let _ = joined.await;
        }
    }

    /// Ends reads and gives the threads to join, the writer first.
    fn stop(&self) -> Vec<JoinHandle<()>> {
        self.slots.close();
        self.scans
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The queue may be full, in which case the writer is busy and a moment away from making room.
        let mut message = Message::Close;
        while let Err(mpsc::error::TrySendError::Full(back)) = self.queue.try_send(message) {
            message = back;
            std::thread::sleep(Duration::from_millis(1));
        }
        join(self.stop(), &self.shared);
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|e| Error::Io(format!("cannot start the thread {name}: {e}")))
}

/// Joins the threads; the one for checkpoints is told to end when the writer, the first, has.
fn join(threads: Vec<JoinHandle<()>>, shared: &Shared) {
    for (at, thread) in threads.into_iter().enumerate() {
        if at == 1 {
            shared.close();
        }
        if thread.join().is_err() {
            tracing::error!("a thread of the metadata store panicked");
        }
    }
}
