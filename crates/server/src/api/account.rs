//! Accounts of people elsewhere, and the users that they are here.

use axum::Json;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use wharf_core::access::Permission;
use wharf_core::identity::{self, AccountRow};

use super::Shared;
use super::access::Changed;
use super::arguments::{Body, Path, Query};
use super::identity::refused;
use super::page::{Page, Wanted};
use super::problem::{Problem, Refusals};
use super::time::Time;
use super::user::NamedUser;
use super::visitor::Visitor;

/// An account elsewhere
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Account {
    /// The provider, as the configuration calls it
    #[schema(example = "corp")]
    provider: String,
    /// What the provider calls the account for good
    #[schema(example = "248289761001")]
    subject: String,
    /// Who vouches for it
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(example = "https://login.example.com")]
    issuer: String,
    /// The provider's groups that it is in, as told last
    groups: Vec<String>,
    /// When it came here
    created_at: Time,
    /// Who linked it; absent: whoever signed in with it first
    #[serde(skip_serializing_if = "String::is_empty")]
    created_by: String,
    /// When somebody came with it last, to the hour; absent: never
    #[serde(skip_serializing_if = "Option::is_none")]
    seen_at: Option<Time>,
}

impl From<AccountRow> for Account {
    fn from(row: AccountRow) -> Self {
        Self {
            provider: row.provider,
            subject: row.subject,
            issuer: row.issuer,
            groups: row.groups,
            created_at: Time(row.created_at),
            created_by: row.created_by,
            seen_at: (row.seen_at != 0).then_some(Time(row.seen_at)),
        }
    }
}

/// List a user's accounts elsewhere
///
/// Oneself, or as an administrator anybody.
#[utoipa::path(
    get, path = "/api/v1/users/{user}/accounts", operation_id = "list_accounts", tag = "identities", params(NamedUser, Wanted),
    responses((status = 200, description = "A page", body = Page<Account>), Refusals)
)]
pub(super) async fn list(
    state: Shared,
    visitor: Visitor,
    Path(NamedUser { user }): Path<NamedUser>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<Account>>, Problem> {
    let registry = &state.registry;
    visitor.is_or_administers(registry, &user)?;
    let accounts = identity::accounts_of(registry, &user).await;
    let accounts = accounts.map_err(refused)?.into_iter().map(Account::from);
    let key = |one: &Account| format!("{} {}", one.provider, one.subject);
    Ok(Json(wanted.of("accounts", accounts.collect(), key)?))
}

/// Which account
#[derive(Debug, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WhichAccount {
    /// The provider, as the configuration calls it
    #[schema(example = "corp")]
    #[param(example = "corp")]
    provider: String,
    /// What the provider calls the account for good
    #[schema(example = "248289761001")]
    #[param(example = "248289761001")]
    subject: String,
}

/// Say which user an account is
///
/// Whoever signs in with it is that user from then on; one that is not there is made, without a password. For administrators, of
/// users who hold no more than they do.
#[utoipa::path(
    post, path = "/api/v1/users/{user}/accounts", operation_id = "link_account", tag = "identities", params(NamedUser),
    request_body = WhichAccount, responses((status = 200, description = "Done", body = Changed), Refusals)
)]
pub(super) async fn link(
    state: Shared,
    visitor: Visitor,
    Path(NamedUser { user }): Path<NamedUser>,
    Body(WhichAccount { provider, subject }): Body<WhichAccount>,
) -> Result<Json<Changed>, Problem> {
    let registry = &state.registry;
    visitor.may(&registry.access, Permission::Admin)?;
    let changer = visitor.changer();
    let linked = identity::link_account(registry, changer, &user, &provider, &subject).await;
    let linked = linked.map_err(refused)?;
    tracing::info!(
        user,
        provider,
        actor = visitor.actor(),
        "an account was linked"
    );
    Ok(Json(linked.into()))
}

/// Take an account from its user
///
/// Whoever has it is a stranger from then on. For administrators.
#[utoipa::path(
    delete, path = "/api/v1/users/{user}/accounts", operation_id = "unlink_account", tag = "identities",
    params(NamedUser, WhichAccount), responses((status = 204, description = "Done"), Refusals)
)]
pub(super) async fn unlink(
    state: Shared,
    visitor: Visitor,
    Path(NamedUser { user }): Path<NamedUser>,
    Query(WhichAccount { provider, subject }): Query<WhichAccount>,
) -> Result<StatusCode, Problem> {
    let registry = &state.registry;
    visitor.may(&registry.access, Permission::Admin)?;
    let changer = visitor.changer();
    let done = identity::unlink_account(registry, changer, &user, &provider, &subject).await;
    done.map_err(refused)?;
    tracing::info!(
        user,
        provider,
        actor = visitor.actor(),
        "an account was taken from its user"
    );
    Ok(StatusCode::NO_CONTENT)
}
