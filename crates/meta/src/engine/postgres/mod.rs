//! PostgreSQL: transactions over a bounded pool, point reads over a few connections that all share.
//!
//! ```text
//! write → a task of its own: connection → BEGIN + first statement → … → COMMIT → answer
//! read  → one statement on a shared connection, pipelined with those of others
//! scan  → connection → BEGIN READ ONLY … COMMIT, or one statement
//! ```
//! Invariants: an operation whose COMMIT was sent is never run again before the server has said what became of it. No
//! connection on which a transaction is open is ever used by the next operation. Nothing here knows what an operation
//! means.

mod connection;
mod fault;
#[cfg(feature = "suite")]
mod gate;
mod migrate;
mod options;
mod pool;
mod tls;
mod tx;
mod value;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::look::{Known, Look};
use crate::meta::Opened;
use crate::migration::ALL;
use crate::stats::Stats;
use crate::tx::{Op, ReadOp};
use fault::Fault;
#[cfg(feature = "test-server")]
pub(crate) use fault::source;
#[cfg(feature = "suite")]
pub use gate::Gate;
use options::Connector;
pub use options::PostgresOptions;
use pool::{Pool, jitter};
use tx::{Mode, PgTx};

/// So often an operation is tried when others are in its way.
const ATTEMPTS: u32 = 30;
/// The longest pause between two such attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The engine.
#[derive(Debug)]
pub(crate) struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: Pool,
    counts: Counts,
}

/// Since the start of the process.
#[derive(Debug, Default)]
struct Counts {
    operations: AtomicU64,
    failed: AtomicU64,
    commits: AtomicU64,
    commit_nanos: AtomicU64,
    reads: AtomicU64,
    scans: AtomicU64,
    retries: AtomicU64,
    waiting: AtomicU64,
}

/// What came of one attempt.
enum Attempt<T> {
    Done(Result<T>),
    /// Nothing happened.
    Failed(Fault),
    /// Committed or not: this transaction tells.
    Unknown(Fault, T, Option<Doubt>),
}

/// A transaction whose end nobody has heard of.
struct Doubt {
    /// By what the server knows it...
    transaction: String,
    /// ... as long as it lives this life.
    life: String,
}

impl Engine {
    /// See [`crate::Meta::connect`].
    pub(crate) async fn open(options: PostgresOptions) -> Result<(Engine, Opened)> {
        let connector = Connector::new(&options)?;
        let pool = Pool::new(options, connector);
        let opened = open(&pool).await?;
        let inner = Inner {
            pool,
            counts: Counts::default(),
        };
        Ok((
            Engine {
                inner: Arc::new(inner),
            },
            opened,
        ))
    }

    /// See [`crate::Meta::write`]. In a task of its own: the caller may go away at any time, and half a transaction would
    /// hold its locks and cost its connection.
    pub(crate) async fn write<O: Op>(&self, op: O) -> Result<O::Out> {
        let inner = Arc::clone(&self.inner);
        inner.counts.waiting.fetch_add(1, Ordering::Relaxed);
        let mode = if O::SINGLE && !O::RELAXED {
            Mode::Alone
        } else {
            Mode::Write {
                relaxed: O::RELAXED,
            }
        };
        joined::<O>(tokio::spawn(async move {
            let out = inner.run(&op, mode).await;
            inner.counts.waiting.fetch_sub(1, Ordering::Relaxed);
            let counter = if out.is_ok() {
                &inner.counts.operations
            } else {
                &inner.counts.failed
            };
            counter.fetch_add(1, Ordering::Relaxed);
            out
        }))
        .await
    }

    /// See [`crate::Meta::read`].
    pub(crate) async fn read<O: ReadOp>(&self, op: O) -> Result<O::Out> {
        self.inner.counts.reads.fetch_add(1, Ordering::Relaxed);
        if !O::SINGLE {
            return self.transaction(op).await;
        }
        let pool = &self.inner.pool;
        let started = Instant::now();
        let mut attempt = 0;
        loop {
            let fault = match pool.shared().await {
                Err(fault) => fault,
                Ok(connection) => {
                    let mut tx = PgTx::new(&connection, Mode::Alone, None);
                    let out = op.run(&mut tx).await;
                    match tx.fault() {
                        None => return out,
                        Some(fault) => {
                            if fault.is_lost() {
                                connection.give_up();
                            }
                            fault
                        }
                    }
                }
            };
            self.inner.again(fault, &mut attempt, started).await?;
        }
    }

