//! Roles and the permissions that they are made of.
//!
//! A role is a name for a set of permissions, and every question is asked of the set: custom roles need no other
//! question later.

use std::fmt;
use std::ops::BitOr;
use std::str::FromStr;

/// What can be allowed, on a repository or namespace or on the registry as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Read manifests, blobs, tags and referrers of a repository.
    Pull,
    /// Upload blobs, mount, put manifests by digest, cancel uploads.
    Push,
    /// Give a manifest a tag that does not exist yet.
    TagCreate,
    /// Let a tag that exists stand at another manifest.
    TagMove,
    /// Delete manifests, tags and blobs.
    Delete,
    /// Be shown the names of repositories in lists.
    Catalog,
    /// See the settings of a namespace, and who may do what there.
    ReadSettings,
    /// Change the settings of a namespace, such as its visibility.
    ManageSettings,
    /// Grant and revoke.
    ManageBindings,
    /// Make and remove the robots of a namespace.
    ManageRobots,
    /// Read the record of who did what.
    ReadAudit,
    /// Run the registry: metrics on the main port, upkeep, users, groups, roles.
    Admin,
}

impl Permission {
    /// Every permission, for tables.
    pub const ALL: [Self; 12] = [
        Self::Pull,
        Self::Push,
        Self::TagCreate,
        Self::TagMove,
        Self::Delete,
        Self::Catalog,
        Self::ReadSettings,
        Self::ManageSettings,
        Self::ManageBindings,
        Self::ManageRobots,
        Self::ReadAudit,
        Self::Admin,
    ];

    /// The word for commands, custom roles and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::TagCreate => "tag-create",
            Self::TagMove => "tag-move",
            Self::Delete => "delete",
            Self::Catalog => "catalog",
            Self::ReadSettings => "read-settings",
            Self::ManageSettings => "manage-settings",
            Self::ManageBindings => "manage-bindings",
            Self::ManageRobots => "manage-robots",
            Self::ReadAudit => "read-audit",
            Self::Admin => "admin",
        }
    }

    /// What it lets one do, as in "may `…` team/a".
    pub const fn doing(self) -> &'static str {
        match self {
            Self::Pull => "pull from",
            Self::Push => "push to",
            Self::TagCreate => "make tags in",
            Self::TagMove => "move tags of",
            Self::Delete => "delete from",
            Self::Catalog => "list",
            Self::ReadSettings => "see the settings of",
            Self::ManageSettings => "change the settings of",
            Self::ManageBindings => "grant rights on",
            Self::ManageRobots => "manage the robots of",
            Self::ReadAudit => "read the record of",
            Self::Admin => "administer",
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no permission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no permission; the permissions are pull, push, tag-create, tag-move, delete, catalog, read-settings, \
     manage-settings, manage-bindings, manage-robots, read-audit and admin"
)]
pub struct PermissionError(String);

impl FromStr for Permission {
    type Err = PermissionError;

    fn from_str(text: &str) -> Result<Self, PermissionError> {
        Self::ALL
            .into_iter()
            .find(|permission| permission.as_str() == text)
            .ok_or_else(|| PermissionError(text.into()))
    }
}

/// A set of permissions.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Permissions(u16);

impl Permissions {
    /// No permission at all.
    pub const NONE: Self = Self(0);

    /// The set with one more.
    #[must_use]
    pub const fn with(self, permission: Permission) -> Self {
        Self(self.0 | 1 << permission as u16)
    }

    /// Whether the permission is in the set.
    pub const fn contains(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u16) != 0
    }

    /// Whether every permission of the set is in the other one.
    pub const fn within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// What is in this set and not in the other one.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The permissions that are in both sets.
    #[must_use]
    pub const fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those in the set, in the order of [`Permission::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL
            .into_iter()
            .filter(move |&permission| self.contains(permission))
    }

    /// Reads words separated by commas.
    pub fn parse(text: &str) -> Result<Self, PermissionError> {
        text.split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .map(str::parse)
            .collect()
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(all: I) -> Self {
        all.into_iter().fold(Self::NONE, Self::with)
    }
}

impl BitOr for Permissions {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, permission) in self.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{permission}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// A named set of permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Role {
    /// Nothing.
    #[default]
    None,
    /// Pull and list.
    Reader,
    /// And push, and make tags; what a tag stands at never changes by it.
    Publisher,
    /// And move tags.
    Writer,
    /// And delete.
    Maintainer,
    /// And manage bindings, robots and settings of the namespace, and read its record.
    Owner,
    /// See names, settings and the record; no content.
    Auditor,
    /// Everything; below a prefix only what lies there.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 8] = [
        Self::None,
        Self::Reader,
        Self::Publisher,
        Self::Writer,
        Self::Maintainer,
        Self::Owner,
        Self::Auditor,
        Self::Admin,
    ];

    /// The name that configuration uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Reader => "reader",
            Self::Publisher => "publisher",
            Self::Writer => "writer",
            Self::Maintainer => "maintainer",
            Self::Owner => "owner",
            Self::Auditor => "auditor",
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
            Self::Publisher => Self::Reader
                .permissions()
                .with(Permission::Push)
                .with(Permission::TagCreate),
            Self::Writer => Self::Publisher.permissions().with(Permission::TagMove),
            Self::Maintainer => Self::Writer.permissions().with(Permission::Delete),
            Self::Owner => Self::Maintainer
                .permissions()
                .with(Permission::ReadSettings)
                .with(Permission::ManageSettings)
                .with(Permission::ManageBindings)
                .with(Permission::ManageRobots)
                .with(Permission::ReadAudit),
            Self::Auditor => Permissions::NONE
                .with(Permission::Catalog)
                .with(Permission::ReadSettings)
                .with(Permission::ReadAudit),
            Self::Admin => Self::Owner.permissions().with(Permission::Admin),
        }
    }
}

/// A word that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no built-in role; those are none, reader, publisher, writer, maintainer, owner, auditor and admin (own roles are no part of the configuration: `wharf grant` gives them, and for rates name the built-in role whose rights they include)"
)]
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
        let maintainer = [Pull, Catalog, Push, TagCreate, TagMove, Delete];
        let owner = [
            ReadSettings,
            ManageSettings,
            ManageBindings,
            ManageRobots,
            ReadAudit,
        ];
        let table: [(Role, Vec<Permission>); 8] = [
            (Role::None, vec![]),
            (Role::Reader, vec![Pull, Catalog]),
            (Role::Publisher, vec![Pull, Catalog, Push, TagCreate]),
            (Role::Writer, vec![Pull, Catalog, Push, TagCreate, TagMove]),
            (Role::Maintainer, maintainer.to_vec()),
            (Role::Owner, [&maintainer[..], &owner].concat()),
            (Role::Auditor, vec![Catalog, ReadSettings, ReadAudit]),
            (Role::Admin, Permission::ALL.to_vec()),
        ];
        for (role, holds) in table {
            for permission in Permission::ALL {
                assert_eq!(
                    role.permissions().contains(permission),
                    holds.contains(&permission),
                    "{role} {permission:?}"
                );
            }
            let words = role.permissions().to_string();
            assert_eq!(Permissions::parse(&words), Ok(role.permissions()));
        }
        let error = Permissions::parse("pull,fly").unwrap_err().to_string();
        assert!(
            error.contains("\"fly\"") && error.contains("tag-move"),
            "{error}"
        );
    }
}
