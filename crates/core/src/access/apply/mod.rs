//! Rights written down whole: what is missing is made, and what is not named goes if that is asked for.
//!
//! Called by `server/src/api` for `wharf apply`. [`plan`] compares what is wanted with the rows of one epoch and judges all of it
//! by the rights of whoever asks, before anything is done; [`carry_out`] then makes one change after the other through
//! [`super::change`], so that each rule about changes holds here too, and stops when somebody else changes rights meanwhile. What
//! is done twice is done once, so stopping anywhere and running it again is safe. Bindings of the configuration are not touched.

mod step;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_roles;
mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wharf_meta::access::OWNER;
use wharf_meta::access::binding::Binding as Key;
use wharf_meta::principal;

pub use self::step::{Act, Step};
pub use self::trust::{WantedIssuer, WantedRule};

use super::binding::{Binding, Origin, Subject, check_word};
use super::change::{ChangeError, Changer, Granting};
use super::load::{Rows, Visibility, key};
use super::named::{check_role, gives_role};
use super::policy::{Policy, check_prefix};
use super::principal::Principal;
use super::role::{Permission, Permissions};
use super::{Access, ROBOT, split_robot_name};
use crate::error::Error;
use crate::identity::{self, IdentityError, Made, NewRobot};
use crate::registry::Registry;

/// Most changes of one plan: each is a transaction of its own.
pub const MOST_STEPS: usize = 2_000;
/// Rows in one page.
const PAGE: u32 = 500;

/// What shall be there.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Namespaces with their visibility.
    pub namespaces: Vec<(String, Visibility)>,
    /// Own roles, with what they are made of.
    pub roles: Vec<(String, Permissions)>,
    /// Whose tokens are trusted. One that is there keeps its secret.
    pub issuers: Vec<WantedIssuer>,
    /// Rules on them.
    pub rules: Vec<WantedRule>,
    /// Groups with their members.
    pub groups: Vec<(String, Vec<Subject>)>,
    /// Groups with the groups of providers that lead to them, `<provider>:<group>`.
    pub sources: Vec<(String, String)>,
    /// Robots. One that is there stays as it is.
    pub robots: Vec<NewRobot>,
    /// Bindings. One whose time is over need not be there.
    pub bindings: Vec<Granting>,
}

/// What is to be done, in this order.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The state of the rights that it was made for.
    pub epoch: i64,
    /// One change after the other: what is made comes first, so that a last owner can be replaced.
    pub steps: Vec<Step>,
}

/// What came of a plan.
#[derive(Debug)]
pub struct Applied {
    /// So many of its steps are done, from the first on.
    pub done: usize,
    /// Robots that were made, with their secrets.
    pub made: Vec<Made>,
    /// Why the others are not.
    pub stopped: Option<ApplyError>,
}

/// Why something is not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A change that is not made.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// A robot that is not made or removed.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Somebody changed rights meanwhile.
    #[error("somebody changed the rights meanwhile; look at the changes again, and run it again")]
    Changed,
}

impl From<Error> for ApplyError {
    fn from(error: Error) -> Self {
        Self::Change(ChangeError::Store(error))
    }
}

impl From<wharf_meta::Error> for ApplyError {
    fn from(error: wharf_meta::Error) -> Self {
        Error::from(error).into()
    }
}

fn wrong(text: String) -> ApplyError {
    ChangeError::Wrong(text).into()
}

/// Whoever asks, and by which rights.
struct Judge<'a> {
    changer: Changer<'a>,
    policy: Arc<Policy>,
}

impl Judge<'_> {
    fn needs(&self, permission: Permission, on: &str, what: &str) -> Result<(), ChangeError> {
        let doing = || match on {
            "" => what.to_owned(),
            on => format!("{what} {on}"),
        };
        self.changer.needs(&self.policy, permission, on, doing)
    }

    /// Whether they hold what a subject has, and so may say who that is.
    fn gives(&self, subject: &Subject) -> Result<(), ChangeError> {
        self.changer.holds_of(&self.policy, subject)
    }

    fn may(&self, permission: Permission, on: &str) -> bool {
        self.needs(permission, on, "").is_ok()
    }
}

