//! Local users, and everybody's API tokens.

use std::collections::BTreeMap;

use axum::Json;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use wharf_core::access::{Password, Permission};
use wharf_core::identity::{self, NewToken, PrincipalRow};

use super::Shared;
use super::arguments::{Body, Path, Query};
use super::condition::{Conditions, IfMatch, versioned};
use super::identity::{Credential, NewSecret, created, refused, span};
use super::page::{Page, Wanted};
use super::problem::{Problem, Refusals};
use super::time::Time;
use super::visitor::Visitor;

/// A local user
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct User {
    /// The name
    #[schema(example = "alice")]
    name: String,
    /// When the user was made
    created_at: Time,
    /// When the password was set; absent: there is none
    #[serde(skip_serializing_if = "Option::is_none")]
    password_set_at: Option<Time>,
    /// Since when the user is locked out; absent: not at all
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_at: Option<Time>,
    /// Providers of the accounts with which the user signs in from outside
    #[schema(example = json!(["corp"]))]
    providers: Vec<String>,
}

impl User {
    fn new(row: &PrincipalRow, providers: Vec<String>) -> Self {
        Self {
            providers,
            name: row.name.clone(),
            created_at: Time(row.created_at),
            // Of who is locked out, it is kept elsewhere.
            password_set_at: (row.secret_hash.is_some() || row.disabled_at.is_some())
                .then_some(Time(row.changed_at)),
            disabled_at: row.disabled_at.map(Time),
        }
    }
}

/// List local users
///
/// For administrators. Users of the htpasswd file are kept there.
#[utoipa::path(
    get, path = "/api/v1/users", operation_id = "list_users", tag = "identities", params(Wanted),
    responses((status = 200, description = "A page", body = Page<User>), Refusals)
)]
pub(super) async fn list(
    state: Shared,
    visitor: Visitor,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<User>>, Problem> {
    let registry = &state.registry;
    visitor.may(&registry.access, Permission::Admin)?;
    let (limit, after) = (wanted.limit()?, wanted.after("users")?.unwrap_or_default());
    let rows = identity::list_users(registry, &after, limit + 1).await;
    let rows = rows.map_err(refused)?;
    let mut providers = match (rows.first(), rows.last()) {
        (Some(first), Some(last)) => {
            let found = identity::providers_of(registry, &first.name, &last.name, limit + 1);
            found.await.map_err(refused)?
        }
        _ => BTreeMap::new(),
    };
    let user = |row: &PrincipalRow| User::new(row, providers.remove(&row.name).unwrap_or_default());
    let users = rows.iter().map(user).collect();
    Ok(Json(Page::cut("users", users, limit, |one: &User| {
        one.name.clone()
    })))
}

/// A user to be made
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewUser {
    /// The name
    #[schema(example = "alice")]
    name: String,
    /// The password; without one, a random one is made
    password: Option<String>,
}

/// The password that was made, which nobody is told again
#[derive(Serialize, ToSchema)]
pub(super) struct PasswordSet {
    /// Whose
    #[schema(example = "alice")]
    name: String,
    /// It; absent when it was chosen
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
}

impl PasswordSet {
    fn new(name: &str, chosen: bool, password: &Password) -> Self {
        Self {
            name: name.to_owned(),
            password: (!chosen).then(|| password.reveal().to_owned()),
        }
    }
}

/// Make a local user
///
/// For administrators. The user may do nothing until granted something; where grants are older than the user, only somebody who
/// could make them makes the user.
#[utoipa::path(
    post, path = "/api/v1/users", operation_id = "make_user", tag = "identities", request_body = NewUser,
    responses((status = 201, description = "Made", body = PasswordSet), Refusals)
)]
pub(super) async fn create(
    state: Shared,
    visitor: Visitor,
    Body(NewUser { name, password }): Body<NewUser>,
) -> Result<Response, Problem> {
    let registry = &state.registry;
    visitor.may(&registry.access, Permission::Admin)?;
    let chosen = password.is_some();
    let password = password.map(Password::new);
    let made = identity::create_user(registry, visitor.changer(), &name, password).await;
    let password = made.map_err(refused)?;
    tracing::info!(user = name, actor = visitor.actor(), "a user was made");
    Ok(created(PasswordSet::new(&name, chosen, &password)))
}

/// Which user
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct NamedUser {
    /// The name
    #[param(example = "alice")]
    pub(super) user: String,
}

/// Show a local user
///
/// Oneself, or as an administrator anybody.
#[utoipa::path(
    get, path = "/api/v1/users/{user}", operation_id = "show_user", tag = "identities", params(NamedUser),
    responses((status = 200, description = "The user, with an ETag", body = User), Refusals)
)]
pub(super) async fn get(
    state: Shared,
    visitor: Visitor,
    conditions: Conditions,
    Path(NamedUser { user }): Path<NamedUser>,
) -> Result<Response, Problem> {
    let registry = &state.registry;
    visitor.is_or_administers(registry, &user)?;
    let row = identity::get_user(registry, &user).await.map_err(refused)?;
    let providers = identity::providers_of(registry, &user, &user, 1).await;
    let providers = providers
        .map_err(refused)?
        .remove(&user)
        .unwrap_or_default();
    Ok(versioned(
        row.version(),
        &conditions,
        User::new(&row, providers),
    ))
}

/// What of a user shall be otherwise
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeUser {
    /// Whether the user is locked out, with all tokens
    disabled: bool,
}

