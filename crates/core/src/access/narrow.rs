//! What a credential leaves of its principal's rights.
//!
//! An API token is given for some permissions below some namespaces. It never adds a right: the policy takes what the
//! principal may do *and* what the token names. Asked in [`super::Policy`] alone, so that no endpoint can forget it.

use wharf_oci::RepositoryName;

use super::principal::Caller;
use super::role::{Permission, Permissions};

/// Permissions below prefixes of repositories' paths.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Narrow(Vec<(Box<str>, Permissions)>);

impl Narrow {
    /// From pairs of a prefix without a slash at its end, `""` for everywhere, and what is left below it. Without any
    /// pair nothing is left.
    pub fn new<S: Into<Box<str>>>(parts: impl IntoIterator<Item = (S, Permissions)>) -> Self {
        let mut kept: Vec<(Box<str>, Permissions)> = Vec::new();
        for (on, permissions) in parts {
            let on = on.into();
            match kept.iter_mut().find(|(had, _)| *had == on) {
                Some((_, had)) => *had = *had | permissions,
                None => kept.push((on, permissions)),
            }
        }
        Self(kept)
    }

    /// Whether the permission is left on the repository; without one, whether it is left everywhere.
    pub(crate) fn leaves(
        &self,
        permission: Permission,
        repository: Option<&RepositoryName>,
    ) -> bool {
        self.0.iter().any(|(on, permissions)| {
            permissions.contains(permission)
                && repository.map_or(on.is_empty(), |repository| repository.is_within(on))
        })
    }

    /// The part of `prefixes` (`None`: everywhere) in which the permission is left, sorted, none within another.
    pub(crate) fn cut(
        &self,
        permission: Permission,
        prefixes: Option<Vec<String>>,
    ) -> Option<Vec<String>> {
        if self.leaves(permission, None) {
            return prefixes;
        }
        let mine = self
            .0
            .iter()
            .filter(|(_, permissions)| permissions.contains(permission));
        let mut common: Vec<String> = match prefixes {
            None => mine.map(|(on, _)| on.to_string()).collect(),
            Some(prefixes) => mine
                .flat_map(|(on, _)| {
                    prefixes.iter().filter_map(|prefix| match () {
                        () if is_below(prefix, on) => Some(prefix.clone()),
                        () if is_below(on, prefix) => Some(on.to_string()),
                        () => None,
                    })
                })
                .collect(),
        };
        common.sort_unstable();
        common.dedup();
        let all = common.clone();
        common.retain(|on| {
            !all.iter()
                .any(|other| other.len() < on.len() && is_below(on, other))
        });
        Some(common)
    }

    /// The pairs, in the order in which they were given.
    pub fn parts(&self) -> impl Iterator<Item = (&str, Permissions)> {
        self.0.iter().map(|(on, permissions)| (&**on, *permissions))
    }
}

