//! Groups and who is in them, for administrators.

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use wharf_core::access::{Permission, Subject};

use super::Shared;
use super::access::{Changed, refused, wrong};
use super::arguments::{Body, Path, Query};
use super::page::{Page, Wanted};
use super::problem::{Problem, Refusals};
use super::visitor::Visitor;

/// A group
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Group {
    /// Its name
    #[schema(example = "developers")]
    name: String,
    /// Whom somebody put into it
    members: Vec<String>,
    /// Groups of providers whose members are in it, `<provider>:<group>`
    #[schema(example = json!(["corp:developers"]))]
    sources: Vec<String>,
    /// Who is in it by these
    outside: Vec<String>,
}

/// List groups
///
/// For administrators.
#[utoipa::path(
    get, path = "/api/v1/groups", operation_id = "list_groups", tag = "rights", params(Wanted),
    responses((status = 200, description = "A page", body = Page<Group>), Refusals)
)]
pub(super) async fn groups(
    state: Shared,
    visitor: Visitor,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<Group>>, Problem> {
    visitor.may(&state.registry.access, Permission::Admin)?;
    let all = state.registry.access.groups().into_iter();
    let all = all.map(|group| Group {
        name: group.name,
        members: group.members,
        sources: group.sources,
        outside: group.outside,
    });
    Ok(Json(
        wanted.of(all.collect(), |one: &Group| one.name.clone())?,
    ))
}

/// Which group
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct NamedGroup {
    /// Its name
    #[param(example = "developers")]
    group: String,
}

/// Make a group
///
/// For administrators.
#[utoipa::path(
    put, path = "/api/v1/groups/{group}", operation_id = "make_group", tag = "rights", params(NamedGroup),
    responses((status = 200, description = "Done", body = Changed), Refusals)
)]
pub(super) async fn make_group(
    state: Shared,
    visitor: Visitor,
    Path(NamedGroup { group }): Path<NamedGroup>,
) -> Result<Json<Changed>, Problem> {
    set_group(&state, &visitor, &group, true).await
}

/// Remove a group, with all its bindings
///
/// For administrators.
#[utoipa::path(
    delete, path = "/api/v1/groups/{group}", operation_id = "remove_group", tag = "rights", params(NamedGroup),
    responses((status = 200, description = "Done", body = Changed), Refusals)
)]
pub(super) async fn remove_group(
    state: Shared,
    visitor: Visitor,
    Path(NamedGroup { group }): Path<NamedGroup>,
) -> Result<Json<Changed>, Problem> {
    set_group(&state, &visitor, &group, false).await
}

async fn set_group(
    state: &Shared,
    visitor: &Visitor,
    group: &str,
    there: bool,
) -> Result<Json<Changed>, Problem> {
    let registry = &state.registry;
    visitor.may(&registry.access, Permission::Admin)?;
    let now = registry.clock.now_ms();
    let change = registry
        .access
        .set_group(visitor.changer(), group, there, now);
    Ok(Json(change.await.map_err(refused)?.into()))
}

/// Which member of which group
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct Member {
    /// The group
    #[param(example = "developers")]
    group: String,
    /// A user, or a robot; the slashes of its namespace are written `%2F`
    #[param(example = "alice")]
    member: String,
}

/// Put somebody into a group
///
/// For administrators.
#[utoipa::path(
    put, path = "/api/v1/groups/{group}/members/{member}", operation_id = "add_member", tag = "rights", params(Member),
    responses((status = 200, description = "Done", body = Changed), Refusals)
)]
pub(super) async fn add_member(
    state: Shared,
    visitor: Visitor,
    Path(member): Path<Member>,
) -> Result<Json<Changed>, Problem> {
    set_member(&state, &visitor, &member, true).await
}

/// Take somebody out of a group
///
/// For administrators.
#[utoipa::path(
    delete, path = "/api/v1/groups/{group}/members/{member}", operation_id = "remove_member", tag = "rights",
    params(Member), responses((status = 200, description = "Done", body = Changed), Refusals)
)]
pub(super) async fn remove_member(
    state: Shared,
    visitor: Visitor,
    Path(member): Path<Member>,
) -> Result<Json<Changed>, Problem> {
    set_member(&state, &visitor, &member, false).await
}

async fn set_member(
    state: &Shared,
    visitor: &Visitor,
    Member { group, member }: &Member,
    within: bool,
) -> Result<Json<Changed>, Problem> {
    let registry = &state.registry;
    visitor.may(&registry.access, Permission::Admin)?;
    let subject: Subject = member.parse().map_err(|error| wrong("member")(&error))?;
    let now = registry.clock.now_ms();
    let access = &registry.access;
    let change = access.set_member(visitor.changer(), group, &subject, within, now);
    Ok(Json(change.await.map_err(refused)?.into()))
}

/// Where a group gets members from
#[derive(Debug, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
#[schema(as = GroupSource)]
pub(super) struct Source {
    /// A provider of the configuration and a group there, `<provider>:<group>`
    #[schema(example = "corp:developers")]
    #[param(example = "corp:developers")]
    source: String,
}

/// Let a provider's group lead to a group
///
/// Whoever's account is in that group of the provider, as told last, is in the group here. For administrators.
#[utoipa::path(
    post, path = "/api/v1/groups/{group}/sources", operation_id = "add_source", tag = "rights", params(NamedGroup),
    request_body = Source, responses((status = 200, description = "Done", body = Changed), Refusals)
)]
pub(super) async fn add_source(
    state: Shared,
    visitor: Visitor,
    Path(NamedGroup { group }): Path<NamedGroup>,
    Body(Source { source }): Body<Source>,
) -> Result<Json<Changed>, Problem> {
    set_source(&state, &visitor, &group, &source, true).await
}

/// Let a provider's group lead to a group no longer
///
/// For administrators.
#[utoipa::path(
    delete, path = "/api/v1/groups/{group}/sources", operation_id = "remove_source", tag = "rights",
    params(NamedGroup, Source), responses((status = 200, description = "Done", body = Changed), Refusals)
)]
pub(super) async fn remove_source(
    state: Shared,
    visitor: Visitor,
    Path(NamedGroup { group }): Path<NamedGroup>,
    Query(Source { source }): Query<Source>,
) -> Result<Json<Changed>, Problem> {
    set_source(&state, &visitor, &group, &source, false).await
}

async fn set_source(
    state: &Shared,
    visitor: &Visitor,
    group: &str,
    source: &str,
    there: bool,
) -> Result<Json<Changed>, Problem> {
    let registry = &state.registry;
    visitor.may(&registry.access, Permission::Admin)?;
    let now = registry.clock.now_ms();
    let access = &registry.access;
    let change = access.set_source(visitor.changer(), group, source, there, now);
    Ok(Json(change.await.map_err(refused)?.into()))
}
