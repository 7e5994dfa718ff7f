//! One connection: its statements, its time limits, and the task that drives it.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_core::Stream;
use tokio::task::AbortHandle;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, RowStream, SimpleQueryMessage, Statement};

use super::fault::{Fault, source};
use super::options::{Connector, PostgresOptions};
use super::value::{row, type_of};
use crate::value::{Row, Val};

/// What the server is given beyond its own limit for a statement before its silence counts as a lost connection.
const GRACE: Duration = Duration::from_secs(5);

/// Tells one life of a server from the next: when it was started, and when its statistics began, which a crash of one of
/// its processes begins anew without a start.
const LIFE: &str = "SELECT pg_postmaster_start_time()::text || ' ' || \
    COALESCE((SELECT stats_reset FROM pg_stat_bgwriter)::text, '')";

/// What the engine counts about its connections.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Requests that waited for an answer of the server: what is pipelined waits once.
    pub(super) round_trips: std::sync::atomic::AtomicU64,
    /// Connections that were made.
    pub(super) connected: std::sync::atomic::AtomicU64,
}

/// A connection. Its statements may be run by many at once: they are answered in order.
pub(super) struct Connection {
    client: Client,
    statements: Mutex<HashMap<&'static str, Statement>>,
    driver: AbortHandle,
    broken: AtomicBool,
    prepared: bool,
    limit: Duration,
    life: String,
    counts: Arc<Counts>,
    seen: Arc<Mutex<Vec<&'static str>>>,
    #[cfg(feature = "suite")]
    gate: Option<Arc<super::gate::Gate>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects once, within the options' time.
    pub(super) async fn open(
        options: &PostgresOptions,
        connector: &Connector,
        counts: &Arc<Counts>,
        seen: &Arc<Mutex<Vec<&'static str>>>,
    ) -> Result<Connection, Fault> {
        let connecting = connector.connect();
        let (client, driver) = tokio::time::timeout(options.connect_timeout, connecting)
            .await
            .map_err(|_| Fault::silent())??;
        let driver = tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(error = source(&error), "a connection to PostgreSQL ended");
            }
        });
        counts.connected.fetch_add(1, Ordering::Relaxed);
        let mut connection = Connection {
            client,
            statements: Mutex::default(),
            driver: driver.abort_handle(),
            broken: AtomicBool::new(false),
            prepared: options.prepared,
            limit: options.statement_timeout + GRACE,
            life: String::new(),
            counts: Arc::clone(counts),
            seen: Arc::clone(seen),
            #[cfg(feature = "suite")]
            gate: options.gate.clone(),
        };
        connection.life = connection.text(LIFE).await?.unwrap_or_default();
        Ok(connection)
    }

    /// What became of a transaction, as the server has it; `None`: this is not the life of the server that it ran in.
    ///
    /// A server that crashed gives the numbers of transactions that it lost to others, and so does one that took over.
    pub(super) async fn status(
        &self,
        transaction: &str,
        life: &str,
    ) -> Result<Option<String>, Fault> {
        let ask = format!("{LIFE} || ' ' || COALESCE(pg_xact_status('{transaction}'::xid8), '')");
        let said = self.text(&ask).await?.unwrap_or_default();
        let status = said.strip_prefix(life).and_then(|s| s.strip_prefix(' '));
        Ok(status.map(str::to_owned))
    }

    /// Which life of the server it was opened in.
    pub(super) fn life(&self) -> &str {
        &self.life
    }

    /// Where a test holds whoever is about to run a statement of a transaction.
    #[cfg(feature = "suite")]
    pub(super) async fn pause(&self) {
        if let Some(gate) = &self.gate {
            gate.pass().await;
        }
    }

    /// Whether anything can still be asked on it.
    pub(super) fn is_usable(&self) -> bool {
        !self.broken.load(Ordering::Relaxed) && !self.client.is_closed()
    }

    /// Gives it up at once; whoever waits for an answer on it hears that it is closed.
    pub(super) fn give_up(&self) {
        self.broken.store(true, Ordering::Relaxed);
        self.driver.abort();
    }

    /// Waits for an answer, but not for ever.
    async fn within<T>(
        &self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Fault> {
        self.counts.round_trips.fetch_add(1, Ordering::Relaxed);
        self.beside(answer).await
    }

    /// The same for what is sent together with something else, and waited for together.
    async fn beside<T>(
        &self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Fault> {
        match tokio::time::timeout(self.limit, answer).await {
            Ok(answer) => answer.map_err(Fault::from),
            Err(_) => {
                self.give_up();
                Err(Fault::silent())
            }
        }
    }

    /// Several statements without parameters.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), Fault> {
        self.within(self.client.batch_execute(sql)).await
    }

    /// The first column of the last row that the statements give, as text.
    pub(super) async fn text(&self, sql: &str) -> Result<Option<String>, Fault> {
        self.within(self.client.simple_query(sql)).await.map(last)
    }

    /// The same, sent together with the first statement of a transaction.
    pub(super) async fn begin(&self, sql: &str) -> Result<Option<String>, Fault> {
        self.beside(self.client.simple_query(sql)).await.map(last)
    }

    /// A statement that nothing knows yet: [`super::migrate`] and the like.
    pub(super) async fn once(&self, sql: &str, values: &[Val<'_>]) -> Result<Vec<Row>, Fault> {
        let typed: Vec<(&(dyn ToSql + Sync), Type)> = values
            .iter()
            .map(|value| (value as &(dyn ToSql + Sync), type_of(value)))
            .collect();
        let rows = self.within(self.client.query_typed(sql, &typed)).await?;
        rows.iter().map(|r| row(r).map_err(Fault::Final)).collect()
    }

    /// The statement as the server knows it; asks once for each connection.
    async fn statement(&self, sql: &'static str, values: &[Val<'_>]) -> Result<Statement, Fault> {
        let known = self
            .statements
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(sql)
            .cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let types: Vec<Type> = values.iter().map(type_of).collect();
        let made = self.within(self.client.prepare_typed(sql, &types)).await?;
        self.note(sql);
        self.statements
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(sql, made.clone());
        Ok(made)
    }

    fn note(&self, sql: &'static str) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.contains(&sql) {
            seen.push(sql);
        }
    }

    /// Makes sure that running the statement later is one round trip.
    pub(super) async fn prepare(&self, sql: &'static str, values: &[Val<'_>]) -> Result<(), Fault> {
        if self.prepared {
            self.statement(sql, values).await?;
        }
        Ok(())
    }

    /// Forgets a statement that the server no longer knows.
    pub(super) fn forget(&self, sql: &'static str) {
        self.statements
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(sql);
    }

    /// Runs a statement of an operation: its rows, and how many it changed.
    pub(super) async fn run(
        &self,
        sql: &'static str,
        values: &[Val<'_>],
    ) -> Result<(Vec<Row>, u64), Fault> {
        if self.prepared {
            let statement = self.statement(sql, values).await?;
            return self.within(self.bound(&statement, values)).await?;
        }
        self.note(sql);
        self.within(self.unnamed(sql, values)).await?
    }

    async fn bound(
        &self,
        statement: &Statement,
        values: &[Val<'_>],
    ) -> Result<Result<(Vec<Row>, u64), Fault>, tokio_postgres::Error> {
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
        collect(self.client.query_raw(statement, values).await?).await
    }

    async fn unnamed(
        &self,
        sql: &'static str,
        values: &[Val<'_>],
    ) -> Result<Result<(Vec<Row>, u64), Fault>, tokio_postgres::Error> {
        let typed: Vec<(&(dyn ToSql + Sync), Type)> = values
            .iter()
            .map(|value| (value as &(dyn ToSql + Sync), type_of(value)))
            .collect();
        collect(self.client.query_typed_raw(sql, typed).await?).await
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Otherwise the client says goodbye by itself and the driver ends after that.
        if self.broken.load(Ordering::Relaxed) {
            self.driver.abort();
        }
    }
}

async fn collect(rows: RowStream) -> Result<Result<(Vec<Row>, u64), Fault>, tokio_postgres::Error> {
    let mut rows = pin!(rows);
    let mut all = Vec::new();
    while let Some(next) = poll_fn(|context| rows.as_mut().poll_next(context)).await {
        match row(&next?) {
            Ok(row) => all.push(row),
            Err(error) => return Ok(Err(Fault::Final(error))),
        }
    }
    Ok(Ok((all, rows.rows_affected().unwrap_or(0))))
}

fn last(messages: Vec<SimpleQueryMessage>) -> Option<String> {
    messages.iter().rev().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    })
}