    /// See [`crate::Meta::scan`].
    pub(crate) async fn scan<O: ReadOp>(&self, op: O) -> Result<O::Out> {
        self.inner.counts.scans.fetch_add(1, Ordering::Relaxed);
        self.transaction(op).await
    }

    /// A read on a connection of its own.
    async fn transaction<O: ReadOp>(&self, op: O) -> Result<O::Out> {
        let inner = Arc::clone(&self.inner);
        let mode = if O::SINGLE {
            Mode::Alone
        } else {
            Mode::Snapshot
        };
        joined::<O>(tokio::spawn(async move { inner.run(&op, mode).await })).await
    }

    /// See [`crate::Meta::snapshot`].
    pub(crate) async fn snapshot(&self) -> Result<Snapshot> {
        let connection = self.inner.pool.apart().await.map_err(Fault::into_error)?;
        // What takes long is not stuck: its reads are short, and so is what it holds back.
        connection
            .batch(
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
                 SET LOCAL idle_in_transaction_session_timeout TO 0",
            )
            .await
            .map_err(Fault::into_error)?;
        Ok(Snapshot { connection })
    }

    /// See [`crate::Meta::finish_copy`].
    pub(crate) async fn finish_copy(&self) -> Result<()> {
        let done = async {
            let lease = self.inner.pool.get().await?;
            for table in ["event", "counter_delta", "usage_delta"] {
                lease
                    .text(&format!(
                        "SELECT setval(pg_get_serial_sequence('{table}', 'id'), \
                         (SELECT COALESCE(MAX(id), 0) + 1 FROM {table}), false)"
                    ))
                    .await?;
            }
            lease.batch("ANALYZE").await?;
            lease.give_back();
            Ok(())
        };
        done.await.map_err(Fault::into_error)
    }

    /// See [`crate::Meta::loss`].
    pub(crate) fn loss(&self) -> Option<String> {
        self.inner.pool.loss()
    }

    /// See [`crate::Meta::forget_loss`].
    pub(crate) fn forget_loss(&self) {
        self.inner.pool.forget_loss();
    }

    /// See [`crate::Meta::stats`].
    pub(crate) fn stats(&self) -> Stats {
        let counts = &self.inner.counts;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            operations: load(&counts.operations),
            failed: load(&counts.failed),
            commits: load(&counts.commits),
            commit_time: Duration::from_nanos(load(&counts.commit_nanos)),
            waiting: load(&counts.waiting),
            reads: load(&counts.reads),
            scans: load(&counts.scans),
            unreachable: self.inner.pool.down(),
            connections: self.inner.pool.in_use(),
            connected: load(&self.inner.pool.counts().connected),
            round_trips: load(&self.inner.pool.counts().round_trips),
            retries: load(&counts.retries),
            ..Stats::default()
        }
    }

    /// See [`crate::Meta::statements`].
    pub(crate) fn statements(&self) -> Vec<String> {
        self.inner.pool.statements()
    }

    /// See [`crate::Meta::close`].
    pub(crate) fn close(&self) {
        self.inner.pool.close();
    }
}

/// One state of the database, on a connection of its own, which ends it.
#[derive(Debug)]
pub(crate) struct Snapshot {
    connection: connection::Connection,
}

impl Snapshot {
    /// Runs a read.
    pub(crate) async fn read<O: ReadOp>(&self, op: &O) -> Result<O::Out> {
        let mut tx = PgTx::new(&self.connection, Mode::Inside, None);
        let out = op.run(&mut tx).await;
        match tx.fault() {
            Some(fault) => Err(fault.into_error()),
            None => out,
        }
    }
}