/// What is missing, and with `prune` what is too much, as of this moment. Everything that is named is judged, also what is there
/// already: nobody learns here what they may not see.
pub async fn plan(
    registry: &Registry,
    changer: Changer<'_>,
    wanted: &Wanted,
    prune: bool,
) -> Result<Plan, ApplyError> {
    let access = &registry.access;
    let now = registry.clock.now_ms();
    access.rights.refresh().await?;
    let policy = access.policy();
    let rows = policy.rows();
    let judge = Judge { changer, policy };
    let mut named = Named::default();
    let mut steps = Vec::new();
    namespaces(&judge, wanted, &mut named, &mut steps)?;
    roles(&judge, wanted, &mut named, &mut steps)?;
    trust::wanted(access, &judge, wanted, &mut named, &mut steps)?;
    groups(&judge, wanted, &mut named, &mut steps)?;
    robots(registry, &judge, wanted, &mut named, &mut steps).await?;
    // Members and bindings may be of what the steps before make.
    members(&judge, &rows, wanted, &mut named, &mut steps)?;
    sources(access, &judge, &rows, wanted, &mut named, &mut steps)?;
    bindings(access, &judge, &rows, wanted, &mut named, &mut steps, now)?;
    if prune {
        too_much(registry, &judge, &rows, &named, &mut steps).await?;
    }
    if steps.len() > MOST_STEPS {
        return Err(wrong(format!(
            "these are {} changes, and {MOST_STEPS} can be made at once; split the file",
            steps.len()
        )));
    }
    Ok(Plan {
        epoch: rows.epoch,
        steps,
    })
}

/// What a file speaks of.
#[derive(Default)]
struct Named {
    namespaces: BTreeSet<String>,
    roles: BTreeSet<String>,
    issuers: BTreeSet<String>,
    rules: BTreeSet<String>,
    groups: BTreeSet<String>,
    /// Those of them whose members are listed.
    described: BTreeSet<String>,
    robots: BTreeSet<String>,
    members: BTreeSet<(String, Subject)>,
    sources: BTreeSet<(String, (String, String))>,
    bindings: BTreeSet<Key>,
}

impl Named {
    /// Whoever is spoken of is named, too.
    fn subject(&mut self, subject: &Subject) {
        match subject {
            Subject::Group(name) => self.groups.insert(name.clone()),
            Subject::Robot(name) => self.robots.insert(name.clone()),
            Subject::Workload(rule) => self.rules.insert(rule.clone()),
            _ => false,
        };
    }
}

fn once(set: &mut BTreeSet<String>, what: &str, name: &str) -> Result<(), ApplyError> {
    match set.insert(name.to_owned()) {
        true => Ok(()),
        false => Err(wrong(format!("{what} {name} is named twice; name it once"))),
    }
}

fn namespaces(
    judge: &Judge<'_>,
    wanted: &Wanted,
    named: &mut Named,
    steps: &mut Vec<Step>,
) -> Result<(), ApplyError> {
    for (path, visibility) in &wanted.namespaces {
        let on = check_prefix(path).map_err(|error| wrong(error.to_string()))?;
        if on.is_empty() {
            return Err(wrong("a namespace needs a path such as team/a".into()));
        }
        once(&mut named.namespaces, "namespace", on)?;
        judge.needs(Permission::ManageSettings, on, "change the settings of")?;
        let from = judge.policy.namespaces.get(on).copied();
        if from != Some(*visibility) {
            if *visibility != Visibility::Private {
                let reader = super::Role::Reader.permissions();
                judge.changer.holds(&judge.policy, reader, on)?;
            }
            steps.push(Step::SetNamespace {
                path: on.to_owned(),
                from,
                to: *visibility,
            });
        }
    }
    Ok(())
}

fn roles(
    judge: &Judge<'_>,
    wanted: &Wanted,
    named: &mut Named,
    steps: &mut Vec<Step>,
) -> Result<(), ApplyError> {
    for (name, permissions) in &wanted.roles {
        check_role(name, Some(*permissions))?;
        once(&mut named.roles, "role", name)?;
        judge.needs(Permission::Admin, "", "change roles")?;
        let from = judge.policy.role(name);
        if from != Some(*permissions) {
            gives_role(judge.changer, &judge.policy, name, *permissions)?;
            steps.push(Step::SetRole {
                name: name.clone(),
                from,
                to: *permissions,
            });
        }
    }
    Ok(())
}

fn groups(
    judge: &Judge<'_>,
    wanted: &Wanted,
    named: &mut Named,
    steps: &mut Vec<Step>,
) -> Result<(), ApplyError> {
    for (name, _) in &wanted.groups {
        check_word(name).map_err(|reason| wrong(format!("group {name:?}: {reason}")))?;
        once(&mut named.described, "group", name)?;
        named.groups.insert(name.clone());
        judge.needs(Permission::Admin, "", "make groups")?;
        if !judge.policy.has_group(name) {
            steps.push(Step::MakeGroup(name.clone()));
        }
    }
    Ok(())
}

