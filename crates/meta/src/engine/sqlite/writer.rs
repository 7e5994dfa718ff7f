//! The writer thread: many operations, one commit, one sync.
//!
//! It takes whatever waits, runs it inside one transaction, commits, and answers all. While it syncs, the next
//! operations gather. Operations that need no sync of their own ([`Op::RELAXED`]) go into a commit without one, ahead of
//! the others. Whoever changes the data in another way breaks the promise that only this thread writes.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::backlog::Backlog;
use super::connection::{Connection, error};
use super::shared::Shared;
use super::tx::{Counts, Progress, SqliteTx, Writes, run, simple};
use crate::error::{Error, Result};
use crate::fresh::Touched;
use crate::tx::{Counter, Op};
use crate::vals;

/// An operation may hold the writer for so long.
const SLOW: Duration = Duration::from_millis(5);
/// A batch takes no further operation after so long: those that wait for its commit should not wait for many.
const BATCH_TIME: Duration = Duration::from_millis(10);
/// So many commits in a row may do without a sync. The check of the log at the start counts on it: see `log.rs`.
pub(super) const RELAXED_IN_A_ROW: u32 = 1;
/// Callers who were just answered get this part of a sync's time to come back with more...
const RETURN_PART: u32 = 2;
/// ... and no more than this.
const RETURN_TIME: Duration = Duration::from_millis(2);
/// A slow operation is logged once in this time.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// What reaches the writer.
pub(super) enum Message {
    /// An operation.
    Work(Box<dyn Work>),
    /// Accept nothing more, finish what was accepted, end.
    Close,
}

/// What a commit waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Commit {
    /// The disk.
    Synced,
    /// Nothing: it takes operations that are [`Op::RELAXED`] and no others.
    Relaxed,
}

/// An operation with its caller, its type erased.
pub(super) trait Work: Send {
    /// [`Op::name`].
    fn name(&self) -> &'static str;
    /// How it may write.
    fn writes(&self) -> Writes;
    /// [`Op::FREES`].
    fn frees(&self) -> bool;
    /// [`Op::RELAXED`].
    fn relaxed(&self) -> bool;
    /// Runs it and keeps its result.
    fn run(&mut self, tx: &mut SqliteTx<'_>) -> Result<()>;
    /// Gives the kept result, or this error, to the caller.
    fn answer(self: Box<Self>, result: Result<()>);
}

/// An operation whose caller waits.
pub(super) struct Pending<O: Op> {
    pub(super) op: O,
    pub(super) out: Option<O::Out>,
    pub(super) reply: oneshot::Sender<Result<O::Out>>,
}

impl<O: Op> Work for Pending<O> {
    fn name(&self) -> &'static str {
        O::name()
    }

    fn writes(&self) -> Writes {
        if O::SINGLE { Writes::One } else { Writes::Any }
    }

    fn frees(&self) -> bool {
        O::FREES
    }

    fn relaxed(&self) -> bool {
        O::RELAXED
    }

    fn run(&mut self, tx: &mut SqliteTx<'_>) -> Result<()> {
        self.out = Some(run(&self.op, tx)?);
        Ok(())
    }

    fn answer(self: Box<Self>, result: Result<()>) {
        let bug = || Error::Bug {
            op: O::name().to_owned(),
            reason: "it has no result".to_owned(),
        };
        let Pending { out, reply, .. } = *self;
        // A caller that went away does not want it.
        let _ = reply.send(result.and_then(|()| out.ok_or_else(bug)));
    }
}

/// How an operation ended inside the batch.
enum Ran {
    /// Its changes go into the commit.
    Kept,
    /// Its changes were undone; the batch goes on.
    Undone(Error),
    /// SQLite undid the whole batch.
    BatchLost(Error),
}

/// The thread's state.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) backlog: Backlog,
    pub(super) shared: Arc<Shared>,
    pub(super) max_batch: usize,
    pub(super) max_wal_bytes: u64,
    pub(super) logged: HashMap<&'static str, Instant>,
    /// What commits wait for at the moment; `None`: for nothing ever, by the configuration.
    pub(super) commits: Option<Commit>,
    /// Commits since the last one that was synced.
    pub(super) unsynced: u32,
    /// How long a synced commit took lately.
    pub(super) sync_time: Duration,
}

