//! Bindings: who has which role where.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use wharf_core::access::{
    self as rights, Binding, Conditions, Granting, Permission, SignIn, Subject,
};

use super::Shared;
use super::access::{Changed, place, refused, wrong};
use super::arguments::{Body, Query};
use super::condition::{self, IfMatch, etag};
use super::page::{Page, Wanted};
use super::problem::{Problem, Refusals};
use super::time::Time;
use super::visitor::Visitor;

/// A binding: who, which role, where, and when it counts
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Binding)]
pub(super) struct Shown {
    /// A user's name, a robot's (`team/a+ci`), `group:NAME`, `anonymous` or `signed-in`
    #[schema(example = "alice")]
    who: String,
    /// The role
    #[schema(example = "writer")]
    role: String,
    /// The namespace or repository; empty: everywhere
    #[schema(example = "team/a")]
    on: String,
    /// When it counts, in words; empty: always
    conditions: String,
    /// Where it comes from, in words; what the configuration says cannot be changed here
    origin: String,
    /// Whether its time is over
    ended: bool,
}

impl Shown {
    /// A binding as of that time.
    pub(super) fn new(binding: &Binding, now: i64) -> Self {
        Self {
            who: binding.subject.to_string(),
            role: binding.role.clone(),
            on: binding.on.clone(),
            conditions: binding.conditions.to_string(),
            origin: binding.origin.to_string(),
            ended: binding.conditions.expires_at.is_some_and(|end| end <= now),
        }
    }

    /// The order of lists.
    fn key(&self) -> String {
        [
            &self.on,
            &self.who,
            &self.role,
            &self.conditions,
            &self.origin,
        ]
        .map(String::as_str)
        .join("\u{1}")
    }
}

/// Which bindings
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Looked {
    /// Those that reach this namespace or repository from above, and those below it
    #[param(example = "team/a")]
    on: Option<String>,
    /// Those that reach this one: its own, its groups', and those of everybody
    #[param(example = "alice")]
    who: Option<String>,
}

/// List bindings
///
/// Needs the right to see settings on the namespace that is named, or everywhere when none is; one's own are always shown. The `ETag` is
/// of the whole list, all its pages: sent as `If-Match` with a grant or a revocation that the list would show, it is made only while
/// the list is the same.
#[utoipa::path(
    get, path = "/api/v1/bindings", operation_id = "list_bindings", tag = "rights", params(Looked, Wanted),
    responses((status = 200, description = "A page, with the list's ETag", body = Page<Shown>), Refusals)
)]
pub(super) async fn bindings(
    state: Shared,
    visitor: Visitor,
    Query(Looked { on, who }): Query<Looked>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Problem> {
    let registry = &state.registry;
    if !visitor.is(who.as_deref()) {
        let on = place(on.as_deref().unwrap_or_default())?;
        visitor.may_on(&registry.access, Permission::ReadSettings, on.as_ref())?;
    }
    let limit = wanted.limit()?;
    let after = wanted.after("bindings")?;
    let who = match &who {
        Some(who) => {
            let subject = who.parse().map_err(|error| wrong("who")(&error))?;
            Some(registry.access.whose(&subject).await?)
        }
        None => None,
    };
    let shown = rights::Shown { who, on };
    let policy = registry.access.policy();
    let now = registry.clock.now_ms();
    let etag = etag(policy.version_of_shown(&shown, now));
    let mut all: Vec<(String, Shown)> = (policy.shown(&shown).into_iter())
        .map(|one| Shown::new(one, now))
        .map(|one| (one.key(), one))
        .filter(|(key, _)| after.as_ref().is_none_or(|after| key > after))
        .collect();
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    let items = all.into_iter().map(|(_, one)| one).collect();
    Ok((etag, Json(Page::cut("bindings", items, limit, Shown::key))).into_response())
}

/// A way to sign in, by its word.
pub(super) fn way(text: &str) -> Result<SignIn, Problem> {
    let mut all = SignIn::ALL.into_iter();
    all.find(|one| one.as_str() == text).ok_or_else(|| {
        let words = SignIn::ALL.map(SignIn::as_str).join(", ");
        let text = format!("{text:?} is no way to sign in; those are {words}");
        Problem::invalid("sign_in", text)
    })
}

/// The conditions of a binding as they are written.
pub(super) struct When {
    pub(super) expires_at: Option<String>,
    pub(super) networks: Vec<String>,
    pub(super) tags: Option<String>,
    pub(super) sign_in: Option<String>,
}

impl When {
    /// As they are meant.
    pub(super) fn read(self) -> Result<Conditions, Problem> {
        let ends = |text: String| {
            let parsed = text.parse::<jiff::Timestamp>();
            parsed.map(jiff::Timestamp::as_millisecond).map_err(|_| {
                let text = format!("{text:?} is no moment; write one as in 2026-01-31T12:00:00Z");
                Problem::invalid("expires_at", text)
            })
        };
        let networks = self.networks.iter().map(|text| text.parse());
        Ok(Conditions {
            expires_at: self.expires_at.map(ends).transpose()?,
            networks: networks
                .collect::<Result<_, _>>()
                .map_err(|error| wrong("networks")(&error))?,
            tags: self
                .tags
                .map(|text| text.parse())
                .transpose()
                .map_err(|error| wrong("tags")(&error))?,
            sign_in: self.sign_in.map(|text| way(&text)).transpose()?,
        })
    }
}

/// A grant
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Grant {
    /// A user's name, a robot's (`team/a+ci`), `group:NAME`, `anonymous` or `signed-in`
    #[schema(example = "alice")]
    who: String,
    /// The role
    #[schema(example = "writer")]
    role: String,
    /// The namespace or repository; empty: everywhere
    #[schema(example = "team/a")]
    on: String,
    /// It ends then
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Time>)]
    expires_at: Option<String>,
    /// Only from one of these networks
    #[serde(default)]
    #[schema(example = json!(["10.0.0.0/8"]))]
    networks: Vec<String>,
    /// Only for tags of this pattern
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "v*")]
    tags: Option<String>,
    /// Only for who signed in that way: `password`, `api-token`, `robot-secret`, `workload`, `certificate` or `terminal`
    #[serde(skip_serializing_if = "Option::is_none")]
    sign_in: Option<String>,
}

