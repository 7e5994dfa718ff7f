//! Connections: a bounded number for transactions, each used by one at a time, and a few that all point reads share.
//!
//! While the database cannot be reached, one attempt is made at a time, with growing pauses, and everybody else hears its
//! outcome: a thousand requests must not be a thousand attempts when it comes back.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::connection::{Connection, Counts};
use super::fault::Fault;
use super::options::{Connector, PostgresOptions};
use crate::error::{Error, Result};

/// The longest pause between two attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A part of `most`, at random.
pub(super) fn jitter(most: Duration) -> Duration {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let random = RandomState::new().build_hasher().finish();
    most.mul_f64(0.5 + (random % 1024) as f64 / 2048.0)
}

/// That the database cannot be reached, and since when.
#[derive(Debug)]
struct Down {
    since: Instant,
    again: Instant,
    attempts: u32,
    why: Error,
}

/// All connections of a store.
#[derive(Debug)]
pub(super) struct Pool {
    options: PostgresOptions,
    connector: Connector,
    counts: Arc<Counts>,
    seen: Arc<Mutex<Vec<&'static str>>>,
    places: Semaphore,
    idle: Mutex<Vec<Connection>>,
    shared: Vec<RwLock<Option<Arc<Connection>>>>,
    turn: AtomicUsize,
    down: Mutex<Option<Down>>,
    /// In which life of the server the last connection was made.
    life: Mutex<String>,
    /// The newest transaction that was acknowledged and is on the server's disk.
    newest: AtomicU64,
    loss: Mutex<Option<String>>,
    /// Held by whoever tries to connect while the database is down.
    trying: tokio::sync::Mutex<()>,
}

impl Pool {
    pub(super) fn new(options: PostgresOptions, connector: Connector) -> Pool {
        Pool {
            places: Semaphore::new(options.connections.max(1) as usize),
            shared: (0..options.readers.max(1))
                .map(|_| RwLock::default())
                .collect(),
            options,
            connector,
            counts: Arc::default(),
            seen: Arc::default(),
            idle: Mutex::default(),
            turn: AtomicUsize::new(0),
            down: Mutex::new(None),
            life: Mutex::default(),
            newest: AtomicU64::new(0),
            loss: Mutex::default(),
            trying: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn options(&self) -> &PostgresOptions {
        &self.options
    }

    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Every statement that was run so far.
    pub(super) fn statements(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().map(|sql| (*sql).to_owned()).collect()
    }

    /// Why the database cannot be reached, if the last attempt failed.
    pub(super) fn down(&self) -> Option<String> {
        let down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        down.as_ref().map(|down| down.why.to_string())
    }

    /// How many connections are in use by transactions.
    pub(super) fn in_use(&self) -> u64 {
        (self.options.connections.max(1) as usize).saturating_sub(self.places.available_permits())
            as u64
    }

    /// Whether there is hope that trying again within the options' patience helps.
    pub(super) fn worth_waiting(&self) -> bool {
        let down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        down.as_ref()
            .is_none_or(|down| down.since.elapsed() < self.options.patience)
    }

    /// A connection for one transaction. Waits until one is free.
    pub(super) async fn get(&self) -> Result<Lease<'_>, Fault> {
        let wait = self.options.lock_timeout + self.options.statement_timeout;
        let place = match tokio::time::timeout(wait, self.places.acquire()).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return Err(Fault::Final(Error::Closed)),
            Err(_) => {
                return Err(Fault::Final(Error::Busy(format!(
                    "all {} connections were in use for {} s (metadata.connections)",
                    self.options.connections,
                    wait.as_secs()
                ))));
            }
        };
        loop {
            let idle = self
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop();
            match idle {
                Some(connection) if connection.is_usable() => {
                    return Ok(Lease {
                        pool: self,
                        connection: Some(connection),
                        _place: place,
                    });
                }
                Some(_) => {}
                None => break,
            }
        }
        Ok(Lease {
            pool: self,
            connection: Some(self.connect().await?),
            _place: place,
        })
    }