impl Writer {
    /// Until the store is closed.
    pub(super) fn run(mut self) {
        while self.backlog.wait() {
            let relaxed = self.backlog.has_relaxed() && self.unsynced < RELAXED_IN_A_ROW;
            let commit = match relaxed {
                true => Commit::Relaxed,
                false => Commit::Synced,
            };
            let answered = self.guarded(commit);
            let patience = (self.sync_time / RETURN_PART).min(RETURN_TIME);
            self.backlog.gather(answered, patience);
        }
    }

    /// A panic outside of an operation ends this batch and no other. Callers without an answer hear of it, since what they
    /// wait on is dropped ([`lost`]).
    fn guarded(&mut self, commit: Commit) -> usize {
        let answered = catch_unwind(AssertUnwindSafe(|| self.batch(commit)));
        let answered = answered.unwrap_or_else(|panic| {
            if !self.connection.raw().is_autocommit()
                && let Err(error) = simple(self.connection.raw(), "ROLLBACK")
            {
                self.shared.refuse(&error);
            }
            told("the metadata writer", &*panic);
            // It may have committed before it was counted.
            self.unsynced = RELAXED_IN_A_ROW;
            0
        });
        if self.connection.renew() {
            // As it was opened.
            self.commits = self.commits.map(|_| Commit::Synced);
            if let Err(error) = hook(&mut self.connection, &self.shared) {
                tracing::error!(%error, "checkpoints will begin late");
            }
        }
        answered
    }

    /// Makes the next commits wait for this. Outside of transactions only.
    fn wait_for(&mut self, commit: Commit) -> Result<()> {
        if self.commits.is_none_or(|now| now == commit) {
            return Ok(());
        }
        let level = match commit {
            Commit::Synced => "FULL",
            Commit::Relaxed => "NORMAL",
        };
        // Never a cached statement: this takes effect when it is prepared.
        self.connection
            .raw()
            .pragma_update(None, "synchronous", level)
            .map_err(|e| error(&e, "synchronous"))?;
        self.commits = Some(commit);
        Ok(())
    }

    /// One commit of what waits; tells how many callers were answered.
    fn batch(&mut self, commit: Commit) -> usize {
        let Some(first) = self.backlog.next(commit) else {
            return 0;
        };
        if let Some(error) = self.refusal() {
            self.shared.counts.failed.fetch_add(1, Ordering::Relaxed);
            first.answer(Err(error));
            return 1;
        }
        // Checkpoints that must have the log for themselves wait here, instead of in SQLite's sleeping busy handler.
        let shared = Arc::clone(&self.shared);
        let _gate = shared.gate();
        let begun = self.wait_for(commit);
        if let Err(error) = begun.and_then(|()| simple(self.connection.raw(), "BEGIN IMMEDIATE")) {
            self.shared.counts.failed.fetch_add(1, Ordering::Relaxed);
            first.answer(Err(error));
            return 1;
        }
        let start = Instant::now();
        let mut counts = Counts::default();
        let mut touched = Touched::default();
        let mut done = Vec::new();
        let mut undone = 0;
        let mut next = Some(first);
        while let Some(mut work) = next.take() {
            let begun = Instant::now();
            let ran = if self.shared.reserve.is_spent() && !work.frees() {
                Ran::Undone(Error::Full("only deletes are accepted".to_owned()))
            } else {
                self.one(&mut *work, &mut counts, &mut touched)
            };
            self.watch(work.name(), begun.elapsed());
            match ran {
                Ran::Kept => done.push(work),
                Ran::Undone(error) => {
                    self.shared.counts.failed.fetch_add(1, Ordering::Relaxed);
                    work.answer(Err(error));
                    undone += 1;
                }
                Ran::BatchLost(error) => {
                    done.push(work);
                    let answered = undone + done.len();
                    self.fail(done, &error);
                    return answered;
                }
            }
            if done.len() < self.max_batch && start.elapsed() < BATCH_TIME {
                next = self.backlog.next(commit);
            }
        }
        let answered = undone + done.len();
        let begun = Instant::now();
        match self.commit(&counts, touched) {
            Ok(()) => {
                let took = begun.elapsed();
                self.shared.committed(done.len() as u64, took);
                match commit {
                    Commit::Relaxed => self.unsynced += 1,
                    Commit::Synced => {
                        self.unsynced = 0;
                        self.sync_time = (self.sync_time * 7 + took) / 8;
                    }
                }
                for work in done {
                    work.answer(Ok(()));
                }
            }
            // A frame found no room, so the log has no end of this batch, and no sync failed.
            Err(error @ Error::Full(_)) => self.fail(done, &error),
            Err(error) => {
                // What of it reached the disk is unknown, and so is what the next sync would vouch for. All this before it is
                // told, which may fail too.
                self.shared.refuse(&error);
                let operations = done.len();
                self.fail(done, &error);
                tracing::error!(%error, operations, "a metadata commit failed: writes are refused until a checkpoint is synced");
            }
        }
        answered
    }

