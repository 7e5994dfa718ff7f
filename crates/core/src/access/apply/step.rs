//! One change of a plan: how it is told, and how it is made.

use std::fmt;

use super::super::binding::{Binding, Subject};
use super::super::change::{Changer, Granting};
use super::super::load::Visibility;
use super::super::role::Permissions;
use super::ApplyError;
use super::trust::{WantedIssuer, WantedRule};
use crate::identity::{self, Made, NewRobot};
use crate::registry::Registry;
use crate::workload::Bearer;

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// Something goes.
    Remove,
    /// Something becomes another thing.
    Change,
    /// Something is made.
    Add,
}

impl Act {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Remove => "remove",
            Self::Change => "change",
            Self::Add => "add",
        }
    }
}

/// One change. `Display` tells what it is about.
#[derive(Debug, Clone)]
pub enum Step {
    /// A namespace, or its visibility.
    SetNamespace {
        /// Its path.
        path: String,
        /// As it is; `None`: it has no settings.
        from: Option<Visibility>,
        /// As it shall be.
        to: Visibility,
    },
    /// An own role.
    SetRole {
        /// Its name.
        name: String,
        /// What it is made of; `None`: it is not there.
        from: Option<Permissions>,
        /// What it shall be made of.
        to: Permissions,
    },
    /// An own role goes.
    RemoveRole(String),
    /// A group.
    MakeGroup(String),
    /// Whose tokens are trusted.
    SetIssuer {
        /// As it shall be.
        issuer: Box<WantedIssuer>,
        /// There is one, which is otherwise.
        known: bool,
    },
    /// A rule on tokens.
    SetRule {
        /// As it shall be.
        rule: Box<WantedRule>,
        /// There is one, which is otherwise.
        known: bool,
    },
    /// A rule goes, with what it was granted.
    RemoveRule(String),
    /// An issuer goes, with its secret.
    RemoveIssuer(String),
    /// A robot, with a secret.
    MakeRobot(NewRobot),
    /// Somebody comes into a group.
    AddMember {
        /// The group.
        group: String,
        /// Who.
        who: Subject,
    },
    /// A provider's group leads to a group.
    AddSource {
        /// The group.
        group: String,
        /// `<provider>:<group>`.
        source: String,
    },
    /// A binding.
    Grant(Binding),
    /// Exactly this binding goes.
    Revoke(Binding),
    /// Somebody leaves a group.
    RemoveMember {
        /// The group.
        group: String,
        /// Who.
        who: Subject,
    },
    /// A provider's group leads to a group no longer.
    RemoveSource {
        /// The group.
        group: String,
        /// `<provider>:<group>`.
        source: String,
    },
    /// A group goes, with who is in it.
    RemoveGroup(String),
    /// A namespace goes, with the bindings on exactly its path.
    RemoveNamespace {
        /// Its path.
        path: String,
        /// These.
        bindings: Vec<Binding>,
    },
    /// A robot goes, with its secrets.
    RemoveRobot(String),
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetNamespace { path, from, to } => match from {
                None => write!(out, "namespace {path}: {}", to.as_str()),
                Some(from) => write!(out, "namespace {path}: {} → {}", from.as_str(), to.as_str()),
            },
            Self::SetRole { name, from, to } => match from {
                None => write!(out, "role {name}: {to}"),
                Some(from) => write!(out, "role {name}: {from} → {to}"),
            },
            Self::RemoveRole(name) => write!(out, "role {name}"),
            Self::MakeGroup(name) | Self::RemoveGroup(name) => write!(out, "group {name}"),
            Self::MakeRobot(new) => write!(out, "robot {}", new.name),
            Self::SetIssuer { issuer, .. } => {
                let settings = &issuer.settings;
                let (name, kind) = (&issuer.name, settings.kind.as_str());
                write!(out, "issuer {name}: {kind} at {}", settings.issuer)
            }
            Self::SetRule { rule, .. } => {
                write!(out, "rule {} on tokens of {}", rule.name, rule.issuer)
            }
            Self::RemoveRule(name) => write!(out, "rule {name}, with what it was granted"),
            Self::RemoveIssuer(name) => write!(out, "issuer {name}"),
            Self::RemoveRobot(name) => write!(out, "robot {name}, with its secrets"),
            Self::AddMember { group, who } | Self::RemoveMember { group, who } => {
                write!(out, "{who} in group {group}")
            }
            Self::AddSource { group, source } | Self::RemoveSource { group, source } => {
                write!(out, "whoever is in {source} in group {group}")
            }
            Self::Grant(binding) | Self::Revoke(binding) => binding.fmt(out),
            Self::RemoveNamespace { path, bindings } => {
                write!(out, "settings of namespace {path}")?;
                bindings
                    .iter()
                    .try_for_each(|binding| write!(out, ", and {binding}"))
            }
        }
    }
}

