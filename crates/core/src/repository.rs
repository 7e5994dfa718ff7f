//! Repositories: what the catalogue shows (specification §1.14).

use wharf_meta::{manifest as manifests, repository as rows};
use wharf_oci::RepositoryName;

use crate::access::{Caller, Permission};
use crate::error::{Error, Result};
use crate::manifest;
use crate::registry::Registry;
use crate::tag::Page;

/// The repositories that `caller` is shown, after `last`, in bytewise order (CAT-1, CAT-2).
pub async fn list(
    registry: &Registry,
    caller: &Caller,
    last: Option<&str>,
    limit: u32,
) -> Result<Page> {
    let limit = limit.min(registry.limits.page);
    if limit == 0 {
        return Ok(Page::default());
    }
    let names = registry
        .meta
        .scan(rows::List {
            after: last.map(str::to_owned),
            limit: limit + 1,
            within: registry.access.prefixes_for(caller, Permission::Catalog),
        })
        .await?;
    Ok(Page::cut(names, limit))
}

/// Manifests that are looked up at once by [`clear`].
const PAGE: u32 = 100;

/// Deletes all manifests of the repository with their tags, each as [`manifest::delete`] does, so that each can be restored; tells
/// how many. What is pushed meanwhile goes too or stays, as it happens; after a break it goes on when called again.
pub async fn clear(registry: &Registry, repository: &RepositoryName, actor: &str) -> Result<u64> {
    let found = registry
        .meta
        .read(rows::Get {
            name: repository.clone(),
        })
        .await?;
    if found.is_none() {
        return Err(Error::NameUnknown(repository.clone()));
    }
    let (mut cleared, mut after) = (0, None);
    loop {
        let page = manifests::Digests {
            repository: repository.clone(),
            after: after.take(),
            limit: PAGE,
        };
        let page = registry.meta.scan(page).await?;
        let Some(last) = page.last() else {
            return Ok(cleared);
        };
        after = Some(last.clone());
        for digest in page {
            match manifest::delete(registry, repository, &digest, actor).await {
                Ok(()) => cleared += 1,
                // Somebody else was faster.
                Err(Error::ManifestUnknown { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
