//! Issuers whose tokens machines sign in with, and rules on them. For administrators.

use std::sync::Arc;

use axum::Json;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use wharf_core::access::{ChangeError, Password, Permission, Subject};
use wharf_core::workload::{self, Bearer, IssuerSettings, KeySource, RuleSettings};

use super::Shared;
use super::access::{Changed, refused, wrong};
use super::arguments::{Body, Path, Query};
use super::binding;
use super::condition::{Conditions, IfMatch, versioned};
use super::page::{Page, Wanted};
use super::problem::{Problem, Refusals};
use super::time::Time;
use super::visitor::Visitor;
use crate::http::tls::read_pem_certificate;

/// Whose tokens are trusted
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Issuer {
    /// Its name; all its principals' names begin with it
    #[schema(example = "prod")]
    name: String,
    /// What sort it is: `kubernetes`, `github`, `gitlab`, `oidc` or `certificate`
    #[schema(example = "kubernetes")]
    kind: &'static str,
    /// What its tokens say as `iss`, letter by letter
    #[schema(example = "https://kubernetes.default.svc.cluster.local")]
    issuer: String,
    /// One of these is in its tokens' `aud`
    audiences: Vec<String>,
    /// What it may sign with
    algorithms: Vec<&'static str>,
    /// Where its keys are fetched from; absent: where its discovery document says, or nowhere
    #[serde(skip_serializing_if = "Option::is_none")]
    jwks_url: Option<String>,
    /// Its keys, if they were uploaded
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    jwks: Option<serde_json::Value>,
    /// The cluster that is asked about each token instead (TokenReview)
    #[serde(skip_serializing_if = "Option::is_none")]
    token_review: Option<String>,
    /// Certificates (PEM) that vouch for where its keys are; absent: those that the registry's machine trusts
    #[serde(skip_serializing_if = "String::is_empty")]
    authority: String,
    /// Whether its keys are fetched with a bearer token, which is never shown
    has_bearer: bool,
    /// How far clocks may be apart, in seconds
    leeway: u32,
    /// Longest life of its tokens, in seconds
    longest_life: u32,
    /// Longest life of a token of this registry that one is exchanged for, in seconds
    session: u32,
    /// How principals are named, behind its name and a colon
    #[schema(example = "{kubernetes.io.namespace}/{kubernetes.io.serviceaccount.name}")]
    principal: String,
    /// How many keys of it this replica knows
    keys: usize,
    /// When this replica fetched them last
    #[serde(skip_serializing_if = "Option::is_none")]
    keys_fetched_at: Option<Time>,
    /// Why the last attempt failed
    #[serde(skip_serializing_if = "Option::is_none")]
    keys_error: Option<String>,
    /// When it was made
    created_at: Time,
    /// Who made it
    created_by: String,
}

impl From<&Arc<workload::Issuer>> for Issuer {
    fn from(issuer: &Arc<workload::Issuer>) -> Self {
        let settings = &issuer.settings;
        let (jwks_url, jwks, token_review) = match &settings.keys {
            KeySource::Discovery => (None, None, None),
            KeySource::Url(url) => (Some(url.clone()), None, None),
            KeySource::Static(jwks) => (None, serde_json::from_str(jwks).ok(), None),
            KeySource::Review(server) => (None, None, Some(server.clone())),
        };
        let standing = issuer.standing();
        Self {
            name: issuer.name.to_string(),
            kind: settings.kind.as_str(),
            issuer: settings.issuer.clone(),
            audiences: settings.audiences.clone(),
            algorithms: settings.algorithms.iter().map(|one| one.as_str()).collect(),
            jwks_url,
            jwks,
            token_review,
            authority: settings.authority.clone(),
            has_bearer: issuer.has_bearer,
            leeway: settings.leeway,
            longest_life: settings.longest_life,
            session: settings.session,
            principal: settings.principal.clone(),
            keys: standing.keys,
            keys_fetched_at: standing.fetched_at.map(Time),
            keys_error: standing.error,
            created_at: Time(issuer.created_at),
            created_by: issuer.created_by.clone(),
        }
    }
}

