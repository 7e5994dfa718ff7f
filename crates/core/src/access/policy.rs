//! Bindings, compiled so that a question costs a few hash look-ups and no allocation.
//!
//! Bindings add up along the path `a`, `a/b`, `a/b/c`; there is no rule that takes away, so the order of grants never
//! matters. What anonymous may do, everybody may: signing in must not cost rights.

use std::collections::BTreeSet;
use std::sync::Arc;

use wharf_oci::RepositoryName;

use super::Rights;
use super::binding::{Binding, Subject, Tags};
use super::compile::order;
use super::load::{GroupOutside, Rows, Visibility};
use super::principal::{ANONYMOUS, Caller, Circumstances, Principal, Source};
use super::role::{Permission, Permissions, Role};
use super::table::Table;
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
pub(super) const ANYBODY: u32 = 0;
pub(super) const ANYBODY_SIGNED_IN: u32 = 1;
pub(super) const ANYBODY_OF_HTPASSWD: u32 = 2;
pub(super) const BORN_ADMIN: u32 = 3;
/// The last one of these.
pub(super) const LAST: u32 = BORN_ADMIN;

/// The namespace of a robot.
pub(super) fn home(principal: &Principal) -> Option<&str> {
    match principal {
        Principal::Robot { name } => name.rsplit_once('+').map(|(home, _)| home),
        _ => None,
    }
}

/// What one subject holds on one path.
#[derive(Debug, Default, Clone)]
pub(super) struct Held {
    /// Whatever the circumstances.
    pub(super) always: Permissions,
    /// Whether a binding has conditions.
    pub(super) sometimes: bool,
    /// All bindings, those of the configuration first.
    pub(super) all: Vec<Binding>,
}

/// What all subjects hold on one path, by their numbers.
type Node = Table<u32, Arc<Held>>;

/// A group that is there, or that a binding or a member speaks of.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) number: u32,
    pub(super) there: bool,
    pub(super) members: Table<Subject, ()>,
    /// The groups of providers that lead to it.
    pub(super) sources: Arc<Vec<GroupOutside>>,
    /// Whom these lead to it.
    pub(super) outside: Table<Subject, ()>,
}

impl Group {
    /// Of nobody.
    pub(super) fn new(number: u32) -> Self {
        Self {
            number,
            there: false,
            members: Table::default(),
            sources: Arc::default(),
            outside: Table::default(),
        }
    }
}

/// All rights there are, as of one moment.
///
/// A question walks the borders of the repository's path, looks each up, and there the caller's few numbers: their own, their
/// groups', and those of everybody. What has no conditions is one set of permissions for each path and subject. A clone shares
/// everything, and so does what `update` makes of it, as far as it is the same.
#[derive(Debug, Default, Clone)]
pub struct Policy {
    pub(super) everywhere: Node,
    pub(super) below: Table<Arc<str>, Node>,
    /// The paths on which each subject holds something.
    pub(super) paths: Table<u32, Table<Arc<str>, ()>>,
    /// A user's own number first, then those of their groups.
    pub(super) users: Table<Arc<str>, Vec<u32>>,
    pub(super) robots: Table<Arc<str>, Vec<u32>>,
    /// Of rules on workloads, as of users.
    pub(super) workloads: Table<Arc<str>, Vec<u32>>,
    pub(super) groups: Table<Arc<str>, Group>,
    pub(super) namespaces: Table<Arc<str>, Visibility>,
    /// Beside those that are built in, by name.
    pub(super) roles: Arc<Vec<(String, Permissions)>>,
    /// Where the configuration gives something to whom.
    pub(super) configured: Arc<Vec<(Subject, String)>>,
    /// The last number that was given away.
    pub(super) next: u32,
    pub(super) epoch: i64,
    /// When that epoch was made, if that is known.
    pub(super) mark: Option<i64>,
}

/// Who the policy takes a principal for: numbers that everybody of that kind has, and their own.
struct Numbers<'a> {
    /// May hold one several times.
    common: [u32; 3],
    own: &'a [u32],
    /// Of whoever is several things at once, as a workload that several rules match; usually none.
    more: Vec<&'a [u32]>,
}

