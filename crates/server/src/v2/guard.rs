//! The door of `/v2/`: who asks, and may they (§4.1)?
//!
//! Decides on the name and the credentials alone, before anything is looked up, so that no answer depends on what
//! exists (AUTH-8). Refusals carry the challenge that tells a client how to do better.

use std::borrow::Cow;

use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use wharf_core::access::{
    ANONYMOUS, AuthFailure, Caller, Circumstances, Decision, INSUFFICIENT_SCOPE, INVALID_TOKEN,
    Permission, Principal, read_authorization, scope_for,
};
use wharf_core::upload;
use wharf_oci::{Authorization, Challenge, ErrorCode, Scope};

use super::{V2, audit};
use crate::http::error::ApiError;
use crate::http::route::Route;
use crate::http::{Facts, Request, Scheme};

/// How `/v2/` asks for credentials.
#[derive(Debug, Clone)]
pub struct Challenges {
    /// The name of this registry in challenges and tokens.
    pub service: String,
    /// `auth.challenge = "basic"`: ask for Basic alone instead of Bearer.
    pub basic: bool,
}

impl V2 {
    /// Lets a request in, or says why not.
    pub(super) async fn admit(&self, request: &Request, route: &Route) -> Result<Caller, ApiError> {
        self.admit_noting(request, route, &mut Facts::default())
            .await
    }

    /// The same, and notes who asks, whether they are let in or not.
    pub(super) async fn admit_noting(
        &self,
        request: &Request,
        route: &Route,
        facts: &mut Facts,
    ) -> Result<Caller, ApiError> {
        let access = &self.registry.access;
        let permission = route.permission(&request.method);
        let repository = route.repository();

        let address = request.peer.addr.map(|peer| peer.ip());
        let came = Circumstances::new(address, self.registry.clock.now_ms());
        let headers = request.headers.get_all(AUTHORIZATION);
        let authorization = read_authorization(headers.iter().map(HeaderValue::as_bytes));
        let (name, caller) = match authorization {
            Ok(authorization) => {
                let caller = access
                    .authenticate(request.presented(authorization.as_ref()), came)
                    .await;
                // A password that was refused is not kept for longer than this.
                let name = match (authorization, &caller) {
                    (Some(Authorization::Basic { user, .. }), Err(_)) => user,
                    _ => String::new(),
                };
                (name, caller)
            }
            Err(failure) => (String::new(), Err(failure)),
        };
        audit::sign_in(&self.registry, request, came, name, &caller);
        let caller = match caller {
            Ok(caller) => caller,
            Err(failure) => {
                let scope = permission.and_then(|permission| scope_for(permission, repository));
                let refusal = self.unauthenticated(request, scope, failure);
                request.count(&self.registry, &Caller::anonymous().under(came), None)?;
                return Err(refusal);
            }
        };
        facts.principal = Some(match &caller.principal {
            Principal::Anonymous => Cow::Borrowed(ANONYMOUS),
            known => Cow::Owned(known.name().to_owned()),
        });
        // For such a caller something may be looked up before it is decided.
        let early = caller.expired_since.is_some();
        if early {
            request.count(&self.registry, &caller, None)?;
        }

        let decision = match (route, permission, repository) {
            (Route::Ping | Route::Extensions { name: None }, ..) => access.decide_ping(&caller),
            // An expired token may finish what its own subject began (AUTH-20); only then is the session looked at.
            (Route::Upload { name, id }, Some(_), _) if caller.expired_since.is_some() => {
                match upload::owner(&self.registry, name, id).await? {
                    Some(owner) => access.decide_upload(&caller, &owner, name),
                    None => access.decide(&caller, Permission::Push, Some(name)),
                }
            }
            (_, Some(permission), repository) => {
                let tags = route.tags(&request.method);
                access.decide_tags(&caller, permission, repository, tags)
            }
            (_, None, _) => Decision::Allow,
        };
        if !early {
            let place = repository.filter(|_| decision == Decision::Allow);
            request.count(&self.registry, &caller, place)?;
        }
        match decision {
            Decision::Allow => Ok(caller),
            Decision::Challenge { scope, error } => {
                if !caller.came_without_credentials() {
                    let reason = advice(&caller, error);
                    audit::refused(&self.registry, &caller, request, route, permission, reason);
                }
                let scope = scope.map(|scope| with_source(scope, request, route));
                Err(self.challenge(request, scope, error, advice(&caller, error)))
            }
            Decision::Denied => {
                let reason = "the principal or its token lacks the permission";
                audit::refused(&self.registry, &caller, request, route, permission, reason);
                Err(denied(&caller, route, permission))
            }
        }
    }