impl Step {
    /// What it does.
    pub const fn act(&self) -> Act {
        match self {
            Self::SetNamespace { from: Some(_), .. }
            | Self::SetRole { from: Some(_), .. }
            | Self::SetIssuer { known: true, .. }
            | Self::SetRule { known: true, .. } => Act::Change,
            Self::SetNamespace { .. }
            | Self::SetRole { .. }
            | Self::SetIssuer { .. }
            | Self::SetRule { .. }
            | Self::MakeGroup(_)
            | Self::MakeRobot(_)
            | Self::AddMember { .. }
            | Self::AddSource { .. }
            | Self::Grant(_) => Act::Add,
            Self::Revoke(_)
            | Self::RemoveMember { .. }
            | Self::RemoveSource { .. }
            | Self::RemoveGroup(_)
            | Self::RemoveRole(_)
            | Self::RemoveNamespace { .. }
            | Self::RemoveRule(_)
            | Self::RemoveIssuer(_)
            | Self::RemoveRobot(_) => Act::Remove,
        }
    }

    /// What it is about.
    pub const fn sort(&self) -> &'static str {
        match self {
            Self::SetNamespace { .. } | Self::RemoveNamespace { .. } => "namespace",
            Self::SetRole { .. } | Self::RemoveRole(_) => "role",
            Self::SetIssuer { .. } | Self::RemoveIssuer(_) => "issuer",
            Self::SetRule { .. } | Self::RemoveRule(_) => "rule",
            Self::MakeGroup(_) | Self::RemoveGroup(_) => "group",
            Self::MakeRobot(_) | Self::RemoveRobot(_) => "robot",
            Self::AddMember { .. } | Self::RemoveMember { .. } => "member",
            Self::AddSource { .. } | Self::RemoveSource { .. } => "source",
            Self::Grant(_) | Self::Revoke(_) => "binding",
        }
    }

    /// Whether it counts the epoch up by one, or not at all; the others may take several transactions.
    pub(super) const fn is_one_change(&self) -> bool {
        !matches!(
            self,
            Self::RemoveGroup(_) | Self::RemoveNamespace { .. } | Self::RemoveRobot(_)
        )
    }

    /// Makes it so, if it is allowed; gives the secret of a robot that was made.
    pub(super) async fn take(
        &self,
        registry: &Registry,
        changer: Changer<'_>,
    ) -> Result<Option<Made>, ApplyError> {
        let access = &registry.access;
        let now = registry.clock.now_ms();
        match self {
            Self::SetNamespace { path, to, .. } => {
                access.set_namespace(changer, path, *to, now).await?;
            }
            Self::SetRole { name, to, .. } => {
                access.set_role(changer, name, Some(*to), now).await?;
            }
            Self::RemoveRole(name) => {
                access.set_role(changer, name, None, now).await?;
            }
            Self::SetIssuer { issuer, .. } => {
                let (name, settings) = (&issuer.name, &issuer.settings);
                access
                    .put_issuer(changer, name, settings, &Bearer::Keep, None, now)
                    .await?;
            }
            Self::SetRule { rule, .. } => {
                let (name, issuer) = (&rule.name, &rule.issuer);
                access
                    .put_rule(changer, name, issuer, &rule.settings, None, now)
                    .await?;
            }
            Self::RemoveRule(name) => {
                access.remove_rule(changer, name, None, now).await?;
            }
            Self::RemoveIssuer(name) => {
                access.remove_issuer(changer, name, None, now).await?;
            }
            Self::MakeGroup(name) => {
                access.set_group(changer, name, true, now).await?;
            }
            Self::MakeRobot(new) => {
                let made = identity::create_robot(registry, changer, new).await?;
                return Ok(Some(made));
            }
            Self::AddMember { group, who } => {
                access.set_member(changer, group, who, true, now).await?;
            }
            Self::AddSource { group, source } => {
                access.set_source(changer, group, source, true, now).await?;
            }
            Self::RemoveSource { group, source } => {
                access
                    .set_source(changer, group, source, false, now)
                    .await?;
            }
            Self::Grant(binding) => {
                let granting = Granting {
                    subject: binding.subject.clone(),
                    role: binding.role.clone(),
                    on: binding.on.clone(),
                    conditions: binding.conditions.clone(),
                };
                access.grant(changer, &granting, now).await?;
            }
            Self::Revoke(binding) => {
                access.revoke_one(changer, binding, now).await?;
            }
            Self::RemoveMember { group, who } => {
                access.set_member(changer, group, who, false, now).await?;
            }
            Self::RemoveGroup(name) => {
                access.set_group(changer, name, false, now).await?;
            }
            Self::RemoveNamespace { path, .. } => {
                access.remove_namespace(changer, path, now).await?;
            }
            Self::RemoveRobot(name) => {
                identity::remove_robot(registry, changer, name, None).await?;
            }
        }
        Ok(None)
    }
}
