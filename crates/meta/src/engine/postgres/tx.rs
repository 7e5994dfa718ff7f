//! A transaction on PostgreSQL: begun together with its first statement, so that this costs no round trip of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use wharf_oci::RepositoryName;

use super::connection::Connection;
use super::fault::Fault;
use crate::error::{Error, Result};
use crate::tx::{Counter, Tx};
use crate::value::{Id, Row, Val};

/// How the statements of an operation stand together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// One statement, which is a transaction by itself.
    Alone,
    /// In a transaction that was begun before.
    Inside,
    /// All see one state, and none writes.
    Snapshot,
    /// Read and write under the locks that they ask for.
    Write {
        /// The commit need not wait for the disk.
        relaxed: bool,
    },
}

/// The counters' changes go in as rows of their own: everybody would wait for everybody on one row for each counter.
const COUNT: &str = "INSERT INTO counter_delta (name, delta) VALUES ";

/// So do those of what repositories take up.
const USAGE: &str = "INSERT INTO usage_delta (repository_id, bytes) VALUES ";

/// What an operation sees.
pub(super) struct PgTx<'c> {
    connection: &'c Connection,
    mode: Mode,
    limits: Option<(u128, u128)>,
    begun: bool,
    statements: u32,
    transaction: Option<String>,
    counts: [i64; Counter::ALL.len()],
    usage: BTreeMap<Id, i64>,
    fault: Option<Fault>,
    caller_clock: bool,
}

impl<'c> PgTx<'c> {
    /// `limits`: of a statement and of a wait for a lock, in milliseconds, when the session does not have them.
    pub(super) fn new(
        connection: &'c Connection,
        mode: Mode,
        limits: Option<(u128, u128)>,
    ) -> PgTx<'c> {
        PgTx {
            connection,
            mode,
            limits,
            begun: false,
            statements: 0,
            transaction: None,
            counts: [0; Counter::ALL.len()],
            usage: BTreeMap::new(),
            fault: None,
            caller_clock: false,
        }
    }

    /// The same, by the caller's clock if that is so.
    pub(super) fn with_clock(self, caller_clock: bool) -> PgTx<'c> {
        PgTx {
            caller_clock,
            ..self
        }
    }

    /// What went wrong on the way to the server, which says more than the error that the operation passed on.
    pub(super) fn fault(&mut self) -> Option<Fault> {
        self.fault.take()
    }

    /// By what the server knows this transaction, once it has begun to write.
    pub(super) fn transaction(&self) -> Option<&str> {
        self.transaction.as_deref()
    }

    fn begin(&self) -> Option<String> {
        let mut begin = match self.mode {
            Mode::Alone | Mode::Inside => return None,
            Mode::Snapshot => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY".to_owned(),
            Mode::Write { relaxed: false } => "BEGIN ISOLATION LEVEL READ COMMITTED".to_owned(),
            Mode::Write { relaxed: true } => {
                "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit TO off"
                    .to_owned()
            }
        };
        if let Some((statement, lock)) = self.limits {
            begin.push_str(&format!(
                "; SET LOCAL statement_timeout TO {statement}; SET LOCAL lock_timeout TO {lock}"
            ));
        }
        if matches!(self.mode, Mode::Write { .. }) {
            // Whether it was committed can be asked by this when the answer to COMMIT is lost.
            begin.push_str("; SELECT pg_current_xact_id()");
        }
        Some(begin)
    }

    async fn run(&mut self, sql: &'static str, values: &[Val<'_>]) -> Result<(Vec<Row>, u64)> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone().into_error());
        }
        self.statements += 1;
        if self.mode == Mode::Alone && self.statements > 1 {
            return Err(Error::Bug {
                op: "statement".to_owned(),
                reason: "an operation that is SINGLE ran two statements".to_owned(),
            });
        }
        #[cfg(feature = "suite")]
        self.connection.pause().await;
        let outcome = match self.begin().filter(|_| !self.begun) {
            None => self.connection.run(sql, values).await,
            Some(begin) => match self.connection.prepare(sql, values).await {
                Err(fault) => Err(fault),
                Ok(()) => {
                    self.begun = true;
                    let (begun, outcome) = tokio::join!(
                        self.connection.begin(&begin),
                        self.connection.run(sql, values)
                    );
                    match begun {
                        Ok(transaction) => {
                            self.transaction = transaction;
                            outcome
                        }
                        Err(fault) => Err(fault),
                    }
                }
            },
        };
        outcome.map_err(|fault| {
            if matches!(fault, Fault::Stale(_)) {
                self.connection.forget(sql);
            }
            let error = fault.clone().into_error();
            self.fault = Some(fault);
            error
        })
    }

    /// Ends it without a trace.
    pub(super) async fn roll_back(&self) -> Result<(), Fault> {
        if self.begun {
            self.connection.batch("ROLLBACK").await?;
        }
        Ok(())
    }

    /// Makes it so. An error may mean that the answer was lost: then nobody knows but the server.
    pub(super) async fn commit(&mut self) -> Result<(), Fault> {
        if !self.begun {
            // No statement: nothing to count.
            return Ok(());
        }
        let mut commit = String::new();
        for counter in Counter::ALL {
            let delta = self.counts[counter.index()];
            if delta != 0 {
                let begin = if commit.is_empty() { COUNT } else { ", " };
                // Names are ours, and so is the number.
                let _ = write!(commit, "{begin}('{}', {delta})", counter.as_str());
            }
        }
        if !commit.is_empty() {
            commit.push_str("; ");
        }
        let mut begin = USAGE;
        for (repository, bytes) in &self.usage {
            let id = u128::from_be_bytes(*repository.as_bytes());
            let _ = write!(commit, "{begin}('\\x{id:032x}', {bytes})");
            begin = ", ";
        }
        if begin != USAGE {
            commit.push_str("; ");
        }
        commit.push_str("COMMIT");
        #[cfg(feature = "suite")]
        self.connection.pause().await;
        self.connection.batch(&commit).await
    }
}