async fn robots(
    registry: &Registry,
    judge: &Judge<'_>,
    wanted: &Wanted,
    named: &mut Named,
    steps: &mut Vec<Step>,
) -> Result<(), ApplyError> {
    for new in &wanted.robots {
        identity::check_robot(registry, new).map_err(|error| match error {
            IdentityError::Wrong(text) if !text.contains(&new.name) => {
                wrong(format!("robot {}: {text}", new.name))
            }
            IdentityError::Network(error) => wrong(format!("robot {}: {error}", new.name)),
            error => error.into(),
        })?;
        once(&mut named.robots, "robot", &new.name)?;
        judge.needs(Permission::ManageRobots, home(&new.name), "make robots of")?;
        let name = new.name.clone();
        match registry.meta.read(principal::Get { name }).await? {
            None => {
                identity::lasts(judge.changer)?;
                // Grants may be older than whom they are for.
                stands_above(registry, judge, &new.name)?;
                steps.push(Step::MakeRobot(new.clone()));
            }
            Some(row) if row.kind == ROBOT => {}
            Some(_) => return Err(wrong(format!("{} is no robot but a user", new.name))),
        }
    }
    Ok(())
}

fn members(
    judge: &Judge<'_>,
    rows: &Rows,
    wanted: &Wanted,
    named: &mut Named,
    steps: &mut Vec<Step>,
) -> Result<(), ApplyError> {
    let there: BTreeSet<&(String, Subject)> = rows.members.iter().collect();
    for (group, members) in &wanted.groups {
        for who in members {
            if !matches!(
                who,
                Subject::User(_) | Subject::Robot(_) | Subject::Workload(_)
            ) {
                let text = format!(
                    "{who} cannot be in group {group}; users, robots and rules on workloads can"
                );
                return Err(wrong(text));
            }
            named.subject(who);
            let member = (group.clone(), who.clone());
            let (new, there) = (!named.members.contains(&member), there.contains(&member));
            if new && !there {
                judge.gives(&Subject::Group(group.clone()))?;
                steps.push(Step::AddMember {
                    group: group.clone(),
                    who: who.clone(),
                });
            }
            named.members.insert(member);
        }
    }
    Ok(())
}

fn sources(
    access: &Access,
    judge: &Judge<'_>,
    rows: &Rows,
    wanted: &Wanted,
    named: &mut Named,
    steps: &mut Vec<Step>,
) -> Result<(), ApplyError> {
    for (group, text) in &wanted.sources {
        judge.needs(Permission::Admin, "", "change who is in groups")?;
        let source = (group.clone(), access.source(text, true)?);
        if !rows.sources.contains(&source) && !named.sources.contains(&source) {
            judge.gives(&Subject::Group(group.clone()))?;
            steps.push(Step::AddSource {
                group: group.clone(),
                source: text.clone(),
            });
        }
        named.sources.insert(source);
    }
    Ok(())
}

fn bindings(
    access: &Access,
    judge: &Judge<'_>,
    rows: &Rows,
    wanted: &Wanted,
    named: &mut Named,
    steps: &mut Vec<Step>,
    now: i64,
) -> Result<(), ApplyError> {
    let there: BTreeSet<Key> = rows.bindings.iter().filter_map(row).collect();
    for granting in &wanted.bindings {
        let on = check_prefix(&granting.on).map_err(|error| wrong(error.to_string()))?;
        judge.needs(Permission::ManageBindings, on, "grant rights on")?;
        // As it would be, whether it could still be made or not.
        let key = key(&Binding {
            subject: granting.subject.clone(),
            role: granting.role.clone(),
            permissions: Permissions::NONE,
            on: on.to_owned(),
            conditions: granting.conditions.clone(),
            origin: Origin::Birth,
        });
        let Some(key) = key else { continue };
        if let Subject::Group(name) = &granting.subject
            && !judge.policy.has_group(name)
            && !named.groups.contains(name)
        {
            let text = format!("there is no group {name}; name it as a group, too");
            return Err(ChangeError::Unknown(text).into());
        }
        named.subject(&granting.subject);
        let role = wanted.roles.iter().find(|(name, _)| *name == granting.role);
        if role.is_none() {
            named.roles.insert(granting.role.clone());
        }
        let over = granting.conditions.expires_at.is_some_and(|end| end <= now);
        if named.bindings.insert(key.clone()) && !there.contains(&key) && !over {
            let made = |rule: &String| wanted.rules.iter().any(|one| one.name == *rule);
            let role = role.map(|(_, permissions)| *permissions);
            let role = role.or_else(|| judge.policy.role(&granting.role));
            let binding = match &granting.subject {
                // It is there when the binding is made.
                Subject::Workload(rule) if made(rule) => Ok(()),
                subject => access.knows(subject),
            };
            let binding = binding.and_then(|()| access.formed(judge.changer, granting, role, now));
            let binding = binding.map_err(|error| about(granting, error))?;
            judge
                .changer
                .holds(&judge.policy, binding.permissions, on)?;
            steps.push(Step::Grant(binding));
        }
    }
    Ok(())
}

