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

/// Makes sure that a kind runs on its schedule, under the kind's name as unique key; a changed period counts at once. Cost:
/// three rows.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// What it does.
    pub kind: String,
    /// JSON to begin with.
    pub payload: String,
    /// Its period in milliseconds.
    pub every: i64,
    /// The first run, not before; milliseconds since 1970.
    pub run_at: i64,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Schedule {
    type Out = ();
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        let at = tx.now(self.at).await?;
        kind(tx, &self.kind).await?;
        let row = tx
            .row(
                "SELECT id, every, run_at FROM job WHERE unique_key = $1 AND state <= 1 FOR UPDATE",
                vals![&self.kind],
            )
            .await?;
        if let Some(mut row) = row {
            let (id, every, run_at) = (row.id(0)?, row.opt_int(1)?, row.int(2)?);
            if every != Some(self.every) {
                tx.exec(
                    "UPDATE job SET every = $2, run_at = $3 WHERE id = $1",
                    vals![&id, self.every, run_at.min(at + self.every)],
                )
                .await?;
            }
            return Ok(());
        }
        let id = tx.id(at);
        tx.exec(
            "INSERT INTO job (id, kind, unique_key, payload, state, priority, run_at, every, attempts, max_attempts, fence, \
             created_at, changed_at) VALUES ($1, $2, $2, $3, 0, 0, $4, $5, 0, 1, 0, $6, $6) \
             ON CONFLICT (unique_key) WHERE state <= 1 DO NOTHING",
            vals![&id, &self.kind, &self.payload, self.run_at, self.every, at],
        )
        .await?;
        Ok(())
    }
}

/// Ends the schedule of a kind that is switched off. Cost: one row.
#[derive(Clone, Debug)]
pub struct Unschedule {
    /// The kind.
    pub kind: String,
}

impl Op for Unschedule {
    type Out = ();
    const SINGLE: bool = true;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        tx.exec(
            "DELETE FROM job WHERE unique_key = $1 AND state <= 1",
            vals![&self.kind],
        )
        .await?;
        Ok(())
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
            if let Some(id) = pick(tx, &wanted.kind, at).await? {
                let row = tx
                    .row(
                        "UPDATE job SET state = 1, fence = fence + 1, attempts = attempts + 1, lease_until = $2, worker = $3, \
                         changed_at = $4 WHERE id = $1 RETURNING id, kind, unique_key, payload, state, priority, run_at, every, \
                         attempts, max_attempts, fence, lease_until, worker, last_error, changed_at",
                        vals![&id, at + self.lease, &self.worker, at],
                    )
                    .await?;
                return row.map(job).transpose();
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

/// Whether a kind has a job that could be taken: asked before [`Take`], since a read disturbs nobody. Cost: two rows for each
/// kind.
#[derive(Clone, Debug)]
pub struct IsDue {
    /// The kinds.
    pub kinds: Vec<Wanted>,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl ReadOp for IsDue {}
impl Op for IsDue {
    type Out = bool;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let at = tx.now(self.at).await?;
        for wanted in &self.kinds {
            if pick(tx, &wanted.kind, at).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Lets jobs of a worker go that had them when its process ended: for a store that one process at a time uses. Cost: the
/// rows changed.
#[derive(Clone, Debug)]
pub struct Release {
    /// The kind.
    pub kind: String,
    /// The worker.
    pub worker: String,
}

impl Op for Release {
    type Out = u64;
    const SINGLE: bool = true;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u64> {
        tx.exec(
            "UPDATE job SET state = 0, fence = fence + 1 WHERE kind = $1 AND state = 1 AND worker = $2",
            vals![&self.kind, &self.worker],
        )
        .await
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
                "SELECT every FROM job WHERE id = $1 AND fence = $2 AND state = 1 FOR UPDATE",
                vals![&self.id, self.fence],
            )
            .await?;
        let Some(mut row) = row else {
            return Ok(false);
        };
        let every = row.opt_int(0)?;
        let (state, wait) = match (self.end, every) {
            (End::Done, None) => (State::Done, 0),
            (End::Dead, None) => (State::Dead, 0),
            (End::Done | End::Dead, Some(every)) => (State::Waiting, every),
            (End::Again(wait) | End::Retry(wait), _) => (State::Waiting, wait),
        };
        let failed = matches!(self.end, End::Retry(_) | End::Dead);
        tx.exec(
            "UPDATE job SET state = $2, run_at = $3, payload = $4, last_error = $5, changed_at = $6, \
             attempts = CASE WHEN $7 = 1 THEN attempts ELSE 0 END WHERE id = $1",
            vals![
                &self.id,
                state as i64,
                at + wait,
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

/// Lets the schedule of a kind run now; `false`: it runs already, or there is none. Cost: one row.
#[derive(Clone, Debug)]
pub struct RunNow {
    /// The kind.
    pub kind: String,
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
                vals![&self.kind, at],
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
                "UPDATE job SET state = CASE WHEN every IS NULL THEN 4 ELSE 0 END, run_at = $2 + COALESCE(every, 0), \
                 fence = fence + 1, changed_at = $2 WHERE id = $1 AND state <= 1",
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
        tx.exec(
            "DELETE FROM job WHERE id IN (SELECT id FROM job WHERE state >= 2 AND changed_at < $1 ORDER BY changed_at \
             LIMIT 200)",
            vals![self.before],
        )
        .await
    }
}
