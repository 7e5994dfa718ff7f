//! The checkpoint thread: moves the log into the database, so that writers never wait for it, and keeps the log bounded.
//!
//! It is also the one that ends the refusal of writes after a failed commit: only a checkpoint whose syncs succeeded
//! proves that the disk takes data again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::connection::{Connection, error};
use super::shared::Shared;
use crate::error::{Error, Result};

/// Without a reason, the log is looked at so often.
const IDLE: Duration = Duration::from_secs(30);
/// While writes are refused, it is tried so often.
const RETRY: Duration = Duration::from_millis(250);
/// After a failure, or while a reader holds the log.
const PAUSE: Duration = Duration::from_millis(100);

/// The thread's state.
pub(super) struct Checkpointer {
    pub(super) connection: Connection,
    pub(super) shared: Arc<Shared>,
}

/// Pages in the log, and how many of them are in the database.
struct Progress {
    busy: bool,
    pages: i64,
    moved: i64,
}

impl Progress {
    fn complete(&self) -> bool {
        !self.busy && self.pages == self.moved
    }
}

impl Checkpointer {
    /// Until the store is closed; then once more, to leave an empty log.
    pub(super) fn run(self) {
        let mut pause = IDLE;
        while self.shared.wait(pause) {
            pause = if self.shared.refusing().is_some() {
                self.recover()
            } else {
                self.step()
            };
        }
        let _gate = self.shared.gate();
        if let Err(error) = self.checkpoint("TRUNCATE") {
            tracing::warn!(%error, "the metadata log was not emptied at the end; the next start does it");
        }
    }

    /// Moves what can be moved beside the writer, then the rest while it waits. Gives the time to the next look.
    fn step(&self) -> Duration {
        if self.shared.wal_pages() == 0 {
            return IDLE;
        }
        let done = self.checkpoint("PASSIVE").and_then(|progress| {
            if progress.complete() {
                return Ok(progress);
            }
            let _gate = self.shared.gate();
            self.checkpoint("PASSIVE")
        });
        match done {
            // The next commit starts the log anew.
            Ok(progress) if progress.complete() => IDLE,
            Ok(_) => PAUSE,
            Err(error) => {
                tracing::error!(%error, "a checkpoint of the metadata failed");
                PAUSE
            }
        }
    }

    fn recover(&self) -> Duration {
        let _gate = self.shared.gate();
        match self.checkpoint("TRUNCATE") {
            Ok(progress) if progress.complete() => {
                tracing::warn!(
                    "a checkpoint of the metadata was synced: writes are accepted again"
                );
                self.shared.accept();
                IDLE
            }
            Ok(_) => RETRY,
            Err(error) => {
                tracing::error!(%error, "writes stay refused: a checkpoint of the metadata failed");
                RETRY
            }
        }
    }

    fn checkpoint(&self, mode: &str) -> Result<Progress> {
        let sql = match mode {
            "TRUNCATE" => "PRAGMA wal_checkpoint(TRUNCATE)",
            _ => "PRAGMA wal_checkpoint(PASSIVE)",
        };
        let result = self.connection.raw().query_row(sql, [], |row| {
            Ok(Progress {
                busy: row.get::<_, i64>(0)? != 0,
                pages: row.get(1)?,
                moved: row.get(2)?,
            })
        });
        let counts = &self.shared.counts;
        match result {
            Ok(progress) if progress.pages < 0 => {
                counts.failed_checkpoints.fetch_add(1, Ordering::Relaxed);
                Err(Error::Io("the metadata database has no log".to_owned()))
            }
            Ok(progress) => {
                counts.checkpoints.fetch_add(1, Ordering::Relaxed);
                if progress.complete() && mode == "TRUNCATE" {
                    self.shared.wal_has(0);
                }
                Ok(progress)
            }
            Err(e) => {
                counts.failed_checkpoints.fetch_add(1, Ordering::Relaxed);
                Err(error(&e, sql))
            }
        }
    }
}
