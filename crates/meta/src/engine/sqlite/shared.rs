//! What the engine's threads and callers share: figures, the gate, and whether writes are refused.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::reserve::Reserve;
use crate::error::Error;
use crate::fresh::Fresh;
use crate::stats::Slow;

/// SQLite's page size; set when a database is made.
pub(super) const PAGE: u64 = 4096;

/// Counts since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) operations: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) failed_commits: AtomicU64,
    pub(super) commit_nanos: AtomicU64,
    pub(super) largest_batch: AtomicU64,
    pub(super) checkpoints: AtomicU64,
    pub(super) failed_checkpoints: AtomicU64,
    pub(super) reads: AtomicU64,
    pub(super) scans: AtomicU64,
}

/// Why the checkpoint thread wakes.
#[derive(Clone, Copy, Debug, Default)]
struct Wake {
    asked: bool,
    closing: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) counts: Counts,
    /// What readers may keep in memory.
    pub(super) fresh: Fresh,
    /// Who wants the log without readers, whose views may not stay open meanwhile.
    no_views: AtomicU32,
    turn: Mutex<()>,
    gate: Mutex<()>,
    wal_pages: AtomicU64,
    checkpoint_at_pages: u64,
    is_refusing: AtomicBool,
    refusing: Mutex<Option<Error>>,
    /// Set for good: only another start, over a restored database, gets rid of damage.
    damaged: OnceLock<String>,
    pub(super) reserve: Reserve,
    /// The last commit found no room.
    starved: AtomicBool,
    wake: Mutex<Wake>,
    woken: Condvar,
    slow: Mutex<BTreeMap<&'static str, (u64, Duration)>>,
}

/// See [`Shared::without_views`].
pub(super) struct WithoutViews<'a>(&'a Shared);

impl Drop for WithoutViews<'_> {
    fn drop(&mut self) {
        self.0.no_views.fetch_sub(1, Ordering::SeqCst);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(checkpoint_at_pages: u64, reserve: Reserve) -> Shared {
        Shared {
            counts: Counts::default(),
            fresh: Fresh::default(),
            no_views: AtomicU32::new(0),
            turn: Mutex::new(()),
            gate: Mutex::new(()),
            wal_pages: AtomicU64::new(0),
            checkpoint_at_pages,
            is_refusing: AtomicBool::new(false),
            refusing: Mutex::new(None),
            damaged: OnceLock::new(),
            reserve,
            starved: AtomicBool::new(false),
            wake: Mutex::new(Wake::default()),
            woken: Condvar::new(),
            slow: Mutex::new(BTreeMap::new()),
        }
    }

    /// Held by the writer for a batch, by a checkpoint that must be alone. Whoever waits gets it next: the writer alone
    /// would take it again and again, since waking another thread takes longer than its next batch.
    pub(super) fn gate(&self) -> MutexGuard<'_, ()> {
        let _turn = lock(&self.turn);
        lock(&self.gate)
    }

    /// The number under which a reader's view may stay open, as long as [`Fresh::commits`] is the same.
    pub(super) fn view(&self) -> Option<u64> {
        let may_stay = self.no_views.load(Ordering::SeqCst) == 0;
        self.fresh.commits().filter(|_| may_stay)
    }

    /// Lets no view stay open until the guard goes; those that are must be ended one by one.
    pub(super) fn without_views(&self) -> WithoutViews<'_> {
        self.no_views.fetch_add(1, Ordering::SeqCst);
        WithoutViews(self)
    }

    /// After a commit, with the pages that the log has then.
    pub(super) fn wal_has(&self, pages: u64) {
        self.wal_pages.store(pages, Ordering::Relaxed);
        if pages >= self.checkpoint_at_pages {
            self.wake_checkpoint();
        }
    }

    /// Pages in use in the log.
    pub(super) fn wal_pages(&self) -> u64 {
        self.wal_pages.load(Ordering::Relaxed)
    }

    /// Bytes in use in the log.
    pub(super) fn wal_bytes(&self) -> u64 {
        // Each page comes with a header of 24 bytes (SQLite file format, section 4.1).
        self.wal_pages() * (PAGE + 24)
    }

    pub(super) fn committed(&self, operations: u64, time: Duration) {
        self.starved.store(false, Ordering::Relaxed);
        let counts = &self.counts;
        counts.operations.fetch_add(operations, Ordering::Relaxed);
        counts.commits.fetch_add(1, Ordering::Relaxed);
        counts
            .commit_nanos
            .fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
        counts
            .largest_batch
            .fetch_max(operations, Ordering::Relaxed);
    }

    /// Lets nothing be written until a checkpoint was synced.
    pub(super) fn refuse(&self, error: &Error) {
        *lock(&self.refusing) = Some(error.clone());
        self.is_refusing.store(true, Ordering::Release);
        self.wake_checkpoint();
    }

    /// Why nothing may be written.
    pub(super) fn refusing(&self) -> Option<Error> {
        if self.is_refusing.load(Ordering::Acquire) {
            lock(&self.refusing).clone()
        } else {
            None
        }
    }

    /// Looks at an answer: damage that was met once ends all writing, since what would be written may be wrong too.
    pub(super) fn note<T>(&self, answer: &Result<T, Error>) {
        if let Err(Error::Corrupt(what)) = answer
            && self.damaged.set(what.clone()).is_ok()
        {
            tracing::error!(
                what,
                "the metadata database is damaged: nothing is written any more, and what can still be read is served; \
                 stop the server and restore the last backup (wharf backup restore FOLDER --data NEW_FOLDER)"
            );
        }
    }

    /// A commit found no room.
    pub(super) fn starve(&self) {
        self.starved.store(true, Ordering::Relaxed);
        self.wake_checkpoint();
    }

    /// Whether there was no room for the last commit, or there is none for anything but deletes.
    pub(super) fn is_full(&self) -> bool {
        self.reserve.is_spent() || self.starved.load(Ordering::Relaxed)
    }

    /// What is damaged.
    pub(super) fn damaged(&self) -> Option<String> {
        self.damaged.get().cloned()
    }

    /// A checkpoint was synced.
    pub(super) fn accept(&self) {
        *lock(&self.refusing) = None;
        self.is_refusing.store(false, Ordering::Release);
    }

    pub(super) fn wake_checkpoint(&self) {
        lock(&self.wake).asked = true;
        self.woken.notify_one();
    }

    /// Ends the checkpoint thread.
    pub(super) fn close(&self) {
        lock(&self.wake).closing = true;
        self.woken.notify_one();
    }

    /// Waits for the time to be over, or for less if a checkpoint is asked for and `patient` is not, or writes are refused;
    /// `false`: the store is closing.
    pub(super) fn wait(&self, at_most: Duration, patient: bool) -> bool {
        let wake = lock(&self.wake);
        let idle = |wake: &mut Wake| {
            let asked = wake.asked && (!patient || self.is_refusing.load(Ordering::Acquire));
            !asked && !wake.closing
        };
        let waited = self.woken.wait_timeout_while(wake, at_most, idle);
        let (mut wake, _) = waited.unwrap_or_else(PoisonError::into_inner);
        wake.asked = false;
        !wake.closing
    }

    pub(super) fn slow(&self, name: &'static str, held: Duration) {
        let mut slow = lock(&self.slow);
        let entry = slow.entry(name).or_default();
        entry.0 += 1;
        entry.1 = entry.1.max(held);
    }

    pub(super) fn slow_list(&self) -> Vec<Slow> {
        lock(&self.slow)
            .iter()
            .map(|(&name, &(count, longest))| Slow {
                name,
                count,
                longest,
            })
            .collect()
    }
}
