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