/// What an issuer shall be; what is not given is as is usual for its kind
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetIssuer {
    /// What sort it is: `kubernetes` (bound service account tokens alone), `github`, `gitlab` (nothing of pull and merge requests
    /// unless a rule names the event), `oidc`, or `certificate`: clients' certificates, which have none of the rest but `principal`
    #[schema(example = "kubernetes")]
    kind: String,
    /// What its tokens say as `iss`, letter by letter
    #[serde(default)]
    #[schema(example = "https://kubernetes.default.svc.cluster.local")]
    issuer: String,
    /// One of these must be in `aud`; the name of this registry if not given
    #[serde(skip_serializing_if = "Option::is_none")]
    audiences: Option<Vec<String>>,
    /// What it may sign with: `RS256` and `ES256` if not given. Shared secrets are none of it
    #[serde(skip_serializing_if = "Option::is_none")]
    algorithms: Option<Vec<String>>,
    /// Where its keys are, if not where its discovery document says
    #[serde(skip_serializing_if = "Option::is_none")]
    jwks_url: Option<String>,
    /// Its keys, if they are to be fetched from nowhere
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    jwks: Option<serde_json::Value>,
    /// The HTTPS address of a cluster's kube-apiserver that is asked about each token, instead of having keys: it
    /// needs a bearer token whose account has the ClusterRole `system:auth-delegator`. Answers are kept for a minute
    #[serde(skip_serializing_if = "Option::is_none")]
    token_review: Option<String>,
    /// Certificates (PEM) that vouch for where its keys are, instead of those that the registry's machine trusts
    #[serde(default, skip_serializing_if = "String::is_empty")]
    authority: String,
    /// A bearer token with which its keys are fetched; stays if not given, and is forgotten if empty
    #[serde(skip_serializing_if = "Option::is_none")]
    bearer: Option<String>,
    /// How far clocks may be apart, in seconds; 60 if not given, and at most
    #[serde(skip_serializing_if = "Option::is_none")]
    leeway: Option<u32>,
    /// Longest life of its tokens, in seconds; a day if not given
    #[serde(skip_serializing_if = "Option::is_none")]
    longest_life: Option<u32>,
    /// Longest life of a token of this registry that one is exchanged for, in seconds; an hour if not given
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<u32>,
    /// How principals are named: claims in braces
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "{sub}")]
    principal: Option<String>,
}

impl SetIssuer {
    /// For `apply`: everything that can be said of an issuer but its secret.
    pub(super) fn settings(self, service: &str) -> Result<IssuerSettings, Problem> {
        match self.bearer {
            Some(_) => Err(Problem::invalid(
                "bearer",
                "secrets are no part of this; give it with PUT /api/v1/workload/issuers/{issuer}",
            )),
            None => Ok(self.read(service)?.0),
        }
    }

    /// As it would be asked for.
    pub(super) fn of(settings: &IssuerSettings) -> Self {
        let (mut jwks_url, mut jwks, mut token_review) = (None, None, None);
        match &settings.keys {
            KeySource::Discovery => {}
            KeySource::Url(url) => jwks_url = Some(url.clone()),
            KeySource::Static(keys) => jwks = serde_json::from_str(keys).ok(),
            KeySource::Review(server) => token_review = Some(server.clone()),
        }
        let algorithms = settings.algorithms.iter();
        Self {
            kind: settings.kind.as_str().to_owned(),
            issuer: settings.issuer.clone(),
            audiences: Some(settings.audiences.clone()),
            algorithms: Some(algorithms.map(|one| one.as_str().to_owned()).collect()),
            jwks_url,
            jwks,
            token_review,
            authority: settings.authority.clone(),
            bearer: None,
            leeway: Some(settings.leeway),
            longest_life: Some(settings.longest_life),
            session: Some(settings.session),
            principal: Some(settings.principal.clone()),
        }
    }

