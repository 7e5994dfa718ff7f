//! Repositories: what the catalogue shows (specification §1.14).

use wharf_meta::repository as rows;

use crate::access::{Permission, Principal};
use crate::error::Result;
use crate::registry::Registry;
use crate::tag::Page;

/// The repositories that `principal` may pull, after `last`, in bytewise order (CAT-1, CAT-2).
pub async fn list(
    registry: &Registry,
    principal: &Principal,
    last: Option<&str>,
    limit: u32,
) -> Result<Page> {
    let limit = limit.min(registry.limits.page);
    if limit == 0 {
        return Ok(Page {
            names: Vec::new(),
            more: false,
        });
    }
    let names = registry
        .meta
        .scan(rows::List {
            after: last.map(str::to_owned),
            limit: limit + 1,
            within: registry.access.prefixes_for(principal, Permission::Pull),
        })
        .await?;
    Ok(Page::cut(names, limit))
}
