//! Namespaces, and who sees them without a binding.

use axum::Json;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use wharf_core::access::{ChangeError, Permission, namespace_version};
use wharf_oci::RepositoryName;

use super::Shared;
use super::access::{Changed, place, refused, wrong};
use super::arguments::{Body, Path, Query};
use super::condition::{Conditions, IfMatch, done, versioned};
use super::page::{Page, Wanted};
use super::problem::{Problem, Refusals};
use super::visitor::Visitor;

/// A namespace
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Namespace {
    /// Its path
    #[schema(example = "team/a")]
    name: String,
    /// `private`, `internal` (any signed-in principal may pull) or `public`
    #[schema(example = "private")]
    visibility: String,
}

/// List namespaces
///
/// Those whose settings the caller may see. A namespace needs no entry here to be used; one without is private.
#[utoipa::path(
    get, path = "/api/v1/namespaces", operation_id = "list_namespaces", tag = "rights", params(Wanted),
    responses((status = 200, description = "A page", body = Page<Namespace>), Refusals)
)]
pub(super) async fn namespaces(
    state: Shared,
    visitor: Visitor,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<Namespace>>, Problem> {
    let access = &state.registry.access;
    visitor.is_somebody(access)?;
    let seen = |path: &str| {
        let place = RepositoryName::parse(path).ok();
        let may = visitor.may_on(access, Permission::ReadSettings, place.as_ref());
        may.is_ok()
    };
    let all = access.namespaces().into_iter();
    let all = all
        .filter(|(path, _)| seen(path))
        .map(|(name, visibility)| Namespace {
            name,
            visibility: visibility.as_str().to_owned(),
        });
    Ok(Json(wanted.of(
        "namespaces",
        all.collect(),
        |one: &Namespace| one.name.clone(),
    )?))
}

/// Which namespace
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct NamedNamespace {
    /// Its path; slashes may stay as they are, or be written `%2F`
    #[param(example = "team/a")]
    name: String,
}

/// Show a namespace
///
/// Needs the right to see its settings. With an `ETag`, to be sent as `If-Match` with a change.
#[utoipa::path(
    get, path = "/api/v1/namespaces/{name}", operation_id = "show_namespace", tag = "rights", params(NamedNamespace),
    responses((status = 200, description = "The namespace, with an ETag", body = Namespace), Refusals)
)]
pub(super) async fn namespace(
    state: Shared,
    visitor: Visitor,
    conditions: Conditions,
    Path(NamedNamespace { name }): Path<NamedNamespace>,
) -> Result<Response, Problem> {
    let access = &state.registry.access;
    let place = place(&name)?;
    visitor.may_on(access, Permission::ReadSettings, place.as_ref())?;
    let name = name.trim_end_matches('/').to_owned();
    let visibility = access.policy().visibility(&name);
    let visibility = visibility.ok_or_else(|| {
        refused(ChangeError::Unknown(format!(
            "namespace {name:?} has no settings, so it is private; `wharf namespace list` shows those that have some"
        )))
    })?;
    let version = namespace_version(&name, visibility);
    let visibility = visibility.as_str().to_owned();
    Ok(versioned(
        version,
        &conditions,
        Namespace { name, visibility },
    ))
}

/// How a namespace shall be
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetNamespace {
    /// `private`, `internal` (any signed-in principal may pull) or `public`
    #[schema(example = "internal")]
    visibility: String,
}

/// Make a namespace, or change its visibility
///
/// Needs the right to manage settings there, and to pull for all whom it is opened to. With `If-Match`, only the settings that
/// were read.
#[utoipa::path(
    put, path = "/api/v1/namespaces/{name}", operation_id = "set_namespace", tag = "rights",
    params(NamedNamespace, IfMatch), request_body = SetNamespace,
    responses((status = 200, description = "Done, with the namespace's ETag", body = Changed), Refusals)
)]
pub(super) async fn set_namespace(
    state: Shared,
    visitor: Visitor,
    conditions: Conditions,
    Path(NamedNamespace { name }): Path<NamedNamespace>,
    Body(SetNamespace { visibility }): Body<SetNamespace>,
) -> Result<Response, Problem> {
    let registry = &state.registry;
    let place = place(&name)?;
    visitor.may_on(&registry.access, Permission::ManageSettings, place.as_ref())?;
    let visibility = visibility
        .parse()
        .map_err(|error| wrong("visibility")(&error))?;
    let now = registry.clock.now_ms();
    let (access, meant) = (&registry.access, conditions.meant());
    let set = access.set_namespace_if(visitor.changer(), &name, visibility, &meant, now);
    Ok(done(set.await.map_err(refused)?))
}

/// Remove a namespace's entry, with all bindings on it
///
/// Its repositories stay. For administrators of what lies above. With `If-Match`, only the settings that were read.
#[utoipa::path(
    delete, path = "/api/v1/namespaces/{name}", operation_id = "remove_namespace", tag = "rights",
    params(NamedNamespace, IfMatch), responses((status = 200, description = "Done", body = Changed), Refusals)
)]
pub(super) async fn remove_namespace(
    state: Shared,
    visitor: Visitor,
    conditions: Conditions,
    Path(NamedNamespace { name }): Path<NamedNamespace>,
) -> Result<Json<Changed>, Problem> {
    let registry = &state.registry;
    let place = place(&name)?;
    visitor.may_on(&registry.access, Permission::Admin, place.as_ref())?;
    let now = registry.clock.now_ms();
    let (access, meant) = (&registry.access, conditions.meant());
    let change = access.remove_namespace_if(visitor.changer(), &name, &meant, now);
    Ok(Json(change.await.map_err(refused)?.into()))
}
