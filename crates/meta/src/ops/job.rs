//! Jobs: work that nobody waits for, with a lease for whoever does it.
//!
//! A worker takes a job under a lease and renews it while it works; each lease has a new fence, and every later write names it,
//! so that a worker whose lease ended can change nothing. A job with `every` is a schedule: it waits again instead of being
//! done. These operations are let through on a full disk ([`Op::FREES`]): they grow nothing, and what gives room back is a job.
//!
//! Times come from the caller, and pass through [`Tx::now`], the one place where an engine with a clock of its own puts that
//! in their stead.

use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;
use crate::value::{Id, Row};

/// So many jobs that are due one [`Take`] looks at, to find the one with the highest priority.
const LOOKED_AT: u32 = 20;

/// The values of `job.state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Until its time comes.
    Waiting,
    /// Under a lease.
    Running,
    /// It succeeded.
    Done,
    /// All its attempts failed.
    Dead,
    /// Somebody cancelled it.
    Cancelled,
}

impl State {
    const ALL: [State; 5] = [
        State::Waiting,
        State::Running,
        State::Done,
        State::Dead,
        State::Cancelled,
    ];

    fn of(value: i64) -> State {
        let at = usize::try_from(value).ok();
        at.and_then(|at| Self::ALL.get(at).copied())
            .unwrap_or(State::Dead)
    }

    /// As people read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Running => "running",
            State::Done => "done",
            State::Dead => "dead",
            State::Cancelled => "cancelled",
        }
    }
}

/// A job as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRow {
    /// Its row.
    pub id: Id,
    /// What it does.
    pub kind: String,
    /// At most one job with this key waits or runs.
    pub unique_key: Option<String>,
    /// JSON, with where it stands.
    pub payload: String,
    /// Where it is in its life.
    pub state: State,
    /// The highest goes first among jobs of a kind.
    pub priority: i64,
    /// Not before; milliseconds since 1970.
    pub run_at: i64,
    /// A schedule's period in milliseconds.
    pub every: Option<i64>,
    /// So often it was taken since it last succeeded.
    pub attempts: i64,
    /// So often it may be taken; a schedule goes on all the same.
    pub max_attempts: i64,
    /// The fencing token of whoever has it.
    pub fence: i64,
    /// When its lease ends.
    pub lease_until: Option<i64>,
    /// Who had it last.
    pub worker: Option<String>,
    /// Why its last attempt failed.
    pub last_error: Option<String>,
    /// Milliseconds since 1970.
    pub changed_at: i64,
}

fn job(mut row: Row) -> Result<JobRow> {
    Ok(JobRow {
        id: row.id(0)?,
        kind: row.text(1)?,
        unique_key: row.opt_text(2)?,
        payload: row.text(3)?,
        state: State::of(row.int(4)?),
        priority: row.int(5)?,
        run_at: row.int(6)?,
        every: row.opt_int(7)?,
        attempts: row.int(8)?,
        max_attempts: row.int(9)?,
        fence: row.int(10)?,
        lease_until: row.opt_int(11)?,
        worker: row.opt_text(12)?,
        last_error: row.opt_text(13)?,
        changed_at: row.int(14)?,
    })
}

/// Adds a job; `None`: one with its unique key waits or runs already. Cost: two rows.
#[derive(Clone, Debug)]
pub struct Add {
    /// What it does.
    pub kind: String,
    /// At most one job with this key waits or runs.
    pub unique_key: Option<String>,
    /// JSON.
    pub payload: String,
    /// The highest goes first.
    pub priority: i64,
    /// Not before; milliseconds since 1970.
    pub run_at: i64,
    /// So often it may be taken.
    pub max_attempts: i64,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Add {
    type Out = Option<Id>;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Option<Id>> {
        let at = tx.now(self.at).await?;
        kind(tx, &self.kind).await?;
        let id = tx.id(at);
        let made = tx
            .exec(
                "INSERT INTO job (id, kind, unique_key, payload, state, priority, run_at, attempts, max_attempts, fence, \
                 created_at, changed_at) VALUES ($1, $2, $3, $4, 0, $5, $6, 0, $7, 0, $8, $8) \
                 ON CONFLICT (unique_key) WHERE state <= 1 DO NOTHING",
                vals![
                    &id,
                    &self.kind,
                    self.unique_key.as_deref(),
                    &self.payload,
                    self.priority,
                    self.run_at,
                    self.max_attempts,
                    at
                ],
            )
            .await?;
        Ok((made == 1).then_some(id))
    }
}

async fn kind<T: Tx>(tx: &mut T, name: &str) -> Result<()> {
    tx.exec(
        "INSERT INTO job_kind (kind) VALUES ($1) ON CONFLICT (kind) DO NOTHING",
        vals![name],
    )
    .await?;
    Ok(())
}

/// When a kind runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// What it does; also the unique key.
    pub kind: String,
    /// JSON to begin with.
    pub payload: String,
    /// Its period in milliseconds; `None`: it runs on demand only.
    pub every: Option<i64>,
    /// When in the period, counted from 1970: for a period of a day the time of day. `None`: a period after it last ended.
    pub phase: Option<i64>,
    /// The first run is not before so many milliseconds from now.
    pub first: i64,
}

