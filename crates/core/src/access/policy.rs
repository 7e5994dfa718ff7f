//! Bindings, compiled so that a question costs a few hash look-ups and no allocation.
//!
//! Bindings add up along the path `a`, `a/b`, `a/b/c`; there is no rule that takes away, so the order of grants never
//! matters. What anonymous may do, everybody may: signing in must not cost rights.

use std::collections::{BTreeSet, HashMap};

use wharf_oci::RepositoryName;

use super::Rights;
use super::binding::{Binding, Conditions, Origin, Subject, Tags};
use super::load::Rows;
use super::principal::{ANONYMOUS, Caller, Circumstances, Principal, Source};
use super::role::{Permission, Permissions, Role};
use super::tag_view::TagView;

/// The local user that the first start makes; the only one with [`Role::Admin`] from birth.
pub const ADMIN: &str = "admin";

/// Whom a grant is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// Everybody, signed in or not.
    Anonymous,
    /// One user, wherever kept.
    User(String),
    /// One robot, `<namespace>+<name>`.
    Robot(String),
}

impl Who {
    /// Reads the `who` of a grant: `anonymous`, or the name of a robot or a user.
    pub fn parse(text: &str) -> Result<Self, GrantError> {
        if text == ANONYMOUS {
            return Ok(Self::Anonymous);
        }
        if split_robot_name(text).is_some() {
            return Ok(Self::Robot(text.into()));
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

/// Namespace and name of a robot, if the text is one's: `<namespace>+<name>`, the name of lower-case letters, digits and
/// single `-`, `_`, `.` between them, so that no shell and no path gives it a meaning.
pub fn split_robot_name(text: &str) -> Option<(&str, &str)> {
    let (namespace, name) = text.rsplit_once('+')?;
    let is_part = |part: &str| !part.contains('/') && RepositoryName::parse(part).is_ok();
    let fits = text.len() <= 255 && RepositoryName::parse(namespace).is_ok() && is_part(name);
    fits.then_some((namespace, name))
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
        "anonymous cannot be admin, owner or auditor; maintainer is the most that a request without credentials may be"
    )]
    AnonymousAdmin,
}

/// The numbers of subjects that are not in a map.
const ANYBODY: u32 = 0;
const ANYBODY_SIGNED_IN: u32 = 1;
const ANYBODY_OF_HTPASSWD: u32 = 2;
const BORN_ADMIN: u32 = 3;
/// The last one of these.
const LAST: u32 = BORN_ADMIN;

/// What one subject holds on one path.
#[derive(Debug, Default, Clone)]
struct Held {
    /// Whatever the circumstances.
    always: Permissions,
    /// Bindings that have conditions, by their place in [`Policy::bindings`].
    sometimes: Vec<u32>,
}

/// What all subjects hold on one path, by their numbers.
type Node = HashMap<u32, Held>;

/// All rights there are, as of one moment.
///
/// A question walks the borders of the repository's path, looks each up, and there the caller's few numbers: their own, their
/// groups', and those of everybody. What has no conditions is one set of permissions for each path and subject.
#[derive(Debug, Default, Clone)]
pub struct Policy {
    bindings: Vec<Binding>,
    everywhere: Node,
    below: HashMap<Box<str>, Node>,
    /// The paths on which each subject holds something.
    paths: HashMap<u32, BTreeSet<Box<str>>>,
    /// A user's own number first, then those of their groups.
    users: HashMap<Box<str>, Vec<u32>>,
    robots: HashMap<Box<str>, Vec<u32>>,
    groups: HashMap<Box<str>, u32>,
    /// The last number that was given away.
    next: u32,
    epoch: i64,
}

/// Who the policy takes a principal for: numbers that everybody of that kind has, and their own.
struct Numbers<'a> {
    /// May hold one several times.
    common: [u32; 3],
    own: &'a [u32],
}

impl Numbers<'_> {
    fn iter(&self) -> impl Iterator<Item = u32> {
        self.common.iter().chain(self.own).copied()
    }
}

impl Policy {
    /// Compiles rights of the configuration alone: what anonymous may do everywhere, what each htpasswd user may do
    /// everywhere, and the grants.
    pub fn new(anonymous: Role, htpasswd: Role, grants: &[Grant]) -> Result<Self, GrantError> {
        let rights = Rights {
            anonymous,
            htpasswd,
            grants: grants.to_vec(),
        };
        Self::compile(&rights, &Rows::default())
    }

