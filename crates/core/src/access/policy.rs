//! Grants, compiled so that a question costs a few hash look-ups and no allocation.
//!
//! Grants add up along the path `a`, `a/b`, `a/b/c`; there is no rule that takes away, so the order of grants never
//! matters. What anonymous may do, everybody may: signing in must not cost rights.

use std::collections::{BTreeSet, HashMap};

use wharf_oci::RepositoryName;

use super::principal::{ANONYMOUS, Principal, Source};
use super::role::{Permission, Permissions, Role};

/// The local user that the first start makes; the only one with [`Role::Admin`] from birth.
pub const ADMIN: &str = "admin";

/// Whom a grant is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// Everybody, signed in or not.
    Anonymous,
    /// One user, wherever kept.
    User(String),
}

impl Who {
    /// Reads the `who` of a grant: `anonymous` or the name of a user.
    pub fn parse(text: &str) -> Result<Self, GrantError> {
        if text == ANONYMOUS {
            return Ok(Self::Anonymous);
        }
        check_user_name(text).map_err(|reason| GrantError::Who {
            who: text.into(),
            reason,
        })?;
        Ok(Self::User(text.into()))
    }
}

/// Why a string cannot be a user's name. Basic credentials end the name at the first colon (BASIC-1).
pub(crate) fn check_user_name(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("the name is empty"),
        ANONYMOUS => Err("the name \"anonymous\" is reserved for requests without credentials"),
        name if name.len() > 255 => Err("the name is longer than 255 bytes"),
        name if name.contains(':') => Err("the name holds a colon"),
        name if name.chars().any(char::is_control) => Err("the name holds a control character"),
        _ => Ok(()),
    }
}

/// One line of rights: who, which role, where.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Grant {
    /// Whom it is for.
    pub who: Who,
    /// What they get.
    pub role: Role,
    /// A repository or any prefix of its path on `/` borders; `None` or `""` is everywhere.
    pub on: Option<String>,
}

/// A grant that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Not a user's name.
    #[error("grant for {who:?}: {reason}")]
    Who {
        /// As written.
        who: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not a prefix of a repository's path.
    #[error(
        "grant on {on:?}: {reason}; write a path such as \"team/a\", or leave `on` out for everywhere"
    )]
    On {
        /// As written.
        on: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Anonymous as an administrator.
    #[error(
        "anonymous cannot be admin; maintainer is the most that a request without credentials may be"
    )]
    AnonymousAdmin,
}

/// What one kind of principal holds.
#[derive(Debug, Default, Clone)]
struct Held {
    everywhere: Permissions,
    below: HashMap<Box<str>, Permissions>,
}

impl Held {
    fn add(&mut self, on: &str, permissions: Permissions) {
        if permissions == Permissions::NONE {
            return;
        }
        if on.is_empty() {
            self.everywhere = self.everywhere | permissions;
        } else {
            let held = self.below.entry(on.into()).or_default();
            *held = *held | permissions;
        }
    }

    fn anywhere(&self, permission: Permission) -> bool {
        self.everywhere.contains(permission)
            || self.below.values().any(|held| held.contains(permission))
    }

    fn on(&self, permission: Permission, repository: &str) -> bool {
        if self.everywhere.contains(permission) {
            return true;
        }
        if self.below.is_empty() {
            return false;
        }
        let borders = repository
            .match_indices('/')
            .map(|(at, _)| at)
            .chain([repository.len()]);
        borders
            .filter_map(|end| self.below.get(&repository[..end]))
            .any(|held| held.contains(permission))
    }
}

/// All rights there are, as of one moment.
#[derive(Debug, Default, Clone)]
pub struct Policy {
    anonymous: Held,
    htpasswd: Permissions,
    users: HashMap<String, Held>,
}

impl Policy {
    /// Compiles rights: what anonymous may do everywhere, what each htpasswd user may do everywhere, and the grants.
    pub fn new(anonymous: Role, htpasswd: Role, grants: &[Grant]) -> Result<Self, GrantError> {
        let mut policy = Self {
            htpasswd: htpasswd.permissions(),
            ..Self::default()
        };
        let global = Grant {
            who: Who::Anonymous,
            role: anonymous,
            on: None,
        };
        for grant in [&global].into_iter().chain(grants) {
            let on = check_prefix(grant.on.as_deref().unwrap_or_default())?;
            let held = match &grant.who {
                Who::Anonymous if grant.role == Role::Admin => {
                    return Err(GrantError::AnonymousAdmin);
                }
                Who::Anonymous => &mut policy.anonymous,
                Who::User(name) => policy.users.entry(name.clone()).or_default(),
            };
            held.add(on, grant.role.permissions());
        }
        Ok(policy)
    }

