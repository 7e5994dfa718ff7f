//! The one place where a request is let through or refused.
//!
//! Decides on the caller and the name alone, before anything is looked up: the answer is the same whether the thing
//! exists or not. Called once, at the start of a request, never during its body (AUTH-20).

use wharf_oci::{RepositoryName, Scope};

use super::policy::Policy;
use super::principal::Caller;
use super::role::Permission;

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Allow,
    /// 401: other credentials, or a token with the scope, may help (AUTH-6 to AUTH-8).
    Challenge {
        /// What a token must be asked for; none on the ping (AUTH-5).
        scope: Option<Scope>,
        /// `invalid_token` or `insufficient_scope`, only when a token came with the request.
        error: Option<&'static str>,
    },
    /// 403: this principal lacks the right, whatever token it fetches.
    Denied,
}

/// The `error` of a challenge for a token that is no longer good.
pub const INVALID_TOKEN: &str = "invalid_token";
/// The `error` of a challenge for a token that is good but was asked for less.
pub const INSUFFICIENT_SCOPE: &str = "insufficient_scope";

/// What a token must be asked for so that it allows this; `None` where no repository is named but one is needed.
///
/// Push asks for pull too: every client that pushes also looks whether the content is there (SCOPE-3).
pub fn scope_for(permission: Permission, repository: Option<&RepositoryName>) -> Option<Scope> {
    let on = |actions: &[&str]| repository.map(|name| Scope::repository(name.as_str(), actions));
    match permission {
        Permission::Pull => on(&["pull"]),
        Permission::Push => on(&["pull", "push"]),
        Permission::Delete => on(&["delete"]),
        Permission::Catalog => Some(Scope::catalog()),
        Permission::Admin => Some(Scope {
            name: "admin".into(),
            ..Scope::catalog()
        }),
    }
}

/// Whether a token that was asked for these scopes may be used for this.
///
/// Whoever may push may look: push covers pull, so that a push token suffices for the HEAD before each blob and for
/// the referrers check after each manifest (SCOPE-3, REF-12).
pub(crate) fn covers(
    scopes: &[Scope],
    permission: Permission,
    repository: Option<&RepositoryName>,
) -> bool {
    let (kind, name, actions): (_, _, &[&str]) = match (permission, repository) {
        (Permission::Catalog, _) => ("registry", "catalog", &["*"]),
        (Permission::Admin, _) => ("registry", "admin", &["*"]),
        (_, None) => return false,
        (Permission::Pull, Some(name)) => ("repository", name.as_str(), &["pull", "push"]),
        (Permission::Push, Some(name)) => ("repository", name.as_str(), &["push"]),
        (Permission::Delete, Some(name)) => ("repository", name.as_str(), &["delete"]),
    };
    scopes.iter().any(|scope| {
        scope.kind == kind
            && scope.name == name
            && actions.iter().any(|action| scope.allows(action))
    })
}

impl Policy {
    /// Decides on a request for one permission.
    pub fn decide(
        &self,
        caller: &Caller,
        permission: Permission,
        repository: Option<&RepositoryName>,
    ) -> Decision {
        let challenge = |error| Decision::Challenge {
            scope: scope_for(permission, repository),
            error,
        };
        if caller.expired_since.is_some() {
            return challenge(Some(INVALID_TOKEN));
        }
        match (
            &caller.scopes,
            self.allow(&caller.principal, permission, repository),
        ) {
            (None, true) => Decision::Allow,
            (Some(scopes), true) if covers(scopes, permission, repository) => Decision::Allow,
            (Some(_), true) => challenge(Some(INSUFFICIENT_SCOPE)),
            (None, false) if caller.principal.is_anonymous() => challenge(None),
            // Signing in may help, so this is no 403; naming the error stops clients that would ask for ever.
            (Some(_), false) if caller.principal.is_anonymous() => {
                challenge(Some(INSUFFICIENT_SCOPE))
            }
            (_, false) => Decision::Denied,
        }
    }

    /// Decides on the ping.
    ///
    /// Clients learn the challenge there and nowhere else, so one without credentials is asked for them as long as
    /// anonymous lacks anything; whoever brings good ones is let through (PING-2, TOK-3).
    pub fn decide_ping(&self, caller: &Caller) -> Decision {
        let everything = [
            Permission::Pull,
            Permission::Push,
            Permission::Delete,
            Permission::Catalog,
        ];
        if caller.expired_since.is_some() {
            Decision::Challenge {
                scope: None,
                error: Some(INVALID_TOKEN),
            }
        } else if !caller.came_without_credentials()
            || everything
                .iter()
                .all(|&p| self.allow(&caller.principal, p, None))
        {
            Decision::Allow
        } else {
            Decision::Challenge {
                scope: None,
                error: None,
            }
        }
    }

    /// Decides on going on with an upload that `owner` opened in `repository`: as [`Policy::decide`] for a push, but a
    /// token that ended less than the grace ago will do for its own subject (AUTH-20).
    ///
    /// For an upload that does not exist, call [`Policy::decide`]: it refuses such a token without saying why.
    pub fn decide_upload(
        &self,
        caller: &Caller,
        owner: &str,
        repository: &RepositoryName,
    ) -> Decision {
        let own = !caller.principal.is_anonymous() && caller.principal.name() == owner;
        if caller.expired_since.is_some() && own {
            let unexpired = Caller {
                expired_since: None,
                ..caller.clone()
            };
            return self.decide(&unexpired, Permission::Push, Some(repository));
        }
        self.decide(caller, Permission::Push, Some(repository))
    }
}