    fn read(self, service: &str) -> Result<(IssuerSettings, Bearer), Problem> {
        let kind = workload::Kind::ALL
            .into_iter()
            .find(|one| one.as_str() == self.kind);
        let kind = kind.ok_or_else(|| {
            let all = workload::Kind::ALL.map(workload::Kind::as_str).join(", ");
            Problem::invalid("kind", format!("{:?} is none of {all}", self.kind))
        })?;
        let usual = match kind {
            workload::Kind::Certificate => Vec::new(),
            _ => vec![service.to_owned()],
        };
        let audiences = self.audiences.unwrap_or(usual);
        let mut settings = IssuerSettings::new(kind, &self.issuer, audiences);
        if let Some(algorithms) = self.algorithms {
            let parsed = algorithms.iter().map(|name| name.parse());
            let parsed: Result<Vec<_>, String> = parsed.collect();
            settings.algorithms = parsed.map_err(|error| wrong("algorithms")(&error))?;
        }
        settings.keys = match (self.jwks_url, self.jwks, self.token_review) {
            (None, None, None) => KeySource::Discovery,
            (Some(url), None, None) => KeySource::Url(url),
            (None, Some(jwks), None) => KeySource::Static(jwks.to_string()),
            (None, None, Some(server)) => KeySource::Review(server),
            _ => {
                let text = "give one of jwks_url, jwks and token_review";
                return Err(Problem::invalid("jwks", text));
            }
        };
        settings.authority = self.authority;
        settings.leeway = self.leeway.unwrap_or(settings.leeway);
        settings.longest_life = self.longest_life.unwrap_or(settings.longest_life);
        settings.session = self.session.unwrap_or(settings.session);
        settings.principal = self.principal.unwrap_or(settings.principal);
        let bearer = match self.bearer {
            None => Bearer::Keep,
            Some(text) if text.is_empty() => Bearer::Forget,
            Some(text) => Bearer::Set(Password::new(text)),
        };
        Ok((settings, bearer))
    }
}

/// List the issuers whose tokens machines sign in with
///
/// For administrators.
#[utoipa::path(
    get, path = "/api/v1/workload/issuers", operation_id = "list_workload_issuers", tag = "workloads", params(Wanted),
    responses((status = 200, description = "A page", body = Page<Issuer>), Refusals)
)]
pub(super) async fn issuers(
    state: Shared,
    visitor: Visitor,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<Issuer>>, Problem> {
    let access = &state.registry.access;
    visitor.may(access, Permission::Admin)?;
    let trust = access.workloads().trust();
    let all = trust.issuers.values().map(Issuer::from);
    Ok(Json(wanted.of(
        "issuers",
        all.collect(),
        |one: &Issuer| one.name.clone(),
    )?))
}

/// Which issuer
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct NamedIssuer {
    /// Its name
    #[param(example = "prod")]
    issuer: String,
}

/// Show an issuer
///
/// For administrators.
#[utoipa::path(
    get, path = "/api/v1/workload/issuers/{issuer}", operation_id = "show_workload_issuer", tag = "workloads",
    params(NamedIssuer), responses((status = 200, description = "The issuer, with an ETag", body = Issuer), Refusals)
)]
pub(super) async fn issuer(
    state: Shared,
    visitor: Visitor,
    conditions: Conditions,
    Path(NamedIssuer { issuer }): Path<NamedIssuer>,
) -> Result<Response, Problem> {
    let access = &state.registry.access;
    visitor.may(access, Permission::Admin)?;
    let trust = access.workloads().trust();
    let known = trust.issuers.get(&*issuer);
    let known = known.ok_or_else(|| absent("issuer", &issuer))?;
    Ok(versioned(known.version, &conditions, Issuer::from(known)))
}

