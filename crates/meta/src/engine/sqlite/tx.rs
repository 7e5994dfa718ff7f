//! A transaction on SQLite. Every call does its work before it returns its future, which is therefore always ready.

use std::future::{Future, ready};

use wharf_oci::RepositoryName;

use super::connection::{Connection, Guard, failure};
use crate::error::{Error, Result};
use crate::fresh::Touched;
use crate::tx::{Counter, Op, Tx};
use crate::value::{Id, Row, Val};

/// Changes of counters that go into the commit.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// By [`Counter::index`].
    pub(super) totals: [i64; Counter::ALL.len()],
    /// Of what repositories take up, as they came.
    pub(super) usage: Vec<(Id, i64)>,
}

/// What [`Counts`] were at some moment.
#[derive(Debug)]
pub(super) struct CountsMark([i64; Counter::ALL.len()], usize);

impl Counts {
    pub(super) fn mark(&self) -> CountsMark {
        CountsMark(self.totals, self.usage.len())
    }

    /// Forgets what came since.
    pub(super) fn back_to(&mut self, mark: CountsMark) {
        let CountsMark(totals, length) = mark;
        self.totals = totals;
        self.usage.truncate(length);
    }
}

/// How an operation may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writes {
    /// Not at all; if `single`, it is one statement outside of a transaction.
    No {
        /// See [`Op::SINGLE`].
        single: bool,
    },
    /// One statement, which SQLite undoes alone when it fails.
    One,
    /// Any number, in a savepoint that opens before the first.
    Any,
    /// Any number, and nothing is ever undone.
    #[cfg(feature = "suite")]
    Bulk,
}

/// What an operation did so far.
#[derive(Debug)]
pub(super) struct Progress {
    writes: Writes,
    statements: u32,
    written: u32,
    savepoint: bool,
    served: bool,
}

impl Progress {
    pub(super) fn new(writes: Writes) -> Progress {
        Progress {
            writes,
            statements: 0,
            written: 0,
            savepoint: false,
            served: false,
        }
    }

    /// Whether a savepoint is open.
    pub(super) fn savepoint(&self) -> bool {
        self.savepoint
    }

    /// Whether something was written that manifests are served from.
    pub(super) fn served(&self) -> bool {
        self.served
    }
}

impl Guard for Progress {
    fn before(
        &mut self,
        connection: &rusqlite::Connection,
        writes: bool,
        served: bool,
    ) -> Result<()> {
        let broken = |reason: &str| {
            Err(Error::Bug {
                op: "statement".into(),
                reason: reason.into(),
            })
        };
        self.statements += 1;
        if self.writes == (Writes::No { single: true }) && self.statements > 1 {
            return broken("an operation that is SINGLE and reads ran two statements");
        }
        if !writes {
            return Ok(());
        }
        self.written += 1;
        self.served |= served;
        match self.writes {
            Writes::No { .. } => broken("an operation that only reads tried to write"),
            Writes::One if self.written > 1 => broken("an operation that is SINGLE wrote twice"),
            Writes::One => Ok(()),
            Writes::Any if self.savepoint => Ok(()),
            #[cfg(feature = "suite")]
            Writes::Bulk => Ok(()),
            Writes::Any => {
                simple(connection, "SAVEPOINT op")?;
                self.savepoint = true;
                Ok(())
            }
        }
    }
}

/// Runs a cached statement without parameters.
pub(super) fn simple(connection: &rusqlite::Connection, sql: &'static str) -> Result<()> {
    let run = || connection.prepare_cached(sql)?.raw_execute();
    run().map(drop).map_err(|e| failure(connection, &e, sql))
}

/// What an operation sees.
pub(super) struct SqliteTx<'a> {
    pub(super) connection: &'a mut Connection,
    pub(super) progress: &'a mut Progress,
    pub(super) counts: &'a mut Counts,
    pub(super) touched: &'a mut Touched,
}

impl Tx for SqliteTx<'_> {
    fn query(
        &mut self,
        sql: &'static str,
        values: &[Val<'_>],
    ) -> impl Future<Output = Result<Vec<Row>>> + Send {
        ready(self.connection.query(self.progress, sql, values))
    }

    fn exec(
        &mut self,
        sql: &'static str,
        values: &[Val<'_>],
    ) -> impl Future<Output = Result<u64>> + Send {
        ready(self.connection.exec(self.progress, sql, values))
    }

    fn count(&mut self, counter: Counter, delta: i64) -> impl Future<Output = Result<()>> + Send {
        self.counts.totals[counter.index()] += delta;
        ready(Ok(()))
    }

    fn usage(&mut self, repository: &Id, bytes: i64) -> impl Future<Output = Result<()>> + Send {
        if bytes != 0 {
            self.counts.usage.push((*repository, bytes));
        }
        ready(Ok(()))
    }

    fn touch(&mut self, repository: &RepositoryName, reference: &str) {
        self.touched.add(repository, reference);
    }

    fn id(&mut self, at: i64) -> Id {
        Id::new(at)
    }
}

/// Polls an operation once: it awaits nothing but its transaction, so it is done then.
pub(super) fn run<O: Op>(op: &O, tx: &mut SqliteTx<'_>) -> Result<O::Out> {
    let future = std::pin::pin!(op.run(tx));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.poll(&mut context) {
        std::task::Poll::Ready(out) => out,
        std::task::Poll::Pending => Err(Error::Bug {
            op: O::name().to_owned(),
            reason: "it awaits something other than its transaction".to_owned(),
        }),
    }
}