/// Puts all schedules in order, and lets jobs go that this worker had when its process ended. A changed period or phase counts at
/// once. Cost: five rows for each kind.
#[derive(Clone, Debug)]
pub struct Begin {
    /// All kinds.
    pub schedules: Vec<Schedule>,
    /// A worker of this name ended with its process: for a store that one process at a time uses.
    pub ended: Option<String>,
    /// Milliseconds since 1970.
    pub at: i64,
}

/// Whether a [`Begin`] would change nothing: asked before, since a start shall not write what is there. Cost: three rows for each
/// kind.
#[derive(Clone, Debug)]
pub struct IsBegun(pub Begin);

impl ReadOp for IsBegun {}
impl Op for IsBegun {
    type Out = bool;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        for schedule in &self.0.schedules {
            let known = tx
                .row(
                    "SELECT kind FROM job_kind WHERE kind = $1",
                    vals![&schedule.kind],
                )
                .await?;
            let row = tx
                .row(
                    "SELECT every, phase FROM job WHERE unique_key = $1 AND state <= 1",
                    vals![&schedule.kind],
                )
                .await?;
            let is = match row {
                Some(mut row) => Some((row.opt_int(0)?, row.opt_int(1)?)),
                None => None,
            };
            let shall = schedule.every.map(|every| (Some(every), schedule.phase));
            if known.is_none() || is != shall {
                return Ok(false);
            }
            if let Some(worker) = &self.0.ended {
                let left = tx
                    .row(
                        "SELECT id FROM job WHERE kind = $1 AND state = 1 AND worker = $2 LIMIT 1",
                        vals![&schedule.kind, worker],
                    )
                    .await?;
                if left.is_some() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

impl Op for Begin {
    type Out = ();
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        let at = tx.now(self.at).await?;
        for schedule in &self.schedules {
            kind(tx, &schedule.kind).await?;
            if let Some(worker) = &self.ended {
                tx.exec(
                    "UPDATE job SET state = 0, fence = fence + 1 WHERE kind = $1 AND state = 1 AND worker = $2",
                    vals![&schedule.kind, worker],
                )
                .await?;
            }
            match schedule.every {
                Some(every) => put(tx, schedule, every, at).await?,
                None => {
                    tx.exec(
                        "DELETE FROM job WHERE unique_key = $1 AND state <= 1",
                        vals![&schedule.kind],
                    )
                    .await?;
                }
            }
        }
        Ok(())
    }
}

async fn put<T: Tx>(tx: &mut T, schedule: &Schedule, every: i64, at: i64) -> Result<()> {
    let row = tx
        .row(
            "SELECT id, every, phase, run_at FROM job WHERE unique_key = $1 AND state <= 1 FOR UPDATE",
            vals![&schedule.kind],
        )
        .await?;
    if let Some(mut row) = row {
        let (id, was) = (row.id(0)?, (row.opt_int(1)?, row.opt_int(2)?));
        if was != (Some(every), schedule.phase) {
            let run_at = row.int(3)?.min(next(at, every, schedule.phase));
            tx.exec(
                "UPDATE job SET every = $2, phase = $3, run_at = $4 WHERE id = $1",
                vals![&id, every, schedule.phase, run_at],
            )
            .await?;
        }
        return Ok(());
    }
    let id = tx.id(at);
    tx.exec(
        "INSERT INTO job (id, kind, unique_key, payload, state, priority, run_at, every, phase, attempts, max_attempts, \
         fence, created_at, changed_at) VALUES ($1, $2, $2, $3, 0, 0, $4, $5, $6, 0, 1, 0, $7, $7) \
         ON CONFLICT (unique_key) WHERE state <= 1 DO NOTHING",
        vals![
            &id,
            &schedule.kind,
            &schedule.payload,
            at + schedule.first,
            every,
            schedule.phase,
            at
        ],
    )
    .await?;
    Ok(())
}

/// When a schedule runs that ended a run at this moment.
fn next(at: i64, every: i64, phase: Option<i64>) -> i64 {
    match phase {
        Some(phase) if every > 0 => at + every - (at - phase).rem_euclid(every),
        _ => at + every,
    }
}

/// A kind that a worker has room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The kind.
    pub kind: String,
    /// So many may run at once, on all replicas together.
    pub limit: i64,
}

/// Takes a job that is due, or one whose lease has ended, of the first kind that has one. Locks the kind's row, so that no more
/// run than may. Cost: four rows for each kind, and 20 jobs.
#[derive(Clone, Debug)]
pub struct Take {
    /// Kinds by importance.
    pub kinds: Vec<Wanted>,
    /// Who takes it.
    pub worker: String,
    /// How long the lease is, in milliseconds.
    pub lease: i64,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Take {
    type Out = Option<JobRow>;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let at = tx.now(self.at).await?;
        for wanted in &self.kinds {
            if pick(tx, &wanted.kind, at).await?.is_none() {
                continue;
            }
            tx.row(
                "SELECT kind FROM job_kind WHERE kind = $1 FOR UPDATE",
                vals![&wanted.kind],
            )
            .await?;
            let running = tx
                .row(
                    "SELECT COUNT(*) FROM job WHERE kind = $1 AND state = 1 AND lease_until >= $2",
                    vals![&wanted.kind, at],
                )
                .await?;
            if running.map_or(Ok(0), |mut row| row.int(0))? >= wanted.limit {
                continue;
            }
            // Again: another worker may have had the kind's row before.
            while let Some(id) = pick(tx, &wanted.kind, at).await? {
                // Whoever has it, or cancels it, does not ask for the kind's row: it may be alive after all, or over.
                let row = tx
                    .row(
                        "UPDATE job SET state = 1, fence = fence + 1, attempts = attempts + 1, lease_until = $2, worker = $3, \
                         changed_at = $4 WHERE id = $1 AND ((state = 0 AND run_at <= $4) OR (state = 1 AND lease_until < $4)) \
                         RETURNING id, kind, unique_key, payload, state, priority, run_at, every, \
                         attempts, max_attempts, fence, lease_until, worker, last_error, changed_at",
                        vals![&id, at + self.lease, &self.worker, at],
                    )
                    .await?;
                if row.is_some() {
                    return row.map(job).transpose();
                }
            }
        }
        Ok(None)
    }
}

async fn pick<T: Tx>(tx: &mut T, kind: &str, at: i64) -> Result<Option<Id>> {
    let rows = tx
        .query(
            "SELECT id, priority FROM job WHERE kind = $1 AND state = 0 AND run_at <= $2 ORDER BY run_at LIMIT $3",
            vals![kind, at, LOOKED_AT],
        )
        .await?;
    let mut best: Option<(Id, i64)> = None;
    for mut row in rows {
        let (id, priority) = (row.id(0)?, row.int(1)?);
        if best.is_none_or(|(_, highest)| priority > highest) {
            best = Some((id, priority));
        }
    }
    if let Some((id, _)) = best {
        return Ok(Some(id));
    }
    let abandoned = tx
        .row(
            "SELECT id FROM job WHERE kind = $1 AND state = 1 AND lease_until < $2 ORDER BY lease_until LIMIT 1",
            vals![kind, at],
        )
        .await?;
    abandoned.map(|mut row| row.id(0)).transpose()
}

/// What is due, and when there is something next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    /// Kinds with a job that could be taken now.
    pub due: Vec<String>,
    /// In so many milliseconds another one has.
    pub next: Option<i64>,
}

