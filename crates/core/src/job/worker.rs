//! Takes jobs that are due and works them off.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wharf_meta::job as rows;

use super::kinds::{Entry, Kinds};
use super::pace::{back_off, pause};
use super::{Step, kinds::Work};
use crate::error::{Error, Result};
use crate::registry::Registry;

/// Jobs of this process at once.
const AT_ONCE: usize = 4;
/// How long a worker that is not heard of keeps a job.
const LEASE: Duration = Duration::from_secs(20);
/// A look at what is due is no longer ago than this: another replica may have added a job, or an operator moved one.
const LOOK: Duration = Duration::from_secs(3);
/// The wait while jobs are due that nobody may take, since as many run as may.
const HELD: Duration = Duration::from_secs(1);
/// After a store could not answer.
const AFTER_ERROR: Duration = Duration::from_secs(5);

/// How jobs are run in this process.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name, unlike that of any other process on the same store.
    pub worker: String,
    /// No other process uses the store: jobs that run by their row ended with the process before.
    pub alone: bool,
}

/// Runs jobs until `stop`; what runs then goes on at the next start where it stood.
pub async fn run(
    registry: Arc<Registry>,
    kinds: Arc<Kinds>,
    options: Options,
    stop: CancellationToken,
) {
    let mut begun = false;
    let mut running = JoinSet::new();
    while !stop.is_cancelled() {
        while running.try_join_next().is_some() {}
        // What comes while this looks is seen by the next look.
        let told = registry.jobs.notified();
        let outcome = async {
            if !begun {
                begin(&registry, &kinds, &options).await?;
                begun = true;
            }
            while running.len() < AT_ONCE {
                let row = match take(&registry, &kinds, &options).await? {
                    Taken::Job(row) => *row,
                    Taken::Nothing(wait) => return Ok(wait),
                };
                let (registry, kinds, stop) = (registry.clone(), kinds.clone(), stop.clone());
                running.spawn(async move { one(&registry, &kinds, row, stop).await });
            }
            // The end of one of them makes room.
            Ok::<_, Error>(LOOK)
        };
        let wait = outcome.await.unwrap_or_else(|error| {
            tracing::warn!(%error, "jobs cannot be taken; trying again");
            AFTER_ERROR
        });
        tokio::select! {
            () = stop.cancelled() => {}
            () = told => {}
            Some(_) = running.join_next() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
    while running.join_next().await.is_some() {}
}

/// Puts the schedules in order, if they are not.
async fn begin(registry: &Registry, kinds: &Kinds, options: &Options) -> Result<()> {
    let schedules = kinds.entries.iter().map(|entry| rows::Schedule {
        kind: entry.kind.to_owned(),
        payload: (entry.fresh)(),
        every: entry.spec.every.map(millis),
        phase: entry.spec.at.map(millis),
        first: millis(entry.spec.first),
    });
    let begin = rows::Begin {
        schedules: schedules.collect(),
        ended: options.alone.then(|| options.worker.clone()),
        at: registry.clock.now_ms(),
    };
    let begun = registry.meta.scan(rows::IsBegun(begin.clone())).await?;
    if !begun {
        registry.meta.write(begin).await?;
    }
    Ok(())
}

/// What came of a look for a job.
enum Taken {
    Job(Box<rows::JobRow>),
    /// None is due for so long.
    Nothing(Duration),
}

async fn take(registry: &Registry, kinds: &Kinds, options: &Options) -> Result<Taken> {
    let at = registry.clock.now_ms();
    let ahead = registry.meta.scan(rows::Look { at }).await?;
    let due = kinds
        .entries
        .iter()
        .filter(|entry| ahead.due.iter().any(|kind| kind == entry.kind));
    let wanted: Vec<rows::Wanted> = due
        .map(|entry| rows::Wanted {
            kind: entry.kind.to_owned(),
            limit: entry.spec.limit.into(),
        })
        .collect();
    let next = ahead.next.and_then(|next| u64::try_from(next).ok());
    let wait = next.map_or(LOOK, |next| Duration::from_millis(next).min(LOOK));
    if wanted.is_empty() {
        return Ok(Taken::Nothing(wait));
    }
    let take = rows::Take {
        kinds: wanted,
        worker: options.worker.clone(),
        lease: millis(LEASE),
        at,
    };
    Ok(match registry.meta.write(take).await? {
        Some(row) => Taken::Job(Box::new(row)),
        None => Taken::Nothing(wait.min(HELD)),
    })
}

/// How a run ended.
enum Ended {
    Well(Step),
    Failed(String, bool),
    /// Another worker has it, or it was cancelled.
    Lost,
}

async fn one(registry: &Registry, kinds: &Kinds, row: rows::JobRow, stop: CancellationToken) {
    let Some(entry) = kinds.find(&row.kind) else {
        return;
    };
    let (payload, ended) = match (entry.read)(&row.payload) {
        Ok(mut work) => {
            let ended = work_off(registry, entry, &row, &mut *work, stop).await;
            // The next run of a schedule begins afresh.
            let over = row.every.is_some() && matches!(ended, Ended::Well(Step::Done));
            let payload = if over {
                (entry.fresh)()
            } else {
                work.payload()
            };
            (payload, ended)
        }
        Err(error) => {
            let what = format!("its payload cannot be read: {error}");
            ((entry.fresh)(), Ended::Failed(what, false))
        }
    };
    let (end, error) = match ended {
        Ended::Lost => return,
        Ended::Well(Step::Done) => {
            entry.counts.done.fetch_add(1, Ordering::Relaxed);
            (rows::End::Done, None)
        }
        Ended::Well(Step::Again(wait)) => (rows::End::Again(millis(wait)), None),
        Ended::Well(Step::More) => (rows::End::Again(0), None),
        Ended::Failed(error, may_pass) => {
            entry.counts.failed.fetch_add(1, Ordering::Relaxed);
            let schedule = row.every.is_some();
            let last = !may_pass || (!schedule && row.attempts >= row.max_attempts);
            tracing::warn!(kind = entry.kind, id = %row.id, attempts = row.attempts, error, "a job failed");
            let end = if last {
                rows::End::Dead
            } else {
                let random = uuid::Uuid::new_v4().as_fields().0;
                let wait = millis(back_off(row.attempts, random));
                // A schedule that fails is as late as its period, not later.
                rows::End::Retry(row.every.map_or(wait, |every| wait.min(every)))
            };
            (end, Some(error))
        }
    };
    let finish = rows::Finish {
        id: row.id,
        fence: row.fence,
        payload,
        end,
        error,
        at: registry.clock.now_ms(),
    };
    if let Err(error) = registry.meta.write(finish).await {
        tracing::warn!(kind = entry.kind, %error, "the end of a job could not be kept; it runs again");
    }
}

/// Steps until the end, the lease renewed on the way.
async fn work_off(
    registry: &Registry,
    entry: &Entry,
    row: &rows::JobRow,
    work: &mut dyn Work,
    stop: CancellationToken,
) -> Ended {
    let mut renewed = Instant::now();
    loop {
        if stop.is_cancelled() {
            return Ended::Well(Step::More);
        }
        let payload = work.payload();
        let begun = Instant::now();
        let outcome = {
            let step = work.step(registry);
            let mut step = std::pin::pin!(step);
            loop {
                let due = (LEASE / 4).saturating_sub(renewed.elapsed());
                tokio::select! {
                    biased;
                    outcome = &mut step => break outcome,
                    () = tokio::time::sleep(due) => {
                        if !beat(registry, row, &payload).await {
                            return Ended::Lost;
                        }
                        renewed = Instant::now();
                    }
                }
            }
        };
        let took = begun.elapsed();
        entry.counts.steps.fetch_add(1, Ordering::Relaxed);
        let spent = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        entry.counts.millis.fetch_add(spent, Ordering::Relaxed);
        match outcome {
            Ok(Step::More) => {}
            Ok(step) => return Ended::Well(step),
            Err(error) => return Ended::Failed(error.to_string(), true),
        }
        if renewed.elapsed() >= LEASE / 4 {
            if !beat(registry, row, &work.payload()).await {
                return Ended::Lost;
            }
            renewed = Instant::now();
        }
        let meta = &registry.meta;
        tokio::time::sleep(pause(took, meta.stats().waiting, meta.is_full())).await;
    }
}

/// Renews the lease. A store that cannot answer just now is no reason to stop: the fence decides in the end.
async fn beat(registry: &Registry, row: &rows::JobRow, payload: &str) -> bool {
    let beat = rows::Heartbeat {
        id: row.id,
        fence: row.fence,
        payload: payload.to_owned(),
        lease: millis(LEASE),
        at: registry.clock.now_ms(),
    };
    match registry.meta.write(beat).await {
        Ok(held) => held,
        Err(error) => {
            tracing::warn!(kind = row.kind, %error, "a job's lease could not be renewed");
            true
        }
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
