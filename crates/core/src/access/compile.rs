//! How a policy comes to be: of all rights at once, and of another policy and what changed since.
//!
//! Both ways end at the same policy, and a test holds that. A change costs what it changes: the tables of a policy share with
//! those of the one before what is the same in both.

use std::cmp::Ordering;
use std::sync::Arc;

use super::Rights;
use super::binding::{Binding, Conditions, Origin, Subject};
use super::load::{Changes, Read, Rows, Visibility, key};
use super::policy::{
    ANYBODY, ANYBODY_OF_HTPASSWD, ANYBODY_SIGNED_IN, BORN_ADMIN, Grant, GrantError, Group, Held,
    LAST, Policy, Who, check_prefix,
};
use super::role::{Permissions, Role};
use super::table::Table;

/// The numbers that one policy and those made of it give away at most.
const MOST_NUMBERS: u32 = u32::MAX / 2;

impl Held {
    fn push(&mut self, binding: Binding) {
        let last = self.all.last();
        let sorted = last.is_none_or(|last| order(last, &binding) != Ordering::Greater);
        match binding.conditions.is_empty() {
            true => self.always = self.always | binding.permissions,
            false => self.sometimes = true,
        }
        self.all.push(binding);
        if !sorted {
            self.all.sort_by(order);
        }
    }

    fn settle(&mut self) {
        let all = std::mem::take(&mut self.all);
        *self = Self::default();
        for binding in all {
            self.push(binding);
        }
    }
}

/// Bindings of the configuration before those that people made, and those as rows are kept.
pub(super) fn order(one: &Binding, other: &Binding) -> Ordering {
    let rank = |binding: &Binding| match binding.origin {
        Origin::Birth => 0,
        Origin::Configuration(_) => 1,
        Origin::Visibility => 2,
        Origin::Granted { .. } => 3,
    };
    let by_rank = rank(one).cmp(&rank(other));
    let by_place = || one.on.cmp(&other.on);
    let by_rest = || match one.origin.is_row() && other.origin.is_row() {
        true => {
            (one.subject.row().cmp(&other.subject.row())).then_with(|| key(one).cmp(&key(other)))
        }
        false => one.subject.cmp(&other.subject),
    };
    by_rank.then_with(by_place).then_with(by_rest)
}

/// The binding that visibility stands for, if it is one.
fn of_visibility(path: &str, visibility: Visibility) -> Option<Binding> {
    visibility.reader().map(|subject| Binding {
        subject,
        role: Role::Reader.to_string(),
        permissions: Role::Reader.permissions(),
        on: path.to_owned(),
        conditions: Conditions::default(),
        origin: Origin::Visibility,
    })
}

impl Policy {
    /// Compiles all rights: those of the configuration, and those in rows. What of the rows cannot be understood, since a newer
    /// version wrote it, gives nothing.
    pub(crate) fn compile(rights: &Rights, rows: &Rows) -> Result<Self, GrantError> {
        let mut policy = Self {
            epoch: rows.epoch,
            mark: rows.mark,
            next: LAST,
            roles: Arc::new(rows.roles.clone()),
            ..Self::default()
        };
        for name in &rows.groups {
            policy.group(name).there = true;
        }
        for (group, subject) in &rows.members {
            policy.join(group, subject);
        }
        for (group, source) in &rows.sources {
            Arc::make_mut(&mut policy.group(group).sources).push(source.clone());
        }
        for (group, subject) in &rows.outside {
            policy.arrive(group, subject);
        }
        policy.add(Binding {
            subject: Subject::LocalAdmin,
            role: Role::Admin.to_string(),
            permissions: Role::Admin.permissions(),
            on: String::new(),
            conditions: Conditions::default(),
            origin: Origin::Birth,
        });
        policy.configure(rights)?;
        for (path, visibility) in &rows.namespaces {
            policy.set_visibility(path, Some(*visibility));
        }
        for binding in &rows.bindings {
            policy.add(binding.clone());
        }
        Ok(policy)
    }

