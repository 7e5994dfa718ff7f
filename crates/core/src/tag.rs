//! Tags: names that move (specification §1.8, §1.10).

use wharf_meta::tag as rows;
use wharf_oci::{Reference, RepositoryName, Tag};

use crate::error::{Error, Result};
use crate::registry::Registry;

/// One page of a listing, in bytewise order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The names on this page.
    pub names: Vec<String>,
    /// Whether more follow after the last one.
    pub more: bool,
}

impl Page {
    /// Cuts a listing that was asked for one name more than the page holds.
    pub(crate) fn cut(mut names: Vec<String>, limit: u32) -> Self {
        let more = names.len() > limit as usize;
        names.truncate(limit as usize);
        Self { names, more }
    }
}

/// The repository's tags after `last` (TAGS-1 … TAGS-7). `limit` is clamped to `limits.page`.
pub async fn list(
    registry: &Registry,
    repository: &RepositoryName,
    last: Option<&str>,
    limit: Option<u32>,
) -> Result<Page> {
    let limit = limit
        .unwrap_or(registry.limits.page)
        .min(registry.limits.page);
    let names = registry
        .meta
        .scan(rows::List {
            repository: repository.clone(),
            after: last.map(str::to_owned),
            limit: limit + 1,
        })
        .await?
        .ok_or_else(|| Error::NameUnknown(repository.clone()))?;
    Ok(match limit {
        // TAGS-3: a page of nothing has no next page.
        0 => Page {
            names: Vec::new(),
            more: false,
        },
        _ => Page::cut(names, limit),
    })
}

/// Where the tag stands.
pub async fn show(
    registry: &Registry,
    repository: &RepositoryName,
    tag: &Tag,
) -> Result<rows::Standing> {
    let look = rows::GetStanding {
        repository: repository.clone(),
        tag: tag.clone(),
    };
    let found = registry.meta.read(look).await?;
    found.ok_or_else(|| unknown(repository, tag))
}

/// As [`delete`], and only if the tag still has this version.
pub async fn delete_at(
    registry: &Registry,
    repository: &RepositoryName,
    tag: &Tag,
    version: Option<i64>,
    actor: &str,
) -> Result<()> {
    let delete = rows::Delete {
        repository: repository.clone(),
        tag: tag.clone(),
        actor: actor.to_owned(),
        at: registry.clock.now_ms(),
    };
    let op = rows::DeleteAt { delete, version };
    match registry.meta.write(op).await? {
        rows::Deleted::Done => Ok(()),
        rows::Deleted::Unknown => Err(unknown(repository, tag)),
        rows::Deleted::Moved => Err(Error::PreconditionFailed),
    }
}

fn unknown(repository: &RepositoryName, tag: &Tag) -> Error {
    Error::ManifestUnknown {
        repository: repository.clone(),
        reference: Reference::Tag(tag.clone()),
    }
}

/// Deletes the tag; the manifest stays reachable by digest (DEL-1).
pub async fn delete(
    registry: &Registry,
    repository: &RepositoryName,
    tag: &Tag,
    actor: &str,
) -> Result<()> {
    let deleted = registry
        .meta
        .write(rows::Delete {
            repository: repository.clone(),
            tag: tag.clone(),
            actor: actor.to_owned(),
            at: registry.clock.now_ms(),
        })
        .await?;
    if deleted {
        Ok(())
    } else {
        Err(unknown(repository, tag))
    }
}