    /// 401 with the way to better credentials (AUTH-1 … AUTH-6).
    fn challenge(
        &self,
        request: &Request,
        scope: Option<Vec<Scope>>,
        error: Option<&'static str>,
        message: impl Into<String>,
    ) -> ApiError {
        let message = message.into();
        let detail = scope.as_ref().map(|scopes| {
            scopes
                .iter()
                .map(Scope::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        });
        let challenge = if self.challenges.basic {
            Challenge {
                scheme: "Basic".into(),
                realm: self.challenges.service.clone(),
                ..Challenge::default()
            }
        } else {
            Challenge {
                scheme: "Bearer".into(),
                realm: self.realm(request),
                service: Some(self.challenges.service.clone()),
                scope: detail.clone(),
                error: error.map(str::to_owned),
                description: error.map(|_| message.clone()),
            }
        };
        let mut refusal = ApiError::new(ErrorCode::Unauthorized, message);
        refusal.detail = detail;
        match HeaderValue::from_str(&challenge.to_string()) {
            Ok(value) => refusal.with_header(WWW_AUTHENTICATE, value),
            Err(_) => refusal,
        }
    }

    fn unauthenticated(
        &self,
        request: &Request,
        scope: Option<Scope>,
        failure: AuthFailure,
    ) -> ApiError {
        self.metrics.auth_failed(failure.reason());
        if let Some(retry_after) = failure.retry_after() {
            return ApiError::new(ErrorCode::TooManyRequests, failure.to_string())
                .with_retry_after(retry_after);
        }
        match failure {
            AuthFailure::Store(error) | AuthFailure::Directory(error) => error.into(),
            failure => {
                let error = failure.challenge_error();
                let scope = scope.map(|scope| vec![scope]);
                self.challenge(request, scope, error, failure.to_string())
            }
        }
    }

    /// Where tokens are: on the address under which the client knows us, absolute and without a query (AUTH-3).
    fn realm(&self, request: &Request) -> String {
        if !self.base.is_empty() {
            return format!("{}/token", self.base);
        }
        let scheme = match request.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        let host = request.host.as_deref().unwrap_or("localhost");
        format!("{scheme}://{host}/token")
    }
}

/// A mount needs the source too, so its challenge names both (AUTH-4).
fn with_source(scope: Scope, request: &Request, route: &Route) -> Vec<Scope> {
    let mut scopes = vec![scope];
    if let Route::Uploads { .. } = route
        && super::reply::query(request, "mount").next().is_some()
        && let Some(from) = super::reply::query(request, "from").next()
        && let Ok(from) = wharf_oci::RepositoryName::parse(&from)
    {
        scopes.push(Scope::repository(from.as_str(), &["pull"]));
    }
    scopes
}

/// What a person or a program can do about a 401.
fn advice(caller: &Caller, error: Option<&'static str>) -> &'static str {
    match error {
        // Docker fetches a token for nobody, too; no other scope would help it.
        Some(INSUFFICIENT_SCOPE) if !caller.principal.is_anonymous() => {
            "the token was asked for less than this request needs; fetch one with the scope in WWW-Authenticate"
        }
        Some(INVALID_TOKEN) => "the token is no longer good; fetch a new one",
        _ => "sign in first: this needs credentials (docker login)",
    }
}

/// 403: whoever this is lacks the right, and no token would change that (AUTH-7).
fn denied(caller: &Caller, route: &Route, permission: Option<Permission>) -> ApiError {
    let name = caller.principal.name();
    let what = permission.map_or("use", Permission::doing);
    let message = match route.repository() {
        // Whether the token or its user lacks it is not told: who found a token learns nothing of its user.
        Some(repository) if caller.narrow.is_some() => format!(
            "this API token may not {what} repository {repository}; its scopes or the rights of {name} do not go so far (wharf token create, wharf grant)"
        ),
        Some(repository) => format!(
            "{name} may not {what} repository {repository}; an owner of it or an administrator can grant that (wharf grant)"
        ),
        None => format!("{name} may not use this address; it is for administrators"),
    };
    ApiError::new(ErrorCode::Denied, message).with_status(StatusCode::FORBIDDEN)
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