    /// Puts other rights in the place of those of the configuration.
    pub(super) fn configure(&mut self, rights: &Rights) -> Result<(), GrantError> {
        let before = std::mem::take(&mut self.configured);
        for (subject, on) in before.iter() {
            let is_configured = |one: &Binding| matches!(one.origin, Origin::Configuration(_));
            self.change(on, subject, |all| all.retain(|one| !is_configured(one)));
        }
        let mut configured = Vec::new();
        let mut add = |policy: &mut Self, subject: Subject, role: Role, on: &str, key| {
            let permissions = role.permissions();
            if subject == Subject::Anonymous && !permissions.within(Role::Maintainer.permissions())
            {
                return Err(GrantError::AnonymousAdmin);
            }
            if role != Role::None {
                configured.push((subject.clone(), on.to_owned()));
                policy.add(Binding {
                    subject,
                    role: role.to_string(),
                    permissions,
                    on: on.to_owned(),
                    conditions: Conditions::default(),
                    origin: Origin::Configuration(key),
                });
            }
            Ok(())
        };
        let anonymous = Subject::Anonymous;
        add(self, anonymous, rights.anonymous, "", "access.anonymous")?;
        let users = Subject::HtpasswdUsers;
        add(self, users, rights.htpasswd, "", "access.htpasswd.role")?;
        for Grant { who, role, on } in &rights.grants {
            let on = check_prefix(on.as_deref().unwrap_or_default())?;
            let subject = match who {
                Who::Anonymous => Subject::Anonymous,
                Who::User(name) => Subject::User(name.clone()),
                Who::Robot(name) => Subject::Robot(name.clone()),
            };
            add(self, subject, *role, on, "[[access.grant]]")?;
        }
        for provider in &rights.providers {
            if let Some(group) = provider.admins() {
                let subject = Subject::Group(group);
                add(self, subject, Role::Admin, "", provider.section)?;
            }
        }
        self.configured = Arc::new(configured);
        Ok(())
    }

    /// Whether so much has come and gone that the next one should be made of all rights anew.
    pub(super) fn is_worn(&self) -> bool {
        self.next > MOST_NUMBERS
    }

    /// Takes parts of the rights as they were read.
    pub(super) fn update(&mut self, changes: Changes) {
        self.epoch = changes.epoch;
        self.mark = Some(changes.mark);
        for part in changes.parts {
            match part {
                Read::Role(name, permissions) => {
                    let roles = Arc::make_mut(&mut self.roles);
                    roles.retain(|(known, _)| *known != name);
                    roles.extend(permissions.map(|permissions| (name, permissions)));
                    roles.sort_unstable_by(|one, other| one.0.cmp(&other.0));
                }
                Read::Group(name, read) => {
                    let there = read.is_some();
                    let read = read.unwrap_or_default();
                    let group = self.group(&name);
                    group.there = there;
                    group.sources = Arc::new(read.sources);
                    let all = |table: &Table<Subject, ()>| -> Vec<_> {
                        table.iter().map(|(who, ())| who.clone()).collect()
                    };
                    let (had, outside) = (all(&group.members), all(&group.outside));
                    for who in had.iter().filter(|who| !read.members.contains(who)) {
                        self.leave(&name, who);
                    }
                    for who in outside.iter().filter(|who| !read.outside.contains(who)) {
                        self.depart(&name, who);
                    }
                    for who in &read.members {
                        self.join(&name, who);
                    }
                    for who in &read.outside {
                        self.arrive(&name, who);
                    }
                    self.tidy(&Subject::Group(name));
                }
                Read::GroupsOf(who, groups, outside) => {
                    for (group, _) in self.groups_of(&who) {
                        if !groups.contains(&group) {
                            self.leave(&group, &who);
                        }
                        if !outside.contains(&group) {
                            self.depart(&group, &who);
                        }
                    }
                    for group in &groups {
                        self.join(group, &who);
                    }
                    for group in &outside {
                        self.arrive(group, &who);
                    }
                }
                Read::Member(group, who, true) => self.join(&group, &who),
                Read::Member(group, who, false) => self.leave(&group, &who),
                Read::Visibility(path, visibility) => self.set_visibility(&path, visibility),
                Read::BindingsOf(subject, rows) => {
                    for on in self.paths_with(&subject) {
                        self.change(&on, &subject, |all| all.retain(|one| !one.origin.is_row()));
                    }
                    rows.into_iter().for_each(|row| self.add(row));
                }
                Read::BindingsOn(on, subject, rows) => {
                    let subjects = match subject {
                        Some(subject) => vec![subject],
                        None => self.subjects_on(&on),
                    };
                    for subject in subjects {
                        self.change(&on, &subject, |all| all.retain(|one| !one.origin.is_row()));
                    }
                    rows.into_iter().for_each(|row| self.add(row));
                }
            }
        }
    }