    /// Why nothing is written now.
    fn refusal(&self) -> Option<Error> {
        if let Some(reason) = self.shared.damaged() {
            return Some(Error::Corrupt(reason));
        }
        match self.shared.refusing() {
            None => {}
            // Says more than that something failed.
            Some(error @ Error::ReadOnly { .. }) => return Some(error),
            Some(error) => return Some(Error::Refusing(error.to_string())),
        }
        let bytes = self.shared.wal_bytes();
        (bytes > self.max_wal_bytes).then(|| {
            self.shared.wake_checkpoint();
            Error::Busy(format!("its log has grown to {bytes} bytes and cannot be emptied while a long read or backup runs"))
        })
    }

    fn one(&mut self, work: &mut dyn Work, counts: &mut Counts, touched: &mut Touched) -> Ran {
        let before = counts.mark();
        let named = touched.len();
        let mut progress = Progress::new(work.writes());
        let mut tx = SqliteTx {
            connection: &mut self.connection,
            progress: &mut progress,
            counts,
            touched: &mut *touched,
        };
        let result = catch_unwind(AssertUnwindSafe(|| work.run(&mut tx))).unwrap_or_else(|panic| {
            let reason = reason(&*panic);
            tracing::error!(op = work.name(), %reason, "a metadata operation panicked");
            Err(Error::Bug {
                op: work.name().to_owned(),
                reason,
            })
        });
        if progress.served() && touched.len() == named {
            touched.all();
        }
        let raw = self.connection.raw();
        // SQLITE_FULL, IOERR, NOMEM and others may undo the whole transaction (SQLite documentation, lang_transaction).
        if raw.is_autocommit() {
            let lost = || Error::Io("SQLite gave the transaction up".to_owned());
            return Ran::BatchLost(result.err().unwrap_or_else(lost));
        }
        let end = |undo: bool| -> Result<()> {
            if progress.savepoint() {
                if undo {
                    simple(raw, "ROLLBACK TO op")?;
                }
                simple(raw, "RELEASE op")?;
            }
            Ok(())
        };
        match result {
            Ok(()) => match end(false) {
                Ok(()) => Ran::Kept,
                Err(error) => Ran::BatchLost(error),
            },
            Err(error) => {
                counts.back_to(before);
                match end(true) {
                    Ok(()) => Ran::Undone(error),
                    Err(_) => Ran::BatchLost(error),
                }
            }
        }
    }

    /// The one place where changes become visible: what they touch is stale from before it, and fresh again before anybody
    /// is answered. A commit that fails shows nobody anything.
    fn commit(&mut self, counts: &Counts, touched: Touched) -> Result<()> {
        add_counts(&mut self.connection, counts)?;
        let _changing = self.shared.fresh.change(touched);
        simple(self.connection.raw(), "COMMIT")
    }

    /// Undoes the batch, if SQLite did not, and gives all its callers the error.
    fn fail(&mut self, done: Vec<Box<dyn Work>>, error: &Error) {
        if !self.connection.raw().is_autocommit()
            && let Err(error) = simple(self.connection.raw(), "ROLLBACK")
        {
            self.shared.refuse(&error);
            tracing::error!(%error, "a metadata transaction could not be rolled back");
        }
        self.shared
            .counts
            .failed
            .fetch_add(done.len() as u64, Ordering::Relaxed);
        self.shared
            .counts
            .failed_commits
            .fetch_add(1, Ordering::Relaxed);
        // Once more with the room that was set aside, unless it is in use already.
        let full = matches!(error, Error::Full(_));
        let (frees, lost): (Vec<_>, Vec<_>) =
            done.into_iter().partition(|work| full && work.frees());
        for work in lost {
            work.answer(Err(error.clone()));
        }
        if full {
            self.shared.starve();
        }
        let again = !frees.is_empty() && self.shared.reserve.release();
        for mut work in frees {
            let outcome = if again {
                self.alone(&mut *work)
            } else {
                Err(error.clone())
            };
            work.answer(outcome);
        }
    }

