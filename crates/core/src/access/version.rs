//! Versions of what rights are made of: groups, roles, namespaces, lists of bindings.
//!
//! None is kept: a version is a number made of what there is, by the policy of one epoch. A change that is meant for one is
//! judged by that policy and made under its epoch, so of two who mean the same state one is told that it is no longer so.

use sha2::{Digest as _, Sha256};

use super::binding::{Binding, Subject};
use super::load::Visibility;
use super::policy::Policy;
use super::principal::{Principal, Source};
use super::role::Permissions;
use super::table::Table;
use super::{Access, Change, GroupView};

/// Whose bindings a list shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// Those that reach a principal: its own, its groups', and those of everybody.
    Principal(Principal),
    /// Those of exactly this subject.
    Subject(Subject),
}

/// Which bindings a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// Of whom; `None`: of everybody.
    pub who: Option<Holder>,
    /// Those that reach this path from above, and those below it; `None`: wherever.
    pub on: Option<String>,
}

/// What a change of one thing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set {
    /// Whether anything changed.
    pub change: Change,
    /// What it is since then; `None`: it is gone.
    pub version: Option<i64>,
}

/// A number for these parts, another one for others.
fn number<'a>(parts: impl IntoIterator<Item = &'a str>) -> i64 {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize()[..8]);
    // Never 0, which stands for what is not there.
    (u64::from_le_bytes(first) >> 1).cast_signed().max(1)
}

/// The version of a role that is made of these.
pub fn role_version(name: &str, permissions: Permissions) -> i64 {
    number(["role", name, &permissions.to_string()])
}

/// The version of a namespace with this visibility.
pub fn namespace_version(path: &str, visibility: Visibility) -> i64 {
    number(["namespace", path, visibility.as_str()])
}

impl GroupView {
    /// One that is there, with nobody in it.
    pub(super) fn empty(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            members: Vec::new(),
            sources: Vec::new(),
            outside: Vec::new(),
        }
    }

    /// Its version, whatever the order of members.
    pub fn version(&self) -> i64 {
        let mut parts = vec!["group", &self.name];
        for (what, all) in [
            ("members", &self.members),
            ("sources", &self.sources),
            ("outside", &self.outside),
        ] {
            let mut all: Vec<&str> = all.iter().map(String::as_str).collect();
            all.sort_unstable();
            all.dedup();
            parts.push(what);
            parts.extend(all);
        }
        number(parts)
    }
}

impl Policy {
    /// A group and who is in it, if it is there.
    pub fn group_view(&self, name: &str) -> Option<GroupView> {
        let group = self.groups.get(name).filter(|group| group.there)?;
        let all = |table: &Table<Subject, ()>| {
            let mut all: Vec<_> = table.iter().map(|(who, ())| who).collect();
            all.sort_unstable_by_key(|who| who.row());
            all.into_iter().map(ToString::to_string).collect()
        };
        Some(GroupView {
            name: name.to_owned(),
            members: all(&group.members),
            sources: (group.sources.iter())
                .map(|(provider, name)| format!("{provider}:{name}"))
                .collect(),
            outside: all(&group.outside),
        })
    }

    /// What a role of rows is made of, if it is there.
    pub fn custom_role(&self, name: &str) -> Option<Permissions> {
        let mut roles = self.roles.iter();
        let found = roles.find(|(known, _)| known == name);
        found.map(|(_, permissions)| *permissions)
    }

    /// The visibility of a namespace that has settings.
    pub fn visibility(&self, path: &str) -> Option<Visibility> {
        self.namespaces.get(path).copied()
    }

    pub(super) fn version_of_group(&self, name: &str) -> Option<i64> {
        self.group_view(name).map(|group| group.version())
    }

    pub(super) fn version_of_role(&self, name: &str) -> Option<i64> {
        let permissions = self.custom_role(name);
        permissions.map(|permissions| role_version(name, permissions))
    }

    pub(super) fn version_of_namespace(&self, path: &str) -> Option<i64> {
        let visibility = self.visibility(path);
        visibility.map(|visibility| namespace_version(path, visibility))
    }

    /// The bindings that such a list shows, in no order.
    pub fn shown(&self, wanted: &Shown) -> Vec<&Binding> {
        let mut all = match &wanted.who {
            Some(Holder::Subject(subject)) => self.bindings_to(subject).collect(),
            Some(Holder::Principal(principal)) => self.bindings_of(principal),
            None => self.bindings_on("", true),
        };
        if let Some(on) = &wanted.on {
            let near = self.bindings_on(on.trim_end_matches('/'), true).into_iter();
            let near: std::collections::HashSet<*const Binding> =
                near.map(std::ptr::from_ref).collect();
            all.retain(|one| near.contains(&std::ptr::from_ref(*one)));
        }
        all
    }

    /// The version of such a list, all of its pages together, as of that time: what has ended is shown otherwise.
    pub fn version_of_shown(&self, wanted: &Shown, now: i64) -> i64 {
        let told = |one: &Binding| {
            let ended = one.conditions.expires_at.is_some_and(|end| end <= now);
            let Binding {
                on,
                subject,
                role,
                conditions,
                origin,
                ..
            } = one;
            format!("{on}\n{subject}\n{role}\n{conditions}\n{origin}\n{ended}")
        };
        let mut all: Vec<String> = self.shown(wanted).into_iter().map(told).collect();
        all.sort_unstable();
        number(std::iter::once("bindings").chain(all.iter().map(String::as_str)))
    }
}

impl Access {
    /// Whose bindings are meant by a subject that a list is asked about.
    pub async fn whose(&self, subject: &Subject) -> crate::Result<Holder> {
        let name = |name: &str| name.into();
        Ok(Holder::Principal(match subject {
            Subject::Anonymous => Principal::Anonymous,
            Subject::Robot(robot) => Principal::Robot { name: name(robot) },
            Subject::User(user) => Principal::User {
                source: self.source_of(user).await?.unwrap_or(Source::Local),
                name: name(user),
            },
            Subject::Workload(rule) => Principal::Workload {
                name: format!("workload:{rule}").into(),
                rules: [name(rule)].into(),
            },
            other => return Ok(Holder::Subject(other.clone())),
        }))
    }
}