/// Trust an issuer, or change what is known of it
///
/// For administrators. Nobody is let in by it before there is a rule. With `If-Match`, only the version that was read. A change ends
/// the tokens of this registry that its tokens were exchanged for.
#[utoipa::path(
    put, path = "/api/v1/workload/issuers/{issuer}", operation_id = "set_workload_issuer", tag = "workloads",
    params(NamedIssuer, IfMatch), request_body = SetIssuer, responses((status = 200, description = "Done", body = Changed), Refusals)
)]
pub(super) async fn set_issuer(
    state: Shared,
    visitor: Visitor,
    conditions: Conditions,
    Path(NamedIssuer { issuer }): Path<NamedIssuer>,
    Body(body): Body<SetIssuer>,
) -> Result<Json<Changed>, Problem> {
    let registry = &state.registry;
    let access = &registry.access;
    visitor.may(access, Permission::Admin)?;
    let version = conditions.meant();
    let (settings, bearer) = body.read(access.service())?;
    let now = registry.clock.now_ms();
    let done = access.put_issuer(visitor.changer(), &issuer, &settings, &bearer, version, now);
    Ok(Json(done.await.map_err(refused)?.into()))
}

/// Trust an issuer no more
///
/// For administrators. Its rules go first. With `If-Match`, only the version that was read.
#[utoipa::path(
    delete, path = "/api/v1/workload/issuers/{issuer}", operation_id = "remove_workload_issuer", tag = "workloads",
    params(NamedIssuer, IfMatch), responses((status = 200, description = "Done", body = Changed), Refusals)
)]
pub(super) async fn remove_issuer(
    state: Shared,
    visitor: Visitor,
    conditions: Conditions,
    Path(NamedIssuer { issuer }): Path<NamedIssuer>,
) -> Result<Json<Changed>, Problem> {
    let registry = &state.registry;
    visitor.may(&registry.access, Permission::Admin)?;
    let version = conditions.meant();
    let now = registry.clock.now_ms();
    let done = registry
        .access
        .remove_issuer(visitor.changer(), &issuer, version, now);
    Ok(Json(done.await.map_err(refused)?.into()))
}

/// What one claim must be: one of these values or patterns
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Condition {
    /// The claim's path
    #[schema(example = "kubernetes.io.namespace")]
    claim: String,
    /// Values, letter by letter
    #[serde(default, rename = "in", skip_serializing_if = "Vec::is_empty")]
    values: Vec<String>,
    /// Patterns: `*` for any text without `/`, `**` for any text, `?` for one character
    #[serde(default, rename = "glob", skip_serializing_if = "Vec::is_empty")]
    patterns: Vec<String>,
}

impl Condition {
    /// As it is in force.
    pub(super) fn of(one: &workload::Condition) -> Self {
        Self {
            claim: one.claim.clone(),
            values: one.values.clone(),
            patterns: one.patterns.iter().map(ToString::to_string).collect(),
        }
    }

    pub(super) fn read(self) -> Result<workload::Condition, Problem> {
        let patterns = self.patterns.iter().map(|text| text.parse());
        let patterns: Result<Vec<_>, workload::PatternError> = patterns.collect();
        Ok(workload::Condition {
            claim: self.claim,
            values: self.values,
            patterns: patterns.map_err(|error| wrong("conditions")(&error))?,
        })
    }
}

/// What a token must say; grants are for `workload:` and the rule's name
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Rule {
    /// Its name
    #[schema(example = "prod-default")]
    name: String,
    /// Whose tokens
    #[schema(example = "prod")]
    issuer: String,
    /// What they must say: all of it
    conditions: Vec<Condition>,
    /// What is granted to whoever has such a token, besides what its groups and everybody have
    bindings: Vec<binding::Shown>,
    /// When it was made
    created_at: Time,
    /// Who made it
    created_by: String,
}

impl Rule {
    fn new(rule: &workload::Rule, bindings: Vec<binding::Shown>) -> Self {
        let conditions = rule.settings.conditions.iter().map(Condition::of);
        Self {
            name: rule.name.to_string(),
            issuer: rule.issuer.to_string(),
            conditions: conditions.collect(),
            bindings,
            created_at: Time(rule.created_at),
            created_by: rule.created_by.clone(),
        }
    }
}

