//! The one place where a request is let through or refused.
//!
//! Decides on the caller and the name alone, before anything is looked up: the answer is the same whether the thing
//! exists or not. Called once, at the start of a request, never during its body (AUTH-20).

use wharf_oci::{RepositoryName, Scope};

use super::binding::Tags;
use super::policy::{Policy, usual_tags};
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
        Permission::Push | Permission::TagCreate | Permission::TagMove => on(&["pull", "push"]),
        Permission::Delete => on(&["delete"]),
        Permission::Catalog => Some(Scope::catalog()),
        Permission::ReadSettings
        | Permission::ManageSettings
        | Permission::ManageBindings
        | Permission::ManageRobots
        | Permission::ReadAudit
        | Permission::Admin => Some(Scope {
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
        (
            Permission::ReadSettings
            | Permission::ManageSettings
            | Permission::ManageBindings
            | Permission::ManageRobots
            | Permission::ReadAudit
            | Permission::Admin,
            _,
        ) => ("registry", "admin", &["*"]),
        (_, None) => return false,
        (Permission::Pull, Some(name)) => ("repository", name.as_str(), &["pull", "push"]),
        (Permission::Push | Permission::TagCreate | Permission::TagMove, Some(name)) => {
            ("repository", name.as_str(), &["push"])
        }
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
        self.decide_tags(caller, permission, repository, usual_tags(permission))
    }

    /// Decides on a request for one permission that is about these tags.
    pub fn decide_tags(
        &self,
        caller: &Caller,
        permission: Permission,
        repository: Option<&RepositoryName>,
        tags: Tags<'_>,
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
            self.allow_tags(caller, permission, repository, tags),
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
            Permission::TagCreate,
            Permission::TagMove,
            Permission::Delete,
            Permission::Catalog,
        ];
        if caller.expired_since.is_some() {
            Decision::Challenge {
                scope: None,
                error: Some(INVALID_TOKEN),
            }
        } else if !caller.came_without_credentials()
            || everything.iter().all(|&p| self.allow(caller, p, None))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::policy::{Grant, Who};
    use super::super::principal::{Principal, Source};
    use super::super::role::Role;
    use super::super::token::sanitise;
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> RepositoryName {
        RepositoryName::parse(text).unwrap()
    }

    fn alice() -> Principal {
        Principal::User {
            name: "alice".into(),
            source: Source::Local,
        }
    }

    fn token(principal: Principal, scopes: &str) -> Caller {
        Caller {
            scopes: Some(Scope::parse_list(scopes).into()),
            ..Caller::direct(principal)
        }
    }

    /// The role that decides, held by anonymous or by alice, everywhere or on a prefix.
    fn policy(who: &Principal, role: Role, on: Option<&str>) -> Policy {
        let who = if who.is_anonymous() {
            Who::Anonymous
        } else {
            Who::User(who.name().into())
        };
        Policy::new(
            Role::None,
            Role::None,
            &[Grant {
                who,
                role,
                on: on.map(str::to_owned),
            }],
        )
        .unwrap()
    }

    /// Whether anonymous may hold it.
    fn is_public(role: Role) -> bool {
        role.permissions().within(Role::Maintainer.permissions())
    }

    /// Every role × permission × anonymous or user × place of the grant × kind of credential.
    ///
    /// Spec: AUTH-7, AUTH-8, SCOPE-3, SCOPE-4, CAT-2.
    #[test]
    fn the_whole_table() {
        let wide = "repository:team/app:* registry:catalog:* registry:admin:*";
        let mut rows = 0;
        for principal in [Principal::Anonymous, alice()] {
            for role in Role::ALL
                .into_iter()
                .filter(|&role| is_public(role) || !principal.is_anonymous())
            {
                for (on, reaches) in [
                    (None, true),
                    (Some("team"), true),
                    (Some("team/app"), true),
                    (Some("team/ap"), false),
                    (Some("other"), false),
                ] {
                    let policy = policy(&principal, role, on);
                    for permission in Permission::ALL {
                        let repository =
                            (permission != Permission::Catalog).then(|| name("team/app"));
                        let repository = repository.as_ref();
                        let held = role.permissions().contains(permission)
                            && (reaches || permission == Permission::Catalog);
                        let scope = scope_for(permission, repository);
                        let challenge = |error| Decision::Challenge {
                            scope: scope.clone(),
                            error,
                        };
                        let anonymous = principal.is_anonymous();
                        let expected = [
                            // A password, or nothing at all.
                            (
                                Caller::direct(principal.clone()),
                                match (held, anonymous) {
                                    (true, _) => Decision::Allow,
                                    (false, true) => challenge(None),
                                    (false, false) => Decision::Denied,
                                },
                            ),
                            (
                                token(principal.clone(), wide),
                                match (held, anonymous) {
                                    (true, _) => Decision::Allow,
                                    (false, true) => challenge(Some(INSUFFICIENT_SCOPE)),
                                    (false, false) => Decision::Denied,
                                },
                            ),
                            (
                                token(principal.clone(), "repository:team/other:*"),
                                match (held, anonymous) {
                                    (false, false) => Decision::Denied,
                                    _ => challenge(Some(INSUFFICIENT_SCOPE)),
                                },
                            ),
                            (
                                Caller {
                                    expired_since: Some(1),
                                    ..token(principal.clone(), wide)
                                },
                                challenge(Some(INVALID_TOKEN)),
                            ),
                        ];
                        for (caller, expected) in expected {
                            assert_eq!(
                                policy.decide(&caller, permission, repository),
                                expected,
                                "{caller:?} {role} on {on:?}: {permission:?}"
                            );
                            rows += 1;
                        }
                    }
                }
            }
        }
        assert_eq!(rows, (5 + 8) * 5 * 12 * 4);
    }

    /// Spec: SCOPE-3, REF-12.
    #[test]
    fn a_push_token_may_look_and_no_other_action_stands_for_another() {
        use Permission::*;
        let policy = policy(&alice(), Role::Admin, None);
        let a = name("a");
        let push = vec![Pull, Push, TagCreate, TagMove];
        let registry = [
            ReadSettings,
            ManageSettings,
            ManageBindings,
            ManageRobots,
            ReadAudit,
            Admin,
        ];
        for (scopes, allowed) in [
            ("repository:a:pull", vec![Pull]),
            ("repository:a:push", push.clone()),
            ("repository:a:pull,push", push.clone()),
            ("repository:a:delete", vec![Delete]),
            ("repository:a:*", [&push[..], &[Delete]].concat()),
            ("repository:b:*", vec![]),
            ("repository:a/b:*", vec![]),
            ("registry:a:*", vec![]),
            ("registry:catalog:*", vec![Catalog]),
            ("registry:admin:*", registry.to_vec()),
            ("registry:catalog:pull", vec![]),
            ("", vec![]),
        ] {
            for permission in Permission::ALL {
                let decision = policy.decide(&token(alice(), scopes), permission, Some(&a));
                assert_eq!(
                    decision == Decision::Allow,
                    allowed.contains(&permission),
                    "{scopes}: {permission:?}"
                );
            }
        }
    }

    /// Spec: AUTH-1, AUTH-4.
    #[test]
    fn a_challenge_names_what_to_ask_for() {
        let a = name("a/b");
        for (permission, scope) in [
            (Permission::Pull, "repository:a/b:pull"),
            (Permission::Push, "repository:a/b:pull,push"),
            (Permission::Delete, "repository:a/b:delete"),
            (Permission::Catalog, "registry:catalog:*"),
            (Permission::Admin, "registry:admin:*"),
        ] {
            let asked = scope_for(permission, Some(&a)).unwrap();
            assert_eq!(asked.to_string(), scope);
            // Whoever asks for exactly that is let through, if the subject has the right.
            let caller = token(alice(), scope);
            assert_eq!(
                policy(&alice(), Role::Admin, None).decide(&caller, permission, Some(&a)),
                Decision::Allow
            );
        }
    }

    /// Spec: PING-2, AUTH-5, TOK-3.
    #[test]
    fn the_ping_asks_for_credentials_as_long_as_anonymous_lacks_anything() {
        for anonymous in [Role::None, Role::Reader, Role::Writer, Role::Maintainer] {
            let policy = Policy::new(anonymous, Role::None, &[]).unwrap();
            let expected = match anonymous {
                Role::Maintainer => Decision::Allow,
                _ => Decision::Challenge {
                    scope: None,
                    error: None,
                },
            };
            assert_eq!(
                policy.decide_ping(&Caller::anonymous()),
                expected,
                "{anonymous}"
            );
            for caller in [
                Caller::direct(alice()),
                token(alice(), ""),
                token(Principal::Anonymous, ""),
            ] {
                assert_eq!(policy.decide_ping(&caller), Decision::Allow);
            }
            let expired = Caller {
                expired_since: Some(1),
                ..token(alice(), "")
            };
            assert_eq!(
                policy.decide_ping(&expired),
                Decision::Challenge {
                    scope: None,
                    error: Some(INVALID_TOKEN)
                }
            );
        }
        let public = Grant {
            who: Who::Anonymous,
            role: Role::Maintainer,
            on: Some("public".into()),
        };
        let policy = Policy::new(Role::None, Role::None, &[public]).unwrap();
        assert_ne!(policy.decide_ping(&Caller::anonymous()), Decision::Allow);
    }

    #[test]
    fn scopes_are_merged_and_cleaned() {
        let clean = |text: &str| sanitise(&Scope::parse_list(text));
        assert_eq!(
            clean("repository:a:pull repository:b:pull repository:a:push,pull"),
            Scope::parse_list("repository:a:pull,push repository:b:pull")
        );
        assert_eq!(
            clean("repository(plugin):a:pull"),
            Scope::parse_list("repository:a:pull")
        );
        for nothing in [
            "",
            "repository:A:pull",
            "repository:a:fly",
            "registry:x:*",
            "registry:catalog:pull",
            "x:y:z",
            "repository:host:5000/a:pull",
        ] {
            assert_eq!(clean(nothing), vec![], "{nothing}");
        }
    }

    fn scopes() -> impl Strategy<Value = String> {
        let kind = prop::sample::select(vec!["repository", "registry", "galaxy"]);
        let place = prop::sample::select(vec!["a", "a/b", "b", "catalog", "admin", "*", ""]);
        let actions = prop::sample::select(vec![
            "pull",
            "push",
            "delete",
            "*",
            "pull,push",
            "fly",
            "pull,*",
        ]);
        let one = (kind, place, actions)
            .prop_map(|(kind, place, actions)| format!("{kind}:{place}:{actions}"));
        proptest::collection::vec(one, 0..5).prop_map(|all| all.join(" "))
    }

    proptest! {
        /// Spec: SCOPE-2.
        #[test]
        fn no_scope_widens_what_the_subject_may(
            scopes in scopes(), role in prop::sample::select(&Role::ALL), on in prop::option::of(prop::sample::select(vec!["a", "a/b", "b"])),
            place in prop::sample::select(vec!["a", "a/b", "b", "c"]),
        ) {
            let (policy, place) = (policy(&alice(), role, on), name(place));
            for permission in Permission::ALL {
                for repository in [Some(&place), None] {
                    let narrow = policy.decide(&token(alice(), &scopes), permission, repository);
                    let whole = policy.decide(&Caller::direct(alice()), permission, repository);
                    prop_assert!(narrow != Decision::Allow || whole == Decision::Allow);
                    // Whether it is 403 depends on the subject alone, never on what a token was asked for.
                    prop_assert_eq!(narrow == Decision::Denied, whole == Decision::Denied);
                }
            }
        }

        /// Asking for more never gets less.
        #[test]
        fn more_scopes_never_allow_less(scopes in scopes(), more in scopes(), place in prop::sample::select(vec!["a", "a/b", "b"])) {
            let policy = policy(&alice(), Role::Admin, None);
            let both = token(alice(), &format!("{scopes} {more}"));
            for permission in Permission::ALL {
                let few = policy.decide(&token(alice(), &scopes), permission, Some(&name(place)));
                prop_assert!(few != Decision::Allow || policy.decide(&both, permission, Some(&name(place))) == Decision::Allow);
            }
        }

        /// What a token carries allows what the scopes that were asked for allow, no more and no less.
        #[test]
        fn cleaning_changes_no_decision(scopes in scopes(), place in prop::sample::select(vec!["a", "a/b", "b"])) {
            let policy = policy(&alice(), Role::Admin, None);
            let asked = token(alice(), &scopes);
            let kept: Arc<[Scope]> = sanitise(asked.scopes.as_ref().unwrap()).into();
            let carried = Caller { scopes: Some(kept), ..Caller::direct(alice()) };
            for permission in Permission::ALL {
                prop_assert_eq!(policy.decide(&asked, permission, Some(&name(place))), policy.decide(&carried, permission, Some(&name(place))));
            }
        }
    }
}