/// Whether one prefix lies within another, or is the same.
fn is_below(prefix: &str, other: &str) -> bool {
    prefix
        .strip_prefix(other)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Caller {
    /// Whether the credential leaves the permission to its principal.
    pub(crate) fn leaves(
        &self,
        permission: Permission,
        repository: Option<&RepositoryName>,
    ) -> bool {
        self.narrow
            .as_ref()
            .is_none_or(|narrow| narrow.leaves(permission, repository))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::policy::{Grant, Policy, Who};
    use super::super::principal::{Principal, Source};
    use super::super::role::Role;
    use super::super::{Decision, Permission};
    use super::*;
    use wharf_oci::Scope;

    fn name(text: &str) -> RepositoryName {
        RepositoryName::parse(text).unwrap()
    }

    fn alice() -> Principal {
        Principal::User {
            name: "alice".into(),
            source: Source::Local,
        }
    }

    #[test]
    fn a_prefix_ends_at_a_slash() {
        let pull: Permissions = [Permission::Pull].into_iter().collect();
        let narrow = Narrow::new([("team/a", pull)]);
        for (repository, left) in [
            ("team/a", true),
            ("team/a/b", true),
            ("team/ab", false),
            ("team", false),
            ("x/team/a", false),
        ] {
            assert_eq!(
                narrow.leaves(Permission::Pull, Some(&name(repository))),
                left
            );
            assert!(!narrow.leaves(Permission::Push, Some(&name(repository))));
        }
        assert!(!narrow.leaves(Permission::Pull, None));
        assert!(!Narrow::default().leaves(Permission::Pull, Some(&name("team/a"))));
    }

    #[test]
    fn what_is_listed_is_what_both_hold() {
        let pull: Permissions = [Permission::Pull].into_iter().collect();
        let narrow = Narrow::new([("a", pull), ("b/c", pull), ("a/x", pull)]);
        let cut = |prefixes: Option<&[&str]>| {
            let prefixes = prefixes.map(|all| all.iter().map(|one| (*one).to_owned()).collect());
            narrow.cut(Permission::Pull, prefixes).unwrap()
        };
        assert_eq!(cut(None), ["a", "b/c"]);
        assert_eq!(cut(Some(&["a/b", "ab", "b"])), ["a/b", "b/c"]);
        assert_eq!(cut(Some(&["c"])), [""; 0]);
        assert_eq!(
            narrow.cut(Permission::Push, None),
            Some(vec![]),
            "nothing is never everywhere"
        );
    }

    fn paths() -> impl Strategy<Value = String> {
        proptest::collection::vec(prop::sample::select(vec!["a", "b", "ab", "a-b"]), 1..4)
            .prop_map(|parts| parts.join("/"))
    }

    fn grants() -> impl Strategy<Value = Vec<Grant>> {
        let one = (
            prop::sample::select(vec!["anonymous", "alice", "bob"]),
            prop::sample::select(&Role::ALL),
            prop::option::of(paths()),
        );
        let one = one.prop_map(|(who, role, on)| {
            let who = Who::parse(who).unwrap();
            let public = role.permissions().within(Role::Maintainer.permissions());
            let role = match who {
                Who::Anonymous if !public => Role::Maintainer,
                _ => role,
            };
            Grant { who, role, on }
        });
        proptest::collection::vec(one, 0..6)
    }

    fn narrows() -> impl Strategy<Value = Vec<(String, Vec<Permission>)>> {
        let permissions =
            proptest::collection::vec(prop::sample::select(Permission::ALL.to_vec()), 0..4);
        let on = prop_oneof![paths(), Just(String::new())];
        proptest::collection::vec((on, permissions), 0..4)
    }

    proptest! {
        /// Against the sentence itself: what the principal may and the token names.
        #[test]
        fn a_narrowed_caller_may_exactly_what_both_hold(
            grants in grants(), parts in narrows(), path in paths(), token in any::<bool>(),
        ) {
            let policy = Policy::new(Role::None, Role::None, &grants).unwrap();
            let repository = name(&path);
            let wide = format!("repository:{path}:* registry:catalog:* registry:admin:*");
            let whole = Caller {
                scopes: token.then(|| Scope::parse_list(&wide).into()),
                ..Caller::direct(alice())
            };
            let narrow = parts.iter().map(|(on, held)| (on.as_str(), held.iter().copied().collect()));
            let caller = Caller { narrow: Some(Arc::new(Narrow::new(narrow))), ..whole.clone() };
            for permission in Permission::ALL {
                let names = |on: &str| parts.iter().any(|(part, held)| {
                    held.contains(&permission) && (part.is_empty() || on == part || on.starts_with(&format!("{part}/")))
                });
                let expected = policy.allow(&whole, permission, Some(&repository)) && names(&path);
                prop_assert_eq!(policy.allow(&caller, permission, Some(&repository)), expected);
                let covered = policy.decide(&whole, permission, Some(&repository)) == Decision::Allow;
                prop_assert_eq!(policy.decide(&caller, permission, Some(&repository)) == Decision::Allow, covered && expected);
                let listed = policy.prefixes_for(&caller, permission);
                let within = |all: &Option<Vec<String>>| all.as_ref().is_none_or(|all| all.iter().any(|on| repository.is_within(on)));
                prop_assert_eq!(within(&listed), expected, "{:?}", listed);
                if let Some(listed) = &listed {
                    prop_assert!(listed.is_sorted());
                    prop_assert!(listed.iter().all(|on| !listed.iter().any(|other| other != on && is_below(on, other))));
                }
                // Without a repository: everywhere, or for the catalogue somewhere.
                let on_all = policy.allow(&caller, permission, None);
                prop_assert!(!on_all || policy.allow(&whole, permission, None));
                if permission == Permission::Catalog {
                    prop_assert_eq!(on_all, listed.is_none_or(|all| !all.is_empty()));
                } else {
                    prop_assert_eq!(on_all, policy.allow(&whole, permission, None) && parts.iter().any(|(on, held)| on.is_empty() && held.contains(&permission)));
                }
            }
            let own = policy.decide_upload(&Caller { expired_since: Some(1), ..caller.clone() }, "alice", &repository);
            prop_assert!(own != Decision::Allow || policy.decide(&caller, Permission::Push, Some(&repository)) == Decision::Allow);
        }
    }
}