    /// Compiles all rights: those of the configuration, and those in rows. What of the rows cannot be understood, since a newer
    /// version wrote it, gives nothing.
    pub(crate) fn compile(rights: &Rights, rows: &Rows) -> Result<Self, GrantError> {
        let mut policy = Self {
            epoch: rows.epoch,
            next: LAST,
            ..Self::default()
        };
        for (group, subject) in &rows.members {
            let group = policy.number(&Subject::Group(group.clone()));
            let next = &mut policy.next;
            match subject {
                Subject::User(name) => numbers(&mut policy.users, name, next).push(group),
                Subject::Robot(name) => numbers(&mut policy.robots, name, next).push(group),
                _ => {}
            }
        }
        policy.add(Binding {
            subject: Subject::LocalAdmin,
            role: Role::Admin.to_string(),
            permissions: Role::Admin.permissions(),
            on: String::new(),
            conditions: Conditions::default(),
            origin: Origin::Birth,
        });
        for (subject, role, key) in [
            (Subject::Anonymous, rights.anonymous, "access.anonymous"),
            (
                Subject::HtpasswdUsers,
                rights.htpasswd,
                "access.htpasswd.role",
            ),
        ] {
            policy.configured(subject, role, "", key)?;
        }
        for grant in &rights.grants {
            let on = check_prefix(grant.on.as_deref().unwrap_or_default())?;
            let subject = match &grant.who {
                Who::Anonymous => Subject::Anonymous,
                Who::User(name) => Subject::User(name.clone()),
                Who::Robot(name) => Subject::Robot(name.clone()),
            };
            policy.configured(subject, grant.role, on, "[[access.grant]]")?;
        }
        for binding in &rows.bindings {
            policy.add(binding.clone());
        }
        Ok(policy)
    }

    fn configured(
        &mut self,
        subject: Subject,
        role: Role,
        on: &str,
        key: &'static str,
    ) -> Result<(), GrantError> {
        let permissions = role.permissions();
        if subject == Subject::Anonymous && !permissions.within(Role::Maintainer.permissions()) {
            return Err(GrantError::AnonymousAdmin);
        }
        if role != Role::None {
            self.add(Binding {
                subject,
                role: role.to_string(),
                permissions,
                on: on.to_owned(),
                conditions: Conditions::default(),
                origin: Origin::Configuration(key),
            });
        }
        Ok(())
    }

    fn add(&mut self, binding: Binding) {
        let number = self.number(&binding.subject);
        let at = u32::try_from(self.bindings.len()).unwrap_or(u32::MAX);
        let node = match &*binding.on {
            "" => &mut self.everywhere,
            on => self.below.entry(on.into()).or_default(),
        };
        let held = node.entry(number).or_default();
        match binding.conditions.is_empty() {
            true => held.always = held.always | binding.permissions,
            false => held.sometimes.push(at),
        }
        if !binding.on.is_empty() {
            let paths = self.paths.entry(number).or_default();
            paths.insert(binding.on.as_str().into());
        }
        self.bindings.push(binding);
    }

    /// The number of a subject, a new one if it has none.
    fn number(&mut self, subject: &Subject) -> u32 {
        let next = &mut self.next;
        match subject {
            Subject::Anonymous => ANYBODY,
            Subject::SignedIn => ANYBODY_SIGNED_IN,
            Subject::HtpasswdUsers => ANYBODY_OF_HTPASSWD,
            Subject::LocalAdmin => BORN_ADMIN,
            Subject::Group(name) => *self
                .groups
                .entry(name.as_str().into())
                .or_insert_with(|| take(next)),
            Subject::User(name) => numbers(&mut self.users, name, next)[0],
            Subject::Robot(name) => numbers(&mut self.robots, name, next)[0],
        }
    }