/// Looks what is due: asked before [`Take`], since a read disturbs nobody, and to know how long there is nothing to do. Cost: three
/// rows for each kind there ever was.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Milliseconds since 1970.
    pub at: i64,
}

impl ReadOp for Look {}
impl Op for Look {
    type Out = Ahead;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Ahead> {
        let at = tx.now(self.at).await?;
        let rows = tx
            .query(
                "SELECT k.kind, (SELECT j.run_at FROM job j WHERE j.kind = k.kind AND j.state = 0 ORDER BY j.run_at LIMIT 1), \
                 (SELECT j.lease_until FROM job j WHERE j.kind = k.kind AND j.state = 1 ORDER BY j.lease_until LIMIT 1) \
                 FROM job_kind k ORDER BY k.kind",
                &[],
            )
            .await?;
        let mut ahead = Ahead::default();
        for mut row in rows {
            let (kind, waits, lease) = (row.text(0)?, row.opt_int(1)?, row.opt_int(2)?);
            // One whose lease ends now is not abandoned yet.
            let times = waits.into_iter().chain(lease.map(|until| until + 1));
            let Some(first) = times.min() else { continue };
            if first <= at {
                ahead.due.push(kind);
            } else {
                let wait = first - at;
                ahead.next = Some(ahead.next.map_or(wait, |next| next.min(wait)));
            }
        }
        Ok(ahead)
    }
}