impl Grant {
    /// As it is asked for.
    pub(super) fn granting(self) -> Result<Granting, Problem> {
        let when = When {
            expires_at: self.expires_at,
            networks: self.networks,
            tags: self.tags,
            sign_in: self.sign_in,
        };
        let conditions = when.read()?;
        Ok(Granting {
            subject: self.who.parse().map_err(|error| wrong("who")(&error))?,
            role: self.role,
            on: self.on,
            conditions,
        })
    }
}

impl From<Granting> for Grant {
    fn from(granting: Granting) -> Self {
        let conditions = granting.conditions;
        let ends = |end| jiff::Timestamp::from_millisecond(end).unwrap_or(jiff::Timestamp::MAX);
        Self {
            who: granting.subject.to_string(),
            role: granting.role,
            on: granting.on,
            expires_at: conditions.expires_at.map(|end| ends(end).to_string()),
            networks: conditions
                .networks
                .iter()
                .map(ToString::to_string)
                .collect(),
            tags: conditions.tags.map(|pattern| pattern.to_string()),
            sign_in: conditions.sign_in.map(|way| way.as_str().to_owned()),
        }
    }
}

/// Grant a role
///
/// Nobody can give what they do not have. Granting what is granted already changes nothing. With `If-Match`, only while a list of
/// bindings that would show it is the one that was read.
#[utoipa::path(
    post, path = "/api/v1/bindings", operation_id = "grant", tag = "rights", params(IfMatch), request_body = Grant,
    responses((status = 200, description = "Done", body = Changed), Refusals)
)]
pub(super) async fn grant(
    state: Shared,
    visitor: Visitor,
    sent: condition::Conditions,
    Body(grant): Body<Grant>,
) -> Result<Json<Changed>, Problem> {
    let registry = &state.registry;
    let on = place(&grant.on)?;
    visitor.may_on(&registry.access, Permission::ManageBindings, on.as_ref())?;
    let granting = grant.granting()?;
    let now = registry.clock.now_ms();
    let change = registry
        .access
        .grant_if(visitor.changer(), &granting, &sent.meant(), now)
        .await;
    let change = change.map_err(refused)?;
    tracing::info!(
        who = %granting.subject,
        role = granting.role,
        on = granting.on,
        actor = visitor.actor(),
        "granted"
    );
    Ok(Json(change.into()))
}

/// What shall be revoked
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Revoked {
    /// Whose bindings
    #[param(example = "alice")]
    who: String,
    /// Of this role; of all roles if not given
    role: Option<String>,
    /// Exactly there; empty: those that count everywhere
    #[param(example = "team/a")]
    on: String,
}

/// Revoke roles
///
/// Gives back the bindings that went. The last administrator and the last owner of a namespace stay. With `If-Match`, only while a
/// list of bindings that shows them is the one that was read.
#[utoipa::path(
    delete, path = "/api/v1/bindings", operation_id = "revoke", tag = "rights", params(Revoked, IfMatch),
    responses((status = 200, description = "Done", body = Vec<Shown>), Refusals)
)]
pub(super) async fn revoke(
    state: Shared,
    visitor: Visitor,
    sent: condition::Conditions,
    Query(Revoked { who, role, on }): Query<Revoked>,
) -> Result<Json<Vec<Shown>>, Problem> {
    let registry = &state.registry;
    let place = place(&on)?;
    visitor.may_on(&registry.access, Permission::ManageBindings, place.as_ref())?;
    let subject: Subject = who.parse().map_err(|error| wrong("who")(&error))?;
    let now = registry.clock.now_ms();
    let (changer, meant) = (visitor.changer(), sent.meant());
    let access = &registry.access;
    let gone = access.revoke_if(changer, &subject, role.as_deref(), &on, &meant, now);
    let gone = gone.await.map_err(refused)?;
    tracing::info!(who, role, on, actor = visitor.actor(), "revoked");
    let views = gone.iter().map(|one| Shown::new(one, now));
    Ok(Json(views.collect()))
}