    /// Runs an operation in a transaction of its own; the gate is held.
    fn alone(&mut self, work: &mut dyn Work) -> Result<()> {
        simple(self.connection.raw(), "BEGIN IMMEDIATE")?;
        let begun = Instant::now();
        let mut counts = Counts::default();
        let mut touched = Touched::default();
        let outcome = match self.one(work, &mut counts, &mut touched) {
            Ran::Kept => self.commit(&counts, touched).inspect_err(|error| {
                if !matches!(error, Error::Full(_)) {
                    self.shared.refuse(error);
                }
            }),
            Ran::Undone(error) | Ran::BatchLost(error) => Err(error),
        };
        if outcome.is_ok() {
            self.shared.committed(1, begun.elapsed());
        } else if !self.connection.raw().is_autocommit() {
            simple(self.connection.raw(), "ROLLBACK")
                .inspect_err(|error| self.shared.refuse(error))?;
        }
        outcome
    }

    fn watch(&mut self, name: &'static str, held: Duration) {
        if held <= SLOW {
            return;
        }
        self.shared.slow(name, held);
        let now = Instant::now();
        if self
            .logged
            .get(name)
            .is_none_or(|last| now.duration_since(*last) >= LOG_EVERY)
        {
            self.logged.insert(name, now);
            tracing::warn!(
                op = name,
                ms = held.as_millis() as u64,
                "a metadata operation held the writer for too long"
            );
        }
    }
}

/// Has a connection tell how long the log is after each commit.
pub(super) fn hook(connection: &mut Connection, shared: &Arc<Shared>) -> Result<()> {
    let shared = Arc::clone(shared);
    let hook = move |_: &mut rusqlite::hooks::Wal, pages: std::ffi::c_int| {
        shared.wal_has(u64::try_from(pages).unwrap_or(0));
        Ok(())
    };
    let hooked = connection.raw_mut().wal_hook(Some(hook));
    hooked.map_err(|e| error(&e, "wal_hook"))
}

/// What a panic says.
fn reason(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it panicked").to_owned()
}

/// Tells the operator that a thread of the engine panicked and goes on. What panicked may have been the telling.
pub(super) fn told(who: &'static str, panic: &(dyn Any + Send)) {
    let reason = reason(panic);
    let tell = || tracing::error!(who, %reason, "a thread of the metadata store panicked and goes on; this is a bug");
    let _ = catch_unwind(tell);
}

/// What a caller is told whose answer was dropped. The writer answers all that it takes, even while it closes: it panicked.
pub(super) fn lost(op: &str) -> Error {
    Error::Bug {
        op: op.to_owned(),
        reason: "the metadata writer panicked while it was under way".to_owned(),
    }
}

/// Adds to the totals; part of the commit, so it needs no savepoint of its own.
pub(super) fn add_counts(connection: &mut Connection, counts: &Counts) -> Result<()> {
    for counter in Counter::ALL {
        let delta = counts.totals[counter.index()];
        if delta != 0 {
            connection.exec(
                &mut Unguarded,
                "INSERT INTO counter (name, value) VALUES ($1, $2) \
                 ON CONFLICT (name) DO UPDATE SET value = counter.value + excluded.value",
                vals![counter.as_str(), delta],
            )?;
        }
    }
    let mut sums = BTreeMap::<_, i64>::new();
    for (repository, bytes) in &counts.usage {
        *sums.entry(repository).or_default() += bytes;
    }
    for (repository, bytes) in sums {
        connection.exec(
            &mut Unguarded,
            "INSERT INTO usage_delta (repository_id, bytes) VALUES ($1, $2)",
            vals![repository, bytes],
        )?;
    }
    Ok(())
}

/// For statements of the engine itself.
struct Unguarded;

impl super::connection::Guard for Unguarded {
    fn before(&mut self, _: &rusqlite::Connection, _: bool, _: bool) -> Result<()> {
        Ok(())
    }
}
