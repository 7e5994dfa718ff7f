//! How the registry is, for `wharf status`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use wharf_core::{Registry, gc, replica};
use wharf_meta::job;

use crate::app::health;

/// Jobs looked at.
const JOBS: u32 = 1_000;

/// How the registry is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Where this process keeps its data.
    pub folder: String,
    /// The metadata store, in words.
    pub metadata: String,
    /// The blob store, in words.
    pub blobs: String,
    /// Why nothing is removed, if so.
    pub paused: Option<String>,
    /// Jobs that wait, run, and are dead.
    pub jobs: Option<(usize, usize, usize)>,
    /// Processes over the same store; empty: there is only this one.
    pub replicas: Vec<ReplicaView>,
}

/// A process over the same store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaView {
    /// Where it listens.
    pub address: String,
    /// Its version.
    pub version: String,
    /// When it started, in milliseconds since 1970.
    pub started_at: i64,
    /// How long ago it was heard of, in milliseconds.
    pub silent_for: i64,
    /// It was heard of a moment ago.
    pub there: bool,
    /// Operations on the metadata since its start.
    pub operations: u64,
    /// What is set up otherwise than at the first replica that is there.
    pub differs: Vec<String>,
}

/// What can be found out: a store that does not answer shows in its own line.
pub(crate) async fn health(registry: &Registry, folder: &Path) -> Health {
    let (metadata, blobs) = health::stores(registry).await;
    Health {
        folder: folder.display().to_string(),
        metadata,
        blobs,
        paused: gc::paused(registry).await.unwrap_or_default(),
        jobs: jobs(registry).await,
        replicas: match registry.meta.is_shared() {
            true => replica::list(registry).await.map(views).unwrap_or_default(),
            false => Vec::new(),
        },
    }
}

async fn jobs(registry: &Registry) -> Option<(usize, usize, usize)> {
    let list = job::List {
        after: None,
        limit: JOBS,
    };
    let jobs = registry.meta.scan(list).await.ok()?;
    let count = |state| jobs.iter().filter(|job| job.state == state).count();
    Some((
        count(job::State::Waiting),
        count(job::State::Running),
        count(job::State::Dead),
    ))
}

fn views(replicas: Vec<replica::Replica>) -> Vec<ReplicaView> {
    let first = replicas.iter().find(|replica| replica.is_there()).cloned();
    replicas
        .into_iter()
        .map(|found| ReplicaView {
            differs: first
                .as_ref()
                .map(|first| replica::differences(&found.me, std::slice::from_ref(first)))
                .unwrap_or_default(),
            there: found.is_there(),
            address: found.me.address,
            version: found.me.version,
            started_at: found.started_at,
            silent_for: found.silent_for,
            operations: found.load.operations,
        })
        .collect()
}