    /// The rights that are rows, in the order of rows.
    pub(crate) fn rows(&self) -> Rows {
        let mut rows = Rows {
            epoch: self.epoch,
            mark: self.mark,
            roles: self.roles.to_vec(),
            namespaces: self.namespaces(),
            ..Rows::default()
        };
        for (name, group) in self.groups.iter() {
            if group.there {
                rows.groups.push(name.to_string());
            }
            let members = group.members.iter();
            rows.members
                .extend(members.map(|(who, ())| (name.to_string(), who.clone())));
            let sources = group.sources.iter().cloned();
            rows.sources
                .extend(sources.map(|source| (name.to_string(), source)));
            let outside = group.outside.iter();
            rows.outside
                .extend(outside.map(|(who, ())| (name.to_string(), who.clone())));
        }
        rows.sources.sort_unstable();
        rows.outside.sort_unstable();
        rows.groups.sort_unstable();
        let by_row = |(group, who): &(String, Subject)| {
            let row = who.row().map(|(kind, name)| (kind, name.to_owned()));
            (group.clone(), row)
        };
        rows.members.sort_by_cached_key(by_row);
        let bindings = self.bindings().filter(|one| one.origin.is_row());
        rows.bindings = bindings.cloned().collect();
        rows.bindings.sort_by(order);
        rows
    }

    /// All namespaces that have settings, by path.
    pub(super) fn namespaces(&self) -> Vec<(String, Visibility)> {
        let all = self.namespaces.iter();
        let mut all: Vec<_> = all.map(|(path, one)| (path.to_string(), *one)).collect();
        all.sort_unstable();
        all
    }

    fn set_visibility(&mut self, path: &str, visibility: Option<Visibility>) {
        for subject in [Subject::SignedIn, Subject::Anonymous] {
            let is_visibility = |one: &Binding| one.origin == Origin::Visibility;
            if self.held(&subject, path).any(is_visibility) {
                self.change(path, &subject, |all| all.retain(|one| !is_visibility(one)));
            }
        }
        match visibility {
            Some(visibility) => {
                self.namespaces.insert(path.into(), visibility);
                if let Some(binding) = of_visibility(path, visibility) {
                    self.add(binding);
                }
            }
            None => {
                self.namespaces.remove(path);
            }
        }
    }

    fn add(&mut self, binding: Binding) {
        let number = self.number(&binding.subject);
        let node = match &*binding.on {
            "" => &mut self.everywhere,
            on => self.below.entry(on.into(), Table::default),
        };
        if !binding.on.is_empty() {
            let paths = self.paths.entry(number, Table::default);
            paths.insert(binding.on.as_str().into(), ());
        }
        Arc::make_mut(node.entry(number, Arc::default)).push(binding);
    }

    /// Changes what a subject holds on a path.
    fn change(&mut self, on: &str, subject: &Subject, change: impl FnOnce(&mut Vec<Binding>)) {
        if self.held(subject, on).next().is_none() {
            return;
        }
        let number = self.number(subject);
        let node = match on {
            "" => &mut self.everywhere,
            on => self.below.entry(on.into(), Table::default),
        };
        let held = Arc::make_mut(node.entry(number, Arc::default));
        change(&mut held.all);
        held.settle();
        if !held.all.is_empty() {
            return;
        }
        node.remove(&number);
        if !on.is_empty() {
            if node.is_empty() {
                self.below.remove(on);
            }
            let paths = self.paths.entry(number, Table::default);
            paths.remove(on);
            if paths.is_empty() {
                self.paths.remove(&number);
            }
        }
        self.tidy(subject);
    }

    /// The paths on which a subject holds something, everywhere included.
    fn paths_with(&self, subject: &Subject) -> Vec<String> {
        let Some(number) = self.known(subject) else {
            return Vec::new();
        };
        let everywhere = self.everywhere.contains(&number).then(String::new);
        let paths = self.paths.get(&number).into_iter();
        let paths = paths.flat_map(|paths| paths.iter().map(|(path, ())| path.to_string()));
        everywhere.into_iter().chain(paths).collect()
    }

    fn subjects_on(&self, on: &str) -> Vec<Subject> {
        let node = match on {
            "" => Some(&self.everywhere),
            on => self.below.get(on),
        };
        let held = node.into_iter().flat_map(Table::iter);
        held.filter_map(|(_, held)| held.all.first())
            .map(|binding| binding.subject.clone())
            .collect()
    }

    fn group(&mut self, name: &str) -> &mut Group {
        let next = &mut self.next;
        self.groups.entry(name.into(), || Group::new(take(next)))
    }