/// Renews a lease and keeps where the job stands; `false`: it is lost, and the worker must stop. Cost: one row.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    /// The job.
    pub id: Id,
    /// The worker's fence.
    pub fence: i64,
    /// JSON.
    pub payload: String,
    /// From now on so long, in milliseconds.
    pub lease: i64,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Heartbeat {
    type Out = bool;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let at = tx.now(self.at).await?;
        let changed = tx
            .exec(
                "UPDATE job SET payload = $3, lease_until = $4, changed_at = $5 WHERE id = $1 AND fence = $2 AND state = 1",
                vals![&self.id, self.fence, &self.payload, at + self.lease, at],
            )
            .await?;
        Ok(changed == 1)
    }
}

/// How a run of a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is done; a schedule waits for its next time.
    Done,
    /// It goes on after so many milliseconds; this was no failure.
    Again(i64),
    /// It failed and is tried again after so many milliseconds.
    Retry(i64),
    /// It failed for the last time.
    Dead,
}

/// Ends a run under its fence; `false`: the lease was lost, and nothing happened. Cost: one row.
#[derive(Clone, Debug)]
pub struct Finish {
    /// The job.
    pub id: Id,
    /// The worker's fence.
    pub fence: i64,
    /// JSON for the next run.
    pub payload: String,
    /// How.
    pub end: End,
    /// Why it failed.
    pub error: Option<String>,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Finish {
    type Out = bool;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let at = tx.now(self.at).await?;
        let row = tx
            .row(
                "SELECT every, phase FROM job WHERE id = $1 AND fence = $2 AND state = 1 FOR UPDATE",
                vals![&self.id, self.fence],
            )
            .await?;
        let Some(mut row) = row else {
            return Ok(false);
        };
        let (every, phase) = (row.opt_int(0)?, row.opt_int(1)?);
        let (state, run_at) = match (self.end, every) {
            (End::Done, None) => (State::Done, at),
            (End::Dead, None) => (State::Dead, at),
            (End::Done | End::Dead, Some(every)) => (State::Waiting, next(at, every, phase)),
            (End::Again(wait) | End::Retry(wait), _) => (State::Waiting, at + wait),
        };
        let failed = matches!(self.end, End::Retry(_) | End::Dead);
        tx.exec(
            "UPDATE job SET state = $2, run_at = $3, payload = $4, last_error = $5, changed_at = $6, \
             attempts = CASE WHEN $7 = 1 THEN attempts ELSE 0 END WHERE id = $1",
            vals![
                &self.id,
                state as i64,
                run_at,
                &self.payload,
                self.error.as_deref(),
                at,
                failed
            ],
        )
        .await?;
        Ok(true)
    }
}

/// A job. Cost: one row.
#[derive(Clone, Copy, Debug)]
pub struct Get {
    /// The job.
    pub id: Id,
}

impl ReadOp for Get {}
impl Op for Get {
    type Out = Option<JobRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let row = tx
            .row(
                "SELECT id, kind, unique_key, payload, state, priority, run_at, every, attempts, max_attempts, fence, \
                 lease_until, worker, last_error, changed_at FROM job WHERE id = $1",
                vals![&self.id],
            )
            .await?;
        row.map(job).transpose()
    }
}

