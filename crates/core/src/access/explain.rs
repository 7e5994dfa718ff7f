//! Why somebody may do something, or what is missing and who could give it; and lists of bindings.
//!
//! For people and programs that ask about rights. Requests are decided by [`Policy::decide`], from the same bindings: a test
//! holds that both always agree.

use std::collections::BTreeSet;

use wharf_oci::RepositoryName;

use super::binding::{Binding, Subject, Tags, Unmet};
use super::compile::order;
use super::policy::{ADMIN, Policy, home, is_within, usual_tags};
use super::principal::{Caller, Circumstances, Principal, Source};
use super::role::{Permission, Permissions, Role};

/// Most names of those who could give a right.
const MOST_GRANTORS: usize = 20;

/// The answer to one question, with its reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Whether it is allowed.
    pub allowed: bool,
    /// The binding that gives it: without conditions if there is such a one.
    pub by: Option<Binding>,
    /// The groups through which the binding reaches the principal; empty when it does so by itself.
    pub groups: Vec<String>,
    /// The credential leaves out what its principal has.
    pub narrowed: bool,
    /// Bindings that would give it, were it not for a condition.
    pub unmet: Vec<(Binding, Unmet)>,
    /// Who could grant it: those who may manage bindings there and hold it themselves, as they are named in their bindings.
    pub grantors: Vec<Subject>,
}

/// Why nobody is let in under a name, whatever rights it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barred {
    /// There is none.
    Unknown,
    /// An administrator has locked them out.
    LockedOut,
    /// Their time is over.
    Ended,
    /// They sign in from other addresses only.
    Network,
}

impl Policy {
    /// Explains the decision on a caller, a permission and a path; tags as in [`Policy::allow_tags`], `None` for what the
    /// permission is usually about.
    pub fn explain(
        &self,
        caller: &Caller,
        permission: Permission,
        repository: Option<&RepositoryName>,
        tags: Option<Tags<'_>>,
    ) -> Explanation {
        let tags = tags.unwrap_or(usual_tags(permission));
        let path = repository.map_or("", RepositoryName::as_str);
        let mut by: Option<&Binding> = None;
        let mut unmet = Vec::new();
        let reaching = self.reaching(&caller.principal, path);
        for binding in reaching.filter(|one| one.permissions.contains(permission)) {
            match binding.conditions.unmet(&caller.circumstances, tags) {
                // Nearest to everywhere, and best without conditions: that is what revoking others would leave.
                None => match by {
                    Some(had) if had.conditions.is_empty() || !binding.conditions.is_empty() => {}
                    _ => by = Some(binding),
                },
                Some(reason) => unmet.push((binding.clone(), reason)),
            }
        }
        let left = caller.leaves(permission, repository);
        let allowed = by.is_some() && left;
        let groups = match by.map(|binding| &binding.subject) {
            Some(Subject::Group(name)) => vec![name.clone()],
            _ => Vec::new(),
        };
        Explanation {
            allowed,
            by: by.cloned(),
            groups,
            narrowed: by.is_some() && !left,
            unmet: if allowed { Vec::new() } else { unmet },
            grantors: match by {
                Some(_) => Vec::new(),
                // Nobody could: a robot has rights in its own namespace only.
                None if home(&caller.principal).is_some_and(|home| !is_within(path, home)) => {
                    Vec::new()
                }
                None => self.grantors(permission, path),
            },
        }
    }

    /// Who can grant a permission on a path, now and for good: as the check of a grant has it, that takes the right to manage bindings
    /// and all that some role with the permission holds.
    fn grantors(&self, permission: Permission, path: &str) -> Vec<Subject> {
        let holding = self.bindings().filter(|binding| {
            binding.permissions.contains(Permission::ManageBindings)
                && binding.conditions.is_empty()
                && is_within(path, &binding.on)
        });
        let mut nearest: Vec<&Binding> = holding.collect();
        nearest.sort_by(|one, other| order(one, other));
        nearest.sort_by_key(|binding| std::cmp::Reverse(binding.on.len()));
        let mut seen = BTreeSet::new();
        let subjects = nearest.into_iter().map(|binding| &binding.subject);
        subjects
            .filter(|subject| seen.insert((*subject).clone()))
            .filter(|subject| self.has_members(subject))
            .filter(|subject| self.has_role_with(permission, self.always(subject, path)))
            .take(MOST_GRANTORS)
            .cloned()
            .collect()
    }

    fn has_members(&self, subject: &Subject) -> bool {
        let Subject::Group(name) = subject else {
            return true;
        };
        let group = self.groups.get(name.as_str());
        group.is_some_and(|group| {
            group.there && !(group.members.is_empty() && group.outside.is_empty())
        })
    }

