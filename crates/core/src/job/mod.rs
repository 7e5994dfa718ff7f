//! Jobs: work beside requests, kept in `meta` so that it survives a crash and one replica does it at a time.
//!
//! A kind is a type that implements [`Job`]: its fields are the payload, kept as JSON between steps. `app` puts all kinds into
//! [`Kinds`], by importance; [`run`] takes what is due and works it off in small steps, which give way to requests. A step may
//! be repeated: a crash loses what was not yet kept.

mod kinds;
mod pace;
mod worker;

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::kinds::{Figures, Kinds, Spec};
pub use self::worker::{Options, run};
use crate::error::Result;
use crate::registry::Registry;

/// What a step leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There is more to do at once.
    More,
    /// There is more to do, after so long.
    Again(Duration),
    /// Nothing is left.
    Done,
}

/// A kind of job; its value is where one of them stands.
pub trait Job: Serialize + DeserializeOwned + Default + Send + 'static {
    /// Its name in the table and on the command line: noun, dot, verb.
    const KIND: &'static str;

    /// Does a part of it: no more than some milliseconds of any store's time, or a wait for a disk. May be dropped at any
    /// await.
    fn step(&mut self, registry: &Registry) -> impl Future<Output = Result<Step>> + Send;
}

/// Forgets jobs that have long been over.
#[derive(Debug, Default, Serialize, serde::Deserialize)]
pub struct Trim {}

/// How long jobs are listed after their end, in milliseconds.
const KEPT: i64 = 7 * 86_400_000;

impl Job for Trim {
    const KIND: &'static str = "job.trim";

    async fn step(&mut self, registry: &Registry) -> Result<Step> {
        let before = registry.ages.older_than(&*registry.clock, KEPT);
        let trimmed = registry
            .meta
            .write(wharf_meta::job::Trim { before })
            .await?;
        Ok(if trimmed == 0 { Step::Done } else { Step::More })
    }
}

/// Gives pages of the metadata database that deletions freed back to the file system.
#[derive(Debug, Default, Serialize, serde::Deserialize)]
pub struct Reclaim {
    #[serde(skip)]
    unused: Option<u64>,
}

/// Pages that are given back in one step: well below a millisecond of the writer's time.
const PAGES: u32 = 64;
/// Pages without use that stay, so that the next writes need not grow the file again (4 MiB).
const SPARE: u64 = 1024;

impl Job for Reclaim {
    const KIND: &'static str = "metadata.reclaim";

    async fn step(&mut self, registry: &Registry) -> Result<Step> {
        let before = match self.unused {
            Some(before) => before,
            None => registry.meta.reclaim(0).await?,
        };
        if before <= SPARE {
            return Ok(Step::Done);
        }
        let unused = registry.meta.reclaim(PAGES).await?;
        self.unused = Some(unused);
        // When others free faster than this gives back, the next run goes on.
        Ok(if unused >= before {
            Step::Done
        } else {
            Step::More
        })
    }
}