/// Makes the database usable.
async fn open(pool: &Pool) -> Result<Opened> {
    let (name, started) = (pool.connector().describe(), Instant::now());
    loop {
        let tried = async {
            let lease = pool.get().await?;
            let opened = migrate::open(&lease, &name, ALL).await?;
            lease.give_back();
            Ok(opened)
        };
        match tried.await {
            Ok(opened) => return Ok(opened),
            Err(fault) => pause(pool, &fault, started).await?,
        }
    }
}

/// See [`crate::look`].
pub(crate) async fn look(options: PostgresOptions, now_ms: impl Fn() -> i64) -> Result<Look> {
    let connector = Connector::new(&options)?;
    let direct = options.prepared;
    let pool = Pool::new(options, connector);
    let started = Instant::now();
    let looked = loop {
        match glance(&pool, direct, &now_ms).await {
            Ok(look) => break Ok(look),
            Err(fault) => match pause(&pool, &fault, started).await {
                Ok(()) => {}
                Err(error) => break Err(error),
            },
        }
    };
    pool.close();
    looked
}

async fn glance(pool: &Pool, direct: bool, now_ms: &impl Fn() -> i64) -> Result<Look, Fault> {
    let name = pool.connector().describe();
    let lease = pool.get().await?;
    let standing = migrate::examine(&lease, &name, ALL).await?;
    let facts = migrate::facts(&lease, standing.schema, now_ms).await?;
    // Through a PgBouncer it is the bouncer's own connection that the server knows of.
    let tls = match (direct, facts.tls) {
        (false, _) => "",
        (true, true) => ", with TLS",
        (true, false) => ", without TLS",
    };
    Ok(Look {
        place: name,
        server: Some(format!("{}{tls}", standing.server.describe())),
        schema: standing.schema,
        pending: standing.pending,
        known: Some(Known {
            installation: facts.installation,
            has_blobs: facts.has_blobs,
            half_copied: facts.half_copied,
            secret_key: facts.secret_key,
        }),
        ahead_ms: Some(facts.ahead_ms),
        warnings: standing.server.warnings(),
    })
}

/// Waits a moment for the database to come, unless it refuses this user or was waited for long enough.
async fn pause(pool: &Pool, fault: &Fault, started: Instant) -> Result<()> {
    if !fault.is_lost() || fault.refuses() || started.elapsed() > pool.options().start_patience {
        return Err(migrate::unreachable(pool, fault));
    }
    tokio::time::sleep(jitter(Duration::from_millis(500))).await;
    Ok(())
}

/// What the task of an operation gave.
async fn joined<O: Op>(task: tokio::task::JoinHandle<Result<O::Out>>) -> Result<O::Out> {
    match task.await {
        Ok(out) => out,
        Err(error) if error.is_cancelled() => Err(Error::Closed),
        Err(_) => Err(Error::Bug {
            op: O::name().to_owned(),
            reason: "it panicked".to_owned(),
        }),
    }
}

impl Inner {
    /// Runs an operation until it is done, refused, or nothing more can be hoped for.
    async fn run<O: Op>(&self, op: &O, mode: Mode) -> Result<O::Out> {
        let started = Instant::now();
        let mut attempt = 0;
        loop {
            let fault = match self.attempt(op, mode).await {
                Attempt::Done(out) => return out,
                Attempt::Failed(fault) => fault,
                Attempt::Unknown(fault, out, doubt) => {
                    if self.was_committed(doubt, fault.clone()).await? {
                        return Ok(out);
                    }
                    fault
                }
            };
            self.again(fault, &mut attempt, started).await?;
        }
    }

    /// Waits until trying again makes sense, or gives the error that ends the trying.
    async fn again(&self, fault: Fault, attempt: &mut u32, started: Instant) -> Result<()> {
        let pause = match &fault {
            Fault::Final(_) => return Err(fault.into_error()),
            Fault::Conflict(_) | Fault::Stale(_) if *attempt >= ATTEMPTS => {
                return Err(fault.into_error());
            }
            Fault::Stale(_) => Duration::ZERO,
            Fault::Conflict(_) => Duration::from_millis(1 << (*attempt).min(7)).min(LONGEST_PAUSE),
            Fault::Lost(_)
                if !self.pool.worth_waiting()
                    || started.elapsed() > self.pool.options().patience =>
            {
                return Err(fault.into_error());
            }
            Fault::Lost(_) => Duration::from_millis(20 << (*attempt).min(4)),
        };
        self.counts.retries.fetch_add(1, Ordering::Relaxed);
        *attempt += 1;
        tokio::time::sleep(jitter(pause)).await;
        Ok(())
    }

