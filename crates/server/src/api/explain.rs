//! Why somebody may do something, or what is missing and who could give it.

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use wharf_core::access::{
    self as rights, ADMIN, Access, Barred, Caller, Circumstances, Permission, Principal, Role,
    SignIn, Source, Subject, Tags,
};
use wharf_oci::{RepositoryName, Tag};

use super::Shared;
use super::access::wrong;
use super::arguments::Query;
use super::binding::{Shown, way};
use super::problem::{Problem, Refusals};
use super::visitor::Visitor;

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
    /// What that lets one do, in words
    #[schema(example = "push to")]
    doing: String,
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
        let on = question
            .repository
            .as_deref()
            .filter(|name| !name.is_empty());
        let on = on.map(RepositoryName::parse).transpose();
        let on = on.map_err(|error| wrong("repository")(&error))?;
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
    let permission: Permission = permission
        .parse()
        .map_err(|error| wrong("permission")(&error))?;
    let repository = repository
        .map(|name| RepositoryName::parse(&name))
        .transpose()
        .map_err(|error| wrong("repository")(&error))?;
    let tag = tag.map(|tag| Tag::parse(&tag)).transpose();
    let tag = tag.map_err(|error| wrong("tag")(&error))?;
    let address = from.map(|text| {
        text.parse().map_err(|_| {
            let text = format!("{text:?} is no address; write one such as 10.1.2.3 or fd00::1");
            Problem::invalid("from", text)
        })
    });
    let sign_in = sign_in.map(|text| way(&text)).transpose();
    let (caller, mut kind) = caller(&registry.access, &who).await?;
    let usual = caller.circumstances.sign_in;
    let now = registry.clock.now_ms();
    let caller = caller.under(Circumstances {
        address: address.transpose()?,
        at: now,
        sign_in: sign_in?.unwrap_or(usual),
    });
    let tags = tag.as_ref().map(|tag| Tags::Named(tag.as_str()));
    let policy = registry.access.policy();
    let told = policy.explain(&caller, permission, repository.as_ref(), tags);
    let came = caller.circumstances;
    let barred = registry.access.barred(&caller.principal, came).await?;
    if let Some(barred) = barred {
        kind = shut_out(barred, &kind);
    }
    let mut grantors = Vec::new();
    for subject in told.grantors {
        if registry.access.acts(&subject, now).await? {
            grantors.push(subject.to_string());
        }
    }
    let unmet = told.unmet.iter();
    Ok(Json(Explanation {
        who,
        kind,
        permission: permission.to_string(),
        doing: permission.doing().to_owned(),
        repository: repository.map(|name| name.to_string()),
        allowed: told.allowed && barred.is_none(),
        by: told.by.as_ref().map(|by| Shown::new(by, now)),
        unmet: unmet
            .map(|(binding, reason)| Unmet {
                binding: Shown::new(binding, now),
                why: why(*reason),
            })
            .collect(),
        roles: giving(permission),
        grantors,
    }))
}

/// What is known of somebody who is not let in.
fn shut_out(barred: Barred, kind: &str) -> String {
    match barred {
        Barred::Unknown if kind == "robot" => "there is no such robot".to_owned(),
        Barred::Unknown if kind == A_WORKLOAD => "there is no such rule on workloads".to_owned(),
        Barred::Unknown => kind.to_owned(),
        Barred::LockedOut => format!("{kind}, locked out"),
        Barred::Ended => format!("{kind}, has ended"),
        Barred::Network => {
            format!("{kind}, may not sign in from this address (--from names another)")
        }
    }
}

fn why(reason: rights::Unmet) -> String {
    match reason {
        rights::Unmet::Expired => "it has ended",
        rights::Unmet::Network => "not from this address (--from names another)",
        rights::Unmet::Tags => "not for this tag",
        rights::Unmet::SignIn => "not signed in that way",
    }
    .to_owned()
}

/// Built-in roles that hold the permission, the least first.
fn giving(permission: Permission) -> Vec<String> {
    let mut roles: Vec<Role> = Role::ALL
        .into_iter()
        .filter(|role| role.permissions().contains(permission))
        .collect();
    roles.sort_by_key(|role| role.permissions().iter().count());
    roles.iter().map(ToString::to_string).collect()
}

/// What is known of the bearer of a token.
const A_WORKLOAD: &str = "whoever has a token that this rule matches";

/// Somebody as a caller who signs in the usual way, and what is known of them.
pub(super) async fn caller(access: &Access, who: &str) -> Result<(Caller, String), Problem> {
    let (principal, sign_in, kind) = match who.parse().map_err(|error| wrong("who")(&error))? {
        Subject::Anonymous => (Principal::Anonymous, SignIn::Nobody, "without credentials"),
        Subject::Robot(name) => {
            let name = name.into();
            (Principal::Robot { name }, SignIn::RobotSecret, "robot")
        }
        Subject::User(name) => {
            let source = access.source_of(&name).await?;
            let kind = match source {
                Some(Source::Local) if name == ADMIN => "administrator of the first start",
                Some(Source::Local) => "local user",
                Some(Source::Htpasswd) => "user of the htpasswd file",
                None => "nobody of this name can sign in",
            };
            let source = source.unwrap_or(Source::Local);
            let name = name.into();
            (Principal::User { name, source }, SignIn::Password, kind)
        }
        Subject::Workload(rule) => {
            let rules = [rule.as_str().into()].into();
            let name = format!("workload:{rule}").into();
            (
                Principal::Workload { name, rules },
                SignIn::Workload,
                A_WORKLOAD,
            )
        }
        other => {
            let text = format!(
                "{other} is nobody in particular; name a user, a robot, workload:RULE or anonymous"
            );
            return Err(Problem::invalid("who", text));
        }
    };
    let came = Circumstances {
        sign_in,
        ..Circumstances::UNKNOWN
    };
    Ok((Caller::direct(principal).under(came), kind.to_owned()))
}