/// Which of many bindings an error is about.
fn about(granting: &Granting, error: ChangeError) -> ChangeError {
    let place = match granting.on.as_str() {
        "" => "everywhere".to_owned(),
        on => format!("on {on}"),
    };
    let told = |text| format!("{} as {} {place}: {text}", granting.subject, granting.role);
    match error {
        ChangeError::Wrong(text) => ChangeError::Wrong(told(text)),
        ChangeError::Unknown(text) => ChangeError::Unknown(told(text)),
        error => error,
    }
}

/// A binding's row, if it is one.
fn row(binding: &Binding) -> Option<Key> {
    binding.origin.is_row().then(|| key(binding)).flatten()
}

/// The namespace that a robot belongs to.
fn home(robot: &str) -> &str {
    split_robot_name(robot).map_or("", |(namespace, _)| namespace)
}

/// All that is not named, as far as whoever asks manages it.
async fn too_much(
    registry: &Registry,
    judge: &Judge<'_>,
    rows: &Rows,
    named: &Named,
    steps: &mut Vec<Step>,
) -> Result<(), ApplyError> {
    let admin = judge.may(Permission::Admin, "");
    let kept: BTreeSet<&str> = (named.bindings.iter())
        .map(|key| &*key.namespace)
        .chain(named.namespaces.iter().map(String::as_str))
        .collect();
    let mut by_path: BTreeMap<&str, Vec<Binding>> = BTreeMap::new();
    for binding in &rows.bindings {
        let Some(key) = row(binding) else { continue };
        if !named.bindings.contains(&key) && judge.may(Permission::ManageBindings, &binding.on) {
            by_path
                .entry(&binding.on)
                .or_default()
                .push(binding.clone());
        }
    }
    // A last owner goes with its namespace only.
    let mut whole = BTreeMap::new();
    let settled = rows.namespaces.iter().map(|(path, _)| &**path);
    let owned = by_path.iter().filter(|(_, bindings)| {
        let mut roles = bindings.iter().map(|binding| &*binding.role);
        roles.any(|role| role == OWNER)
    });
    let candidates: BTreeSet<&str> = settled.chain(owned.map(|(path, _)| *path)).collect();
    for path in candidates {
        let above = path.rsplit_once('/').map_or("", |(above, _)| above);
        if path.is_empty() || kept.contains(path) || !judge.may(Permission::Admin, above) {
            continue;
        }
        whole.insert(path, by_path.remove(path).unwrap_or_default());
    }
    for binding in by_path.into_values().flatten() {
        judge
            .changer
            .holds(&judge.policy, binding.permissions, &binding.on)?;
        steps.push(Step::Revoke(binding));
    }
    for (path, visibility) in &rows.namespaces {
        // Bindings on it are named, and it is not: it has no settings of its own.
        let bare = kept.contains(&**path) && !named.namespaces.contains(path);
        let closed = *visibility == Visibility::Private;
        if bare && !closed && judge.may(Permission::ManageSettings, path) {
            steps.push(Step::SetNamespace {
                path: path.clone(),
                from: Some(*visibility),
                to: Visibility::Private,
            });
        }
    }
    for (path, bindings) in whole {
        let all = rows.bindings.iter();
        let all = all.filter(|one| one.on == path && one.origin.is_row());
        judge.changer.holds_all(&judge.policy, all)?;
        let path = path.to_owned();
        steps.push(Step::RemoveNamespace { path, bindings });
    }
    let gone: BTreeSet<String> = unnamed_robots(registry, judge, named).await?;
    if admin {
        for (group, who) in &rows.members {
            let goes = matches!(who, Subject::Robot(name) if gone.contains(name));
            let member = (group.clone(), who.clone());
            // Of a group that bindings speak of nothing is said about who is in it.
            if named.described.contains(group) && !goes && !named.members.contains(&member) {
                let (group, who) = member;
                judge.gives(&Subject::Group(group.clone()))?;
                steps.push(Step::RemoveMember { group, who });
            }
        }
        for (group, source) in &rows.sources {
            let one = (group.clone(), source.clone());
            if named.described.contains(group) && !named.sources.contains(&one) {
                let (group, (provider, name)) = one;
                let source = format!("{provider}:{name}");
                judge.gives(&Subject::Group(group.clone()))?;
                steps.push(Step::RemoveSource { group, source });
            }
        }
        for group in rows
            .groups
            .iter()
            .filter(|name| !named.groups.contains(*name))
        {
            judge.gives(&Subject::Group(group.clone()))?;
            steps.push(Step::RemoveGroup(group.clone()));
        }
        trust::too_much(&registry.access, judge, named, steps)?;
        for (role, _) in &rows.roles {
            if !named.roles.contains(role) {
                steps.push(Step::RemoveRole(role.clone()));
            }
        }
    }
    for robot in gone {
        stands_above(registry, judge, &robot)?;
        steps.push(Step::RemoveRobot(robot));
    }
    Ok(())
}

