//! How often the store did what, and how long it took: for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    Write,
    Sync,
    SyncFolder,
    Link,
    Open,
}

/// Counters since the start.
#[derive(Debug, Default)]
pub struct Counts([Count; 5]);

#[derive(Debug, Default)]
struct Count {
    times: AtomicU64,
    nanos: AtomicU64,
}

/// Counts one piece of work when dropped.
pub(crate) struct Timed<'a> {
    count: &'a Count,
    since: Instant,
}

const NAMES: [(Counted, &str); 5] = [
    (Counted::Write, "write"),
    (Counted::Sync, "sync"),
    (Counted::SyncFolder, "sync_folder"),
    (Counted::Link, "link"),
    (Counted::Open, "open"),
];

impl Counts {
    /// Name, how often, and nanoseconds in all, of each kind of work.
    pub fn read(&self) -> Vec<(&'static str, u64, u64)> {
        NAMES
            .iter()
            .zip(&self.0)
            .map(|((_, name), count)| {
                (
                    *name,
                    count.times.load(Ordering::Relaxed),
                    count.nanos.load(Ordering::Relaxed),
                )
            })
            .collect()
    }

    pub(crate) fn time(&self, point: Counted) -> Timed<'_> {
        let place = NAMES
            .iter()
            .position(|(known, _)| *known == point)
            .unwrap_or(0);
        Timed {
            count: &self.0[place],
            since: Instant::now(),
        }
    }
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        let nanos = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.count.times.fetch_add(1, Ordering::Relaxed);
        self.count.nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}