    /// The users that grants name.
    pub fn grantees(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(String::as_str)
    }

    /// Whether the principal has the permission on the repository.
    ///
    /// Without a repository: for [`Permission::Catalog`] whether there is anything to list, for every other permission
    /// whether it is held everywhere.
    pub fn allow(
        &self,
        principal: &Principal,
        permission: Permission,
        repository: Option<&RepositoryName>,
    ) -> bool {
        let (global, personal) = self.held(principal);
        if global.contains(permission) {
            return true;
        }
        [Some(&self.anonymous), personal]
            .into_iter()
            .flatten()
            .any(|held| match (repository, permission) {
                (Some(repository), _) => held.on(permission, repository.as_str()),
                (None, Permission::Catalog) => held.anywhere(permission),
                (None, _) => held.everywhere.contains(permission),
            })
    }

    /// The prefixes below which the principal has the permission, sorted, none within another; `None` is everywhere.
    pub fn prefixes_for(
        &self,
        principal: &Principal,
        permission: Permission,
    ) -> Option<Vec<String>> {
        let (global, personal) = self.held(principal);
        let mut prefixes = BTreeSet::new();
        if global.contains(permission) {
            return None;
        }
        for held in [Some(&self.anonymous), personal].into_iter().flatten() {
            if held.everywhere.contains(permission) {
                return None;
            }
            prefixes.extend(
                held.below
                    .iter()
                    .filter(|(_, held)| held.contains(permission))
                    .map(|(on, _)| &**on),
            );
        }
        let covered = |on: &str| {
            on.match_indices('/')
                .any(|(at, _)| prefixes.contains(&on[..at]))
        };
        Some(
            prefixes
                .iter()
                .filter(|on| !covered(on))
                .map(|&on| on.to_owned())
                .collect(),
        )
    }

    fn held(&self, principal: &Principal) -> (Permissions, Option<&Held>) {
        match principal {
            Principal::Anonymous => (Permissions::NONE, None),
            Principal::User { name, source } => {
                let global = match source {
                    Source::Local if **name == *ADMIN => Role::Admin.permissions(),
                    Source::Local => Permissions::NONE,
                    Source::Htpasswd => self.htpasswd,
                };
                (global, self.users.get(&**name))
            }
        }
    }
}

