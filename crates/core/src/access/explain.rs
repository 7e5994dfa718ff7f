//! Why somebody may do something, or what is missing and who could give it; and lists of bindings.
//!
//! For people and programs that ask about rights. Requests are decided by [`Policy::decide`], from the same bindings: a test
//! holds that both always agree.

use std::collections::BTreeSet;

use wharf_oci::RepositoryName;

use super::binding::{Binding, Subject, Tags, Unmet};
use super::policy::{Policy, is_within, usual_tags};
use super::principal::{Caller, Principal};
use super::role::Permission;

/// So many bindings are looked through at most for what allowed a change: a push must not get slower with every grant. Where there
/// are more, an entry of the audit log names a rule only if it stands among the first.
const MOST_RULES: usize = 2_000;
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
    /// Who could grant it: those who may manage bindings there, as they are named in theirs.
    pub grantors: Vec<Subject>,
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
                None => self.grantors(path),
            },
        }
    }

    /// Who may manage bindings on a path.
    fn grantors(&self, path: &str) -> Vec<Subject> {
        let holding = self.bindings().iter().filter(|binding| {
            binding.permissions.contains(Permission::ManageBindings) && is_within(path, &binding.on)
        });
        let mut nearest: Vec<&Binding> = holding.collect();
        nearest.sort_by_key(|binding| std::cmp::Reverse(binding.on.len()));
        let mut seen = BTreeSet::new();
        let subjects = nearest.into_iter().map(|binding| &binding.subject);
        subjects
            .filter(|subject| seen.insert((*subject).clone()))
            .take(MOST_GRANTORS)
            .cloned()
            .collect()
    }

    /// Every binding that reaches a path from above, or that lies on or below it with `deep`.
    pub fn bindings_on(&self, path: &str, deep: bool) -> Vec<&Binding> {
        let reaches = |on: &str| is_within(path, on) || deep && is_within(on, path);
        let bindings = self.bindings().iter();
        bindings.filter(|one| reaches(&one.on)).collect()
    }

    /// Every binding that reaches a principal, wherever: its own, its groups', and those of everybody.
    pub fn bindings_of(&self, principal: &Principal) -> Vec<&Binding> {
        let groups = self.groups_of(principal);
        let mut bindings: Vec<&Binding> = self
            .bindings()
            .iter()
            .filter(|binding| self.reaches(principal, &groups, &binding.subject))
            .collect();
        bindings.sort_by(|one, other| (&one.on, &one.subject).cmp(&(&other.on, &other.subject)));
        bindings
    }

    fn reaches(&self, principal: &Principal, groups: &BTreeSet<&str>, subject: &Subject) -> bool {
        use super::principal::Source;
        match (subject, principal) {
            (Subject::Anonymous, _) => true,
            (Subject::SignedIn, principal) => !principal.is_anonymous(),
            (Subject::HtpasswdUsers, Principal::User { source, .. }) => *source == Source::Htpasswd,
            (Subject::LocalAdmin, Principal::User { name, source }) => {
                *source == Source::Local && **name == *super::ADMIN
            }
            (Subject::User(mine), Principal::User { name, .. })
            | (Subject::Robot(mine), Principal::Robot { name }) => **mine == **name,
            (Subject::Group(group), _) => groups.contains(group.as_str()),
            _ => false,
        }
    }
}

impl super::Access {
    /// The binding that allows something, in words for the audit log; empty when none does.
    pub fn rule(
        &self,
        caller: &Caller,
        permission: Permission,
        repository: Option<&RepositoryName>,
        tags: Tags<'_>,
    ) -> String {
        let policy = self.policy();
        let path = repository.map_or("", RepositoryName::as_str);
        let mut reaching = policy.reaching_among(&caller.principal, path, MOST_RULES);
        let by = reaching.find(|one| {
            one.permissions.contains(permission)
                && one.conditions.unmet(&caller.circumstances, tags).is_none()
        });
        by.map_or_else(String::new, |binding| {
            format!("{binding} ({})", binding.origin)
        })
    }
}