impl Tx for PgTx<'_> {
    async fn query(&mut self, sql: &'static str, parameters: &[Val<'_>]) -> Result<Vec<Row>> {
        self.run(sql, parameters).await.map(|(rows, _)| rows)
    }

    async fn exec(&mut self, sql: &'static str, parameters: &[Val<'_>]) -> Result<u64> {
        self.run(sql, parameters).await.map(|(_, changed)| changed)
    }

    async fn count(&mut self, counter: Counter, delta: i64) -> Result<()> {
        if self.mode == Mode::Alone && delta != 0 {
            return Err(Error::Bug {
                op: "count".to_owned(),
                reason: "an operation that counts is not SINGLE unless it is RELAXED".to_owned(),
            });
        }
        self.counts[counter.index()] += delta;
        Ok(())
    }

    async fn usage(&mut self, repository: &Id, bytes: i64) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        if self.mode == Mode::Alone {
            return Err(Error::Bug {
                op: "usage".to_owned(),
                reason: "an operation that counts is not SINGLE".to_owned(),
            });
        }
        *self.usage.entry(*repository).or_default() += bytes;
        Ok(())
    }

    async fn now(&mut self, caller: i64) -> Result<i64> {
        if self.caller_clock {
            return Ok(caller);
        }
        let row = self
            .row(
                "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
                &[],
            )
            .await?;
        row.map_or(Ok(0), |mut row| row.int(0))
    }

    async fn oldest_transaction(&mut self) -> Result<Option<i64>> {
        let row = self
            .row(
                "SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS TEXT) AS BIGINT)",
                &[],
            )
            .await?;
        row.map(|mut row| row.int(0)).transpose()
    }

    /// Nothing is kept in memory: other replicas write too.
    fn touch(&mut self, _: &RepositoryName, _: &str) {}

    fn id(&mut self, at: i64) -> Id {
        Id::new(at)
    }
}
