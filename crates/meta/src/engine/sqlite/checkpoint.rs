//! The checkpoint thread: moves the log into the database, so that writers never wait for it, and keeps the log bounded.
//!
//! It is also the one that ends the refusal of writes after a failed commit: only a checkpoint whose syncs succeeded
//! proves that the disk takes data again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::connection::{Connection, failure, is_failed_sync};
use super::reader::Slots;
use super::shared::Shared;
use super::writer::told;
use crate::error::{Error, Result};

/// Without a reason, the log is looked at so often.
const IDLE: Duration = Duration::from_secs(30);
/// While writes are refused, it is tried so often.
const RETRY: Duration = Duration::from_millis(250);
/// After a failure, or while a reader holds the log: at first this, then twice as long each time.
const PAUSE: Duration = Duration::from_millis(100);
/// While writes are refused, it is said so often.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// The longest pause.
const LONG_PAUSE: Duration = Duration::from_secs(2);
/// Readers are waited for so long while the writer waits too. Point reads are over by then.
const PATIENCE: Duration = Duration::from_millis(10);

/// The thread's state.
pub(super) struct Checkpointer {
    pub(super) connection: Connection,
    pub(super) shared: Arc<Shared>,
    /// When it was last said that writes stay refused.
    pub(super) told: Option<Instant>,
    /// Their views would keep the log.
    pub(super) slots: Arc<Slots>,
}

/// How much a checkpoint may stand in the way (SQLite documentation, wal_checkpoint_v2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Moves what no reader needs; nobody waits. When that was all, the next commit starts the log anew.
    Passive,
    /// Moves all, or says that it could not, and starts the log anew; the gate must be held. The writer's cache is lost.
    Restart,
    /// As `Restart`, and cuts the log's file. Not while writes are to go on: on a full disk its room is all there is.
    Truncate,
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
    pub(super) fn run(mut self) {
        self.be_patient();
        let mut pause = None;
        while self.shared.wait(pause.unwrap_or(IDLE), pause.is_some()) {
            // Without this thread the log would grow until nothing is written, and a refusal would never end.
            let due = catch_unwind(AssertUnwindSafe(|| self.turn(pause)));
            pause = due.unwrap_or_else(|panic| {
                told("metadata checkpoints", &*panic);
                Some(LONG_PAUSE)
            });
            if self.connection.renew() {
                self.be_patient();
            }
        }
        let _gate = self.shared.gate();
        if let Err(error) = self.checkpoint(Mode::Truncate) {
            tracing::warn!(%error, "the metadata log was not emptied at the end; the next start does it");
        }
    }

    fn be_patient(&self) {
        if let Err(error) = self.connection.raw().busy_timeout(PATIENCE) {
            tracing::error!(%error, "checkpoints wait for readers for too long");
        }
    }

    /// What is to be done now; tells the pause before the next try, if one is due.
    fn turn(&mut self, pause: Option<Duration>) -> Option<Duration> {
        let due = if self.shared.refusing().is_some() {
            (!self.recover()).then_some(RETRY)
        } else if self.step() {
            None
        } else {
            Some(pause.map_or(PAUSE, |pause| (pause * 2).min(LONG_PAUSE)))
        };
        match self.shared.reserve.is_spent() && !self.shared.reserve.hold() {
            true => Some(due.unwrap_or(LONG_PAUSE)),
            false => due,
        }
    }

    /// Moves what can be moved beside the writer, then the little that came meanwhile while it waits, so that its next
    /// commit starts the log anew; tells whether it will.
    fn step(&self) -> bool {
        if self.shared.wal_pages() == 0 {
            return true;
        }
        let _without = self.shared.without_views();
        self.slots.end_views();
        let done = self.checkpoint(Mode::Passive).and_then(|_| {
            let _gate = self.shared.gate();
            let progress = self.checkpoint(Mode::Passive)?;
            self.moved(&progress);
            Ok(progress)
        });
        match done {
            // If not, a reader still needs the log.
            Ok(progress) => progress.complete(),
            // What the log holds is safe there; whoever asked for room has heard that there is none.
            Err(Error::Full(_)) if self.shared.is_full() => false,
            Err(error) => {
                tracing::error!(%error, "a checkpoint of the metadata failed");
                false
            }
        }
    }

    /// Notes that the log is empty, or as good as: the gate is held, so the next commit is the first to know better.
    fn moved(&self, progress: &Progress) {
        if progress.complete() {
            self.shared.wal_has(0);
        }
    }

    fn recover(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let _without = shared.without_views();
        self.slots.end_views();
        let _gate = shared.gate();
        match self.checkpoint(Mode::Restart) {
            Ok(progress) if progress.complete() => {
                self.shared.accept();
                self.told = None;
                tracing::warn!(
                    "a checkpoint of the metadata was synced: writes are accepted again"
                );
                true
            }
            Ok(_) => false,
            Err(error) => {
                // Four lines a second would hide everything else.
                if self.told.is_none_or(|last| last.elapsed() >= TELL_EVERY) {
                    self.told = Some(Instant::now());
                    tracing::error!(%error, "writes stay refused: a checkpoint of the metadata failed");
                }
                false
            }
        }
    }

    fn checkpoint(&self, mode: Mode) -> Result<Progress> {
        let sql = match mode {
            Mode::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
            Mode::Restart => "PRAGMA wal_checkpoint(RESTART)",
            Mode::Truncate => "PRAGMA wal_checkpoint(TRUNCATE)",
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
                Ok(progress)
            }
            Err(e) => {
                counts.failed_checkpoints.fetch_add(1, Ordering::Relaxed);
                let failed = failure(self.connection.raw(), &e, sql);
                if is_failed_sync(&e) {
                    self.shared.refuse(&failed);
                }
                let failed = Err(failed);
                self.shared.note(&failed);
                failed
            }
        }
    }
}