/// A prefix as it is kept: without a slash at its end.
fn check_prefix(on: &str) -> Result<&str, GrantError> {
    let prefix = on.strip_suffix('/').unwrap_or(on);
    if on.is_empty() {
        return Ok(on);
    }
    match RepositoryName::parse(prefix) {
        Ok(_) => Ok(prefix),
        Err(reason) => Err(GrantError::On {
            on: on.into(),
            reason: reason.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> RepositoryName {
        RepositoryName::parse(text).unwrap()
    }

    fn user(name: &str, source: Source) -> Principal {
        Principal::User {
            name: name.into(),
            source,
        }
    }

    fn grant(who: &str, role: Role, on: &str) -> Grant {
        Grant {
            who: Who::parse(who).unwrap(),
            role,
            on: (!on.is_empty()).then(|| on.to_owned()),
        }
    }

    fn policy(grants: &[Grant]) -> Policy {
        Policy::new(Role::None, Role::None, grants).unwrap()
    }

    #[test]
    fn a_grant_holds_on_borders_of_the_path_only() {
        let policy = policy(&[grant("alice", Role::Reader, "team/a")]);
        let alice = user("alice", Source::Htpasswd);
        for (repository, allowed) in [
            ("team/a", true),
            ("team/a/b/c", true),
            ("team/ab", false),
            ("team", false),
            ("other/team/a", false),
            ("team/a-b", false),
            ("team/a.b", false),
        ] {
            assert_eq!(
                policy.allow(&alice, Permission::Pull, Some(&name(repository))),
                allowed,
                "{repository}"
            );
        }
    }

    #[test]
    fn what_anonymous_may_everybody_may() {
        let policy = Policy::new(
            Role::None,
            Role::None,
            &[grant("anonymous", Role::Reader, "public")],
        )
        .unwrap();
        for principal in [
            Principal::Anonymous,
            user("x", Source::Htpasswd),
            user("y", Source::Local),
        ] {
            assert!(policy.allow(&principal, Permission::Pull, Some(&name("public/a"))));
            assert!(!policy.allow(&principal, Permission::Push, Some(&name("public/a"))));
            assert!(policy.allow(&principal, Permission::Catalog, None));
        }
    }

    #[test]
    fn only_the_local_admin_is_born_an_administrator() {
        let policy = Policy::new(Role::None, Role::Writer, &[]).unwrap();
        assert!(policy.allow(&user(ADMIN, Source::Local), Permission::Admin, None));
        assert!(!policy.allow(&user(ADMIN, Source::Htpasswd), Permission::Admin, None));
        assert!(!policy.allow(
            &user("alice", Source::Local),
            Permission::Pull,
            Some(&name("a"))
        ));
        assert!(policy.allow(
            &user("alice", Source::Htpasswd),
            Permission::Push,
            Some(&name("a"))
        ));
    }

    #[test]
    fn admin_below_a_prefix_does_not_run_the_registry() {
        let policy = policy(&[grant("alice", Role::Admin, "team")]);
        let alice = user("alice", Source::Htpasswd);
        assert!(policy.allow(&alice, Permission::Admin, Some(&name("team/a"))));
        assert!(!policy.allow(&alice, Permission::Admin, None));
        assert!(!policy.allow(&alice, Permission::Delete, None));
    }

    #[test]
    fn grants_that_cannot_be_meant_are_refused_with_the_way_out() {
        let refused = |grant: Grant| {
            Policy::new(Role::None, Role::None, &[grant])
                .unwrap_err()
                .to_string()
        };
        for on in [
            "Team",
            "/team",
            "team//a",
            "*",
            "team/*",
            "te am",
            "team/a:v1",
            "/",
        ] {
            let error = refused(grant("alice", Role::Reader, on));
            assert!(
                error.contains(&format!("{on:?}")) && error.contains("leave `on` out"),
                "{error}"
            );
        }
        assert!(
            refused(grant("anonymous", Role::Admin, "team")).contains("maintainer is the most")
        );
        assert!(Policy::new(Role::Admin, Role::None, &[]).is_err());
        for who in ["", "a:b", "a\nb"] {
            assert!(
                Who::parse(who)
                    .unwrap_err()
                    .to_string()
                    .contains(&format!("{who:?}"))
            );
        }
        assert_eq!(
            policy(&[grant("alice", Role::Reader, "team/")])
                .prefixes_for(&user("alice", Source::Htpasswd), Permission::Pull),
            Some(vec!["team".to_owned()])
        );
    }

    #[test]
    fn prefixes_are_sorted_and_none_lies_within_another() {
        let grants = [
            ("a/b/c", Role::Reader),
            ("z", Role::Writer),
            ("a/b", Role::Reader),
            ("a-b", Role::Reader),
            ("a/c", Role::None),
        ];
        let policy = policy(&grants.map(|(on, role)| grant("alice", role, on)));
        let alice = user("alice", Source::Htpasswd);
        assert_eq!(
            policy.prefixes_for(&alice, Permission::Pull).unwrap(),
            ["a-b", "a/b", "z"]
        );
        assert_eq!(
            policy.prefixes_for(&alice, Permission::Push).unwrap(),
            ["z"]
        );
        assert!(
            policy
                .prefixes_for(&alice, Permission::Delete)
                .unwrap()
                .is_empty()
        );
        assert!(
            policy
                .prefixes_for(&user(ADMIN, Source::Local), Permission::Pull)
                .is_none()
        );
    }

    /// The same rights, told without any cleverness.
    fn model(
        anonymous: Role,
        htpasswd: Role,
        grants: &[Grant],
        principal: &Principal,
        permission: Permission,
        repository: &RepositoryName,
    ) -> bool {
        let mut roles = vec![anonymous];
        match principal {
            Principal::Anonymous => {}
            Principal::User {
                source: Source::Htpasswd,
                ..
            } => roles.push(htpasswd),
            Principal::User {
                name,
                source: Source::Local,
            } if &**name == "admin" => roles.push(Role::Admin),
            Principal::User { .. } => {}
        }
        for grant in grants {
            let mine =
                grant.who == Who::Anonymous || grant.who == Who::User(principal.name().to_owned());
            if mine && repository.is_within(grant.on.as_deref().unwrap_or("")) {
                roles.push(grant.role);
            }
        }
        let least = match permission {
            Permission::Pull | Permission::Catalog => Role::Reader,
            Permission::Push => Role::Writer,
            Permission::Delete => Role::Maintainer,
            Permission::Admin => Role::Admin,
        };
        roles.into_iter().any(|role| role >= least)
    }

    fn paths() -> impl Strategy<Value = String> {
        proptest::collection::vec(prop::sample::select(vec!["a", "b", "ab", "a-b"]), 1..4)
            .prop_map(|parts| parts.join("/"))
    }

    fn grants() -> impl Strategy<Value = Vec<Grant>> {
        let one = (
            prop::sample::select(vec!["anonymous", "alice", "bob", "admin"]),
            prop::sample::select(&Role::ALL),
            prop::option::of(paths()),
        );
        let one = one.prop_map(|(who, role, on)| {
            let who = Who::parse(who).unwrap();
            let role = if who == Who::Anonymous {
                role.min(Role::Maintainer)
            } else {
                role
            };
            Grant { who, role, on }
        });
        proptest::collection::vec(one, 0..8)
    }

    fn principals() -> impl Strategy<Value = Principal> {
        let user = |name: &str, source| Principal::User {
            name: name.into(),
            source,
        };
        prop::sample::select(vec![
            Principal::Anonymous,
            user("alice", Source::Htpasswd),
            user("bob", Source::Local),
            user("admin", Source::Local),
            user("carol", Source::Htpasswd),
        ])
    }

    fn low() -> impl Strategy<Value = Role> {
        prop::sample::select(vec![
            Role::None,
            Role::Reader,
            Role::Writer,
            Role::Maintainer,
        ])
    }

    proptest! {
        #[test]
        fn the_compiled_rights_are_those_of_the_model(
            anonymous in low(), htpasswd in low(), grants in grants(), principal in principals(), path in paths(),
        ) {
            let policy = Policy::new(anonymous, htpasswd, &grants).unwrap();
            let repository = name(&path);
            for permission in Permission::ALL {
                let expected = model(anonymous, htpasswd, &grants, &principal, permission, &repository);
                prop_assert_eq!(policy.allow(&principal, permission, Some(&repository)), expected);
                let listed = policy.prefixes_for(&principal, permission);
                let within = listed.is_none_or(|prefixes| prefixes.iter().any(|prefix| repository.is_within(prefix)));
                prop_assert_eq!(within, expected, "listing shows exactly what is allowed");
            }
        }

        #[test]
        fn one_more_grant_takes_nothing_away(
            grants in grants(), more in grants(), principal in principals(), path in paths(),
        ) {
            let before = Policy::new(Role::None, Role::None, &grants).unwrap();
            let after = Policy::new(Role::None, Role::None, &[grants, more].concat()).unwrap();
            let repository = name(&path);
            for permission in Permission::ALL {
                for on in [Some(&repository), None] {
                    prop_assert!(!before.allow(&principal, permission, on) || after.allow(&principal, permission, on));
                }
            }
        }

        #[test]
        fn rights_reach_down_and_never_up(grants in grants(), principal in principals(), path in paths(), below in paths()) {
            let policy = Policy::new(Role::None, Role::None, &grants).unwrap();
            let (upper, lower) = (name(&path), name(&format!("{path}/{below}")));
            for permission in Permission::ALL {
                prop_assert!(!policy.allow(&principal, permission, Some(&upper)) || policy.allow(&principal, permission, Some(&lower)));
                prop_assert!(permission == Permission::Catalog || !policy.allow(&principal, permission, None) || policy.allow(&principal, permission, Some(&upper)));
            }
        }

        #[test]
        fn the_order_of_grants_does_not_matter(grants in grants(), principal in principals(), path in paths()) {
            let reversed: Vec<_> = grants.iter().rev().cloned().collect();
            let (one, two) = (policy(&grants), policy(&reversed));
            for permission in Permission::ALL {
                prop_assert_eq!(one.allow(&principal, permission, Some(&name(&path))), two.allow(&principal, permission, Some(&name(&path))));
                prop_assert_eq!(one.prefixes_for(&principal, permission), two.prefixes_for(&principal, permission));
            }
        }
    }
}