/// Lock a user out, or let one in again
///
/// For administrators. The last administrator and the last owner of a namespace stay. With `If-Match`, only the version that was
/// read.
#[utoipa::path(
    patch, path = "/api/v1/users/{user}", operation_id = "change_user", tag = "identities", params(NamedUser, IfMatch),
    request_body = ChangeUser, responses((status = 204, description = "Done"), Refusals)
)]
pub(super) async fn change(
    state: Shared,
    visitor: Visitor,
    conditions: Conditions,
    Path(NamedUser { user }): Path<NamedUser>,
    Body(ChangeUser { disabled }): Body<ChangeUser>,
) -> Result<StatusCode, Problem> {
    let registry = &state.registry;
    visitor.may(&registry.access, Permission::Admin)?;
    let version = conditions.meant();
    let changer = visitor.changer();
    let done = identity::disable_user(registry, changer, &user, disabled, version).await;
    done.map_err(refused)?;
    tracing::info!(
        user,
        disabled,
        actor = visitor.actor(),
        "a user was locked out, or let in again"
    );
    Ok(StatusCode::NO_CONTENT)
}

/// Remove a local user with all API tokens and grants
///
/// For administrators. With `If-Match`, only the version that was read.
#[utoipa::path(
    delete, path = "/api/v1/users/{user}", operation_id = "remove_user", tag = "identities", params(NamedUser, IfMatch),
    responses((status = 204, description = "Done"), Refusals)
)]
pub(super) async fn remove(
    state: Shared,
    visitor: Visitor,
    conditions: Conditions,
    Path(NamedUser { user }): Path<NamedUser>,
) -> Result<StatusCode, Problem> {
    let registry = &state.registry;
    visitor.may(&registry.access, Permission::Admin)?;
    let version = conditions.meant();
    let done = identity::remove_user(registry, visitor.changer(), &user, version).await;
    done.map_err(refused)?;
    tracing::info!(user, actor = visitor.actor(), "a user was removed");
    Ok(StatusCode::NO_CONTENT)
}

/// A password to be set
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetPassword {
    /// The password; without one, a random one is made
    password: Option<String>,
}

/// Set a user's password
///
/// One's own, signed in with the old password itself and not with a token; or as an administrator anybody's who holds no more. Whoever
/// signed in with the old one is signed out; API tokens stay.
#[utoipa::path(
    put, path = "/api/v1/users/{user}/password", operation_id = "set_password", tag = "identities", params(NamedUser),
    request_body = SetPassword, responses((status = 200, description = "Done", body = PasswordSet), Refusals)
)]
pub(super) async fn set_password(
    state: Shared,
    visitor: Visitor,
    Path(NamedUser { user }): Path<NamedUser>,
    Body(SetPassword { password }): Body<SetPassword>,
) -> Result<Json<PasswordSet>, Problem> {
    let registry = &state.registry;
    if !visitor.is(Some(&user)) {
        visitor.may(&registry.access, Permission::Admin)?;
    }
    let chosen = password.is_some();
    let password = password.map(Password::new);
    let set = identity::set_password(registry, visitor.changer(), &user, password).await;
    let password = set.map_err(refused)?;
    tracing::info!(user, actor = visitor.actor(), "a user has a new password");
    Ok(Json(PasswordSet::new(&user, chosen, &password)))
}

/// List a user's API tokens
///
/// One's own, or as an administrator anybody's. A token that leaves less than its user may see none of them.
#[utoipa::path(
    get, path = "/api/v1/users/{user}/tokens", operation_id = "list_tokens", tag = "identities", params(NamedUser, Wanted),
    responses((status = 200, description = "A page", body = Page<Credential>), Refusals)
)]
pub(super) async fn tokens(
    state: Shared,
    visitor: Visitor,
    Path(NamedUser { user }): Path<NamedUser>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<Credential>>, Problem> {
    let registry = &state.registry;
    visitor.is_or_administers(registry, &user)?;
    let tokens = identity::list_tokens(registry, &user).await;
    // A moment and an id make a key that sorts as the list does.
    let tokens = tokens.map_err(refused)?.into_iter();
    let keyed = tokens.map(|one| (format!("{:020}.{}", one.created_at, one.id), one));
    let page = wanted.of("tokens", keyed.collect(), |(key, _)| key.clone())?;
    Ok(Json(page.map(|(_, one)| Credential::from(one))))
}

/// An API token to be made
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewApiToken {
    /// What to call it; unique among the user's
    #[schema(example = "laptop")]
    name: String,
    /// What it leaves of the user's rights: roles or permissions, and where; without any, all of them
    #[serde(default)]
    #[schema(example = json!(["reader:team/a"]))]
    scopes: Vec<String>,
    /// How long it lives, in seconds; 90 days if not given
    #[schema(example = 2_592_000, minimum = 1)]
    lifetime: Option<i64>,
}

/// Make an API token
///
/// For oneself, signed in with the password itself: no token makes another one.
#[utoipa::path(
    post, path = "/api/v1/users/{user}/tokens", operation_id = "make_token", tag = "identities", params(NamedUser),
    request_body = NewApiToken, responses((status = 201, description = "Made", body = NewSecret), Refusals)
)]
pub(super) async fn make_token(
    state: Shared,
    visitor: Visitor,
    Path(NamedUser { user }): Path<NamedUser>,
    Body(body): Body<NewApiToken>,
) -> Result<Response, Problem> {
    let registry = &state.registry;
    visitor.is_somebody(&registry.access)?;
    let new = NewToken {
        user,
        name: body.name,
        scopes: body.scopes,
        lifetime: span("lifetime", body.lifetime)?,
    };
    let made = identity::create_token(registry, visitor.changer(), &new).await;
    let made = made.map_err(refused)?;
    tracing::info!(
        user = new.user,
        id = made.id,
        actor = visitor.actor(),
        "an API token was made"
    );
    Ok(created(NewSecret::from(made)))
}
