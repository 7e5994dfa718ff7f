//! Why somebody may do something, or what is missing and who could give it.

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use wharf_core::access::Permission;

use super::Shared;
use super::access::{place, told};
use super::arguments::Query;
use super::binding::Shown;
use super::problem::{Problem, Refusals};
use super::visitor::Visitor;
use crate::admin::access::{AccessCommand, AccessReply, execute};
use crate::http::ApiError;

/// A question about rights
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Question {
    /// Who asks for it
    #[param(example = "alice")]
    who: String,
    /// What they want to do
    #[param(example = "push")]
    permission: String,
    /// Where; on the registry as a whole if not given
    #[param(example = "team/a/app")]
    repository: Option<String>,
    /// With this tag
    tag: Option<String>,
    /// From this address
    from: Option<String>,
    /// Signed in that way
    sign_in: Option<String>,
}

/// Why somebody may do something, or what is missing
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Explanation {
    /// Who was asked about
    who: String,
    /// What is known of them
    #[schema(example = "local user")]
    kind: String,
    /// For what
    permission: String,
    /// Where; absent: on the registry as a whole
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<String>,
    /// Whether it is allowed
    allowed: bool,
    /// The binding that gives it
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<Shown>,
    /// Bindings that would give it, but for a condition
    unmet: Vec<Unmet>,
    /// Built-in roles that would give it
    roles: Vec<String>,
    /// Who could grant one
    grantors: Vec<String>,
}

/// A binding that does not count
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Unmet {
    /// The binding
    binding: Shown,
    /// Why it does not count
    why: String,
}

/// Explain a decision
///
/// About oneself, or with the right to see settings there.
#[utoipa::path(
    get, path = "/api/v1/explain", operation_id = "explain", tag = "rights", params(Question),
    responses((status = 200, description = "It", body = Explanation), Refusals)
)]
pub(super) async fn explain(
    state: Shared,
    visitor: Visitor,
    Query(question): Query<Question>,
) -> Result<Json<Explanation>, Problem> {
    let registry = &state.registry;
    if !visitor.is(Some(&question.who)) {
        let on = place(question.repository.as_deref().unwrap_or_default())?;
        visitor.may_on(&registry.access, Permission::ReadSettings, on.as_ref())?;
    }
    let Question {
        who,
        permission,
        repository,
        tag,
        from,
        sign_in,
    } = question;
    let command = AccessCommand::Explain {
        who,
        permission,
        repository,
        tag,
        from,
        sign_in,
    };
    let AccessReply::Explained(view) = execute(registry, command).await.map_err(told)? else {
        return Err(ApiError::internal().into());
    };
    let unmet = view.unmet.into_iter();
    Ok(Json(Explanation {
        who: view.who,
        kind: view.kind,
        permission: view.permission,
        repository: view.repository,
        allowed: view.allowed,
        by: view.by.map(Shown::from),
        unmet: unmet
            .map(|(binding, why)| Unmet {
                binding: binding.into(),
                why,
            })
            .collect(),
        roles: view.roles,
        grantors: view.grantors,
    }))
}