/// Jobs, the oldest first. Cost: the rows given.
#[derive(Clone, Copy, Debug)]
pub struct List {
    /// The last id of the page before.
    pub after: Option<Id>,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for List {}
impl Op for List {
    type Out = Vec<JobRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let after = self.after.unwrap_or(Id::from_bytes([0; 16]));
        let rows = tx
            .query(
                "SELECT id, kind, unique_key, payload, state, priority, run_at, every, attempts, max_attempts, fence, \
                 lease_until, worker, last_error, changed_at FROM job WHERE id > $1 ORDER BY id LIMIT $2",
                vals![&after, self.limit],
            )
            .await?;
        rows.into_iter().map(job).collect()
    }
}

/// Lets the schedule of a kind run now, or at another moment than it would; `false`: it runs already, or there is none. Cost: one row.
#[derive(Clone, Debug)]
pub struct RunNow {
    /// The kind.
    pub kind: String,
    /// Not before; milliseconds since 1970. `None`: now.
    pub run_at: Option<i64>,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for RunNow {
    type Out = bool;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let at = tx.now(self.at).await?;
        let changed = tx
            .exec(
                "UPDATE job SET run_at = $2 WHERE unique_key = $1 AND state <= 1 AND state = 0",
                vals![&self.kind, self.run_at.unwrap_or(at)],
            )
            .await?;
        Ok(changed == 1)
    }
}

/// Ends a job before its time; whoever runs it stops at its next step. Of a schedule only this run ends. `false`: it is over
/// already. Cost: one row.
#[derive(Clone, Copy, Debug)]
pub struct Cancel {
    /// The job.
    pub id: Id,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Cancel {
    type Out = bool;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let at = tx.now(self.at).await?;
        let changed = tx
            .exec(
                "UPDATE job SET state = CASE WHEN every IS NULL THEN 4 ELSE 0 END, \
                 run_at = $2 + COALESCE(every, 0) - COALESCE(($2 - phase) % every, 0), fence = fence + 1, changed_at = $2 WHERE id = $1 AND state <= 1",
                vals![&self.id, at],
            )
            .await?;
        Ok(changed == 1)
    }
}

/// Lets a dead or cancelled job run again; `false`: it is neither, or another one with its unique key waits or runs. Cost: two
/// rows.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// The job.
    pub id: Id,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Retry {
    type Out = bool;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let at = tx.now(self.at).await?;
        let row = tx
            .row(
                "SELECT unique_key FROM job WHERE id = $1 AND state >= 3 FOR UPDATE",
                vals![&self.id],
            )
            .await?;
        let Some(mut row) = row else {
            return Ok(false);
        };
        if let Some(key) = row.opt_text(0)? {
            let other = tx
                .row(
                    "SELECT id FROM job WHERE unique_key = $1 AND state <= 1",
                    vals![&key],
                )
                .await?;
            if other.is_some() {
                return Ok(false);
            }
        }
        tx.exec(
            "UPDATE job SET state = 0, attempts = 0, run_at = $2, changed_at = $2 WHERE id = $1",
            vals![&self.id, at],
        )
        .await?;
        Ok(true)
    }
}

/// Forgets jobs that were over before a time; tells how many. Cost: the rows removed, 200 at most.
#[derive(Clone, Copy, Debug)]
pub struct Trim {
    /// Milliseconds since 1970.
    pub before: i64,
}

impl Op for Trim {
    type Out = u64;
    const SINGLE: bool = true;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u64> {
        // Asked twice: PostgreSQL looks anew at a row that was just revived, and only there.
        tx.exec(
            "DELETE FROM job WHERE state >= 2 AND id IN (SELECT id FROM job WHERE state >= 2 AND changed_at < $1 ORDER BY changed_at \
             LIMIT 200)",
            vals![self.before],
        )
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_with_a_phase_runs_at_its_time_of_day() {
        const HOUR: i64 = 3_600_000;
        const DAY: i64 = 24 * HOUR;
        let three = Some(3 * HOUR);
        assert_eq!(next(100 * DAY, DAY, three), 100 * DAY + 3 * HOUR);
        assert_eq!(next(100 * DAY + 2 * HOUR, DAY, three), 100 * DAY + 3 * HOUR);
        // A run that begins and ends within the very millisecond is not the next one.
        assert_eq!(next(100 * DAY + 3 * HOUR, DAY, three), 101 * DAY + 3 * HOUR);
        assert_eq!(next(100 * DAY + 9 * HOUR, DAY, three), 101 * DAY + 3 * HOUR);
        assert_eq!(next(-DAY - HOUR, DAY, three), -DAY + 3 * HOUR);
        assert_eq!(next(7, DAY, None), DAY + 7);
    }
}