    /// A connection that many read on at once.
    pub(super) async fn shared(&self) -> Result<Arc<Connection>, Fault> {
        let at = self.turn.fetch_add(1, Ordering::Relaxed) % self.shared.len();
        let slot = &self.shared[at];
        let usable = || {
            let slot = slot.read().unwrap_or_else(PoisonError::into_inner);
            slot.as_ref().filter(|c| c.is_usable()).cloned()
        };
        if let Some(connection) = usable() {
            return Ok(connection);
        }
        let _turn = self.trying.lock().await;
        if let Some(connection) = usable() {
            return Ok(connection);
        }
        let connection = Arc::new(self.attempt().await?);
        *slot.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// A write of this transaction was acknowledged, and is on the server's disk.
    pub(super) fn acknowledged(&self, transaction: &str) {
        if let Ok(transaction) = transaction.parse() {
            self.newest.fetch_max(transaction, Ordering::Relaxed);
        }
    }

    /// What shows that the database lost writes that it had acknowledged here.
    pub(super) fn loss(&self) -> Option<String> {
        let loss = self.loss.lock().unwrap_or_else(PoisonError::into_inner);
        loss.clone()
    }

    /// Somebody has taken note of it.
    pub(super) fn forget_loss(&self) {
        self.loss
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    /// Asks a server that was started anew, or took over, whether it has come as far as what was acknowledged here: a server
    /// that has the write has given out all numbers up to that one.
    async fn compare(&self, connection: &Connection) -> Result<(), Fault> {
        let life = || self.life.lock().unwrap_or_else(PoisonError::into_inner);
        if *life() == connection.life() {
            return Ok(());
        }
        let newest = self.newest.load(Ordering::Relaxed);
        let next = connection
            .text("SELECT pg_snapshot_xmax(pg_current_snapshot())")
            .await?;
        *life() = connection.life().to_owned();
        let Some(next) = next.and_then(|next| next.parse::<u64>().ok()) else {
            return Ok(());
        };
        if next <= newest {
            let loss = format!(
                "the database lost writes that it had acknowledged (it is at transaction {next}, and had {newest}): a standby \
                 that lagged behind took over, or an older state was restored"
            );
            tracing::error!(database = %self.connector.describe(), "{loss}");
            self.newest.store(0, Ordering::Relaxed);
            *self.loss.lock().unwrap_or_else(PoisonError::into_inner) = Some(loss);
        }
        Ok(())
    }

    /// A connection beside all others, for something that takes long.
    pub(super) async fn apart(&self) -> Result<Connection, Fault> {
        self.connect().await
    }

    async fn connect(&self) -> Result<Connection, Fault> {
        let is_down = self
            .down
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some();
        if is_down {
            let _turn = self.trying.lock().await;
            return self.attempt().await;
        }
        self.attempt().await
    }

    /// Connects, unless the last attempt failed a moment ago.
    async fn attempt(&self) -> Result<Connection, Fault> {
        if self.places.is_closed() {
            return Err(Fault::Final(Error::Closed));
        }
        {
            let down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(down) = &*down
                && Instant::now() < down.again
            {
                return Err(Fault::Lost(down.why.clone()));
            }
        }
        let made = async {
            let made =
                Connection::open(&self.options, &self.connector, &self.counts, &self.seen).await?;
            self.compare(&made).await?;
            Ok::<_, Fault>(made)
        }
        .await;
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        match &made {
            Ok(_) => {
                if let Some(down) = down.take() {
                    tracing::info!(
                        database = %self.connector.describe(),
                        seconds = down.since.elapsed().as_secs_f32(),
                        "the metadata database can be reached again"
                    );
                }
            }
            Err(fault) => {
                let why = fault.clone().into_error();
                let now = Instant::now();
                let (since, attempts) = match down.take() {
                    Some(down) => (down.since, down.attempts.saturating_add(1)),
                    None => {
                        tracing::error!(
                            database = %self.connector.describe(), error = %why,
                            "no connection to the metadata database"
                        );
                        (now, 0)
                    }
                };
                let pause = Duration::from_millis(50 << attempts.min(6)).min(LONGEST_PAUSE);
                *down = Some(Down {
                    since,
                    again: now + jitter(pause),
                    attempts,
                    why,
                });
            }
        }
        made
    }

    /// Lets nobody in any more and closes what is idle.
    pub(super) fn close(&self) {
        self.places.close();
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        for slot in &self.shared {
            slot.write().unwrap_or_else(PoisonError::into_inner).take();
        }
    }
}

/// A connection for one transaction. Dropped without [`Lease::give_back`] it is closed, so that nothing half done is ever
/// handed to the next one.
pub(super) struct Lease<'p> {
    pool: &'p Pool,
    connection: Option<Connection>,
    _place: SemaphorePermit<'p>,
}

impl Lease<'_> {
    /// Nothing is open on it.
    pub(super) fn give_back(mut self) {
        if let Some(connection) = self.connection.take()
            && connection.is_usable()
            && !self.pool.places.is_closed()
        {
            self.pool
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(connection);
        }
    }
}

impl Deref for Lease<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        // Only `give_back` takes it, and that consumes the lease.
        self.connection.as_ref().expect("a lease has a connection")
    }
}