    async fn attempt<O: Op>(&self, op: &O, mode: Mode) -> Attempt<O::Out> {
        let lease = match self.pool.get().await {
            Ok(lease) => lease,
            Err(fault) => return Attempt::Failed(fault),
        };
        let options = self.pool.options();
        let limits = (!options.prepared).then_some((
            options.statement_timeout.as_millis(),
            options.lock_timeout.as_millis(),
        ));
        let mut tx = PgTx::new(&lease, mode, limits).with_clock(options.caller_clock);
        let out = op.run(&mut tx).await;
        let outcome = match (tx.fault(), out) {
            (Some(fault), _) => Err(Attempt::Failed(fault)),
            // What an operation finds to have changed under its feet.
            (None, Err(error @ Error::Busy(_))) => Err(Attempt::Failed(Fault::Conflict(error))),
            (None, Err(error)) => Err(Attempt::Done(Err(error))),
            (None, Ok(out)) => Ok(out),
        };
        match outcome {
            Ok(out) => {
                let began = Instant::now();
                let committed = tx.commit().await;
                let doubt = tx.transaction().map(|transaction| Doubt {
                    transaction: transaction.to_owned(),
                    life: lease.life().to_owned(),
                });
                match committed {
                    Ok(()) => {
                        if let Some(doubt) = &doubt
                            && mode == (Mode::Write { relaxed: false })
                        {
                            self.pool.acknowledged(&doubt.transaction);
                        }
                        lease.give_back();
                        self.counts.commits.fetch_add(1, Ordering::Relaxed);
                        let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
                        self.counts.commit_nanos.fetch_add(nanos, Ordering::Relaxed);
                        Attempt::Done(Ok(out))
                    }
                    Err(fault) => Attempt::Unknown(fault, out, doubt),
                }
            }
            Err(failed) => {
                let lost = matches!(&failed, Attempt::Failed(fault) if fault.is_lost());
                if !lost && tx.roll_back().await.is_ok() {
                    lease.give_back();
                }
                failed
            }
        }
    }

    /// Asks what became of a transaction whose answer was lost. Its process on the server may still be at it.
    async fn was_committed(&self, doubt: Option<Doubt>, fault: Fault) -> Result<bool> {
        let Some(Doubt { transaction, life }) = doubt else {
            // It only read.
            return Ok(false);
        };
        if !fault.is_lost() {
            // The server answered, and what it answered was no.
            return Ok(false);
        }
        let started = Instant::now();
        let mut attempt = 0;
        loop {
            let fault = match self.pool.get().await {
                Err(fault) => fault,
                Ok(lease) => match lease.status(&transaction, &life).await {
                    Ok(status) => {
                        lease.give_back();
                        match status.as_deref() {
                            Some("committed") => return Ok(true),
                            Some("aborted") => return Ok(false),
                            None => {
                                return Err(Error::Unreachable(
                                        "it was started anew while a write was under way, so what became of that is not \
                                         known"
                                            .to_owned(),
                                    ));
                            }
                            _ => Fault::Lost(Error::Unreachable(
                                "what became of a write is not known yet".to_owned(),
                            )),
                        }
                    }
                    Err(fault) => fault,
                },
            };
            let fault = match fault {
                Fault::Lost(error) => Fault::Lost(error),
                // A transaction "in the future": this server never saw it, since it took over from one that lost it.
                other => Fault::Final(Error::Unreachable(format!(
                    "what became of a write is not known: {}",
                    other.into_error()
                ))),
            };
            self.again(fault, &mut attempt, started).await?;
        }
    }
}