/// Whether they hold all that a robot of that name holds.
fn stands_above(registry: &Registry, judge: &Judge<'_>, robot: &str) -> Result<(), ChangeError> {
    let name = robot.into();
    let access = &registry.access;
    access.stands_above(judge.changer, &Principal::Robot { name })
}

/// Robots that nobody speaks of, as far as whoever asks manages them.
async fn unnamed_robots(
    registry: &Registry,
    judge: &Judge<'_>,
    named: &Named,
) -> Result<BTreeSet<String>, ApplyError> {
    let mut gone = BTreeSet::new();
    let mut after = String::new();
    loop {
        let list = principal::List {
            kind: ROBOT.into(),
            after,
            until: None,
            limit: PAGE,
        };
        let page = registry.meta.read(list).await?;
        let Some(last) = page.last() else {
            return Ok(gone);
        };
        after = last.name.clone();
        let unnamed = page.into_iter().map(|row| row.name).filter(|name| {
            !named.robots.contains(name) && judge.may(Permission::ManageRobots, home(name))
        });
        gone.extend(unnamed);
    }
}

/// Makes a plan so, unless the rights are others than those that it was made for.
pub async fn carry_out(registry: &Registry, changer: Changer<'_>, plan: &Plan) -> Applied {
    let mut applied = Applied {
        done: 0,
        made: Vec::new(),
        stopped: None,
    };
    let mut epoch = plan.epoch;
    for step in &plan.steps {
        if registry.access.policy().epoch() != epoch {
            applied.stopped = Some(ApplyError::Changed);
            break;
        }
        match step.take(registry, changer).await {
            Ok(made) => applied.made.extend(made),
            Err(error) => {
                applied.stopped = Some(error);
                break;
            }
        }
        applied.done += 1;
        let after = registry.access.policy().epoch();
        epoch = match step.is_one_change() {
            // Had somebody else changed something in between, it would be higher still.
            true => after.min(epoch + 1),
            false => after,
        };
    }
    applied
}

/// Everything that is there, as it would be wanted: to be written down, and applied elsewhere or later.
pub async fn export(registry: &Registry) -> Result<Wanted, ApplyError> {
    let access = &registry.access;
    access.rights.refresh().await?;
    let rows = access.policy().rows();
    let members = |group: &String| {
        let members = rows.members.iter().filter(|(of, _)| of == group);
        members.map(|(_, who)| who.clone()).collect()
    };
    let bindings = rows.bindings.iter().filter(|one| one.origin.is_row());
    let nobody = Judge {
        changer: Changer::Operator,
        policy: access.policy(),
    };
    let robots = unnamed_robots(registry, &nobody, &Named::default()).await?;
    let (issuers, rules) = trust::export(access);
    let mut wanted = Wanted {
        namespaces: rows.namespaces.clone(),
        roles: rows.roles.clone(),
        issuers,
        rules,
        groups: (rows.groups.iter())
            .map(|group| (group.clone(), members(group)))
            .collect(),
        sources: (rows.sources.iter())
            .map(|(group, (provider, name))| (group.clone(), format!("{provider}:{name}")))
            .collect(),
        robots: Vec::new(),
        bindings: bindings
            .map(|binding| Granting {
                subject: binding.subject.clone(),
                role: binding.role.clone(),
                on: binding.on.clone(),
                conditions: binding.conditions.clone(),
            })
            .collect(),
    };
    for name in robots {
        let get = principal::Get { name: name.clone() };
        let row = registry.meta.read(get).await?;
        wanted.robots.push(NewRobot {
            name,
            networks: row.map(|row| row.networks).unwrap_or_default(),
            ..NewRobot::default()
        });
    }
    Ok(wanted)
}