    fn numbers(&self, principal: &Principal) -> Numbers<'_> {
        let (common, own) = match principal {
            Principal::Anonymous => ([ANYBODY; 3], None),
            Principal::Robot { name } => (
                [ANYBODY, ANYBODY_SIGNED_IN, ANYBODY],
                self.robots.get(&**name),
            ),
            Principal::User { name, source } => {
                let third = match source {
                    Source::Local if **name == *ADMIN => BORN_ADMIN,
                    Source::Local => ANYBODY,
                    Source::Htpasswd => ANYBODY_OF_HTPASSWD,
                };
                let own = self.users.get(&**name);
                ([ANYBODY, ANYBODY_SIGNED_IN, third], own)
            }
        };
        Numbers {
            common,
            own: own.map_or(&[], Vec::as_slice),
        }
    }

    /// The users and robots whom the configuration names.
    pub fn grantees(&self) -> impl Iterator<Item = &str> {
        let configured = self
            .bindings
            .iter()
            .filter(|binding| matches!(binding.origin, Origin::Configuration(_)));
        let names: BTreeSet<&str> = configured
            .filter_map(|binding| match &binding.subject {
                Subject::User(name) | Subject::Robot(name) => Some(name.as_str()),
                _ => None,
            })
            .collect();
        names.into_iter()
    }

    /// The state of the rows that this was compiled from.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Every binding, those of the configuration first.
    pub fn bindings(&self) -> &[Binding] {
        &self.bindings
    }

    /// The groups that a principal is in.
    pub(crate) fn groups_of(&self, principal: &Principal) -> BTreeSet<&str> {
        let own = self.numbers(principal).own;
        let groups = self.groups.iter();
        groups
            .filter(|(_, number)| own.contains(number))
            .map(|(name, _)| &**name)
            .collect()
    }

    /// Whether the caller has the permission on the repository: the principal holds it, and the credential leaves it to
    /// the principal. What a token was asked for is no part of this; [`Policy::decide`] looks at that.
    ///
    /// Without a repository: for [`Permission::Catalog`] whether there is anything to list, for every other permission
    /// whether it is held everywhere. Deleting is asked for all tags, everything else for none; see
    /// [`Policy::allow_tags`].
    pub fn allow(
        &self,
        caller: &Caller,
        permission: Permission,
        repository: Option<&RepositoryName>,
    ) -> bool {
        self.allow_tags(caller, permission, repository, usual_tags(permission))
    }

    /// [`Policy::allow`] for a request that is about these tags.
    pub fn allow_tags(
        &self,
        caller: &Caller,
        permission: Permission,
        repository: Option<&RepositoryName>,
        tags: Tags<'_>,
    ) -> bool {
        if caller.narrow.is_some() && permission == Permission::Catalog && repository.is_none() {
            let listed = self.prefixes_for(caller, permission);
            return listed.is_none_or(|prefixes| !prefixes.is_empty());
        }
        if !caller.leaves(permission, repository) {
            return false;
        }
        let asked = Asked {
            permission,
            circumstances: &caller.circumstances,
            tags,
        };
        let numbers = self.numbers(&caller.principal);
        let path = repository.map(RepositoryName::as_str);
        self.nodes(path)
            .any(|node| self.gives(node, &numbers, &asked))
            || (path.is_none()
                && permission == Permission::Catalog
                && self.paths_of(&numbers, &asked).next().is_some())
    }

    /// The tags for which the caller has a permission on a repository.
    pub fn tag_view(
        &self,
        caller: &Caller,
        permission: Permission,
        repository: &RepositoryName,
    ) -> TagView {
        if self.allow_tags(caller, permission, Some(repository), Tags::All) {
            return TagView::All;
        }
        let mut patterns = Vec::new();
        if caller.leaves(permission, Some(repository)) {
            let numbers = self.numbers(&caller.principal);
            let nodes = self.nodes(Some(repository.as_str()));
            let held = nodes.flat_map(|node| numbers.iter().filter_map(|one| node.get(&one)));
            for &at in held.flat_map(|held| &held.sometimes) {
                let Binding {
                    permissions,
                    conditions,
                    ..
                } = &self.bindings[at as usize];
                let counts = conditions
                    .unmet(&caller.circumstances, Tags::None)
                    .is_none();
                if permissions.contains(permission) && counts {
                    patterns.extend(conditions.tags.clone());
                }
            }
        }
        TagView::of(patterns)
    }

    /// What lies on the way to a path, from everywhere down.
    fn nodes<'a>(&'a self, path: Option<&'a str>) -> impl Iterator<Item = &'a Node> {
        let borders = path.into_iter().flat_map(|path| {
            path.match_indices('/')
                .map(|(at, _)| at)
                .chain([path.len()])
                .filter_map(|end| self.below.get(&path[..end]))
        });
        std::iter::once(&self.everywhere).chain(borders)
    }

    fn gives(&self, node: &Node, numbers: &Numbers<'_>, asked: &Asked<'_>) -> bool {
        #[cfg(test)]
        looks::add(node.len().min(3 + numbers.own.len()));
        // Most paths have a few subjects, and some callers are in many groups.
        if node.len() < numbers.own.len() {
            let mine = |number: &u32| numbers.iter().any(|own| own == *number);
            return node
                .iter()
                .any(|(number, held)| mine(number) && self.held_gives(held, asked));
        }
        numbers
            .iter()
            .filter_map(|number| node.get(&number))
            .any(|held| self.held_gives(held, asked))
    }

    fn held_gives(&self, held: &Held, asked: &Asked<'_>) -> bool {
        held.always.contains(asked.permission)
            || held.sometimes.iter().any(|&at| {
                let binding = &self.bindings[at as usize];
                binding.permissions.contains(asked.permission)
                    && binding
                        .conditions
                        .unmet(asked.circumstances, asked.tags)
                        .is_none()
            })
    }

    /// The paths on which one of the numbers gives what is asked for; a path may come several times.
    fn paths_of<'a>(
        &'a self,
        numbers: &'a Numbers<'a>,
        asked: &'a Asked<'a>,
    ) -> impl Iterator<Item = &'a str> {
        numbers.iter().flat_map(move |number| {
            let paths = self.paths.get(&number).into_iter().flatten();
            paths.map(|path| &**path).filter(move |path| {
                let held = self.below.get(*path).and_then(|node| node.get(&number));
                held.is_some_and(|held| self.held_gives(held, asked))
            })
        })
    }

    /// The prefixes below which the caller has the permission, sorted, none within another; `None` is everywhere.
    pub fn prefixes_for(&self, caller: &Caller, permission: Permission) -> Option<Vec<String>> {
        let held = self.prefixes_held(caller, permission);
        match &caller.narrow {
            None => held,
            Some(narrow) => narrow.cut(permission, held),
        }
    }

    fn prefixes_held(&self, caller: &Caller, permission: Permission) -> Option<Vec<String>> {
        let asked = Asked {
            permission,
            circumstances: &caller.circumstances,
            tags: usual_tags(permission),
        };
        let numbers = self.numbers(&caller.principal);
        if self.gives(&self.everywhere, &numbers, &asked) {
            return None;
        }
        let prefixes: BTreeSet<&str> = self.paths_of(&numbers, &asked).collect();
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

    /// The bindings that could matter to a principal on a path, from everywhere down, whatever their conditions.
    pub(crate) fn reaching<'a>(
        &'a self,
        principal: &Principal,
        path: &'a str,
    ) -> impl Iterator<Item = &'a Binding> {
        self.reaching_among(principal, path, usize::MAX)
    }

    /// The same of the first so many bindings.
    pub(super) fn reaching_among<'a>(
        &'a self,
        principal: &Principal,
        path: &'a str,
        most: usize,
    ) -> impl Iterator<Item = &'a Binding> {
        let numbers = self.numbers(principal);
        let mine: BTreeSet<u32> = numbers.iter().collect();
        self.bindings.iter().take(most).filter(move |binding| {
            let number = match &binding.subject {
                Subject::Anonymous => Some(ANYBODY),
                Subject::SignedIn => Some(ANYBODY_SIGNED_IN),
                Subject::HtpasswdUsers => Some(ANYBODY_OF_HTPASSWD),
                Subject::LocalAdmin => Some(BORN_ADMIN),
                Subject::Group(name) => self.groups.get(&**name).copied(),
                Subject::User(name) => self.users.get(&**name).map(|numbers| numbers[0]),
                Subject::Robot(name) => self.robots.get(&**name).map(|numbers| numbers[0]),
            };
            number.is_some_and(|number| mine.contains(&number)) && is_within(path, &binding.on)
        })
    }
}