impl Numbers<'_> {
    fn iter(&self) -> impl Iterator<Item = u32> {
        let more = self.more.iter().copied().flatten();
        self.common.iter().chain(self.own).chain(more).copied()
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
            ..Rights::default()
        };
        Self::compile(&rights, &Rows::default())
    }

    fn numbers(&self, principal: &Principal) -> Numbers<'_> {
        let mut more = Vec::new();
        let (common, own) = match principal {
            Principal::Anonymous => ([ANYBODY; 3], None),
            Principal::Workload { rules, .. } => {
                let mut held = rules.iter().filter_map(|rule| self.workloads.get(&**rule));
                let own = held.next();
                more.extend(held.map(Vec::as_slice));
                ([ANYBODY, ANYBODY_SIGNED_IN, ANYBODY], own)
            }
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
            more,
        }
    }

    /// As [`Policy::numbers`], on a path: what groups hold elsewhere does not reach a robot beyond its home.
    fn numbers_on(&self, principal: &Principal, path: Option<&str>) -> Numbers<'_> {
        let mut numbers = self.numbers(principal);
        let away = |home| !path.is_some_and(|path| is_within(path, home));
        if home(principal).is_some_and(away) {
            numbers.own = &numbers.own[..numbers.own.len().min(1)];
        }
        numbers
    }

    /// Below what in its home a robot has what is asked for, also by groups.
    fn at_home(&self, principal: &Principal, asked: &Asked<'_>) -> Vec<String> {
        let Some(home) = home(principal) else {
            return Vec::new();
        };
        let numbers = self.numbers(principal);
        let mut above = self.nodes(Some(home));
        if above.any(|node| self.gives(node, &numbers, asked)) {
            return vec![home.to_owned()];
        }
        let paths = self.paths_of(&numbers, asked);
        let paths = paths.filter(|path| is_within(path, home));
        paths.map(ToOwned::to_owned).collect()
    }

    /// The users and robots whom the configuration names.
    pub fn grantees(&self) -> impl Iterator<Item = &str> {
        let names: BTreeSet<&str> = self
            .configured
            .iter()
            .filter_map(|(subject, _)| match subject {
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

    /// Every binding, in no order.
    pub fn bindings(&self) -> impl Iterator<Item = &Binding> {
        let below = self.below.iter().map(|(_, node)| node);
        let nodes = std::iter::once(&self.everywhere).chain(below);
        nodes.flat_map(|node| node.iter().flat_map(|(_, held)| &held.all))
    }

    /// The bindings of a subject on exactly this path.
    pub(crate) fn held<'a>(
        &'a self,
        subject: &Subject,
        on: &str,
    ) -> impl Iterator<Item = &'a Binding> + use<'a> {
        let node = match on {
            "" => Some(&self.everywhere),
            on => self.below.get(on),
        };
        let number = self.known(subject);
        let held = node.and_then(|node| number.and_then(|number| node.get(&number)));
        held.into_iter().flat_map(|held| &held.all)
    }

    /// Whether there is such a group.
    pub(super) fn has_group(&self, name: &str) -> bool {
        self.groups.get(name).is_some_and(|group| group.there)
    }

    /// The number of a subject, if it has one.
    pub(super) fn known(&self, subject: &Subject) -> Option<u32> {
        match subject {
            Subject::Anonymous => Some(ANYBODY),
            Subject::SignedIn => Some(ANYBODY_SIGNED_IN),
            Subject::HtpasswdUsers => Some(ANYBODY_OF_HTPASSWD),
            Subject::LocalAdmin => Some(BORN_ADMIN),
            Subject::Group(name) => self.groups.get(name.as_str()).map(|group| group.number),
            Subject::User(name) => self.users.get(name.as_str()).map(|numbers| numbers[0]),
            Subject::Robot(name) => self.robots.get(name.as_str()).map(|numbers| numbers[0]),
            Subject::Workload(rule) => self.workloads.get(rule.as_str()).map(|numbers| numbers[0]),
        }
    }

    /// Every binding that one of the numbers has, wherever.
    fn held_by(&self, numbers: BTreeSet<u32>) -> impl Iterator<Item = &Binding> {
        numbers.into_iter().flat_map(move |number| {
            let paths = self.paths.get(&number).into_iter().flat_map(Table::iter);
            let below = paths.filter_map(move |(path, ())| self.below.get(path)?.get(&number));
            let held = self.everywhere.get(&number).into_iter().chain(below);
            held.flat_map(|held| &held.all)
        })
    }

    /// Every binding of a subject, wherever, in no order.
    pub fn bindings_to(&self, subject: &Subject) -> impl Iterator<Item = &Binding> {
        self.held_by(self.known(subject).into_iter().collect())
    }

    /// Every binding of a subject and of the groups that it is in, wherever, in no order.
    pub(crate) fn bindings_through(&self, subject: &Subject) -> impl Iterator<Item = &Binding> {
        let groups = self.groups_of(subject).into_iter();
        let own = self.known(subject).into_iter();
        self.held_by(own.chain(groups.map(|(_, number)| number)).collect())
    }

    /// Every binding that reaches a principal, wherever: its own, its groups', and those of everybody, by path.
    pub fn bindings_of(&self, principal: &Principal) -> Vec<&Binding> {
        let numbers = self.numbers(principal).iter().collect();
        let mut bindings: Vec<&Binding> = self.held_by(numbers).collect();
        if let Some(home) = home(principal) {
            bindings.retain(|one| {
                let near = is_within(&one.on, home) || is_within(home, &one.on);
                near || !matches!(one.subject, Subject::Group(_))
            });
        }
        bindings.sort_by(|one, other| {
            let by_subject = (&one.on, &one.subject).cmp(&(&other.on, &other.subject));
            by_subject.then_with(|| order(one, other))
        });
        bindings
    }

    /// The groups that a user or robot is in.
    pub(super) fn groups_of(&self, who: &Subject) -> Vec<(String, u32)> {
        let own = match who {
            Subject::User(name) => self.users.get(name.as_str()),
            Subject::Robot(name) => self.robots.get(name.as_str()),
            Subject::Workload(rule) => self.workloads.get(rule.as_str()),
            _ => None,
        };
        let Some(own) = own.filter(|own| own.len() > 1) else {
            return Vec::new();
        };
        let groups = self.groups.iter();
        groups
            .filter(|(_, group)| own[1..].contains(&group.number))
            .map(|(name, group)| (name.to_string(), group.number))
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
        let path = repository.map(RepositoryName::as_str);
        let numbers = self.numbers_on(&caller.principal, path);
        self.nodes(path)
            .any(|node| self.gives(node, &numbers, &asked))
            || (path.is_none()
                && permission == Permission::Catalog
                && (self.paths_of(&numbers, &asked).next().is_some()
                    || !self.at_home(&caller.principal, &asked).is_empty()))
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
            let path = Some(repository.as_str());
            let numbers = self.numbers_on(&caller.principal, path);
            let nodes = self.nodes(path);
            let held = nodes.flat_map(|node| numbers.iter().filter_map(|one| node.get(&one)));
            for binding in held.flat_map(|held| &held.all) {
                let Binding {
                    permissions,
                    conditions,
                    ..
                } = binding;
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
                .any(|(number, held)| mine(number) && held.gives(asked));
        }
        numbers
            .iter()
            .filter_map(|number| node.get(&number))
            .any(|held| held.gives(asked))
    }

    /// The paths on which one of the numbers gives what is asked for; a path may come several times.
    fn paths_of<'a>(
        &'a self,
        numbers: &'a Numbers<'a>,
        asked: &'a Asked<'a>,
    ) -> impl Iterator<Item = &'a str> {
        numbers.iter().flat_map(move |number| {
            let paths = self.paths.get(&number).into_iter().flat_map(Table::iter);
            paths.map(|(path, ())| &**path).filter(move |path| {
                let held = self.below.get(*path).and_then(|node| node.get(&number));
                held.is_some_and(|held| held.gives(asked))
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
        let numbers = self.numbers_on(&caller.principal, None);
        if self.gives(&self.everywhere, &numbers, &asked) {
            return None;
        }
        let at_home = self.at_home(&caller.principal, &asked);
        let prefixes = self.paths_of(&numbers, &asked);
        let prefixes: BTreeSet<&str> = prefixes.chain(at_home.iter().map(|on| &**on)).collect();
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

    /// The bindings that could matter to a principal on a path, from everywhere down, whatever their conditions. Costs what the
    /// decision costs, and these.
    pub(crate) fn reaching<'a>(
        &'a self,
        principal: &Principal,
        path: &'a str,
    ) -> impl Iterator<Item = &'a Binding> {
        let numbers = self
            .numbers_on(principal, Some(path))
            .iter()
            .collect::<BTreeSet<u32>>();
        let path = Some(path).filter(|path| !path.is_empty());
        self.nodes(path).flat_map(move |node| {
            let mut held: Vec<_> = numbers.iter().filter_map(|one| node.get(one)).collect();
            // Numbers are given in another order elsewhere; all replicas shall name the same reason.
            held.sort_by(|one, other| match (one.all.first(), other.all.first()) {
                (Some(one), Some(other)) => order(one, other),
                _ => std::cmp::Ordering::Equal,
            });
            #[cfg(test)]
            looks::add(numbers.len());
            held.into_iter().flat_map(|held| &held.all)
        })
    }
}

impl Held {
    fn gives(&self, asked: &Asked<'_>) -> bool {
        self.always.contains(asked.permission)
            || self.sometimes
                && self.all.iter().any(|binding| {
                    binding.permissions.contains(asked.permission)
                        && binding
                            .conditions
                            .unmet(asked.circumstances, asked.tags)
                            .is_none()
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