/// List the rules on tokens that machines sign in with
///
/// For administrators.
#[utoipa::path(
    get, path = "/api/v1/workload/rules", operation_id = "list_workload_rules", tag = "workloads", params(Wanted),
    responses((status = 200, description = "A page", body = Page<Rule>), Refusals)
)]
pub(super) async fn rules(
    state: Shared,
    visitor: Visitor,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<Rule>>, Problem> {
    let registry = &state.registry;
    visitor.may(&registry.access, Permission::Admin)?;
    let trust = registry.access.workloads().trust();
    let now = registry.clock.now_ms();
    let policy = registry.access.policy();
    let mut granted: std::collections::HashMap<&str, Vec<binding::Shown>> = Default::default();
    for one in policy.bindings() {
        if let Subject::Workload(rule) = &one.subject {
            granted
                .entry(rule)
                .or_default()
                .push(binding::Shown::new(one, now));
        }
    }
    let all = trust.rules.values();
    let all = all.map(|rule| Rule::new(rule, granted.remove(&*rule.name).unwrap_or_default()));
    Ok(Json(wanted.of("rules", all.collect(), |one: &Rule| {
        one.name.clone()
    })?))
}

/// Which rule
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct NamedRule {
    /// Its name
    #[param(example = "prod-default")]
    rule: String,
}

/// Show a rule
///
/// For administrators.
#[utoipa::path(
    get, path = "/api/v1/workload/rules/{rule}", operation_id = "show_workload_rule", tag = "workloads", params(NamedRule),
    responses((status = 200, description = "The rule, with an ETag", body = Rule), Refusals)
)]
pub(super) async fn rule(
    state: Shared,
    visitor: Visitor,
    conditions: Conditions,
    Path(NamedRule { rule }): Path<NamedRule>,
) -> Result<Response, Problem> {
    let registry = &state.registry;
    visitor.may(&registry.access, Permission::Admin)?;
    let trust = registry.access.workloads().trust();
    let known = trust
        .rules
        .get(&*rule)
        .ok_or_else(|| absent("rule", &rule))?;
    let now = registry.clock.now_ms();
    let own = Subject::Workload(rule);
    let policy = registry.access.policy();
    let bindings = policy.bindings_to(&own);
    let bindings = bindings.map(|one| binding::Shown::new(one, now)).collect();
    Ok(versioned(
        known.version,
        &conditions,
        Rule::new(known, bindings),
    ))
}

/// What a rule shall ask for
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetRule {
    /// Whose tokens; stays as it is
    #[schema(example = "prod")]
    issuer: String,
    /// What they must say: all of it
    conditions: Vec<Condition>,
}

/// Make a rule, or change it
///
/// For administrators. Whoever has a token that all conditions match has what is granted to `workload:` and the rule's name, and is in
/// the groups that it is in. Rules on tokens of GitHub and GitLab ask for an id that is never given again, and match nothing of pull
/// and merge requests unless they name the event. With `If-Match`, only the version that was read.
#[utoipa::path(
    put, path = "/api/v1/workload/rules/{rule}", operation_id = "set_workload_rule", tag = "workloads", params(NamedRule, IfMatch),
    request_body = SetRule, responses((status = 200, description = "Done", body = Changed), Refusals)
)]
pub(super) async fn set_rule(
    state: Shared,
    visitor: Visitor,
    conditions: Conditions,
    Path(NamedRule { rule }): Path<NamedRule>,
    Body(body): Body<SetRule>,
) -> Result<Json<Changed>, Problem> {
    let registry = &state.registry;
    visitor.may(&registry.access, Permission::Admin)?;
    let version = conditions.meant();
    let settings = body.conditions.into_iter().map(Condition::read);
    let settings = RuleSettings {
        conditions: settings.collect::<Result<_, Problem>>()?,
    };
    let now = registry.clock.now_ms();
    let access = &registry.access;
    let done = access.put_rule(
        visitor.changer(),
        &rule,
        &body.issuer,
        &settings,
        version,
        now,
    );
    Ok(Json(done.await.map_err(refused)?.into()))
}

