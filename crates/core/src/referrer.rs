//! Referrers: manifests that name another as their subject (specification §1.9).

use wharf_meta::referrer as rows;
use wharf_oci::{Digest, RepositoryName};

use crate::error::Result;
use crate::registry::Registry;

/// Clients read at most four MiB of an index; a page stays well below (REF-7).
const PAGE_BYTES: usize = 2 << 20;

/// One page of referrers, each a descriptor in JSON as the answer holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Descriptors, ordered by digest.
    pub descriptors: Vec<String>,
    /// Where the next page begins: after this digest.
    pub next: Option<String>,
}

/// What refers to `subject` in this repository, of any of `artifact_types` if given (REF-2, REF-5, REF-6).
///
/// An unknown subject or repository has no referrers; that is no error.
pub async fn list(
    registry: &Registry,
    repository: &RepositoryName,
    subject: &Digest,
    artifact_types: Vec<String>,
    after: Option<String>,
) -> Result<Page> {
    let limit = registry.limits.page;
    let mut rows = registry
        .meta
        .scan(rows::List {
            repository: repository.clone(),
            subject: subject.clone(),
            artifact_types,
            after,
            limit: limit + 1,
        })
        .await?;
    let mut bytes = 0;
    let fitting = rows
        .iter()
        .take(limit as usize)
        .take_while(|row| {
            bytes += row.descriptor.len() + 1;
            bytes <= PAGE_BYTES
        })
        .count()
        // One descriptor is always sent, however long: a page of none would never end.
        .max(1);
    let more = rows.len() > fitting;
    rows.truncate(fitting);
    Ok(Page {
        next: more
            .then(|| rows.last().map(|row| row.digest.to_string()))
            .flatten(),
        descriptors: rows.into_iter().map(|row| row.descriptor).collect(),
    })
}
