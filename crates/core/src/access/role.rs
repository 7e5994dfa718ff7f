//! Roles and the permissions that they are made of.
//!
//! A role is a name for a set of permissions, and every question is asked of the set: custom roles need no other
//! question later.

use std::fmt;
use std::ops::BitOr;
use std::str::FromStr;

/// What can be allowed, on a repository or on the registry as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Read manifests, blobs, tags and referrers of a repository.
    Pull,
    /// Upload blobs, mount, put manifests and tags, cancel uploads.
    Push,
    /// Delete manifests, tags and blobs.
    Delete,
    /// List repositories: those that the caller may pull.
    Catalog,
    /// Run the registry: metrics on the main port, upkeep.
    Admin,
}

impl Permission {
    /// Every permission, for tables.
    pub const ALL: [Self; 5] = [
        Self::Pull,
        Self::Push,
        Self::Delete,
        Self::Catalog,
        Self::Admin,
    ];
}

/// A set of permissions.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Permissions(u8);

impl Permissions {
    /// No permission at all.
    pub const NONE: Self = Self(0);

    const fn with(self, permission: Permission) -> Self {
        Self(self.0 | 1 << permission as u8)
    }

    /// Whether the permission is in the set.
    pub const fn contains(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u8) != 0
    }
}

impl BitOr for Permissions {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(Permission::ALL.iter().filter(|&&p| self.contains(p)))
            .finish()
    }
}

/// A named set of permissions, each holding all of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Role {
    /// Nothing.
    #[default]
    None,
    /// Pull and list.
    Reader,
    /// And push, mount, cancel uploads.
    Writer,
    /// And delete.
    Maintainer,
    /// And run the registry; below a prefix only what lies there.
    Admin,
}

impl Role {
    /// Every role, weakest first.
    pub const ALL: [Self; 5] = [
        Self::None,
        Self::Reader,
        Self::Writer,
        Self::Maintainer,
        Self::Admin,
    ];

    /// The name that configuration uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Maintainer => "maintainer",
            Self::Admin => "admin",
        }
    }

    /// What the role is made of.
    pub const fn permissions(self) -> Permissions {
        match self {
            Self::None => Permissions::NONE,
            Self::Reader => Permissions::NONE
                .with(Permission::Pull)
                .with(Permission::Catalog),
            Self::Writer => Self::Reader.permissions().with(Permission::Push),
            Self::Maintainer => Self::Writer.permissions().with(Permission::Delete),
            Self::Admin => Self::Maintainer.permissions().with(Permission::Admin),
        }
    }
}

/// A word that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no role; the roles are none, reader, writer, maintainer and admin")]
pub struct RoleError(String);

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| RoleError(text.into()))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_nonsense_names_the_roles() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        let error = "Writer".parse::<Role>().unwrap_err().to_string();
        assert!(
            error.contains("\"Writer\"") && error.contains("maintainer"),
            "{error}"
        );
    }

    #[test]
    fn roles_hold_exactly_what_the_documentation_says() {
        use Permission::*;
        let table: [(Role, &[Permission]); 5] = [
            (Role::None, &[]),
            (Role::Reader, &[Pull, Catalog]),
            (Role::Writer, &[Pull, Catalog, Push]),
            (Role::Maintainer, &[Pull, Catalog, Push, Delete]),
            (Role::Admin, &[Pull, Catalog, Push, Delete, Admin]),
        ];
        for (role, held) in table {
            for permission in Permission::ALL {
                assert_eq!(
                    role.permissions().contains(permission),
                    held.contains(&permission),
                    "{role} {permission:?}"
                );
            }
        }
    }

    #[test]
    fn a_higher_role_never_lacks_what_a_lower_one_has() {
        for pair in Role::ALL.windows(2) {
            assert!(pair[0] < pair[1]);
            assert_eq!(
                pair[0].permissions() | pair[1].permissions(),
                pair[1].permissions()
            );
        }
    }
}