/// Counts look-ups at what subjects hold, for the test of what questions cost.
#[cfg(test)]
pub(super) mod looks {
    use std::cell::Cell;

    thread_local! {
        static LOOKS: Cell<usize> = const { Cell::new(0) };
    }

    pub(in super::super) fn add(count: usize) {
        LOOKS.with(|looks| looks.set(looks.get() + count));
    }

    pub(in super::super) fn reset() {
        LOOKS.with(|looks| looks.set(0));
    }

    pub(in super::super) fn count() -> usize {
        LOOKS.with(Cell::get)
    }
}

/// One question, without the path.
struct Asked<'a> {
    permission: Permission,
    circumstances: &'a Circumstances,
    tags: Tags<'a>,
}

/// What of tags a permission is about when no tag is named: what deletes may take any number of them along.
pub const fn usual_tags(permission: Permission) -> Tags<'static> {
    match permission {
        Permission::Delete => Tags::All,
        _ => Tags::None,
    }
}

/// Whether a path is a prefix or lies below it.
pub(crate) fn is_within(path: &str, prefix: &str) -> bool {
    prefix.is_empty()
        || path
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn take(next: &mut u32) -> u32 {
    *next += 1;
    *next
}

/// The numbers of a user or robot, its own one first.
fn numbers<'a>(
    map: &'a mut HashMap<Box<str>, Vec<u32>>,
    name: &str,
    next: &mut u32,
) -> &'a mut Vec<u32> {
    map.entry(name.into()).or_insert_with(|| vec![take(next)])
}

/// A prefix as it is kept: without a slash at its end.
pub(crate) fn check_prefix(on: &str) -> Result<&str, GrantError> {
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
#[path = "policy_tests.rs"]
mod tests;
