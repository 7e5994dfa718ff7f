//! What resources about users, robots and API tokens share: secrets as they are shown, versions, and how refusals are told.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use wharf_core::Registry;
use wharf_core::access::{Caller, Permission};
use wharf_core::identity::{self, IdentityError, Made, Owner};

use super::Shared;
use super::access::refused as rights_refused;
use super::condition;
use super::problem::{Kind, Problem};
use super::time::Time;
use super::visitor::Visitor;

/// Milliseconds in a second.
const SECOND: i64 = 1_000;

/// An API token or a robot's secret, without the secret
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Credential {
    /// Its id, by which it can be revoked
    #[schema(example = "d8127db3907edce9")]
    id: String,
    /// What its owner calls it
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    /// What it leaves of its user's rights; absent: all of them
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["pull,catalog:team/a"]))]
    scopes: Option<Vec<String>>,
    /// When it ends
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Time>,
    /// When it was made
    created_at: Time,
    /// Who made it
    created_by: String,
    /// When it was used last, to the minute
    #[serde(skip_serializing_if = "Option::is_none")]
    used_at: Option<Time>,
    /// From where it was used last
    #[serde(skip_serializing_if = "Option::is_none")]
    used_from: Option<String>,
}

impl From<identity::Shown> for Credential {
    fn from(shown: identity::Shown) -> Self {
        let scopes = shown.scopes.map(|text| {
            let parts = text.split(' ').map(str::to_owned);
            parts.collect()
        });
        let (used_at, used_from) = shown.used.unzip();
        Self {
            id: shown.id,
            name: shown.name,
            scopes,
            expires_at: shown.expires_at.map(Time),
            created_at: Time(shown.created_at),
            created_by: shown.created_by,
            used_at: used_at.map(Time),
            used_from: used_from.filter(|from| !from.is_empty()),
        }
    }
}

/// A secret that was just made; nobody is told it again
#[derive(Serialize, ToSchema)]
pub(super) struct NewSecret {
    /// Under which name to sign in with it
    #[schema(example = "team/a+ci")]
    principal: String,
    /// Its id
    id: String,
    /// The secret
    secret: String,
    /// When it ends
    expires_at: Time,
}

impl From<Made> for NewSecret {
    fn from(made: Made) -> Self {
        Self {
            principal: made.principal,
            id: made.id,
            secret: made.secret.reveal().to_owned(),
            expires_at: Time(made.expires_at),
        }
    }
}

/// 201 with what was made.
pub(super) fn created(what: impl Serialize) -> Response {
    (StatusCode::CREATED, Json(what)).into_response()
}

/// Seconds as the rest of the registry counts time.
pub(super) fn span(field: &'static str, seconds: Option<i64>) -> Result<Option<i64>, Problem> {
    let span = |seconds: i64| {
        // An overlap may be none; nothing lives no time.
        let least = i64::from(field == "lifetime");
        let ms = seconds.checked_mul(SECOND).filter(|_| seconds >= least);
        ms.ok_or_else(|| {
            Problem::invalid(field, format!("write a number of seconds, {least} or more"))
        })
    };
    seconds.map(span).transpose()
}

/// Why it was not done.
pub(super) fn refused(error: IdentityError) -> Problem {
    let kind = match error {
        IdentityError::Store(error) => return error.into(),
        IdentityError::Rights(error) => return rights_refused(error),
        IdentityError::Limited(limited) => return limited.into(),
        IdentityError::Differs => return condition::changed(),
        IdentityError::Unknown(_) => Kind::NotFound,
        IdentityError::Taken(_) => Kind::Conflict,
        IdentityError::ByPassword(_) => Kind::Forbidden,
        IdentityError::Password(_) => return Problem::invalid("password", error.to_string()),
        IdentityError::Scope(_) => return Problem::invalid("scopes", error.to_string()),
        IdentityError::Network(_) => return Problem::invalid("networks", error.to_string()),
        IdentityError::Wrong(_) => Kind::Invalid,
    };
    Problem::new(kind, error.to_string())
}

impl Visitor {
    /// Whether this is the user of that name, by all that the user may: not by a token that leaves less, nor by one that was
    /// asked for something else.
    pub(super) fn is_wholly(&self, user: &str) -> bool {
        let whole = |caller: &Caller| caller.narrow.is_none() && caller.scopes.is_none();
        matches!(self, Self::Caller(caller) if whole(caller)) && self.is(Some(user))
    }

    /// They may run the registry, or are this user.
    pub(super) fn is_or_administers(&self, registry: &Registry, user: &str) -> Result<(), Problem> {
        match self.is_wholly(user) {
            true => Ok(()),
            false => self.may(&registry.access, Permission::Admin),
        }
    }
}

/// The answer for a credential that is not there, or is not theirs.
fn unseen() -> Problem {
    Problem::new(
        Kind::NotFound,
        "there is no API token and no secret of a robot with this id, or it is not yours",
    )
    .with_cure("the lists of a user's tokens and of a namespace's robots have the ids")
}

/// Which credential
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct Which {
    /// Its id, as lists show it
    #[param(example = "d8127db3907edce9")]
    id: String,
}

/// Whose credential has ended
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Revoked {
    /// Whose it was
    #[schema(example = "alice")]
    principal: String,
}

/// Revoke an API token, or one secret of a robot
///
/// One's own, as an administrator anybody's, and a robot's with the right to manage the robots of its namespace. What was bought
/// with it ends with it.
#[utoipa::path(
    delete, path = "/api/v1/credentials/{id}", operation_id = "revoke_credential", tag = "identities", params(Which),
    responses((status = 200, description = "It has ended", body = Revoked), super::problem::Refusals)
)]
pub(super) async fn revoke(
    state: Shared,
    visitor: Visitor,
    super::arguments::Path(which): super::arguments::Path<Which>,
) -> Result<Json<Revoked>, Problem> {
    let registry = &state.registry;
    visitor.is_somebody(&registry.access)?;
    let owner = identity::owner_of(registry, &which.id).await;
    let may = match owner.map_err(refused)? {
        Some(Owner::User(user)) => visitor.is_or_administers(registry, &user).is_ok(),
        Some(Owner::Robot(robot)) => super::robot::manages(&visitor, registry, &robot).is_ok(),
        None => false,
    };
    if !may {
        return Err(unseen());
    }
    let principal = identity::revoke_token(registry, &which.id).await;
    let principal = principal.map_err(refused)?;
    tracing::info!(
        principal,
        id = which.id,
        actor = visitor.actor(),
        "a credential was revoked"
    );
    Ok(Json(Revoked { principal }))
}
