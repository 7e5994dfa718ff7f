//! Work in the background, for administrators.

use axum::Json;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use wharf_core::access::Permission;
use wharf_meta::{Id, job as rows};

use super::Shared;
use super::arguments::{Body, Path, Query};
use super::page::{Page, Wanted, foreign};
use super::problem::{Kind, Problem, Refusals};
use super::time::Time;
use super::visitor::Visitor;

/// A job
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Job {
    /// Its id
    id: String,
    /// What it does
    #[schema(example = "gc.collect")]
    kind: String,
    /// `waiting`, `running`, `done`, `dead` (all its attempts failed) or `cancelled`
    #[schema(example = "waiting")]
    state: &'static str,
    /// When a waiting job runs; otherwise when its state last changed
    at: Time,
    /// A schedule's period in milliseconds
    #[serde(skip_serializing_if = "Option::is_none")]
    every: Option<i64>,
    /// So often it was tried since it last succeeded
    attempts: i64,
    /// Why it failed last
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Who had it last
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<String>,
    /// Where it stands, as JSON in a text
    payload: String,
}

impl From<rows::JobRow> for Job {
    fn from(row: rows::JobRow) -> Self {
        Self {
            id: row.id.to_string(),
            kind: row.kind,
            state: row.state.as_str(),
            at: Time(match row.state {
                rows::State::Waiting => row.run_at,
                _ => row.changed_at,
            }),
            every: row.every,
            attempts: row.attempts,
            error: row.last_error,
            worker: row.worker,
            payload: row.payload,
        }
    }
}

/// Which job
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct Which {
    /// Its id
    id: String,
}

impl Which {
    fn parse(&self) -> Result<Id, Problem> {
        id(&self.id)
            .ok_or_else(|| Problem::invalid("id", "this is no job's id; the list of jobs has them"))
    }
}

fn id(text: &str) -> Option<Id> {
    let id = uuid::Uuid::try_parse(text).ok()?;
    Some(Id::from_bytes(id.into_bytes()))
}

fn unknown(which: &Which) -> Problem {
    Problem::new(Kind::NotFound, format!("there is no job {}", which.id)).with_cure(
        "jobs that are over are forgotten after a while; the list has those that are known",
    )
}

/// List jobs
///
/// Schedules too, which wait for their next time. For administrators.
#[utoipa::path(
    get, path = "/api/v1/jobs", operation_id = "list_jobs", tag = "registry", params(Wanted),
    responses((status = 200, description = "A page", body = Page<Job>), Refusals)
)]
pub(super) async fn list(
    state: Shared,
    visitor: Visitor,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<Job>>, Problem> {
    visitor.may(&state.registry.access, Permission::Admin)?;
    let limit = wanted.limit()?;
    let after = match wanted.after("jobs")? {
        None => None,
        Some(key) => Some(id(&key).ok_or_else(foreign)?),
    };
    let look = rows::List {
        after,
        limit: limit + 1,
    };
    let found = state.registry.meta.scan(look).await?;
    let items = found.into_iter().map(Job::from).collect();
    Ok(Json(Page::cut("jobs", items, limit, |one: &Job| {
        one.id.clone()
    })))
}

/// A schedule that shall run
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Run {
    /// Its kind, as the list has it
    #[schema(example = "gc.collect")]
    kind: String,
    /// Not before this moment; at once if not given
    #[schema(value_type = Option<Time>)]
    at: Option<String>,
}

/// Let a schedule run now instead of at its time
///
/// For administrators.
#[utoipa::path(
    post, path = "/api/v1/jobs", operation_id = "run_job", tag = "registry", request_body = Run,
    responses((status = 204, description = "Done"), Refusals)
)]
pub(super) async fn run(
    state: Shared,
    visitor: Visitor,
    Body(Run { kind, at }): Body<Run>,
) -> Result<StatusCode, Problem> {
    visitor.may(&state.registry.access, Permission::Admin)?;
    let moment = |text: String| {
        let parsed = text.parse::<jiff::Timestamp>();
        parsed
            .map(jiff::Timestamp::as_millisecond)
            .map_err(|error| Problem::invalid("at", error.to_string()))
    };
    let run_at = at.map(moment).transpose()?;
    let at = state.registry.clock.now_ms();
    let kind_of = kind.clone();
    wharf_core::audit::command(&state.registry, "job.run", json!({"kind": kind})).await;
    let run = rows::RunNow { kind, run_at, at };
    if state.registry.meta.write(run).await? {
        state.registry.jobs.notify_waiters();
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Problem::new(
        Kind::Conflict,
        format!("{kind_of:?} is no schedule that waits"),
    )
    .with_cure("it runs already, or the list of jobs (`wharf job list`) has another name for it"))
}

/// Show a job
#[utoipa::path(
    get, path = "/api/v1/jobs/{id}", operation_id = "show_job", tag = "registry", params(Which),
    responses((status = 200, description = "It", body = Job), Refusals)
)]
pub(super) async fn get(
    state: Shared,
    visitor: Visitor,
    Path(which): Path<Which>,
) -> Result<Json<Job>, Problem> {
    visitor.may(&state.registry.access, Permission::Admin)?;
    let found = state.registry.meta.read(rows::Get { id: which.parse()? });
    let found = found.await?.ok_or_else(|| unknown(&which))?;
    Ok(Json(found.into()))
}

/// Cancel a job
///
/// It ends at its next step; of a schedule, this run only.
#[utoipa::path(
    post, path = "/api/v1/jobs/{id}/cancel", operation_id = "cancel_job", tag = "registry", params(Which),
    responses((status = 204, description = "Done"), Refusals)
)]
pub(super) async fn cancel(
    state: Shared,
    visitor: Visitor,
    Path(which): Path<Which>,
) -> Result<StatusCode, Problem> {
    visitor.may(&state.registry.access, Permission::Admin)?;
    let (id, at) = (which.parse()?, state.registry.clock.now_ms());
    wharf_core::audit::command(&state.registry, "job.cancel", json!({"id": which.id})).await;
    let done = state.registry.meta.write(rows::Cancel { id, at }).await?;
    did(&state, &which, done, "it is over already").await
}

/// Let a dead or cancelled job run again
#[utoipa::path(
    post, path = "/api/v1/jobs/{id}/retry", operation_id = "retry_job", tag = "registry", params(Which),
    responses((status = 204, description = "Done"), Refusals)
)]
pub(super) async fn retry(
    state: Shared,
    visitor: Visitor,
    Path(which): Path<Which>,
) -> Result<StatusCode, Problem> {
    visitor.may(&state.registry.access, Permission::Admin)?;
    let (id, at) = (which.parse()?, state.registry.clock.now_ms());
    wharf_core::audit::command(&state.registry, "job.retry", json!({"id": which.id})).await;
    let done = state.registry.meta.write(rows::Retry { id, at }).await?;
    let why = "it is neither dead nor cancelled, or another one does the same now";
    did(&state, &which, done, why).await
}

async fn did(state: &Shared, which: &Which, done: bool, why: &str) -> Result<StatusCode, Problem> {
    if done {
        state.registry.jobs.notify_waiters();
        return Ok(StatusCode::NO_CONTENT);
    }
    let look = rows::Get { id: which.parse()? };
    match state.registry.meta.read(look).await? {
        Some(_) => Err(
            Problem::new(Kind::Conflict, format!("job {}: {why}", which.id))
                .with_cure("look at the job, and decide anew"),
        ),
        None => Err(unknown(which)),
    }
}
