//! Invitations: links with which people choose a password and so become local users.

use axum::Json;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use wharf_core::access::{Password, Permission};
use wharf_core::identity::{self, Invited, NewInvitation};

use super::Shared;
use super::arguments::{Body, Path, Query};
use super::identity::{NewSecret, created, refused, span};
use super::page::{Page, Wanted};
use super::problem::{Problem, Refusals};
use super::time::Time;
use super::visitor::Visitor;

/// An invitation that was not used yet
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Invitation {
    /// Its id
    #[schema(example = "d8127db3907edce9")]
    id: String,
    /// What the user will be called
    #[schema(example = "alice")]
    name: String,
    /// When it ends
    expires_at: Time,
    /// When it was made
    created_at: Time,
    /// Who invited
    created_by: String,
}

impl From<Invited> for Invitation {
    fn from(invited: Invited) -> Self {
        Self {
            id: invited.id,
            name: invited.name,
            expires_at: Time(invited.expires_at),
            created_at: Time(invited.created_at),
            created_by: invited.created_by,
        }
    }
}

/// List invitations
///
/// Those that were not used yet. For administrators.
#[utoipa::path(
    get, path = "/api/v1/invitations", operation_id = "list_invitations", tag = "identities", params(Wanted),
    responses((status = 200, description = "A page", body = Page<Invitation>), Refusals)
)]
pub(super) async fn list(
    state: Shared,
    visitor: Visitor,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<Invitation>>, Problem> {
    let registry = &state.registry;
    visitor.may(&registry.access, Permission::Admin)?;
    let (limit, after) = (
        wanted.limit()?,
        wanted.after("invitations")?.unwrap_or_default(),
    );
    let all = identity::list_invitations(registry, &after, limit + 1).await;
    let all = all.map_err(refused)?.into_iter().map(Invitation::from);
    Ok(Json(Page::cut(
        "invitations",
        all.collect(),
        limit,
        |one: &Invitation| one.name.clone(),
    )))
}

/// A role that an invited user has from the start
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct InvitedBinding {
    /// The role
    #[schema(example = "writer")]
    role: String,
    /// The namespace or repository; empty: everywhere
    #[schema(example = "team/a")]
    on: String,
}

/// An invitation to be made
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Invite {
    /// What the user will be called
    #[schema(example = "alice")]
    name: String,
    /// How long it is good, in seconds; 7 days if not given, 30 at most
    #[schema(example = 604_800, minimum = 1)]
    lifetime: Option<i64>,
    /// Groups in which the user shall be
    #[serde(default)]
    groups: Vec<String>,
    /// What the user shall hold
    #[serde(default)]
    bindings: Vec<InvitedBinding>,
}

/// Invite somebody to become a local user
///
/// For administrators, who can give what they have. The secret is good once: it goes into the form at `/invitation`, or behind a
/// `#` to that address. What the user shall hold is granted at once, and taken back with an invitation that is not used.
#[utoipa::path(
    post, path = "/api/v1/invitations", operation_id = "invite", tag = "identities", request_body = Invite,
    responses((status = 201, description = "Made", body = NewSecret), Refusals)
)]
pub(super) async fn invite(
    state: Shared,
    visitor: Visitor,
    Body(body): Body<Invite>,
) -> Result<Response, Problem> {
    let registry = &state.registry;
    visitor.may(&registry.access, Permission::Admin)?;
    let bindings = body.bindings.into_iter();
    let new = NewInvitation {
        name: body.name,
        lifetime: span("lifetime", body.lifetime)?,
        groups: body.groups,
        bindings: bindings.map(|one| (one.role, one.on)).collect(),
    };
    let made = identity::invite(registry, visitor.changer(), &new).await;
    let made = made.map_err(refused)?;
    tracing::info!(
        user = new.name,
        id = made.id,
        actor = visitor.actor(),
        "somebody was invited"
    );
    Ok(created(NewSecret::from(made)))
}

/// Which invitation
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct Which {
    /// Its id, as the list has it
    #[param(example = "d8127db3907edce9")]
    id: String,
}

/// Take an invitation back
///
/// With what was granted to its name, if nobody has that by now. For administrators.
#[utoipa::path(
    delete, path = "/api/v1/invitations/{id}", operation_id = "withdraw_invitation", tag = "identities", params(Which),
    responses((status = 204, description = "Done"), Refusals)
)]
pub(super) async fn withdraw(
    state: Shared,
    visitor: Visitor,
    Path(which): Path<Which>,
) -> Result<StatusCode, Problem> {
    let registry = &state.registry;
    visitor.may(&registry.access, Permission::Admin)?;
    let name = identity::withdraw_invitation(registry, visitor.changer(), &which.id).await;
    let user = name.map_err(refused)?;
    tracing::info!(
        user,
        actor = visitor.actor(),
        "an invitation was taken back"
    );
    Ok(StatusCode::NO_CONTENT)
}

/// What an invited person chooses
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Accept {
    /// What the invitation says
    secret: String,
    /// The password to be
    password: String,
}

/// Who has become a user
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Accepted {
    /// Under which name to sign in
    #[schema(example = "alice")]
    name: String,
}

/// Accept an invitation
///
/// Whoever has it needs no other credentials. It is good once; a password that will not do leaves it as it is. Each try counts as
/// a sign-in from its address.
#[utoipa::path(
    post, path = "/api/v1/invitations/accept", operation_id = "accept_invitation", tag = "identities", security(()),
    request_body = Accept, responses((status = 201, description = "There is a user now", body = Accepted), Refusals)
)]
pub(super) async fn accept(
    state: Shared,
    visitor: Visitor,
    Body(Accept { secret, password }): Body<Accept>,
) -> Result<Response, Problem> {
    let registry = &state.registry;
    let (secret, password) = (Password::new(secret), Password::new(password));
    let name = identity::accept_invitation(registry, visitor.came(), &secret, password).await;
    let name = name.map_err(refused)?;
    tracing::info!(user = name, "an invitation was accepted");
    Ok(created(Accepted { name }))
}
