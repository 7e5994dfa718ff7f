//! Groups and who is in them, for administrators.

use axum::Json;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use wharf_core::access::{ChangeError, GroupView, Permission, Subject};

use super::Shared;
use super::access::{Changed, refused, wrong};
use super::arguments::{Body, Path, Query};
use super::condition::{Conditions, IfMatch, done, versioned};
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

impl From<GroupView> for Group {
    fn from(group: GroupView) -> Self {
        Self {
            name: group.name,
            members: group.members,
            sources: group.sources,
            outside: group.outside,
        }
    }
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
    let all = all.map(Group::from);
    Ok(Json(wanted.of(
        "groups",
        all.collect(),
        |one: &Group| one.name.clone(),
    )?))
}

/// Which group
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct NamedGroup {
    /// Its name
    #[param(example = "developers")]
    group: String,
}

/// Show a group
///
/// For administrators. With an `ETag`, to be sent as `If-Match` with a change.
#[utoipa::path(
    get, path = "/api/v1/groups/{group}", operation_id = "show_group", tag = "rights", params(NamedGroup),
    responses((status = 200, description = "The group, with an ETag", body = Group), Refusals)
)]
pub(super) async fn group(
    state: Shared,
    visitor: Visitor,
    conditions: Conditions,
    Path(NamedGroup { group: name }): Path<NamedGroup>,
) -> Result<Response, Problem> {
    let access = &state.registry.access;
    visitor.may(access, Permission::Admin)?;
    let group = access.policy().group_view(&name).ok_or_else(|| {
        refused(ChangeError::Unknown(format!(
            "there is no group {name}; `wharf group list` shows all"
        )))
    })?;
    Ok(versioned(group.version(), &conditions, Group::from(group)))
}

/// Make a group
///
/// For administrators. With `If-Match`, only the group that was read, which changes nothing then.
#[utoipa::path(
    put, path = "/api/v1/groups/{group}", operation_id = "make_group", tag = "rights", params(NamedGroup, IfMatch),
    responses((status = 200, description = "Done, with the group's ETag", body = Changed), Refusals)
)]
pub(super) async fn make_group(
    state: Shared,
    visitor: Visitor,
    conditions: Conditions,
    Path(NamedGroup { group }): Path<NamedGroup>,
) -> Result<Response, Problem> {
    set_group(&state, &visitor, &conditions, &group, true).await
}

/// Remove a group, with all its bindings
///
/// For administrators. With `If-Match`, only the group that was read.
#[utoipa::path(
    delete, path = "/api/v1/groups/{group}", operation_id = "remove_group", tag = "rights", params(NamedGroup, IfMatch),
    responses((status = 200, description = "Done", body = Changed), Refusals)
)]
pub(super) async fn remove_group(
    state: Shared,
    visitor: Visitor,
    conditions: Conditions,
    Path(NamedGroup { group }): Path<NamedGroup>,
) -> Result<Response, Problem> {
    set_group(&state, &visitor, &conditions, &group, false).await
}

async fn set_group(
    state: &Shared,
    visitor: &Visitor,
    conditions: &Conditions,
    group: &str,
    there: bool,
) -> Result<Response, Problem> {
    let registry = &state.registry;
    visitor.may(&registry.access, Permission::Admin)?;
    let now = registry.clock.now_ms();
    let (access, meant) = (&registry.access, conditions.meant());
    let set = access.set_group_if(visitor.changer(), group, there, &meant, now);
    Ok(done(set.await.map_err(refused)?))
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
/// For administrators. With `If-Match`, only if the group is still the one that was read.
#[utoipa::path(
    put, path = "/api/v1/groups/{group}/members/{member}", operation_id = "add_member", tag = "rights", params(Member, IfMatch),
    responses((status = 200, description = "Done, with the group's ETag", body = Changed), Refusals)
)]
pub(super) async fn add_member(
    state: Shared,
    visitor: Visitor,
    conditions: Conditions,
    Path(member): Path<Member>,
) -> Result<Response, Problem> {
    set_member(&state, &visitor, &conditions, &member, true).await
}

/// Take somebody out of a group
///
/// For administrators. With `If-Match`, only if the group is still the one that was read.
#[utoipa::path(
    delete, path = "/api/v1/groups/{group}/members/{member}", operation_id = "remove_member", tag = "rights",
    params(Member, IfMatch), responses((status = 200, description = "Done, with the group's ETag", body = Changed), Refusals)
)]
pub(super) async fn remove_member(
    state: Shared,
    visitor: Visitor,
    conditions: Conditions,
    Path(member): Path<Member>,
) -> Result<Response, Problem> {
    set_member(&state, &visitor, &conditions, &member, false).await
}

async fn set_member(
    state: &Shared,
    visitor: &Visitor,
    conditions: &Conditions,
    Member { group, member }: &Member,
    within: bool,
) -> Result<Response, Problem> {
    let registry = &state.registry;
    visitor.may(&registry.access, Permission::Admin)?;
    let subject: Subject = member.parse().map_err(|error| wrong("member")(&error))?;
    let now = registry.clock.now_ms();
    let (access, meant) = (&registry.access, conditions.meant());
    let set = access.set_member_if(visitor.changer(), group, &subject, within, &meant, now);
    Ok(done(set.await.map_err(refused)?))
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
/// Whoever's account is in that group of the provider, as told last, is in the group here. For administrators. With `If-Match`, only
/// if the group is still the one that was read.
#[utoipa::path(
    post, path = "/api/v1/groups/{group}/sources", operation_id = "add_source", tag = "rights",
    params(NamedGroup, IfMatch),
    request_body = Source, responses((status = 200, description = "Done", body = Changed), Refusals)
)]
pub(super) async fn add_source(
    state: Shared,
    visitor: Visitor,
    conditions: Conditions,
    Path(NamedGroup { group }): Path<NamedGroup>,
    Body(Source { source }): Body<Source>,
) -> Result<Response, Problem> {
    set_source(&state, &visitor, &conditions, &group, &source, true).await
}

/// Let a provider's group lead to a group no longer
///
/// For administrators. With `If-Match`, only if the group is still the one that was read.
#[utoipa::path(
    delete, path = "/api/v1/groups/{group}/sources", operation_id = "remove_source", tag = "rights",
    params(NamedGroup, Source, IfMatch), responses((status = 200, description = "Done", body = Changed), Refusals)
)]
pub(super) async fn remove_source(
    state: Shared,
    visitor: Visitor,
    conditions: Conditions,
    Path(NamedGroup { group }): Path<NamedGroup>,
    Query(Source { source }): Query<Source>,
) -> Result<Response, Problem> {
    set_source(&state, &visitor, &conditions, &group, &source, false).await
}

async fn set_source(
    state: &Shared,
    visitor: &Visitor,
    conditions: &Conditions,
    group: &str,
    source: &str,
    there: bool,
) -> Result<Response, Problem> {
    let registry = &state.registry;
    visitor.may(&registry.access, Permission::Admin)?;
    let now = registry.clock.now_ms();
    let (access, meant) = (&registry.access, conditions.meant());
    let set = access.set_source_if(visitor.changer(), group, source, there, &meant, now);
    Ok(done(set.await.map_err(refused)?))
}
