//! Readers: connections for inline reads, and the threads for reads that pass over many rows.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use tokio::sync::{mpsc, oneshot};

use super::SqliteOptions;
use super::connection::{Connection, Mode, Registry};
use super::tx::{Counts, Progress, SqliteTx, Writes, run, simple};
use crate::error::{Error, Result};
use crate::fresh::Touched;
use crate::tx::{Op, ReadOp};

/// Runs a read on a connection: one statement alone, several in a transaction so that they see one state.
fn read<O: ReadOp>(connection: &mut Connection, op: &O) -> Result<O::Out> {
    let mut progress = Progress::new(Writes::No { single: O::SINGLE });
    let mut counts = Counts::default();
    let mut touched = Touched::default();
    if !O::SINGLE {
        simple(connection.raw(), "BEGIN")?;
    }
    let out = run(
        op,
        &mut SqliteTx {
            connection,
            progress: &mut progress,
            counts: &mut counts,
            touched: &mut touched,
        },
    );
    if !O::SINGLE {
        // Nothing was written: this only ends the view.
        simple(connection.raw(), "COMMIT").or_else(|_| simple(connection.raw(), "ROLLBACK"))?;
    }
    out
}

/// Connections for reads on the caller's thread: each thread has its own, unless there are more threads than slots.
///
/// They lie here rather than in thread-local variables so that closing the store closes them.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Box<[Mutex<Option<Connection>>]>,
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
    pub(super) fn new(options: &SqliteOptions, registry: Arc<Registry>) -> Slots {
        let slots = (0..options.inline_readers.max(1))
            .map(|_| Mutex::new(None))
            .collect();
        Slots {
            slots,
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
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => Connection::open(&self.options, Mode::Read, Arc::clone(&self.registry))?,
        };
        // Put back only when the operation did not panic.
        let out = read(&mut connection, op);
        *slot = Some(connection);
        out
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
            Some(scan) => scan.run(&mut connection),
            None => return,
        }
    }
}
