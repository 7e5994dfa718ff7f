//! Who the caller is, as far as this registry knows.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;
use wharf_core::access::{Permission, Principal};

use super::Shared;
use super::problem::{Problem, Refusals};
use super::visitor::Visitor;

/// Who the caller is
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Me {
    /// The name that histories and events record
    #[schema(example = "alice")]
    name: String,
    /// `user` or `robot`; `operator` on the admin socket
    #[schema(example = "user")]
    kind: &'static str,
    /// Where the user is kept: `local` or `htpasswd`
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'static str>,
    /// The prefixes of repositories' names below which the caller may pull; absent: everywhere
    #[serde(skip_serializing_if = "Option::is_none")]
    may_pull_in: Option<Vec<String>>,
}

/// Show who you are
///
/// Proves that credentials are good, and says who they stand for.
#[utoipa::path(
    get, path = "/api/v1/me", operation_id = "show_me", tag = "me",
    responses((status = 200, description = "You", body = Me), Refusals)
)]
pub(super) async fn get(state: Shared, visitor: Visitor) -> Result<Json<Me>, Problem> {
    let access = &state.registry.access;
    visitor.is_somebody(access)?;
    let (kind, source) = match &visitor {
        Visitor::Root => ("operator", None),
        Visitor::Caller(caller) => match &caller.principal {
            // [`Visitor::is_somebody`] has refused it.
            Principal::Anonymous => ("nobody", None),
            Principal::User { source, .. } => ("user", Some(source.as_str())),
            Principal::Robot { .. } => ("robot", None),
            Principal::Workload { .. } => ("workload", None),
        },
    };
    Ok(Json(Me {
        name: visitor.actor().to_owned(),
        kind,
        source,
        may_pull_in: visitor.prefixes(access, Permission::Pull),
    }))
}
