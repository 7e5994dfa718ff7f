//! Repositories: what there is, as far as the caller may see it.

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use wharf_core::access::Permission;
use wharf_core::{Error, Registry, repository, usage as sums};
use wharf_meta::usage;

use super::Shared;
use super::arguments::{Path, Query};
use super::page::{Page, Wanted};
use super::problem::{Problem, Refusals};
use super::time::Time;
use super::visitor::{Visitor, unseen};

/// A repository
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Repository {
    /// Its name
    #[schema(example = "team/app")]
    name: String,
    /// When something was first pushed to it
    created_at: Time,
    /// Bytes of all that it holds
    size: u64,
    /// Bytes of what no other repository holds, when it was counted last; absent until then
    #[serde(skip_serializing_if = "Option::is_none")]
    own_size: Option<u64>,
    /// Its blobs, when they were counted last
    #[serde(skip_serializing_if = "Option::is_none")]
    blobs: Option<u64>,
    /// When `own_size` and `blobs` were counted
    #[serde(skip_serializing_if = "Option::is_none")]
    counted_at: Option<Time>,
}

impl From<usage::Found> for Repository {
    fn from(found: usage::Found) -> Self {
        let usage::Found {
            created_at,
            counted,
        } = found;
        let known = |number: u64| counted.at.map(|_| number);
        Self {
            created_at: Time(created_at),
            size: counted.usage.logical,
            own_size: known(counted.usage.own),
            blobs: known(counted.usage.blobs),
            counted_at: counted.at.map(Time),
            name: counted.name,
        }
    }
}

/// Where repositories are looked for
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Within {
    /// Only this repository and those below it: `team` has `team` and `team/app`, but not `teams`
    #[param(example = "team")]
    within: Option<String>,
}

/// List repositories
///
/// Those that the caller may see in lists, bytewise by name. Sizes go with every push and deletion; what a repository shares with others
/// is counted once in a while.
#[utoipa::path(
    get, path = "/api/v1/repositories", operation_id = "list_repositories", tag = "repositories",
    params(Wanted, Within), responses((status = 200, description = "A page", body = Page<Repository>), Refusals)
)]
pub(super) async fn list(
    state: Shared,
    visitor: Visitor,
    Query(wanted): Query<Wanted>,
    Query(Within { within }): Query<Within>,
) -> Result<Json<Page<Repository>>, Problem> {
    let access = &state.registry.access;
    visitor.may(access, Permission::Catalog)?;
    let limit = wanted.limit()?;
    fold(&state.registry).await;
    let look = usage::Within {
        after: wanted.after("repositories")?,
        limit: limit + 1,
        within: both(visitor.prefixes(access, Permission::Catalog), within),
    };
    let found = state.registry.meta.scan(look).await?;
    let items = found.into_iter().map(Repository::from).collect();
    Ok(Json(Page::cut(
        "repositories",
        items,
        limit,
        |one: &Repository| one.name.clone(),
    )))
}

/// What was pushed a moment ago shall show; that it does not is no reason to show nothing.
async fn fold(registry: &Registry) {
    if let Err(error) = sums::fold(registry).await {
        tracing::warn!(%error, "sizes lack what was pushed last");
    }
}

/// What lies within both: the prefixes that the caller may see, and the one that was asked for.
fn both(allowed: Option<Vec<String>>, asked: Option<String>) -> Option<Vec<String>> {
    let is_below = |inner: &str, outer: &str| {
        outer.is_empty()
            || inner
                .strip_prefix(outer)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let asked = asked.map(|asked| asked.trim_end_matches('/').to_owned());
    match (allowed, asked) {
        (allowed, None) => allowed,
        (None, Some(asked)) => Some(vec![asked]),
        (Some(allowed), Some(asked)) if allowed.iter().any(|one| is_below(&asked, one)) => {
            Some(vec![asked])
        }
        (Some(mut allowed), Some(asked)) => {
            allowed.retain(|one| is_below(one, &asked));
            Some(allowed)
        }
    }
}

/// Which repository
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct Named {
    /// Its name; slashes may stay as they are, or be written `%2F`
    #[param(example = "team/app")]
    pub(super) name: String,
}

/// Show a repository
#[utoipa::path(
    get, path = "/api/v1/repositories/{name}", operation_id = "show_repository", tag = "repositories",
    params(Named), responses((status = 200, description = "It", body = Repository), Refusals)
)]
pub(super) async fn get(
    state: Shared,
    visitor: Visitor,
    Path(Named { name }): Path<Named>,
) -> Result<Json<Repository>, Problem> {
    let name = visitor.sees(&state.registry.access, &name)?;
    fold(&state.registry).await;
    let look = usage::Within {
        after: None,
        limit: 1,
        within: Some(vec![name.to_string()]),
    };
    let found = state.registry.meta.read(look).await?;
    let found = found
        .into_iter()
        .find(|one| one.counted.name == *name.as_str());
    found
        .map(|found| Json(found.into()))
        .ok_or_else(|| unseen(&name))
}

/// What a deletion has done
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Cleared {
    /// Manifests that were deleted, each with its tags
    manifests: u64,
}

/// Delete what a repository holds
///
/// All manifests and tags. Each can be restored until its window ends; then what nobody else needs gives its room back. The name
/// stays. Needs the right to delete.
#[utoipa::path(
    delete, path = "/api/v1/repositories/{name}", operation_id = "delete_repository", tag = "repositories",
    params(Named), responses((status = 200, description = "Done", body = Cleared), Refusals)
)]
pub(super) async fn delete(
    state: Shared,
    visitor: Visitor,
    Path(Named { name }): Path<Named>,
) -> Result<Json<Cleared>, Problem> {
    let registry = &state.registry;
    let name = visitor.sees_and_may(&registry.access, &name, Permission::Delete)?;
    match repository::clear(registry, &name, visitor.actor()).await {
        Ok(manifests) => Ok(Json(Cleared { manifests })),
        Err(Error::NameUnknown(_)) => Err(unseen(&name)),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_narrowed_and_never_widened() {
        let all = |list: &[&str]| Some(list.iter().map(|&one| one.to_owned()).collect::<Vec<_>>());
        let both = |allowed, asked: Option<&str>| both(allowed, asked.map(str::to_owned));
        assert_eq!(both(None, None), None);
        assert_eq!(both(None, Some("a")), all(&["a"]));
        assert_eq!(both(all(&["a", "b"]), None), all(&["a", "b"]));
        assert_eq!(both(all(&["a"]), Some("a/b/")), all(&["a/b"]));
        assert_eq!(
            both(all(&["a/b", "a/c", "ab"]), Some("a")),
            all(&["a/b", "a/c"])
        );
        assert_eq!(both(all(&["a"]), Some("ab")), all(&[]));
        assert_eq!(both(all(&[]), Some("a")), all(&[]));
        assert_eq!(both(all(&["a"]), Some("")), all(&["a"]));
    }
}