    /// The numbers of whoever can be in groups: their own first.
    fn numbers_of(&mut self, who: &Subject) -> Option<&mut Vec<u32>> {
        let (table, name) = match who {
            Subject::User(name) => (&mut self.users, name),
            Subject::Robot(name) => (&mut self.robots, name),
            Subject::Workload(rule) => (&mut self.workloads, rule),
            _ => return None,
        };
        Some(numbers(table, name, &mut self.next))
    }

    fn join(&mut self, group: &str, who: &Subject) {
        let it = self.group(group);
        it.members.insert(who.clone(), ());
        let number = it.number;
        self.reach(number, who);
    }

    /// An account leads somebody to a group.
    fn arrive(&mut self, group: &str, who: &Subject) {
        let it = self.group(group);
        it.outside.insert(who.clone(), ());
        let number = it.number;
        self.reach(number, who);
    }

    fn reach(&mut self, number: u32, who: &Subject) {
        let Some(own) = self.numbers_of(who) else {
            return;
        };
        if !own.contains(&number) {
            own.push(number);
        }
    }

    fn leave(&mut self, group: &str, who: &Subject) {
        if !self.groups.contains(group) {
            return;
        }
        let it = self.group(group);
        it.members.remove(who);
        self.part(group, who);
    }

    /// No account leads somebody to a group any more.
    fn depart(&mut self, group: &str, who: &Subject) {
        if !self.groups.contains(group) {
            return;
        }
        let it = self.group(group);
        it.outside.remove(who);
        self.part(group, who);
    }

    /// Takes the group's number from somebody who is in it no longer, neither way.
    fn part(&mut self, group: &str, who: &Subject) {
        let it = self.group(group);
        if it.members.contains(who) || it.outside.contains(who) {
            return;
        }
        let number = it.number;
        let Some(own) = self.numbers_of(who) else {
            return;
        };
        own.retain(|one| *one != number);
        self.tidy(who);
        self.tidy(&Subject::Group(group.to_owned()));
    }

    /// Forgets a subject that holds nothing and is in no group.
    fn tidy(&mut self, subject: &Subject) {
        let Some(number) = self.known(subject) else {
            return;
        };
        if self.everywhere.contains(&number) || self.paths.contains(&number) {
            return;
        }
        let alone = |own: Option<&Vec<u32>>| own.is_some_and(|own| own.len() == 1);
        match subject {
            Subject::User(name) if alone(self.users.get(name.as_str())) => {
                self.users.remove(name.as_str());
            }
            Subject::Robot(name) if alone(self.robots.get(name.as_str())) => {
                self.robots.remove(name.as_str());
            }
            Subject::Workload(rule) if alone(self.workloads.get(rule.as_str())) => {
                self.workloads.remove(rule.as_str());
            }
            Subject::Group(name) => {
                let group = self.groups.get(name.as_str());
                let nobody = |group: &Group| group.members.is_empty() && group.outside.is_empty();
                if group.is_some_and(|group| !group.there && nobody(group)) {
                    self.groups.remove(name.as_str());
                }
            }
            _ => {}
        }
    }

    /// The number of a subject, a new one if it has none.
    fn number(&mut self, subject: &Subject) -> u32 {
        match subject {
            Subject::Anonymous => ANYBODY,
            Subject::SignedIn => ANYBODY_SIGNED_IN,
            Subject::HtpasswdUsers => ANYBODY_OF_HTPASSWD,
            Subject::LocalAdmin => BORN_ADMIN,
            Subject::Group(name) => self.group(name).number,
            Subject::User(name) => numbers(&mut self.users, name, &mut self.next)[0],
            Subject::Robot(name) => numbers(&mut self.robots, name, &mut self.next)[0],
            Subject::Workload(rule) => numbers(&mut self.workloads, rule, &mut self.next)[0],
        }
    }

    /// What a role is made of, if there is one of that name.
    pub(super) fn role(&self, name: &str) -> Option<Permissions> {
        role(&self.roles, name)
    }
}

/// What a role is made of, built in or not.
pub(super) fn role(roles: &[(String, Permissions)], name: &str) -> Option<Permissions> {
    match name.parse::<Role>() {
        Ok(role) => Some(role.permissions()),
        Err(_) => {
            let at = roles.binary_search_by(|(known, _)| known.as_str().cmp(name));
            at.ok().map(|at| roles[at].1)
        }
    }
}

fn take(next: &mut u32) -> u32 {
    *next += 1;
    *next
}

/// The numbers of a user or robot, its own one first.
fn numbers<'a>(
    map: &'a mut Table<Arc<str>, Vec<u32>>,
    name: &str,
    next: &mut u32,
) -> &'a mut Vec<u32> {
    map.entry(name.into(), || vec![take(next)])
}