    /// Whether some role with the permission holds nothing but these.
    fn has_role_with(&self, permission: Permission, held: Permissions) -> bool {
        let built_in = Role::ALL.into_iter().map(Role::permissions);
        let own = self.roles.iter().map(|(_, permissions)| *permissions);
        let mut roles = built_in.chain(own);
        roles.any(|role| role.contains(permission) && role.without(held) == Permissions::NONE)
    }

    /// What a subject holds on a path whatever the circumstances, and with it everybody whom it means.
    fn always(&self, subject: &Subject, path: &str) -> Permissions {
        let user = |name: &str| Principal::User {
            name: name.into(),
            source: Source::Local,
        };
        let principal = match subject {
            Subject::User(name) => user(name),
            Subject::LocalAdmin => user(ADMIN),
            Subject::Robot(name) => Principal::Robot {
                name: name.as_str().into(),
            },
            Subject::Workload(rule) => Principal::Workload {
                name: rule.as_str().into(),
                rules: [rule.as_str().into()].into(),
            },
            _ => Principal::Anonymous,
        };
        let signed_in = (*subject != Subject::Anonymous).then_some(&Subject::SignedIn);
        let own = std::iter::once(subject).chain(signed_in);
        let own = own.flat_map(|subject| self.bindings_to(subject));
        let own = own.filter(|binding| is_within(path, &binding.on));
        self.reaching(&principal, path)
            .chain(own)
            .filter(|binding| binding.conditions.is_empty())
            .fold(Permissions::NONE, |held, one| held | one.permissions)
    }

    /// Every binding that reaches a path from above, or that lies on or below it with `deep`.
    pub fn bindings_on(&self, path: &str, deep: bool) -> Vec<&Binding> {
        let reaches = |on: &str| is_within(path, on) || deep && is_within(on, path);
        let mut bindings: Vec<_> = self.bindings().filter(|one| reaches(&one.on)).collect();
        bindings.sort_by(|one, other| order(one, other));
        bindings
    }
}

impl Policy {
    /// The binding that allows something: the first from everywhere down, whatever the credential leaves of it. Costs what the
    /// decision costs, however many bindings there are.
    pub fn rule<'a>(
        &'a self,
        caller: &Caller,
        permission: Permission,
        repository: Option<&'a RepositoryName>,
        tags: Tags<'_>,
    ) -> Option<&'a Binding> {
        let path = repository.map_or("", RepositoryName::as_str);
        self.reaching(&caller.principal, path).find(|one| {
            one.permissions.contains(permission)
                && one.conditions.unmet(&caller.circumstances, tags).is_none()
        })
    }
}

impl super::Access {
    /// Why requests of a principal that come so are refused, whatever its rights; `None`: they are not.
    pub async fn barred(
        &self,
        principal: &Principal,
        came: Circumstances,
    ) -> crate::Result<Option<Barred>> {
        let source = match principal {
            Principal::User { source, .. } => Some(*source),
            Principal::Robot { .. } => None,
            Principal::Anonymous => return Ok(None),
            Principal::Workload { rules, .. } => {
                let trust = self.workloads.trust();
                let known = rules.iter().any(|rule| trust.rules.contains_key(rule));
                return Ok((!known).then_some(Barred::Unknown));
            }
        };
        let found = self.users.find(principal.name()).await?;
        let found = found.filter(|user| user.source() == source);
        Ok(found.map_or(Some(Barred::Unknown), |user| user.barred(came)))
    }

    /// Whether somebody acts under a name at that time, from wherever.
    pub async fn acts(&self, subject: &Subject, at: i64) -> crate::Result<bool> {
        let name = match subject {
            Subject::User(name) | Subject::Robot(name) => name,
            Subject::LocalAdmin => ADMIN,
            _ => return Ok(true),
        };
        let user = self.users.find(name).await?;
        let barred = user.map(|user| user.barred(Circumstances::new(None, at)));
        Ok(matches!(barred, Some(None | Some(Barred::Network))))
    }

    /// [`Policy::rule`] as of this moment, in words for the audit log; empty when nothing allows it.
    pub fn rule(
        &self,
        caller: &Caller,
        permission: Permission,
        repository: Option<&RepositoryName>,
        tags: Tags<'_>,
    ) -> String {
        let policy = self.policy();
        let by = policy.rule(caller, permission, repository, tags);
        by.map_or_else(String::new, |binding| {
            format!("{binding} ({})", binding.origin)
        })
    }
}
