//! How the registry is, for administrators.

use std::path::Path;

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;
use wharf_core::access::Permission;
use wharf_meta::repository::GetTotals;

use super::Shared;
use super::problem::{Problem, Refusals};
use super::time::Time;
use super::visitor::Visitor;
use crate::admin::status::health;

/// How the registry is
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Status {
    /// Its version
    version: &'static str,
    /// The metadata store, in words
    #[schema(example = "ok, 0 operation(s) waiting")]
    metadata: String,
    /// The blob store, in words
    #[schema(example = "ok, 40000 MiB free")]
    blobs: String,
    /// Why nothing is removed at present, if so
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<String>,
    /// What it keeps
    totals: Totals,
    /// Jobs by state; absent when they could not be counted
    #[serde(skip_serializing_if = "Option::is_none")]
    jobs: Option<Jobs>,
    /// Processes over the same store; empty when there is only this one
    replicas: Vec<Replica>,
}

/// What the registry keeps
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Totals {
    /// Repositories
    repositories: u64,
    /// Manifests, each counted in every repository that holds it
    manifests: u64,
    /// Tags
    tags: u64,
    /// Blobs, each counted once
    blobs: u64,
    /// Their bytes
    blob_bytes: u64,
    /// Uploads under way
    uploads: u64,
}

/// Jobs by state
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Jobs {
    /// Those that wait for their time
    waiting: usize,
    /// Those that run
    running: usize,
    /// Those that failed for good
    dead: usize,
}

/// A process over the same store
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Replica {
    /// Where it listens
    address: String,
    /// Its version
    version: String,
    /// When it started
    started_at: Time,
    /// How long ago it was heard of, in milliseconds
    silent_for: i64,
    /// It was heard of a moment ago
    there: bool,
    /// What is set up otherwise than at the first replica that is there
    differs: Vec<String>,
}

/// Show how the registry is
///
/// For administrators.
#[utoipa::path(
    get, path = "/api/v1/status", operation_id = "show_status", tag = "registry",
    responses((status = 200, description = "It", body = Status), Refusals)
)]
pub(super) async fn get(state: Shared, visitor: Visitor) -> Result<Json<Status>, Problem> {
    let registry = &state.registry;
    visitor.may(&registry.access, Permission::Admin)?;
    // Where the data lie is nothing for the network.
    let health = health(registry, Path::new("")).await;
    let totals = registry.meta.read(GetTotals).await?;
    let replicas = health.replicas.into_iter().map(|one| Replica {
        address: one.address,
        version: one.version,
        started_at: Time(one.started_at),
        silent_for: one.silent_for,
        there: one.there,
        differs: one.differs,
    });
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        metadata: health.metadata,
        blobs: health.blobs,
        paused: health.paused,
        totals: Totals {
            repositories: totals.repositories,
            manifests: totals.manifests,
            tags: totals.tags,
            blobs: totals.blobs,
            blob_bytes: totals.blob_bytes,
            uploads: totals.uploads,
        },
        jobs: health.jobs.map(|(waiting, running, dead)| Jobs {
            waiting,
            running,
            dead,
        }),
        replicas: replicas.collect(),
    }))
}
