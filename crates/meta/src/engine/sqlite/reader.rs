//! Readers: connections for inline reads, and the threads for reads that pass over many rows.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use tokio::sync::{mpsc, oneshot};

use super::SqliteOptions;
use super::connection::{Connection, Mode, Registry};
use super::shared::Shared;
use super::tx::{Counts, Progress, SqliteTx, Writes, run, simple};
use super::unread::failed_read;
use crate::error::{Error, Result};
use crate::fresh::Touched;
use crate::tx::{Op, ReadOp};

/// Runs a read on a connection: one statement alone, several in a transaction so that they see one state.
fn read<O: ReadOp>(connection: &mut Connection, op: &O) -> Result<O::Out> {
    if O::SINGLE {
        return look(connection, op);
    }
    simple(connection.raw(), "BEGIN")?;
    let out = look(connection, op);
    let ended = end(connection);
    // What the read met says more than what came of it.
    out.and_then(|out| ended.map(|()| out))
}

/// Runs a read in whatever view the connection has.
fn look<O: ReadOp>(connection: &mut Connection, op: &O) -> Result<O::Out> {
    let mut progress = Progress::new(Writes::No { single: O::SINGLE });
    let mut counts = Counts::default();
    let mut touched = Touched::default();
    let mut tx = SqliteTx {
        connection,
        progress: &mut progress,
        counts: &mut counts,
        touched: &mut touched,
    };
    run(op, &mut tx)
}

/// Ends a view: nothing was written in it.
fn end(connection: &Connection) -> Result<()> {
    simple(connection.raw(), "COMMIT").or_else(|_| simple(connection.raw(), "ROLLBACK"))
}

/// A connection for inline reads. Its view stays open from read to read as long as nothing is committed, since opening
/// and closing one costs more than reading a row: four system calls, and locks that all readers share.
#[derive(Debug)]
struct Reader {
    connection: Connection,
    /// [`Shared::view`] from before the view was opened.
    view: Option<u64>,
}

impl Reader {
    fn read<O: ReadOp>(&mut self, op: &O, shared: &Shared) -> Result<O::Out> {
        let now = shared.view();
        if self.view.is_none() || self.view != now {
            self.end()?;
            if now.is_none() {
                return read(&mut self.connection, op);
            }
            simple(self.connection.raw(), "BEGIN")?;
            self.view = now;
        }
        let out = look(&mut self.connection, op);
        if out.is_err() {
            // Whatever it was, the next read begins anew.
            let _ = self.end();
        }
        out
    }

    /// Ends the view, if there is one.
    fn end(&mut self) -> Result<()> {
        match self.view.take() {
            Some(_) => end(&self.connection),
            None => Ok(()),
        }
    }
}

/// Connections for reads on the caller's thread: each thread has its own, unless there are more threads than slots.
///
/// They lie here rather than in thread-local variables so that closing the store closes them.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Box<[Mutex<Option<Reader>>]>,
    shared: Arc<Shared>,
    options: SqliteOptions,
    registry: Arc<Registry>,
    closed: AtomicBool,
}

static NEXT: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    /// A number for each thread, to find its slot.
    static THREAD: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed));
}

impl Slots {
    pub(super) fn new(
        options: &SqliteOptions,
        registry: Arc<Registry>,
        shared: Arc<Shared>,
    ) -> Slots {
        let slots = (0..options.inline_readers.max(1))
            .map(|_| Mutex::new(None))
            .collect();
        Slots {
            slots,
            shared,
            options: options.clone(),
            registry,
            closed: AtomicBool::new(false),
        }
    }

    /// Runs a read on this thread.
    pub(super) fn read<O: ReadOp>(&self, op: &O) -> Result<O::Out> {
        let own = THREAD.get() % self.slots.len();
        // A free one, beginning with this thread's own; if all are taken, its own.
        let free = (0..self.slots.len()).find_map(|at| {
            match self.slots[(own + at) % self.slots.len()].try_lock() {
                Ok(slot) => Some(slot),
                // An operation panicked in it, which left it empty.
                Err(TryLockError::Poisoned(slot)) => Some(slot.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            }
        });
        let mut slot = free.unwrap_or_else(|| {
            self.slots[own]
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        });
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let mut reader = match slot.take() {
            Some(reader) => reader,
            None => Reader {
                connection: Connection::open(
                    &self.options,
                    Mode::Read,
                    Arc::clone(&self.registry),
                )?,
                view: None,
            },
        };
        // Put back only when the operation did not panic.
        let out = reader.read(op, &self.shared);
        // One whose view could not be ended is of no use any more, nor one on which a read failed.
        let stuck = reader.view.is_none() && !reader.connection.raw().is_autocommit();
        let failed = out.is_err() && failed_read(reader.connection.raw());
        *slot = (!stuck && !failed).then_some(reader);
        out
    }

    /// Ends all views that stay open, after [`Shared::without_views`]. Waits for reads, which are short.
    pub(super) fn end_views(&self) {
        for slot in &self.slots {
            let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            if slot.as_mut().is_some_and(|reader| reader.end().is_err()) {
                slot.take();
            }
        }
    }

    /// Closes all connections; later reads are refused.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for slot in &self.slots {
            slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }
}

/// A read that waits for a reader thread.
pub(super) trait Scan: Send {
    /// Runs it and answers.
    fn run(self: Box<Self>, connection: &mut Connection);
}

/// A read whose caller waits.
pub(super) struct PendingScan<O: ReadOp> {
    pub(super) op: O,
    pub(super) reply: oneshot::Sender<Result<O::Out>>,
}

impl<O: ReadOp> Scan for PendingScan<O> {
    fn run(self: Box<Self>, connection: &mut Connection) {
        if self.reply.is_closed() {
            return;
        }
        let out =
            catch_unwind(AssertUnwindSafe(|| read(connection, &self.op))).unwrap_or_else(|_| {
                if !connection.raw().is_autocommit() {
                    // The panic left the view open; a failure shows with the next read's BEGIN.
                    let _ = simple(connection.raw(), "ROLLBACK");
                }
                Err(Error::Bug {
                    op: <O as Op>::name().to_owned(),
                    reason: "it panicked".to_owned(),
                })
            });
        let _ = self.reply.send(out);
    }
}

/// A reader thread's work.
pub(super) fn scans(mut connection: Connection, queue: &Mutex<mpsc::Receiver<Box<dyn Scan>>>) {
    loop {
        let next = queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .blocking_recv();
        match next {
            Some(scan) => {
                scan.run(&mut connection);
                connection.renew();
            }
            None => return,
        }
    }
}
