//! Roles: names for sets of permissions.

use axum::Json;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use wharf_core::access::{self as rights, ChangeError, Permission, Permissions, role_version};

use super::Shared;
use super::access::{Changed, refused, wrong};
use super::arguments::{Body, Path, Query};
use super::condition::{Conditions, IfMatch, done, versioned};
use super::page::{Page, Wanted};
use super::problem::{Problem, Refusals};
use super::visitor::Visitor;

/// A role
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Role {
    /// Its name
    #[schema(example = "writer")]
    name: String,
    /// What it is made of
    permissions: Vec<String>,
    /// Whether it is there from birth, and stays as it is
    built_in: bool,
}

/// List roles
///
/// Those from birth and those that were made here, with what they are made of.
#[utoipa::path(
    get, path = "/api/v1/roles", operation_id = "list_roles", tag = "rights", params(Wanted),
    responses((status = 200, description = "A page", body = Page<Role>), Refusals)
)]
pub(super) async fn roles(
    state: Shared,
    visitor: Visitor,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<Role>>, Problem> {
    visitor.is_somebody(&state.registry.access)?;
    let built_in = rights::Role::ALL.into_iter().skip(1);
    let built_in = built_in.map(|role| (role.to_string(), role.permissions(), true));
    let own = state.registry.access.roles().into_iter();
    let own = own.map(|(name, permissions)| (name, permissions, false));
    let all = built_in.chain(own);
    let all = all.map(|(name, permissions, built_in)| Role {
        name,
        permissions: permissions.iter().map(|one| one.to_string()).collect(),
        built_in,
    });
    Ok(Json(wanted.of("roles", all.collect(), |one: &Role| {
        one.name.clone()
    })?))
}

/// Which role
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct NamedRole {
    /// Its name
    #[param(example = "signer")]
    role: String,
}

/// Show a role
///
/// With an `ETag`, to be sent as `If-Match` with a change.
#[utoipa::path(
    get, path = "/api/v1/roles/{role}", operation_id = "show_role", tag = "rights", params(NamedRole),
    responses((status = 200, description = "The role, with an ETag", body = Role), Refusals)
)]
pub(super) async fn role(
    state: Shared,
    visitor: Visitor,
    conditions: Conditions,
    Path(NamedRole { role: name }): Path<NamedRole>,
) -> Result<Response, Problem> {
    let access = &state.registry.access;
    visitor.is_somebody(access)?;
    let built_in = (rights::Role::ALL.into_iter().skip(1)).find(|role| role.as_str() == name);
    let permissions = match built_in {
        Some(role) => Some(role.permissions()),
        None => access.policy().custom_role(&name),
    };
    let permissions = permissions.ok_or_else(|| {
        refused(ChangeError::Unknown(format!(
            "there is no role {name}; `wharf role list` shows all"
        )))
    })?;
    let version = role_version(&name, permissions);
    let role = Role {
        permissions: permissions.iter().map(|one| one.to_string()).collect(),
        built_in: built_in.is_some(),
        name,
    };
    Ok(versioned(version, &conditions, role))
}

/// What a role shall be made of
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetRole {
    /// Permissions, such as `pull` and `tag-create`
    permissions: Vec<String>,
}

/// Make a role, or change it
///
/// For administrators. Who has the role has what it is made of from the next request on. With `If-Match`, only the role that was
/// read.
#[utoipa::path(
    put, path = "/api/v1/roles/{role}", operation_id = "set_role", tag = "rights", params(NamedRole, IfMatch),
    request_body = SetRole, responses((status = 200, description = "Done, with the role's ETag", body = Changed), Refusals)
)]
pub(super) async fn set_role(
    state: Shared,
    visitor: Visitor,
    conditions: Conditions,
    Path(NamedRole { role }): Path<NamedRole>,
    Body(SetRole { permissions }): Body<SetRole>,
) -> Result<Response, Problem> {
    let parsed = permissions.iter().map(|word| word.parse::<Permission>());
    let parsed: Result<_, _> = parsed.collect();
    let permissions = parsed.map_err(|error| wrong("permissions")(&error))?;
    change_role(&state, &visitor, &conditions, &role, Some(permissions)).await
}

/// Remove a role that nobody has
///
/// For administrators. With `If-Match`, only the role that was read.
#[utoipa::path(
    delete, path = "/api/v1/roles/{role}", operation_id = "remove_role", tag = "rights", params(NamedRole, IfMatch),
    responses((status = 200, description = "Done", body = Changed), Refusals)
)]
pub(super) async fn remove_role(
    state: Shared,
    visitor: Visitor,
    conditions: Conditions,
    Path(NamedRole { role }): Path<NamedRole>,
) -> Result<Response, Problem> {
    change_role(&state, &visitor, &conditions, &role, None).await
}

async fn change_role(
    state: &Shared,
    visitor: &Visitor,
    conditions: &Conditions,
    role: &str,
    permissions: Option<Permissions>,
) -> Result<Response, Problem> {
    let registry = &state.registry;
    visitor.may(&registry.access, Permission::Admin)?;
    let now = registry.clock.now_ms();
    let (access, meant) = (&registry.access, conditions.meant());
    let set = access.set_role_if(visitor.changer(), role, permissions, &meant, now);
    Ok(done(set.await.map_err(refused)?))
}