/// Remove a rule, with all that was granted to it
///
/// For administrators. Whoever came in by it is out from the next request on. With `If-Match`, only the version that was read.
#[utoipa::path(
    delete, path = "/api/v1/workload/rules/{rule}", operation_id = "remove_workload_rule", tag = "workloads",
    params(NamedRule, IfMatch), responses((status = 200, description = "Done", body = Changed), Refusals)
)]
pub(super) async fn remove_rule(
    state: Shared,
    visitor: Visitor,
    conditions: Conditions,
    Path(NamedRule { rule }): Path<NamedRule>,
) -> Result<Json<Changed>, Problem> {
    let registry = &state.registry;
    visitor.may(&registry.access, Permission::Admin)?;
    let version = conditions.meant();
    let now = registry.clock.now_ms();
    let done = registry
        .access
        .remove_rule(visitor.changer(), &rule, version, now);
    Ok(Json(done.await.map_err(refused)?.into()))
}

/// A token or a certificate to be looked at
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Test {
    /// The token; it is kept nowhere
    token: Option<String>,
    /// The client's certificate (PEM)
    certificate: Option<String>,
}

/// One step of looking at a token
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Step {
    /// What was looked at
    #[schema(example = "audience")]
    what: String,
    /// What is wrong; absent: nothing
    #[serde(skip_serializing_if = "Option::is_none")]
    wrong: Option<String>,
}

/// A rule, and whether the token matches it
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Judged {
    /// The rule
    #[schema(example = "prod-default")]
    rule: String,
    /// Whose tokens it is about
    #[schema(example = "prod")]
    issuer: String,
    /// Whether it does
    matches: bool,
    /// Why it does not
    unmet: Vec<String>,
}

/// What becomes of a token
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Tested {
    /// Whether it is accepted
    accepted: bool,
    /// Who it would be
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "prod:prod/default")]
    principal: Option<String>,
    /// The steps, as far as they could be taken
    steps: Vec<Step>,
    /// The rules on its issuer's tokens
    rules: Vec<Judged>,
}

/// Look at a token or a certificate
///
/// For administrators. Says who it would be and by which rules, or all that is wrong with it and why rules do not match. Nobody is
/// signed in by it. Whether a certificate's authority is trusted is not looked at.
#[utoipa::path(
    post, path = "/api/v1/workload/test", operation_id = "test_workload_token", tag = "workloads", request_body = Test,
    responses((status = 200, description = "What becomes of it", body = Tested), Refusals)
)]
pub(super) async fn test(
    state: Shared,
    visitor: Visitor,
    Body(body): Body<Test>,
) -> Result<Json<Tested>, Problem> {
    let registry = &state.registry;
    visitor.may(&registry.access, Permission::Admin)?;
    let now = registry.clock.now_ms();
    let report = match (body.token, body.certificate) {
        (Some(token), None) => registry.access.workloads().report(token.trim(), now).await,
        (None, Some(pem)) => {
            let certificate = read_pem_certificate(&pem);
            let certificate =
                certificate.map_err(|error| Problem::invalid("certificate", error))?;
            registry.access.report_certificate(&certificate, now).await
        }
        _ => {
            return Err(Problem::invalid(
                "token",
                "give a token or a certificate, one of them",
            ));
        }
    };
    let steps = report.seen.into_iter().map(|seen| Step {
        what: seen.what,
        wrong: seen.wrong,
    });
    let rules = report.rules.into_iter().map(|one| Judged {
        rule: one.rule,
        issuer: one.issuer,
        matches: one.unmet.is_empty(),
        unmet: one.unmet,
    });
    Ok(Json(Tested {
        accepted: report.principal.is_some(),
        principal: report.principal.map(|(name, _)| name),
        steps: steps.collect(),
        rules: rules.collect(),
    }))
}

fn absent(what: &str, name: &str) -> Problem {
    refused(ChangeError::Unknown(format!("there is no {what} {name}")))
}
