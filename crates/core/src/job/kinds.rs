//! All kinds of jobs that this process knows, and what they have done so far.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wharf_blob::BoxFuture;

use super::{Job, Step};
use crate::error::Result;
use crate::registry::Registry;

/// How jobs of a kind are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// So many at once, on all replicas together.
    pub limit: u32,
    /// Its schedule; `None`: only on demand.
    pub every: Option<Duration>,
    /// At which time of its period, counted from 1970 in UTC: for a period of a day, the time of day. `None`: a period after it last
    /// ended.
    pub at: Option<Duration>,
    /// How long after the first start of all it runs first.
    pub first: Duration,
}

impl Spec {
    /// One at a time, every so often, and at once for the first time.
    pub fn every(every: Duration) -> Self {
        Self {
            limit: 1,
            every: Some(every),
            at: None,
            first: Duration::ZERO,
        }
    }

    /// Not before so long after the first start.
    #[must_use]
    pub fn after(mut self, first: Duration) -> Self {
        self.first = first;
        self
    }

    /// At this time of its period, as a time of day.
    #[must_use]
    pub fn at(mut self, at: Duration) -> Self {
        self.at = Some(at);
        self
    }

    /// Not on a schedule at all.
    #[must_use]
    pub fn off(mut self) -> Self {
        self.every = None;
        self
    }
}

/// What a kind has done in this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Runs that ended well.
    pub done: u64,
    /// Runs that failed.
    pub failed: u64,
    /// Steps of all runs.
    pub steps: u64,
    /// Milliseconds spent in steps.
    pub millis: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) done: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) steps: AtomicU64,
    pub(super) millis: AtomicU64,
}

/// A job whose type is forgotten.
pub(super) trait Work: Send {
    fn step<'a>(&'a mut self, registry: &'a Registry) -> BoxFuture<'a, Result<Step>>;
    fn payload(&self) -> String;
}

impl<J: Job> Work for J {
    fn step<'a>(&'a mut self, registry: &'a Registry) -> BoxFuture<'a, Result<Step>> {
        Box::pin(Job::step(self, registry))
    }

    fn payload(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| "{}".to_owned())
    }
}

type Read = fn(&str) -> Result<Box<dyn Work>, serde_json::Error>;

pub(super) struct Entry {
    pub(super) kind: &'static str,
    pub(super) spec: Spec,
    pub(super) read: Read,
    pub(super) fresh: fn() -> String,
    pub(super) counts: Counts,
}

/// The kinds, the most important first.
#[derive(Default)]
pub struct Kinds {
    pub(super) entries: Vec<Entry>,
}

impl fmt::Debug for Kinds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self.names()).finish()
    }
}

impl Kinds {
    /// With one more, less important than those before.
    #[must_use]
    pub fn with<J: Job>(mut self, spec: Spec) -> Self {
        self.entries.push(Entry {
            kind: J::KIND,
            spec,
            read: |payload| {
                let job: J = serde_json::from_str(payload)?;
                Ok(Box::new(job))
            },
            fresh: || J::default().payload(),
            counts: Counts::default(),
        });
        self
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.entries.iter().map(|entry| entry.kind)
    }

    /// What each has done in this process.
    pub fn figures(&self) -> Vec<(&'static str, Figures)> {
        let figures = self.entries.iter().map(|entry| {
            let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
            let figures = Figures {
                done: of(&entry.counts.done),
                failed: of(&entry.counts.failed),
                steps: of(&entry.counts.steps),
                millis: of(&entry.counts.millis),
            };
            (entry.kind, figures)
        });
        figures.collect()
    }

    pub(super) fn find(&self, kind: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.kind == kind)
    }
}
