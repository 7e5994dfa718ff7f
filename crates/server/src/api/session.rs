//! Sessions of people in browsers, which are begun on the pages alone, and none is good here; and terminals that people confirmed there.

use axum::Json;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use wharf_core::session;

use super::Shared;
use super::arguments::{Path, Query};
use super::page::{Page, Wanted};
use super::problem::{Kind, Problem, Refusals};
use super::time::Time;
use super::user::NamedUser;
use super::visitor::Visitor;

/// A session in a browser, or a terminal
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Session {
    /// Its id, by which it can be ended
    #[schema(example = "d8127db3907edce9")]
    id: String,
    /// `browser`, or `terminal`
    #[schema(example = "terminal")]
    kind: &'static str,
    /// The provider that was signed in with; absent: a password
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(example = "corp")]
    provider: String,
    /// When it was begun
    created_at: Time,
    /// When it was used last, to the minute
    seen_at: Time,
    /// From where it was used last
    address: String,
    /// What the browser says it is; absent: a terminal, or it says nothing
    #[serde(skip_serializing_if = "String::is_empty")]
    agent: String,
    /// What the terminal's machine is called; absent: a browser, or it has no name
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(example = "laptop")]
    device: String,
    /// When it ends at the latest
    expires_at: Time,
}

impl From<session::Shown> for Session {
    fn from(shown: session::Shown) -> Self {
        Self {
            kind: shown.kind.as_str(),
            device: shown.device,
            id: shown.id,
            provider: shown.provider,
            created_at: Time(shown.created_at),
            seen_at: Time(shown.seen_at),
            address: shown.address,
            agent: shown.agent,
            expires_at: Time(shown.expires_at),
        }
    }
}

/// List a user's sessions in browsers, and terminals
///
/// One's own, or as an administrator anybody's.
#[utoipa::path(
    get, path = "/api/v1/users/{user}/sessions", operation_id = "list_sessions", tag = "identities", params(NamedUser, Wanted),
    responses((status = 200, description = "A page", body = Page<Session>), Refusals)
)]
pub(super) async fn list(
    state: Shared,
    visitor: Visitor,
    Path(NamedUser { user }): Path<NamedUser>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<Session>>, Problem> {
    let registry = &state.registry;
    visitor.is_or_administers(registry, &user)?;
    let sessions = session::list(registry, &user).await?;
    let sessions = sessions.into_iter().map(Session::from);
    Ok(Json(wanted.of(
        "sessions",
        sessions.collect(),
        |one: &Session| one.id.clone(),
    )?))
}

/// How many sessions ended
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ended {
    /// So many
    ended: usize,
}

/// End all sessions and terminals of a user
///
/// One's own, or as an administrator anybody's. API tokens go on.
#[utoipa::path(
    delete, path = "/api/v1/users/{user}/sessions", operation_id = "end_sessions", tag = "identities", params(NamedUser),
    responses((status = 200, description = "They are over", body = Ended), Refusals)
)]
pub(super) async fn end_all(
    state: Shared,
    visitor: Visitor,
    Path(NamedUser { user }): Path<NamedUser>,
) -> Result<Json<Ended>, Problem> {
    let registry = &state.registry;
    visitor.is_or_administers(registry, &user)?;
    let ended = session::end_all(registry, &user).await?;
    tracing::info!(user, ended, actor = visitor.actor(), "sessions were ended");
    Ok(Json(Ended { ended }))
}

/// Which session
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct Which {
    /// Whose
    #[param(example = "alice")]
    user: String,
    /// Its id, as lists show it
    #[param(example = "d8127db3907edce9")]
    id: String,
}

/// End a session or a terminal
///
/// One's own, or as an administrator anybody's. A session is over with its next request, a terminal everywhere within five seconds.
#[utoipa::path(
    delete, path = "/api/v1/users/{user}/sessions/{id}", operation_id = "end_session", tag = "identities", params(Which),
    responses((status = 204, description = "It is over"), Refusals)
)]
pub(super) async fn end(
    state: Shared,
    visitor: Visitor,
    Path(Which { user, id }): Path<Which>,
) -> Result<StatusCode, Problem> {
    let registry = &state.registry;
    visitor.is_or_administers(registry, &user)?;
    if !session::end(registry, &user, &id).await? {
        return Err(Problem::new(
            Kind::NotFound,
            format!("{user} has no session {id:?}; it may be over already"),
        )
        .with_cure("the list of a user's sessions has the ids"));
    }
    tracing::info!(user, id, actor = visitor.actor(), "a session was ended");
    Ok(StatusCode::NO_CONTENT)
}
